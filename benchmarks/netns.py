"""A bridge of this run's own, and network namespaces on it: what a container engine's network does,
for runtimes that leave it to others. By ip(8), whose words anybody can repeat.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess

from benchmarks.arms.base import ArmFailed, Skip
from benchmarks.command import PATH, environment, tidy

# RFC 2544 keeps this network for benchmarks: no host has it.
HOST, GUESTS, PREFIX = "198.18.0.1", "198.18.0.{}", 24
_numbers = itertools.count()


def tool() -> str:
    """Path of ip(8); "" without it."""
    return shutil.which("ip", path=PATH) or ""


def why_not() -> Skip | None:
    """Why there can be no bridge here."""
    if os.geteuid() != 0:
        return Skip("only root may make a bridge and addresses on it", "use sudo")
    if not tool():
        return Skip("ip is not installed", "apt-get install iproute2")
    return None


def bridge(pid: int) -> str:
    """Name of the bridge of this harness; all its interfaces begin like that."""
    return f"bn{pid}b"


def make_bridge() -> None:
    """Raises ArmFailed."""
    name = bridge(os.getpid())
    _batch(f"link add {name} type bridge", f"addr add {HOST}/{PREFIX} dev {name}")
    _batch(f"link set {name} up")


class Namespace:
    """A network namespace with an address on this harness's bridge. Raises ArmFailed."""

    def __init__(self) -> None:
        number = next(_numbers)
        self.name = f"bench-{os.getpid()}-{number}"
        self.path = f"/run/netns/{self.name}"
        self.address = GUESTS.format(2 + number % 250)
        outside = f"bn{os.getpid()}-{number % 1000}"
        try:
            _batch(
                f"netns add {self.name}",
                f"link add {outside} type veth peer name eth0 netns {self.name}",
                f"link set {outside} master {bridge(os.getpid())} up",
            )
            _batch(
                f"addr add {self.address}/{PREFIX} dev eth0", "link set eth0 up", "link set lo up",
                inside=self.name,
            )  # fmt: skip
        except BaseException:
            self.delete()
            raise

    def delete(self) -> None:
        """The pair of interfaces goes with it."""
        tidy([tool(), "netns", "delete", self.name])


def remove_those_of(pid: int) -> None:
    """The bridge and the namespaces of a harness; safe to call twice."""
    names = os.listdir("/run/netns") if os.path.isdir("/run/netns") else []
    for name in names:
        if name.startswith(f"bench-{pid}-"):
            tidy([tool(), "netns", "delete", name])
    if os.path.exists(f"/sys/class/net/{bridge(pid)}"):
        tidy([tool(), "link", "delete", bridge(pid)])


def _batch(*lines: str, inside: str = "") -> None:
    words = [tool(), *(["-n", inside] if inside else []), "-batch", "-"]
    done = subprocess.run(
        words, input="\n".join(lines), env=environment(), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ArmFailed(f"ip -batch: {said[0]}")
