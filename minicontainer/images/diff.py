"""What a container changed, as a layer: its upper directory, with overlayfs' notes turned back.

What is read is what changed: an image of any size costs nothing here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from . import tar_write
from .overlay import is_whiteout
from .tar_read import REGULAR
from .unpack import DIRECTORY_FLAGS, OPAQUE, WHITEOUT


def tar(directory: str, newest: int | None = None, overlay: str = "") -> Iterator[bytes]:
    """The files below a directory, sorted, as a tar in pieces.

    newest   no time is later than this (seconds since 1970)
    overlay  the directory is the upper one of an overlay mount, and this its prefix of extended
             attributes (`rootless.overlay_prefix`): then whiteouts and opaque directories become
             those of layer.md; "" takes every file as what it is

    The files may be a running container's. Raises OSError.
    """
    fd = os.open(directory, DIRECTORY_FLAGS)
    files = tar_write.Files(newest)
    try:
        yield from _directory(files, fd, b"", overlay and f"{overlay}opaque")
    finally:
        os.close(fd)
    yield tar_write.END


def _directory(files: tar_write.Files, fd: int, path: bytes, opaque: str) -> Iterator[bytes]:
    if opaque and path and _has_xattr(fd, opaque):
        yield tar_write.header(path + OPAQUE, REGULAR, 0o644)
    for name in sorted(map(os.fsencode, os.listdir(fd))):
        file = -1
        try:
            file = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            now = os.fstat(file)
            if opaque and is_whiteout(now):
                yield tar_write.header(path + WHITEOUT + name, REGULAR, 0o644)
                continue
            yield from files.entry(path + name, file)
            if stat.S_ISDIR(now.st_mode):
                inner = os.open(b".", DIRECTORY_FLAGS, dir_fd=file)
                try:
                    yield from _directory(files, inner, path + name + b"/", opaque)
                finally:
                    os.close(inner)
        except FileNotFoundError:
            continue  # a running container removed it
        finally:
            if file >= 0:
                os.close(file)


def _has_xattr(fd: int, name: str) -> bool:
    try:
        return os.getxattr(fd, name) == b"y"
    except OSError:
        return False
