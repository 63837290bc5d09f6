"""bubblewrap: a sandbox by one small setuid-less C program, with every namespace but time."""

from __future__ import annotations

import shutil

from benchmarks import roots
from benchmarks.arms.base import Skip
from benchmarks.arms.process import CommandArm
from benchmarks.command import PATH
from benchmarks.version import first_line


class Bubblewrap(CommandArm):
    kind = "container"
    runtime = "bubblewrap"
    net_mode = "none"

    def __init__(self, root: str) -> None:
        self.tool = shutil.which("bwrap", path=PATH) or ""
        place = ["--bind", roots.tree(root), "/", "--proc", "/proc", "--dev", "/dev"]
        argv = [self.tool, "--unshare-all", "--hostname", "bench", *place, "/probe"]
        super().__init__(f"bubblewrap:{root}", argv, root)
        self.runtime_version = first_line(self.tool) if self.tool else ""
        self.params["isolation"] = "6 namespaces (user when needed), pivot_root, mounts; no cgroup"

    def unavailable(self) -> Skip | None:
        if not self.tool:
            return Skip("bubblewrap is not installed", "apt-get install bubblewrap")
        return super().unavailable()

    def fix_for(self, failure: str) -> str:
        return "allow unprivileged user namespaces, or run as root (see `minicontainer doctor`)"
