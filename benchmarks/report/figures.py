"""The figures, as SVG: each title states the finding, each axis its unit, each label its n and
interval.
"""

from __future__ import annotations

import io
import os
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from benchmarks import anchors, results
from benchmarks.report import words
from benchmarks.report.analysis import Analysis, ArmResult, Waterfall

# Okabe and Ito's palette: told apart by colour-blind readers, and in print.
COLOURS = {"process": "#595959", "container": "#0072B2", "vm": "#D55E00"}
HEADINGS = {"process": "processes", "container": "containers", "vm": "virtual machines"}
PUBLISHED = "#7a5195"
WIDTH = 9.0
STYLE: Any = {  # keys are matplotlib's rcParams
    "svg.hashsalt": "minicontainer",  # the same samples give the same file
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "figure.facecolor": "white",
}


@dataclass(frozen=True)
class Drawn:
    """A figure on disk. alt: what it shows, in words, for those who do not see it."""

    name: str
    path: str
    title: str
    alt: str
    note: str


def draw_all(analysis: Analysis, directory: str) -> list[Drawn]:
    """Draw every figure that this run has data for, into `directory`."""
    os.makedirs(directory, exist_ok=True)
    makers: list[Callable[[Analysis], tuple[Figure, str, str, str] | None]] = [
        start_times,
        waterfall,
        forest,
        drift,
    ]
    drawn = []
    with plt.rc_context(STYLE):
        for maker in makers:
            made = maker(analysis)
            if made is not None:
                figure, title, alt, note = made
                path = os.path.join(directory, f"{maker.__name__}.svg")
                metadata = {"Date": None, "Creator": None, "Title": title}
                text = io.StringIO()
                figure.savefig(text, format="svg", metadata=metadata, bbox_inches="tight")
                plt.close(figure)
                results.write_whole(path, text.getvalue())
                drawn.append(Drawn(maker.__name__, path, title, alt, note))
    return drawn


def _log_time_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda ms, _: words.duration(ms)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="x", which="major", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)


def start_times(analysis: Analysis) -> tuple[Figure, str, str, str] | None:
    """Every sample a dot, the median a bar with its interval; published ones hollow diamonds."""
    published = [anchor for anchor in anchors.starts() if anchor.value >= 0.5]
    rows = len(analysis.arms) + len(published) + len({a.kind for a in analysis.arms}) + 2
    figure, axes = plt.subplots(figsize=(WIDTH, 0.9 + 0.235 * rows))
    jitter = random.Random(analysis.seed)
    y = 0.0
    ticks: list[tuple[float, str, str]] = []
    for kind in COLOURS:
        arms = analysis.of_kind(kind)
        if arms:
            _heading(axes, y, HEADINGS[kind], COLOURS[kind])
            y -= 1
        for arm in arms:
            _dots(axes, arm, y, jitter)
            ticks.append((y, words.label(arm), COLOURS[kind]))
            y -= 1
    _heading(axes, y, "published elsewhere, on other hardware", PUBLISHED)
    y -= 1
    for anchor in published:
        axes.plot(
            anchor.value, y, marker="D", markersize=5.5, mfc="white", mec=PUBLISHED, ls="", zorder=3
        )
        axes.annotate(
            f"{words.duration(anchor.value)}   {anchor.cited}",
            (anchor.value, y),
            (8, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
            color=PUBLISHED,
        )
        ticks.append((y, anchor.arm, PUBLISHED))
        y -= 1
    axes.set_yticks([tick for tick, _, _ in ticks], [name for _, name, _ in ticks])
    for text, (_, _, colour) in zip(axes.get_yticklabels(), ticks, strict=True):
        text.set_color(colour)
        text.set_fontsize(8.5 if colour != PUBLISHED else 7.5)
    axes.set_ylim(y + 0.3, 0.8)
    axes.tick_params(axis="y", length=0)
    _log_time_axis(axes)
    _claims(axes)
    axes.set_xlabel("from the request to the payload's first instruction (t6 − t0), log scale")
    title = words.start_title(analysis)
    alt = "; ".join(f"{words.label(arm)} {words.measured(arm.first)}" for arm in analysis.arms)
    note = (
        "One dot for each sample; the bar is the median, its whisker the 95% bootstrap interval "
        f"over rounds; n beside it. {words.sentence(words.noise(analysis))} "
        "Hollow diamonds are published figures of other machines and years; what exactly they "
        "measured differs (see their table below), so they are context and no comparison."
    )
    return figure, title, alt, note


def _heading(axes: Axes, y: float, text: str, colour: str) -> None:
    axes.text(
        -0.005,
        y,
        text.upper(),
        transform=axes.get_yaxis_transform(),
        ha="right",
        va="center",
        fontsize=7,
        fontweight="bold",
        color=colour,
    )


def _dots(axes: Axes, arm: ArmResult, y: float, jitter: random.Random) -> None:
    colour = COLOURS[arm.kind]
    heights = [y + jitter.uniform(-0.27, 0.27) for _ in arm.samples]
    axes.scatter(arm.samples, heights, s=9, color=colour, alpha=0.35, linewidths=0, zorder=2)
    summary = arm.first
    axes.plot([summary.median] * 2, [y - 0.36, y + 0.36], color=colour, linewidth=2, zorder=4)
    if summary.low is not None and summary.high is not None:
        axes.plot([summary.low, summary.high], [y, y], color=colour, linewidth=1.6, zorder=4)
    badge = f"   {words.EMULATED}" if arm.emulated else ""
    axes.annotate(
        f"{words.duration(summary.median)}  n={summary.n}{badge}",
        (max(arm.samples), y),
        (7, 0),
        textcoords="offset points",
        va="center",
        fontsize=7.5,
        color="#222222",
    )


def _claims(axes: Axes) -> None:
    """The lecture's two words as regions: below 1 s, and from 60 s."""
    low, high = axes.get_xlim()
    minutes = anchors.claim("VM startup")
    axes.set_xlim(min(low, 0.2), max(high, minutes * 10))
    axes.axvspan(minutes, axes.get_xlim()[1], color=COLOURS["vm"], alpha=0.08, linewidth=0)
    axes.axvspan(
        1, anchors.claim("container startup"), color=COLOURS["container"], alpha=0.05, lw=0
    )
    top = axes.get_ylim()[1]
    for x, text, colour in (
        (31.6, "the lecture: containers, “milliseconds”", COLOURS["container"]),
        (minutes * 3.2, "VMs, “minutes”", COLOURS["vm"]),
    ):
        axes.text(x, top + 0.1, text, ha="center", va="bottom", fontsize=7.5, color=colour)


# In the waterfall: what is shown for each side, most telling first; the first that ran is taken.
CONTAINER_WATERFALLS = ("minicontainer-cli:", "minicontainer-library:", "runc:", "bubblewrap:")
VM_WATERFALLS = ("vm-micro:", "vm-direct:", "vm-nano")


def _first(analysis: Analysis, prefixes: tuple[str, ...]) -> Waterfall | None:
    for prefix in prefixes:
        for name, found in sorted(analysis.waterfalls.items()):
            if name.startswith(prefix) and found.start:
                return found
    return None


def waterfall(analysis: Analysis) -> tuple[Figure, str, str, str] | None:
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
        f"({words.duration(bar.length)} of {words.duration(found.first_ms)})"
        for bar, found in longest
    )
    alt = "; ".join(
        f"{found.arm}: "
        + ", ".join(f"{bar.name} {words.duration(bar.length)}" for bar in found.bars)
        for _, found in panels
    )
    note = (
        "Medians of offset and length over the shots; pale: after the first instruction. "
        "Traced shots are a series of their own, because tracing costs time; the headline figures "
        "are never traced. Each panel has its own scale."
    )
    return figure, title, alt, note


