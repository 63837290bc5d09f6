"""A private docker daemon for one run: own storage, own socket, no bridge, no firewall rules,
nothing left after it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import time

from benchmarks.arms.base import ArmFailed
from benchmarks.command import environment
from benchmarks.workdir import run_directory, storage_directory

START_S = 30.0
STOP_S = 30.0
# Made by dockerd and containerd whatever their options say; removed afterwards where they were not
# there before.
SIDE_EFFECTS = (
    "/run/docker/plugins",
    "/run/docker",
    "/run/containerd/s",
    "/run/containerd",
    "/opt/containerd/bin",
    "/opt/containerd/lib",
    "/opt/containerd",
    "/etc/docker",
)


class PrivateDaemon:
    """Started with `start`, stopped by pid with `stop`."""

    def __init__(self, dockerd: str) -> None:
        self.dockerd = dockerd
        self.storage = os.path.join(storage_directory(), "docker")
        self.run = os.path.join(run_directory(), "docker")
        self.socket = os.path.join(self.run, "docker.sock")
        self.log = os.path.join(self.run, "dockerd.log")
        self.cgroup = f"bench-docker-{os.getpid()}"
        self.process: subprocess.Popen[bytes] | None = None
        self.before: set[str] = set()

    def start(self) -> None:
        """Start the daemon and wait until it has written its pid file and listens. Raises
        ArmFailed.
        """
        os.makedirs(self.run, exist_ok=True)
        os.makedirs(self.storage, exist_ok=True)
        self.before = {path for path in SIDE_EFFECTS if os.path.exists(path)}
        config = os.path.join(self.run, "daemon.json")
        with open(config, "w", encoding="utf-8") as file:
            json.dump(self._options(), file)
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [self.dockerd, "--config-file", config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
                start_new_session=True,
            )
        with open(os.path.join(self.run, "pid"), "w", encoding="ascii") as file:
            file.write(str(self.process.pid))
        self._wait_until_ready()

    def _options(self) -> dict[str, object]:
        return {
            "data-root": self.storage,
            "exec-root": os.path.join(self.run, "exec"),
            "pidfile": os.path.join(self.run, "docker.pid"),
            "hosts": [f"unix://{self.socket}"],
            "cgroup-parent": f"/{self.cgroup}",
            "deprecated-key-path": os.path.join(self.run, "key.json"),
            "bridge": "none",
            "iptables": False,
            "ip6tables": False,
            "ip-forward": False,
        }

    def _wait_until_ready(self) -> None:
        """Ask the daemon's own /_ping until it answers; before the clock of any shot, so asking
        again is harmless.
        """
        assert self.process is not None
        ended = os.pidfd_open(self.process.pid)
        try:
            poller = select.poll()
            poller.register(ended, select.POLLIN)
            deadline = time.monotonic() + START_S
            while time.monotonic() < deadline:
                if answers(self.socket):
                    return
                if poller.poll(50):
                    break
            raise ArmFailed(f"dockerd did not start: {self._last_error()}")
        finally:
            os.close(ended)

    def _last_error(self) -> str:
        with open(self.log, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file if line.strip()]
        failed = [line for line in lines if "failed to" in line or "level=fatal" in line]
        return (failed or lines or ["it said nothing"])[-1][:300]

    def stop(self) -> None:
        """Stop it by pid (it stops its containerd), then remove its directories and cgroups."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
            self.process = None
        clean_up(self.storage, self.run, self.cgroup, self.before)


def wait_for_end(pidfd: int) -> None:
    """Wait until the process ends, STOP_S at most."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    poller.poll(int(STOP_S * 1000))


def answers(socket: str) -> bool:
    """Whether a docker daemon answers on this unix socket."""
    import http.client
    import socket as sockets

    connection = http.client.HTTPConnection("localhost", timeout=5)
    try:
        with sockets.socket(sockets.AF_UNIX) as link:
            link.settimeout(5)
            link.connect(socket)
            connection.sock = link
            connection.request("GET", "/_ping")
            return connection.getresponse().status == 200
    except OSError:
        return False


def clean_up(storage: str, run: str, cgroup: str, before: set[str]) -> None:
    """Unmount and remove what a stopped daemon leaves."""
    for mount in reversed(_mounts_under(storage, run)):
        subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
    shutil.rmtree(storage, ignore_errors=True)
    shutil.rmtree(run, ignore_errors=True)
    remove_cgroups(cgroup)
    for path in SIDE_EFFECTS:
        if path not in before:
            with contextlib.suppress(OSError):  # not empty means that somebody else uses it now
                os.rmdir(path)


def remove_cgroups(name: str) -> None:
    """Remove the cgroups of this name, in every hierarchy, with all below them."""
    for directory, _, _ in os.walk("/sys/fs/cgroup", topdown=False):
        if name in directory.split("/"):
            with contextlib.suppress(OSError):
                os.rmdir(directory)


def _mounts_under(*directories: str) -> list[str]:
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        points = [line.split()[4] for line in file]
    return [
        point
        for point in points
        if point.startswith(tuple(f"{d}/" for d in directories)) or point in directories
    ]
