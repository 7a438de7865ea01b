import dataclasses
import hashlib
import importlib
import json
import shutil
import types

import numpy as np
import pytest

import t2i_kd
from t2i_kd import evaluation
from t2i_kd.conditions.caption import CaptionCondition
from t2i_kd.data import captioned_shapes, from_arrays
from t2i_kd.errors import UserError
from t2i_kd.exporting.exporter import export_student
from t2i_kd.icsd_gan import IcsdRecipe
from t2i_kd.metrics import attribute_accuracy, tap_distance
from t2i_kd.metrics.report import FEWEST_REFERENCES, TEACHER_NOTE, Findings, few_references
from t2i_kd.metrics.tap_errors import TapObjective
from t2i_kd.options import DataOptions, TeacherOptions, TextOptions
from t2i_kd.recipe import Recipe, TextToImageStage
from t2i_kd.recipe_flags import parse_stage
from t2i_kd.runners import KerasRunner
from t2i_kd.sdn import SDNOptions, SDNRecipe, SDNStage
from t2i_kd.student import load_student, save_network
from t2i_kd.text.front_end import build_front_end
from tests.commands import Fork
from tests.exporting import tiny_student

RECIPE = SDNRecipe(
    data=DataOptions(resolution=32),
    text=TextOptions(text_dim=8, word_dim=4),
    teacher=TeacherOptions(teacher="none"),
    sdn=SDNOptions(width=1 / 32, initializer="he", image_output="centred"),
    stages=(
        parse_stage("one: objective=mirrored steps=1", SDNStage),
        parse_stage("two: objective=perceptual steps=1", SDNStage),
    ),
)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run that has finished both its stages, with three different students."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "recipe.json").write_text(RECIPE.to_json())
    condition = CaptionCondition(build_front_end(RECIPE.text, captioned_shapes.load("test", 32)))
    condition.save(folder)
    for seed, file in enumerate(("checkpoints/one/student.keras", "checkpoints/two/student.keras", "student.keras")):
        recipe = dataclasses.replace(RECIPE, training=dataclasses.replace(RECIPE.training, seed=seed))
        save_network(tiny_student.build_sdn_network(condition, recipe), folder / file)
    return folder


class Recogniser:
    """An evaluator that knows every real picture by heart and takes any other for the first value of all."""

    values = captioned_shapes.ATTRIBUTES
    fingerprint = "0" * 64

    def __init__(self):
        test = captioned_shapes.load("test", 32)
        self.known = {image.tobytes(): row for image, row in zip(test.images, test.attributes, strict=True)}
        self.guess = {name: choices[0] for name, choices in self.values.items()}

    def predict(self, images):
        return [self.known.get(np.asarray(image).tobytes(), self.guess) for image in images]


