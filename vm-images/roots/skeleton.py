"""What both root trees get: the probe, and what a container runtime or a kernel mounts over."""

from __future__ import annotations

import os
import shutil

MOUNT_POINTS = {"proc": 0o555, "sys": 0o555, "dev": 0o755, "run": 0o755, "tmp": 0o1777}

HOSTS = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"


def write(tree: str, path: str, text: str, mode: int = 0o644) -> None:
    """A file of the tree, never through a link that is there already."""
    where = os.path.join(tree, path)
    os.makedirs(os.path.dirname(where), exist_ok=True)
    if os.path.lexists(where):
        os.unlink(where)
    with open(where, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(where, mode)


def complete(tree: str, name: str, probe: str) -> None:
    """Add /probe, the mount points, and the files that runtimes put theirs in place of.

    Nothing of the build host (its name, its name servers) stays in the tree.
    """
    for path, mode in MOUNT_POINTS.items():
        where = os.path.join(tree, path)
        os.makedirs(where, exist_ok=True)
        os.chmod(where, mode)
    write(tree, "etc/hostname", f"{name}\n")
    write(tree, "etc/hosts", HOSTS)
    write(tree, "etc/resolv.conf", "")
    shutil.copyfile(probe, os.path.join(tree, "probe"))
    os.chmod(os.path.join(tree, "probe"), 0o755)
    os.chmod(tree, 0o755)
