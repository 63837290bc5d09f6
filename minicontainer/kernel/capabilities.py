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

# The OCI spec's names, in the order in which a start deals with them.
SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")

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


def parse(sets: dict, strict: bool = True) -> tuple[dict[str, int], list[str]]:
    """An OCI `process.capabilities` object -> (set's name -> mask, warnings).

    A name that capabilities(7) does not have is a ValueError that names the field. The OCI spec
    wants a warning instead, since a configuration may be younger than its runtime: not `strict`.
    """
    masks, warnings = {}, []
    for kind in SETS:
        masks[kind] = 0
        for n, name in enumerate(sets.get(kind) or ()):
            if name in NAMES:
                masks[kind] |= 1 << NAMES.index(name)
                continue
            problem = f"process.capabilities.{kind}[{n}]: unknown capability {name!r}"
            if strict:
                raise ValueError(f"{problem}; names are like CAP_NET_ADMIN, capabilities(7)")
            warnings.append(problem)
    return masks, warnings


def last() -> int:
    """The number of this kernel's last capability; a newer one's names are known here, too."""
    with open("/proc/sys/kernel/cap_last_cap") as file:
        return int(file.read())


def bounding() -> int:
    """The thread's bounding set; asked of the kernel, not of a /proc that a container chose."""
    bits = 0
    for number in range(len(NAMES)):
        try:
            bits |= syscalls.prctl(syscalls.PR_CAPBSET_READ, number) << number
        except OSError:
            break  # EINVAL: beyond the last capability of this kernel
    return bits


def drop_bounding(keep: int) -> list[str]:
    """Take everything but `keep` (a mask) out of the bounding set: no exec can ever give it back.

    Returns a warning for what is to be kept but is not there. Raises OSError, EPERM without
    CAP_SETPCAP.
    """
    there = 0
    for number in range(64):
        wanted = keep >> number & 1
        option = syscalls.PR_CAPBSET_READ if wanted else syscalls.PR_CAPBSET_DROP
        try:
            there |= (syscalls.prctl(option, number) & wanted) << number
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            break  # beyond the last capability of this kernel
    return _warn("bounding", keep & ~there)


def keep_through_setuid(keep: bool) -> None:
    """Whether becoming an ordinary user leaves the permitted set (PR_SET_KEEPCAPS(2const)).

    Set it before setresuid(2) when that user shall have capabilities, and unset it after.
    """
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, int(keep))


def set_all(effective: int, permitted: int, inheritable: int, ambient: int = 0) -> list[str]:
    """Set the thread's three classic sets (capset(2)) and its ambient set, which survives an exec.

    What cannot be granted is left out and returned as warnings, as the OCI spec asks: nobody gets
    more than is permitted now, effective is part of permitted, and ambient part of both permitted
    and inheritable.
    """
    _, held, inherited = syscalls.capget()
    able = {"permitted": permitted & held}
    able["effective"] = effective & able["permitted"]
    # CAP_SETPCAP would allow more of the bounding set; nobody relies on it (capabilities(7)).
    able["inheritable"] = inheritable and inheritable & (inherited | held & bounding())
    syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
    syscalls.capset(able["effective"], able["permitted"], able["inheritable"])
    able["ambient"] = 0
    for number in range(len(NAMES)):
        if ambient & able["permitted"] & able["inheritable"] & 1 << number:
            try:
                syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_RAISE, number)
                able["ambient"] |= 1 << number
            except PermissionError:
                break  # the host set SECBIT_NO_CAP_AMBIENT_RAISE
    wanted = {"effective": effective, "permitted": permitted, "inheritable": inheritable,
              "ambient": ambient}  # fmt: skip
    return [line for kind in wanted for line in _warn(kind, wanted[kind] & ~able[kind])]


def _warn(kind: str, missing: int) -> list[str]:
    names = [name for number, name in enumerate(NAMES) if missing >> number & 1]
    text = f"process.capabilities.{kind}: cannot be granted here: {' '.join(names)}"
    return [text] if names else []
