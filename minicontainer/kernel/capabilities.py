"""Capabilities: root's power in pieces (capabilities(7)); a container keeps few of them."""

from __future__ import annotations

import errno

from . import syscalls

TYPE_CHECKING = False  # as in typing, whose import would cost a start 3 ms
if TYPE_CHECKING:
    from collections.abc import Iterable

# In the kernel's order: the index is the number (include/uapi/linux/capability.h).
NAMES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
    "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
    "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip

# What docker leaves to root in a container (moby, oci/caps/defaults.go).
DOCKER_DEFAULT = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW",
    "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
)  # fmt: skip


def mask(names: Iterable[str]) -> int:
    """The bit mask of an iterable of capability names. Raises ValueError for an unknown name."""
    bits = 0
    for name in names:
        bits |= 1 << NAMES.index(name)
    return bits


def current(pid: int | str = "self") -> dict[str, int]:
    """The five sets of a process, as bit masks, from /proc/PID/status (proc_pid_status(5))."""
    sets = {}
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith("Cap"):
                name, value = line.split(":")
                sets[name] = int(value, 16)
    return sets


def drop_bounding(keep: int) -> None:
    """Take everything but `keep` (a mask) out of the bounding set: no exec can ever give it back.

    Raises OSError, EPERM without CAP_SETPCAP.
    """
    for number in range(64):
        if not keep >> number & 1:
            try:
                syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
            except OSError as error:
                if error.errno == errno.EINVAL:
                    return  # beyond the last capability of this kernel
                raise


def set_all(effective: int, permitted: int, inheritable: int) -> None:
    """Set the thread's three classic sets (capset(2)) and empty its ambient set.

    What the caller does not hold itself cannot be kept and is left out, as the OCI spec asks.
    """
    held = syscalls.capget()
    syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
    syscalls.capset(effective & held, permitted & held, inheritable)
