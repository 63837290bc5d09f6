"""docker, through its daemon: the one that runs on this host, or a private one for the time of the
run.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess

from benchmarks import roots
from benchmarks.arms.base import Arm, ArmFailed, Shot, Skip
from benchmarks.command import PATH, environment, output_of, shoot_command, tidy
from benchmarks.dockerd import PrivateDaemon, answers
from benchmarks.held import Detached, Ear, Held, inspected, on_fifo
from benchmarks.version import first_line
from benchmarks.workdir import run_directory

SYSTEM_SOCKET = "/run/docker.sock"


class Docker(Arm):
    """`docker run --rm` of an image imported from the same root tree; the payload signals on a
    bind-mounted FIFO.
    """

    kind = "container"
    runtime = "docker"
    net_mode = "none"
    channel = "fifo"

    def __init__(self, root: str) -> None:
        super().__init__()
        self.root = root
        self.name = f"docker:{root}"
        self.image = f"bench-{os.getpid()}:{root}"
        self.tool = shutil.which("docker", path=PATH) or ""
        self.dockerd = shutil.which("dockerd", path=PATH) or ""
        if self.tool:
            self.runtime_version = first_line(self.tool)
        self.ids = itertools.count()
        self.daemon: PrivateDaemon | None = None
        self.imported = False
        self.params["isolation"] = "as runc, and image, overlay, containerd, cgroup, seccomp"

    def unavailable(self) -> Skip | None:
        if not self.tool:
            return Skip("docker is not installed", "apt-get install docker.io")
        if not answers(SYSTEM_SOCKET) and not self.dockerd:
            return Skip(
                "only docker's client is here, and no daemon answers", "apt-get install docker.io"
            )
        if not answers(SYSTEM_SOCKET) and os.geteuid() != 0:
            return Skip("no docker daemon answers, and only root can start one", "run with sudo")
        return roots.missing(self.root)

    def prepare(self) -> None:
        socket = SYSTEM_SOCKET
        if not answers(socket):
            self.daemon = PrivateDaemon(self.dockerd)
            self.daemon.start()
            socket = self.daemon.socket
        self.params["daemon"] = "private, started for this run" if self.daemon else "the host's"
        run = os.path.join(run_directory(), "docker-client")
        os.makedirs(run, exist_ok=True)
        self.fifo = os.path.join(run, "signal")
        if not os.path.exists(self.fifo):
            os.mkfifo(self.fifo)
        self.base = [self.tool, "--config", run, "--host", f"unix://{socket}"]
        self._import()
        self.network = ["--network", "none"]
        self.options = ["--log-driver", "none"]
        self.options += ["--volume", f"{self.fifo}:/signal"]
        self.argv = [*self.base, "run", "--rm", *self.network, *self.options]
        self.payload = [self.image, "/probe", "fifo", "/signal"]
        self.params["command"] = [*self.argv, *self.payload]

    def _import(self) -> None:
        """Make the image from the tree: docker has no way to run a plain directory."""
        tar = ["tar", "--directory", roots.tree(self.root), "--create", "--one-file-system", "."]
        with subprocess.Popen(tar, stdout=subprocess.PIPE, env=environment()) as archive:
            said = subprocess.run(
                [*self.base, "import", "-", self.image],
                stdin=archive.stdout,
                env=environment(),
                capture_output=True,
                text=True,
                check=False,
            )
        if said.returncode != 0 or archive.returncode != 0:
            raise ArmFailed(f"docker import: {said.stderr.strip()[-300:] or 'tar failed'}")
        self.imported = True

    def shoot(self) -> Shot:
        name = self._name()
        done = False
        try:
            shot = shoot_command([*self.argv, "--name", name, *self.payload], fifo=self.fifo)
            done = True
            return shot
        finally:
            if not done:
                self._docker("rm", "--force", name)

    def hold(self, ear: Ear, words: list[str] | None = None) -> Held:
        name = self._name()
        start = [*self.base, "run", "--detach", "--name", name, *self.network, *self.options]
        stop = [*self.base, "rm", "--force", name]
        return Detached(
            [*start, self.image, *on_fifo(words)], stop, ear, lambda: inspected(self.base, name)
        )

    def capture(self, words: list[str]) -> str:
        return output_of(
            [*self.base, "run", "--rm", *self.network, *self.options, self.image, *words]
        )

    def _name(self) -> str:
        return f"bench-{os.getpid()}-{next(self.ids)}"

    def _docker(self, *verb: str) -> None:
        tidy([*self.base, *verb])

    def fix_for(self, failure: str) -> str:
        return (
            "start docker's daemon (`systemctl start docker`, or by hand `dockerd`) and run again"
        )

    def close(self) -> None:
        if self.imported:
            self._docker("rmi", "--force", self.image)
            self.imported = False
        if self.daemon is not None:
            self.daemon.stop()
            self.daemon = None
        shutil.rmtree(os.path.join(run_directory(), "docker-client"), ignore_errors=True)
