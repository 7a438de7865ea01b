"""The inception score against SciPy's relative entropy and known answers."""

import numpy as np
import pytest
import scipy.stats

from t2i_kd.data.captioned_images import CaptionedImages
from t2i_kd.errors import UserError
from t2i_kd.metrics import inception_score as module
from t2i_kd.metrics.context import EvaluationContext
from t2i_kd.metrics.extractors import Extractor
from t2i_kd.metrics.inception_score import inception_score, split_inception_score
from t2i_kd.metrics.resampling import draw_weights


def probabilities(count=30, classes=6):
    found = np.random.default_rng(0).dirichlet(np.full(classes, 0.3), count)
    found[:, 0] = 0
    return found / found.sum(1, keepdims=True)


def by_definition(rows):
    """The score from SciPy's KL(p(y|x) || p(y)), over rows that are repeated, not weighed."""
    return np.exp(np.mean([scipy.stats.entropy(row, rows.mean(0)) for row in rows]))


def repeated(rows, weights):
    return np.repeat(rows, weights.astype(int), axis=0)


def test_it_is_scipys():
    rows, weights = probabilities(), draw_weights(30, 4, 0)
    expected = [by_definition(repeated(rows, each)[:, 1:]) for each in weights]
    assert expected[0] > 1.5
    np.testing.assert_allclose(inception_score(rows, weights), expected, rtol=1e-12)


def test_known_answers():
    one = np.ones((1, 12))
    assert inception_score(np.full((12, 4), 0.25), one) == pytest.approx([1])
    assert inception_score(np.tile([0.0, 1, 0, 0], (12, 1)), one) == pytest.approx([1])
    assert inception_score(np.eye(4)[np.arange(12) % 4], one) == pytest.approx([4])
    # Two of three pictures sure of one class: exp(H(2/3, 1/3)) = 3 / 2^(2/3).
    assert inception_score(np.eye(2)[[0, 0, 1]], np.ones((1, 3))) == pytest.approx([3 / 2 ** (2 / 3)])


def test_the_splits_are_every_tenth_picture():
    rows, weights = probabilities(105), draw_weights(105, 3, 0)
    expected = [
        np.mean([by_definition(repeated(rows[s::10], each[s::10])[:, 1:]) for s in range(10)]) for each in weights
    ]
    np.testing.assert_allclose(split_inception_score(rows, weights), expected, rtol=1e-12)
    assert expected[0] != pytest.approx(by_definition(rows[:, 1:]), rel=1e-3)


def test_a_split_that_was_not_drawn_is_left_out():
    rows, weights = np.eye(5)[np.arange(100) // 10 % 5], np.ones((1, 100))
    weights[:, 3::10] = 0
    assert np.isnan(inception_score(rows[3::10], weights[:, 3::10])).all()
    assert split_inception_score(rows, weights) == pytest.approx([5])


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        (np.full((4, 2), np.nan), "NaN"),
        (np.full((4, 2), 0.502), "sum to 1"),
        (np.tile([-0.5, 1.5], (4, 1)), "negative"),
        (np.full(4, 1.0), "shape"),
    ],
)
def test_what_is_wrong_is_named(rows, named):
    with pytest.raises(ValueError, match=named):
        inception_score(rows, np.ones((1, 4)))


def test_rounding_is_not_wrong():
    assert inception_score(np.full((4, 2), 0.5004), np.ones((1, 4))) == pytest.approx([1], rel=1e-3)


class Painter:
    """A student that draws grey level i % 5 for the i-th caption."""

    resolution = data_resolution = 32

    def generate(self, captions, seeds):
        return np.broadcast_to((np.array(seeds) % 5).astype(np.uint8)[:, None, None, None], (len(seeds), 32, 32, 3))


def forward(images):
    """Certain of the class that the first pixel's level names."""
    return {"features": images[:, 0, 0], "probabilities": np.eye(5, dtype="float32")[images[:, 0, 0, 0].astype(int)]}


def context(monkeypatch, count, reference):
    images = np.broadcast_to(
        (np.arange(reference) // 10 % 2).astype(np.uint8)[:, None, None, None], (reference, 32, 32, 3)
    )
    captions = tuple((str(i),) for i in range(reference))
    test = CaptionedImages("levels/test", images, captions, np.zeros(reference, int), ("level",))
    extractor = Extractor("levels", {"features": "first pixel"}, forward, True, "0")
    monkeypatch.setattr("t2i_kd.metrics.context.load_extractor", lambda _: extractor)
    monkeypatch.setattr("t2i_kd.metrics.context.preview", lambda _: (3, extractor.has_probabilities))
    return EvaluationContext(Painter(), "levels", num_captions=count, cache={("split", "test", 32, 32): test})


def test_a_measurement_has_the_score_of_the_real_pictures_beside(monkeypatch):
    # i % 10 fixes i % 5: every split holds one level alone of the generated pictures, but two of the reference ones.
    measured = module.measure(context(monkeypatch, 120, 100))
    line = "inception_score_levels_32_n120_splits10"
    assert measured.statistic(np.ones((1, 120)), np.ones((1, 0))) == {line: pytest.approx([1])}
    assert measured.baselines == {"real pictures": {line: pytest.approx(2)}}
    assert {
        "splits": 10,
        "generated": 120,
        "reference": 100,
        "features": "first pixel",
    }.items() <= measured.protocol.items()
    assert (measured.generated, measured.reference, measured.lower_is_better) == (120, 0, False)


def test_few_pictures(monkeypatch):
    with pytest.raises(UserError, match="--num_captions: inception_score needs at least 100 pictures, not 99"):
        module.measure(context(monkeypatch, 99, 200))
    assert module.measure(context(monkeypatch, 100, 99)).baselines == {}
