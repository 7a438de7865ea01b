"""The perceptual distance against plain loops, and what related and unrelated pictures get."""

import math

import keras
import numpy as np
import pytest

from t2i_kd.data.captioned_images import CaptionedImages
from t2i_kd.errors import UserError
from t2i_kd.metrics import context as context_module
from t2i_kd.metrics import perceptual_distance
from t2i_kd.metrics.context import EvaluationContext
from t2i_kd.metrics.perceptual_distance import lpips_like
from t2i_kd.options import TeacherOptions
from t2i_kd.teachers.vgg19 import build_vgg19

TAPS = ("conv1_2", "conv2_2", "conv3_4", "conv4_4", "conv5_4")


def taps(seed, count=3):
    rng = np.random.default_rng(seed)
    shapes = {"shallow": (count, 4, 3, 2), "deep": (count, 1, 2, 5)}
    return {name: rng.normal(0, 9, shape).astype("float32") for name, shape in shapes.items()}


def by_loops(one, other):
    """Place by place, in plain Python."""
    found = [0.0] * len(next(iter(one.values())))
    for tap in one:
        count, height, width, _ = one[tap].shape
        for i in range(count):
            for place in np.ndindex(height, width):
                u, v = ([float(value) for value in taps[tap][i][place]] for taps in (one, other))
                of_u, of_v = (math.sqrt(sum(value * value for value in each)) + 1e-10 for each in (u, v))
                apart = sum((a / of_u - b / of_v) ** 2 for a, b in zip(u, v, strict=True))
                found[i] += apart / (height * width)
    return found


def test_it_is_the_loops():
    one, other = taps(0), taps(1)
    one["shallow"][0, 0, 0] = 0
    found = lpips_like(one, other)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, by_loops(one, other), rtol=1e-9)


def test_by_hand():
    # Orthogonal directions are 2 apart, a place of zeros 1 from any other, scale does not count.
    one = {"tap": np.array([[[[3.0, 0], [0, 0]]], [[[1, 1], [0, 2]]]])}
    other = {"tap": np.array([[[[0.0, 5], [7, 0]]], [[[9, 9], [0, 1]]]])}
    np.testing.assert_allclose(lpips_like(one, other), [(2 + 1) / 2, 0], atol=1e-9)
    twice = {name: {"tap": taps["tap"], "again": taps["tap"]} for name, taps in (("one", one), ("other", other))}
    np.testing.assert_allclose(lpips_like(twice["one"], twice["other"]), [3, 0], atol=1e-9)


def test_constant_pictures():
    zeros = {"tap": np.zeros((2, 3, 3, 4))}
    assert lpips_like(zeros, zeros).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"tap": np.full((1, 2, 2, 3), np.nan)}, "tap: a value is NaN"),
        ({"tap": np.zeros((1, 2, 2, 4))}, "shapes"),
        ({"pool": np.zeros((1, 2, 2, 3))}, "taps differ"),
    ],
)
def test_what_is_wrong_is_named(other, named):
    one = {"tap": np.zeros((1, 2, 2, 3))}
    with pytest.raises(ValueError, match=named):
        lpips_like(one, other)
    with pytest.raises(ValueError, match=named):
        lpips_like(other, one)
    with pytest.raises(ValueError, match="no taps"):
        lpips_like({}, {})


class Blurrer:
    """A student whose picture of `picture i` is picture i with every level a little changed."""

    resolution = data_resolution = 32

    def __init__(self, images, change):
        self.images, self.change = images, change

    def generate(self, captions, seeds):
        chosen = np.stack([self.images[int(caption.split()[1])] for caption in captions]).astype(int)
        return np.clip(chosen + self.change * (-1) ** np.arange(32)[:, None], 0, 255).astype(np.uint8)


