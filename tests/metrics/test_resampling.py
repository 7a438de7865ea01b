"""Bootstrap weights, intervals and comparisons against SciPy, loops and known answers."""

import dataclasses

import numpy as np
import pytest
import scipy.stats

from t2i_kd.metrics import resampling
from t2i_kd.metrics.resampling import Measurement


def mean_measurement(values):
    return Measurement({}, resampling.mean_of({"line": np.asarray(values, float)}), len(values))


def test_weights_count_draws_with_replacement():
    weights = resampling.draw_weights(50, 2000, [3, 0])
    assert weights.shape == (2001, 50)
    assert (weights[0] == 1).all() and (weights.sum(1) == 50).all()
    # The count of one picture in one resample is binomial(50, 1/50).
    assert weights[1:].mean() == pytest.approx(1)
    assert weights[1:].var() == pytest.approx(50 * 0.02 * 0.98, rel=0.05)
    assert not np.array_equal(weights, resampling.draw_weights(50, 2000, [4, 0]))


def test_without_resamples_or_pictures_the_row_of_ones_is_left():
    assert resampling.draw_weights(3, 0, 0).tolist() == [[1, 1, 1]]
    assert resampling.draw_weights(0, 4, 0).shape == (5, 0)


def test_the_interval_of_a_mean_is_scipys():
    values = np.random.default_rng(0).exponential(2, 200)
    rows = resampling.resampled(mean_measurement(values), 4000, 0)["line"]
    assert rows[0] == pytest.approx(values.mean())
    oracle = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert resampling.interval(rows) == pytest.approx((oracle.low, oracle.high), rel=0.02)


def test_a_biased_statistic_keeps_its_value_inside():
    rows = np.array([1.0, *np.linspace(2, 3, 101)])
    assert resampling.interval(rows) == pytest.approx((2.025, 2.975))
    assert resampling.interval(rows, biased=True) == pytest.approx((0.525, 1.475))


def test_generated_and_reference_pictures_are_drawn_independently():
    given = {}

    def statistic(generated_weights, reference_weights):
        given.update(generated=generated_weights, reference=reference_weights)
        return {"line": generated_weights[:, 0]}

    resampling.resampled(Measurement({}, statistic, 20, 20), 10, 0)
    assert not np.array_equal(given["generated"][1:], given["reference"][1:])


def test_a_paired_difference_is_seen_that_the_intervals_alone_would_hide():
    base = np.random.default_rng(0).normal(0, 10, 300)
    one, other = (resampling.resampled(mean_measurement(values), 500, 0) for values in (base, base + 0.5))
    found = resampling.compare(one, other)["line"]
    assert found["difference"] == pytest.approx(0.5)
    assert found["interval"] == pytest.approx((0.5, 0.5))
    assert found["larger_than_noise"] is True
    low, high = resampling.interval(one["line"])
    assert low < resampling.interval(other["line"])[0] < high


def test_two_draws_of_one_thing_rarely_differ_by_more_than_noise():
    rng = np.random.default_rng(0)
    flagged = 0
    for _ in range(200):
        one, other = (resampling.resampled(mean_measurement(rng.normal(0, 1, 60)), 200, 0) for _ in range(2))
        found = resampling.compare(one, other)["line"]
        assert found["larger_than_noise"] is not (found["interval"][0] <= 0 <= found["interval"][1])
        flagged += found["larger_than_noise"]
    # 5 % of 200, give or take four standard errors.
    assert 1 <= flagged <= 22


def test_without_resamples_nothing_is_said_about_noise():
    one, other = (resampling.resampled(mean_measurement([value]), 0, 0) for value in (1, 3))
    assert resampling.compare(one, other) == {"line": {"difference": 2, "interval": None, "larger_than_noise": None}}
    assert resampling.compare(one, {"another line": other["line"]}) == {}


def test_a_mean_of_nan_is_refused():
    with pytest.raises(ValueError, match="line: a value is NaN"):
        mean_measurement([1.0, np.nan])


def pairs_of(count):
    return [(i, f"caption {i}") for i in range(count)]


def test_asking_again_makes_nothing_surer():
    """A statistic of clusters whose members are the same is that of one member each."""
    first, second = np.random.default_rng(0).normal(0, 1, (2, 40))
    once, again = ([mean_measurement(np.tile(v, n)) for v in (first, second)] for n in (1, 16))
    rows = []
    for n, measurements in ((1, once), (16, again)):
        paired = [dataclasses.replace(each, pairs=pairs_of(40) * n) for each in measurements]
        rows.append([resampling.resampled(each, 300, 0) for each in paired])
    for one, repeated in zip(*rows, strict=True):
        np.testing.assert_allclose(one["line"], repeated["line"], atol=1e-12)
    found = [resampling.compare(*each)["line"]["interval"] for each in rows]
    assert found[0] == pytest.approx(found[1]) and found[0][1] - found[0][0] > 0.5
    # Pairs that differ in both are drawn one by one, as pictures are that nothing is known of.
    alone = resampling.resampled(once[0], 300, 0)["line"]
    np.testing.assert_array_equal(alone, rows[0][0]["line"])


def test_clusters_are_the_pictures_or_the_captions_whichever_are_fewer():
    by_picture = [(picture, f"caption {n}") for n in range(3) for picture in range(20)]
    by_picture = [(picture, f"{caption} {picture}") for picture, caption in by_picture]
    assert resampling.clusters_of(by_picture).tolist() == 3 * list(range(20))
    by_caption = [(picture, f"caption {picture % 25}") for picture in range(60)]
    assert resampling.clusters_of(by_caption).tolist() == [picture % 25 for picture in range(60)]
    assert resampling.clusters_of([]).tolist() == []


def test_a_few_captions_are_all_that_there_are():
    """Then pictures are drawn: an interval of three captions' means would miss the truth in a third of all cases."""
    pairs = [(picture, f"caption {picture % 3}") for picture in range(60)]
    assert resampling.clusters_of(pairs).tolist() == list(range(60))
    rng, missed = np.random.default_rng(0), 0
    for trial in range(200):
        measurement = dataclasses.replace(mean_measurement(rng.normal(0, 1, 60)), pairs=pairs)
        low, high = resampling.interval(resampling.resampled(measurement, 200, trial)["line"])
        missed += not low <= 0 <= high
    assert missed < 0.12 * 200
    assert resampling.clusters_of([(7, "a"), (3, "a"), (7, "a")]).tolist() == [0, 1, 0]


def test_a_cluster_is_drawn_whole():
    given = {}

    def statistic(generated_weights, reference_weights):
        given.update(generated=generated_weights)
        return {"line": generated_weights[:, 0]}

    pairs = [(0, "a"), (0, "b"), *((picture, f"caption {picture}") for picture in range(1, 20))]
    resampling.resampled(Measurement({}, statistic, 21, pairs=pairs), 50, 0)
    np.testing.assert_array_equal(given["generated"][:, 0], given["generated"][:, 1])
    assert (given["generated"][:, 1:].sum(1) == 20).all() and len(np.unique(given["generated"], axis=0)) > 5
