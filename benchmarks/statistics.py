"""Medians, ratios and their intervals, for a noisy machine: see the design's "Statistics".

Everything is resampled over *rounds*: a round is what was shot together, so what disturbs it
disturbs both sides of a ratio. All intervals are 95% percentile bootstrap intervals of 10,000
resamples with a stored seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 10_000
LEVEL = 0.95
ENOUGH_FOR_P95 = 40
FEWEST_FOR_INTERVAL = 5

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Summary:
    """One arm's samples. low and high bound the median; None where there are too few samples to
    say.
    """

    n: int
    median: float
    minimum: float
    p95: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Ratio:
    """arm / reference over the rounds in which both were shot: exp of the median log ratio."""

    n: int
    value: float
    low: float | None
    high: float | None


def bootstrap(
    values: ArrayLike, statistic: Callable[..., Floats], seed: int
) -> tuple[float, float] | None:
    """Percentile interval of `statistic(…, axis=-1)` by resampling `values`, one value for each
    round.
    """
    sample = np.asarray(values, dtype=float)
    if sample.size < FEWEST_FOR_INTERVAL:
        return None
    picks = np.random.default_rng(seed).integers(0, sample.size, (RESAMPLES, sample.size))
    estimates = statistic(sample[picks], axis=-1)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(estimates, [tail, 1 - tail])
    return float(low), float(high)


def summarize(values: ArrayLike, seed: int) -> Summary:
    """Median with its interval, minimum, and p95 where n allows it. Raises ValueError without
    values.
    """
    sample = np.asarray(values, dtype=float)
    if sample.size == 0:
        raise ValueError("no samples to summarize")
    p95 = float(np.quantile(sample, 0.95)) if sample.size >= ENOUGH_FOR_P95 else None
    low, high = bootstrap(sample, np.median, seed) or (None, None)
    return Summary(sample.size, float(np.median(sample)), float(sample.min()), p95, low, high)


def ratio(arm: ArrayLike, reference: ArrayLike, seed: int) -> Ratio:
    """Paired ratio; the two arrays hold the same rounds in the same order, all values positive."""
    logs = np.log(np.asarray(arm, dtype=float)) - np.log(np.asarray(reference, dtype=float))
    if logs.size == 0:
        raise ValueError("no round has both arms")
    interval = bootstrap(logs, np.median, seed)
    low, high = (float(np.exp(bound)) for bound in interval) if interval else (None, None)
    return Ratio(logs.size, float(np.exp(np.median(logs))), low, high)


def floor(a_a: Ratio) -> float | None:
    """The noise floor: how far from 1 the interval of the reference against itself reaches, as a
    ratio ≥ 1.
    """
    if a_a.low is None or a_a.high is None:
        return None
    return max(a_a.high, 1 / a_a.low)


def verdict(of: Ratio, noise_floor: float | None) -> str:
    """Slower, faster, or not resolved: inside the noise floor, or an interval that holds 1."""
    if of.low is None or of.high is None or noise_floor is None:
        return "not resolved"
    if of.low <= 1 <= of.high or 1 / noise_floor <= of.value <= noise_floor:
        return "not resolved"
    return "slower" if of.value > 1 else "faster"


def change(before: ArrayLike, after: ArrayLike, seed: int) -> Ratio:
    """after / before of two runs: exp of the difference of their median logarithms.

    Between runs nothing pairs: each side is resampled on its own. Arguments are logarithms, of
    times or of ratios.
    """
    sides = [np.asarray(side, dtype=float) for side in (before, after)]
    n = min(side.size for side in sides)
    value = float(np.exp(np.median(sides[1]) - np.median(sides[0])))
    if n < FEWEST_FOR_INTERVAL:
        return Ratio(n, value, None, None)
    rng = np.random.default_rng(seed)
    medians = [
        np.median(side[rng.integers(0, side.size, (RESAMPLES, side.size))], axis=-1)
        for side in sides
    ]
    tail = (1 - LEVEL) / 2
    low, high = np.exp(np.quantile(medians[1] - medians[0], [tail, 1 - tail]))
    return Ratio(n, value, float(low), float(high))


@dataclass(frozen=True)
class Line:
    """y = intercept + slope · x by least squares; low and high bound the slope."""

    n: int
    intercept: float
    slope: float
    low: float | None
    high: float | None

    def at(self, x: float) -> float:
        return self.intercept + self.slope * x

    def reaches(self, y: float) -> float | None:
        """The x at which the line is at y; None when it never gets there for certain."""
        certain = self.low is not None and self.high is not None and self.low * self.high > 0
        return (y - self.intercept) / self.slope if certain else None


def line(x: ArrayLike, y: ArrayLike, seed: int) -> Line | None:
    """The line through the points, its slope's interval by resampling points; None when all points
    have the same x.
    """
    xs, ys = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if xs.size == 0 or np.ptp(xs) == 0:
        return None
    slope, intercept = np.polyfit(xs, ys, 1)
    if np.unique(xs).size < 3 or xs.size < FEWEST_FOR_INTERVAL:
        return Line(xs.size, float(intercept), float(slope), None, None)
    rng = np.random.default_rng(seed)
    slopes = np.concatenate([_slopes(xs, ys, rng, RESAMPLES // 20) for _ in range(20)])
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(slopes, [tail, 1 - tail])
    return Line(xs.size, float(intercept), float(slope), float(low), float(high))


def _slopes(xs: Floats, ys: Floats, rng: np.random.Generator, count: int) -> Floats:
    """Slopes of resampled points; NaN where a resample has a single x."""
    picks = rng.integers(0, xs.size, (count, xs.size))
    x = xs[picks] - xs[picks].mean(axis=1, keepdims=True)
    y = ys[picks]
    below = (x * x).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below > 0, (x * y).sum(axis=1) / below, np.nan)


def rank_correlation(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's rho: whether y goes up with x (1), down (-1), or neither (0)."""
    ranks = [_ranks(np.asarray(side, dtype=float)) for side in (x, y)]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: Floats) -> Floats:
    """Ranks, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]
