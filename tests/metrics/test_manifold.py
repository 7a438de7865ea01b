"""Precision, recall, density and coverage against loops over scikit-learn's neighbours, and worked by hand."""

import dataclasses

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from t2i_kd.data.captioned_images import CaptionedImages
from t2i_kd.errors import UserError
from t2i_kd.metrics import blocks, manifold
from t2i_kd.metrics.context import EvaluationContext
from t2i_kd.metrics.extractors import Extractor
from t2i_kd.metrics.manifold import manifold_contributions
from t2i_kd.metrics.resampling import draw_weights


def samples(count, seed=0, shift=0.0):
    return np.random.default_rng(seed).normal(shift, 1, (count, 4))


def by_loops(generated, reference, k):
    """The four, picture by picture, from the definitions."""

    def radii(vectors):
        return NearestNeighbors(n_neighbors=k + 1).fit(vectors).kneighbors(vectors)[0][:, k]

    generated_radii, reference_radii = radii(generated), radii(reference)
    inside = [
        [np.sqrt(((y - x) ** 2).sum()) <= r for x, r in zip(reference, reference_radii, strict=True)] for y in generated
    ]
    found = {"precision": [any(row) for row in inside], "density": [sum(row) / k for row in inside]}
    found["coverage"] = [any(row[j] for row in inside) for j in range(len(reference))]
    found["recall"] = [
        any(np.sqrt(((y - x) ** 2).sum()) <= r for y, r in zip(generated, generated_radii, strict=True))
        for x in reference
    ]
    return found


@pytest.mark.parametrize(("k", "block"), [(5, 512), (5, 7), (1, 7)])
def test_they_are_the_loops(k, block, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", block)
    generated, reference = samples(40), samples(31, 1, 1.0)
    found, expected = manifold_contributions(generated, reference, k), by_loops(generated, reference, k)
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert 0 < np.mean(values) != 1, f"{name}: the example decides nothing"
        np.testing.assert_allclose(found[name], np.asarray(values, float), atol=1e-12, err_msg=name)


def test_by_hand():
    # Radii of the reference 1, 1, 2, of the generated ones 8, 1, 1. 2 is at distance 2, 1 and 1 from the reference.
    generated, reference = np.array([[2.0], [10], [11]]), np.array([[0.0], [1], [3]])
    found = manifold_contributions(generated, reference, 1)
    np.testing.assert_array_equal(found["precision"], [1, 0, 0])
    np.testing.assert_array_equal(found["density"], [2, 0, 0])
    np.testing.assert_array_equal(found["recall"], [1, 1, 1])
    np.testing.assert_array_equal(found["coverage"], [0, 1, 1])


def test_a_set_covers_itself():
    # Every ball holds its centre and k neighbours, so that the density is (k + 1) / k. The k-th lies on the sphere, and
    # far from 0: a distance must not depend on the block in which it is computed.
    same = np.random.default_rng(0).normal(1000, 1, (1030, 67))
    found = manifold_contributions(same, same[::-1])
    assert all(found[name].all() for name in ("precision", "recall", "coverage"))
    assert found["density"].mean() == pytest.approx(6 / 5, abs=1e-12)


def test_sets_far_apart_share_nothing():
    found = manifold_contributions(samples(20), samples(30, 1, 1000.0))
    assert {name: values.sum() for name, values in found.items()} == dict.fromkeys(found, 0)


def test_one_picture_again_and_again():
    one, other = (np.tile(samples(1, seed), (6, 1)) * 1e3 for seed in (0, 1))
    assert all((values == values[0]).all() and values[0] >= 1 for values in manifold_contributions(one, one).values())
    assert not any(values.any() for values in manifold_contributions(one, other).values())


@pytest.mark.parametrize(
    ("generated", "named"),
    [(samples(5), "more than 5"), (samples(9)[:, :3], "shapes"), (np.full((9, 4), np.nan), "NaN")],
)
def test_what_is_wrong_is_named(generated, named):
    with pytest.raises(ValueError, match=named):
        manifold_contributions(generated, samples(9))
    with pytest.raises(ValueError, match=named):
        manifold_contributions(samples(9), generated)


class Copyist:
    """A student that draws the pictures of a set in turn."""

    resolution = data_resolution = 32

    def __init__(self, images):
        self.images = images

    def generate(self, captions, seeds):
        return self.images[np.arange(len(captions)) % len(self.images)]


def context(monkeypatch, generated, reference, count):
    """A context whose extractor gives a picture's first pixel; the training split is `noise(20, 2)`."""
    cache = {}
    for split, images in (("train", noise(20, 2)), ("test", reference)):
        captions = tuple((f"picture {i}",) for i in range(len(images)))
        labels = np.zeros(len(images), int)
        cache["split", split, 32, 32] = CaptionedImages(f"noise/{split}", images, captions, labels, ("noise",))
    pixel = Extractor("pixel", {"features": "first pixel"}, lambda x: {"features": x[:, 0, 0]}, False, "0")
    monkeypatch.setattr("t2i_kd.metrics.context.load_extractor", lambda _: pixel)
    monkeypatch.setattr("t2i_kd.metrics.context.preview", lambda _: (3, pixel.has_probabilities))
    return EvaluationContext(Copyist(generated), "noise", num_captions=count, cache=cache)


def noise(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), np.uint8)


