"""Files of /proc, surely: a name is no proof in a root file system that a stranger made.

Writing "exec …" to /proc/self/attr/exec or a value to /proc/sys only means something when that file
is procfs's. An image can have a symlink or a mount there that turns the write into one to another
file (CVE-2019-16884, CVE-2025-52881), or into nothing at all.
"""

from __future__ import annotations

import errno
import os

from . import syscalls
from .syscalls import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_XDEV

_ROOT_INODE = 1  # PROC_ROOT_INO, include/linux/proc_fs.h: not a directory below, bound over it


def open_proc(path: str, flags: int = os.O_RDONLY, root: str = "/proc") -> int:
    """Open `path`, relative as in "self/attr/exec", of the procfs mounted at `root`.

    Raises OSError: EXDEV when `root` is not a procfs or something is mounted over the file, ELOOP
    for a link that leads out (/proc/self/root, /proc/self/fd/0).
    """
    proc = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _verify(proc, root)
        if os.fstat(proc).st_ino != _ROOT_INODE:
            raise OSError(errno.EXDEV, f"{root} is only a part of a procfs")
        # "self" is a symlink to a number, and may be followed: it stays beneath.
        resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS
        return syscalls.openat2(proc, path, flags | os.O_NOFOLLOW, resolve)
    finally:
        os.close(proc)


def write_proc(path: str, text: str) -> None:
    """Write `text` to a file of /proc in one write(2). Raises OSError, see `open_proc`."""
    fd = open_proc(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, f"write('/proc/{path}', {text!r})") from None
    finally:
        os.close(fd)


def _verify(fd: int, what: str) -> None:
    if syscalls.fstatfs(fd) != syscalls.PROC_SUPER_MAGIC:
        raise OSError(errno.EXDEV, f"{what} is no procfs: the root file system has its own there")
