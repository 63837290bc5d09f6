"""Ratios to the reference with their intervals, over the A/A band."""

from __future__ import annotations

from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.report import units, words
from benchmarks.report.analysis import Analysis
from benchmarks.report.figures.style import COLOURS, WIDTH, Made


def forest(analysis: Analysis) -> Made | None:
    """Each arm's ratio to the reference with its interval, over the band that the reference draws
    itself.
    """
    arms = [arm for arm in analysis.arms if arm.ratio is not None]
    if not arms:
        return None
    # Narrower than the others: the numbers stand in a column to its right.
    figure, axes = plt.subplots(figsize=(WIDTH - 2.6, 1.1 + 0.3 * len(arms)))
    for y, arm in enumerate(arms):
        of = arm.ratio
        assert of is not None
        resolved = arm.verdict != "not resolved"
        colour = COLOURS[arm.kind] if resolved else "#999999"
        if of.low is not None and of.high is not None:
            axes.plot([of.low, of.high], [y, y], color=colour, linewidth=2)
        axes.plot(of.value, y, "o", color=colour, mfc=colour if resolved else "white", markersize=6)
        remarks = ["" if resolved else "not resolved", units.EMULATED if arm.emulated else ""]
        axes.text(
            1.01,
            y,
            "   ".join(filter(None, [units.times(of), *remarks])),
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=8,
            color="#222222",
        )
    axes.axvline(1, color="#333333", linewidth=0.9)
    if analysis.noise_floor:
        axes.axvspan(
            1 / analysis.noise_floor, analysis.noise_floor, color="#999999", alpha=0.3, lw=0
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"× {value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(arms)), [units.label(arm) for arm in arms])
    axes.set_ylim(len(arms) - 0.4, -0.7)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel(
        f"start time as a multiple of {analysis.reference} in the same round, log scale, 95%"
    )
    faster = [arm for arm in arms if arm.verdict == "faster"]
    slower = [arm for arm in arms if arm.verdict == "slower"]
    title = (
        f"Against {analysis.reference}: {len(faster)} faster, {len(slower)} slower, "
        f"{len(arms) - len(faster) - len(slower)} not resolved"
    )
    alt = "; ".join(f"{units.label(arm)} {units.times(arm.ratio)}: {arm.verdict}" for arm in arms)
    note = f"The grey band is the {words.noise(analysis)}."
    return Made(figure, title, alt, note)
