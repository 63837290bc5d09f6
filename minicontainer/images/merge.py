"""An image's layers as one tree without a mount: for hosts without overlayfs, for exports, for VMs.

What overlayfs shows, computed: of each name the file of the highest layer that has it, directories
united, unless a whiteout or an opaque directory hides what is below.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from . import rootless, tar_write
from .layers import root_layer
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
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            yield from files.entry(name or b".", fd)
        finally:
            os.close(fd)
    yield tar_write.END


def copy(layers: list[str], overlay: str, target: str) -> None:
    """The merged tree as files of their own in the empty directory `target`; raises ImageError."""
    from .compression import Chunks, Plain
    from .unpack import unpack

    with Plain(Chunks(tar(layers, overlay)), "the image") as stream:
        unpack(stream, target, overlay, overlay.startswith("trusted."), rootless.has_other_ids())