def test_every_stage_of_a_run_is_evaluated_by_one_classifier(run_dir, tmp_path, monkeypatch, capsys):
    trained = []
    monkeypatch.setattr(
        attribute_accuracy, "train_attribute_classifier", lambda *given, **kept: trained.append(given) or Recogniser()
    )
    out = tmp_path / "report.json"
    metrics = "attribute_accuracy,tap_distance"
    report = evaluation.evaluate(
        str(run_dir), "captioned_shapes", metrics, out=str(out), num_captions=10, seed=2, bootstrap=5, report=print
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
    assert "tap_objective_l1_raw_none_32_n10" in report["metrics"]["tap_distance"]["final student"]["values"]
    assert "compares features of the teacher" not in printed
    assert "one alone" in printed and "after two" in printed and "tap_normalised_sum_none_32_n10" in printed
    # The report says of which files and pictures its numbers are; the printed table spares them.
    protocols = [result["protocol"] for results in report["metrics"].values() for result in results.values()]
    weights = ("checkpoints/one/student.keras", "checkpoints/two/student.keras", "student.keras")
    digests = [hashlib.sha256((run_dir / file).read_bytes()).hexdigest() for file in weights]
    assert [protocol["model_sha256"] for protocol in protocols] == digests * 2
    assert len({protocol["reference_sha256"] for protocol in protocols}) == 1
    assert all(len(protocol["extractor_sha256"]) == 64 for protocol in protocols)
    assert "sha256" not in printed


@pytest.mark.slow
def test_one_unsuitable_metric_ends_a_run_before_anything_is_drawn_or_trained(run_dir, monkeypatch, capsys):
    """What each metric can know beforehand is asked of all of them first, whatever their order."""

    def never(*given, **more):
        raise AssertionError("drawn or trained")

    monkeypatch.setattr("t2i_kd.metrics.sampling.generate", never)
    monkeypatch.setattr(attribute_accuracy, "train_attribute_classifier", never)
    monkeypatch.setattr("t2i_kd.metrics.image_classifier.train_image_classifier", never)
    absent = TeacherOptions(teacher_weights="absent.weights.h5")
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
        ("perceptual_distance", {}, "--teacher: none has no feature maps"),
        ("r_precision", {"retrieval_handle": "somewhere"}, "--retrieval_handle: needs --extractor=hub"),
    ):
        given = {"teacher": RECIPE.teacher, "num_captions": 120} | options
        with pytest.raises(UserError, match=message):
            evaluation.evaluate(str(run_dir), "captioned_shapes", f"attribute_accuracy,ssim,{last}", **given)
    assert capsys.readouterr().out == ""


def test_a_table_is_printed_before_the_next_metric_is_measured(run_dir, monkeypatch, capsys):
    monkeypatch.setattr(tap_distance, "tap_differences", lambda *taps: pytest.fail("reached"))
    with pytest.raises(pytest.fail.Exception, match="reached"):
        evaluation.evaluate(
            [str(run_dir)], "captioned_shapes", "ssim,tap_distance", num_captions=2, bootstrap=0, report=print
        )
    assert "ssim_32_n2" not in capsys.readouterr().out  # the first stage of three
    with pytest.raises(pytest.fail.Exception, match="reached"):
        evaluation.evaluate(
            "shapes32", "captioned_shapes", ["ssim", "tap_distance"], num_captions=2, bootstrap=0, report=print
        )
    assert "ssim_32_n2" in capsys.readouterr().out


def test_a_running_run_shows_the_stages_that_it_has_finished(run_dir, tmp_path):
    for file in ("recipe.json", "condition.json", "vocabulary.txt", "checkpoints/one/student.keras"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes((run_dir / file).read_bytes())
    assert [(found.label, found.is_last) for found in evaluation.students(tmp_path)] == [("one alone", True)]
    # Of the next, what was best so far.
    (tmp_path / "checkpoints/two").mkdir()
    (tmp_path / "checkpoints/two/best.keras").write_bytes((run_dir / "checkpoints/two/student.keras").read_bytes())
    labels = [(found.label, found.is_last) for found in evaluation.students(tmp_path)]
    assert labels == [("one alone", False), ("best of two", True)]
    best = t2i_kd.load(tmp_path / "checkpoints/two/best.keras")
    expected = KerasRunner(load_student(run_dir, "checkpoints/two/student.keras"))
    np.testing.assert_array_equal(best.generate(["a small red circle"]), expected.generate(["a small red circle"]))


def test_a_run_without_a_finished_stage_is_refused(tmp_path):
    (tmp_path / "recipe.json").write_text(RECIPE.to_json())
    with pytest.raises(UserError, match="no finished stage"):
        list(evaluation.students(tmp_path))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"models": []}, "--model: missing"),
        ({"models": ["", "nowhere"]}, "--model: missing"),
        ({"models": ["setup.py", "setup.py"]}, "--model: the same path twice"),
        ({"bootstrap": 1}, "--bootstrap: one resample"),
        ({"page": "nowhere/page.html"}, "--page: nowhere"),
        ({"metrics": "kernel", "page": "page.html"}, "--page: none of --metrics rates pictures one by one"),
        ({"models": "nowhere"}, "--model: nowhere: .*models that come with t2i_kd: .*shapes32"),
        ({"dataset": "squares"}, "--dataset: 'squares'"),
        ({"metrics": "beauty"}, "--metrics: 'beauty' is unknown"),
        ({"out": "nowhere/report.json"}, "--out: nowhere"),
        ({"extractor": "beauty"}, "--extractor: 'beauty' is none of own"),
    ],
)
def test_wrong_input_names_its_flag(run_dir, changed, message):
    given = {"models": str(run_dir), "dataset": "captioned_shapes", "metrics": "tap_distance", "out": ""}
    with pytest.raises(UserError, match=message):
        evaluation.evaluate(**(given | changed))


