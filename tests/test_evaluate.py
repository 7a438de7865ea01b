import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from t2i_kd import evaluate as command
from t2i_kd.data import captioned_shapes
from t2i_kd.errors import UserError
from t2i_kd.metrics import attribute_accuracy, tap_distance
from t2i_kd.recipe import DataRecipe, Recipe, StudentRecipe, TeacherRecipe, TextRecipe, parse_stage
from t2i_kd.student import build_student, save_network
from t2i_kd.text.front_end import build_front_end

RECIPE = Recipe(
    data=DataRecipe(resolution=32),
    text=TextRecipe(text_dim=8, word_dim=4),
    teacher=TeacherRecipe(teacher="none"),
    student=StudentRecipe(width=1 / 32, initializer="he", image_output="centred"),
    stages=(parse_stage("one: objective=mirrored steps=1"), parse_stage("two: objective=perceptual steps=1")),
)
NO_FLAGS = dict.fromkeys(command.TEACHER_FLAGS)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run that has finished both its stages, with three different students."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "recipe.json").write_text(RECIPE.to_json())
    front_end = build_front_end(RECIPE.text, captioned_shapes.load("test", 32))
    front_end.save(folder)
    for seed, file in enumerate(("checkpoints/one/student.keras", "checkpoints/two/student.keras", "student.keras")):
        recipe = dataclasses.replace(RECIPE, training=dataclasses.replace(RECIPE.training, seed=seed))
        save_network(build_student(recipe, front_end), folder / file)
    return folder


class Recogniser:
    """A judge that knows every real picture by heart and takes any other for the first value of all."""

    values = captioned_shapes.ATTRIBUTES
    fingerprint = "0" * 64

    def __init__(self):
        test = captioned_shapes.load("test", 32)
        self.known = {image.tobytes(): row for image, row in zip(test.images, test.attributes, strict=True)}
        self.guess = {name: choices[0] for name, choices in self.values.items()}

    def predict(self, images):
        return [self.known.get(np.asarray(image).tobytes(), self.guess) for image in images]


def test_every_stage_of_a_run_is_judged_by_one_classifier(run_dir, tmp_path, monkeypatch, capsys):
    trained = []
    monkeypatch.setattr(
        attribute_accuracy, "train_attribute_classifier", lambda *given, **kept: trained.append(given) or Recogniser()
    )
    out = tmp_path / "report.json"
    metrics = "attribute_accuracy,tap_distance"
    report = command.evaluate(
        str(run_dir), "captioned_shapes", metrics, RECIPE.teacher, str(out), num_captions=10, seed=2, bootstrap=5
    )
    assert len(trained) == 1
    assert json.loads(out.read_text()) == json.loads(json.dumps(report))
    for name in metrics.split(","):
        assert list(report["metrics"][name]) == ["one alone", "after two", "final student"]
    accuracy = report["metrics"]["attribute_accuracy"]["final student"]
    assert accuracy["protocol"]["captions"] == 10
    names = {f"attribute_{name}_classifier_32_n10" for name in (*captioned_shapes.ATTRIBUTES, "mean")}
    assert set(accuracy["values"]) == names
    distances = [row["values"]["tap_image_none_32_n10"] for row in report["metrics"]["tap_distance"].values()]
    assert len(set(distances)) == 3
    printed = capsys.readouterr().out
    assert "looks through the teacher" not in printed
    assert "one alone" in printed and "after two" in printed and "tap_normalised_sum_none_32_n10" in printed
    # The report says of which files and pictures its numbers are; the printed table spares them.
    protocols = [result["protocol"] for results in report["metrics"].values() for result in results.values()]
    weights = ("checkpoints/one/student.keras", "checkpoints/two/student.keras", "student.keras")
    digests = [hashlib.sha256((run_dir / file).read_bytes()).hexdigest() for file in weights]
    assert [protocol["model_sha256"] for protocol in protocols] == digests * 2
    assert len({protocol["real_sha256"] for protocol in protocols}) == 1
    assert all(len(protocol["extractor_sha256"]) == 64 for protocol in protocols)
    assert "sha256" not in printed


