"""One picture on a CPU: every artifact of a student beside the same student in PyTorch's eager mode.

    python -m benchmarks.latency_vs_pytorch --flagfile=pipelines/sdn_flowers64.flags --work_dir=FOLDER [--width=0.25]

The recipe's student gets random weights and is exported into `--work_dir`, unless one is there. All contenders have
the same weights and read the same captions. Nothing is timed unless every float32 picture is PyTorch's to 1/255; then
they are timed by turns, each in a process of its own, from the caption to the picture. PyTorch runs under
`inference_mode`, with its tensors as NCHW and as `channels_last`; the better of both is what the others are compared
with. Needs the extra `benchmarks`.
"""

import tempfile
from pathlib import Path

import numpy as np
from absl import flags

from benchmarks import command
from benchmarks.on_device import NAMES, artifacts_of
from benchmarks.reports import markdown
from benchmarks.workers import Worker, by_turns
from t2i_kd import recipe_flags
from t2i_kd.errors import UserError
from t2i_kd.exporting.fidelity import LARGEST_ALLOWED, MEAN_ALLOWED, difference
from t2i_kd.sdn import SDNRecipe

WORDS = 4000
CAPTIONS = 64
DRAWN = 8
# The spread of an untrained student's pixels, as a share of half the range, that a trained one's have about.
SPREAD = 0.3
PYTORCH = {"pytorch": "PyTorch eager, NCHW", "pytorch_channels_last": "PyTorch eager, channels_last"}


def define_flags():
    """Defines this command's flags."""
    flags.DEFINE_string("work_dir", "", "folder of the student and its export")
    flags.DEFINE_list("threads", ["1", "2"], "numbers with commas between them")
    flags.DEFINE_integer("repeats", 50, "pictures that are timed, of each contender and number of threads", 30)
    flags.DEFINE_boolean("real_time", False, "time at real-time priority, on a machine that others use; Linux, root")


def make_captions(count=CAPTIONS, seed=0):
    """Captions of 6 to 20 made-up words each; a vocabulary's size matters to a table's look-up, not its words."""
    random = np.random.default_rng(seed)
    return [" ".join(f"w{word}" for word in random.integers(0, WORDS, random.integers(6, 20))) for _ in range(count)]


def make_run(recipe, folder):
    """Writes a run directory of the recipe's student with random weights, its pixels spread as a trained one's."""
    import keras

    from t2i_kd.conditions.caption import CaptionCondition
    from t2i_kd.student import save_network
    from t2i_kd.text.front_end import TokenFrontEnd
    from t2i_kd.text.tokenizer import Tokenizer
    from t2i_kd.training.mirrored_generator import build_generator
    from t2i_kd.training.text_to_image import build_student

    if recipe.text.text_encoder != "gru" or recipe.student.noise_dim:
        raise UserError("--text_encoder, --noise_dim: benchmarks/pytorch_student.py knows gru without noise only")
    keras.utils.set_random_seed(recipe.training.seed)
    tokenizer = Tokenizer("words", tuple(f"w{word}" for word in range(WORDS)), recipe.text.text_length)
    condition = CaptionCondition(TokenFrontEnd("gru", tokenizer))
    encoder, sdn = condition.front_end.build_encoder(recipe.text), recipe.sdn
    generator = build_generator(
        recipe.data.resolution,
        recipe.text.text_dim,
        sdn.width,
        initializer=sdn.initializer,
        image_output=sdn.image_output,
        seed=recipe.training.seed,
        head_rank=sdn.head_rank,
    )
    network = build_student(condition, encoder, generator, recipe.student.whiten_text)
    captions = make_captions()
    image = network.get_layer("generator").get_layer("image_linear")
    drawn = network(condition.arrays(captions[:DRAWN]))["image"].numpy()
    kernel, bias = image.get_weights()
    image.set_weights([kernel * SPREAD * 127.5 / drawn.std(), bias])
    folder.mkdir(parents=True)
    condition.save(folder)
    condition.save_items(captions, folder)
    (folder / "recipe.json").write_text(recipe.to_json(), "utf-8")
    save_network(network, folder / "student.keras")


def contenders(work_dir):
    """{name: (path, runtime)}: PyTorch, the version's artifacts, and the Keras network in XLA."""
    paths, _ = artifacts_of(work_dir / "export" / "1")
    return {
        **{label: (work_dir / "run", runtime) for runtime, label in PYTORCH.items()},
        **{NAMES[kind]: (path, "artifact") for kind, path in paths.items()},
        "TensorFlow, XLA": (work_dir / "run", "xla"),
    }


def check_pictures(workers):
    """{name: `Difference` to PyTorch}. Raises `UserError` where a float32 contender draws something else."""
    expected = workers[PYTORCH["pytorch"]].pictures
    found = {name: difference(expected, worker.pictures) for name, worker in workers.items()}
    allowed = {NAMES[kind]: largest for kind, largest in LARGEST_ALLOWED.items()} | {
        NAMES[kind]: 255 for kind in MEAN_ALLOWED
    }
    for name, off in found.items():
        if off.largest > allowed.get(name, 1):
            raise UserError(f"{name}: differs from PyTorch by {off.largest}/255; the timing would mean nothing")
    return found


def rows(milliseconds, differences):
    """The table's lines: {heading: cell}.

    Args:
        milliseconds: {threads: {name: median}}.
        differences: {name: `Difference`}.
    """
    lines = [
        {"": name, "mean difference /255": f"{off.mean:.3f}", "largest": off.largest}
        for name, off in differences.items()
    ]
    for threads, medians in milliseconds.items():
        best = min(medians[label] for label in PYTORCH.values())
        for line in lines:
            median = medians[line[""]]
            line[f"ms, {threads} thread{'s' * (threads > 1)}"] = f"{median:.2f}"
            line[f"PyTorch's time / it, {threads}"] = f"{best / median:.2f}x"
    return lines


def main():
    """Makes the student where it is missing, checks the pictures, times, and prints the table."""
    values = flags.FLAGS
    if not values.work_dir:
        raise UserError("--work_dir: missing; name a folder for the student and its export")
    work_dir = Path(values.work_dir)
    if not (work_dir / "run").is_dir():
        make_run(recipe_flags.from_flags(SDNRecipe, values, "sdn"), work_dir / "run")
    if not (work_dir / "export" / "1").is_dir():
        from t2i_kd.exporting.exporter import export_run

        export_run(work_dir / "run", work_dir / "export")
    captions, milliseconds = make_captions(DRAWN), {}
    for threads in map(int, values.threads):
        with tempfile.TemporaryDirectory() as folder:
            workers = {
                name: Worker(path, captions, folder, str(number), runtime, threads, values.real_time)
                for number, (name, (path, runtime)) in enumerate(contenders(work_dir).items())
            }
            differences = check_pictures(workers)
            milliseconds[threads] = by_turns(workers, values.repeats)
            for worker in workers.values():
                worker.close()
    print(markdown(rows(milliseconds, differences)))


if __name__ == "__main__":
    command.run(main, define_flags, __doc__.partition("\n")[0], SDNRecipe)
