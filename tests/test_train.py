"""`python -m t2i_kd.train` as a user runs it: to its end, and with input that is wrong."""

import re
import shlex
import types

import numpy as np
import pytest
from PIL import Image

from t2i_kd import generate, systems
from t2i_kd.data.captioned_shapes import IMAGES_PER_COMBINATION, combinations
from t2i_kd.recipe_flags import parse_stage
from t2i_kd.sdn import SDNStage
from t2i_kd.student import load_student
from t2i_kd.systems import load_recipe, recipe_from_json
from tests.commands import Fork, arrays, files, finish, metrics, start
from tests.systems import recipe_of

SMALL = ("--resolution=32", "--text_dim=16", "--word_dim=8", "--text_length=5", "--batch_size=4")
# With every option that keeps a state or draws at random.
RUN = (
    *SMALL,
    "--teacher=vgg19_slim",
    "--width=0.25",
    "--initializer=he",
    "--image_output=centred",
    "--whiten_text",
    "--noise_dim=3",
    "--flip",
    "--ema=0.9",
    "--clipnorm=5",
    "--checkpoint_every=4",
    "--sample_every=10",
    "--log_every=1",
    "--stage=text: objective=ds_sje steps=6 learning_rate=1e-3 tap_weights=pool3:1",
    "--stage=one: objective=mirrored steps=14 error=annealed scaling=normalised schedule=cosine warmup_steps=3",
    "--stage=two: objective=perceptual steps=13 learning_rate=1e-3 tap_weights=image:3,conv3_*:1 frozen=text_*,fc*",
)
STAGES = ("text", "one", "two")
NO_TEACHER = (*SMALL, "--teacher=none", "--width=0.03125")
STAGE = "--stage=one: objective=mirrored steps=3 tap_weights=image:1"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupted, and what it printed."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    return run_dir, finish(start(*RUN, f"--run_dir={run_dir}"))


def test_a_run_leaves_its_files(whole):
    run_dir, output = whole
    assert f"{run_dir}: trained\n" in output
    written = [name for name in files(run_dir) if not name.startswith("tensorboard/")]
    # None of the DS-SJE stage, which trains the text encoder alone.
    sheets = ["one-00000007", "one-00000010", "one-00000020"]
    sheets += ["two-00000021", "two-00000030", "two-00000033"]
    assert written == sorted(
        [
            "captions.txt",
            "condition.json",
            "checkpoints/two/step-00000013.npz",
            "inputs.json",
            *(f"checkpoints/{stage}/{name}" for stage in STAGES for name in ("final.npz", "student.keras")),
            "metrics.jsonl",
            "recipe.json",
            *(f"samples/{name}.png" for name in sheets),
            "student.keras",
            "text_encoder.weights.h5",
            "vocabulary.txt",
        ]
    )
    assert len(list((run_dir / "tensorboard").iterdir())) == 3
    recipe = load_recipe(run_dir / "recipe.json")
    assert recipe.stages[2] == parse_stage(RUN[-1].removeprefix("--stage="), SDNStage)
    assert (run_dir / "captions.txt").read_text().count("\n") == 256
    with Image.open(run_dir / "samples" / "two-00000033.png") as sheet:
        assert sheet.size[0] > 4 * 128


def test_it_says_what_to_do_next(whole, tmp_path):
    run_dir, output = whole
    generating, evaluating = map(shlex.split, output.partition("\nWhat to do next:\n")[2].splitlines())
    assert generating[1:4] == ["-m", "t2i_kd.generate", f"--model={run_dir}"]
    caption = generating[4].removeprefix("--caption=")
    assert caption in (run_dir / "captions.txt").read_text().splitlines()
    generate.write_images(str(run_dir), [caption], [], 0, tmp_path / "picture.png")
    # Its captions are longer than the few words that this student reads.
    assert not any("does not know" in line for line in load_student(run_dir).condition.unread(caption))
    assert generating[5:] == ["--out=picture.png"]
    assert evaluating[1:] == [
        "-m",
        "t2i_kd.evaluate",
        f"--model={run_dir}",
        "--metrics=kernel,diversity",
        "--extractor=teacher",
        "--teacher=efficientnet_lite0",
        "--out=report.json",
    ]


def test_metrics_have_every_step_and_tap(whole):
    lines = metrics(whole[0])
    assert [line["step"] for line in lines] == list(range(1, 34))
    assert [line["stage"] for line in lines] == ["text"] * 6 + ["one"] * 14 + ["two"] * 13
    assert {"loss", "retrieval_accuracy"} < set(lines[0])
    assert {"loss", "image", "pool5", "conv1_1", "images_per_second"} < set(lines[6])
    assert {"loss", "image", "conv3_1", "conv3_4"} < set(lines[-1]) and "pool5" not in lines[-1]
    taps = 3 * lines[-1]["image"] + sum(lines[-1][f"conv3_{i}"] for i in range(1, 5))
    assert lines[-1]["loss"] == pytest.approx(taps, rel=1e-5)


