"""memory: what an instance takes while its payload sleeps, by five definitions, and how that grows
with the number of instances.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

from benchmarks.arms.base import Arm, Skip
from benchmarks.arms.staying import staying_arms
from benchmarks.benches.base import Bench, Size, Value
from benchmarks.footprint import available_mib, footprint
from benchmarks.held import Held, held
from benchmarks.plan import Plan
from benchmarks.rows import Row, RowMaker, Where

STEPS = {"": (1, 8, 32), "vm": (1, 2, 4)}  # instances at the same time, by kind of arm
QUICK = {"": (1, 8), "vm": (1, 2)}
SETTLE_S = 0.3  # the kernel frees and accounts a moment later
NO_GROUP = Skip(
    "it has no memory cgroup of its own", "read rss and pss; or limit its memory, which makes one"
)


class Memory(Bench):
    name = rows = "memory"
    title = "memory of an instance: mapped, RSS, PSS, cgroup, and what is left of the host's"
    metric = "memory.pss"
    unit = "MiB"

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}

    def arms(self, quick: bool = False) -> list[Arm]:
        return staying_arms(quick)

    def steps(self, kind: str) -> tuple[int, ...]:
        steps = QUICK if self.size.quick else STEPS
        return steps.get(kind, steps[""])

    def sample(self, arm: Arm, where: Where, make: RowMaker) -> Iterable[Row]:
        self.kinds[arm.name] = arm.kind
        rows = list(super().sample(arm, where, make))
        if where.warmup and not any(row["metric"] == "memory.cgroup" for row in rows):
            rows.append(make.skip(arm, NO_GROUP, "memory.cgroup"))
        return rows

    def values(self, arm: Arm, where: Where) -> Iterable[Value]:
        steps = (1,) if where.warmup else self.steps(arm.kind)
        before = available_mib()
        found: list[Value] = []
        with held(arm) as hold:
            instances: list[Held] = []
            for count in steps:
                instances += [hold() for _ in range(count - len(instances))]
                time.sleep(SETTLE_S)
                found += _read(instances, before)
        return found

    def plan(self, seconds: dict[str, float], seed: int, size: Size, traced: list[str]) -> Plan:
        # Round 0 held one instance.
        steps = {arm: self.steps(self.kinds[arm]) for arm in seconds}
        whole = {
            arm: SETTLE_S * len(steps[arm]) + max(0.0, one - SETTLE_S) * steps[arm][-1]
            for arm, one in seconds.items()
        }
        if size.quick and size.rounds is None:
            size = replace(size, rounds=1)  # what the kernel accounts hardly varies
        return super().plan(whole, seed, size, traced)


def _read(instances: list[Held], before: float) -> Iterator[Value]:
    count = len(instances)
    left = available_mib()
    all_of_them = footprint(instances)
    params = {"processes": all_of_them.processes / count, "available_before": before}
    for name in ("mapped", "rss", "pss", "cgroup"):
        total = getattr(all_of_them, name)
        if total is not None:
            yield Value(f"memory.{name}", total / count, "MiB", "lower", count, params)
    yield Value("memory.available", left, "MiB", "higher", count, params)


BENCH = Memory()
