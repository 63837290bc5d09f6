"""A group in a hierarchy of cgroup v1 (Documentation/admin-guide/cgroup-v1/)."""

from __future__ import annotations

from . import files
from .directory import Directory


class V1Directory(Directory):
    """One directory of a group, for one controller or for several that are mounted together."""

    version = 1
    # A thread that moves itself alone needs no lock on all forks and exits of the host, for which
    # the kernel waits some 10 ms (kernel/cgroup/cgroup.c, cgroup_procs_write_start; Linux 5.19).
    enter_file = "tasks"
    counters = (
        ("memory", "memory", "current", "memory.usage_in_bytes", "", 1),
        ("memory", "memory", "peak", "memory.max_usage_in_bytes", "", 1),
        ("memory", "memory", "limit", "memory.limit_in_bytes", "", 1),
        ("memory", "memory", "oom_kills", "memory.oom_control", "oom_kill", 1),
        ("cpuacct", "cpu", "usage_us", "cpuacct.usage", "", 1000),
        ("cpu", "cpu", "periods", "cpu.stat", "nr_periods", 1),
        ("cpu", "cpu", "throttled", "cpu.stat", "nr_throttled", 1),
        ("cpu", "cpu", "throttled_us", "cpu.stat", "throttled_time", 1000),
        ("pids", "pids", "current", "pids.current", "", 1),
        ("pids", "pids", "limit", "pids.max", "", 1),
    )

    def make(self) -> None:
        super().make()
        if "cpuset" in self.controllers:
            self._fill_cpuset(self.path)

    def _fill_cpuset(self, directory: str) -> None:
        """A new v1 cpuset is empty, and takes no process until it has CPUs and memory (cpuset(7)).

        Those above may be just as empty, if somebody made them and did not care.
        """
        above = directory.rpartition("/")[0]
        for name in ("cpuset.cpus", "cpuset.mems"):
            if files.read(f"{directory}/{name}").strip() or directory == self.mount_point:
                continue
            value = files.read(f"{above}/{name}").strip()
            if not value:
                self._fill_cpuset(above)
                value = files.read(f"{above}/{name}").strip()
            files.write(f"{directory}/{name}", value)

    def freeze(self, frozen: bool) -> None:
        """freezer-subsystem.rst"""
        files.write(f"{self.path}/freezer.state", "FROZEN" if frozen else "THAWED")

    def frozen(self) -> bool:
        state = files.read(f"{self.path}/freezer.state").strip()
        if state == "FREEZING":
            # It stays so when a task forked or was traced meanwhile; asking again helps (runc does)
            self.freeze(True)
            state = files.read(f"{self.path}/freezer.state").strip()
        return state == "FROZEN"
