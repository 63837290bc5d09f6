"""cpio in the form "newc", which the kernel unpacks itself: cpio(5),
https://docs.kernel.org/driver-api/early-userspace/buffer-format.html.
"""

from __future__ import annotations

import os


def header(
    name: bytes, inode: int = 0, mode: int = 0, uid: int = 0, gid: int = 0, links: int = 1,
    mtime: int = 0, size: int = 0, device: int = 0,
) -> bytes:  # fmt: skip
    """An entry's header with its name; `size` bytes of content follow, and `padding` of that.

    Entries of one inode are hard links; the content comes with the last of them, where
    usr/gen_init_cpio.c of the kernel puts it, too.
    """
    fields = [inode, mode, uid, gid, links, mtime, size, 0, 0]  # on a file system 0:0
    fields += [os.major(device), os.minor(device), len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08X" % value for value in fields) + name + b"\0"
    return head + padding(len(head))


def padding(size: int) -> bytes:
    """Names and contents end on multiples of four bytes."""
    return bytes(-size % 4)


END = header(b"TRAILER!!!")
