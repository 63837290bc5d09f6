"""Times on a logarithmic axis: every sample a dot, the median a bar with its interval."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks import anchors
from benchmarks.report import units, words
from benchmarks.report.analysis import Analysis
from benchmarks.report.figures.style import (
    COLOURS,
    HEADINGS,
    PUBLISHED,
    WIDTH,
    Made,
    beside,
    time_axis,
)
from benchmarks.report.starts import ArmResult
from benchmarks.statistics import Summary

DOTS = "One dot for each sample; the bar is the median, its whisker the 95% bootstrap interval."


class Timed(Protocol):
    """What is drawn on one line."""

    @property
    def kind(self) -> str: ...
    @property
    def emulated(self) -> bool: ...
    @property
    def samples(self) -> list[float]: ...


Item = tuple[str, Timed, Summary]  # label, samples, their summary
Ticks = list[tuple[float, str, str]]  # y, text, colour


def start_times(analysis: Analysis) -> Made | None:
    """Starts with a warm page cache, beside published ones as hollow diamonds."""
    if not analysis.arms:
        return None
    published = [anchor for anchor in anchors.starts() if anchor.value >= 0.5]
    items = _items(analysis.arms)
    rows = len(items) + len(published) + len({a.kind for a in analysis.arms}) + 2
    figure, axes = plt.subplots(figsize=(WIDTH, 0.9 + 0.235 * rows))
    y, ticks = _draw(axes, items, analysis.seed)
    _heading(axes, y, "published elsewhere, on other hardware", PUBLISHED)
    y = _published(axes, y - 1, published, ticks)
    _finish(axes, y, ticks)
    _claims(axes)
    axes.set_xlabel("from the request to the payload's first instruction (t6 − t0), log scale")
    note = (
        f"{DOTS} n beside it. {words.sentence(words.noise(analysis))} "
        "Hollow diamonds are published figures of other machines and years; what exactly they "
        "measured differs (see their table below), so they are context and no comparison."
    )
    return Made(figure, words.start_title(analysis), _alt(items), note)


def cold_times(analysis: Analysis) -> Made | None:
    """Starts after the page cache was dropped: a series of their own."""
    if not analysis.cold:
        return None
    warm = {arm.name: arm.first.median for arm in analysis.arms}
    slower = [arm.first.median / warm[arm.name] for arm in analysis.cold if arm.name in warm]
    title = f"With a cold page cache: {words.spans(analysis.cold)}"
    if slower:
        low, high = units.figures(min(slower)), units.figures(max(slower))
        title += f" – × {low} to × {high} of the same arms' warm starts"
    return _plain(
        _items(analysis.cold),
        analysis.seed,
        title,
        "from the request to the first instruction, page cache dropped before each, log scale",
        f"{DOTS} The page cache is dropped before every arm; no warm start is in this figure.",
    )


def ready_times(analysis: Analysis) -> Made | None:
    """Ready to serve: the first reply on an address of its own."""
    found = analysis.of_metric("start.ready_ip")
    items: list[Item] = [(one.key.label, one, one.summary) for one in found]
    title = "Ready to serve on its own address: " + words.medians(found)
    axis = "from the request to the first TCP reply (t7 − t0), log scale"
    return _plain(items, analysis.seed, title, axis, DOTS) if found else None


def stop_times(analysis: Analysis) -> Made | None:
    """From the request to stop until nothing is left."""
    found = analysis.of_metric("stop.teardown")
    items: list[Item] = [(units.label(one), one, one.summary) for one in found]
    title = "Stopped, and nothing left: " + words.medians(found)
    axis = "from the request to stop until nothing is left (t9 − t8), log scale"
    return _plain(items, analysis.seed, title, axis, DOTS) if found else None


def _items(arms: Sequence[ArmResult]) -> list[Item]:
    return [(units.label(arm), arm, arm.first) for arm in arms]


def _alt(items: Sequence[Item]) -> str:
    return "; ".join(f"{label} {units.measured(summary)}" for label, _, summary in items)


def _plain(items: list[Item], seed: int, title: str, axis: str, note: str) -> Made:
    rows = len(items) + len({one.kind for _, one, _ in items})
    figure, axes = plt.subplots(figsize=(WIDTH, 0.9 + 0.235 * rows))
    y, ticks = _draw(axes, items, seed)
    _finish(axes, y, ticks)
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * (high / low) ** 0.35)  # room for the text beside the slowest
    axes.set_xlabel(axis)
    return Made(figure, title, _alt(items), note)


def _draw(axes: Axes, items: Sequence[Item], seed: int) -> tuple[float, Ticks]:
    """Every item on a line of its own under its kind's heading; the next free line and ticks."""
    jitter = random.Random(seed)
    y, ticks = 0.0, []
    for kind, colour in COLOURS.items():
        alike = [item for item in items if item[1].kind == kind]
        if alike:
            _heading(axes, y, HEADINGS[kind], colour)
            y -= 1
        for label, one, summary in alike:
            _dots(axes, one, summary, y, jitter)
            ticks.append((y, label, colour))
            y -= 1
    return y, ticks


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


def _dots(axes: Axes, one: Timed, summary: Summary, y: float, jitter: random.Random) -> None:
    colour = COLOURS[one.kind]
    heights = [y + jitter.uniform(-0.27, 0.27) for _ in one.samples]
    axes.scatter(one.samples, heights, s=9, color=colour, alpha=0.35, linewidths=0, zorder=2)
    axes.plot([summary.median] * 2, [y - 0.36, y + 0.36], color=colour, linewidth=2, zorder=4)
    if summary.low is not None and summary.high is not None:
        axes.plot([summary.low, summary.high], [y, y], color=colour, linewidth=1.6, zorder=4)
    badge = f"   {units.EMULATED}" if one.emulated else ""
    text = f"{units.duration(summary.median)}  n={summary.n}{badge}"
    beside(axes, (max(one.samples), y), text)


def _published(axes: Axes, y: float, published: list[anchors.Anchor], ticks: Ticks) -> float:
    """Hollow diamonds with value, source, year and hardware; returns the next free line."""
    for anchor in published:
        axes.plot(anchor.value, y, marker="D", ms=5.5, mfc="white", mec=PUBLISHED, ls="", zorder=3)
        told = f"{units.duration(anchor.value)}   {anchor.cited}; {anchor.hardware}"
        beside(axes, (anchor.value, y), told, PUBLISHED)
        ticks.append((y, anchor.arm, PUBLISHED))
        y -= 1
    return y


def _finish(axes: Axes, y: float, ticks: Ticks) -> None:
    axes.set_yticks([tick for tick, _, _ in ticks], [name for _, name, _ in ticks])
    for text, (_, _, colour) in zip(axes.get_yticklabels(), ticks, strict=True):
        text.set_color(colour)
        text.set_fontsize(8.5 if colour != PUBLISHED else 7.5)
    axes.set_ylim(y + 0.3, 0.8)
    axes.tick_params(axis="y", length=0)
    time_axis(axes)


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
