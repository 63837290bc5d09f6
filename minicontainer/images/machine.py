"""One root, two ways to run it: an image's tree as what a virtual machine boots.

An initramfs is a cpio archive that the kernel unpacks itself; a disk is an ext4 file system, filled
by mke2fs(8). Neither needs root, and either has what a container of the image sees, entry by entry.
(A cpio has no place for extended attributes.)
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator

from . import cpio, layers, merge, rootless
from .compression import Compressed
from .errors import ImageError
from .store import CHUNK, Store

Found = list[tuple[bytes, bytes, os.stat_result]]
SLACK = 64 << 20  # bytes of a disk beside its content: the journal, tables, some room


def initramfs(store: Store, name: str, target: str) -> None:
    """Write the image's root file system as an initramfs; with gzip for a name that ends in .gz.

    The same image gives the same bytes. Boot it with rdinit=/path/of/a/program, or /init in it.
    """
    compression = "gzip" if target.endswith(".gz") else ""

    def write(paths: list[str], beside: str) -> None:
        found = list(merge.merged(paths, rootless.overlay_prefix()))
        with open(beside, "wb") as file:
            for part in Compressed(archive(found), compression):
                file.write(part)

    _write(store, name, target, write)


def disk(store: Store, name: str, target: str, size: int = 0) -> None:
    """Write the image's root file system as an ext4 file system.

    size  bytes; 0 for what its content needs, and SLACK
    """

    def write(paths: list[str], beside: str) -> None:
        prefix = rootless.overlay_prefix()
        tree = f"{beside}.tree"
        os.mkdir(tree)
        try:
            merge.copy(paths, prefix, tree)
            kilobytes = (size or SLACK + _needed(list(merge.merged(paths, prefix)))) // 1024
            root = os.lstat(tree)
            options = f"root_owner={root.st_uid}:{root.st_gid}"
            _run(
                "mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-E", options, "-d", tree, beside,
                f"{kilobytes}k",
            )  # fmt: skip
            _run("debugfs", "-w", "-R", f"set_inode_field / mode 0{root.st_mode:o}", beside)
        finally:
            layers.remove_tree(tree)

    _write(store, name, target, write)


def _run(tool: str, *words: str) -> None:
    path = shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if not path:
        raise ImageError(f"{tool} is not installed", "apt install e2fsprogs")
    done = subprocess.run(
        [path, *words], check=False, capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        said = done.stderr.strip()[-500:]
        raise ImageError(f"{tool}: {said}", "the --size of the disk may be too small")


def archive(found: Found) -> Iterator[bytes]:
    """The archive, in pieces, of what `merge.merged` has found."""
    names: dict[tuple[int, int], int] = {}  # of each inode: how many are to come
    for _, _, now in found:
        key = (now.st_dev, now.st_ino)
        names[key] = names.get(key, 0) + 1
    links, numbers = dict(names), {key: n for n, key in enumerate(names, 1)}
    for name, path, now in found:
        if stat.S_ISSOCK(now.st_mode):
            continue
        key = (now.st_dev, now.st_ino)
        names[key] -= 1
        content = b""
        if stat.S_ISLNK(now.st_mode):
            content = os.readlink(path)
        size = now.st_size if stat.S_ISREG(now.st_mode) and not names[key] else len(content)
        if size >= 1 << 32:
            raise ImageError(f"{os.fsdecode(name)}: {size} bytes are too many for an initramfs")
        count = 1 if stat.S_ISDIR(now.st_mode) else links[key]
        device = now.st_rdev if stat.S_ISCHR(now.st_mode) or stat.S_ISBLK(now.st_mode) else 0
        yield cpio.header(
            name or b".", numbers[key], now.st_mode, now.st_uid, now.st_gid, count,
            max(0, int(now.st_mtime)), size, device,
        )  # fmt: skip
        if content:
            yield content + cpio.padding(size)
        elif size:
            yield from _content(path, size)
    yield cpio.END


def _content(path: bytes, size: int) -> Iterator[bytes]:
    with open(path, "rb") as file:
        left = size
        while left and (part := file.read(min(CHUNK, left))):
            left -= len(part)
            yield part
    yield cpio.padding(size)


def _needed(found: Found) -> int:
    """Bytes of blocks and inodes, and a tenth for what ext4 keeps of its own."""
    files = {(now.st_dev, now.st_ino): now.st_size for _, _, now in found}
    return sum(-size // 4096 * -4096 + 4096 + 256 for size in files.values()) * 11 // 10


def _write(store: Store, name: str, target: str, write) -> None:
    """Call `write` with the layers and a path beside the target, which becomes it when whole."""
    beside = f"{os.path.abspath(target)}.{os.getpid()}"
    with store.lease() as lease:
        image = store.image(name)
        lease.add(image.descriptor["digest"])
        paths = layers.unpacked(store, image)
        try:
            rootless.inside(lambda: write(paths, beside))
            os.rename(beside, target)
        except BaseException:
            if os.path.lexists(beside):
                os.unlink(beside)
            raise
