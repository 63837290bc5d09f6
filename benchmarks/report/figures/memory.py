"""Memory of an idle instance: against their number, and by every definition."""

from __future__ import annotations

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from benchmarks import anchors
from benchmarks.report import sizes, units
from benchmarks.report.analysis import Analysis
from benchmarks.report.capacity import DEFINITIONS, Footprint
from benchmarks.report.figures.style import (
    COLOURS,
    GRID,
    LINES,
    PUBLISHED,
    WIDTH,
    Made,
    apart,
    beside,
    shade,
)

NAMES = {"mapped": "mapped", "rss": "RSS", "pss": "PSS", "cgroup": "cgroup"}
ALPHAS = {"mapped": 0.25, "rss": 0.5, "pss": 1.0, "cgroup": 0.75}


def memory(analysis: Analysis) -> Made | None:
    """Above: what the host gave up for N instances. Below: one instance by each definition."""
    found = analysis.footprints
    if not found:
        return None
    growing = [one for one in found if one.slope is not None]
    published = anchors.memory()
    bars = sum(len(one.by) for one in found)
    heights = [3.0] * bool(growing) + [0.5 + 0.2 * (bars + len(found) + len(published))]
    figure, grid = plt.subplots(
        len(heights),
        1,
        figsize=(WIDTH, sum(heights) + 0.6),
        height_ratios=heights,
        squeeze=False,
    )
    if growing:
        _against_n(grid[0, 0], growing)
    _bars(grid[-1, 0], found, published)
    figure.tight_layout(h_pad=1.6)
    title = "Memory of one idle instance: " + sizes.footprint_spans(found)
    alt = "; ".join(sizes.footprint(one) for one in found)
    note = (
        "Mapped: addresses, backed or not. RSS: resident pages, shared ones counted in full. PSS: "
        "shared pages divided by their users. cgroup: what the kernel charges to its group, page "
        "cache included. MemAvailable: what the host itself lost; the line is a least squares fit "
        "through all points, the slope in MiB for each further instance (95%)."
    )
    if any(one.emulated for one in found):
        note += f" [tcg] is {units.EMULATED}; its memory holds translated code, too."
    return Made(figure, title, alt, note)


def _against_n(axes: Axes, found: list[Footprint]) -> None:
    ends_at, labels = [], []
    right = max(n for one in found for n, _ in one.given)
    for number, one in enumerate(found):
        assert one.slope is not None
        colour = shade(one.kind, number, len(found))
        xs = [n for n, _ in one.given]
        given = [value - one.slope.intercept for _, value in one.given]
        axes.plot(xs, given, "o", color=colour, markersize=4, alpha=0.7)
        ends = [0, max(xs)]
        line = [one.slope.slope * x for x in ends]
        if one.slope.low is not None and one.slope.low > 0:
            style = LINES[number % len(LINES)]
            axes.plot(ends, line, color=colour, linewidth=1.4, linestyle=style)
        ends_at.append(line[1])
        badge = f" – {units.EMULATED}" if one.emulated else ""
        labels.append((f"{units.label(one)} {sizes.slope(one)}{badge}", one.kind))
    for y, (text, kind) in zip(apart(ends_at, max(ends_at) * 0.07), labels, strict=True):
        beside(axes, (right, y), text, COLOURS[kind])
    axes.set_xlim(0, right * 1.9)
    axes.set_xlabel("instances that run (N)")
    axes.set_ylabel("MemAvailable given up, MiB")
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def _bars(axes: Axes, found: list[Footprint], published: list[anchors.Anchor]) -> None:
    y, ticks = 0.0, []
    for one in found:
        for what in DEFINITIONS:
            summary = one.by.get(what)
            if summary is None:
                continue
            colour = COLOURS[one.kind]
            axes.barh(y, summary.median, height=0.8, color=colour, alpha=ALPHAS[what])
            if summary.low is not None and summary.high is not None:
                axes.plot([summary.low, summary.high], [y, y], color="#222222", linewidth=1)
            badge = f"  {units.EMULATED}" if one.emulated else ""
            text = f"{units.mebibytes(summary.median)}  n={summary.n}{badge}"
            beside(axes, (max(summary.median, summary.high or 0), y), text)
            ticks.append((y, f"{units.label(one)}, N={one.n}: {NAMES[what]}"))
            y -= 1
        y -= 0.5
    for anchor in published:
        axes.plot(anchor.mebibytes, y, marker="D", ms=5.5, mfc="white", mec=PUBLISHED, ls="")
        text = f"{units.mebibytes(anchor.mebibytes)}   {anchor.cited}; {anchor.hardware}"
        beside(axes, (anchor.mebibytes, y), text, PUBLISHED)
        ticks.append((y, f"{anchor.arm}: {anchor.metric.partition('.')[2].replace('_', ' ')}"))
        y -= 1
    axes.set_yticks([tick for tick, _ in ticks], [name for _, name in ticks], fontsize=7.5)
    axes.set_ylim(y, 0.8)
    axes.set_xscale("log", base=4)
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * (high / low) ** 0.5)
    axes.xaxis.set_major_formatter(lambda value, _: units.mebibytes(value))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("of one instance, log scale; diamonds: published, other hardware")
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