@pytest.mark.slow
def test_a_model_says_what_it_was_trained_on(run_dir, tmp_path):
    given = {"num_captions": 2, "bootstrap": 0}
    report = evaluation.evaluate(str(run_dir), "", "ssim", **given)
    assert report["dataset"] == "captioned_shapes"
    assert report == evaluation.evaluate(str(run_dir), "captioned_shapes", "ssim", **given)
    with pytest.raises(UserError, match="--dataset: missing; the model does not say"):
        evaluation.evaluate(Grey(0), "", "ssim", **given)
    data = dataclasses.replace(RECIPE.data, dataset="image_folder", data_dir="mine", max_bad_examples=3)
    (tmp_path / "recipe.json").write_text(dataclasses.replace(RECIPE, data=data).to_json())
    found = evaluation._data_of(tmp_path, {"seed": 1, "data_dir": "", "max_bad_examples": 0})
    assert found == ("image_folder", {"seed": 1, "data_dir": "mine", "max_bad_examples": 3})
    assert evaluation._data_of(tmp_path, {"data_dir": "other"})[1]["data_dir"] == "other"


@pytest.mark.slow
def test_two_runs_are_compared_on_the_same_captions_and_shown_on_a_page(run_dir, tmp_path, capsys):
    """The second run's student is the first's second one: its pictures differ, on the same captions."""
    other = tmp_path / "other"
    shutil.copytree(run_dir, other)
    shutil.copy(run_dir / "checkpoints/one/student.keras", other / "student.keras")
    page = tmp_path / "page.html"
    models = [str(run_dir), str(other)]
    options = {"num_captions": 12, "bootstrap": 50, "report": print}
    report = evaluation.evaluate(models, "captioned_shapes", "tap_distance,ssim", page=str(page), **options)
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
    evaluation.evaluate(models, "captioned_shapes", "tap_distance,ssim", page=str(page), **options)
    assert page.read_text("utf-8") == text
    options |= {"bootstrap": 0, "num_captions": 4}
    capsys.readouterr()
    same = evaluation.evaluate(str(run_dir), "captioned_shapes", "tap_distance", **options)
    assert "note: every metric here compares features of the teacher" in capsys.readouterr().out
    assert same["notes"] == [TEACHER_NOTE] and report["notes"] == []
    assert same["comparisons"] == {} and same["metrics"]["tap_distance"]["final student"]["intervals"] == {}


@pytest.mark.parametrize(("count", "is_told"), [(27, True), (99, True), (100, False), (None, False)])
def test_few_held_out_pictures_are_told(count, is_told):
    said = []
    notes = Findings({"kernel": None}, ["model"], 0, said.append, False).report("mine", "own", False, count)["notes"]
    assert FEWEST_REFERENCES == 100
    assert notes == ([few_references(count)] if is_told else []) and said == [f"note: {note}" for note in notes]
    assert not is_told or notes[0].startswith(f"there are {count} held-out pictures: ")


def test_who_taught_a_run_is_known(run_dir):
    own = evaluation.chosen_teacher(str(run_dir))
    assert evaluation.taught_by(str(run_dir), own)
    assert not evaluation.taught_by(str(run_dir), TeacherOptions(teacher="efficientnet_lite0"))
    assert evaluation.taught_by(types.SimpleNamespace(generate=None, resolution=32), own)