def context(monkeypatch, change, count, name="vgg19", reference=17):
    keras.utils.set_random_seed(0)
    network = build_vgg19(32, width=1 / 32)
    monkeypatch.setattr(context_module, "load_teacher", lambda recipe, resolution: network)
    images = np.random.default_rng(0).integers(0, 256, (reference, 32, 32, 3), np.uint8)
    captions = tuple((f"picture {i}",) for i in range(reference))
    test = CaptionedImages("noise/test", images, captions, np.zeros(reference, int), ("noise",))
    student, cache = Blurrer(images, change), {("split", "test", 32, 32): test}
    return EvaluationContext(student, "noise", num_captions=count, teacher=TeacherOptions(teacher=name), cache=cache)


def test_a_measurement_is_the_mean_over_pairs(monkeypatch):
    evaluated = context(monkeypatch, 40, 17)
    measured, line = perceptual_distance.measure(evaluated), "lpips_like_vgg19_average_32_n17"
    reference = evaluated.split("test").images[[picture for picture, _ in evaluated.pairs]]
    features = [
        evaluated.loaded_teacher.predict(each.astype("float32"), verbose=0)
        for each in (reference, np.asarray(evaluated.generated), np.roll(reference, -8, axis=0))
    ]
    expected, unrelated = (
        by_loops(*({tap: each[tap] for tap in TAPS} for each in pair)) for pair in (features[:2], features[::2])
    )
    np.testing.assert_allclose(measured.samples[line], expected, rtol=1e-4)
    weights = np.stack([np.ones(17), np.arange(17.0)])
    found = measured.statistic(weights, np.ones((2, 0)))
    np.testing.assert_allclose(found[line], [np.mean(expected), np.average(expected, weights=np.arange(17))], rtol=1e-4)
    assert measured.baselines == {"another real picture": {line: pytest.approx(np.mean(unrelated), rel=1e-4)}}
    assert measured.lower_is_better and measured.generated == 17 and measured.pairs == evaluated.pairs
    assert measured.pictures.shape == (17, 32, 32, 3)
    assert measured.protocol["taps"] == " ".join(TAPS)
    assert {"teacher_pooling": "average", "captions": 17, "split": "noise/test"}.items() <= measured.protocol.items()


def test_a_copy_is_0_away_and_a_change_grows(monkeypatch):
    means = []
    for change in (0, 10, 60):
        measured = perceptual_distance.measure(context(monkeypatch, change, 17, "vgg19_slim"))
        (found,) = measured.statistic(np.ones((1, 17)), np.ones((1, 0))).values()
        means.append(found[0])
    assert list(measured.samples) == ["lpips_like_vgg19_slim_average_32_n17"]
    (unrelated,) = measured.baselines["another real picture"].values()
    assert means[0] == pytest.approx(0, abs=1e-9) and means[0] < means[1] < means[2] and means[1] < unrelated


def test_no_picture_is_unrelated_to_itself(monkeypatch):
    # Twice as many captions as pictures: half of the pairs further on is the same picture again.
    (unrelated,) = (
        perceptual_distance.measure(context(monkeypatch, 0, 8, reference=4)).baselines["another real picture"].values()
    )
    assert unrelated > 1e-3


def test_another_teachers_last_map_of_each_side_is_compared():
    image = keras.Input((32, 32, 3), name="image")
    half = keras.layers.AveragePooling2D(2)(image)
    taps = {"image": image, "stem": half, "block": half * 2, "deep": keras.layers.AveragePooling2D(2)(half)}
    taps["pooled"] = keras.layers.GlobalAveragePooling2D()(half)
    assert perceptual_distance.compared_taps(keras.Model(image, taps)) == ("block", "deep")
    assert perceptual_distance.compared_taps(build_vgg19(32, width=1 / 32)) == TAPS


def test_without_a_teacher_nothing_is_measured(monkeypatch):
    evaluated = context(monkeypatch, 0, 5, "none")
    monkeypatch.undo()
    with pytest.raises(UserError, match="--teacher: none has no feature maps"):
        perceptual_distance.measure(evaluated)
