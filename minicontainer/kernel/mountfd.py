"""Mounts as file descriptors (Linux 5.2, 5.12): made and changed where no path leads, then placed.

mount(2) works on paths, one change at a time: between a bind and the remount that makes it
read-only, somebody who can write to the root may have swapped the target for a symlink. Here a
mount is complete before it becomes visible, and is placed on a descriptor, which cannot be swapped.
None of it needs /proc, so it also works where /proc is a stranger's.

A kernel that has openat2(2), 5.6, lacks at most mount_setattr(2): then binds fall back on mount(2)
and /proc/self/fd, as `mounts` does it, and what has no other way is ENOSYS. All raise OSError.
"""

from __future__ import annotations

import errno
import os
import stat

from . import syscalls
from .mounts import ATTRIBUTES, make_in_root, mount_in_root, open_in_root, remount_bind_in_root
from .syscalls import (
    AT_EMPTY_PATH,
    AT_RECURSIVE,
    MOUNT_ATTR_RDONLY,
    MS_BIND,
    MS_RDONLY,
    MS_REC,
    OPEN_TREE_CLOEXEC,
    OPEN_TREE_CLONE,
)

TYPE_CHECKING = False  # as in typing, whose import would cost a start 3 ms
if TYPE_CHECKING:
    from collections.abc import Iterable

AT_FDCWD = -100


def attributes(flags: int) -> tuple[int, int]:
    """mount(2)'s flags -> what mount_setattr(2) shall (set, clear)."""
    on, off = 0, 0
    for flag, (attribute, clear) in ATTRIBUTES.items():
        if flags & flag:
            on, off = on & ~clear | attribute, off | clear
    return on, off


def set_attributes(fd: int, on: int, off: int = 0, recursive: bool = False) -> None:
    """Change a mount, or with all mounts below it: MOUNT_ATTR_* to set and to clear.

    What the host locked in a user namespace stays: only clearing it would be EPERM.
    """
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    syscalls.mount_setattr(fd, "", flags, on, off, 0)


def set_propagation(fd: int, flags: int) -> None:
    """Make the mount at `fd` MS_PRIVATE, MS_SLAVE, MS_SHARED or MS_UNBINDABLE, with MS_REC all."""
    recursive = AT_RECURSIVE if flags & MS_REC else 0
    syscalls.mount_setattr(fd, "", AT_EMPTY_PATH | recursive, 0, 0, flags & ~MS_REC)


def new_filesystem(fstype: str, source: str, flags: int, data: str | None) -> int:
    """A new mount that is nowhere yet; arguments as mount(2) takes them."""
    on, _ = attributes(flags)
    fs = syscalls.fsopen(fstype, syscalls.FSOPEN_CLOEXEC)
    try:
        syscalls.fsconfig(fs, syscalls.FSCONFIG_SET_STRING, "source", source, 0)
        for option in (data or "").split(","):
            key, equals, value = option.partition("=")
            if equals:
                syscalls.fsconfig(fs, syscalls.FSCONFIG_SET_STRING, key, value, 0)
            elif key:
                syscalls.fsconfig(fs, syscalls.FSCONFIG_SET_FLAG, key, None, 0)
        syscalls.fsconfig(fs, syscalls.FSCONFIG_CMD_CREATE, None, None, 0)
        return syscalls.fsmount(fs, syscalls.FSMOUNT_CLOEXEC, on)
    finally:
        os.close(fs)


