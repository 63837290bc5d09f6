"""As many as the machine holds: start time and free memory against how many run already."""

from __future__ import annotations

import math
import statistics

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.report import sizes, units
from benchmarks.report.analysis import Analysis
from benchmarks.report.capacity import RESERVE_MIB, Curve
from benchmarks.report.figures.style import COLOURS, GRID, SOFT, WIDTH, Made, apart, beside

MARKERS = "osv^Dx+"


def density(analysis: Analysis) -> Made | None:
    """Above: each start. Below: MemAvailable, the fitted line, and where it leads (dashed)."""
    found = [one for one in analysis.curves if one.starts]
    if not found:
        return None
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(WIDTH, 6.4), sharex=True)
    for number, one in enumerate(found):
        _starts(upper, one, MARKERS[number % len(MARKERS)])
        _available(lower, one, number)
    _labels(upper, found)
    upper.set_yscale("log")
    upper.yaxis.set_major_formatter(lambda value, _: units.duration(value))
    upper.set_ylabel("start, log scale")
    lower.axhline(RESERVE_MIB, color=SOFT, linewidth=0.9)
    lower.set_ylim(bottom=0)
    lower.set_ylabel("MemAvailable, MiB")
    lower.set_xscale("symlog", linthresh=10)
    lower.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    most = max(one.extrapolated or one.reached for one in found)
    lower.set_xlim(0, most * 8)
    lower.set_xlabel("how many run already (N), log scale from 10 on")
    for axes in (upper, lower):
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
    figure.tight_layout(h_pad=1)
    title = "Running at once: " + "; ".join(sizes.reached(one) for one in found)
    alt = "; ".join(sizes.density(one) for one in found)
    note = (
        "Dots are measured. Solid: least squares line through them. Dashed: EXTRAPOLATION of "
        f"that line to where {RESERVE_MIB:.0f} MiB would be left, not a measurement; other limits "
        "(pids, addresses, descriptors) may come first."
    )
    if any(one.emulated for one in found):
        note += f" [tcg] is {units.EMULATED}."
    return Made(figure, title, alt, note)


def _starts(axes: Axes, one: Curve, marker: str) -> None:
    colour = COLOURS[one.kind]
    xs, ys = [n for n, _ in one.starts], [value for _, value in one.starts]
    axes.plot(xs, ys, marker, color=colour, markersize=3, alpha=0.4, linestyle="")
    end = max(xs)
    if one.start_line and one.start_line.at(end) > 0 and one.start_line.at(0) > 0:
        line = [one.start_line.at(x) for x in xs]
        axes.plot(xs, line, color=colour, linewidth=1.2)


def _labels(axes: Axes, found: list[Curve]) -> None:
    """Behind the last curve's end, as far apart as lines of text are on a logarithmic axis."""
    values = [math.log10(value) for one in found for _, value in one.starts]
    ends = [math.log10(statistics.median(v for _, v in one.starts[-5:])) for one in found]
    places = apart(ends, (max(values) - min(values) + 0.3) * 0.07)
    right = max(n for one in found for n, _ in one.starts)
    for one, place in zip(found, places, strict=True):
        badge = f" – {units.EMULATED}" if one.emulated else ""
        text = f"{units.label(one)}: {sizes.growth(one)}{badge}"
        beside(axes, (right, 10**place), text, COLOURS[one.kind])


def _available(axes: Axes, one: Curve, number: int) -> None:
    if not one.available:
        return
    marker = MARKERS[number % len(MARKERS)]
    colour = COLOURS[one.kind]
    xs, ys = [n for n, _ in one.available], [value for _, value in one.available]
    axes.plot(xs, ys, marker, color=colour, markersize=3, alpha=0.4, linestyle="")
    line = one.memory_line
    if line is None:
        return
    axes.plot(xs, [line.at(x) for x in xs], color=colour, linewidth=1.2)
    if one.extrapolated is not None:
        beyond = [xs[-1] + (one.extrapolated - xs[-1]) * step / 50 for step in range(51)]
        axes.plot(beyond, [line.at(x) for x in beyond], "--", color=colour, linewidth=1)
        axes.plot(one.extrapolated, RESERVE_MIB, marker, mfc="white", mec=colour, ls="")
        text = f"{units.label(one)}: extrapolated N = {one.extrapolated}"
        text += f", {units.EMULATED}" if one.emulated else ""
        # Each on a height of its own: the points all lie on the line of the reserve.
        place = RESERVE_MIB + one.available[0][1] * 0.08 * (number + 0.5)
        beside(axes, (one.extrapolated, place), text, colour)
