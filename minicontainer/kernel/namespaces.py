"""The eight namespaces of Linux: what each one isolates, and how to ask which one a process is in.

A namespace wraps one global resource so that the processes inside have their own instance of it
(namespaces(7)). The 2018 lecture counted seven; time, the eighth, came with Linux 5.6 in 2020.
"""

from __future__ import annotations

import os

from . import syscalls
from .syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
)

TYPE_CHECKING = False  # as in typing, whose import would cost a start 3 ms
if TYPE_CHECKING:
    from collections.abc import Iterable

# The OCI runtime spec's name -> (file below /proc/PID/ns, flag of unshare(2), what it isolates).
# https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config-linux.md#namespaces
NAMESPACES = {
    "user": ("user", CLONE_NEWUSER, "user and group ids, capabilities"),
    "pid": ("pid", CLONE_NEWPID, "process ids"),
    "time": ("time", CLONE_NEWTIME, "boot and monotonic clocks"),
    "mount": ("mnt", CLONE_NEWNS, "mount points"),
    "network": ("net", CLONE_NEWNET, "network devices, addresses, ports"),
    "uts": ("uts", CLONE_NEWUTS, "host name and domain name"),
    "ipc": ("ipc", CLONE_NEWIPC, "System V IPC, POSIX message queues"),
    "cgroup": ("cgroup", CLONE_NEWCGROUP, "the root of the cgroup tree"),
}


_available: list[str] = []  # looked up once: a kernel does not change


def available() -> list[str]:
    """The namespaces that this kernel has, in the order of `NAMESPACES`."""
    if not _available:
        files = [(kind, f"/proc/self/ns/{file}") for kind, (file, _, _) in NAMESPACES.items()]
        _available[:] = [kind for kind, path in files if os.path.exists(path)]
    return [*_available]


def flags(kinds: Iterable[str]) -> int:
    """The flags of unshare(2) for an iterable of namespace names."""
    bits = 0
    for kind in kinds:
        bits |= NAMESPACES[kind][1]
    return bits


def unshare(kinds: Iterable[str]) -> None:
    """Leave the parent's namespaces of these kinds for new ones (unshare(2)).

    Raises OSError: EPERM without CAP_SYS_ADMIN (only "user" needs none), ENOSPC at a limit of
    /proc/sys/user/max_*_namespaces, EINVAL for "user" in a process with threads.
    """
    syscalls.unshare(flags(kinds))


def inodes(pid: int | str = "self") -> dict[str, int]:
    """Namespace name -> inode number; processes share a namespace whose numbers are equal."""
    return {kind: os.stat(f"/proc/{pid}/ns/{NAMESPACES[kind][0]}").st_ino for kind in available()}
