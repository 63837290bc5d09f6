"""density: one instance after the other, all of them staying, until there are enough, or the
machine's memory or the time for it comes to its end.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterable, Iterator

from benchmarks.arms.base import Arm, ArmFailed
from benchmarks.arms.staying import staying_arms
from benchmarks.benches.base import Bench, Size, Value
from benchmarks.footprint import available_mib
from benchmarks.held import held
from benchmarks.plan import Plan, one_after_the_other
from benchmarks.rows import Where

ENOUGH, ENOUGH_QUICK = 1000, 40
FULL_S = 240.0  # for each arm, where no budget says less
LEAST_FREE, LEAST_FREE_MIB = 0.2, 2048.0  # of the host's memory: what must be left for others
LOOKS = 20  # at the memory, after each of the first starts and then as often again


class Density(Bench):
    name = rows = "density"
    title = "as many instances as time and memory allow: start time and memory against their number"
    metric = "density.start"
    weight = 2

    def __init__(self) -> None:
        self.seconds = FULL_S
        self.files = (0, 0)

    def arms(self, quick: bool = False) -> list[Arm]:
        # The command's foreground process is there for its user's terminal; nobody has a thousand.
        return [arm for arm in staying_arms(quick) if arm.runtime != "minicontainer-cli"]

    def prepare(self, size: Size) -> None:
        super().prepare(size)
        self.files = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.files[1], self.files[1]))

    def close(self) -> None:
        if self.files != (0, 0):
            resource.setrlimit(resource.RLIMIT_NOFILE, self.files)
            self.files = (0, 0)

    def plan(self, seconds: dict[str, float], seed: int, size: Size, traced: list[str]) -> Plan:
        self.seconds = min(FULL_S, (size.budget_s or FULL_S * len(seconds)) / len(seconds))
        # As long as it would take without getting slower, and again for the end of all.
        cost = {arm: min(self.seconds, s * self.enough()) for arm, s in seconds.items()}
        return one_after_the_other(cost, seed)

    def enough(self) -> int:
        return ENOUGH_QUICK if self.size.quick else ENOUGH

    def values(self, arm: Arm, where: Where) -> Iterable[Value]:
        enough = 1 if where.warmup else self.enough()
        with held(arm) as hold:
            return list(_curve(hold, enough, self.seconds))


def _curve(hold, enough: int, seconds: float) -> Iterator[Value]:
    """A start for each instance; the memory that is left at some of them, and at the last."""
    began = time.monotonic()
    least = max(LEAST_FREE_MIB, LEAST_FREE * _total_mib())
    stopped = f"there were {enough}"
    left = available_mib()
    count = 0
    while count < enough:
        if left < least:
            stopped = f"less than {least:.0f} MiB of the host's memory were left"
            break
        if time.monotonic() - began > seconds:
            stopped = f"{seconds:.0f} s were over"
            break
        try:
            one = hold()
        except ArmFailed as failure:
            if not count:
                raise
            stopped = f"the next one failed: {failure}"
            break
        count += 1
        yield Value("density.start", (one.t6 - one.t0) / 1e6, n=count - 1)
        left = available_mib()
        if count <= LOOKS or count % (enough // LOOKS) == 0:
            yield Value("density.available", left, "MiB", "higher", count)
    yield Value("density.available", left, "MiB", "higher", count, {"stopped": stopped})


def _total_mib() -> float:
    with open("/proc/meminfo", encoding="ascii") as file:
        return int(file.readline().split()[1]) / 1024


BENCH = Density()
