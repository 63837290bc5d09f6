"""initramfs/NAME.cpio: a root tree, entry by entry, in the form that the kernel unpacks itself."""

from __future__ import annotations

import os
import shutil
import stat
from typing import BinaryIO

from kit import cpio, trees
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
        last = not names_left[status.st_ino]
        _entry(archive, tree, name, status, inode, count, last)
    archive.write(cpio.END)


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
    size, content = 0, b""
    if stat.S_ISLNK(status.st_mode):
        content = os.fsencode(os.readlink(path))
        size = len(content)
    elif stat.S_ISREG(status.st_mode) and with_content:
        size = status.st_size
    owner = trees.owner(status)
    archive.write(
        cpio.header(os.fsencode(name), inode, status.st_mode, *owner, links, int(EPOCH), size)
    )
    archive.write(content)
    if size and not content:
        with open(path, "rb") as file:
            shutil.copyfileobj(file, archive)
    archive.write(cpio.padding(size))


def _recipe(name: str) -> Recipe:
    tree = f"roots/{name}"
    return Recipe(
        f"initramfs/{name}.cpio", "micro", lambda work: make(work, tree),
        (__file__, trees.__file__, cpio.__file__), (tree,),
    )  # fmt: skip


RECIPES = [_recipe("busybox"), _recipe("debian")]
