"""Results of several hosts side by side: ratios within each host, never a mean of raw times.

A host's milliseconds say something about that host; what carries over is how often an arm takes the
time of the reference in the same round on the same machine. So every cell is such a ratio with its
own interval, and across hosts only their range is given.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from benchmarks import results
from benchmarks.report import units
from benchmarks.report.series import Group, Key, Run, Series, paired
from benchmarks.statistics import Ratio, Summary, verdict

HEADLINES = ("start.first_instruction", "start.ready_ip", "stop.teardown")


@dataclass(frozen=True)
class Cell:
    """An arm on a host. ratio: None for the reference itself."""

    summary: Summary
    ratio: Ratio | None
    verdict: str


@dataclass(frozen=True)
class Line:
    """An arm on all hosts; None where it was not measured."""

    key: Key
    unit: str
    cells: list[Cell | None]

    @property
    def name(self) -> str:
        return self.key.label

    @property
    def ratios(self) -> list[float]:
        return [cell.ratio.value for cell in self.cells if cell and cell.ratio]

    @property
    def across(self) -> str:
        """The range over hosts, and whether all say the same."""
        if len(self.ratios) < 2:
            return "–"
        low, high = min(self.ratios), max(self.ratios)
        said = {cell.verdict for cell in self.cells if cell and cell.ratio}
        return f"× {units.figures(low)} to × {units.figures(high)}: " + (
            f"{said.pop()} on all {len(self.ratios)}" if len(said) == 1 else "hosts differ"
        )


@dataclass(frozen=True)
class Merged:
    runs: list[Run]
    references: dict[Group, str]
    floors: list[float | None]
    lines: list[Line]
    one_machine: bool  # some of these runs are of the same machine


def merge(runs: list[Run]) -> Merged:
    """Raises ResultsError when there is no arm that every host measured, to hold the others
    against.
    """
    if len(runs) < 2:
        raise results.ResultsError("merge takes the runs of two hosts or more")
    names = [run.run_id for run in runs]
    if len(set(names)) < len(names):
        raise results.ResultsError("merge: a run is given twice")
    references = {
        group: arm
        for group in sorted({key.group for run in runs for key in run.series})
        if group.metric in HEADLINES and (arm := _common(group, runs))
    }
    if not references:
        raise results.ResultsError(
            "no arm was measured in all these runs, so nothing can be held against it; "
            "measure one on every host (--arms 'runc:*,…')"
        )
    keys = sorted({key for run in runs for key in run.series if key.group in references})
    lines = [_line(key, references[key.group], runs) for key in keys]
    lines.sort(key=lambda line: (line.key.group, statistics.median(line.ratios or [1.0])))
    start = next(iter(references))
    floors = [_series(run, start, references[start]).floor for run in runs]
    machines = [(run.environment.get("cpu"), run.environment.get("distribution")) for run in runs]
    return Merged(runs, references, floors, lines, any(machines.count(one) > 1 for one in machines))


def _common(group: Group, runs: list[Run]) -> str:
    """The arm that the most hosts shot twice, among those that all hosts measured."""
    arms = set.intersection(
        *({key.arm for key in run.series if key.group == group and not key.accel} for run in runs)
    )
    names = [found.key.arm for run in runs if (found := run.references().get(group))]
    return max(sorted(arms), key=names.count, default="")


def _series(run: Run, group: Group, arm: str) -> Series:
    return next(one for key, one in run.series.items() if (key.group, key.arm) == (group, arm))


def _line(key: Key, reference: str, runs: list[Run]) -> Line:
    cells: list[Cell | None] = []
    for run in runs:
        one = run.series.get(key)
        if one is None:
            cells.append(None)
            continue
        against = _series(run, key.group, reference)
        of = None if one is against else paired(one.values, against.values, run.seed)
        said = verdict(of, against.floor) if of else "reference"
        cells.append(Cell(one.summary(run.seed), of, said))
    unit = next(run.series[key].unit for run in runs if key in run.series)
    return Line(key, unit, cells)


def hosts(merged: Merged) -> list[str]:
    """A short name for each host: its number and what it is."""
    return [
        f"host {number}: {run.environment['cpu']['model'] or run.environment['architecture']}, "
        f"{run.environment['cpu']['online']} CPUs, {run.environment['kernel']}"
        for number, run in enumerate(merged.runs, 1)
    ]


def record(merged: Merged) -> dict[str, Any]:
    return {
        "hosts": [
            {
                "directory": run.directory,
                "run_id": run.run_id,
                "env_id": run.environment["env_id"],
                "host": host,
                "noise_floor": floor,
            }
            for run, host, floor in zip(merged.runs, hosts(merged), merged.floors, strict=True)
        ],
        "references": {group.metric: arm for group, arm in merged.references.items()},
        "arms": [
            {
                "metric": line.key.group.metric,
                "cache_state": line.key.group.cache_state,
                "arm": line.key.arm,
                "accel": line.key.accel,
                "emulated": line.key.accel == "tcg",
                "unit": line.unit,
                "hosts": [_cell(cell) for cell in line.cells],
            }
            for line in merged.lines
        ],
        "damaged_lines": [line for run in merged.runs for line in run.damaged],
    }


def _cell(cell: Cell | None) -> dict[str, Any] | None:
    if cell is None:
        return None
    of = cell.ratio
    return {
        "median": cell.summary.median,
        "n": cell.summary.n,
        "ratio": of.value if of else None,
        "low": of.low if of else None,
        "high": of.high if of else None,
        "verdict": cell.verdict,
    }
