"""How many rounds, and who takes part in which: fixed before the first round that counts."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, field, replace
from typing import Any

# The reference is what a budget is stated against; the first of these that runs here is taken.
REFERENCES = (
    "runc:busybox",
    "runc-run:busybox",
    "crun:busybox",
    "crun-run:busybox",
    "minicontainer-cli:busybox",
    "unshare+chroot:busybox",
)
BELOW_1_S, BELOW_10_S, SLOWER = 30, 15, 5
FEWEST = 5  # rounds below which no interval is computed (statistics.FEWEST_FOR_INTERVAL)
PER_SHOT_S, PER_ROUND_S = 0.002, 0.07  # the harness between shots, and the guard's quiet window
# Traced shots of each arm that has them, spread over the rounds: below 1 s, below 10 s, slower.
TRACED = (5, 3, 1)


@dataclass(frozen=True)
class Plan:
    """seconds: cost of one shot. shots: how many rounds each arm takes part in (all arms in
    `rounds` at most). reference: the arm that is shot twice in each of its rounds, "" for none.
    alone: one arm in each round, once.
    """

    seed: int
    rounds: int
    reference: str
    seconds: dict[str, float]
    shots: dict[str, int]
    traced: list[str] = field(default_factory=list)
    alone: bool = False

    def takes_part(self, arm: str, number: int) -> bool:
        """Whether `arm` is shot in round 1..rounds: its shots are spread evenly over them."""
        if self.alone:
            order = list(self.shots)
            random.Random(self.seed).shuffle(order)
            return order[number - 1] == arm
        return _spread(self.shots[arm], self.rounds, number)

    def order(self, number: int) -> list[tuple[str, int, bool]]:
        """Round `number` as (arm, rep, traced), in its own random order; the same for the same
        seed.
        """
        arms = [arm for arm in self.shots if self.takes_part(arm, number)]
        shots = [(arm, 0, False) for arm in arms]
        if self.reference in arms:
            shots.append((self.reference, 1, False))
        for arm in self.traced:
            series = TRACED[(self.seconds[arm] >= 1) + (self.seconds[arm] >= 10)]
            if _spread(min(series, self.shots[arm]), self.rounds, number):
                shots.append((arm, 0, True))
        random.Random(f"{self.seed}/{number}").shuffle(shots)
        return shots

    def expected_s(self, first: int = 1) -> float:
        """Seconds from round `first` to the end."""
        return sum(self.round_s(number) for number in range(first, self.rounds + 1))

    def of_fast_arms(self) -> Plan:
        """The same without the arms that take a second and more."""
        shots = {arm: n for arm, n in self.shots.items() if self.seconds[arm] < 1}
        traced = [arm for arm in self.traced if arm in shots]
        return replace(self, shots=shots, traced=traced)

    def round_s(self, number: int) -> float:
        return PER_ROUND_S + sum(self.seconds[arm] + PER_SHOT_S for arm, _, _ in self.order(number))

    def record(self) -> dict[str, Any]:
        return asdict(self)


def one_after_the_other(seconds: dict[str, float], seed: int) -> Plan:
    """Every arm once, in a round of its own: for samples that are long."""
    return Plan(seed, len(seconds), "", seconds, dict.fromkeys(seconds, 1), alone=True)


def _spread(share: int, rounds: int, number: int) -> bool:
    """Whether round `number` is one of `share` rounds that are spread evenly over all of them."""
    return number * share // rounds > (number - 1) * share // rounds


def enough(seconds: float) -> int:
    """The number of rounds that the design fixes for a shot of this length."""
    return BELOW_1_S if seconds < 1 else BELOW_10_S if seconds < 10 else SLOWER


def make_plan(
    seconds: dict[str, float],
    *,
    seed: int,
    rounds: int | None = None,
    budget_s: float | None = None,
    traced: list[str] | None = None,
    quick: bool = False,
    reference: str = "",
) -> Plan:
    """A plan for arms that cost `seconds` a shot (measured in round 0).

    rounds: every arm that often. Otherwise what `enough` says, cut to `budget_s` seconds: slow arms
    then take part in fewer rounds, evenly spread, and fast arms in fewer only when they alone do
    not fit: a third of the budget is theirs, whatever the slow ones take. Never below FEWEST, so a
    short budget is exceeded; the printed plan says what it takes. quick: fewer for slow arms, which
    then have no interval. reference: in place of the first of REFERENCES, if it is among them.
    """
    reference = next((name for name in (reference, *REFERENCES) if name in seconds), "")
    reference = reference or min(seconds, key=lambda arm: seconds[arm])

    def plan(most: int, slow: int) -> Plan:
        shots = {
            arm: min(most, enough(cost), _quick(cost) if quick else slow if cost >= 1 else most)
            for arm, cost in seconds.items()
        }
        return Plan(seed, max(shots.values()), reference, seconds, shots, traced or [])

    if rounds is not None:
        return Plan(seed, rounds, reference, seconds, dict.fromkeys(seconds, rounds), traced or [])
    for most, slow in _sizes():
        candidate = plan(most, slow)
        if budget_s is None or candidate.expected_s() <= budget_s:
            return candidate
        if slow == FEWEST and candidate.of_fast_arms().expected_s() <= budget_s / 3:
            return candidate
    return candidate


def _quick(seconds: float) -> int:
    return FEWEST if seconds < 1 else 2 if seconds < 10 else 1


def _sizes() -> list[tuple[int, int]]:
    """(rounds of fast arms, rounds of slow arms), from what is enough down to the fewest."""
    slower = [(BELOW_1_S, slow) for slow in range(BELOW_10_S, FEWEST - 1, -1)]
    return slower + [(most, FEWEST) for most in range(BELOW_1_S - 1, FEWEST - 1, -1)]
