"""start: from the request to the payload's first instruction, and the phases on the way there."""

from __future__ import annotations

import gc
from collections.abc import Iterable

from benchmarks.arms import all_arms
from benchmarks.arms.base import Arm, ArmFailed, Shot
from benchmarks.benches.base import Bench
from benchmarks.rows import Row, RowMaker, Where


def shoot(arm: Arm, traced: bool = False) -> Shot:
    """One shot with the garbage collector held back until it is over."""
    gc.disable()
    try:
        shot = arm.shoot_traced() if traced else arm.shoot()
    finally:
        gc.enable()
    if shot is None:
        raise ArmFailed("asked for a traced shot, and has none")
    return shot


class Start(Bench):
    name = rows = "start"
    title = "containers and machines, from the request to their first instruction"
    metric = "start.first_instruction"
    weight = 4
    traced = True

    def arms(self, quick: bool = False) -> list[Arm]:
        return [
            arm for arm in all_arms() if not quick or arm.root != "debian" or arm.tier == "full"
        ]

    def sample(self, arm: Arm, where: Where, make: RowMaker) -> Iterable[Row]:
        return make.shot(arm, where, shoot(arm, where.traced))


BENCH = Start()
