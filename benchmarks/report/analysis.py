"""From rows to the numbers of the report. Nothing here is drawn or worded; everything here is
tested.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from benchmarks import results, tables
from benchmarks.report import capacity, isolation
from benchmarks.report.budgets import Budget, driver_budgets, start_budgets
from benchmarks.report.measures import Measured, measured
from benchmarks.report.phases import Waterfall, waterfalls
from benchmarks.report.series import (
    Key,
    Run,
    Series,
    paired,
    planned,
    read_environment,
    read_plan,
    series_of,
    usable,
)
from benchmarks.report.starts import ArmResult, arm_results, of, pair, starts
from benchmarks.statistics import Ratio, floor


@dataclass(frozen=True)
class Skipped:
    """An arm without any value in this benchmark: it could not run here, or every shot failed."""

    arm: str
    bench: str
    reason: str
    fix: str


@dataclass(frozen=True)
class Analysis:
    run_id: str
    seed: int
    reference: str
    rounds: int
    planned: int
    marked_rounds: list[int]
    arms: list[ArmResult]  # starts with a warm page cache
    cold: list[ArmResult]  # and with a cold one
    measured: list[Measured]
    footprints: list[capacity.Footprint]
    curves: list[capacity.Curve]
    facts: list[isolation.Fact]
    skips: list[Skipped]
    a_a: Ratio | None
    noise_floor: float | None
    waterfalls: dict[str, Waterfall]
    budgets: list[Budget]
    damaged: list[str]
    environment: dict[str, Any]
    plan: dict[str, Any]
    hosts: int  # environments: more than one when a resumed run found its host changed

    @property
    def marked(self) -> int:
        return len(self.marked_rounds)

    @property
    def emulated(self) -> bool:
        """Whether any figure of this run comes from software emulation."""
        everyone = (self.arms, self.cold, self.measured, self.footprints, self.curves)
        in_probes = any(a.accel == "tcg" for fact in self.facts for a in fact.answers.values())
        return in_probes or any(one.accel == "tcg" for some in everyone for one in some)

    def arm(self, name: str) -> ArmResult | None:
        return next((arm for arm in self.arms if arm.name == name), None)

    def of_kind(self, kind: str) -> list[ArmResult]:
        return [arm for arm in self.arms if arm.kind == kind]

    def of_metric(self, metric: str) -> list[Measured]:
        return [one for one in self.measured if one.key.group.metric == metric]

    def fact(self, name: str) -> isolation.Fact | None:
        return next((fact for fact in self.facts if fact.name == name), None)


def analyse(directory: str) -> Analysis:
    """Everything the report says about a run. Raises ResultsError when there is nothing to say."""
    rows, damaged = results.read_rows(directory)
    plan, environment = read_plan(directory), read_environment(directory)
    table = tables.frame(rows)
    counted = usable(table)
    if counted.empty:
        raise results.ResultsError(f"{directory}: no whole round yet; resume the run first")
    of_run = planned(plan)
    seed, reference = of_run.seed, of_run.reference
    warm, cold = starts(table, "warm"), starts(table, "cold")
    a_a, cold_a_a = (pair(of(s, reference, rep=1), of(s, reference), seed) for s in (warm, cold))
    found = series_of(table)
    a_a = a_a or _a_a(found, reference, seed)
    run = Run(directory, rows[0]["run_id"], seed, reference, environment, found, damaged)
    marked = counted[counted.contaminated.astype(bool)]
    noise = floor(a_a) if a_a else None
    cold_noise = floor(cold_a_a) if cold_a_a else None
    return Analysis(
        run_id=run.run_id,
        seed=seed,
        reference=reference,
        rounds=int(table[table["round"] > 0]["round"].nunique()),
        planned=of_run.rounds,
        marked_rounds=sorted(int(number) for number in marked["round"].unique()),
        arms=arm_results(table, warm, reference, noise, seed),
        cold=arm_results(table, cold, reference, cold_noise, seed),
        measured=measured(found, run.references(), seed),
        footprints=capacity.footprints(found, counted, seed),
        curves=capacity.curves(found, counted, seed),
        facts=isolation.facts(table),
        skips=_skips(table),
        a_a=a_a,
        noise_floor=noise,
        waterfalls=waterfalls(table),
        budgets=start_budgets(warm, seed) + driver_budgets(found, seed),
        damaged=damaged,
        environment={**environment, "accelerators": sorted(set(table.accel) - {""})},
        plan=plan,
        hosts=int(counted.env_id.nunique()),
    )


def _a_a(found: dict[Key, Series], reference: str, seed: int) -> Ratio | None:
    """Of a run without starts: what the reference of its first benchmark says of itself."""
    twice = (one for one in found.values() if one.again and one.key.arm == reference)
    first = next(twice, None)
    return paired(first.again, first.values, seed) if first else None


def _skips(table: pd.DataFrame) -> list[Skipped]:
    """What has no value in a benchmark, each reason once."""
    skipped = table[table.status == "skip"]
    found = [
        Skipped(row.arm, row.bench, row.reason, row.params.get("fix", ""))
        for row in skipped.itertuples()
    ]
    measured = set(zip(*(usable(table)[name] for name in ("arm", "bench")), strict=True))
    for (arm, bench), rows in table[table.status == "error"].groupby(["arm", "bench"]):
        if (arm, bench) not in measured:
            last = rows.reason.iloc[-1]
            reason = f"all {len(rows)} shots after the warm-up failed, the last: {last}"
            found.append(Skipped(arm, bench, reason, "python -m benchmarks doctor"))
    return list(dict.fromkeys(found))
