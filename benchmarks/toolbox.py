"""A root tree with the tools of one benchmark in it: the busybox tree, and each program with the
libraries that it loads, copied from the host. So every arm runs the same bytes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess

from benchmarks import cpio, roots
from benchmarks.arms.base import ArmFailed
from benchmarks.command import environment
from benchmarks.workdir import storage_directory

_LIBRARY = re.compile(r"(/\S+) \(0x")  # in what ldd(1) says of each


def make(programs: list[str], files: dict[str, str] | None = None) -> None:
    """The tree, and an initramfs of it. files: path in the tree, content. Raises ArmFailed,
    OSError.
    """
    tree = roots.tree(roots.TOOLS)
    storage_directory()  # which it lies in
    shutil.copytree(roots.tree(roots.BASE), tree, symlinks=True)
    for program in programs:
        for path in (program, *_libraries(program)):
            there = tree + path
            if not os.path.lexists(there):
                os.makedirs(os.path.dirname(there), exist_ok=True)
                shutil.copy2(os.path.realpath(path), there)
    for name, content in (files or {}).items():
        os.makedirs(os.path.dirname(tree + name), exist_ok=True)
        with open(tree + name, "w", encoding="utf-8") as text:
            text.write(content)
    with open(f"{tree}.cpio", "wb") as file:
        cpio.write(tree, file)


def remove() -> None:
    tree = roots.tree(roots.TOOLS)
    shutil.rmtree(tree, ignore_errors=True)
    if os.path.exists(f"{tree}.cpio"):
        os.unlink(f"{tree}.cpio")


def _libraries(program: str) -> list[str]:
    said = subprocess.run(
        ["ldd", program], env=environment(), capture_output=True, text=True, check=False
    )
    if said.returncode != 0:
        if "not a dynamic executable" in said.stderr + said.stdout:
            return []
        raise ArmFailed(f"ldd {program}: {said.stderr.strip()[-200:]}")
    return _LIBRARY.findall(said.stdout)
