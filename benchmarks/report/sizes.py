"""Sentences about memory and about how many fit."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.report import units
from benchmarks.report.capacity import RESERVE_MIB, Curve, Footprint
from benchmarks.statistics import Line


def footprint_spans(found: Sequence[Footprint]) -> str:
    """PSS by kind; of arms without it, what they have."""
    values = [(one.kind, one.emulated, one.size) for one in found if one.size is not None]
    what = " (PSS)" if all("pss" in one.by for one in found) else ""
    return units.by_kind(values, "MiB") + what if values else "not told"


def footprint_lines(found: Sequence[Footprint]) -> list[str]:
    """Proportional memory by kind, in a line each: 'PSS of one, a container: 7 KiB to 4 MiB'."""
    lines = []
    for kind, name in units.KINDS.items():
        alike = [one for one in found if one.kind == kind and "pss" in one.by]
        for emulated in (False, True):
            some = [one for one in alike if one.emulated == emulated]
            if some:
                span = units.between([one.by["pss"].median for one in some], "MiB")
                label = f" – {units.EMULATED}" if emulated else ""
                arms = ", ".join(units.label(one) for one in some)
                lines.append(f"memory (PSS) of {name}: {span} ({arms}){label}")
    return lines


def footprint(one: Footprint) -> str:
    """Everything known of one arm's memory, in words."""
    parts = [f"{what} {units.mebibytes(summary.median)}" for what, summary in one.by.items()]
    parts += [slope(one)] if one.slope else []
    return f"{units.label(one)} (N={one.n}): {', '.join(parts)}"


def slope(one: Footprint) -> str:
    """'4.1 MiB each (3.9–4.3 MiB)': what the host loses for each further one."""
    return per_instance(one.slope, 1)


def per_instance(line: Line | None, sign: int) -> str:
    """What the host gives up for each, by a line through that (1) or what is left (-1)."""
    if line is None:
        return "–"
    if line.low is None or line.high is None:
        return f"not resolved (n={line.n}, no interval)"
    low, high = sorted((sign * line.low, sign * line.high))
    bounds = f"{units.figures(low)}–{units.figures(high)} MiB; n={line.n}"
    if low <= 0:
        return f"not resolved ({bounds})"
    return f"{units.mebibytes(sign * line.slope)} each ({bounds})"


def reached(one: Curve) -> str:
    return f"{one.reached} × {units.label(one)}"


def growth(one: Curve) -> str:
    """'6.1 ms → 7.9 ms for the last of 1000', by the fitted line."""
    line, last = one.start_line, one.reached - 1
    if line is None or line.low is None or line.high is None:
        return f"{units.duration(one.starts[-1][1])} for the last of {one.reached}"
    if line.low <= 0 <= line.high:
        return f"{units.duration(line.at(last / 2))} whether the first or the last of {one.reached}"
    first, end = (units.duration(max(line.at(n), 0)) for n in (0, last))
    return f"{first} → {end} for the last of {one.reached}"


def cost(one: Curve) -> str:
    """'4.1 MiB each (3.9–4.3 MiB)', by the line through MemAvailable."""
    return per_instance(one.memory_line, -1)


def density(one: Curve) -> str:
    """What is measured, and behind it, named as such, what is extrapolated."""
    said = f"{units.label(one)}: {one.reached} ran at once"
    said += f" (no more, because {one.stopped})" if one.stopped else ""
    said += f", a start took {growth(one)}" if one.starts else ""
    if one.extrapolated is not None:
        said += (
            f"; extrapolated (not measured): {one.extrapolated} until {RESERVE_MIB:.0f} MiB are "
            "left"
        )
    return f"{said} – {units.EMULATED}" if one.emulated else said
