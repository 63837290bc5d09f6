"""Trees of files: in a fixed order, as one checksum, and removed without crossing into a mount."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterator

from kit.recipe import Failed

CHUNK = 1 << 20


def entries(top: str) -> Iterator[tuple[str, os.stat_result]]:
    """(path relative to top, lstat) of everything in the tree, "." first, parents before children,
    sorted by the bytes of the names so that every machine sees the same order.
    """
    yield ".", os.lstat(top)
    yield from _below(top, "")


def _below(directory: str, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(directory) as found:
        children = sorted(found, key=lambda entry: os.fsencode(entry.name))
    for entry in children:
        status = entry.stat(follow_symlinks=False)
        yield prefix + entry.name, status
        if stat.S_ISDIR(status.st_mode):
            yield from _below(entry.path, f"{prefix}{entry.name}/")


def owner(status: os.stat_result) -> tuple[int, int]:
    """(uid, gid) inside the root file system: what belongs to the builder is root's there, as a
    rootless container and an initramfs both have it.
    """
    uid = 0 if status.st_uid == os.geteuid() else status.st_uid
    gid = 0 if status.st_gid == os.getegid() else status.st_gid
    return uid, gid


def file_sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum(path: str) -> tuple[str, int]:
    """(sha256, bytes) of a file, or of a tree: of each entry's path, mode, owner, and content or
    link. Times are not in it.
    """
    if not os.path.isdir(path):
        return file_sha256(path), os.path.getsize(path)
    digest, size = hashlib.sha256(), 0
    for name, status in entries(path):
        content = ""
        if stat.S_ISREG(status.st_mode):
            content = file_sha256(os.path.join(path, name))
            size += status.st_size
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(os.path.join(path, name))
        fields = (name, f"{status.st_mode:o}", *map(str, owner(status)), content)
        digest.update(b"\0".join(map(os.fsencode, fields)) + b"\n")
    return digest.hexdigest(), size


def fingerprint(path: str) -> str:
    """Changes when the file or tree is written to; reads no content, so it takes milliseconds.

    A directory's time is left out (a runtime's mount points come and go), and so is the owner of a
    single file (libvirt gives a kernel to QEMU's user while a machine runs).
    """
    if not os.path.isdir(path):
        status = os.lstat(path)
        return f"{status.st_size}:{status.st_mtime_ns}"
    digest = hashlib.sha256()
    for name, status in entries(path):
        times = "" if stat.S_ISDIR(status.st_mode) else f"{status.st_size}:{status.st_mtime_ns}"
        fields = f"{name}\0{status.st_mode:o}:{status.st_uid}:{status.st_gid}:{times}\n"
        digest.update(os.fsencode(fields))
    return digest.hexdigest()


def mounts_below(path: str) -> list[str]:
    """Mount points at or below `path` in this mount namespace (proc_pid_mountinfo(5))."""
    path = os.path.realpath(path)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [_unescaped(line.split(" ")[4]) for line in file]
    return [point for point in points if point == path or point.startswith(f"{path}/")]


def _unescaped(field: str) -> str:
    """The kernel writes space, tab, newline and backslash as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def refuse_mounts(path: str) -> None:
    """Raises Failed where something is mounted in the tree: to delete it would delete that too."""
    mounted = mounts_below(path)
    if mounted:
        fix = f"end what uses it, or: umount {mounted[-1]}"
        raise Failed(f"{path} is in use: {mounted[-1]} is mounted there", fix)


def remove(path: str) -> None:
    """Delete a file or a tree. Raises Failed where something is mounted in it."""
    refuse_mounts(path)
    if os.path.islink(path) or not os.path.isdir(path):
        os.unlink(path)
        return
    for directory, names, _ in os.walk(path):
        for name in names:
            child = os.path.join(directory, name)
            if not os.path.islink(child):
                os.chmod(child, 0o700)  # an ordinary user cannot empty a directory of mode 0500
    shutil.rmtree(path)
