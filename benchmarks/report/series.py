"""The observations of a run as series: one value for each round, of one arm, by one metric.

What is to be told apart is in the key. A cold start is never averaged with a warm one, nor an
emulated machine with one under KVM.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from benchmarks import results, tables
from benchmarks.statistics import Ratio, Summary, floor, ratio, summarize

STARTS = ("start", "cold", "runtime")  # benchmarks whose rows are starts
TOLD = (
    "env_id", "cpu", "kernel", "kernel_version", "architecture", "distribution", "memory_mib",
    "mitigations", "clocksource", "transparent_hugepages", "ksm", "governor", "cgroups", "root",
    "capabilities", "hypervisor", "kvm_device", "accelerators", "python", "tools", "source",
)  # fmt: skip
Shots = dict[int, list[float]]  # the values of each round


@dataclass(frozen=True, order=True)
class Group:
    """What is measured, whoever is measured."""

    bench: str
    metric: str
    cache_state: str = "warm"
    n_concurrent: int = 1


@dataclass(frozen=True, order=True)
class Key:
    group: Group
    arm: str
    accel: str = ""
    net_mode: str = ""

    @property
    def label(self) -> str:
        """The arm with its badge and, where it has one of its own choice, its network."""
        badge = f" [{self.accel}]" if self.accel else ""
        net = f", {self.net_mode}" if self.net_mode not in ("", "none") else ""
        return f"{self.arm}{badge}{net}"


@dataclass(frozen=True)
class Series:
    """Values in `unit` by round. again: the second shots in the same rounds (A/A)."""

    key: Key
    kind: str
    tier: str
    unit: str
    direction: str
    values: dict[int, float]
    again: dict[int, float] = field(default_factory=dict)

    def summary(self, seed: int) -> Summary:
        return summarize(list(self.values.values()), seed)

    @property
    def floor(self) -> float | None:
        """The noise floor that this series draws against itself; None without an interval."""
        found = paired(self.again, self.values, 0)
        return floor(found) if found else None


def paired(arm: Mapping[int, float], reference: Mapping[int, float], seed: int) -> Ratio | None:
    """The ratio over the rounds that have both; None without such a round."""
    logs = both(arm, reference)
    return ratio(*logs, seed) if logs[0] else None


def both(
    arm: Mapping[int, float], reference: Mapping[int, float]
) -> tuple[list[float], list[float]]:
    """The values of the rounds that have two positive ones, in the same order."""
    rounds = [n for n in arm if n in reference and arm[n] > 0 and reference[n] > 0]
    return [arm[n] for n in rounds], [reference[n] for n in rounds]


def usable(table: pd.DataFrame) -> pd.DataFrame:
    """Rows with a value that counts: no warm-up, no traced shot, no guard."""
    kept = table[(table.status == "ok") & ~table.warmup.astype(bool) & (table.bench != "guard")]
    return kept[[not params.get("traced", False) for params in kept.params]]


def series_of(table: pd.DataFrame) -> dict[Key, Series]:
    """Every series of the table. Several values in one round count as their median."""
    rows = usable(table)
    rows = rows[rows.bench != "start.phases"]
    firsts: dict[Key, Any] = {}
    shots: dict[Key, tuple[Shots, Shots]] = {}
    for row in rows.itertuples():
        group = Group(row.bench, row.metric, row.cache_state, row.n_concurrent)
        key = Key(group, row.arm, row.accel, row.net_mode)
        firsts.setdefault(key, row)
        of_rep = shots.setdefault(key, ({}, {}))[row.rep]
        of_rep.setdefault(row.round, []).append(row.value)
    return {
        key: Series(key, row.kind, row.tier, row.unit, row.direction, *map(_medians, shots[key]))
        for key, row in sorted(firsts.items())
        if shots[key][0]
    }


def _medians(shots: Shots) -> dict[int, float]:
    return {number: statistics.median(values) for number, values in shots.items()}


@dataclass(frozen=True)
class Run:
    """A stored run, ready to be set beside another one."""

    directory: str
    run_id: str
    seed: int
    reference: str
    environment: dict[str, Any]
    series: dict[Key, Series]
    damaged: list[str]

    def references(self) -> dict[Group, Series]:
        """For each group the series that the others are held against: shot twice in a round, or
        that of the plan's reference.
        """
        found: dict[Group, Series] = {}
        for key, one in self.series.items():
            known = found.get(key.group)
            if one.again or (known is None and key.arm == self.reference):
                found[key.group] = one
        return found


def read_plan(directory: str) -> dict[str, Any]:
    return results.read_json(directory, "plan.json", ["plan"])


def read_environment(directory: str) -> dict[str, Any]:
    """The record of the host, with all that a report says of it."""
    return results.read_json(directory, "environment.json", TOLD)


@dataclass(frozen=True)
class Planned:
    """What plan.json says of a run as a whole. reference: that of the starts."""

    seed: int
    reference: str
    rounds: int


def planned(record: dict[str, Any]) -> Planned:
    """A run of several benchmarks has a plan for each; one of starts alone has one."""
    plans = {name: one["plan"] for name, one in record.get("plans", {}).items()}
    first = next((plans[name] for name in STARTS if name in plans), record["plan"])
    rounds = sum(plan["rounds"] for plan in plans.values()) if plans else first["rounds"]
    return Planned(int(first["seed"]), str(first["reference"]), int(rounds))


def read(directory: str) -> Run:
    """Raises ResultsError when there is nothing to compare."""
    rows, damaged = results.read_rows(directory)
    plan = planned(read_plan(directory))
    found = series_of(tables.frame(rows))
    if not found:
        raise results.ResultsError(f"{directory}: no whole round yet; resume the run first")
    return Run(
        directory,
        str(rows[0]["run_id"]),
        plan.seed,
        plan.reference,
        read_environment(directory),
        found,
        [f"{directory}: {line}" for line in damaged],
    )
