"""What running instances take of the host's memory, by the kernel's own accounts (proc(5)).

mapped     address space (VmSize): what was asked for, used or not
rss        pages in memory; those that several processes share count in each
pss        the same, shared pages divided by their number of users: the sum is what there is
cgroup     what the instance's own memory cgroup is charged: page cache and kernel memory, too.
           Charged in batches: v1's figure is a little high
available  what the host could still give to somebody without swapping (MemAvailable)
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.held import Held

MIB = 1 << 20


@dataclass(frozen=True)
class Footprint:
    """All of it together, MiB. cgroup: None where not every instance has one of its own."""

    mapped: float
    rss: float
    pss: float
    cgroup: float | None
    processes: int


def footprint(instances: Iterable[Held]) -> Footprint:
    """The sums over all processes that are there because of these instances."""
    instances = list(instances)
    families = processes(instances)
    pids = {pid for family in families.values() for pid in family}
    sizes = [_sizes(pid) for pid in pids]
    groups = [_group(one.payload() or min(families[one], default=0)) for one in instances]
    mapped, rss, pss = (sum(size[column] for size in sizes) / MIB for column in range(3))
    return Footprint(
        mapped,
        rss,
        pss,
        cgroup=None if None in groups else sum(map(_charged, filter(None, groups))) / MIB,
        processes=len(pids),
    )


def processes(instances: list[Held]) -> dict[Held, set[int]]:
    """Of each instance, the processes that would not be there without it: found by its mark, or as
    one family. A daemon that serves all instances belongs to none.
    """
    found = {one: set(one.family()) for one in instances}
    marked = {one.mark.encode(): one for one in instances if one.mark}
    if marked:
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            words = _read(f"/proc/{pid}/cmdline") + b"\0" + _read(f"/proc/{pid}/cgroup")
            for mark, one in marked.items():
                if mark in words and int(pid) != os.getpid():
                    found[one].add(int(pid))
    return found


def available_mib() -> float:
    """MemAvailable of the host."""
    with open("/proc/meminfo", encoding="ascii") as file:
        line = next(line for line in file if line.startswith("MemAvailable:"))
    return int(line.split()[1]) / 1024


def _sizes(pid: int) -> tuple[int, int, int]:
    """(mapped, rss, pss) in bytes; nothing for a process that has ended."""
    status = _read(f"/proc/{pid}/status")
    rollup = _read(f"/proc/{pid}/smaps_rollup")
    return _kib(status, b"VmSize:"), _kib(rollup, b"Rss:"), _kib(rollup, b"Pss:")


def _kib(text: bytes, name: bytes) -> int:
    line = next((line for line in text.splitlines() if line.startswith(name)), b": 0")
    return int(line.split()[1]) * 1024


def _group(pid: int) -> str | None:
    """The directory of a process's memory cgroup; None for that of this harness."""
    theirs = _memory_line(_read(f"/proc/{pid}/cgroup"))
    return None if theirs == _memory_line(_read("/proc/self/cgroup")) else theirs


def _memory_line(text: bytes) -> str | None:
    """cgroups(7): a line for each hierarchy, ID:CONTROLLERS:PATH; v2 names no controllers."""
    found = None
    for line in text.decode(errors="replace").splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return f"/sys/fs/cgroup/memory{path}"
        if not controllers and os.path.exists(f"/sys/fs/cgroup{path}/memory.current"):
            found = f"/sys/fs/cgroup{path}"
    return found


def _charged(group: str) -> int:
    for name in ("memory.usage_in_bytes", "memory.current"):
        text = _read(f"{group}/{name}")
        if text:
            return int(text)
    return 0


def _read(path: str) -> bytes:
    """Empty for what is gone, or not ours to read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
