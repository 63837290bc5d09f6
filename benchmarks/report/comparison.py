"""Two runs, or several a side, set beside each other: what became worse, and is it certain?

The rule: a change counts when its 95% interval excludes 1, when it is beyond 5%, and beyond the
noise floor that the reference draws against itself in either run; and it is a *regression* only
when it recurs in a second run. Arms are compared by their ratio to the reference in the same
round, so a machine that has become slower as a whole moves nothing but the reference itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from benchmarks.report.series import Key, Run, Series, both
from benchmarks.results import ResultsError
from benchmarks.statistics import Ratio, change

BEYOND = 1.05
UNCOMPARED = {"density", "isolation"}  # one value for each number or fact: no rounds to resample
# Of the environment record: what makes it another machine, and what does not matter.
MACHINE = ("cpu", "architecture", "hypervisor")
IRRELEVANT = {"env_id", "channel_costs_us", *MACHINE}


@dataclass(frozen=True)
class Change:
    """One arm from a run of before to a run of after. by: reference, or time (its own figures)."""

    before: str
    after: str
    by: str
    ratio: Ratio
    floor: float | None
    unresolved: str  # why nothing can be said; "" when something can

    def seen(self, direction: str) -> str:
        """worse, better, or "" when the rule's first three conditions are not all met."""
        of = self.ratio
        if self.unresolved or of.low is None or of.high is None or of.low <= 1 <= of.high:
            return ""
        if max(of.value, 1 / of.value) <= max(BEYOND, self.floor or 1):
            return ""
        return "worse" if (of.value > 1) == (direction == "lower") else "better"


@dataclass(frozen=True)
class Finding:
    """All changes of one series, and what they amount to."""

    key: Key
    unit: str
    direction: str
    before: list[float]  # medians, one for each run of that side
    after: list[float]
    changes: list[Change]
    reference: bool

    @property
    def verdict(self) -> str:
        """Seen in a run of after: against every run of before."""
        runs = sorted({change.after for change in self.changes})
        seen = [
            {one.seen(self.direction) for one in self.changes if one.after == run} for run in runs
        ]
        for word, certain in (("worse", "regression"), ("better", "improvement")):
            count = seen.count({word})
            if count >= 2:
                return certain
            if count == 1:
                return f"{word}, seen once" if len(runs) == 1 else f"{word} once, not again"
        reasons = {one.unresolved for one in self.changes} - {""}
        return f"not resolved: {min(reasons)}" if reasons else "no change"


@dataclass(frozen=True)
class Comparison:
    before: list[Run]
    after: list[Run]
    same_machine: bool
    changed: list[str]  # what else differs in the environments
    findings: list[Finding]
    only_before: list[Key]
    only_after: list[Key]

    def of(self, *verdicts: str) -> list[Finding]:
        return [one for one in self.findings if one.verdict in verdicts]


def compare(before: list[Run], after: list[Run]) -> Comparison:
    """Raises ResultsError when the two sides have no series in common, or a run is given twice."""
    names = [run.run_id for run in [*before, *after]]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ResultsError(f"{', '.join(twice)} is given twice: no run is a second look at itself")
    sides = [
        {key for key in set.union(*(set(run.series) for run in side)) if _compared(key)}
        for side in (before, after)
    ]
    common = [
        key
        for key in sorted(sides[0] & sides[1])
        if all(key in run.series for run in [*before, *after])
    ]
    if not common:
        raise ResultsError("no arm and metric that all these runs have, so nothing to compare")
    environments = [run.environment for run in [*before, *after]]
    same = all(_machine(one) == _machine(environments[0]) for one in environments)
    return Comparison(
        before,
        after,
        same,
        _changed(environments),
        [_finding(key, before, after, same) for key in common],
        sorted(sides[0] - sides[1]),
        sorted(sides[1] - sides[0]),
    )


def _compared(key: Key) -> bool:
    return key.group.bench not in UNCOMPARED


def _finding(key: Key, before: list[Run], after: list[Run], same: bool) -> Finding:
    one = before[0].series[key]
    changes = [_change(key, a, b, same) for a, b in product(before, after)]
    reference = before[0].references().get(key.group)
    return Finding(
        key,
        one.unit,
        one.direction,
        _medians(key, before),
        _medians(key, after),
        changes,
        reference is not None and reference.key == key,
    )


def _medians(key: Key, runs: list[Run]) -> list[float]:
    return [float(np.median(list(run.series[key].values.values()))) for run in runs]


def _change(key: Key, a: Run, b: Run, same: bool) -> Change:
    references = [run.references().get(key.group) for run in (a, b)]
    floor, unresolved = _floor(references)
    logs = [
        _logs(run.series[key], reference)
        for run, reference in zip((a, b), references, strict=True)
        if reference is not None and reference.key != key
    ]
    by = "reference"
    names = {reference.key.arm for reference in references if reference is not None}
    if len(logs) < 2 or len(names) != 1 or not all(logs):
        by = "time"
        logs = [_own_logs(run.series[key]) for run in (a, b)]
        if not same and a.series[key].unit != "MiB":
            unresolved = "figures of two machines"
    if not all(logs):
        return Change(a.run_id, b.run_id, by, Ratio(0, 1.0, None, None), floor, "values of 0")
    of = change(logs[0], logs[1], b.seed)
    if of.low is None:
        unresolved = unresolved or "too few rounds"
    return Change(a.run_id, b.run_id, by, of, floor, unresolved)


def _floor(references: list[Series | None]) -> tuple[float | None, str]:
    """The wider floor of the two runs. A benchmark that shoots nothing twice has none, and is held
    to the other conditions alone.
    """
    twice = [one for one in references if one and one.again]
    floors = [one.floor for one in twice]
    if any(one is None for one in floors):
        return None, "too few rounds for a noise floor"
    return max((one for one in floors if one), default=None), ""


def _logs(arm: Series, reference: Series) -> list[float]:
    """Logarithms of arm / reference, round by round."""
    top, bottom = both(arm.values, reference.values)
    return [float(value) for value in np.log(top) - np.log(bottom)]


def _own_logs(arm: Series) -> list[float]:
    return [float(np.log(value)) for value in arm.values.values() if value > 0]


def _machine(environment: dict[str, Any]) -> list[Any]:
    return [environment.get(name) for name in MACHINE]


def _changed(environments: list[dict[str, Any]]) -> list[str]:
    """What differs, named as in environment.json; of tools, each one that differs."""
    found = []
    for name in sorted(set().union(*environments) - IRRELEVANT):
        values = [one.get(name) for one in environments]
        if all(value == values[0] for value in values):
            continue
        parts = [value for value in values if isinstance(value, dict)]
        if len(parts) == len(values):
            inner = sorted(set().union(*parts))
            found += [f"{name}.{i}" for i in inner if len({str(v.get(i)) for v in parts}) > 1]
        else:
            found.append(name)
    return found