def test_one_unsuitable_metric_ends_a_run_before_anything_is_drawn_or_trained(run_dir, monkeypatch, capsys):
    """What each metric can know beforehand is asked of all of them first, whatever their order."""

    def never(*given, **more):
        raise AssertionError("drawn or trained")

    monkeypatch.setattr("t2i_kd.metrics.held_out.generate", never)
    monkeypatch.setattr(attribute_accuracy, "train_attribute_classifier", never)
    monkeypatch.setattr("t2i_kd.metrics.image_classifier.train_image_classifier", never)
    absent = TeacherRecipe(teacher_weights="absent.weights.h5")
    for last, options, message in (
        ("inception_score", {}, "--extractor: own gives no class probabilities here"),
        ("inception_score", {"num_captions": 99}, "--num_captions: inception_score needs at least 100"),
        ("classification", {}, "--dataset: captioned_shapes has attributes, not classes"),
        ("classification_reverse", {}, "--dataset: captioned_shapes has attributes, not classes"),
        ("frechet", {"num_captions": 64}, "--num_captions: frechet needs at least 65"),
        ("kernel", {"num_captions": 1}, "--num_captions: kernel needs at least 2"),
        ("manifold", {"num_captions": 5}, "--num_captions: manifold needs at least 6"),
        ("diversity", {"extractor": "hub"}, "--extractor_handle: --extractor=hub needs"),
        (
            "kernel",
            {"extractor": "inception", "inception_weights": "absent.h5"},
            "--inception_weights: no file absent.h5",
        ),
        ("tap_distance", {"teacher": absent}, "--teacher_weights: no file absent"),
        ("perceptual_distance", {}, "--teacher: none sees nothing"),
        ("r_precision", {"retrieval_handle": "somewhere"}, "--retrieval_handle: needs --extractor=hub"),
    ):
        given = {"teacher": RECIPE.teacher, "num_captions": 120} | options
        with pytest.raises(UserError, match=message):
            command.evaluate(str(run_dir), "captioned_shapes", f"attribute_accuracy,ssim,{last}", **given)
    assert capsys.readouterr().out == ""


def test_a_table_is_printed_before_the_next_metric_is_measured(run_dir, monkeypatch, capsys):
    monkeypatch.setattr(tap_distance, "tap_differences", lambda *taps: pytest.fail("reached"))
    with pytest.raises(pytest.fail.Exception, match="reached"):
        command.evaluate(
            [str(run_dir)], "captioned_shapes", "ssim,tap_distance", RECIPE.teacher, num_captions=2, bootstrap=0
        )
    assert "ssim_32_n2" not in capsys.readouterr().out  # the first stage of three
    model = Path(__file__).resolve().parents[1] / "saved_models/shapes32/1"
    with pytest.raises(pytest.fail.Exception, match="reached"):
        command.evaluate(model, "captioned_shapes", "ssim,tap_distance", RECIPE.teacher, num_captions=2, bootstrap=0)
    assert "ssim_32_n2" in capsys.readouterr().out


def test_a_running_run_shows_the_stages_that_it_has_finished(run_dir, tmp_path):
    for file in ("recipe.json", "vocabulary.txt", "checkpoints/one/student.keras"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes((run_dir / file).read_bytes())
    assert [(found.label, found.is_last) for found in command.students(tmp_path)] == [("one alone", True)]


def test_a_run_without_a_finished_stage_is_refused(tmp_path):
    (tmp_path / "recipe.json").write_text(RECIPE.to_json())
    with pytest.raises(UserError, match="no finished stage"):
        list(command.students(tmp_path))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"models": []}, "--model: missing"),
        ({"models": ["", "nowhere"]}, "--model: missing"),
        ({"models": ["setup.py", "setup.py"]}, "--model: the same path twice"),
        ({"bootstrap": 1}, "--bootstrap: one resample"),
        ({"page": "nowhere/page.html"}, "--page: nowhere"),
        ({"metrics": "kernel", "page": "page.html"}, "--page: none of --metrics judges pictures one by one"),
        ({"models": "nowhere"}, "--model: nowhere"),
        ({"dataset": "squares"}, "--dataset: 'squares'"),
        ({"metrics": "beauty"}, "--metrics: 'beauty' is unknown"),
        ({"out": "nowhere/report.json"}, "--out: nowhere"),
    ],
)
def test_wrong_input_names_its_flag(run_dir, changed, message):
    given = {"models": str(run_dir), "dataset": "captioned_shapes", "metrics": "tap_distance", "out": ""}
    with pytest.raises(UserError, match=message):
        command.evaluate(**(given | changed))


