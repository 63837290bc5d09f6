"""The project's own budgets, met or not: the whole interval decides, not the point in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pandas as pd

from benchmarks.budgets import A_A, A_A_ROUNDS, ALLOWANCES, DRIVER, FIRST
from benchmarks.report.series import Key, Series, paired
from benchmarks.report.starts import of, pair
from benchmarks.statistics import Ratio


@dataclass(frozen=True)
class Budget:
    """ratio: what was measured of `arm` against `against`."""

    arm: str
    limit: float
    against: str
    ratio: Ratio
    what: str = "whole process"
    emulated: bool = False

    @property
    def verdict(self) -> str:
        if self.ratio.low is None or self.ratio.high is None:
            return "not resolved"
        if self.ratio.high <= self.limit:
            return "met"
        return "not met" if self.ratio.low > self.limit else "not resolved"


def start_budgets(shots: pd.DataFrame, seed: int) -> list[Budget]:
    """Every allowance whose two arms were measured on the same tree, in the same rounds."""
    found = []
    trees = sorted({name.partition(":")[2] for name in shots.arm.unique()})
    for allowed in ALLOWANCES:
        for tree in trees:
            arm, against = f"{allowed.arm}:{tree}", f"{allowed.against}:{tree}"
            one, other = (of(shots, name, allowed.metric) for name in (arm, against))
            if set(one.accel) != set(other.accel):
                continue
            both = pair(one, other, seed)
            if both:
                what = "first instruction" if allowed.metric == FIRST else "whole process"
                emulated = "tcg" in set(one.accel)
                found.append(Budget(arm, allowed.limit, against, both, what, emulated))
    return found


def driver_budgets(found: Mapping[Key, Series], seed: int) -> list[Budget]:
    """What our driver adds to libvirt's own time, for every machine that was made both ways."""
    budgets = []
    for key, one in found.items():
        other = found.get(replace(key, arm=DRIVER.against))
        if key.group.metric == DRIVER.metric and key.arm == DRIVER.arm and other is not None:
            both = paired(one.values, other.values, seed)
            if both:
                what, emulated = "creation of a machine", key.accel == "tcg"
                budgets.append(Budget(key.arm, DRIVER.limit, DRIVER.against, both, what, emulated))
    return budgets


def noise_budget(a_a: Ratio | None) -> str:
    """Whether the reference agrees with itself as well as it should on a quiet machine."""
    if a_a is None or a_a.low is None or a_a.high is None or a_a.n < A_A_ROUNDS:
        return f"asked from {A_A_ROUNDS} rounds on"
    met = a_a.low >= 1 - A_A and a_a.high <= 1 + A_A
    return "met" if met else "not met"
