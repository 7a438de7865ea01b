"""Bootstrap weights, intervals and comparisons against SciPy, loops and known answers."""

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


def test_made_and_real_pictures_are_drawn_independently():
    seen = {}

    def statistic(made_weights, real_weights):
        seen.update(made=made_weights, real=real_weights)
        return {"line": made_weights[:, 0]}

    resampling.resampled(Measurement({}, statistic, 20, 20), 10, 0)
    assert not np.array_equal(seen["made"][1:], seen["real"][1:])


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
