"""The tables of report.md that a run may have or not: other metrics, capacity, facts, budgets."""

from __future__ import annotations

from itertools import groupby

from benchmarks.report import sizes, units, words
from benchmarks.report.analysis import Analysis
from benchmarks.report.capacity import DEFINITIONS
from benchmarks.report.isolation import probed
from benchmarks.report.tables import table


def _who(one: units.Named) -> str:
    badge = f" ({units.EMULATED})" if one.accel == "tcg" else ""
    return units.label(one) + badge


def measured(analysis: Analysis) -> list[str]:
    parts = []
    head = ("arm", "median (95%; n)", "of the reference", "verdict")
    for group, lines in groupby(analysis.measured, key=lambda one: one.key.group):
        found = list(lines)
        rows = [
            (_who(one), units.summed(one.summary, one.unit), units.times(one.ratio), one.verdict)
            for one in found
        ]
        parts += [f"## {words.group_title(group, found)}", table(head, rows)]
    return parts


def memory(analysis: Analysis) -> list[str]:
    if not analysis.footprints:
        return []
    head = ("arm", "N", *DEFINITIONS, "MemAvailable, slope over N (95%)")
    rows = []
    for one in analysis.footprints:
        sizes_of = [
            units.summed(one.by[what], "MiB") if what in one.by else "–" for what in DEFINITIONS
        ]
        rows.append([_who(one), str(one.n), *sizes_of, sizes.slope(one)])
    return ["## Memory of one idle instance", table(head, rows)]


def numbers(analysis: Analysis) -> list[str]:
    if not analysis.curves:
        return []
    head = ("arm", "ran at once", "a start", "each costs the host", "extrapolated, not measured")
    rows = [
        (
            _who(one),
            str(one.reached),
            sizes.growth(one) if one.starts else "–",
            sizes.cost(one),
            "–" if one.extrapolated is None else str(one.extrapolated),
        )
        for one in analysis.curves
    ]
    return ["## How many ran at once", table(head, rows)]


def facts(analysis: Analysis) -> list[str]:
    if not analysis.facts:
        return []
    arms = probed(analysis.facts)
    head = ["fact", *(f"{one.arm} [{one.accel}]" if one.accel else one.arm for one in arms)]
    rows = [
        [f"{fact.sentence} ({fact.how})", *(fact.said(one.arm) for one in arms)]
        for fact in analysis.facts
    ]
    return ["## What a process sees and reaches of its host", table(head, rows)]


def budgets(analysis: Analysis) -> list[str]:
    if not analysis.budgets:
        return []
    rows = [
        (
            b.arm + (f" ({units.EMULATED})" if b.emulated else ""),
            b.what,
            f"≤ × {b.limit} of {b.against}",
            units.times(b.ratio),
            b.verdict,
        )
        for b in analysis.budgets
    ]
    head = ("arm", "of its", "budget", "measured", "verdict")
    return ["## Budgets of this project", table(head, rows)]


ALL = (measured, memory, numbers, facts, budgets)
