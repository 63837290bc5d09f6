"""The floor: the probe as a plain process, and the namespaces that util-linux can make without any
runtime.
"""

from __future__ import annotations

import os
import shutil

from benchmarks import roots
from benchmarks.arms.base import Arm, Shot, Skip
from benchmarks.command import PATH, output_of, shoot_command
from benchmarks.held import Ear, Foreground, Held
from benchmarks.version import first_line


class CommandArm(Arm):
    """An arm that is one command line, the probe its last word, and nothing to prepare."""

    kind = "process"

    def __init__(self, name: str, argv: list[str], root: str = "") -> None:
        super().__init__()
        self.name = name
        self.argv = argv
        self.root = root
        self.params["command"] = argv

    def unavailable(self) -> Skip | None:
        return roots.missing(self.root or "busybox")

    def shoot(self) -> Shot:
        return shoot_command(self.argv)

    def hold(self, ear: Ear, words: list[str] | None = None) -> Held:
        return Foreground([*self.argv[:-1], *(words or [self.argv[-1], "stay"])], ear)

    def capture(self, words: list[str]) -> str:
        return output_of([*self.argv[:-1], *words])


class ForkExec(CommandArm):
    """fork + exec of the probe, on the host: what the kernel itself costs, and the most the harness
    can add.
    """

    runtime = "fork+exec"

    def __init__(self) -> None:
        probe = os.path.join(roots.tree("busybox"), "probe")
        super().__init__("fork+exec", [probe])
        self.runtime_version = os.uname().release
        self.params["isolation"] = "none"

    def capture(self, words: list[str]) -> str:
        return output_of([roots.tree("busybox") + words[0], *words[1:]])


class UnshareChroot(CommandArm):
    """unshare(1) and chroot(1): namespaces without mounts, pivot_root, capabilities or cgroup."""

    runtime = "unshare+chroot"

    def __init__(self, root: str) -> None:
        self.tool = shutil.which("unshare", path=PATH) or "unshare"
        chroot = shutil.which("chroot", path=PATH) or "chroot"
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        spaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--fork"]
        argv = [self.tool, *user, *spaces, chroot, roots.tree(root), "/probe"]
        super().__init__(f"unshare+chroot:{root}", argv, root)
        self.runtime_version = first_line(self.tool)
        self.net_mode = "none"
        self.params["isolation"] = "6 namespaces, chroot; no mounts, no cgroup"

    def unavailable(self) -> Skip | None:
        if not os.path.isabs(self.tool):
            return Skip("unshare is not installed", "apt-get install util-linux")
        return super().unavailable()


def process_arms() -> list[Arm]:
    return [ForkExec(), UnshareChroot("busybox")]
