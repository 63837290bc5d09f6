"""Mounts and roots: what a process sees as its file system.

From chroot(2), 1979, to pivot_root(2) in a mount namespace, 2000: the first changes where a path
lookup *starts*, the second takes the host's mounts away altogether.
"""

from __future__ import annotations

import errno
import os
import stat

from . import syscalls
from .syscalls import (
    MNT_DETACH,
    MOUNT_ATTR__ATIME,
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW,
    MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_STRICTATIME,
    MS_BIND,
    MS_DIRSYNC,
    MS_I_VERSION,
    MS_LAZYTIME,
    MS_MANDLOCK,
    MS_MOVE,
    MS_NOATIME,
    MS_NODEV,
    MS_NODIRATIME,
    MS_NOEXEC,
    MS_NOSUID,
    MS_NOSYMFOLLOW,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_RELATIME,
    MS_REMOUNT,
    MS_SHARED,
    MS_SILENT,
    MS_SLAVE,
    MS_STRICTATIME,
    MS_SYNCHRONOUS,
    MS_UNBINDABLE,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
)  # fmt: skip

# Options of mount(8) that are flags of mount(2): name -> (flag, set or clear).
FLAG_OPTIONS = {
    "ro": (MS_RDONLY, True),
    "rw": (MS_RDONLY, False),
    "nosuid": (MS_NOSUID, True),
    "suid": (MS_NOSUID, False),
    "nodev": (MS_NODEV, True),
    "dev": (MS_NODEV, False),
    "noexec": (MS_NOEXEC, True),
    "exec": (MS_NOEXEC, False),
    "sync": (MS_SYNCHRONOUS, True),
    "async": (MS_SYNCHRONOUS, False),
    "dirsync": (MS_DIRSYNC, True),
    "noatime": (MS_NOATIME, True),
    "atime": (MS_NOATIME, False),
    "nodiratime": (MS_NODIRATIME, True),
    "diratime": (MS_NODIRATIME, False),
    "relatime": (MS_RELATIME, True),
    "norelatime": (MS_RELATIME, False),
    "strictatime": (MS_STRICTATIME, True),
    "nostrictatime": (MS_STRICTATIME, False),
    "lazytime": (MS_LAZYTIME, True),
    "nolazytime": (MS_LAZYTIME, False),
    "nosymfollow": (MS_NOSYMFOLLOW, True),
    "symfollow": (MS_NOSYMFOLLOW, False),
    "iversion": (MS_I_VERSION, True),
    "noiversion": (MS_I_VERSION, False),
    "mand": (MS_MANDLOCK, True),
    "nomand": (MS_MANDLOCK, False),
    "silent": (MS_SILENT, True),
    "loud": (MS_SILENT, False),
    "remount": (MS_REMOUNT, True),
    "bind": (MS_BIND, True),
    "rbind": (MS_BIND | MS_REC, True),
}
PROPAGATION_OPTIONS = {
    "private": MS_PRIVATE,
    "rprivate": MS_PRIVATE | MS_REC,
    "slave": MS_SLAVE,
    "rslave": MS_SLAVE | MS_REC,
    "shared": MS_SHARED,
    "rshared": MS_SHARED | MS_REC,
    "unbindable": MS_UNBINDABLE,
    "runbindable": MS_UNBINDABLE | MS_REC,
}
# mount(2)'s flag -> (mount_setattr(2)'s attribute, what to clear first: access times are one choice
# of three). The OCI spec has these words with an "r" before, for a mount and all below it: "rro".
ATTRIBUTES = {
    MS_RDONLY: (MOUNT_ATTR_RDONLY, 0),
    MS_NOSUID: (MOUNT_ATTR_NOSUID, 0),
    MS_NODEV: (MOUNT_ATTR_NODEV, 0),
    MS_NOEXEC: (MOUNT_ATTR_NOEXEC, 0),
    MS_NODIRATIME: (MOUNT_ATTR_NODIRATIME, 0),
    MS_NOSYMFOLLOW: (MOUNT_ATTR_NOSYMFOLLOW, 0),
    MS_NOATIME: (MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME),
    MS_RELATIME: (0, MOUNT_ATTR__ATIME),
    MS_STRICTATIME: (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME),
}
RECURSIVE_OPTIONS = {
    f"r{word}": (*ATTRIBUTES[flag], on)
    for word, (flag, on) in FLAG_OPTIONS.items()
    if flag in ATTRIBUTES
}


def recursive_attributes(options) -> tuple[int, int]:
    """The "r…" words among mount(8)'s -> MOUNT_ATTR_* to (set, clear) by mountfd.bind_in_root."""
    on, off = 0, 0
    for option in options:
        if option in RECURSIVE_OPTIONS:
            attribute, clear, wanted = RECURSIVE_OPTIONS[option]
            on, off = on & ~(attribute | clear), (off | clear) & ~(0 if clear else attribute)
            if wanted:
                on |= attribute
            else:
                off |= clear or attribute
    return on, off


