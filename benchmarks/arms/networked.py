"""Arms with an address of their own, whose payload answers on it: the benchmarks `ready` and
`network`.

The payload says that its port is open; only then is it connected to. So nobody is polled.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from benchmarks import netns, roots
from benchmarks.arms.base import Arm, ArmFailed, Skip
from benchmarks.arms.docker import Docker
from benchmarks.arms.oci import BundleArm, OciRuntime
from benchmarks.arms.podman import Podman
from benchmarks.arms.process import CommandArm
from benchmarks.arms.runtime import OURS, Run
from benchmarks.arms.vm import VirtualMachine, vm_arms
from benchmarks.command import PATH, output_of, tidy
from benchmarks.held import Ear, Held

PORT = 7007
SERVE = ["/probe", "serve", str(PORT)]
ROOT = "busybox"
TIMEOUT_S = 20.0


class Networked(Arm):
    """Another arm, with a network: this one's name and facts are that one's."""

    net_mode = "bridge"

    def __init__(self, arm: Arm) -> None:
        super().__init__()
        self.arm = arm
        self.name, self.kind, self.runtime, self.root = arm.name, arm.kind, arm.runtime, arm.root
        self.runtime_version, self.tool, self.channel = arm.runtime_version, arm.tool, arm.channel
        self.params = arm.params

    def unavailable(self) -> Skip | None:
        return self.arm.unavailable()

    def prepare(self) -> None:
        self.arm.prepare()

    def ready(self) -> tuple[int, int]:
        """(t0, t7): the request, and the first byte of a reply on its own address. Leaves nothing.
        Raises ArmFailed.
        """
        raise NotImplementedError

    @contextmanager
    def serving(self, words: list[str]) -> Iterator[str]:
        """An instance that runs a server of its root tree, which signals on its stdout when it
        listens; yields its address. Raises ArmFailed.
        """
        raise NotImplementedError

    def fix_for(self, failure: str) -> str:
        return self.arm.fix_for(failure)

    def close(self) -> None:
        self.arm.close()


class OnOurBridge(Networked):
    """For runtimes that leave the network to others: a namespace with an address is made for each
    start, within the time that is measured, on the benchmark's bridge.

    join: makes the arm's next instance use that namespace.
    """

    def __init__(self, arm: Arm, join: Callable[[netns.Namespace], None]) -> None:
        super().__init__(arm)
        self.join = join
        self.params["network"] = "bridge; a namespace and a pair of veth for each, by ip -batch"

    def unavailable(self) -> Skip | None:
        return netns.why_not() or super().unavailable()

    def ready(self) -> tuple[int, int]:
        asked = time.monotonic_ns()
        with self._held(SERVE) as (one, address):
            return asked, _replied(one, address)

    @contextmanager
    def serving(self, words: list[str]) -> Iterator[str]:
        with self._held(words) as (one, address), stopped(one):
            yield address

    @contextmanager
    def _held(self, words: list[str]) -> Iterator[tuple[Held, str]]:
        """An instance in a namespace of its own, which is deleted at the end."""
        ear, namespace = Ear(), None
        try:
            namespace = netns.Namespace()
            self.join(namespace)
            yield self.arm.hold(ear, words), namespace.address
        finally:
            ear.close()
            if namespace:
                namespace.delete()


class Engine(Networked):
    """An engine with a network of its own, which is made before the clock starts."""

    def __init__(self, arm: Podman | Docker, subnet: str) -> None:
        super().__init__(arm)
        self.engine = arm
        self.subnet = subnet
        self.network = ""
        self.params["network"] = "bridge, the engine's own"

    def prepare(self) -> None:
        super().prepare()
        name = f"bench-{os.getpid()}"
        self.network = name  # it may be there although its creation failed
        output_of([*self.engine.base, "network", "create", "--subnet", f"{self.subnet}.0/24", name])
        self.engine.network = ["--network", name, "--ip", f"{self.subnet}.2"]

    def ready(self) -> tuple[int, int]:
        ear = Ear(self.engine.fifo)
        try:
            one = self.engine.hold(ear, SERVE)
            return one.t0, _replied(one, f"{self.subnet}.2")
        finally:
            ear.close()

    def fix_for(self, failure: str) -> str:
        return "a bridge network of this engine is needed; by hand: " + " ".join(
            [*getattr(self.engine, "base", [self.engine.tool]), "network", "create", "test"]
        )

    def close(self) -> None:
        if self.network:
            tidy([*self.engine.base, "network", "rm", self.network])
            self.network = ""
        super().close()


class Machine(Networked):
    """A virtual machine whose tier has a network card: its driver knows the way."""

    def __init__(self, arm: VirtualMachine) -> None:
        super().__init__(arm)
        self.vm = arm
        self.tier, self.net_mode = arm.tier, arm.net_mode

    def prepare(self) -> None:
        super().prepare()
        self.accel = self.vm.accel

    def ready(self) -> tuple[int, int]:
        with self.vm.machine() as machine:
            machine.start(self.vm.timeout_s)
            return machine.asked, machine.ready(self.vm.timeout_s)


def _replied(one: Held, address: str) -> int:
    """When the first byte of a reply was there; the instance is stopped then. Raises ArmFailed."""
    try:
        with stopped(one), socket.create_connection((address, PORT), TIMEOUT_S) as link:
            byte = link.recv(1)
            now = time.monotonic_ns()
    except OSError as error:
        raise ArmFailed(f"no reply from {address}: {error}") from error
    if byte != b"r":
        raise ArmFailed(f"{address} closed the connection without a reply")
    return now


@contextmanager
def stopped(one: Held) -> Iterator[None]:
    """At the end of the block it is."""
    try:
        yield
    finally:
        with suppress(ArmFailed):
            one.stop()


def in_namespace(name: str, program: list[str], root: str) -> Networked:
    """`ip netns exec`: an address, and what the program's words before its last one add."""
    arm = CommandArm(name, [netns.tool(), "netns", "exec", "", *program], root)
    arm.runtime = f"ip {name.partition(':')[0]}"

    def join(namespace: netns.Namespace) -> None:
        arm.argv[3] = namespace.name

    return OnOurBridge(arm, join)


def bundled(arm: BundleArm) -> Networked:
    """A runtime: its bundle names the namespace by its path. A user namespace could not own it."""

    def join(namespace: netns.Namespace) -> None:
        linux = arm.spec["linux"]
        linux["namespaces"] = [
            {"type": "network", "path": namespace.path} if kind["type"] == "network" else kind
            for kind in linux["namespaces"]
            if kind["type"] != "user"
        ]
        for maps in ("uidMappings", "gidMappings"):
            linux.pop(maps, None)

    return OnOurBridge(arm, join)


def networked_arms() -> list[Arm]:
    engines = [Engine(Podman(ROOT), "198.18.1"), Engine(Docker(ROOT), "198.18.2")]
    runtimes = [Run(OURS, ROOT), OciRuntime("runc", ROOT), OciRuntime("crun", ROOT)]
    machines = [
        Machine(arm) for arm in vm_arms() if isinstance(arm, VirtualMachine) and arm.tier == "full"
    ]
    chroot = [shutil.which("chroot", path=PATH) or "chroot", roots.tree(ROOT), "/probe"]
    process = in_namespace(f"netns+chroot:{ROOT}", chroot, ROOT)
    return [process, *map(bundled, runtimes), *engines, *machines]