def _bars(axes: Axes, found: Waterfall, colour: str) -> float:
    """One bar for each phase, first at the top; returns the time of the first instruction (ms)."""
    end = max(bar.offset + bar.length for bar in found.bars)
    for y, bar in enumerate(found.bars):
        alpha = 0.3 if bar.after else 1.0
        axes.barh(y, bar.length, left=bar.offset, height=0.72, color=colour, alpha=alpha, zorder=3)
        past = bar.offset + bar.length
        right = past < 0.8 * end
        axes.annotate(
            words.duration(bar.length),
            (past if right else bar.offset, y),
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
    emulated = f" – {words.EMULATED}" if found.accel == "tcg" else ""
    traced = ", traced" if found.traced else ""
    axes.set_title(
        f"{_badged(found)}: first instruction after {words.duration(found.first_ms)}{traced}, "
        f"n={found.n}{emulated}",
        fontsize=10,
        color=colour,
    )
    axes.set_xlabel("ms since the request (t0)")
    return found.first_ms


def _badged(found: Waterfall) -> str:
    return f"{found.arm} [{found.accel}]" if found.accel else found.arm


def forest(analysis: Analysis) -> tuple[Figure, str, str, str] | None:
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
        remarks = ["" if resolved else "not resolved", words.EMULATED if arm.emulated else ""]
        axes.text(
            1.01,
            y,
            "   ".join(filter(None, [words.times(of), *remarks])),
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
    axes.set_yticks(range(len(arms)), [words.label(arm) for arm in arms])
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
    alt = "; ".join(f"{words.label(arm)} {words.times(arm.ratio)}: {arm.verdict}" for arm in arms)
    note = f"The grey band is the {words.noise(analysis)}."
    return figure, title, alt, note


def drift(analysis: Analysis) -> tuple[Figure, str, str, str] | None:
    """Every sample in the order of the rounds, as a multiple of its arm's median: a machine that
    warms up, slows down or is disturbed shows here.
    """
    rounds: dict[int, list[float]] = {}
    figure, axes = plt.subplots(figsize=(WIDTH, 2.6))
    for arm in analysis.arms:
        relative = [value / arm.first.median for value in arm.samples]
        for number, value in zip(arm.rounds, relative, strict=True):
            rounds.setdefault(number, []).append(value)
        axes.scatter(
            arm.rounds, relative, s=9, color=COLOURS[arm.kind], alpha=0.4, linewidths=0, zorder=3
        )
    medians = {number: statistics.median(values) for number, values in sorted(rounds.items())}
    axes.plot(list(medians), list(medians.values()), color="#222222", linewidth=1.2, zorder=4)
    for number in analysis.marked_rounds:
        axes.axvspan(number - 0.5, number + 0.5, color="#999999", alpha=0.3, lw=0)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"× {value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    low, high = axes.get_ylim()
    scale = (0.8, 1, 1.25) if high / low < 4 else (0.25, 0.5, 1, 2, 4, 8, 16)
    axes.set_yticks([tick for tick in scale if low < tick < high])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel("round, in the order they were shot")
    axes.set_ylabel("of the arm's median")
    third = max(1, len(medians) // 3)
    values = list(medians.values())
    change = statistics.median(values[-third:]) / statistics.median(values[:third])
    title = f"Over the run: the last third of the rounds took × {change:.2f} of the first third"
    alt = "; ".join(f"round {number} × {value:.2f}" for number, value in medians.items())
    note = (
        "One dot for each sample, as a multiple of its arm's median; the line: median of each "
        f"round. Grey: rounds that the guard marked ({analysis.marked} of {analysis.rounds})."
    )
    return figure, title, alt, note
