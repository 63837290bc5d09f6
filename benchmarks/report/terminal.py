"""What `compare` prints at its end: the table in columns, and where the report lies."""

from __future__ import annotations

import os

from benchmarks.report import words
from benchmarks.report.analysis import Analysis


def budgets(analysis: Analysis) -> list[str]:
    """One line for each budget whose arms were measured, and who lives as long as a container."""
    lines = []
    for budget in analysis.budgets:
        measured = f"whole process {words.times(budget.ratio)} of {budget.against}"
        allowed = f"allowed × {budget.limit}"
        lines.append(f"budget {budget.verdict}: {budget.arm}: {measured}, {allowed}")
    return lines + words.residents(analysis)


def render(analysis: Analysis, directory: str) -> str:
    rows = [("arm", "first instruction (95%; n)", f"{analysis.reference} × (95%; n)", "verdict")]
    rows += [
        (words.label(arm), words.measured(arm.first), words.times(arm.ratio), arm.verdict)
        for arm in analysis.arms
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines = ["", words.start_title(analysis), words.extent(analysis), "", *table, ""]
    if any(arm.emulated for arm in analysis.arms):
        lines.append(f"[tcg] is {words.EMULATED}.")
    lines += [words.sentence(words.noise(analysis)), words.guard(analysis)]
    lines += budgets(analysis)
    for claim in words.claims(analysis):
        lines.append(f"{claim.claim}: {claim.verdict}.")
    for skip in analysis.skips:
        lines.append(f"skipped {skip.arm}: {skip.reason} (fix: {skip.fix or 'unknown'})")
    lines += analysis.damaged
    lines += ["", f"report: {os.path.abspath(os.path.join(directory, 'report.html'))}"]
    return "\n".join(lines)