def test_a_measurement_weighs_generated_and_reference_pictures(monkeypatch):
    generated, reference = noise(12), noise(9, 1)
    measured = manifold.measure(context(monkeypatch, generated, reference, 12))
    assert (measured.generated, measured.reference, measured.lower_is_better) == (12, 9, False)
    assert {
        "features": "first pixel",
        "neighbours": 5,
        "generated": 12,
        "reference": 9,
    }.items() <= measured.protocol.items()
    weights = draw_weights(12, 3, 0), draw_weights(9, 3, 1)
    expected = by_loops(generated[:, 0, 0].astype(float), reference[:, 0, 0].astype(float), 5)
    found = measured.statistic(*weights)
    assert list(found) == [f"{name}_pixel_32_n12_n9" for name in ("precision", "density", "recall", "coverage")]
    for name, values in expected.items():
        side = weights[0] if name in ("precision", "density") else weights[1]
        repeated = [np.repeat(np.asarray(values, float), row.astype(int)).mean() for row in side]
        np.testing.assert_allclose(found[f"{name}_pixel_32_n12_n9"], repeated, atol=1e-12)
    # The anchors: halves of nine real pictures are too small; 12 of the 20 training pictures, evenly spread.
    chosen = noise(20, 2)[np.linspace(0, 19, 12).astype(int), 0, 0].astype(float)
    for name, values in by_loops(chosen, reference[:, 0, 0].astype(float), 5).items():
        assert measured.baselines["12 training pictures"][f"{name}_pixel_32_n12_n9"] == pytest.approx(np.mean(values))


def test_one_half_of_the_real_pictures_stands_beside_with_the_other(monkeypatch):
    """Training pictures of another kind do not: here they are all black."""
    reference = noise(64, 1)
    evaluated = context(monkeypatch, noise(12), reference, 12)
    train = evaluated.split("train")
    black = dataclasses.replace(train, images=np.zeros_like(train.images))
    evaluated.cache["split", "train", 32, 32] = black
    measured = manifold.measure(evaluated)
    assert list(measured.baselines) == ["32 real test pictures against the other 32", "12 training pictures"]
    suffix = "pixel_32_n12_n64"
    same, other = measured.baselines.values()
    assert other[f"precision_{suffix}"] == 0 and min(same.values()) > 0.3
    _, half, rest = evaluated.reference_halves()
    expected = by_loops(half.astype(float), rest.astype(float), 5)
    assert same == {f"{name}_{suffix}": pytest.approx(np.mean(values)) for name, values in expected.items()}
    together = np.concatenate([half, rest])
    np.testing.assert_array_equal(np.sort(together, axis=0), np.sort(reference[:, 0, 0], axis=0))


def test_too_few_pictures_name_the_flag(monkeypatch):
    with pytest.raises(UserError, match="--num_captions: manifold needs at least 6 pictures, not 5"):
        manifold.measure(context(monkeypatch, noise(12), noise(9), 5))
    with pytest.raises(UserError, match="--dataset: manifold needs at least 6 pictures, not 5"):
        manifold.measure(context(monkeypatch, noise(12), noise(5), 6))
    assert manifold.measure(context(monkeypatch, noise(6), noise(6), 6)).generated == 6
