"""What all figures share: colours, axes, and what a maker of a figure returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("svg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.report import units

# Okabe and Ito's palette: told apart by colour-blind readers, and in print.
COLOURS = {"process": "#595959", "container": "#0072B2", "vm": "#D55E00"}
HEADINGS = {"process": "processes", "container": "containers", "vm": "virtual machines"}
PUBLISHED = "#7a5195"
GRID, INK, SOFT = "#dddddd", "#222222", "#999999"
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
# One arm after another of the same kind: told apart by line and shade.
LINES = ("-", "--", ":", "-.")


class Made(NamedTuple):
    """title: the finding. alt: what the figure shows, in words. note: how to read it."""

    figure: Figure
    title: str
    alt: str
    note: str


def time_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda ms, _: units.duration(ms)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="x", which="major", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def beside(axes: Axes, at: tuple[float, float], text: str, colour: Any = INK, **more: Any) -> None:
    """Small text to the right of a point."""
    axes.annotate(
        text,
        at,
        (7, 0),
        textcoords="offset points",
        va="center",
        color=colour,
        fontsize=7.5,
        **more,
    )


def apart(values: Sequence[float], least: float) -> list[float]:
    """The values moved up just so far that neighbours are `least` apart: where labels go."""
    places = [0.0] * len(values)
    last = float("-inf")
    for index in sorted(range(len(values)), key=lambda number: values[number]):
        last = places[index] = max(values[index], last + least)
    return places


def shade(kind: str, number: int, of: int) -> tuple[float, float, float]:
    """The kind's colour, lighter from one arm to the next."""
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(COLOURS[kind])
    light = 0.55 * number / max(of - 1, 1)
    return (red + (1 - red) * light, green + (1 - green) * light, blue + (1 - blue) * light)
