"""What `compare` prints at its end: the table in columns, and where the report lies."""

from __future__ import annotations

import os
from itertools import groupby

from benchmarks.report import sizes, units, words
from benchmarks.report.analysis import Analysis
from benchmarks.report.claims import claims
from benchmarks.report.starts import ArmResult


def budgets(analysis: Analysis) -> list[str]:
    """One line for each budget whose arms were measured, and who lives as long as a container."""
    lines = []
    for budget in analysis.budgets:
        measured = f"{budget.what} {units.times(budget.ratio)} of {budget.against}"
        allowed = f"allowed × {budget.limit}"
        badge = " [tcg]" if budget.emulated else ""
        lines.append(f"budget {budget.verdict}: {budget.arm}{badge}: {measured}, {allowed}")
    return lines + words.residents(analysis)


def render(analysis: Analysis, directory: str) -> str:
    lines = ["", words.start_title(analysis), words.extent(analysis), ""]
    for heading, arms in (("", analysis.arms), ("cold page cache:", analysis.cold)):
        if arms:
            lines += [heading] * bool(heading) + _table(analysis.reference, arms) + [""]
    for group, found in groupby(analysis.measured, key=lambda one: one.key.group):
        lines.append(words.group_title(group, list(found)))
    lines += [f"memory: {sizes.footprint(one)}" for one in analysis.footprints]
    lines += [f"density: {sizes.density(one)}" for one in analysis.curves]
    if analysis.emulated:
        lines.append(f"[tcg] is {units.EMULATED}.")
    if analysis.arms:
        lines.append(words.sentence(words.noise(analysis)))
    lines += [words.guard(analysis), *budgets(analysis)]
    lines += [f"{claim.claim}: {claim.verdict}." for claim in claims(analysis)]
    for skip in analysis.skips:
        where = "" if skip.bench == "start" else f" ({skip.bench})"
        fix = skip.fix or "unknown"
        lines.append(f"skipped {skip.arm}{where}: {skip.reason} (fix: {fix})")
    lines += analysis.damaged
    lines += ["", f"report: {os.path.abspath(os.path.join(directory, 'report.html'))}"]
    return "\n".join(lines)


def _table(reference: str, arms: list[ArmResult]) -> list[str]:
    rows = [("arm", "first instruction (95%; n)", f"{reference} × (95%; n)", "verdict")]
    rows += [
        (units.label(arm), units.measured(arm.first), units.times(arm.ratio), arm.verdict)
        for arm in arms
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
