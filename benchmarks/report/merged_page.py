"""The pages of a merge: merged.html, its figures, merged.md."""

from __future__ import annotations

import os
from itertools import groupby

from matplotlib import pyplot as plt

from benchmarks.report import figures, units
from benchmarks.report.figures.hosts import hosts as hosts_figure
from benchmarks.report.figures.style import STYLE
from benchmarks.report.html import page
from benchmarks.report.merging import Cell, Merged, hosts
from benchmarks.report.tables import table

HOW = (
    "Each cell is the ratio to the reference on the same host and in the same round, with its 95% "
    "interval; below it the raw median of that host. Raw times of different hosts are never "
    "averaged."
)


def title(merged: Merged) -> str:
    return f"{len(merged.runs)} hosts side by side: ratios within each"


def said(cell: Cell | None, unit: str) -> tuple[str, str]:
    """(ratio and verdict, raw median) of a cell."""
    if cell is None:
        return "not measured", ""
    raw = units.summed(cell.summary, unit)
    if cell.ratio is None:
        return cell.verdict, raw
    return f"{units.times(cell.ratio)}: {cell.verdict}", raw


def markdown(merged: Merged) -> str:
    names = hosts(merged)
    parts = [f"# {title(merged)}", HOW]
    if any(line.key.accel == "tcg" for line in merged.lines):
        parts.append(f"**[tcg] is {units.EMULATED}.**")
    if merged.one_machine:
        parts.append("Some of these runs are of one and the same kind of machine.")
    floors = [f"× {floor:.3g}" if floor else "none" for floor in merged.floors]
    rows = [
        (name, run.run_id, floor, os.path.join(run.directory, "report.html"))
        for name, run, floor in zip(names, merged.runs, floors, strict=True)
    ]
    parts.append(table(("host", "run", "noise floor", "its report"), rows))
    for group, lines in groupby(merged.lines, key=lambda line: line.key.group):
        short = [name.partition(":")[0] for name in names]
        cells = [
            (
                line.name + (f" ({units.EMULATED})" if line.key.accel == "tcg" else ""),
                *(" ".join(said(cell, line.unit)) for cell in line.cells),
                line.across,
            )
            for line in lines
        ]
        parts += [
            f"## {group.metric}{' (cold)' if group.cache_state == 'cold' else ''}, "
            f"against {merged.references[group]}",
            table(("arm", *short, "across hosts"), cells),
        ]
    parts += [f"- {line}" for run in merged.runs for line in run.damaged]
    return "\n\n".join(parts) + "\n"


def html(merged: Merged, directory: str) -> str:
    """Also draws the figures into `directory`."""
    names = hosts(merged)
    drawn = {}
    with plt.rc_context(STYLE):
        for group in merged.references:
            name = f"{group.metric.replace('.', '_')}_{group.cache_state}"
            made = hosts_figure(merged, group, names)
            drawn[group] = figures.write(name, made, os.path.join(directory, "figures"))
    reports = [
        os.path.relpath(os.path.join(run.directory, "report.html"), directory)
        for run in merged.runs
    ]
    groups = [(g, list(ls)) for g, ls in groupby(merged.lines, key=lambda line: line.key.group)]
    return page(
        "merged.html.j2",
        merged=merged,
        title=title(merged),
        how=HOW,
        names=names,
        reports=reports,
        groups=groups,
        drawn=drawn,
        said=said,
    )
