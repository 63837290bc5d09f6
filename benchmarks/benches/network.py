"""network: from the host to a server in the instance and back. An instance has an address on a
bridge of the host, through a pair of veth or a virtio card; a plain process the host's loopback.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from benchmarks import netns, roots
from benchmarks.arms.base import Arm, Skip
from benchmarks.arms.equipped import Equipped
from benchmarks.arms.networked import Networked, bundled, in_namespace, stopped
from benchmarks.arms.oci import OciRuntime
from benchmarks.arms.runtime import OURS, Run
from benchmarks.benches.base import Size, Value
from benchmarks.benches.tools import Host, Load, Tools
from benchmarks.command import output_of
from benchmarks.held import Ear
from benchmarks.rows import Where

ADDRESS = "198.18.0.254"  # of the machine; netns.py gives those up to .251
PORTS = (5201, 5202)  # one for each test: iperf3 opens its port anew after one, and a guest is slow
# iperf3 says at once that it listens. The probe says it on, and ends the others when nobody hears
# it any more.
SERVER = """\
listen() {{ {iperf3} --server --port $1 --interval 0 --forceflush 2>&1; }}
exec 3>&1
{qperf} >/dev/null 2>&1 &
listen {ports[0]} | {{
    read -r one
    listen {ports[1]} | {{
        read -r two
        case $one$two in
        ---*---*) {here}/probe stay >&3 ;;
        *) echo "$one $two" >&2 ;;
        esac
        kill -9 0
    }}
}}
"""


class Loopback(Networked):
    """A server as a plain process of the host."""

    net_mode = ""

    @contextmanager
    def serving(self, words: list[str]) -> Iterator[str]:
        ear = Ear()
        try:
            with stopped(self.arm.hold(ear, words)):
                yield "127.0.0.1"
        finally:
            ear.close()


class Card(Networked):
    """A server in a guest with a card on the benchmark's bridge."""

    def __init__(self, arm: Equipped) -> None:
        super().__init__(arm)
        self.vm, self.tier = arm, arm.tier
        self.params["network"] = "bridge; a tap and a virtio card"

    def unavailable(self) -> Skip | None:
        return netns.why_not() or super().unavailable()

    def prepare(self) -> None:
        super().prepare()
        self.accel, self.runtime_version = self.vm.accel, self.vm.runtime_version

    @contextmanager
    def serving(self, words: list[str]) -> Iterator[str]:
        from benchmarks.vm import machines

        up = f"ifconfig eth0 {ADDRESS} netmask 255.255.255.0 up"
        script = ["/bin/sh", "-c", f"{up}\n{shlex.join(words)}"]
        with machines.running(self.vm, script, self.vm.extra()):
            yield ADDRESS


def _card() -> str:
    return (
        f"<interface type='bridge'><source bridge='{netns.bridge(os.getpid())}'/>"
        "<model type='virtio'/><rom enabled='no'/></interface>"
    )


class Network(Tools):
    name = rows = "network"
    title = "latency and throughput from the host to an instance, by qperf and iperf3"
    metric = "network.qperf.tcp_latency"
    unit = "ns"
    loads = (
        Load(
            "qperf.tcp_latency", "qperf", "qperf --unify_units --time 1 ADDRESS tcp_lat",
            r"latency += +([\d.]+) ns", "ns", "lower",
        ),
        Load(
            "iperf3.in", "iperf3",
            f"iperf3 --client ADDRESS --port {PORTS[0]} --time 1 --format m",
            r"([\d.]+) Mbits/sec +receiver", "Mbit/s", "higher",
        ),
        Load(
            "iperf3.out", "iperf3",
            f"iperf3 --client ADDRESS --port {PORTS[1]} --time 1 --format m --reverse",
            r"([\d.]+) Mbits/sec +receiver", "Mbit/s", "higher",
        ),
    )  # fmt: skip

    def arms(self, quick: bool = False) -> list[Arm]:
        root = roots.TOOLS
        containers = [bundled(Run(OURS, root)), bundled(OciRuntime("runc", root))]
        machines = [Card(Equipped(tier, root, _card)) for tier in ("micro", "direct")]
        processes = [Loopback(Host()), in_namespace("netns", [""], root)]
        return [*processes, *containers, *machines]

    @property
    def able(self) -> list[Load]:
        """All or none: both tools' servers are in one instance."""
        return list(self.loads) if all(load.program for load in self.loads) else []

    def unavailable(self, arm: Arm) -> Skip | None:
        lacking = [load.missing() for load in self.loads if not load.program]
        return lacking[0] if lacking else super().unavailable(arm)

    def prepare(self, size: Size) -> None:
        super().prepare(size)
        if netns.why_not() is None:
            netns.make_bridge()

    def values(self, arm: Arm, where: Where) -> Iterable[Value]:
        assert isinstance(arm, Networked)
        programs = {load.words.split()[0]: load.program for load in self.loads}
        here = self.variables(arm)["HERE"]
        script = SERVER.format(here=here and shlex.quote(here), ports=PORTS, **programs)
        with arm.serving(["/bin/sh", "-c", script]) as address:
            for load in self.loads:
                words = load.arguments.replace("ADDRESS", address).split()
                yield self.found(load, output_of([load.program, *words]))

    def close(self) -> None:
        netns.remove_those_of(os.getpid())
        super().close()


BENCH = Network()
