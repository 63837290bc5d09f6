"""From rows to the numbers of the report. Nothing here is drawn or worded; everything here is
tested.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from benchmarks import results, tables
from benchmarks.budgets import ALLOWANCES
from benchmarks.statistics import Ratio, Summary, floor, ratio, summarize, verdict

FIRST, WHOLE = "start.first_instruction", "start.whole_process"
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
    errors: int
    params: dict[str, Any]
    channel: str
    channel_cost_us: float | None

    @property
    def emulated(self) -> bool:
        return self.accel == "tcg"


@dataclass(frozen=True)
class Skipped:
    """An arm without any value: it could not run here, or every shot of it failed."""

    arm: str
    reason: str
    fix: str


@dataclass(frozen=True)
class Bar:
    """A phase in the waterfall: median offset from t0 and median length over its shots, ms."""

    name: str
    offset: float
    length: float

    @property
    def after(self) -> bool:
        """Whether it lies behind the first instruction: every arm calls that part "end"."""
        return self.name == "end"


@dataclass(frozen=True)
class Waterfall:
    arm: str
    accel: str
    traced: bool
    n: int
    bars: list[Bar]

    @property
    def start(self) -> list[Bar]:
        return [bar for bar in self.bars if not bar.after]

    @property
    def first_ms(self) -> float:
        """The first instruction: where the last part before it ends."""
        return max((bar.offset + bar.length for bar in self.start), default=0.0)


@dataclass(frozen=True)
class Budget:
    arm: str
    limit: float
    against: str
    ratio: Ratio

    @property
    def verdict(self) -> str:
        """The whole interval decides, not the point in it."""
        if self.ratio.low is None or self.ratio.high is None:
            return "not resolved"
        if self.ratio.high <= self.limit:
            return "met"
        return "not met" if self.ratio.low > self.limit else "not resolved"


@dataclass(frozen=True)
class Analysis:
    run_id: str
    seed: int
    reference: str
    rounds: int
    planned: int
    marked_rounds: list[int]
    arms: list[ArmResult]
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

    def arm(self, name: str) -> ArmResult | None:
        return next((arm for arm in self.arms if arm.name == name), None)

    def of_kind(self, kind: str) -> list[ArmResult]:
        return [arm for arm in self.arms if arm.kind == kind]


def analyse(directory: str) -> Analysis:
    """Everything the report says about a run. Raises ResultsError when there is nothing to say."""
    rows, damaged = results.read_rows(directory)
    plan = results.read_json(directory, "plan.json")
    table = tables.frame(rows)
    shots = table[(table.bench == "start") & (table.status == "ok") & ~table.warmup.astype(bool)]
    if shots.empty:
        raise results.ResultsError(f"{directory}: no whole round yet; resume the run first")
    seed, reference = plan["plan"]["seed"], plan["plan"]["reference"]
    a_a = _a_a(shots, reference, seed)
    noise = floor(a_a) if a_a else None
    names = sorted(
        shots.arm.unique(),
        key=lambda name: (KINDS.index(_of(shots, name).kind.iloc[0]), _median(shots, name)),
    )
    return Analysis(
        run_id=str(shots.run_id.iloc[0]),
        seed=seed,
        reference=reference,
        rounds=int(shots["round"].nunique()),
        planned=int(plan["plan"]["rounds"]),
        marked_rounds=sorted(
            int(number) for number in shots[shots.contaminated.astype(bool)]["round"].unique()
        ),
        arms=[_arm(table, shots, name, reference, noise, seed) for name in names],
        skips=_skips(table, names),
        a_a=a_a,
        noise_floor=noise,
        waterfalls=_waterfalls(table),
        budgets=_budgets(shots, seed),
        damaged=damaged,
        environment=results.read_json(directory, "environment.json"),
        plan=plan,
        hosts=int(shots.env_id.nunique()),
    )


def _of(shots: pd.DataFrame, arm: str, metric: str = FIRST, rep: int = 0) -> pd.DataFrame:
    return shots[(shots.arm == arm) & (shots.metric == metric) & (shots.rep == rep)]


def _median(shots: pd.DataFrame, arm: str) -> float:
    return float(_of(shots, arm).value.median())


def _paired(arm: pd.DataFrame, reference: pd.DataFrame, seed: int) -> Ratio | None:
    """The ratio over the rounds that have both."""
    both = (
        arm.set_index("round")
        .value.to_frame("arm")
        .join(reference.set_index("round").value.rename("reference"), how="inner")
    )
    return ratio(both.arm, both.reference, seed) if len(both) else None


def _a_a(shots: pd.DataFrame, reference: str, seed: int) -> Ratio | None:
    return _paired(_of(shots, reference, rep=1), _of(shots, reference), seed)


def _arm(
    table: pd.DataFrame,
    shots: pd.DataFrame,
    name: str,
    reference: str,
    noise: float | None,
    seed: int,
) -> ArmResult:
    first, whole = _of(shots, name), _of(shots, name, WHOLE)
    clean = first[~first.contaminated.astype(bool)]
    against = None if name == reference else _paired(first, _of(shots, reference), seed)
    unpaired = "reference" if name == reference else "no round shared with the reference"
    row = first.iloc[0]
    cpu = first.cpu_ms.astype(float).median()
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
        errors=int(((table.arm == name) & (table.status == "error")).sum()),
        params=row.params,
        channel=row.params.get("channel", ""),
        channel_cost_us=None if pd.isna(row.channel_cost_us) else float(row.channel_cost_us),
    )


def _skips(table: pd.DataFrame, measured: list[str]) -> list[Skipped]:
    skipped = table[table.status == "skip"]
    found = [
        Skipped(row.arm, row.reason, row.params.get("fix", "")) for row in skipped.itertuples()
    ]
    failed = table[(table.status == "error") & ~table.arm.isin(measured)]
    for name, rows in failed.groupby("arm"):
        reason = f"all {len(rows)} shots after the warm-up failed, the last: {rows.reason.iloc[-1]}"
        found.append(Skipped(str(name), reason, "python -m benchmarks doctor"))
    return found


def _waterfalls(table: pd.DataFrame) -> dict[str, Waterfall]:
    """For each arm its phases; from the traced shots where it has them."""
    phases = table[(table.bench == "start.phases") & ~table.warmup.astype(bool)]
    found = {}
    for name, rows in phases.groupby("arm"):
        details = pd.DataFrame(list(rows.params), index=rows.index)
        rows = rows.assign(offset=details.offset_ms, traced=details.traced)
        traced = bool(rows.traced.any())
        rows = rows[rows.traced == traced]
        bars = [
            Bar(phase, float(part.offset.median()), float(part.value.median()))
            for phase, part in rows.groupby("phase", sort=False)
        ]
        bars.sort(key=lambda bar: (bar.offset, bar.length))
        shots = int(rows["round"].nunique())
        found[str(name)] = Waterfall(str(name), rows.accel.iloc[0], traced, shots, bars)
    return found


def _budgets(shots: pd.DataFrame, seed: int) -> list[Budget]:
    """Every allowance whose two arms were measured on the same tree, in the same rounds."""
    found = []
    trees = sorted({name.partition(":")[2] for name in shots.arm.unique()})
    for allowed in ALLOWANCES:
        for tree in trees:
            arm, against = f"{allowed.arm}:{tree}", f"{allowed.against}:{tree}"
            pair = _paired(_of(shots, arm, WHOLE), _of(shots, against, WHOLE), seed)
            if pair:
                found.append(Budget(arm, allowed.limit, against, pair))
    return found
