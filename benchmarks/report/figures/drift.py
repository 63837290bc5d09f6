"""Did the machine, or the order of the shots, change the figures? Value against order."""

from __future__ import annotations

import math
import statistics

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from benchmarks.report.analysis import Analysis
from benchmarks.report.figures.style import COLOURS, GRID, INK, SOFT, WIDTH, Made
from benchmarks.report.order import biased_places, order_effect


def drift(analysis: Analysis) -> Made | None:
    """Every sample as a multiple of its arm's median: above in the order of the rounds, below by
    its position in the round.
    """
    if not analysis.arms:
        return None
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(WIDTH, 4.8), sharey=True)
    by_round = _panel(upper, analysis, "rounds")
    by_order = _panel(lower, analysis, "orders")
    for number in by_round.keys() & set(analysis.marked_rounds):
        upper.axvspan(number - 0.5, number + 0.5, color=SOFT, alpha=0.3, lw=0)
    _scale(upper)
    upper.set_xlabel("round, in the order they were shot")
    lower.set_xlabel("position of the shot in its round")
    figure.tight_layout(h_pad=1.2)
    third = max(1, len(by_round) // 3)
    values = list(by_round.values())
    change = statistics.median(values[-third:]) / statistics.median(values[:third])
    effect = order_effect(analysis.arms, analysis.seed)
    biased = biased_places(analysis.arms)
    title = (
        f"Over the run: the last third of the rounds took × {change:.2f} of the first third; "
        f"{effect.sentence}"
    )
    if biased:
        title += f"; NOT in random order: {', '.join(biased)}"
    alt = "; ".join(f"round {number} × {value:.2f}" for number, value in by_round.items())
    alt += "; " + "; ".join(f"position {n} × {value:.2f}" for n, value in by_order.items())
    note = (
        "One dot for each sample, as a multiple of its arm's median; the line: the median of each "
        f"round, or position. Grey: rounds that the guard marked ({analysis.marked} of "
        f"{analysis.rounds}). {effect.note}"
    )
    return Made(figure, title, alt, note)


def _panel(axes: Axes, analysis: Analysis, along: str) -> dict[int, float]:
    """Draws the dots along rounds or orders; returns the median at each."""
    found: dict[int, list[float]] = {}
    for arm in analysis.arms:
        places: list[int] = getattr(arm, along)
        relative = [value / arm.first.median for value in arm.samples]
        for number, value in zip(places, relative, strict=True):
            found.setdefault(number, []).append(value)
        colour = COLOURS[arm.kind]
        axes.scatter(places, relative, s=9, color=colour, alpha=0.4, linewidths=0, zorder=3)
    medians = {number: statistics.median(values) for number, values in sorted(found.items())}
    axes.plot(list(medians), list(medians.values()), color=INK, linewidth=1.2, zorder=4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_ylabel("of the arm's median")
    return medians


def _scale(axes: Axes) -> None:
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    few: tuple[float, ...] = (0.95, 1, 1.05) if high / low < 1.5 else (0.8, 1, 1.25)
    if high / low >= 4:
        few = tuple(2.0**n for n in range(-4, 9))
    # No more than eight labels, whatever the spread.
    step = math.ceil(len([tick for tick in few if low < tick < high]) / 8)
    axes.set_yticks([tick for tick in few if low < tick < high][:: step or 1])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"× {value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_locator(NullLocator())