def clone(source: str | int, recursive: bool = False) -> int:
    """A copy, as a bind mount makes, of what is at a path or descriptor; it is nowhere yet."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    if isinstance(source, int):
        return syscalls.open_tree(source, "", flags | AT_EMPTY_PATH)
    return syscalls.open_tree(AT_FDCWD, source, flags)


def place(mount: int, target: int) -> None:
    """Make a mount of `new_filesystem` or `clone` visible on the descriptor `target`."""
    flags = syscalls.MOVE_MOUNT_F_EMPTY_PATH | syscalls.MOVE_MOUNT_T_EMPTY_PATH
    syscalls.move_mount(mount, "", target, "", flags)


def bind_in_root(
    root_fd: int, source: str | int, target: str, flags: int, recursive: tuple[int, int] = (0, 0)
) -> None:
    """A bind mount with all its flags at once; makes the mount point when it is missing.

    source     a path of the host, or a descriptor
    flags      mount(2)'s; MS_REC takes the mounts below the source along
    recursive  MOUNT_ATTR_* to set and to clear on all of them (`rro`, see `recursive_attributes`)
    """
    mount = clone(source, bool(flags & MS_REC))
    try:
        try:
            on, off = attributes(flags)
            if on or off:
                set_attributes(mount, on, off)
            if any(recursive):
                set_attributes(mount, *recursive, recursive=True)
        except OSError as error:
            if error.errno != errno.ENOSYS or any(recursive):
                raise
            path = source if isinstance(source, str) else f"/proc/self/fd/{source}"
            return mount_in_root(root_fd, path, target, None, flags | MS_BIND, None)
        directory = stat.S_ISDIR(os.fstat(mount).st_mode)
        fd = make_in_root(root_fd, target, directory)
        try:
            place(mount, fd)
        finally:
            os.close(fd)
    finally:
        os.close(mount)


def _open_what_is_there(root_fd: int, path: str) -> int:
    """-1 when there is nothing."""
    try:
        return open_in_root(root_fd, path)
    except (FileNotFoundError, NotADirectoryError):
        return -1


def mask_in_root(root_fd: int, paths: Iterable[str]) -> None:
    """Cover what is at these paths: a directory with an empty read-only tmpfs, a file with
    /dev/null. Where nothing is there is nothing to protect.
    """
    covers: dict[bool, int] = {}  # for directories, for files: the first one, others are its clones
    try:
        for path in paths:
            target = _open_what_is_there(root_fd, path)
            if target >= 0:
                try:
                    _cover(root_fd, target, covers)
                finally:
                    os.close(target)
    finally:
        for mount in covers.values():
            os.close(mount)


def _cover(root_fd: int, target: int, covers: dict[bool, int]) -> None:
    directory = stat.S_ISDIR(os.fstat(target).st_mode)
    if directory in covers:
        mount = clone(covers[directory])
        try:
            place(mount, target)
        finally:
            os.close(mount)
        return
    if directory:
        covers[directory] = new_filesystem("tmpfs", "tmpfs", MS_RDONLY, "size=0k,mode=755")
    else:
        covers[directory] = _null_device(root_fd)
    place(covers[directory], target)


def _null_device(root_fd: int) -> int:
    """A clone of the container's /dev/null. It may be a symlink: bound unseen, it would show a file
    of its choice (CVE-2025-31133), so it has to be that device.
    """
    null = open_in_root(root_fd, "/dev/null", os.O_PATH | os.O_NOFOLLOW)
    try:
        now = os.fstat(null)
        if not stat.S_ISCHR(now.st_mode) or now.st_rdev != os.makedev(1, 3):
            raise OSError(errno.EINVAL, "/dev/null in the container is another file")
        return clone(null)
    finally:
        os.close(null)


def readonly_in_root(root_fd: int, path: str, recursive: bool = False) -> None:
    """Make what is at `path` read-only, whether a mount or not, by a bind mount onto itself.

    Where nothing is there is nothing to protect.
    """
    target = _open_what_is_there(root_fd, path)
    if target < 0:
        return None
    try:
        mount = clone(target, recursive=True)
        try:
            try:
                set_attributes(mount, MOUNT_ATTR_RDONLY, recursive=recursive)
            except OSError as error:
                if error.errno != errno.ENOSYS or recursive:
                    raise
                place(mount, target)
                return remount_bind_in_root(root_fd, path, MS_RDONLY)
            place(mount, target)
        finally:
            os.close(mount)
    finally:
        os.close(target)


def tmpfs_with_copy(root_fd: int, target: str, flags: int, data: str | None) -> None:
    """A tmpfs that starts with a copy of the directory it covers (runc's option `tmpcopyup`).

    It is filled before it is placed: nobody sees a half of it.
    """
    from_fd = make_in_root(root_fd, target, directory=True)
    try:
        mount = new_filesystem("tmpfs", "tmpfs", flags & ~MS_RDONLY, data)
        try:
            _copy(from_fd, mount)
            if "mode=" not in (data or ""):
                _copy_owner(os.fstat(from_fd), ".", mount)
            if flags & MS_RDONLY:
                set_attributes(mount, MOUNT_ATTR_RDONLY)
            place(mount, from_fd)
        finally:
            os.close(mount)
    finally:
        os.close(from_fd)


def copy_up(root_fd: int, target: str, source: str) -> None:
    """Give an empty directory of the host what is at `target` in the root, which it will cover."""
    if os.listdir(source):
        return
    from_fd = make_in_root(root_fd, target, directory=True)
    to_fd = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _copy(from_fd, to_fd)
        _copy_owner(os.fstat(from_fd), ".", to_fd)
    finally:
        os.close(from_fd)
        os.close(to_fd)


def _copy(from_fd: int, to_fd: int) -> None:
    """Copy a directory's entries; a stranger's tree: no link is followed, no device is opened."""
    readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=from_fd)
    try:
        for name in os.listdir(readable):
            _copy_entry(readable, to_fd, name)
    finally:
        os.close(readable)


def _copy_entry(from_dir: int, to_dir: int, name: str) -> None:
    now = os.stat(name, dir_fd=from_dir, follow_symlinks=False)
    if stat.S_ISDIR(now.st_mode):
        os.mkdir(name, 0o700, dir_fd=to_dir)
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        inner, made = os.open(name, flags, dir_fd=from_dir), os.open(name, flags, dir_fd=to_dir)
        try:
            _copy(inner, made)
        finally:
            os.close(inner)
            os.close(made)
    elif stat.S_ISREG(now.st_mode):
        _copy_file(from_dir, to_dir, name)
    elif stat.S_ISLNK(now.st_mode):
        os.symlink(os.readlink(name, dir_fd=from_dir), name, dir_fd=to_dir)
    else:
        try:
            os.mknod(name, now.st_mode, now.st_rdev, dir_fd=to_dir)
        except PermissionError:
            return  # a device, in a user namespace
    _copy_owner(now, name, to_dir)


def _copy_file(from_dir: int, to_dir: int, name: str) -> None:
    # O_NONBLOCK: should a fifo be in its place by now, opening it does not wait for a writer.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    source = os.open(name, flags, dir_fd=from_dir)
    try:
        if not stat.S_ISREG(os.fstat(source).st_mode):
            raise OSError(errno.EINVAL, f"tmpcopyup: {name!r} changed while it was copied")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        copy = os.open(name, flags, 0o600, dir_fd=to_dir)
        try:
            while os.sendfile(copy, source, None, 1 << 30):
                pass
        finally:
            os.close(copy)
    finally:
        os.close(source)


def _copy_owner(now: os.stat_result, name: str, to_dir: int) -> None:
    """Owner before mode: chown(2) takes setuid bits away."""
    try:
        os.chown(name, now.st_uid, now.st_gid, dir_fd=to_dir, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM):
            raise  # an owner that the user namespace does not have stays ours
    if not stat.S_ISLNK(now.st_mode):
        os.chmod(name, stat.S_IMODE(now.st_mode), dir_fd=to_dir)
