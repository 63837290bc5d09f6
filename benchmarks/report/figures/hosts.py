"""Ratios of several hosts on one axis: one line for each arm, one mark for each host."""

from __future__ import annotations

from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.report import units
from benchmarks.report.figures.style import GRID, INK, WIDTH, Made
from benchmarks.report.merging import Group, Merged

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#595959", "#E69F00")
MARKERS = "osD^v"


def hosts(merged: Merged, group: Group, names: list[str]) -> Made:
    """Each host's ratio with its 95% interval; nothing is averaged."""
    lines = [line for line in merged.lines if line.key.group == group and line.ratios]
    step = 1 / (len(merged.runs) + 1)
    figure, axes = plt.subplots(figsize=(WIDTH, 1.3 + 0.5 * len(lines)))
    for number, name in enumerate(names):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        axes.plot([], [], marker, color=colour, label=name)
        for y, line in enumerate(lines):
            cell = line.cells[number]
            if cell is None or cell.ratio is None:
                continue
            of, at = cell.ratio, y + (number + 1) * step - 0.5
            if of.low is not None and of.high is not None:
                axes.plot([of.low, of.high], [at, at], color=colour, linewidth=1.6)
            face = "white" if cell.verdict == "not resolved" else colour
            axes.plot(of.value, at, marker, color=colour, mfc=face, markersize=5)
    axes.axvline(1, color=INK, linewidth=0.9)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"× {value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    labels = [
        f"{line.name}{' – ' + units.EMULATED if line.key.accel == 'tcg' else ''}" for line in lines
    ]
    axes.set_yticks(range(len(lines)), labels, fontsize=8)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    reference = merged.references[group]
    axes.set_xlabel(f"as a multiple of {reference} on the same host, same round; log scale, 95%")
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.16), fontsize=7.5, frameon=False)
    alike = sum("differ" not in line.across for line in lines if len(line.ratios) > 1)
    shared = sum(len(line.ratios) > 1 for line in lines)
    title = (
        f"{group.metric} against {reference}: all hosts say the same of {alike} of {shared} arms"
    )
    alt = "; ".join(f"{line.name} {line.across}" for line in lines)
    note = "Hollow: not resolved on that host. Raw times are in the table, and never averaged."
    return Made(figure, title, alt, note)
