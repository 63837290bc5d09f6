"""The figures, as SVG: each title states the finding, each axis its unit, each label its n and
interval.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass

from matplotlib import pyplot as plt

from benchmarks import results
from benchmarks.report.analysis import Analysis
from benchmarks.report.figures.density import density
from benchmarks.report.figures.drift import drift
from benchmarks.report.figures.ecdf import ecdf
from benchmarks.report.figures.forest import forest
from benchmarks.report.figures.memory import memory
from benchmarks.report.figures.style import STYLE, Made
from benchmarks.report.figures.times import cold_times, ready_times, start_times, stop_times
from benchmarks.report.figures.waterfall import waterfall

MAKERS: tuple[Callable[[Analysis], Made | None], ...] = (
    start_times,
    waterfall,
    ecdf,
    forest,
    cold_times,
    ready_times,
    stop_times,
    memory,
    density,
    drift,
)


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
    drawn = []
    with plt.rc_context(STYLE):
        for maker in MAKERS:
            made = maker(analysis)
            if made is not None:
                drawn.append(write(maker.__name__, made, directory))
    return drawn


def write(name: str, made: Made, directory: str) -> Drawn:
    """One figure, written whole."""
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, f"{name}.svg")
    metadata = {"Date": None, "Creator": None, "Title": made.title}
    text = io.StringIO()
    made.figure.savefig(text, format="svg", metadata=metadata, bbox_inches="tight")
    plt.close(made.figure)
    results.write_whole(path, text.getvalue())
    return Drawn(name, path, made.title, made.alt, made.note)