def parse_options(options) -> tuple[int, int, str | None]:
    """mount(8)'s words -> (flags, propagation flags, data for the file system or None).

    Left out are those of `recursive_attributes` and "tmpcopyup" (mountfd.tmpfs_with_copy).
    """
    flags, propagation, data = 0, 0, []
    for option in options:
        if option in FLAG_OPTIONS:
            bit, on = FLAG_OPTIONS[option]
            flags = flags | bit if on else flags & ~bit
        elif option in PROPAGATION_OPTIONS:
            propagation = PROPAGATION_OPTIONS[option]
        elif option not in RECURSIVE_OPTIONS and option not in ("defaults", "tmpcopyup"):
            data.append(option)
    return flags, propagation, ",".join(data) or None


def open_in_root(root_fd: int, path: str, flags: int = os.O_PATH) -> int:
    """Open `path` as a process whose root is `root_fd` would: no symlink leads out of it.

    A container's root file system is a stranger's: `/proc` in it may be a symlink to the host's
    `/etc`. openat2(2) with RESOLVE_IN_ROOT makes the kernel resolve it inside, with no race.
    """
    return syscalls.openat2(root_fd, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)


def make_in_root(root_fd: int, path: str, directory: bool) -> int:
    """Open `path` below `root_fd`, making what is missing of it; returns an O_PATH descriptor."""
    try:
        return open_in_root(root_fd, path)
    except FileNotFoundError:
        parent, _, name = path.rstrip("/").rpartition("/")
        parent_fd = make_in_root(root_fd, parent or "/", directory=True)
        try:
            if directory:
                syscalls.mkdirat(parent_fd, name, 0o755)
            else:
                syscalls.mknodat(parent_fd, name, stat.S_IFREG | 0o644, 0)
        except FileExistsError:
            pass  # a dangling symlink: opening it below says so, with its name
        finally:
            os.close(parent_fd)
        return open_in_root(root_fd, path)


def mount_in_root(
    root_fd: int, source: str, target: str, fstype: str | None, flags: int, data: str | None
) -> None:
    """mount(2) on `target` as seen from `root_fd`; makes the mount point when it is missing.

    A bind mount ignores all flags but MS_REC, so its flags are set by a second call.
    """
    directory = True
    if flags & MS_BIND:
        directory = stat.S_ISDIR(os.stat(source).st_mode)
    fd = make_in_root(root_fd, target, directory)
    try:
        if flags & MS_BIND:
            syscalls.mount(source, f"/proc/self/fd/{fd}", None, flags & (MS_BIND | MS_REC), None)
        else:
            syscalls.mount(source, f"/proc/self/fd/{fd}", fstype, flags, data)
    finally:
        os.close(fd)
    if flags & MS_BIND and flags & ~(MS_BIND | MS_REC):
        remount_bind_in_root(root_fd, target, flags & ~MS_REC)


def remount_bind_in_root(root_fd: int, target: str, flags: int) -> None:
    """Change the flags of the mount at `target`.

    In a user namespace flags that were locked by the host (nosuid, nodev, noexec …) must stay set,
    else EPERM (mount_namespaces(7)): they are read from the mount and kept.
    """
    fd = open_in_root(root_fd, target)
    try:
        path = f"/proc/self/fd/{fd}"
        syscalls.mount(None, path, None, MS_REMOUNT | MS_BIND | flags | locked_flags(path), None)
    finally:
        os.close(fd)


def locked_flags(path: str) -> int:
    """The flags that the mount at `path` has already; statvfs(3)'s bits below 16 are mount(2)'s."""
    now = os.statvfs(path).f_flag
    flags = now & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    if now & os.ST_NOATIME:
        flags |= MS_NOATIME
    if now & os.ST_NODIRATIME:
        flags |= MS_NODIRATIME
    if now & os.ST_RELATIME:
        flags |= MS_RELATIME
    return flags


def set_propagation(path: str, flags: int) -> None:
    """Say whether mounts under `path` are announced to, and taken from, other namespaces."""
    syscalls.mount(None, path, None, flags, None)


def change_root(new_root: str) -> None:
    """Start path lookups at `new_root` (chroot(2), Version 7 Unix, 1979).

    A working directory outside the new root would be a way out, so it moves along. This is no
    wall: a process that may call chroot leaves it again (lesson 02). Raises OSError.
    """
    syscalls.chroot(new_root)
    syscalls.chdir("/")


def pivot_root(new_root: str) -> None:
    """Make `new_root`, a mount point, the root of this mount namespace, and the host's root gone.

    pivot_root(".", ".") stacks the old root on the new one, where it is unmounted at once: no
    directory for it is needed, so a read-only root works (pivot_root(2), NOTES).
    """
    syscalls.chdir(new_root)
    try:
        syscalls.pivot_root(".", ".")
    except OSError as error:
        if error.errno != errno.EINVAL or not root_is_initramfs():
            raise
        # The initial ramfs can be neither pivoted nor unmounted: cover it instead.
        syscalls.mount(new_root, "/", None, MS_MOVE, None)
        change_root(".")
        return
    syscalls.umount2(".", MNT_DETACH)
    syscalls.chdir("/")


def root_is_initramfs() -> bool:
    """Whether "/" is the kernel's rootfs, as in an initramfs (it has no parent mount)."""
    with open("/proc/self/mountinfo", "rb") as mountinfo:
        for line in mountinfo:
            fields = line.split()
            if fields[4] == b"/":
                return fields[fields.index(b"-") + 1] in (b"rootfs", b"ramfs")
    return False
