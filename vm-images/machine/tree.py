"""base/machine.tar unpacked, with files of ours in it: what a disk is filled from."""

from __future__ import annotations

import os
import shutil

from kit import tools
from kit.recipe import Work
from roots import skeleton

FSTAB = "/dev/root / ext4 defaults 0 1\n"
UNITS = "etc/systemd/system"


def unpack(work: Work, archive: str, name: str) -> str:
    """Without /dev/*, which the kernel fills itself. Returns the tree's path."""
    tree = os.path.join(work.scratch, "tree")
    os.mkdir(tree)
    argv = [tools.find("tar", "tar"), "-x", "-p", "-f", archive, "-C", tree, "--exclude=./dev/*"]
    work.tools.run(argv, "python vm-images/build.py full --force makes the archive anew")
    skeleton.complete(tree, name, work.output["probe/probe"])
    skeleton.write(tree, "etc/fstab", FSTAB)
    return tree


def add_files(tree: str, directory: str) -> None:
    """Every file below `directory`, at the same path in the tree."""
    for top, _, names in os.walk(directory):
        for name in sorted(names):
            path = os.path.join(top, name)
            where = os.path.join(tree, os.path.relpath(path, directory))
            os.makedirs(os.path.dirname(where), exist_ok=True)
            shutil.copyfile(path, where)
            os.chmod(where, 0o755 if os.access(path, os.X_OK) else 0o644)


def enable(tree: str, unit: str, target: str) -> None:
    """What `systemctl enable` does: `target` wants the unit."""
    wants = os.path.join(tree, UNITS, f"{target}.wants")
    os.makedirs(wants, exist_ok=True)
    ours = os.path.join(tree, UNITS, unit)
    home = f"/{UNITS}" if os.path.exists(ours) else "/usr/lib/systemd/system"
    os.symlink(f"{home}/{unit}", os.path.join(wants, unit))


def use_networkd(tree: str) -> None:
    enable(tree, "systemd-networkd.service", "multi-user.target")
    enable(tree, "systemd-networkd.socket", "sockets.target")
    enable(tree, "systemd-networkd-wait-online.service", "network-online.target")
