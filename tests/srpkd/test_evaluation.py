"""`evaluate` of students that read images: against targets, against the teacher's pictures, beside the source."""

import types

import numpy as np
import pytest

import t2i_kd
from t2i_kd import systems
from t2i_kd.data import from_arrays, from_image_pairs
from t2i_kd.errors import UserError
from t2i_kd.evaluation import IDENTITY
from t2i_kd.metrics.structural_similarity import ssim
from t2i_kd.srpkd.generators import load_published
from t2i_kd.student import save_network
from tests.exporting.tiny_student import make_photos
from tests.published_generators import resnet_arrays
from tests.systems import recipe_of

SIDE, COUNT = 32, 4
SIDES = [make_photos(COUNT, SIDE, SIDE, seed) for seed in range(4)]
PAIRS = from_image_pairs(*SIDES)
UNPAIRED = from_image_pairs(*SIDES, paired=False)
FEW_SOURCES = from_image_pairs(*SIDES[:2], make_photos(8, SIDE, SIDE, 5), SIDES[3], paired=False)
MORE = from_image_pairs(*SIDES[:2], make_photos(8, SIDE, SIDE, 5), make_photos(7, SIDE, SIDE, 6), paired=False)
CAPTIONED = from_arrays(SIDES[0], ["a photo"] * COUNT, SIDES[2], ["a photo"] * COUNT)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run from B to A, and the pictures of its student and of its teacher of the held-out sources."""
    folder = tmp_path_factory.mktemp("run")
    np.savez(folder / "teacher.npz", **resnet_arrays(6, 1))
    options = ("--system=srpkd", "--resolution=32", "--direction=BtoA", "--generator_channels=4", "--generator_depth=1")
    stage = "--stage=one: objective=distil steps=1"
    recipe = recipe_of(*options, f"--teacher={folder / 'teacher.npz'}", "--output_weight=1", stage)
    system = systems.build(recipe, dataset=PAIRS)
    save_network(system.network, folder / "student.keras")
    system.condition.save(folder)
    (folder / "recipe.json").write_text(system.recipe.to_json())
    sources = np.stack(SIDES[3])
    taught = load_published(folder / "teacher.npz", SIDE)({"source": sources.astype("float32")})["image"]
    return types.SimpleNamespace(
        folder=folder,
        sources=sources,
        targets=np.stack(SIDES[2]),
        images=t2i_kd.load(folder).generate(list(sources)),
        taught=np.clip(np.rint(np.asarray(taught)), 0, 255),
    )


def evaluated(run, dataset, metrics, **options):
    return t2i_kd.evaluate(str(run.folder), dataset, metrics, bootstrap=0, extractor="teacher", **options)["metrics"]


def test_it_is_compared_with_its_teacher_its_targets_and_the_source(run):
    found = evaluated(run, PAIRS, "teacher_distance,ssim,kernel")
    assert all(list(students) == ["final student", IDENTITY] for students in found.values())
    pictures = {"final student": run.images, IDENTITY: run.sources}
    for label, images in pictures.items():
        values = {name: students[label]["values"] for name, students in found.items()}
        to_teacher = values["teacher_distance"]
        # A network of the package that did not teach.
        assert list(to_teacher) == ["mae_32_n4", "ssim_32_n4", "lpips_like_efficientnet_lite0_32_n4"]
        expected = np.abs(images.astype(float) - run.taught).mean()
        assert to_teacher["mae_32_n4"] == pytest.approx(expected, abs=0.02)
        assert to_teacher["ssim_32_n4"] == pytest.approx(ssim(images, run.taught).mean(), abs=1e-3)
        assert to_teacher["lpips_like_efficientnet_lite0_32_n4"] > 0
        assert values["ssim"]["ssim_32_n4"] == pytest.approx(ssim(images, run.targets).mean(), rel=1e-6)
        (name,) = values["kernel"]
        assert name.startswith("kernel_") and "efficientnet_lite0" in name and name.endswith("_n4_n4")
        assert np.isfinite(values["kernel"][name])
    protocol = found["kernel"][IDENTITY]["protocol"]
    assert (protocol["direction"], protocol["sources"], protocol["targets"]) == ("BtoA", 4, 4)
    baseline = found["teacher_distance"]["final student"]["baselines"]["another picture of the teacher"]
    expected = np.abs(run.taught - run.taught[[2, 3, 0, 1]]).mean()
    assert baseline["mae_32_n4"] == pytest.approx(expected, abs=0.02)


def test_every_file_of_a_run_is_read_in_its_direction(run, tmp_path):
    """A checkpoint in a folder of the run, and a CycleGAN's other generator, which reads the other side."""
    folder = tmp_path / "run"
    (folder / "checkpoints" / "one").mkdir(parents=True)
    for file in ("condition.json", "recipe.json", "student.keras"):
        (folder / file).write_bytes((run.folder / file).read_bytes())
    weights = (folder / "student.keras").read_bytes()
    for file, direction in (
        ("student.keras", "BtoA"),
        ("checkpoints/one/best.keras", "BtoA"),
        ("inverse.keras", "AtoB"),
    ):
        (folder / file).write_bytes(weights)
        report = t2i_kd.evaluate(str(folder / file), PAIRS, "ssim", bootstrap=0)
        found = next(iter(report["metrics"]["ssim"].values()))
        assert found["protocol"]["direction"] == direction
        targets = np.stack(SIDES[3 if direction == "AtoB" else 2])
        images = t2i_kd.load(run.folder).generate(SIDES[2 if direction == "AtoB" else 3])
        assert found["values"]["ssim_32_n4"] == pytest.approx(ssim(images, targets).mean(), rel=1e-6)
    both = [str(folder / file) for file in ("student.keras", "inverse.keras")]
    with pytest.raises(
        UserError, match=r"^--model: .*student.keras is BtoA and .*inverse.keras is AtoB; models of diff"
    ):
        t2i_kd.evaluate(both, PAIRS, "ssim", bootstrap=0)
    with pytest.raises(UserError, match="teacher"):
        t2i_kd.evaluate(both[1], PAIRS, "teacher_distance", bootstrap=0)


