"""disk: direct reads and writes of one and the same file of the host, by its path for processes and
containers, as a virtio disk (raw, cache=none, io=native) for machines.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from xml.sax.saxutils import quoteattr

from benchmarks import roots
from benchmarks.arms.base import Arm, Skip
from benchmarks.arms.equipped import Equipped
from benchmarks.benches.base import Size
from benchmarks.benches.tools import Load, Tools
from benchmarks.rows import Row, RowMaker, Where

PLACE = "/load/disk"
SIZE_MIB = 256
FIO = (
    'fio --name=one --filename="$DISK" --direct=1 --ioengine=libaio --time_based --runtime=1 '
    "--randrepeat=1 --output-format=json"
)


def _fio(what: str, words: str, unit: str) -> Load:
    """1 MiB at a time, operations for each second are MiB/s, and not rounded."""
    side = "write" if "write" in words else "read"
    finds = rf'(?s)"{side}" : {{.*?"iops" : ([\d.]+)'
    return Load(f"fio.{what}", "fio", f"{FIO} {words}", finds, unit, "higher")


def _no_direct(path: str) -> Skip | None:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_DIRECT))
    except OSError as error:
        reason = f"{path}: its file system has no direct I/O ({error.strerror})"
        return Skip(reason, "set MINICONTAINER_CACHE to a directory on a disk")
    return None


class Disk(Tools):
    name = rows = "disk"
    title = "direct reads and writes of one file, by fio: 4k alone, 16 at once, 1M"
    metric = "disk.fio.read_4k_qd1"
    unit = "IOPS"
    direction = "higher"
    no_direct: Skip | None = None
    loads = (
        _fio("read_4k_qd1", "--rw=randread --bs=4k --iodepth=1", "IOPS"),
        _fio("write_4k_qd1", "--rw=randwrite --bs=4k --iodepth=1", "IOPS"),
        _fio("read_4k_qd16", "--rw=randread --bs=4k --iodepth=16", "IOPS"),
        _fio("write_4k_qd16", "--rw=randwrite --bs=4k --iodepth=16", "IOPS"),
        _fio("read_1m", "--rw=read --bs=1M --iodepth=1", "MiB/s"),
        _fio("write_1m", "--rw=write --bs=1M --iodepth=1", "MiB/s"),
    )

    def machines(self) -> list[Arm]:
        return [Equipped(tier, roots.TOOLS, self.device) for tier in ("micro", "direct")]

    def path(self) -> str:
        return roots.tree(roots.TOOLS) + PLACE

    def device(self) -> str:
        return (
            "<disk type='file' device='disk'>"
            "<driver name='qemu' type='raw' cache='none' io='native'/>"
            f"<source file={quoteattr(self.path())}/><target dev='vda' bus='virtio'/></disk>"
        )

    def prepare(self, size: Size) -> None:
        """The file, filled: what was never written is not read from the disk."""
        super().prepare(size)
        if not self.able or not os.path.isdir(roots.tree(roots.TOOLS)):
            return
        os.makedirs(os.path.dirname(self.path()), exist_ok=True)
        with open(self.path(), "wb") as file:
            for number in range(SIZE_MIB):
                file.write(random.Random(number).randbytes(1 << 20))
            os.fsync(file.fileno())
        self.no_direct = _no_direct(self.path())

    def unavailable(self, arm: Arm) -> Skip | None:
        return super().unavailable(arm) or self.no_direct

    def variables(self, arm: Arm) -> dict[str, str]:
        there = super().variables(arm)
        return {**there, "DISK": "/dev/vda" if arm.kind == "vm" else there["HERE"] + PLACE}

    def sample(self, arm: Arm, where: Where, make: RowMaker) -> Iterable[Row]:
        cache = "none, io=native" if arm.kind == "vm" else ""
        return [{**row, "disk_cache": cache} for row in super().sample(arm, where, make)]


BENCH = Disk()
