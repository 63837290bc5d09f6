"""A curve in the notebook that grows while a run in the workbench prints its points.

    bench.run(oom, live=can["memory"], echo=plot.Curve("MiB", limit=48).feed)

Each line is a point, `SECONDS VALUE`; the first one's time is 0. The picture is SVG with a panel of
its own, in the colours of the lessons' pictures, for light and dark pages.
"""

from __future__ import annotations

import io
import time
from typing import Any

import matplotlib
from IPython.display import display
from matplotlib.figure import Figure

INK, LINE, LIMIT, PANEL, GRID = "#334155", "#475569", "#b91c1c", "#f8fafc", "#cbd5e1"
SECONDS_A_FRAME = 0.25
# What JupyterLab shows of a stored curve: SVG only in notebooks that were run here.
INSTEAD = "a curve: run the cell to see it"
STYLE: Any = {  # keys are matplotlib's rcParams
    "svg.fonttype": "none", "svg.hashsalt": "minicontainer",
    "font.family": "sans-serif", "font.size": 10,
    "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.edgecolor": GRID, "axes.spines.top": False, "axes.spines.right": False,
}  # fmt: skip


class Curve:
    """One curve; `limit` is drawn as a line across, from the time `since` on."""

    def __init__(self, label: str, limit: float, since: float = 0) -> None:
        self._label, self._limit, self._since = label, limit, since
        self._rest = ""
        self._begun = self._drawn = 0.0
        self._handle = None
        self.points: list[tuple[float, float]] = []

    def feed(self, text: str) -> None:
        """Take a piece of output. Of a recorded run all comes at once, and is drawn once."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            seconds, value = map(float, line.split())
            self._begun = self._begun or seconds
            self.points.append((seconds - self._begun, value))
        if time.monotonic() - self._drawn > SECONDS_A_FRAME:
            self.draw()

    def draw(self) -> None:
        """Show all points that are there, in the place of what was shown before."""
        picture = {"image/svg+xml": self._svg(), "text/plain": INSTEAD}
        if self._handle is None:
            self._handle = display(picture, raw=True, display_id=True)
        else:
            self._handle.update(picture, raw=True)
        self._drawn = time.monotonic()

    def _svg(self) -> str:
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=(7, 2.6), facecolor=PANEL, layout="tight")
            axes = figure.add_subplot(facecolor=PANEL)
            axes.plot(*zip(*self.points, strict=True), color=LINE, marker=".", markersize=4)
            end = max(self._since, *(seconds for seconds, _ in self.points))
            axes.hlines(self._limit, self._since, end, color=LIMIT, label="limit")
            axes.set(xlabel="seconds", ylabel=self._label, xlim=(0, None), ylim=(0, None))
            axes.legend(loc="best", frameon=False)
            file = io.StringIO()
            figure.savefig(file, format="svg", metadata={"Date": None})
        return file.getvalue()