def test_without_targets_the_teacher_alone_compares(run):
    found = evaluated(run, CAPTIONED, "teacher_distance", num_captions=2)
    assert next(iter(found["teacher_distance"]["final student"]["values"])) == "mae_32_n2"


def test_manifolds_name_the_sources_that_there_were(run):
    """Fewer than `num_captions` were asked for: names and protocol count the pictures that were generated."""
    found = evaluated(run, MORE, "manifold", num_captions=300)["manifold"]["final student"]
    assert {name.partition("_")[0] for name in found["values"]} == {"precision", "density", "recall", "coverage"}
    assert all(name.endswith("_n7_n8") for name in found["values"])
    assert (found["protocol"]["generated"], found["protocol"]["reference"]) == (7, 8)


@pytest.mark.parametrize(
    ("dataset", "metric", "words"),
    [
        (UNPAIRED, "ssim", "--metrics: ssim compares pairs, and arrays has none"),
        (PAIRS, "r_precision", "--metrics: r_precision is for students that read captions; for those of images: frech"),
        (CAPTIONED, "kernel", "has no target pictures; teacher_distance needs none"),
        (PAIRS, "manifold", "--dataset: manifold needs at least 6 held-out target pictures, not 4"),
        (FEW_SOURCES, "manifold", "--dataset: manifold needs at least 6 held-out source pictures, not 4"),
    ],
)
def test_what_cannot_be_measured_is_named(dataset, metric, words, run):
    with pytest.raises(UserError) as caught:
        evaluated(run, dataset, metric)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_fewer_sources_than_a_metric_needs_name_the_flag_that_asked_for_them(run):
    with pytest.raises(UserError, match="--num_captions: manifold needs at least 6 held-out source pictures, not 5"):
        evaluated(run, MORE, "manifold", num_captions=5)


def test_a_student_that_no_generator_taught_has_no_distance_to_it(run):
    class Student:
        resolution = SIDE

        def generate(self, items, seeds):
            return np.zeros((len(items), SIDE, SIDE, 3), np.uint8)

    with pytest.raises(UserError, match="--metrics: teacher_distance needs a model whose recipe names a generator"):
        t2i_kd.evaluate(Student(), CAPTIONED, "teacher_distance")