def test_a_run_that_is_not_finished_is_not_compared(run_dir, tmp_path):
    unfinished = tmp_path / "unfinished"
    shutil.copytree(run_dir, unfinished)
    (unfinished / "student.keras").unlink()
    with pytest.raises(UserError, match=r"--model: .*unfinished is not finished; what it has: one alone, after two$"):
        list(evaluation.finished_students([run_dir, unfinished]))


def test_the_teacher_is_the_runs_own_unless_flags_say_otherwise(tmp_path):
    own = TeacherOptions(
        teacher="vgg19", teacher_weights="own.npz", teacher_weights_sha256="abc", teacher_pooling="max"
    )
    (tmp_path / "recipe.json").write_text(dataclasses.replace(RECIPE, teacher=own).to_json())
    assert evaluation.chosen_teacher(tmp_path) == own
    slim = evaluation.chosen_teacher(tmp_path, teacher="vgg19_slim")
    assert slim == TeacherOptions(teacher="vgg19_slim", teacher_pooling="max")
    alone = tmp_path / "files" / "model.onnx"
    alone.parent.mkdir()
    alone.touch()
    assert evaluation.chosen_teacher(alone) == TeacherOptions()


@pytest.mark.slow
@pytest.mark.parametrize("place", ["1", "1/assets.extra/student.tflite", "1/assets.extra/student.onnx"])
def test_an_export_is_evaluated_by_the_teacher_that_it_learned_from(export, place):
    report = evaluation.evaluate(export / place, "captioned_shapes", "tap_distance", num_captions=2, bootstrap=0)
    (result,) = report["metrics"]["tap_distance"].values()
    assert result["protocol"]["teacher"] == "vgg19_slim"
    assert "tap_pool4_vgg19_slim_average_32_n2" in result["values"]


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """The parent of a version that a student of vgg19_slim was exported to."""
    recipe = dataclasses.replace(tiny_student.RECIPE, teacher=TeacherOptions(teacher="vgg19_slim"))
    folder = tmp_path_factory.mktemp("saved_models") / "tiny"
    kinds = ("litert", "onnx")
    student, captions = tiny_student.make_student(), tiny_student.CAPTIONS
    export_student(student, folder, captions, artifacts=kinds, recipe=recipe.to_json())
    return folder


class Grey:
    """What a notebook may evaluate: no file, no seed, grey pictures of brightness `level`."""

    resolution = 32

    def __init__(self, level):
        self.level = level

    def generate(self, captions, seeds):
        return np.full((len(captions), 32, 32, 3), self.level, np.uint8)


def test_objects_are_evaluated_on_arrays():
    rng = np.random.default_rng(0)
    pictures, captions = rng.integers(0, 256, (24, 40, 48, 3), np.uint8), [f"picture {index}" for index in range(24)]
    mine = from_arrays(pictures[:16], captions[:16], pictures[16:], captions[16:], name="my shapes")
    options = {"teacher": RECIPE.teacher, "num_captions": 8, "bootstrap": 0}
    report = t2i_kd.evaluate([Grey(0), Grey(128)], mine, ["tap_distance"], **options)
    assert report["model"] == ["student 1", "student 2"] and report["dataset"] == "my shapes"
    black, grey = (report["metrics"]["tap_distance"][label]["values"] for label in report["model"])
    # The mean distance of what was given, cut to its centred square and resized.
    test = mine.load("test", 32).images.astype(float)
    assert black["tap_image_none_32_n8"] == pytest.approx(test.mean(), rel=1e-5)
    assert grey["tap_image_none_32_n8"] == pytest.approx(np.abs(test - 128).mean(), rel=1e-5)
    difference = report["comparisons"]["tap_distance"]["student 2"]["tap_image_none_32_n8"]["difference"]
    assert difference == pytest.approx(grey["tap_image_none_32_n8"] - black["tap_image_none_32_n8"])


