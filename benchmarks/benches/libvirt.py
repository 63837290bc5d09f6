"""libvirt: what it costs by itself. One machine, made by the driver, by a plain createXML, and by
QEMU's own command line.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from benchmarks.arms.base import Arm
from benchmarks.arms.creation import Creation, creation_arms
from benchmarks.benches.base import Bench, Size, Value
from benchmarks.plan import Plan
from benchmarks.rows import Where

# The call varies by a tenth, and what is asked is a twentieth: 30 rounds leave that open.
ROUNDS = 150


class Libvirt(Bench):
    name = rows = "libvirt"
    title = "libvirt's own cost: one machine by the driver, by createXML, by QEMU alone"
    metric = "libvirt.create"
    reference = "create-by-QEMU"

    def arms(self, quick: bool = False) -> list[Arm]:
        return list(creation_arms())

    def plan(self, seconds: dict[str, float], seed: int, size: Size, traced: list[str]) -> Plan:
        if size.rounds is None and size.budget_s is None:
            size = replace(size, rounds=ROUNDS)
        return super().plan(seconds, seed, size, traced)

    def values(self, arm: Arm, where: Where) -> Iterable[Value]:
        assert isinstance(arm, Creation)
        return [Value(self.metric, arm.create())]


BENCH = Libvirt()