def test_two_runs_are_compared_on_the_same_captions_and_shown_on_a_page(run_dir, tmp_path, capsys):
    """The second run's student is the first's second one: its pictures differ, on the same captions."""
    other = tmp_path / "other"
    shutil.copytree(run_dir, other)
    shutil.copy(run_dir / "checkpoints/one/student.keras", other / "student.keras")
    page = tmp_path / "page.html"
    models = [str(run_dir), str(other)]
    options = {"teacher": RECIPE.teacher, "num_captions": 12, "bootstrap": 50}
    report = command.evaluate(models, "captioned_shapes", "tap_distance,ssim", page=str(page), **options)
    assert list(report["metrics"]["tap_distance"]) == models
    line = "tap_image_none_32_n12"
    first, second = (report["metrics"]["tap_distance"][model]["values"][line] for model in models)
    found = report["comparisons"]["tap_distance"][str(other)][line]
    assert found["difference"] == pytest.approx(second - first)
    assert found["interval"][0] <= found["difference"] <= found["interval"][1]
    assert "larger than noise" in capsys.readouterr().out or not found["larger_than_noise"]
    text = page.read_text("utf-8")
    assert text.count("<img") >= 2 * 3 * 8 and "http" not in text
    # The same evaluation, the same page.
    command.evaluate(models, "captioned_shapes", "tap_distance,ssim", page=str(page), **options)
    assert page.read_text("utf-8") == text
    options |= {"bootstrap": 0, "num_captions": 4}
    capsys.readouterr()
    same = command.evaluate(str(run_dir), "captioned_shapes", "tap_distance", **options)
    assert "note: every metric here looks through the teacher" in capsys.readouterr().out
    assert same["notes"] == [command.TEACHER_NOTE] and report["notes"] == []
    assert same["comparisons"] == {} and same["metrics"]["tap_distance"]["final student"]["intervals"] == {}


def test_a_run_that_is_not_finished_is_not_compared(run_dir, tmp_path):
    unfinished = tmp_path / "unfinished"
    shutil.copytree(run_dir, unfinished)
    (unfinished / "student.keras").unlink()
    with pytest.raises(UserError, match=r"--model: .*unfinished is not finished; its last stage is after two"):
        list(command.finished_students([run_dir, unfinished]))


def test_the_teacher_is_the_runs_own_unless_flags_say_otherwise(tmp_path):
    own = TeacherRecipe(teacher="vgg19", teacher_weights="own.npz", teacher_weights_sha256="abc", teacher_pooling="max")
    (tmp_path / "recipe.json").write_text(dataclasses.replace(RECIPE, teacher=own).to_json())
    assert command.chosen_teacher(tmp_path, types.SimpleNamespace(**NO_FLAGS)) == own
    slim = command.chosen_teacher(tmp_path, types.SimpleNamespace(**(NO_FLAGS | {"teacher": "vgg19_slim"})))
    assert slim == TeacherRecipe(teacher="vgg19_slim", teacher_pooling="max")
    assert command.chosen_teacher("model.onnx", types.SimpleNamespace(**NO_FLAGS)) == TeacherRecipe()


def test_the_command_ends_in_one_line_and_exit_code_2():
    command_line = [sys.executable, "-m", "t2i_kd.evaluate", "--dataset=captioned_shapes", "--metrics=tap_distance"]
    done = subprocess.run(command_line, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[1])
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == "error: --model: missing"
    assert "Traceback" not in done.stderr
