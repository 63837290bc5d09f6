"""How many fit: memory of an instance by each definition, and what becomes of starts and free
memory as instances are added.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pandas as pd

from benchmarks.report.series import Key, Series
from benchmarks.statistics import Line, Summary, line

DEFINITIONS = ("mapped", "rss", "pss", "cgroup")
# A host that swaps or kills answers no more: what is left free when the line is drawn to its end.
RESERVE_MIB = 256.0
Points = list[tuple[int, float]]


@dataclass(frozen=True)
class Footprint:
    """Memory of one idle instance, MiB. n: how many ran when `by` was read (the most measured).

    by_n: medians by definition for each number. given: (N, what the host gave up of MemAvailable).
    """

    name: str
    kind: str
    tier: str
    accel: str
    n: int
    by: dict[str, Summary]
    by_n: dict[int, dict[str, float]]
    given: Points
    slope: Line | None

    @property
    def emulated(self) -> bool:
        return self.accel == "tcg"

    @property
    def size(self) -> float | None:
        """PSS where it is told, else the first definition that is."""
        found = self.by.get("pss") or next(iter(self.by.values()), None)
        return found.median if found else None

    @property
    def per_instance(self) -> float | None:
        """What the host gives up for each further one, by MemAvailable."""
        return self.slope.slope if self.slope else None


@dataclass(frozen=True)
class Curve:
    """One arm, instance after instance. Points are (how many ran already, value)."""

    name: str
    kind: str
    tier: str
    accel: str
    starts: Points = field(default_factory=list)
    available: Points = field(default_factory=list)
    start_line: Line | None = None
    memory_line: Line | None = None
    stopped: str = ""  # why there were no more

    @property
    def emulated(self) -> bool:
        return self.accel == "tcg"

    @property
    def reached(self) -> int:
        """How many ran at the end: a fact, no extrapolation."""
        running = [n for n, _ in self.available]
        return max([*(n + 1 for n, _ in self.starts), *running], default=0)

    @property
    def extrapolated(self) -> int | None:
        """How many the line says would fit before only the reserve is free; None when it says
        nothing.
        """
        end = self.memory_line.reaches(RESERVE_MIB) if self.memory_line else None
        return int(end) if end is not None and end > self.reached else None


def footprints(found: dict[Key, Series], table: pd.DataFrame, seed: int) -> list[Footprint]:
    """Every arm of the benchmark `memory`, the smallest first."""
    lines = []
    for arm, series in _by_arm(found, "memory").items():
        numbers = sorted(
            {one.key.group.n_concurrent for one in series if _what(one) != "available"}
        )
        if not numbers:
            continue
        most = numbers[-1]
        by_n = {
            n: {_what(one): one.summary(seed).median for one in series if _n(one) == n}
            for n in numbers
        }
        summaries = {_what(one): one.summary(seed) for one in series if _n(one) == most}
        summaries.pop("available", None)
        given = _given(table, *arm)
        first = series[0]
        lines.append(
            Footprint(
                arm[0],
                first.kind,
                first.tier,
                arm[1],
                most,
                summaries,
                by_n,
                given,
                _line(given, seed),
            )
        )
    return sorted(lines, key=lambda one: (one.kind == "vm", one.size or 0))


def _given(table: pd.DataFrame, arm: str, accel: str) -> Points:
    """What each look found gone of MemAvailable: of what there was before the first instance, where
    the row says that.
    """
    rows = table[(table.metric == "memory.available") & (table.arm == arm) & (table.accel == accel)]
    before = {row.round: row.params.get("available_before") for row in rows.itertuples()}
    points = [(0, 0.0) for known in before.values() if known is not None]
    points += [
        (row.n_concurrent, (before[row.round] or 0.0) - row.value) for row in rows.itertuples()
    ]
    return sorted(points)


def curves(found: dict[Key, Series], table: pd.DataFrame, seed: int) -> list[Curve]:
    """Every arm of the benchmark `density`, the densest first."""
    lines = []
    for (arm, accel), series in _by_arm(found, "density").items():
        first = series[0]
        starts, available = _points(series, "start"), _points(series, "available")
        lines.append(
            Curve(
                arm,
                first.kind,
                first.tier,
                accel,
                starts,
                available,
                _line(starts, seed),
                _line(available, seed),
                _stopped(table, arm, accel),
            )
        )
    return sorted(lines, key=lambda one: -one.reached)


def _stopped(table: pd.DataFrame, arm: str, accel: str) -> str:
    rows = table[(table.bench == "density") & (table.arm == arm) & (table.accel == accel)]
    return next((row.params["stopped"] for row in rows.itertuples() if "stopped" in row.params), "")


def _by_arm(found: dict[Key, Series], bench: str) -> dict[tuple[str, str], list[Series]]:
    arms: dict[tuple[str, str], list[Series]] = {}
    for key, one in found.items():
        if key.group.bench == bench:
            arms.setdefault((key.arm, key.accel), []).append(one)
    return arms


def _what(one: Series) -> str:
    """The metric's last word."""
    return one.key.group.metric.partition(".")[2]


def _n(one: Series) -> int:
    return one.key.group.n_concurrent


def _points(series: Iterable[Series], what: str) -> Points:
    return sorted(
        (_n(one), value) for one in series if _what(one) == what for value in one.values.values()
    )


def _line(points: Points, seed: int) -> Line | None:
    return line([n for n, _ in points], [value for _, value in points], seed) if points else None
