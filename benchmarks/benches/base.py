"""What all benchmarks have in common: arms that take part, one sample of an arm, rows.

A benchmark is rounds of one sample of every arm in a fresh random order, whatever a sample is: one
start, one stop, or a whole curve over many instances. So errors, interruption, resuming, order and
the contamination guard are the same for all (rounds.py, session.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.arms.base import Arm, Skip
from benchmarks.plan import Plan, make_plan
from benchmarks.rows import Row, RowMaker, Where


@dataclass(frozen=True)
class Size:
    """How much is measured. quick: three minutes for everything; else what the design asks for."""

    quick: bool = False
    rounds: int | None = None  # as asked for by --rounds
    budget_s: float | None = None  # for the rounds of this benchmark
    reference: str = ""  # as asked for by --reference; holds where that arm takes part


@dataclass(frozen=True)
class Value:
    """One figure of a sample; n: how many instances run (see n_concurrent). A row each."""

    metric: str
    value: float
    unit: str = "ms"
    direction: str = "lower"
    n: int = 1
    params: dict[str, Any] = field(default_factory=dict)


class Bench:
    """One benchmark. Subclasses fill in the attributes, `arms` and `sample`."""

    name: str = ""  # the word of --bench
    title: str = ""  # for the list of benchmarks: what is measured
    rows: str = ""  # field `bench` of its rows
    metric: str = ""  # the headline: of rows without a value
    unit: str = "ms"
    direction: str = "lower"
    cache_state: str = "warm"
    weight: float = 1.0  # its share of a budget for several benchmarks
    reference: str = ""  # the arm of the ratios; "": see plan.py
    traced: bool = False  # whether arms that have traced shots give some
    size: Size = Size()

    def arms(self, quick: bool = False) -> list[Arm]:
        """Who takes part, able or not. quick: one of each kind."""
        raise NotImplementedError

    def prepare(self, size: Size) -> None:
        """Before all arms' own `prepare`. Raises ArmFailed, OSError."""
        self.size = size

    def unavailable(self, arm: Arm) -> Skip | None:
        """Why this arm cannot take part here."""
        return arm.unavailable()

    def left_out(self, arm: Arm) -> Skip | None:
        """The same of an arm that is prepared: what it will take is known then."""
        if self.size.quick and arm.tier == "full" and arm.accel == "tcg":
            return Skip(
                "emulated, a whole system takes a minute to start: not in a quick run", "--full"
            )
        return None

    def sample(self, arm: Arm, where: Where, make: RowMaker) -> Iterable[Row]:
        """The rows of one sample. Raises ArmFailed; leaves nothing behind."""
        return [make.value(arm, where, value) for value in self.values(arm, where)]

    def values(self, arm: Arm, where: Where) -> Iterable[Value]:
        """The same for benchmarks whose figures need no rows of their own kind."""
        raise NotImplementedError

    def plan(self, seconds: dict[str, float], seed: int, size: Size, traced: list[str]) -> Plan:
        """Fixed before the first round that counts; seconds: of each arm's sample in round 0."""
        reference = size.reference if size.reference in seconds else self.reference
        return make_plan(
            seconds, seed=seed, rounds=size.rounds, budget_s=size.budget_s, traced=traced,
            quick=size.quick, reference=reference,
        )  # fmt: skip

    def close(self) -> None:
        """Undo `prepare`; after the arms are closed. Safe to call twice."""
