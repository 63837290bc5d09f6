"""A group in the one hierarchy of cgroup v2 (Documentation/admin-guide/cgroup-v2.rst)."""

from __future__ import annotations

import errno
import os

from . import files
from .directory import Directory
from .files import CgroupError

_INTERNAL = (
    "move them into a group below, or start with systemd-run --user --scope --property=Delegate=yes"
)


class V2Directory(Directory):
    """The directory of a group, for all controllers that were enabled on the way to it."""

    version = 2
    counters = (
        ("memory", "memory", "current", "memory.current", "", 1),
        ("memory", "memory", "peak", "memory.peak", "", 1),  # Linux 5.19
        ("memory", "memory", "limit", "memory.max", "", 1),
        ("memory", "memory", "oom_kills", "memory.events", "oom_kill", 1),
        ("cpu", "cpu", "usage_us", "cpu.stat", "usage_usec", 1),
        ("cpu", "cpu", "periods", "cpu.stat", "nr_periods", 1),
        ("cpu", "cpu", "throttled", "cpu.stat", "nr_throttled", 1),
        ("cpu", "cpu", "throttled_us", "cpu.stat", "throttled_usec", 1),
        ("pids", "pids", "current", "pids.current", "", 1),
        ("pids", "pids", "limit", "pids.max", "", 1),
    )

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self._refusal: CgroupError | None = None  # the first controller that could not be enabled

    def make(self) -> None:
        super().make()
        self._enable()

    def enabled(self) -> list[str]:
        """The controllers that this group has."""
        return " ".join(files.lines(f"{self.path}/cgroup.controllers")).split()

    def _enable(self) -> None:
        """Have each group on the way hand its controllers to the next ("Enabling and Disabling").

        What cannot be enabled is remembered: it only matters when a limit needs it.
        """
        if set(self.enabled()) >= set(self.controllers):
            return
        above, names = self.mount_point, self.path[len(self.mount_point) + 1 :].split("/")
        for name in names:
            there = " ".join(files.lines(f"{above}/cgroup.subtree_control")).split()
            lacking = [controller for controller in self.controllers if controller not in there]
            # Such a group may enable some, but becomes "threaded" by it, and those below unusable
            # (cgroup-v2.rst, "Threads"). Only the root of all, which has no type, may have both.
            inner = lacking and os.path.exists(f"{above}/cgroup.type")
            if inner and files.lines(f"{above}/cgroup.procs"):
                text = f"{above} has processes of its own: no internal processes, cgroups(7)"
                self._refusal = CgroupError(errno.EBUSY, text, _INTERNAL)
                return
            for controller in lacking:
                try:  # one at a time: a write of several is refused as a whole
                    files.write(f"{above}/cgroup.subtree_control", f"+{controller}")
                except CgroupError as error:
                    self._refusal = self._refusal or error
            above = f"{above}/{name}"

    def write(self, write) -> None:
        controller = write.file.partition(".")[0]
        # Each v2 group has the files of the core, and takes a device filter.
        if controller not in ("cgroup", "devices") and controller not in self.enabled():
            refusal, text = self._refusal, f"{self.path} has no {controller} controller"
            if refusal:
                raise CgroupError(refusal.errno or 0, f"{text}: {refusal.strerror}", refusal.hint)
            raise CgroupError(errno.EOPNOTSUPP, text, files.DELEGATION)
        super().write(write)

    def freeze(self, frozen: bool) -> None:
        files.write(f"{self.path}/cgroup.freeze", str(int(frozen)))

    def frozen(self) -> bool:
        return files.keyed(f"{self.path}/cgroup.events").get("frozen") == 1

    def kill(self, done: set[int]) -> set[int]:
        """All at once, and what they fork meanwhile, by cgroup.kill (Linux 5.14)."""
        if not os.path.exists(f"{self.path}/cgroup.kill"):
            return super().kill(done)
        pids = {*self.processes()}
        files.write(f"{self.path}/cgroup.kill", "1")
        return pids | done