@pytest.mark.slow
def test_an_export_is_evaluated_on_arrays(export):
    pictures, captions = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8), tiny_student.CAPTIONS[:4]
    mine = from_arrays(pictures, captions, pictures[:1], captions[:1])
    model = t2i_kd.load(export / "1")
    expected = np.abs(model.generate(captions[:1], [0]).astype(float) - pictures[:1]).mean()
    for given in (export / "1", model):
        report = t2i_kd.evaluate(given, mine, "tap_distance", teacher=RECIPE.teacher, num_captions=1, bootstrap=0)
        ((label, result),) = report["metrics"]["tap_distance"].items()
        assert label == ("student 1" if given is model else str(given))
        assert result["values"]["tap_image_none_32_n1"] == pytest.approx(expected, rel=1e-5)


def test_a_student_of_images_is_not_compared_with_captioned_pictures():
    model = KerasRunner(tiny_student.make_image_student())
    with pytest.raises(UserError, match="--metrics: ssim compares pairs, and captioned_shapes has none"):
        t2i_kd.evaluate(model, "captioned_shapes", "ssim", num_captions=2)


def test_a_recipe_without_a_teacher_leaves_the_default(tmp_path, monkeypatch):
    (tmp_path / "teacherless").mkdir()
    (tmp_path / "teacherless" / "room.py").write_text("from t2i_kd.recipe import Recipe as RECIPE\nSYSTEM = None\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("teacherless.room")
    (tmp_path / "recipe.json").write_text(Recipe(system="teacherless.room").to_json())
    assert evaluation.chosen_teacher(tmp_path) == TeacherOptions()


BRIGHTNESS = """
from t2i_kd.metrics.resampling import Measurement, mean_of

def measure(context):
    values = {"brightness": context.generated.mean((1, 2, 3))}
    return Measurement(
        context.protocol(), mean_of(values), len(context.pairs),
        samples=values, pairs=context.pairs, pictures=context.generated,
    )
"""


@pytest.fixture
def brightness(tmp_path, monkeypatch):
    """The name of a metric in a module outside of the package."""
    (tmp_path / "metrics_of_strangers").mkdir()
    (tmp_path / "metrics_of_strangers" / "brightness.py").write_text(BRIGHTNESS)
    monkeypatch.syspath_prepend(tmp_path)
    return "metrics_of_strangers.brightness"


def test_a_module_on_the_path_is_a_metric(brightness, tmp_path):
    options = {"num_captions": 4, "bootstrap": 0, "page": str(tmp_path / "page.html")}
    report = evaluation.evaluate(Grey(7), "captioned_shapes", brightness, **options)
    assert report["metrics"][brightness]["student 1"]["values"] == {"brightness": 7}
    assert "Best 4 of 4" in (tmp_path / "page.html").read_text("utf-8")


def test_nothing_is_printed_unless_asked_for(capfd):
    given = (Grey(0), "captioned_shapes", "ssim")
    found = t2i_kd.evaluate(*given, num_captions=2, bootstrap=0)
    assert list(found["metrics"]["ssim"]) == ["student 1"] and capfd.readouterr() == ("", "")
    lines = []
    assert t2i_kd.evaluate(*given, num_captions=2, bootstrap=0, report=lines.append) == found
    assert capfd.readouterr().out == "" and any("ssim_32_n2" in line for line in lines)


def test_the_objective_is_the_last_stages_that_compares_pictures():
    stages = ("a: objective=mirrored steps=1", "b: objective=perceptual steps=1 error=squared scaling=normalised")
    recipe = dataclasses.replace(RECIPE, stages=tuple(parse_stage(stage, SDNStage) for stage in stages))
    assert recipe.tap_objective == TapObjective("squared", "normalised", ())
    assert dataclasses.replace(recipe, stages=recipe.stages[:1]).tap_objective is None
    assert IcsdRecipe(stages=(TextToImageStage("c", "distill", steps=1),)).tap_objective is None


def test_the_command_ends_in_one_line_and_exit_code_2():
    process = Fork("--dataset=captioned_shapes", "--metrics=tap_distance", module="t2i_kd.evaluate")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 2
    assert errors.strip().splitlines()[-1] == "error: --model: missing"
    assert "Traceback" not in errors
