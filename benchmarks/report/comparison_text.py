"""What `compare A B` prints, and its record for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from benchmarks.report import units
from benchmarks.report.comparison import Change, Comparison, Finding
from benchmarks.report.series import Key

RULE = (
    "A change counts when its 95% interval excludes 1, when it is beyond 5% and beyond the A/A "
    "noise floor of both runs; it is a regression when a second run shows it again."
)


def name(key: Key) -> str:
    """The arm with its badge, and what sets its group apart."""
    apart = [
        "cold" if key.group.cache_state == "cold" else "",
        f"N={key.group.n_concurrent}" if key.group.n_concurrent != 1 else "",
    ]
    return " ".join([key.label, *filter(None, apart)])


def render(found: Comparison) -> str:
    lines = [f"before: {run.run_id}  {run.directory}" for run in found.before]
    lines += [f"after:  {run.run_id}  {run.directory}" for run in found.after]
    if not found.same_machine:
        lines.append("These runs are of different machines: only ratios within each are compared.")
    if found.changed:
        lines.append(f"changed between the runs: {', '.join(found.changed)}")
    metric = ""
    for one in found.findings:
        if one.key.group.metric != metric:
            metric = one.key.group.metric
            lines += ["", f"{metric} ({one.unit}; {one.direction} is better)"]
        lines.append(_line(one))
    lines += _only("before", found.only_before) + _only("after", found.only_after)
    if any(one.key.accel == "tcg" for one in found.findings):
        lines += ["", f"[tcg] is {units.EMULATED}."]
    lines += [line for run in [*found.before, *found.after] for line in run.damaged]
    return "\n".join([*lines, "", RULE, summary(found)])


def _line(one: Finding) -> str:
    medians = " → ".join(
        "/".join(units.amount(value, one.unit) for value in side)
        for side in (one.before, one.after)
    )
    changes = ", ".join(_change(change) for change in one.changes)
    by = "of its own" if one.changes[0].by == "time" else "against the reference"
    known = [change.floor for change in one.changes if change.floor]
    floor = f", floor × {max(known):.3g}" if known else ", no A/A"
    role = " (the reference: it, or the machine)" if one.reference else ""
    return f"  {name(one.key)}{role}: {medians}; {by} {changes}{floor}: {one.verdict}"


def _change(change: Change) -> str:
    return units.times(change.ratio)


def _only(side: str, keys: list[Key]) -> list[str]:
    names = sorted({name(key) for key in keys})
    return [f"only {side}: {', '.join(names)}"] if names else []


def summary(found: Comparison) -> str:
    """The last line: what is certain, what is to be looked at again."""
    parts = []
    for verdict, fix in (
        ("regression", ""),
        ("worse, seen once", "; measure again and give that run with --again"),
        ("improvement", ""),
        ("better, seen once", ""),
    ):
        of = found.of(verdict)
        if of:
            arms = ", ".join(f"{name(one.key)} {one.key.group.metric}" for one in of)
            parts.append(f"{len(of)} × {verdict} ({arms}){fix}")
    return "; ".join(parts) or f"no change in {len(found.findings)} series"


def record(found: Comparison) -> dict[str, Any]:
    return {
        "before": [run.directory for run in found.before],
        "after": [run.directory for run in found.after],
        "same_machine": found.same_machine,
        "changed": found.changed,
        "rule": RULE,
        "regressions": len(found.of("regression")),
        "seen_once": len(found.of("worse, seen once")),
        "findings": [
            {
                **asdict(one.key.group),
                "arm": one.key.arm,
                "accel": one.key.accel,
                "net_mode": one.key.net_mode,
                "emulated": one.key.accel == "tcg",
                "unit": one.unit,
                "direction": one.direction,
                "before": one.before,
                "after": one.after,
                "changes": [asdict(change) for change in one.changes],
                "verdict": one.verdict,
            }
            for one in found.findings
        ],
        "only_before": sorted({name(key) for key in found.only_before}),
        "only_after": sorted({name(key) for key in found.only_after}),
        "damaged_lines": [line for run in [*found.before, *found.after] for line in run.damaged],
    }
