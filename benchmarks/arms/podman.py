"""podman, on the same root tree (`--rootfs`), with its storage and its state in directories of this
run.

podman's stdout passes through conmon and the client, so the payload signals on a FIFO that is
bind-mounted into the container instead; the tree is mounted through an overlay (`:O`) because
podman writes mount points into it.
"""

from __future__ import annotations

import itertools
import os
import shutil

from benchmarks import roots
from benchmarks.arms.base import Arm, Shot, Skip
from benchmarks.command import PATH, output_of, shoot_command, tidy
from benchmarks.dockerd import remove_cgroups
from benchmarks.held import Detached, Ear, Held, inspected, on_fifo
from benchmarks.version import first_line
from benchmarks.workdir import run_directory, storage_directory

CAP_SYS_RESOURCE = 24  # linux/capability.h


def may_raise_limits() -> bool:
    """Whether this process has CAP_SYS_RESOURCE; without it podman's default rlimits are refused
    (EPERM).
    """
    with open("/proc/self/status", encoding="ascii") as file:
        effective = next(line.split()[1] for line in file if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> CAP_SYS_RESOURCE & 1)


class Podman(Arm):
    kind = "container"
    runtime = "podman"
    net_mode = "none"
    channel = "fifo"

    def __init__(self, root: str) -> None:
        super().__init__()
        self.root = root
        self.name = f"podman:{root}"
        self.tool = shutil.which("podman", path=PATH) or ""
        self.ids = itertools.count()
        if self.tool:
            self.runtime_version = first_line(self.tool)
        # The reference runtime under podman too, where it is installed: the difference is then
        # podman itself.
        self.low = shutil.which("runc", path=PATH) or shutil.which("crun", path=PATH) or ""
        self.params["isolation"] = (
            f"as {os.path.basename(self.low)}, and overlay, conmon, cgroup, seccomp"
        )

    def unavailable(self) -> Skip | None:
        if not self.tool:
            return Skip("podman is not installed", "apt-get install podman")
        return roots.missing(self.root)

    def prepare(self) -> None:
        storage = os.path.join(storage_directory(), "podman")
        run = os.path.join(run_directory(), "podman")
        os.makedirs(run, exist_ok=True)
        self.fifo = os.path.join(run, "signal")
        if not os.path.exists(self.fifo):
            os.mkfifo(self.fifo)
        places = ["--root", storage, "--runroot", run, "--tmpdir", os.path.join(run, "tmp")]
        runtime = ["--runtime", self.low] if self.low else []
        # Without systemd as PID 1 nobody answers for podman's default cgroup manager and journal.
        if not os.path.isdir("/run/systemd/system"):
            runtime += ["--cgroup-manager=cgroupfs", "--events-backend=none"]
        limits = ["nofile=1024:1024", "nproc=1024:1024"] if not may_raise_limits() else []
        self.base = [self.tool, *places, *runtime]
        self.network = ["--network", "none"]
        self.options = ["--log-driver", "none"]
        self.options += [word for limit in limits for word in ("--ulimit", limit)]
        # podman would leave its default parent behind on hosts that had none.
        self.cgroup = f"bench-podman-{os.getpid()}"
        if os.geteuid() == 0 and "--cgroup-manager=cgroupfs" in runtime:
            self.options += ["--cgroup-parent", f"/{self.cgroup}"]
        self.options += ["--volume", f"{self.fifo}:/signal"]
        self.image = ["--rootfs", f"{roots.tree(self.root)}:O"]
        self.argv = [*self.base, "run", "--rm", *self.network, *self.options]
        self.payload = [*self.image, "/probe", "fifo", "/signal"]
        self.params["command"] = [*self.argv, *self.payload]

    def shoot(self) -> Shot:
        name = self._name()
        done = False
        try:
            shot = shoot_command([*self.argv, "--name", name, *self.payload], fifo=self.fifo)
            done = True
            return shot
        finally:
            if not done:
                self._podman("rm", "--force", "--time", "0", name)

    def hold(self, ear: Ear, words: list[str] | None = None) -> Held:
        name = self._name()
        start = [*self.base, "run", "--detach", "--name", name, *self.network, *self.options]
        stop = [*self.base, "rm", "--force", "--time", "0", name]
        return Detached(
            [*start, *self.image, *on_fifo(words)], stop, ear, lambda: inspected(self.base, name)
        )

    def capture(self, words: list[str]) -> str:
        return output_of(
            [*self.base, "run", "--rm", *self.network, *self.options, *self.image, *words]
        )

    def _name(self) -> str:
        return f"bench-{os.getpid()}-{next(self.ids)}"

    def _podman(self, *verb: str) -> None:
        tidy([*self.base, *verb])

    def fix_for(self, failure: str) -> str:
        return "see `podman info`, and try: " + " ".join(self.params.get("command", []))

    def close(self) -> None:
        if hasattr(self, "base"):
            self._podman("rm", "--all", "--force", "--time", "0")
            # podman keeps a bind mount of its own storage; `system reset` is its own way to undo
            # that.
            self._podman("system", "reset", "--force")
            remove_cgroups(self.cgroup)
            shutil.rmtree(os.path.join(storage_directory(), "podman"), ignore_errors=True)
            shutil.rmtree(os.path.join(run_directory(), "podman"), ignore_errors=True)
