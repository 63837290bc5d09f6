"""What holds back a fork bomb in the workbench: a cgroup, or RLIMIT_NPROC where there is none."""

from __future__ import annotations

import os
import resource
import time

PROCESSES = 256
CGROUP_PREFIX = "minicontainer-workbench-"  # then the pid of the keeper


def make_cgroup() -> str:
    """A cgroup with a limit of processes, where this host lets us make one; else ""."""
    for parent in pids_cgroups():
        sweep(parent)
        path = f"{parent}/{CGROUP_PREFIX}{os.getpid()}"
        try:
            os.mkdir(path)
        except OSError:
            continue
        try:
            write(f"{path}/pids.max", str(PROCESSES))
            return path
        except OSError:  # the parent passes the pids controller on to nobody
            os.rmdir(path)
    return ""


def pids_cgroups() -> list[str]:
    """Our own directory in each hierarchy that can count processes (v1 pids, v2); cgroups(7)."""
    own = {}
    with open("/proc/self/cgroup") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            own[controllers] = path.rstrip("/")
    found = []
    with open("/proc/self/mountinfo") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            point, fstype, options = left.split()[4], right.split()[0], right.split()[-1]
            if fstype == "cgroup" and "pids" in options.split(","):
                found += [point + path for names, path in own.items() if "pids" in names.split(",")]
            elif fstype == "cgroup2" and "" in own:
                found.append(point + own[""])
    return found


def sweep(parent: str) -> None:
    """Remove the cgroups of keepers that were killed before they could."""
    for name in os.listdir(parent):
        pid = name.removeprefix(CGROUP_PREFIX)
        if pid != name and not os.path.exists(f"/proc/{pid}"):
            try:
                os.rmdir(f"{parent}/{name}")
            except OSError:
                pass  # still in use


def remove_cgroup(path: str) -> None:
    for _ in range(200):  # EBUSY until the kernel has buried the last process
        try:
            os.rmdir(path)
            return
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.01)


def limit_processes_of_user(rootless: bool) -> None:
    """RLIMIT_NPROC: what holds back a fork bomb where no cgroup can be made.

    It counts the tasks of a user; since Linux 5.14 those in this user namespace alone. Root is
    never held back by it (getrlimit(2)).
    """
    if rootless:
        limit = PROCESSES + tasks_of_user(os.geteuid())
        _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
        if hard == resource.RLIM_INFINITY or limit < hard:
            resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))


def tasks_of_user(uid: int) -> int:
    count = 0
    for name in os.listdir("/proc"):
        try:
            if name.isdecimal() and os.stat(f"/proc/{name}").st_uid == uid:
                count += len(os.listdir(f"/proc/{name}/task"))
        except OSError:
            pass  # it ended meanwhile
    return count


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
