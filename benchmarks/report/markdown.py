"""report.md: the same tables as text, with the figures' files beside it."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.report import markdown_parts, units, words
from benchmarks.report.analysis import Analysis
from benchmarks.report.claims import claims
from benchmarks.report.figures import Drawn
from benchmarks.report.starts import ArmResult
from benchmarks.report.tables import table


def render(analysis: Analysis, figures: list[Drawn]) -> str:
    parts = [
        f"# {words.start_title(analysis)}",
        f"Run {analysis.run_id}, {words.extent(analysis)}, seed {analysis.seed}. "
        f"{words.sentence(words.noise(analysis))} {words.guard(analysis)}",
    ]
    if analysis.emulated:
        parts.append(f"**What is marked [tcg] ran in software emulation; {units.EMULATED}.**")
    rows = [
        (c.claim, "<br>".join(c.measured) or "–", "<br>".join(c.published) or "–", c.verdict)
        for c in claims(analysis)
    ]
    head = ("claim", "measured here: median (95% interval; n)", "published", "verdict")
    parts += ["## The lecture's table, as measured here", table(head, rows)]
    for figure in figures:
        parts += [f"## {figure.title}", f"![{figure.alt}](figures/{figure.name}.svg)", figure.note]
    if analysis.arms:
        parts += ["## All arms, warm page cache", arms_table(analysis, analysis.arms)]
    if analysis.cold:
        parts += ["## All arms, cold page cache", arms_table(analysis, analysis.cold)]
    for part in markdown_parts.ALL:
        parts += part(analysis)
    if analysis.skips:
        skips = [(s.arm, s.bench, s.reason, s.fix or "unknown") for s in analysis.skips]
        head = ("arm", "benchmark", "reason", "fix")
        parts += ["## Not measured here", table(head, skips)]
    environment = words.environment(analysis.environment)
    parts += ["## Environment", table(("fact", "value"), environment)]
    if analysis.damaged:
        parts += ["## Damaged lines, left out", "\n".join(f"- {d}" for d in analysis.damaged)]
    return "\n\n".join(parts) + "\n"


def arms_table(analysis: Analysis, arms: Sequence[ArmResult]) -> str:
    """One line for each arm; what differs without the marked rounds is in its last column."""
    head = [
        "arm",
        "first instruction",
        "min",
        "whole process",
        f"{analysis.reference} ×",
        "verdict",
    ]
    head += ["unmarked rounds only"] if analysis.marked else []
    rows = []
    for arm in arms:
        whole = units.duration(arm.whole.median) if arm.whole else "–"
        row = [
            units.label(arm) + (f" ({units.EMULATED})" if arm.emulated else ""),
            units.measured(arm.first),
            units.duration(arm.first.minimum),
            whole,
            units.times(arm.ratio),
            arm.verdict,
        ]
        if analysis.marked:
            row.append(units.measured(arm.clean) if arm.clean else "none")
        rows.append(row)
    return table(head, rows)
