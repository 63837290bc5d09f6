"""report.md: the same tables as text, with the figures' files beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.report import words
from benchmarks.report.analysis import Analysis
from benchmarks.report.figures import Drawn


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    escaped = ([cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def render(analysis: Analysis, figures: list[Drawn]) -> str:
    parts = [
        f"# {words.start_title(analysis)}",
        f"Run {analysis.run_id}, {words.extent(analysis)}, seed {analysis.seed}. "
        f"{words.sentence(words.noise(analysis))} {words.guard(analysis)}",
    ]
    if any(arm.emulated for arm in analysis.arms):
        parts.append(f"**Arms marked [tcg] ran in software emulation; {words.EMULATED}.**")
    claims = [
        (c.claim, "<br>".join(c.measured) or "–", "<br>".join(c.published) or "–", c.verdict)
        for c in words.claims(analysis)
    ]
    head = ("claim", "measured here: median (95% interval; n)", "published", "verdict")
    parts += ["## The lecture's table, as measured here", _table(head, claims)]
    for figure in figures:
        parts += [f"## {figure.title}", f"![{figure.alt}](figures/{figure.name}.svg)", figure.note]
    parts += ["## All arms", arms_table(analysis)]
    if analysis.budgets:
        budgets = [
            (b.arm, f"≤ × {b.limit} of {b.against}", words.times(b.ratio), b.verdict)
            for b in analysis.budgets
        ]
        head = ("arm", "budget", "measured", "verdict")
        parts += ["## Budgets of this project, whole process", _table(head, budgets)]
    if analysis.skips:
        skips = [(skip.arm, skip.reason, skip.fix or "unknown") for skip in analysis.skips]
        parts += ["## Not measured here", _table(("arm", "reason", "fix"), skips)]
    environment = words.environment(analysis.environment)
    parts += ["## Environment", _table(("fact", "value"), environment)]
    if analysis.damaged:
        parts += ["## Damaged lines, left out", "\n".join(f"- {d}" for d in analysis.damaged)]
    return "\n\n".join(parts) + "\n"


def arms_table(analysis: Analysis) -> str:
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
    for arm in analysis.arms:
        whole = words.duration(arm.whole.median) if arm.whole else "–"
        row = [
            words.label(arm) + (f" ({words.EMULATED})" if arm.emulated else ""),
            words.measured(arm.first),
            words.duration(arm.first.minimum),
            whole,
            words.times(arm.ratio),
            arm.verdict,
        ]
        if analysis.marked:
            row.append(words.measured(arm.clean) if arm.clean else "none")
        rows.append(row)
    return _table(head, rows)
