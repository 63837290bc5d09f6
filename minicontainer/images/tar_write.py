"""tar, written so that the same files always give the same bytes.

pax (POSIX.1-2017), but only where ustar's fields are too small: names longer than 100 bytes, owners
above 2097151, sizes of 8 GiB, extended attributes. Times are whole seconds.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from .tar_read import (
    BLOCK,
    BLOCKDEV,
    CHAR,
    DIRECTORY,
    FIFO,
    HEADER,
    LINK,
    REGULAR,
    SYMLINK,
    XATTR,
)
from .unpack import OVERLAY_XATTR, XATTRS

CHUNK = 1 << 20
END = bytes(2 * BLOCK)
KINDS = {
    stat.S_IFREG: REGULAR, stat.S_IFLNK: SYMLINK, stat.S_IFCHR: CHAR, stat.S_IFBLK: BLOCKDEV,
    stat.S_IFDIR: DIRECTORY, stat.S_IFIFO: FIFO,
}  # fmt: skip


class Files:
    """Files as entries of one tar: hard links among them are kept, times are clamped.

    newest  seconds since 1970 that no time is later than; SOURCE_DATE_EPOCH
    """

    def __init__(self, newest: int | None = None) -> None:
        self.newest = newest
        self._linked: dict[tuple[int, int], bytes] = {}

    def entry(self, name: bytes, file: int) -> Iterator[bytes]:
        """The file that an O_PATH descriptor is of, as entry `name`; a socket is none.

        It may be a running container's. Raises OSError.
        """
        now = os.fstat(file)
        kind = KINDS.get(stat.S_IFMT(now.st_mode))
        if kind is None:
            return
        link, size, content = b"", 0, -1
        try:
            if kind == SYMLINK:
                link = os.readlink(b"", dir_fd=file)
            elif kind != DIRECTORY and now.st_nlink > 1:
                first = self._linked.setdefault((now.st_dev, now.st_ino), name)
                if first != name:
                    kind, link = LINK, first
            if kind == REGULAR:
                content = os.open(b"/proc/self/fd/%d" % file, os.O_RDONLY | os.O_CLOEXEC)
                now = os.fstat(content)
                size = now.st_size
            xattrs = {} if kind == LINK else xattrs_of(b"/proc/self/fd/%d" % file)
            yield self.head(name, kind, now, link, size, xattrs)
            yield from self.content(content, size, name)
        finally:
            if content >= 0:
                os.close(content)

    def head(self, name, kind, now: os.stat_result, link, size, xattrs) -> bytes:
        """An entry's header."""
        mtime = now.st_mtime_ns // 10**9
        return header(
            name, kind, stat.S_IMODE(now.st_mode), now.st_uid, now.st_gid, size,
            mtime if self.newest is None else min(mtime, self.newest), link, now.st_rdev, xattrs,
        )  # fmt: skip

    def content(self, fd: int, size: int, name: bytes) -> Iterator[bytes]:
        """What follows it."""
        left = size
        while left:
            part = os.read(fd, min(CHUNK, left))
            if not part:
                raise OSError(5, f"{os.fsdecode(name)} became shorter while it was read")
            left -= len(part)
            yield part
        yield padding(size)


def header(
    name: bytes, kind: bytes, mode: int, uid: int = 0, gid: int = 0, size: int = 0, mtime: int = 0,
    link: bytes = b"", device: int = 0, xattrs: dict[bytes, bytes] | None = None,
) -> bytes:  # fmt: skip
    """An entry's header, with a pax header before it when it needs one."""
    if kind == DIRECTORY:
        name += b"/"
    records = {XATTR + key: value for key, value in (xattrs or {}).items()}
    for key, value, limit in ((b"path", name, 100), (b"linkpath", link, 100)):
        if len(value) > limit:
            records[key] = value
    numbers = {b"uid": uid, b"gid": gid, b"size": size, b"mtime": mtime}
    for key, number in numbers.items():
        if not 0 <= number < 8 ** (7 if key in (b"uid", b"gid") else 11):
            records[key] = b"%d" % number
            numbers[key] = 0
    extended = b"".join(_record(key, records[key]) for key in sorted(records))
    before = b""
    if extended:
        before = _ustar(b"PaxHeaders/" + name[:80], b"x", 0o644, {b"size": len(extended)}, b"", 0)
        before += extended + bytes(-len(extended) % BLOCK)
    device = device if kind in (CHAR, BLOCKDEV) else 0
    return before + _ustar(name[:100], kind, mode, numbers, link[:100], device)


def padding(size: int) -> bytes:
    """The zeros after content of this size."""
    return bytes(-size % BLOCK)


def _ustar(name, kind, mode: int, numbers: dict[bytes, int], link, device: int) -> bytes:
    uid, gid, size, mtime = (numbers.get(key, 0) for key in (b"uid", b"gid", b"size", b"mtime"))
    fields = [
        name, b"%07o" % mode, b"%07o" % uid, b"%07o" % gid, b"%011o" % size, b"%011o" % mtime,
        b" " * 8, kind, link, b"ustar", b"00", b"", b"", b"%07o" % os.major(device),
        b"%07o" % os.minor(device), b"", b"",
    ]  # fmt: skip
    fields[6] = b"%06o\0 " % sum(HEADER.pack(*fields))
    return HEADER.pack(*fields)


def _record(key: bytes, value: bytes) -> bytes:
    size = len(key) + len(value) + 3
    total = size + len(str(size))
    total = size + len(str(total))  # the length counts its own digits
    return b"%d %s=%s\n" % (total, key, value)


def xattrs_of(file: bytes) -> dict[bytes, bytes]:
    """The extended attributes that a layer keeps."""
    found = {}
    for name in os.listxattr(file):
        key = os.fsencode(name)
        if key.startswith(XATTRS) and not key.startswith(OVERLAY_XATTR):
            found[key] = os.getxattr(file, name)
    return found
