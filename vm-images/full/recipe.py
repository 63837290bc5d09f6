"""full/debian.raw: a whole machine's disk. The firmware starts GRUB, GRUB the kernel, the kernel
its initramfs, that systemd; and systemd starts the probe, a service of multi-user.target.
"""

from __future__ import annotations

import os

from kit.recipe import Recipe, Work
from machine import disk, tree
from micro.command_line import FULL
from roots import skeleton

FILES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "files")
MEGABYTES = 640  # some 350 of them free; holes take no room


def make(work: Work) -> dict[str, str]:
    top = tree.unpack(work, work.output["base/machine.tar"], "full")
    tree.add_files(top, FILES)
    tree.enable(top, "probe.service", "multi-user.target")
    tree.enable(top, "ready.service", "multi-user.target")
    tree.use_networkd(top)
    disk.write(work, top, MEGABYTES, FULL)
    kernel = os.path.basename(os.readlink(os.path.join(top, "vmlinuz")))
    return {"kernel": kernel.removeprefix("vmlinuz-")}


def files() -> tuple[str, ...]:
    return tuple(os.path.join(top, name) for top, _, names in os.walk(FILES) for name in names)


SOURCES = (__file__, disk.__file__, tree.__file__, skeleton.__file__, *sorted(files()))
RECIPES = [
    Recipe("full/debian.raw", "full", make, SOURCES, ("base/machine.tar", "probe/probe"),
           lambda: {"command line": FULL}),
]  # fmt: skip
