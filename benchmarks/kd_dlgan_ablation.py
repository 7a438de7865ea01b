"""Trains KD-DLGAN's terms, alone and together, for the same number of steps, evaluates them, draws their overfitting.

    python -m benchmarks.kd_dlgan_ablation --set=cats --data_dir=CATS.zip --run_dir=runs/kd_cats
        [--rows=diffaugment,both] [--teacher_weights=LITE0.npz --sentence_vocabulary=vocab.txt]
        [--seeds=0,1,2] [--cores=0,1] [--plot=overfitting.png]

All runs are one recipe and differ in the discriminator, in its terms and in the seed alone. A finished run is not
trained again, an interrupted one goes on. The teacher's files are asked for where a row has terms of the teacher. Then
every run's last student and its best one, by the run's own measurements, are evaluated on held-out images with
features of a network that taught none of them, and printed as a table: the mean over the seeds, and the difference to
the row of the same discriminator without terms, paired by seed, with a 95 % interval (Student's t over the seeds).
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
from absl import flags

from benchmarks import command, reports
from benchmarks.reports import by_heading, compared, kept
from benchmarks.runs import asked_of, chosen_cores, chosen_seeds, define_cores, train_rows
from t2i_kd.errors import UserError
from t2i_kd.evaluation import evaluate
from t2i_kd.options import TeacherOptions
from t2i_kd.student import BEST_FILE, WEIGHTS_FILE

PLAIN, TEACHER = "plain", "teacher"
# Of this package, and none of the networks that teach a row.
EXTRACTOR = TeacherOptions(teacher="vgg19_slim")
METRICS = "frechet,kernel,manifold,diversity"
# Heading -> the metric and how the name of its line begins.
COLUMNS = {
    "Fréchet": ("frechet", "frechet"),
    "kernel": ("kernel", "kernel"),
    "precision": ("manifold", "precision"),
    "recall": ("manifold", "recall"),
    "coverage": ("manifold", "coverage"),
    "diversity": ("diversity", "diversity_captions"),
}
LAST, BEST = "last", "best"
# Of a run's own measurements: ADA's r_v, see docs/runs.md.
OVERFITTING = "overfitting"


@dataclasses.dataclass(frozen=True)
class Setting:
    """One set of images and how the rows are trained on it.

    Args:
        recipe: path of the flagfile that all rows share.
        steps: of a row, where no other number is asked for.
        discriminators: {PLAIN or TEACHER: its flags}.
        cgkd_weights: {PLAIN or TEACHER: that of CGKD}.
        stage_options: {PLAIN or TEACHER: what its stage has beside `STAGE`}.
        teacher: flags of the teacher of the terms.
        prompts: flags of what CGKD correlates with.
        subset: flags of how many images are trained on, where not as many as the recipe says.
    """

    recipe: str
    steps: int
    discriminators: dict
    cgkd_weights: dict
    stage_options: dict
    teacher: tuple
    prompts: tuple
    subset: tuple = ()


STAGE = "learning_rate=4e-4 schedule=cosine"
AGKD_WEIGHT, DIVERSITY_WEIGHT = 0.5, 0.01
# About that of CLIP's vectors, as the authors' code has them.
AGKD_LENGTH = 10
THROUGH_LITE0 = (
    "--discriminator=teacher",
    "--discriminator_teacher=efficientnet_lite0",
    "--discriminator_mixing=scales",
    "--discriminator_channels=32",
)
NARROW = ("--discriminator=plain", "--discriminator_channels=16")
CATS = (
    "a white cat; a black cat; a ginger cat; a tabby cat; a grey cat; a Siamese cat; a Persian cat; a kitten; a lion; "
    "a dog"
)
CIFAR10_TENTH = Setting(
    recipe="benchmarks/kd_dlgan_cifar10.flags",
    steps=3000,
    discriminators={PLAIN: NARROW, TEACHER: (*THROUGH_LITE0, "--discriminator_side=64")},
    cgkd_weights={PLAIN: 0.01, TEACHER: 0.01},
    stage_options={PLAIN: "", TEACHER: ""},
    teacher=("--teacher_side=64",),
    prompts=("--prompts=classes", "--prompt_template={}"),
)
SETS = {
    "cats": Setting(
        recipe="benchmarks/kd_dlgan_cats64.flags",
        steps=3000,
        discriminators={PLAIN: NARROW, TEACHER: THROUGH_LITE0},
        cgkd_weights={PLAIN: 0.01, TEACHER: 0.1},
        stage_options={
            PLAIN: "",
            TEACHER: "seed_diversity_weight=4 seed_diversity_target=0.85 seed_diversity_side=4",
        },
        teacher=("--teacher_side=96",),
        prompts=(f"--prompts={CATS}",),
    ),
    "cifar10": CIFAR10_TENTH,
    "cifar10_fifth": dataclasses.replace(CIFAR10_TENTH, subset=("--max_examples=10000",)),
}
# Row -> (its discriminator, its terms, its further flags).
ROWS = {
    "diffaugment": (PLAIN, (), ()),
    "agkd": (PLAIN, ("agkd",), ()),
    "cgkd": (PLAIN, ("cgkd",), ()),
    "both": (PLAIN, ("agkd", "cgkd"), ()),
    "teacher": (TEACHER, (), ()),
    "teacher_both": (TEACHER, ("agkd", "cgkd"), ()),
    "no_augmentation": (PLAIN, (), ("--augmentation=",)),
    "lecam": (PLAIN, (), ("--lecam_weight=0.3",)),
    "diversity": (PLAIN, ("agkd", "cgkd", "diversity"), ()),
    "teacher_both_float32": (TEACHER, ("agkd", "cgkd"), ("--dtype_policy=float32",)),
}
REFERENCES = {PLAIN: "diffaugment", TEACHER: "teacher"}
MAIN_ROWS = ("diffaugment", "agkd", "cgkd", "both", "teacher", "teacher_both")


def row_flags(setting, row, steps, seed, files=(), agkd_length=AGKD_LENGTH):
    """The flags of `t2i_kd.train` that make a row what it is.

    Args:
        setting: a `Setting`.
        row: a name of `ROWS`.
        steps: of its stage.
        seed: an integer.
        files: the flags that say where the teacher's files are.
        agkd_length: of the teacher's vectors, in rows with AGKD.
    """
    discriminator, terms, further = ROWS[row]
    weights = {"agkd": AGKD_WEIGHT, "cgkd": setting.cgkd_weights[discriminator], "diversity": DIVERSITY_WEIGHT}
    given = [*setting.discriminators[discriminator], *setting.subset, f"--seed={seed}"]
    given += [f"--{term}_weight={weight if term in terms else 0}" for term, weight in weights.items()]
    if terms:
        given += ["--teacher=conse", "--teacher_sees=plain", "--head_units=256", *setting.teacher, *files]
    else:
        given.append("--teacher=none")
    if "cgkd" in terms:
        given += setting.prompts
    if "agkd" in terms:
        given.append(f"--agkd_length={agkd_length:g}")
    options = f"warmup_steps={min(100, steps // 10)} {setting.stage_options[discriminator]}".rstrip()
    return [*given, *further, f"--stage=gan: objective=kd_dlgan steps={steps} {STAGE} {options}"]


def students(folder):
    """{`LAST`, `BEST`: file} of a run; without the best where it kept none."""
    best = folder / "checkpoints" / "gan" / BEST_FILE
    return {LAST: folder / WEIGHTS_FILE} | ({BEST: best} if best.is_file() else {})


def evaluate_run(folder, **options):
    """{`LAST`, `BEST`: {heading: value}} of a run, kept in its folder; see `t2i_kd.evaluation.evaluate`."""
    given = {"teacher": EXTRACTOR, "extractor": "teacher", "bootstrap": 0, "report": print, **options}

    def measure():
        found = students(folder)
        report = evaluate(list(found.values()), "image_folder", METRICS, **given)
        return dict(zip(found, by_heading(report, COLUMNS).values(), strict=True))

    return kept(folder / "evaluated.json", options, measure)


def markdown(evaluated, rows, seeds):
    """The table of {(row, seed): {which: {heading: value}}}: a line for each row and for its last and best students."""
    lines = []
    for row in rows:
        reference = REFERENCES[ROWS[row][0]]
        for which in (LAST, BEST):
            if not all(which in evaluated[row, seed] for seed in seeds):
                continue
            cells = {"row": row, "student": which}
            for heading in COLUMNS:
                values = [evaluated[row, seed][which][heading] for seed in seeds]
                references = [evaluated.get((reference, seed), {}).get(which) for seed in seeds]
                if row == reference or not all(references):
                    cells[heading] = f"{np.mean(values):.3g}"
                else:
                    cells[heading] = compared(values, [each[heading] for each in references])
            lines.append(cells)
    return reports.markdown(lines)


def curve(folder):
    """The steps at which a run measured its overfitting, and what it was: two lists of the same length."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text("utf-8").splitlines())
    found = [(logs["step"], logs[OVERFITTING]) for logs in lines if OVERFITTING in logs]
    return [step for step, _ in found], [value for _, value in found]


