"""ready: from the request to the first reply on an address of the instance's own."""

from __future__ import annotations

import os
from collections.abc import Iterable

from benchmarks import netns
from benchmarks.arms.base import Arm
from benchmarks.arms.networked import Networked, networked_arms
from benchmarks.benches.base import Bench, Size, Value
from benchmarks.rows import Where


class Ready(Bench):
    name = rows = "ready"
    title = "from the request to the first TCP reply on the instance's own address"
    metric = "start.ready_ip"

    def arms(self, quick: bool = False) -> list[Arm]:
        return networked_arms()

    def prepare(self, size: Size) -> None:
        super().prepare(size)
        if netns.why_not() is None:
            netns.make_bridge()

    def close(self) -> None:
        netns.remove_those_of(os.getpid())

    def values(self, arm: Arm, where: Where) -> Iterable[Value]:
        assert isinstance(arm, Networked)
        asked, replied = arm.ready()
        return [Value("start.ready_ip", (replied - asked) / 1e6)]


BENCH = Ready()
