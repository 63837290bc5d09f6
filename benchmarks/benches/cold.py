"""cold: the same starts, the host's page cache dropped before every single one.

What is mapped by a process that runs stays in memory: this harness, and the engines' daemons.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from benchmarks.arms.base import Arm, Skip
from benchmarks.benches.start import Start
from benchmarks.rows import Row, RowMaker, Where

DROP = "/proc/sys/vm/drop_caches"
PAGES_AND_NAMES = b"3"  # https://docs.kernel.org/admin-guide/sysctl/vm.html#drop-caches


class Cold(Start):
    name = "cold"
    title = "the same with an empty page cache before every start"
    cache_state = "cold"
    weight = 2
    traced = False

    def unavailable(self, arm: Arm) -> Skip | None:
        if not os.access(DROP, os.W_OK):
            return Skip("only root may drop the page cache", "use sudo")
        return super().unavailable(arm)

    def sample(self, arm: Arm, where: Where, make: RowMaker) -> Iterable[Row]:
        drop_caches()
        return super().sample(arm, where, make)


def drop_caches() -> None:
    """What was written goes to the disk first: dirty pages are not dropped."""
    os.sync()
    fd = os.open(DROP, os.O_WRONLY)
    try:
        os.write(fd, PAGES_AND_NAMES)
    finally:
        os.close(fd)


BENCH = Cold()
