"""One root, two ways to run it: an image's tree as what a virtual machine boots.

An initramfs is a cpio archive that the kernel unpacks itself, written by cpio(1); a disk is an ext4
file system, filled by mke2fs(8). Neither needs root, and either has what a container of the image
sees, entry by entry. (A cpio has no place for extended attributes.)
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable

from . import layers, merge, rootless
from .compression import Compressed
from .errors import ImageError
from .store import CHUNK, Store

SLACK = 64 << 20  # bytes of a disk beside its content: the journal, tables, some room


def initramfs(store: Store, name: str, target: str) -> None:
    """Write the image's root file system as an initramfs; with gzip for a name that ends in .gz.

    The same image gives the same bytes. Boot it with rdinit=/path/of/a/program, or /init in it.
    """

    def write(tree: str, image: str) -> None:
        words = ("--create", "--format=newc", "--reproducible", "--null", "--quiet")
        names = b"\0".join(_names(os.fsencode(tree)))
        with open(image, "wb") as file:
            _run("cpio", *words, hint="apt install cpio", cwd=tree, input=names, stdout=file)
        if target.endswith(".gz"):
            with open(image, "rb") as plain, open(f"{image}.gz", "wb") as file:
                file.writelines(Compressed(iter(lambda: plain.read(CHUNK), b"")))
            os.rename(f"{image}.gz", image)

    _write(store, name, target, write)


def disk(store: Store, name: str, target: str, size: int = 0) -> None:
    """Write the image's root file system as an ext4 file system.

    size  bytes; 0 for what its content needs, and SLACK
    """

    def write(tree: str, image: str) -> None:
        root = os.lstat(tree)
        words = ("-q", "-F", "-t", "ext4", "-m", "0")
        owner = f"root_owner={root.st_uid}:{root.st_gid}"
        kilobytes = (size or SLACK + _needed(os.fsencode(tree))) // 1024
        hint = "apt install e2fsprogs; or the --size of the disk is too small"
        _run("mke2fs", *words, "-E", owner, "-d", tree, image, f"{kilobytes}k", hint=hint)
        mode = f"set_inode_field / mode 0{root.st_mode:o}"
        _run("debugfs", "-w", "-R", mode, image, hint=hint)

    _write(store, name, target, write)


def _names(tree: bytes) -> list[bytes]:
    """All that is in a tree, relative to it and sorted; directories before what is in them."""
    found = [b"."]
    for base, directories, files in os.walk(tree):
        found += [os.path.relpath(base + b"/" + name, tree) for name in (*directories, *files)]
    return sorted(found)


def _needed(tree: bytes) -> int:
    """Bytes of blocks and inodes, and a tenth for what ext4 keeps of its own."""
    found = (os.lstat(tree + b"/" + name) for name in _names(tree))
    sizes = {now.st_ino: now.st_size for now in found}.values()
    return sum(-size // 4096 * -4096 + 4096 + 256 for size in sizes) * 11 // 10


def _run(tool: str, *words: str, hint: str, **more) -> None:
    path = shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if not path:
        raise ImageError(f"{tool} is not installed", hint)
    done = subprocess.run([path, *words], **{"stdout": subprocess.DEVNULL, **more},
                          stderr=subprocess.PIPE, check=False)  # fmt: skip
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[-500:]
        raise ImageError(f"{tool}: {said}", hint)


def _write(store: Store, name: str, target: str, write: Callable[[str, str], None]) -> None:
    """Call `write` with the image's tree and a path, whose file becomes the target when whole."""
    beside = f"{os.path.abspath(target)}.{os.getpid()}"
    with store.lease() as lease:
        image = store.image(name)
        lease.add(image.descriptor["digest"])
        paths = layers.unpacked(store, image)

        def work() -> None:
            os.mkdir(f"{beside}/tree")
            merge.copy(paths, rootless.overlay_prefix(), f"{beside}/tree")
            write(f"{beside}/tree", f"{beside}/image")

        os.mkdir(beside)
        try:
            rootless.inside(work)
            os.rename(f"{beside}/image", target)
        finally:
            layers.remove_tree(beside)
