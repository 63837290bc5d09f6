"""The result for programs: medians, ratios to the reference, facts, what was skipped."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

from benchmarks.report.analysis import Analysis
from benchmarks.report.claims import claims
from benchmarks.report.starts import ArmResult


def record(analysis: Analysis, directory: str) -> dict[str, Any]:
    return {
        "directory": directory,
        "report": os.path.join(directory, "report.html"),
        "reference": analysis.reference,
        "noise_floor": analysis.noise_floor,
        "rounds": analysis.rounds,
        "planned_rounds": analysis.planned,
        "marked_rounds": analysis.marked,
        "arms": [_start(arm) for arm in analysis.arms],
        "cold": [_start(arm) for arm in analysis.cold],
        "measured": [
            {
                **asdict(one.key.group),
                **_who(one.name, one.accel),
                "net_mode": one.key.net_mode,
                "unit": one.unit,
                "median": one.summary.median,
                "low": one.summary.low,
                "high": one.summary.high,
                "n": one.summary.n,
                "ratio": one.ratio.value if one.ratio else None,
                "verdict": one.verdict,
            }
            for one in analysis.measured
        ],
        "memory": [
            {
                **_who(one.name, one.accel),
                "n_concurrent": one.n,
                "mib": {what: summary.median for what, summary in one.by.items()},
                "mib_each_by_available": one.per_instance,
            }
            for one in analysis.footprints
        ],
        "density": [
            {
                **_who(one.name, one.accel),
                "reached": one.reached,
                "extrapolated": one.extrapolated,
                "start_line": asdict(one.start_line) if one.start_line else None,
                "memory_line": asdict(one.memory_line) if one.memory_line else None,
            }
            for one in analysis.curves
        ],
        "isolation": [
            {
                "fact": fact.name,
                "sentence": fact.sentence,
                "unit": fact.unit,
                "answers": {arm: answer.value for arm, answer in fact.answers.items()},
            }
            for fact in analysis.facts
        ],
        "claims": [asdict(claim) for claim in claims(analysis)],
        "skipped": [asdict(skip) for skip in analysis.skips],
        "damaged_lines": analysis.damaged,
    }


def _start(arm: ArmResult) -> dict[str, Any]:
    return {
        **_who(arm.name, arm.accel),
        "median_ms": arm.first.median,
        "low_ms": arm.first.low,
        "high_ms": arm.first.high,
        "n": arm.first.n,
        "ratio": arm.ratio.value if arm.ratio else None,
        "verdict": arm.verdict,
    }


def _who(arm: str, accel: str) -> dict[str, Any]:
    return {"arm": arm, "accel": accel, "emulated": accel == "tcg"}
