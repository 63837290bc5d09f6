"""The report of a run, from its stored samples: report.html, report.md and figures/ beside them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from benchmarks import results
from benchmarks.report import figures, html, markdown, record, terminal
from benchmarks.report.analysis import Analysis, analyse


@dataclass(frozen=True)
class Written:
    """What was written, the text for a terminal, and the figures behind it."""

    directory: str
    text: str
    analysis: Analysis

    def record(self) -> dict[str, Any]:
        """The result for programs: see `record.record`."""
        return record.record(self.analysis, self.directory)


def write_report(directory: str) -> Written:
    """Analyse and write. Raises ResultsError when there is nothing to report, OSError when it
    cannot write.
    """
    analysis = analyse(directory)
    drawn = figures.draw_all(analysis, os.path.join(directory, "figures"))
    for name, text in (
        ("report.html", html.render(analysis, drawn)),
        ("report.md", markdown.render(analysis, drawn)),
    ):
        results.write_whole(os.path.join(directory, name), text)
    return Written(directory, terminal.render(analysis, directory), analysis)