def plot(folders, path):
    """Draws the overfitting of {(row, seed): folder}: a line for each run, of one colour for each row."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    for number, row in enumerate(dict.fromkeys(row for row, _ in folders)):
        runs = [folder for (of, _), folder in folders.items() if of == row]
        for folder in runs:
            label = row if folder is runs[0] else None
            axis.plot(*curve(folder), "o-", color=f"C{number}", linewidth=1, markersize=2, label=label)
    # Beyond it lie those of discriminators that say next to nothing, a quotient of two small numbers.
    axis.set(xlabel="steps", ylabel="overfitting (0: none, 1: by heart)", ylim=(-0.25, 1.25))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)
    figure.savefig(path, dpi=100)


def define_flags():
    """Defines this command's flags."""
    flags.DEFINE_enum("set", "cats", tuple(SETS), "how and on what kind of images the rows are trained")
    flags.DEFINE_string("data_dir", "", "folder or .zip of the images, with metadata.jsonl")
    flags.DEFINE_string("teacher_weights", "", "of conse; see t2i_kd.train")
    flags.DEFINE_string("sentence_vocabulary", "", "of conse's sentence encoder; see t2i_kd.train")
    flags.DEFINE_string("run_dir", "", "folder of the runs")
    flags.DEFINE_list("rows", list(MAIN_ROWS), f"names with commas between them, of {', '.join(ROWS)}")
    flags.DEFINE_list("seeds", ["0", "1", "2"], "seeds with commas between them")
    flags.DEFINE_integer("steps", 0, "of each row; 0: as many as the set's rows have", 0)
    flags.DEFINE_float("agkd_length", AGKD_LENGTH, "of the teacher's vectors, in rows with AGKD")
    flags.DEFINE_integer("num_captions", 1000, "held-out captions that each student is evaluated by", 1)
    flags.DEFINE_string("cache_dir", "~/.cache/t2i_kd", "see t2i_kd.evaluate")
    define_cores()
    flags.DEFINE_string("plot", "", "file of the plot of overfitting, .png or .svg; empty: none")