def test_the_student_can_be_loaded_and_generates(whole):
    student, stage_one = (load_student(whole[0], file) for file in ("student.keras", "checkpoints/one/student.keras"))
    inputs = {**student.condition.arrays(["a small red circle"]), "noise": np.zeros((1, 3), "float32")}
    image = np.asarray(student.network(inputs)["image"])
    assert image.shape == (1, 32, 32, 3) and image.dtype == np.float32 and np.isfinite(image).all()
    kept = arrays(whole[0] / "checkpoints" / "two" / "final.npz")
    assert all(np.array_equal(a, b) for a, b in zip(kept.values(), student.network.get_weights(), strict=True))
    assert not np.array_equal(image, np.asarray(stage_one.network(inputs)["image"]))


# Name: (arguments, what the error says). DIR stands for a folder with what `wrong` puts there.
WRONG = {
    "flag": (("--colour=red",), "Unknown command line flag 'colour'"),
    "argument": (("train",), "'train' is not a flag"),
    "choice": (("--teacher_pooling=mean",), "flag --teacher_pooling=mean"),
    "minutes": (("--max_minutes=0",), "--max_minutes: 0 is not positive"),
    "measure": (("--measure_every=-1",), "--measure_every: -1 is negative"),
    "teacher": (("--teacher=alexnet",), "--teacher: 'alexnet' is none of"),
    "number": (("--batch_size=many",), "flag --batch_size=many"),
    "flagfile": (("--flagfile=DIR/absent.flags",), "absent.flags"),
    "system": (("--system=gan",), "--system: 'gan'"),
    "stage_key": (("--stage=two: objective=mirrored stepz=3",), "--stage two: unknown key 'stepz'"),
    "stage_length": (("--stage=two: objective=mirrored",), "--stage two: give either steps or epochs"),
    "stage_folder": (("--stage=../two: objective=mirrored steps=3",), "--stage: '../two'"),
    "objective": (("--stage=two: objective=guess steps=3",), "--stage two: objective is 'guess'"),
    "tap": (("--teacher=vgg19_slim", "--stage=two: objective=mirrored steps=3 tap_weights=conv9_9:1"), "conv9_9"),
    "error": (("--stage=two: objective=mirrored steps=3 tap_weights=image:1 error=l3",), "--stage two: error is 'l3'"),
    "needs_teacher": (("--stage=two: objective=mirrored steps=3",), "--stage two: without a teacher"),
    "schedule": (("--stage=two: objective=mirrored steps=3 tap_weights=image:1 schedule=x",), "--stage two: schedule"),
    "resolution": (("--resolution=33",), "--resolution: 33"),
    "resolution_0": (("--resolution=0",), "--resolution: 0"),
    "width": (("--teacher=vgg19_slim", "--width=0.5", "--stage=two: objective=mirrored steps=3"), "--width: 0.5"),
    "width_fraction": (("--width=0.3",), "--width: 0.3"),
    "no_weights": (("--teacher=vgg19_slim", "--teacher_weights=DIR/absent.npz"), "--teacher_weights: no file"),
    "bad_weights": (("--teacher=vgg19_slim", "--teacher_weights=DIR/garbage.npz"), "--teacher_weights: "),
    "other_weights": (("--teacher=vgg19_slim", "--teacher_weights=DIR/other.npz"), "--teacher_weights: "),
    "checksum": (("--teacher=vgg19_slim", "--teacher_weights_sha256=00"), "--teacher_weights: "),
    "text_weights": (("--text_weights=DIR/absent.weights.h5",), "--text_weights: "),
    "dataset": (("--dataset=imagenet",), "--dataset: 'imagenet'"),
    "no_data_dir": (("--data_dir=",), "--data_dir: missing"),
    "absent_data_dir": (("--data_dir=DIR/absent",), "--data_dir: "),
    "empty_data_dir": (("--data_dir=DIR/empty",), "--data_dir: "),
    "bad_examples": (("--max_bad_examples=-1",), "--max_bad_examples: -1"),
    "batch_size": (("--batch_size=0",), "--batch_size: 0"),
    "checkpoint_every": (("--checkpoint_every=0",), "--checkpoint_every: 0"),
    "log_every": (("--log_every=-5",), "--log_every: -5"),
    "sample_every": (("--sample_every=0",), "--sample_every: 0"),
    "seed": (("--seed=-1",), "--seed: -1"),
    "ema": (("--ema=1",), "--ema: 1.0"),
    "clipnorm": (("--clipnorm=-1",), "--clipnorm: -1.0"),
    "noise": (("--noise_dim=-1",), "--noise_dim: -1"),
    "text_dim": (("--text_dim=0",), "--text_dim: 0"),
    "other_recipe": (
        ("--run_dir=DIR/begun",),
        "belongs to another recipe: --dataset=captioned_shapes there, --dataset=image_folder here",
    ),
    "other_files": (("--run_dir=DIR",), "is not empty and has no recipe.json"),
    "no_run_dir": (("--run_dir=",), "--run_dir: say where"),
    "no_stage": ((), "--stage: a recipe needs at least one stage"),
}

