"""The probe and the root trees that `vm-images/build.py` makes: every arm of a run uses these and
no others.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from json import load
from typing import Any, TextIO

from benchmarks.arms.base import Skip
from benchmarks.workdir import PREFIX
from minicontainer.paths import cache_dir

CLONE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(CLONE, "vm-images", "build.py")
FIX = "python -m benchmarks prepare"
TOOLS, BASE = "tools", "busybox"  # made for one run, of that other tree: see toolbox.py


def images() -> str:
    return os.path.join(cache_dir(), "vm-images")


def tree(name: str) -> str:
    """The unpacked root tree `busybox` or `debian`, with /probe in it; or this run's own TOOLS."""
    if name == TOOLS:
        return os.path.join(cache_dir(), f"{PREFIX}{os.getpid()}", TOOLS)
    return os.path.join(images(), "roots", name)


def _initramfs(name: str) -> str:
    return (
        f"{tree(name)}.cpio"
        if name == TOOLS
        else os.path.join(images(), "initramfs", f"{name}.cpio")
    )


def missing(name: str) -> Skip | None:
    """Why no arm can use this tree yet."""
    name = BASE if name == TOOLS else name
    if os.access(os.path.join(tree(name), "probe"), os.X_OK):
        return None
    return Skip(f"the {name} root tree with its probe is not built ({tree(name)})", FIX)


@dataclass(frozen=True)
class Guest:
    """What a Linux guest is started with."""

    kernel: str
    initramfs: str
    command_line: str


def guest(tier: str, root: str) -> Guest:
    """The kernel and the initramfs made of the same tree that the containers use."""
    return Guest(_kernel(tier), _initramfs(root), manifest()["command_lines"][tier])


def disk(root: str) -> str:
    """The disk of the full tier, a raw image: the same packages, and those of a machine."""
    return os.path.join(images(), "full", f"{root}.raw")


def missing_disk(root: str) -> Skip | None:
    """Why no machine of the full tier can be started yet."""
    path = disk(root)
    return None if os.path.isfile(path) else Skip(f"not built: {path}", FIX)


def modules() -> str:
    """An initramfs with modules of the guests' kernel: /modules/NN-NAME.ko, in their order."""
    return os.path.join(images(), "kernel", "modules.cpio")


def missing_modules() -> Skip | None:
    """Why no guest can drive a disk or a network card yet."""
    return None if os.path.isfile(modules()) else Skip(f"not built: {modules()}", FIX)


def missing_guest(root: str) -> Skip | None:
    """Why no virtual machine can be started with this root yet ("" is the boot sector)."""
    files = _guest_files(BASE if root == TOOLS else root)
    needed = [guest_file for guest_file in files if not os.path.isfile(guest_file)]
    return Skip(f"not built: {', '.join(needed)}", FIX) if needed else None


def _guest_files(root: str) -> list[str]:
    where = images()
    if not root:
        return [os.path.join(where, "nano", "nano.img")]
    return [
        os.path.join(where, "manifest.json"),
        *map(_kernel, ("micro", "direct")),
        _initramfs(root),
    ]


def _kernel(tier: str) -> str:
    """As it comes; for micro unpacked, where the recipe could: QEMU enters an ELF kernel directly
    (PVH), and the guest does not spend its start on unpacking itself, nor on choosing its address
    at random (KASLR), which is a part of that.
    """
    where = os.path.join(images(), "kernel")
    unpacked = os.path.join(where, "vmlinux")
    if tier == "micro" and os.path.isfile(unpacked):
        return unpacked
    return os.path.join(where, "vmlinuz")


def manifest() -> dict[str, Any]:
    """What was built, with checksums of inputs and outputs; empty when nothing was."""
    try:
        with open(os.path.join(images(), "manifest.json"), encoding="utf-8") as file:
            return dict(load(file))
    except FileNotFoundError:
        return {}


def build(json: bool = False, output: TextIO | None = None) -> int:
    """Build what is missing; the recipe says what it does, on `output`. Returns its exit code."""
    command = [sys.executable, BUILD, "all", *(["--json"] if json else [])]
    return subprocess.run(command, check=False, stdout=output).returncode
