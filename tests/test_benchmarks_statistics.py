"""The statistics, against scipy's bootstrap and against data whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.statistics import (
    ENOUGH_FOR_P95,
    FEWEST_FOR_INTERVAL,
    Ratio,
    bootstrap,
    floor,
    ratio,
    summarize,
    verdict,
)

times = st.floats(0.01, 1e5, allow_subnormal=False)


def noisy(rng, n, true=1.0, sigma=0.05):
    return true * np.exp(rng.normal(0, sigma, n))


@pytest.mark.parametrize("n", [12, 30, 100])
def test_intervals_are_those_of_scipy(n):
    """Two random bootstraps of the same data: their bounds differ by little of the width."""
    data = noisy(np.random.default_rng(n), n, true=20, sigma=0.3)
    low, high = bootstrap(data, np.median, seed=1)
    theirs = scipy.stats.bootstrap(
        (data,), np.median, n_resamples=10_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert low == pytest.approx(theirs.low, abs=0.06 * width)
    assert high == pytest.approx(theirs.high, abs=0.06 * width)


def test_the_same_seed_gives_the_same_interval():
    data = noisy(np.random.default_rng(3), 30)
    assert bootstrap(data, np.median, seed=7) == bootstrap(data, np.median, seed=7)
    assert bootstrap(data, np.mean, seed=7) != bootstrap(data, np.mean, seed=8)


def test_intervals_hold_the_truth_in_95_of_100_runs():
    """Known ratio 1.25, rounds disturbed as a whole: the intervals of 400 simulated runs."""
    rng = np.random.default_rng(4)
    held = 0
    for number in range(400):
        disturbance = np.exp(rng.normal(0, 0.5, 20))
        found = ratio(noisy(rng, 20, 1.25) * disturbance, noisy(rng, 20) * disturbance, seed=number)
        held += found.low <= 1.25 <= found.high
    assert 0.92 <= held / 400 <= 0.985


def test_pairing_removes_what_disturbs_a_whole_round():
    rng = np.random.default_rng(5)
    disturbance = np.exp(rng.normal(0, 1.0, 30))  # e-fold, as on a machine with other work
    found = ratio(noisy(rng, 30, 2.0) * disturbance, noisy(rng, 30) * disturbance, seed=1)
    assert found.value == pytest.approx(2.0, rel=0.05)
    assert found.high / found.low < 1.15
    alone = summarize(noisy(rng, 30, 2.0) * disturbance, seed=1)
    assert alone.high / alone.low > 1.3  # what the unpaired figure would have said


def test_an_arm_like_the_reference_is_seldom_called_different():
    rng = np.random.default_rng(6)
    wrong = 0
    for number in range(120):
        reference, again, arm = (noisy(rng, 20, sigma=0.1) for _ in range(3))
        noise = floor(ratio(again, reference, number))
        wrong += verdict(ratio(arm, reference, number), noise) != "not resolved"
    assert wrong / 120 <= 0.05


def test_a_true_difference_beyond_the_floor_is_resolved():
    rng = np.random.default_rng(7)
    reference, again = noisy(rng, 30), noisy(rng, 30)
    noise = floor(ratio(again, reference, 1))
    assert verdict(ratio(noisy(rng, 30, 1.3), reference, 1), noise) == "slower"
    assert verdict(ratio(noisy(rng, 30, 0.7), reference, 1), noise) == "faster"


@pytest.mark.parametrize(
    ("value", "low", "high", "noise", "said"),
    [
        (1.5, 1.2, 1.9, 1.1, "slower"),
        (0.5, 0.4, 0.6, 1.1, "faster"),
        (1.5, 0.9, 1.9, 1.1, "not resolved"),  # the interval holds 1
        (1.05, 1.01, 1.08, 1.1, "not resolved"),  # inside the floor
        (0.95, 0.92, 0.99, 1.1, "not resolved"),
        (1.5, None, None, 1.1, "not resolved"),  # too few rounds for an interval
        (1.5, 1.2, 1.9, None, "not resolved"),  # no floor known
    ],
)
def test_verdicts(value, low, high, noise, said):
    assert verdict(Ratio(10, value, low, high), noise) == said


def test_floor_is_the_farther_bound():
    assert floor(Ratio(10, 1.0, 0.8, 1.1)) == pytest.approx(1.25)
    assert floor(Ratio(10, 1.0, 0.95, 1.3)) == pytest.approx(1.3)
    assert floor(Ratio(3, 1.0, None, None)) is None


@given(st.lists(times, min_size=1, max_size=80))
@settings(max_examples=40, deadline=None)
def test_summary_of_any_sample(data):
    found = summarize(data, seed=1)
    assert found.n == len(data)
    assert found.median == np.median(data)
    assert found.minimum == min(data)
    assert (found.p95 is None) == (len(data) < ENOUGH_FOR_P95)
    if len(data) < FEWEST_FOR_INTERVAL:
        assert found.low is None
        assert found.high is None
    else:
        assert min(data) <= found.low <= found.median <= found.high <= max(data)


@given(st.lists(st.tuples(times, times), min_size=1, max_size=40), st.floats(0.01, 100))
@settings(max_examples=40, deadline=None)
def test_ratio_of_any_rounds(pairs, scale):
    """Turned round it is the reciprocal; with all times in another unit it is the same."""
    arm, reference = (np.array(side) for side in zip(*pairs, strict=True))
    found, turned = ratio(arm, reference, 1), ratio(reference, arm, 1)
    scaled = ratio(arm * scale, reference * scale, 1)
    assert found.value == pytest.approx(1 / turned.value)
    assert scaled.value == pytest.approx(found.value)
    if len(pairs) >= FEWEST_FOR_INTERVAL:
        assert found.low <= found.value * (1 + 1e-9)
        assert found.value <= found.high * (1 + 1e-9)


def test_nothing_measured_is_an_error():
    with pytest.raises(ValueError, match="no samples"):
        summarize([], 1)
    with pytest.raises(ValueError, match="no round has both"):
        ratio([], [], 1)