def main():
    """Trains, evaluates, prints the table and draws the overfitting."""
    values = flags.FLAGS
    setting = SETS[values.set]
    for row in values.rows:
        if row not in ROWS:
            raise UserError(f"--rows: {row!r} is none of {', '.join(ROWS)}")
    if not values.run_dir:
        raise UserError("--run_dir: say where the runs are kept")
    files = [
        f"--{name}={values[name].value}" for name in ("teacher_weights", "sentence_vocabulary") if values[name].value
    ]
    seeds = chosen_seeds(values.seeds)
    folders = {(row, seed): Path(values.run_dir) / f"{row}-seed{seed}" for seed in seeds for row in values.rows}
    asked = {}
    for (row, seed), folder in folders.items():
        options = row_flags(setting, row, values.steps or setting.steps, int(seed), files, values.agkd_length)
        asked[folder] = asked_of(setting.recipe, f"--data_dir={values.data_dir}", *options)
    train_rows(asked, chosen_cores(values.cores))
    measured = {"data_dir": values.data_dir, "num_captions": values.num_captions, "cache_dir": values.cache_dir}
    evaluated = {key: evaluate_run(folder, **measured) for key, folder in folders.items()}
    print(markdown(evaluated, values.rows, seeds))
    if values.plot:
        plot(folders, values.plot)


if __name__ == "__main__":
    command.run(main, define_flags, __doc__.partition("\n")[0])
