"""Whether the order of the shots shows in the figures: what a random order is there to prevent."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.report.starts import ArmResult
from benchmarks.statistics import FEWEST_FOR_INTERVAL, LEVEL, rank_correlation

RESAMPLES = 1000
FAR = 4.0  # standard errors that an arm's mean place may lie from the middle
RARE = 1e-4  # the chance of a false alarm about who follows whom, in one report


@dataclass(frozen=True)
class Effect:
    """Spearman's rho of position in the round and value, with its interval over rounds."""

    rho: float
    low: float | None
    high: float | None

    @property
    def matters(self) -> bool:
        return self.low is not None and self.high is not None and self.low * self.high > 0

    @property
    def sentence(self) -> str:
        if self.low is None:
            return "too few rounds to tell whether the position in the round matters"
        if not self.matters:
            return "the position in the round does not matter"
        return f"later in a round is {'slower' if self.rho > 0 else 'faster'}"

    @property
    def note(self) -> str:
        interval = "" if self.low is None else f" (95% {self.low:.2f} to {self.high:.2f})"
        return f"Rank correlation of position and value: {self.rho:.2f}{interval}."


def order_effect(arms: Sequence[ArmResult], seed: int) -> Effect:
    """Of all samples, each as a multiple of its arm's median, resampled by rounds."""
    rounds: dict[int, list[tuple[int, float]]] = {}
    for arm in arms:
        for number, place, value in zip(arm.rounds, arm.orders, arm.samples, strict=True):
            rounds.setdefault(number, []).append((place, value / arm.first.median))
    together = [np.array(shots) for shots in rounds.values()]
    rho = _rho(together)
    if len(together) < FEWEST_FOR_INTERVAL:
        return Effect(rho, None, None)
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(together), (RESAMPLES, len(together)))
    rhos = [_rho([together[i] for i in pick]) for pick in picks]
    low, high = np.quantile(rhos, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Effect(rho, float(low), float(high))


def _rho(rounds: list[np.ndarray]) -> float:
    shots = np.concatenate(rounds)
    return rank_correlation(shots[:, 0], shots[:, 1])


def biased_places(arms: Sequence[ArmResult]) -> list[str]:
    """Arms whose places in the rounds are not those of a random order: "docker:busybox (mean
    place 0.02 of the round)", "b (30 times in 30 right after a)".
    """
    return [*_leaning(arms), *_following(arms)]


def _leaning(arms: Sequence[ArmResult]) -> list[str]:
    last: dict[int, int] = {}
    for arm in arms:
        for number, place in zip(arm.rounds, arm.orders, strict=True):
            last[number] = max(last.get(number, 0), place)
    found = []
    for arm in arms:
        places = [p / last[n] for n, p in zip(arm.rounds, arm.orders, strict=True) if last[n] >= 2]
        if len(places) < FEWEST_FOR_INTERVAL:
            continue
        mean = sum(places) / len(places)
        # The standard deviation of a place between 0 and 1 is 1/√12, with few arms somewhat more.
        if abs(mean - 0.5) > FAR * math.sqrt(1 / 12 / len(places)) * 1.25:
            found.append(f"{arm.name} (mean place {mean:.2f} of the round)")
    return found


def _following(arms: Sequence[ArmResult]) -> list[str]:
    """Those that come right after one and the same arm too often: a rotation, whose mean places
    are all alike, hands each arm's after-effects to one other.
    """
    at = {
        (number, place): arm.name
        for arm in arms
        for number, place in zip(arm.rounds, arm.orders, strict=True)
    }
    pairs = Counter(
        (name, at[number, place - 1])
        for (number, place), name in at.items()
        if (number, place - 1) in at
    )
    rounds = {arm.name: len(arm.rounds) for arm in arms}
    found = []
    for (name, before), times in sorted(pairs.items()):
        n, others = rounds[name], len(arms) - 1
        if n < FEWEST_FOR_INTERVAL or others < 2:
            continue  # of two arms, each follows the other half of the time
        # In a random order it is before this one once in so many rounds as there are arms. No more
        # than one false alarm in 10,000 reports, however many pairs there are to look at.
        if _at_least(times, n, 1 / len(arms)) < RARE / (others * len(arms)):
            found.append(f"{name} ({times} times in {n} right after {before})")
    return found


def _at_least(times: int, n: int, chance: float) -> float:
    """The probability of so many or more of n, each by that chance (the binomial distribution)."""
    return math.fsum(
        math.comb(n, k) * chance**k * (1 - chance) ** (n - k) for k in range(times, n + 1)
    )
