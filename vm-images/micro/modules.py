"""kernel/modules.cpio: those modules of the guests' kernel that tests and loads in a guest need.

`NN-name.ko` in the order in which they have to be inserted, plain: whatever has busybox can do it.
A kernel's own list of dependencies is made when it is installed; here each module says its own.
"""

from __future__ import annotations

import glob
import lzma
import os
import re
import subprocess

from kit.recipe import Failed, Recipe, Work

from micro import initramfs, kernel

# What is built in, in some distribution's kernel, is no file and is passed over.
WANTED = [
    "overlay", "virtio_pci", "virtio_console", "virtio_blk", "virtio_net", "loop", "bfq", "fuse",
    "tun", "veth",
]  # fmt: skip
DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")  # in the section .modinfo
FIX = "python vm-images/build.py micro --force takes the newest kernel; then again"


def make(work: Work) -> dict[str, str]:
    chosen = os.path.join(work.scratch, "initramfs/modules")
    os.makedirs(chosen)
    version = {"kernel": os.environ.get(kernel.OVERRIDE, "")}
    if not version["kernel"]:  # one of your own has all built in, or lacks it
        tree, version["kernel"] = kernel.fetch(work)
        _check_same(tree, work.output["kernel/vmlinuz"])
        for number, (name, content) in enumerate(in_order(tree).items()):
            with open(os.path.join(chosen, f"{number:02}-{name}.ko"), "wb") as file:
                file.write(content)
    with open(work.target, "wb") as archive:
        initramfs.write(archive, os.path.dirname(chosen))
    return version


def in_order(tree: str) -> dict[str, bytes]:
    """Name -> module, those that others need before them."""
    files = {}
    for path in glob.glob(f"{tree}/**/*.ko*", recursive=True):
        files[os.path.basename(path).partition(".")[0].replace("-", "_")] = path
    found: dict[str, bytes] = {}

    def take(name: str) -> None:
        if name in found or name not in files:
            return
        content = _plain(files[name])
        depends = DEPENDS.search(content)
        for other in depends[1].decode().split(",") if depends else []:
            take(other.replace("-", "_"))
        found[name] = content

    for name in WANTED:
        take(name)
    return found


def _plain(path: str) -> bytes:
    with open(path, "rb") as file:
        content = file.read()
    if path.endswith(".xz"):
        return lzma.decompress(content)
    if path.endswith(".zst"):
        return subprocess.run(["zstd", "-dcq", path], capture_output=True, check=True).stdout
    return content


def _check_same(tree: str, built: str) -> None:
    with open(kernel.image(tree), "rb") as new, open(built, "rb") as old:
        if new.read() != old.read():
            raise Failed("the archive has a newer kernel than kernel/vmlinuz", FIX)


SOURCES = (__file__, kernel.__file__, initramfs.__file__)
RECIPES = [
    Recipe(
        "kernel/modules.cpio", "suite", make, SOURCES, ("kernel/vmlinuz",), kernel.facts, True
    ),
]  # fmt: skip
