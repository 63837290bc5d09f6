"""stop: from the request to end a running instance until nothing of it is left."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.arms.base import Arm
from benchmarks.arms.staying import staying_arms
from benchmarks.benches.base import Bench, Value
from benchmarks.held import held
from benchmarks.rows import Where


class Stop(Bench):
    name = rows = "stop"
    title = "from the request to stop until nothing is left"
    metric = "stop.teardown"

    def arms(self, quick: bool = False) -> list[Arm]:
        return staying_arms(quick)

    def values(self, arm: Arm, where: Where) -> Iterable[Value]:
        with held(arm) as hold:
            one = hold()
            asked, gone = one.stop()
        return [Value("stop.teardown", (gone - asked) / 1e6, params={"stop": one.words["stop"]})]


BENCH = Stop()
