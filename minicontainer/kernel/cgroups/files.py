"""The files of a cgroup: small texts. Reading and writing them, and the errors of it."""

from __future__ import annotations

import errno

from .. import syscalls

DELEGATION = (
    "run as root, or have systemd give you a group of your own (cgroup v2 only): "
    "systemd-run --user --scope --property=Delegate=yes COMMAND"
)
_READ_ONLY = (
    "the cgroup file system is mounted read-only here, as in most containers: start the outer one "
    "with --privileged, or docker's --cgroupns=private and a writable /sys/fs/cgroup"
)


class CgroupError(syscalls.Refused):
    """Of a group: there is none, somebody else uses it, or a file of it takes no such value."""


def read(path: str) -> str:
    """The text of one file. Raises OSError that names it."""
    try:
        with open(path) as file:
            return file.read()
    except OSError as error:
        raise OSError(error.errno, f"read({path!r})") from None


def lines(path: str) -> list[str]:
    """The lines of a file; none when it is missing, as the group or its controller may be."""
    try:
        return read(path).splitlines()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return []  # ENODEV: it went away while open; EOPNOTSUPP: a threaded group has no procs
        raise


def number(path: str) -> int | None:
    """A file's one number; None when it is missing and for "no limit": "max", or v1's 2^63."""
    text = "".join(lines(path)).strip()
    return int(text) if text.isdigit() and int(text) < 1 << 62 else None


def keyed(path: str) -> dict[str, int]:
    """A flat keyed file, `KEY VALUE` a line; {} when it is missing."""
    return {key: int(value) for key, _, value in (s.partition(" ") for s in lines(path))}


def write(path: str, text: str) -> None:
    """One write(2) to a file that is there. Raises CgroupError with what usually helps."""
    try:
        syscalls.write_file(path, text)
    except OSError as error:
        raise CgroupError(
            error.errno or 0, error.strerror or "", why(error.errno or 0, path)
        ) from None


def why(number: int, path: str) -> str:
    """A hint for an errno that working on `path` gave."""
    for name, errnos, hint in _HINTS:
        if path.rpartition("/")[2].startswith(name) and number in errnos:
            return hint
    if number == errno.EROFS:
        return _READ_ONLY
    return DELEGATION if number in (errno.EACCES, errno.EPERM) else ""


_NO_BFQ = "weights need the BFQ I/O scheduler: sudo modprobe bfq (cgroup v2: or blk-iocost)"
_NO_DISK = "give the numbers of a whole disk that exists: lsblk"
_HINTS = (  # start of a file's name, errnos, hint
    ("devices.", (errno.EPERM,), "the group above forbids that device, so no group below can allow "
     "it"),
    ("memory.memsw.", (errno.ENOENT,), "swap is not accounted here: boot with swapaccount=1"),
    ("memory.limit_in", (errno.EINVAL,), "memory alone cannot exceed memory and swap together: "
     "change `swap`, too"),
    ("memory.limit_in", (errno.EBUSY,), "more than that is in use, and cannot be reclaimed"),
    ("cpuset.", (errno.EINVAL, errno.ERANGE, errno.EACCES), "these CPUs and memory nodes must "
     "exist, and the group above must have them"),
    ("cpu.", (errno.EINVAL,), "a quota is 1 ms or more, a period 1 ms to 1 s, and no group has a "
     "larger share than the group above"),
    ("io.bfq.", (errno.ENOENT,), _NO_BFQ), ("io.weight", (errno.ENOENT,), _NO_BFQ),
    ("blkio.bfq.", (errno.ENOENT,), _NO_BFQ), ("blkio.weight", (errno.ENOENT,), _NO_BFQ),
    ("blkio.throttle.", (errno.ENODEV,), _NO_DISK), ("io.max", (errno.ENODEV,), _NO_DISK),
    ("cgroup.procs", (errno.EBUSY,), "a v2 group that hands controllers to groups below it can "
     "have no processes of its own"),
    ("cgroup.procs", (errno.ENOSPC,), "a v1 cpuset above has no CPUs or no memory nodes"),
)  # fmt: skip
