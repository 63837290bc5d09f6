"""What the cells of lesson 06 share: a process in a group, and looks at it while it runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from ..kernel import cgroups

MEGABYTE = 1 << 20


def where(controller: str) -> str:
    """The topmost group that has this controller; in v2 all have the same."""
    for hierarchy in cgroups.detect.detect().hierarchies:
        if controller in hierarchy.controllers:
            return hierarchy.mount_point
    raise FileNotFoundError(f"no hierarchy has {controller}")


def inside(group: cgroups.Group, work: Callable[[], object]) -> int:
    """Fork a child that enters the group and works there; returns its number when it is in."""
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        group.enter()
        os.close(tell)
        work()
        os._exit(0)
    os.close(tell)
    os.read(ready, 1)  # end of file
    os.close(ready)
    return pid


def end_of(pid: int) -> int:
    """How a child ended: its exit status, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def doze() -> None:
    """Sleep for ever, in naps: Python calls handlers of signals between two of them."""
    while True:
        time.sleep(0.05)


def spin() -> None:
    """Keep a processor busy, for ever."""
    while True:
        pass


def take_memory() -> None:
    """Take one MiB after the other and write to it, without end."""
    taken = []
    while True:
        taken.append(b"x" * MEGABYTE)
        time.sleep(0.02)


def watch_memory(group: cgroups.Group, pid: int) -> None:
    """Print points, time and MiB that the group has, until the child has ended."""
    while not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        used = group.stats()["memory"]["current"] or 0
        print(f"{time.monotonic():.2f} {used / MEGABYTE:.1f}")
        time.sleep(0.02)


def watch_cpu(group: cgroups.Group, seconds: float) -> None:
    """Print points, time and the share of one processor that the group had since the last."""
    then, before = time.monotonic(), group.stats()["cpu"]["usage_us"] or 0
    end = then + seconds
    while then < end:
        time.sleep(0.1)
        now, used = time.monotonic(), group.stats()["cpu"]["usage_us"] or 0
        print(f"{now:.2f} {(used - before) / (now - then) / 10_000:.0f}")
        then, before = now, used
