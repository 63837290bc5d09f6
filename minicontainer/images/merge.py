"""An image's layers as one tree without a mount: for hosts without overlayfs, for exports, for VMs.

What overlayfs shows, computed: of each name the file of the highest layer that has it, directories
united, unless a whiteout or an opaque directory hides what is below.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from . import tar_write
from .layers import copy_metadata, root_layer
from .overlay import is_opaque, is_whiteout


def merged(layers: list[str], overlay: str) -> Iterator[tuple[bytes, bytes, os.stat_result]]:
    """(name, path of the file, its stat) of all that the layers, the lowest first, show together.

    Sorted, directories before what is in them; b"" is the root. overlay: as in `diff.tar`.
    """
    tops = [os.fsencode(path) for path in reversed(layers)]
    root = os.fsencode(root_layer(layers))
    yield b"", root, os.lstat(root)
    yield from _directory(b"", tops, overlay)


def _directory(path: bytes, directories: list[bytes], overlay: str):
    found: dict[bytes, list[bytes]] = {}
    for directory in directories:
        for name in os.listdir(directory):
            found.setdefault(name, []).append(directory + b"/" + name)
    for name in sorted(found):
        files = found[name]
        now = os.lstat(files[0])
        if is_whiteout(now):
            continue
        yield path + name, files[0], now
        if stat.S_ISDIR(now.st_mode):
            united = []
            for file in files:
                if not stat.S_ISDIR(os.lstat(file).st_mode):
                    break
                united.append(file)
                if is_opaque(file, overlay):
                    break
            yield from _directory(path + name + b"/", united, overlay)


def tar(layers: list[str], overlay: str, newest: int | None = None) -> Iterator[bytes]:
    """The merged tree as a plain tar, in pieces: `export`."""
    files = tar_write.Files(newest)
    for name, path, _ in merged(layers, overlay):
        directory, _, file = path.rpartition(b"/")
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield from files.entry(name or b".", fd, file)
        finally:
            os.close(fd)
    yield tar_write.END


def copy(layers: list[str], overlay: str, target: str) -> None:
    """The merged tree as files of their own in the directory `target`; raises OSError."""
    top = os.fsencode(target)
    linked: dict[tuple[int, int], bytes] = {}
    directories = []
    for name, path, now in merged(layers, overlay):
        made = top + b"/" + name
        if stat.S_ISDIR(now.st_mode):
            if name:
                os.mkdir(made)
            directories.append((path, made))
            continue
        if now.st_nlink > 1:
            first = linked.setdefault((now.st_dev, now.st_ino), made)
            if first != made:
                os.link(first, made, follow_symlinks=False)
                continue
        if stat.S_ISREG(now.st_mode):
            _copy_file(path, made)
        elif stat.S_ISLNK(now.st_mode):
            os.symlink(os.readlink(path), made)
        else:
            os.mknod(made, now.st_mode, now.st_rdev)
        copy_metadata(path, made)
    for path, made in reversed(directories):  # making files in one changes its time
        copy_metadata(path, made)


def _copy_file(source: bytes, target: bytes) -> None:
    with open(source, "rb", buffering=0) as from_, open(target, "xb", buffering=0) as to:
        left = os.fstat(from_.fileno()).st_size
        while left > 0:
            try:  # a reflink where the file system can
                done = os.copy_file_range(from_.fileno(), to.fileno(), left)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                    raise
                done = os.sendfile(to.fileno(), from_.fileno(), None, left)
            if not done:
                break
            left -= done
