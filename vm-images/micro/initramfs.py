"""initramfs/NAME.cpio: a root tree, entry by entry, in the format that the kernel unpacks itself.

https://docs.kernel.org/driver-api/early-userspace/buffer-format.html (newc), cpio(5).
"""

from __future__ import annotations

import os
import shutil
import stat
from typing import BinaryIO

from kit import trees
from kit.recipe import Recipe, Work
from roots.debian_base import EPOCH

HARD_LINKED = 2  # more names than one


def make(work: Work, tree: str) -> dict[str, str]:
    with open(work.target, "wb") as archive:
        write(archive, work.output[tree])
    return {}


def write(archive: BinaryIO, tree: str) -> None:
    """The same tree gives the same bytes: names sorted, inodes numbered anew, one fixed time."""
    found = [entry for entry in trees.entries(tree) if entry[0] != "."]
    names_left: dict[int, int] = {}
    for _, status in found:
        names_left[status.st_ino] = names_left.get(status.st_ino, 0) + 1
    links = dict(names_left)
    numbers: dict[int, int] = {}
    for name, status in found:
        inode = numbers.setdefault(status.st_ino, len(numbers) + 1)
        names_left[status.st_ino] -= 1
        count = links[status.st_ino]
        # The content comes with the last name, where usr/gen_init_cpio.c of the kernel puts it too.
        last = not names_left[status.st_ino]
        _entry(archive, tree, name, status, inode, count, last)
    _header(archive, "TRAILER!!!", 0, 0, (0, 0), 1, 0, 0)


def _entry(
    archive: BinaryIO,
    tree: str,
    name: str,
    status: os.stat_result,
    inode: int,
    links: int,
    with_content: bool,
) -> None:
    path = os.path.join(tree, name)
    header = (name, inode, status.st_mode, trees.owner(status), links, int(EPOCH))
    if stat.S_ISLNK(status.st_mode):
        target = os.fsencode(os.readlink(path))
        _header(archive, *header, len(target))
        archive.write(target)
        _pad(archive)
    elif stat.S_ISREG(status.st_mode) and with_content:
        _header(archive, *header, status.st_size)
        with open(path, "rb") as file:
            shutil.copyfileobj(file, archive)
        _pad(archive)
    else:
        _header(archive, *header, 0)


def _header(
    archive: BinaryIO,
    name: str,
    inode: int,
    mode: int,
    owner: tuple[int, int],
    links: int,
    mtime: int,
    size: int,
) -> None:
    text = os.fsencode(name) + b"\0"
    devices = (0, 0, 0, 0)  # of the archive's file system, and of a device node: there are none
    fields = (inode, mode, *owner, links, mtime, size, *devices, len(text), 0)
    archive.write(b"070701" + b"".join(b"%08X" % value for value in fields) + text)
    _pad(archive)


def _pad(archive: BinaryIO) -> None:
    """Names and contents end on multiples of four bytes."""
    archive.write(bytes(-archive.tell() % 4))


def _recipe(name: str) -> Recipe:
    tree = f"roots/{name}"
    return Recipe(
        f"initramfs/{name}.cpio", "micro", lambda work: make(work, tree),
        (__file__, trees.__file__), (tree,),
    )  # fmt: skip


RECIPES = [_recipe("busybox"), _recipe("debian")]
