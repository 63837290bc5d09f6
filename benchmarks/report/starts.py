"""Each arm's start times, and its ratio to the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from benchmarks.budgets import FIRST, WHOLE
from benchmarks.report.series import paired
from benchmarks.statistics import Ratio, Summary, summarize, verdict

KINDS = ("process", "container", "vm")


@dataclass(frozen=True)
class ArmResult:
    """One arm in the report. clean: without marked rounds (None when that leaves nothing)."""

    name: str
    kind: str
    tier: str
    accel: str
    first: Summary
    clean: Summary | None
    whole: Summary | None
    ratio: Ratio | None
    verdict: str
    cpu_ms: float | None
    samples: list[float]
    rounds: list[int]  # of the samples
    orders: list[int]  # of the samples: position in the round
    errors: int
    params: dict[str, Any]
    channel: str
    channel_cost_us: float | None

    @property
    def emulated(self) -> bool:
        return self.accel == "tcg"


def starts(table: pd.DataFrame, cache_state: str) -> pd.DataFrame:
    """The shots that count, with a warm or with a cold page cache."""
    return table[
        (table.bench == "start")
        & (table.status == "ok")
        & ~table.warmup.astype(bool)
        & (table.cache_state == cache_state)
    ]


def of(shots: pd.DataFrame, arm: str, metric: str = FIRST, rep: int = 0) -> pd.DataFrame:
    return shots[(shots.arm == arm) & (shots.metric == metric) & (shots.rep == rep)]


def pair(arm: pd.DataFrame, reference: pd.DataFrame, seed: int) -> Ratio | None:
    """The ratio over the rounds that have both."""
    sides = [dict(zip(s["round"], s.value, strict=True)) for s in (arm, reference)]
    return paired(sides[0], sides[1], seed)


def arm_results(
    table: pd.DataFrame, shots: pd.DataFrame, reference: str, noise: float | None, seed: int
) -> list[ArmResult]:
    """Every arm that was shot: processes, containers, machines, each from the fastest on."""
    names = [name for name in shots.arm.unique() if len(of(shots, name))]
    names.sort(
        key=lambda name: (
            KINDS.index(of(shots, name).kind.iloc[0]),
            float(of(shots, name).value.median()),
        )
    )
    return [_arm(table, shots, name, reference, noise, seed) for name in names]


def _arm(
    table: pd.DataFrame,
    shots: pd.DataFrame,
    name: str,
    reference: str,
    noise: float | None,
    seed: int,
) -> ArmResult:
    first, whole = of(shots, name), of(shots, name, WHOLE)
    clean = first[~first.contaminated.astype(bool)]
    against = None if name == reference else pair(first, of(shots, reference), seed)
    unpaired = "reference" if name == reference else "no round shared with the reference"
    row = first.iloc[0]
    cpu = first.cpu_ms.median()
    failed = (table.arm == name) & (table.status == "error") & (table.bench == "start")
    return ArmResult(
        name=name,
        kind=row.kind,
        tier=row.tier,
        accel=row.accel,
        first=summarize(first.value, seed),
        clean=summarize(clean.value, seed) if len(clean) else None,
        whole=summarize(whole.value, seed) if len(whole) else None,
        ratio=against,
        verdict=verdict(against, noise) if against else unpaired,
        cpu_ms=None if pd.isna(cpu) else float(cpu),
        samples=[float(value) for value in first.value],
        rounds=[int(number) for number in first["round"]],
        orders=[int(number) for number in first["order"]],
        errors=int((failed & (table.cache_state == row.cache_state)).sum()),
        params=row.params,
        channel=row.params.get("channel", ""),
        channel_cost_us=None if pd.isna(row.channel_cost_us) else float(row.channel_cost_us),
    )