OTHER = {
    "mixed": (
        "--dtype_policy=mixed_bfloat16",
        "--teacher=vgg19_slim",
        "--width=0.25",
        "--ema=0.5",
        "--stage=one: objective=perceptual steps=2 tap_weights=image:1,pool5:1",
    ),
    "compiled": ("--jit_compile", STAGE),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Arguments for a folder of twenty images with captions."""
    folder = tmp_path_factory.mktemp("tiny")
    for index in range(20):
        Image.new("RGB", (32, 32), (index, 2 * index, 3 * index)).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"shade {index}")
    return "--dataset=image_folder", f"--data_dir={folder}"


def outcome(arguments, **options):
    """(exit code, standard output, standard error) of a command line."""
    process = Fork(*arguments, **options)
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors


@pytest.fixture(scope="module")
def outcomes(tiny, tmp_path_factory):
    """What becomes of `WRONG`, and the files before and after."""
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "empty").mkdir()
    (folder / "garbage.npz").write_bytes(b"garbage")
    np.savez(folder / "other.npz", **{"conv1_1/kernel": np.zeros((3, 3, 3, 64)), "conv1_1/bias": np.zeros(64)})
    (folder / "begun").mkdir()
    (folder / "begun" / "recipe.json").write_text(recipe_of(*RUN).to_json())
    before = files(folder)
    lines = {}
    for name, (arguments, _) in WRONG.items():
        stage = () if name == "no_stage" else (STAGE,)
        lines[name] = [*NO_TEACHER, *tiny, *stage, f"--run_dir={folder / 'run' / name}", *arguments]
        lines[name] = [each.replace("DIR/", f"{folder}/").replace("=DIR", f"={folder}") for each in lines[name]]
    found = {name: outcome(line, cwd=folder) for name, line in lines.items()}
    return types.SimpleNamespace(found=found, before=before, after=files(folder))


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_ends_in_one_line(outcomes, name):
    code, output, errors = outcomes.found[name]
    assert code == 2, errors
    assert "Traceback" not in errors and output == ""
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert errors.endswith(line + "\n")
    assert WRONG[name][1] in line


def test_wrong_input_leaves_nothing_behind(outcomes):
    assert outcomes.before == outcomes.after


@pytest.mark.slow
def test_a_dry_run_prints_the_recipe_and_the_sizes(tmp_path):
    output = finish(Fork(*RUN, "--dry_run", f"--run_dir={tmp_path / 'dry'}"))
    assert not (tmp_path / "dry").exists()
    recipe, _, lines = output.rpartition("}\n")
    assert recipe_from_json(recipe + "}") == recipe_of(*RUN)
    network = systems.build(recipe_of(*RUN)).network
    assert f"student with its text encoder: {network.count_params():,} parameters" in lines
    assert f"generator: {network.get_layer('generator').count_params():,}" in lines
    images = len(combinations("train")) * IMAGES_PER_COMBINATION["train"]
    assert f"captioned_shapes/train: {images:,} images, {3 * images:,} (image, caption) pairs" in lines
    told = [line for line in lines.splitlines() if line.startswith("stage")]
    stages = [re.sub(r", (some [\d,]+ minutes?|less than a minute) in all$", "", line) for line in told]
    assert [line for line in stages if not line.endswith(" images a second here")] == [
        "stage text: ds_sje, 6 steps",
        "stage one: mirrored, 14 steps",
        "stage two: perceptual, 13 steps",
    ]
    # The speed of every stage is measured.
    assert len(stages) == 6


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER)
def test_other_arithmetic_trains_and_keeps_float32(tiny, name, tmp_path):
    run_dir = tmp_path / "run"
    finish(Fork(*NO_TEACHER, *tiny, *OTHER[name], f"--run_dir={run_dir}"))
    kept = arrays(run_dir / "checkpoints" / "one" / "final.npz")
    assert {value.dtype for value in kept.values()} == {np.dtype("float32")}
    student = load_student(run_dir)
    assert all(np.array_equal(a, b) for a, b in zip(kept.values(), student.network.get_weights(), strict=True))
    image = np.asarray(student.network(student.condition.arrays(["shade 3"]))["image"])
    assert image.dtype == np.float32 and np.isfinite(image).all()
    first = metrics(run_dir)[0]
    assert np.isfinite(first["loss"]) and first["step"] == {"mixed": 2, "compiled": 3}[name]


def test_a_full_disk_ends_in_one_line(tiny, tmp_path):
    run_dir = tmp_path / "run"
    command = (*NO_TEACHER, *tiny, "--width=0.25", "--checkpoint_every=2", STAGE, f"--run_dir={run_dir}")
    # Of a run's files only checkpoints are so large.
    code, output, errors = outcome(command, largest_file=2**20)
    assert code == 2 and "Traceback" not in errors
    # The run had begun, and said with what.
    assert "image_folder/train: 17 images, 17 (image, caption) pairs" in output.splitlines()
    folder = run_dir / "checkpoints" / "one"
    assert errors.splitlines()[-1] == f"error: --run_dir: cannot write {folder / 'step-00000002.npz'}: File too large"
    assert list(folder.iterdir()) == []
