"""One tidy row per observation: the fields of the design's schema, made from a shot, a skip or a
failure.

`schema.json` beside this file is the published form; a test validates rows against it.
"""

from __future__ import annotations

import datetime
import functools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from benchmarks.arms.base import Arm, Shot, Skip
from benchmarks.version import sha256

if TYPE_CHECKING:
    from benchmarks.benches.base import Bench, Value

SCHEMA = 1
UNITS = {"runnable": "threads", "suspended": "s"}  # of the guard's readings that are no share
SCHEMA_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "schema.json")
Row = dict[str, Any]


@functools.cache
def fields() -> tuple[str, ...]:
    """The fields that every row has."""
    with open(SCHEMA_FILE, encoding="utf-8") as file:
        return tuple(json.load(file)["required"])


@dataclass(frozen=True)
class Where:
    """The place of one shot in the run."""

    round: int
    order: int  # position in the round
    rep: int  # 0, or 1 for the reference's second shot (A/A)
    warmup: bool = False
    traced: bool = False


@dataclass
class RowMaker:
    """What all rows of a run share."""

    run_id: str
    env_id: str
    channel_costs: dict[str, float] = field(default_factory=dict)
    bench: str = "start"
    metric: str = "start.first_instruction"  # of rows without a value
    unit: str = "ms"
    direction: str = "lower"
    cache_state: str = "warm"

    def of(self, bench: Bench) -> RowMaker:
        """The same for the rows of this benchmark."""
        return replace(
            self, bench=bench.rows, metric=bench.metric, unit=bench.unit,
            direction=bench.direction, cache_state=bench.cache_state,
        )  # fmt: skip

    def shot(self, arm: Arm, where: Where, shot: Shot) -> Iterator[Row]:
        """The headline, the whole process, and each phase. A traced shot gives only its phases."""
        if not where.traced:
            yield self._ms(arm, where, shot, "start.first_instruction", shot.t0, shot.t6)
            if shot.t_end is not None:
                yield self._ms(arm, where, shot, "start.whole_process", shot.t0, shot.t_end)
        for phase in shot.phases:
            row = self._ms(
                arm, where, shot, f"start.phase.{phase.name}", phase.start_ns, phase.end_ns
            )
            row.update(bench="start.phases", phase=phase.name, cpu_ms=None)
            row["params"] = {
                "root": arm.root,
                "offset_ms": _ms(phase.start_ns - shot.t0),
                "traced": where.traced,
            }
            yield row

    def _ms(self, arm: Arm, where: Where, shot: Shot, metric: str, start: int, end: int) -> Row:
        row = self._row(arm, where)
        row.update(metric=metric, value=_ms(end - start), cpu_ms=shot.cpu_ms)
        row["params"] |= shot.extra
        return row

    def value(self, arm: Arm, where: Where, value: Value) -> Row:
        row = self._row(arm, where)
        row.update(
            metric=value.metric, value=round(value.value, 6), unit=value.unit,
            direction=value.direction, n_concurrent=value.n,
        )  # fmt: skip
        row["params"] |= value.params
        return row

    def skip(self, arm: Arm, skip: Skip, metric: str = "") -> Row:
        """Why there is no value of this arm, or of one metric of it."""
        row = self._row(arm, Where(0, 0, 0))
        row["metric"] = metric or self.metric
        row.update(status="skip", reason=skip.reason)
        row["params"] = {"root": arm.root, "fix": skip.fix}
        return row

    def error(self, arm: Arm, where: Where, reason: str) -> Row:
        row = self._row(arm, where)
        row.update(status="error", reason=reason)
        return row

    def guard(self, number: int, warmup: bool, reading: dict[str, float | None]) -> Iterator[Row]:
        """What the contamination guard read in a round: raw data like everything else."""
        for name, value in reading.items():
            if value is not None:
                row = self._row(Arm(), Where(number, -1, 0, warmup))
                row.update(bench="guard", metric=f"guard.{name}", value=value)
                row.update(unit=UNITS.get(name, "share"), direction="lower")
                row["params"] = {}
                yield row

    def _row(self, arm: Arm, where: Where) -> Row:
        return {
            "schema": SCHEMA,
            "run_id": self.run_id,
            "ts_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            "bench": self.bench,
            "metric": self.metric,
            "unit": self.unit,
            "direction": self.direction,
            "arm": arm.name,
            "kind": arm.kind,
            "runtime": arm.runtime,
            "runtime_version": arm.runtime_version,
            "tier": arm.tier,
            "accel": arm.accel,
            "phase": "",
            "cache_state": self.cache_state,
            "net_mode": arm.net_mode,
            "disk_cache": "",
            "n_concurrent": 1,
            "round": where.round,
            "order": where.order,
            "rep": where.rep,
            "warmup": where.warmup,
            "value": None,
            "cpu_ms": None,
            "status": "ok",
            "reason": "",
            "contaminated": False,
            "channel_cost_us": self.channel_costs.get(arm.channel),
            "tool": arm.tool,
            "tool_sha256": sha256(arm.tool),
            "params": {**arm.params, "root": arm.root, "channel": arm.channel},
            "env_id": self.env_id,
        }


def _ms(ns: int) -> float:
    return round(ns / 1e6, 6)
