"""The empirical distribution of each arm's start times."""

from __future__ import annotations

from matplotlib import pyplot as plt

from benchmarks.report import units
from benchmarks.report.analysis import Analysis
from benchmarks.report.figures.style import COLOURS, LINES, SOFT, WIDTH, Made, shade, time_axis
from benchmarks.report.starts import ArmResult


def ecdf(analysis: Analysis) -> Made | None:
    """Which share of its starts an arm had done after how long."""
    arms = analysis.arms
    if not arms:
        return None
    figure, axes = plt.subplots(figsize=(WIDTH, max(3.6, 0.6 + 0.21 * len(arms))))
    for kind in COLOURS:
        alike = analysis.of_kind(kind)
        for number, arm in enumerate(alike):
            emulated = ", emulated" if arm.emulated else ""
            axes.ecdf(
                arm.samples,
                color=shade(kind, number, len(alike)),
                linestyle=LINES[number % len(LINES)],
                linewidth=1.6,
                label=f"{units.label(arm)}, n={arm.first.n}{emulated}",
            )
    axes.axhline(0.5, color=SOFT, linewidth=0.8, zorder=0)
    time_axis(axes)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "half", "75%", "all"])
    axes.set_ylabel("of its starts")
    axes.set_xlabel("had run their first instruction after (t6 − t0), log scale")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=7.5, frameon=False)
    worst, best = max(arms, key=_tail), min(arms, key=_tail)
    most, least = (units.figures(_tail(arm)) for arm in (worst, best))
    title = f"Every start lies within × {most} of its arm's median"
    if _tail(worst) > 1.2 and worst is not best:
        title = (
            f"The slowest start of {units.label(worst)} took × {most} of its median; of "
            f"{units.label(best)}, the steadiest, × {least}"
        )
    alt = "; ".join(
        f"{units.label(arm)} from {units.duration(min(arm.samples))} over the median "
        f"{units.duration(arm.first.median)} to {units.duration(max(arm.samples))}"
        for arm in arms
    )
    note = "A steep line is a steady arm; a long way to the right at its top, a few slow starts."
    if any(arm.emulated for arm in arms):
        note += f" [tcg] is {units.EMULATED}."
    return Made(figure, title, alt, note)


def _tail(arm: ArmResult) -> float:
    return max(arm.samples) / arm.first.median
