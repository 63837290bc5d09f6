"""Where the time of a start goes, the container above the machine."""

from __future__ import annotations

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.report import units
from benchmarks.report.analysis import Analysis
from benchmarks.report.figures.style import COLOURS, WIDTH, Made
from benchmarks.report.phases import Waterfall

# What is shown for each side, most telling first; the first that ran is taken.
CONTAINER_WATERFALLS = ("minicontainer-cli:", "minicontainer-library:", "runc:", "bubblewrap:")
VM_WATERFALLS = ("vm-micro:", "vm-direct:", "vm-nano")


def _first(analysis: Analysis, prefixes: tuple[str, ...]) -> Waterfall | None:
    for prefix in prefixes:
        for name, found in sorted(analysis.waterfalls.items()):
            if name.startswith(prefix) and found.start:
                return found
    return None


def waterfall(analysis: Analysis) -> Made | None:
    """Where the time goes: the container's steps above, the machine's phases below, each to its
    scale.
    """
    panels = [
        (kind, found)
        for kind, prefixes in (("container", CONTAINER_WATERFALLS), ("vm", VM_WATERFALLS))
        if (found := _first(analysis, prefixes)) is not None
    ]
    if not panels:
        return None
    heights = [len(found.bars) + 2.5 for _, found in panels]
    figure, grid = plt.subplots(
        len(panels),
        1,
        figsize=(WIDTH, 0.6 + 0.2 * sum(heights)),
        height_ratios=heights,
        squeeze=False,
    )
    container_ms = 0.0
    for axes, (kind, found) in zip(grid[:, 0], panels, strict=True):
        total = _bars(axes, found, COLOURS[kind])
        if kind == "container":
            container_ms = total
        elif container_ms:
            axes.axvspan(0, container_ms, color=COLOURS["container"], alpha=0.8, lw=0, zorder=0)
            axes.annotate(
                "the container's first instruction above, at this scale",
                (container_ms, len(found.bars) - 0.4),
                (5, 0),
                textcoords="offset points",
                fontsize=7.5,
                va="center",
                color=COLOURS["container"],
            )
    figure.tight_layout(h_pad=1.6)
    longest = [(max(found.start, key=lambda bar: bar.length), found) for _, found in panels]
    title = "Where the time goes: " + "; ".join(
        f"the longest part of {_badged(found)} is “{bar.name}” "
        f"({units.duration(bar.length)} of {units.duration(found.first_ms)})"
        for bar, found in longest
    )
    alt = "; ".join(
        f"{found.arm}: "
        + ", ".join(f"{bar.name} {units.duration(bar.length)}" for bar in found.bars)
        for _, found in panels
    )
    note = (
        "Medians of offset and length over the shots; pale: after the first instruction. "
        "Traced shots are a series of their own, because tracing costs time; the headline figures "
        "are never traced. Each panel has its own scale."
    )
    return Made(figure, title, alt, note)


def _bars(axes: Axes, found: Waterfall, colour: str) -> float:
    """One bar for each phase, first at the top; returns the time of the first instruction (ms)."""
    end = max(bar.offset + bar.length for bar in found.bars)
    for y, bar in enumerate(found.bars):
        alpha = 0.3 if bar.after else 1.0
        axes.barh(y, bar.length, left=bar.offset, height=0.72, color=colour, alpha=alpha, zorder=3)
        past = bar.offset + bar.length
        right = past < 0.8 * end
        # Left of the bar where there is room, else at its end inside it.
        left = bar.offset if bar.offset > 0.2 * end else past
        axes.annotate(
            units.duration(bar.length),
            (past if right else left, y),
            (4 if right else -4, 0),
            textcoords="offset points",
            va="center",
            ha="left" if right else "right",
            fontsize=7,
            color="#333333",
            bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.6},
        )
    names = [f"{bar.name} (after it)" if bar.after else bar.name for bar in found.bars]
    axes.set_yticks(range(len(found.bars)), names, fontsize=8)
    axes.axvline(found.first_ms, color="#333333", linewidth=0.9, linestyle=":", zorder=2)
    axes.set_ylim(len(found.bars) - (0.5 if found.traced else 0.0), -0.6)
    axes.set_xlim(0, end * 1.02)
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)
    axes.tick_params(axis="y", length=0)
    emulated = f" – {units.EMULATED}" if found.accel == "tcg" else ""
    traced = ", traced" if found.traced else ""
    axes.set_title(
        f"{_badged(found)}: first instruction after {units.duration(found.first_ms)}{traced}, "
        f"n={found.n}{emulated}",
        fontsize=10,
        color=colour,
    )
    axes.set_xlabel("ms since the request (t0)")
    return found.first_ms


def _badged(found: Waterfall) -> str:
    return f"{found.arm} [{found.accel}]" if found.accel else found.arm
