"""An initramfs of a directory, by cpio(1)."""

from __future__ import annotations

import os
import subprocess
from typing import BinaryIO

from benchmarks.arms.base import ArmFailed
from benchmarks.command import environment


def write(tree: str, file: BinaryIO) -> None:
    """Append all that is in a tree, directories before what is in them. Raises ArmFailed.

    Archives may follow one another: the kernel unpacks each over what there is,
    https://docs.kernel.org/driver-api/early-userspace/buffer-format.html
    """
    names = ["."]
    for base, directories, files in os.walk(tree):
        names += [os.path.relpath(os.path.join(base, name), tree) for name in directories + files]
    words = ["cpio", "--create", "--format=newc", "--null", "--quiet"]
    text = "\0".join(sorted(names)).encode()
    file.flush()
    try:
        done = subprocess.run(words, cwd=tree, env=environment(), input=text, stdout=file,
                              stderr=subprocess.PIPE, check=False)  # fmt: skip
    except FileNotFoundError:
        raise ArmFailed("cpio is not installed: sudo ./workshop setup") from None
    if done.returncode:
        raise ArmFailed(f"cpio: {done.stderr.decode(errors='replace').strip()[-200:]}")
    file.seek(0, os.SEEK_END)
