"""cpu: computation. What isolates costs nothing here, unless instructions are emulated."""

from __future__ import annotations

from benchmarks.benches.tools import Load, Tools


class Cpu(Tools):
    name = rows = "cpu"
    title = "computation, by sysbench and stress-ng"
    metric = "cpu.sysbench.primes"
    unit = "events/s"
    direction = "higher"
    loads = (
        Load(
            "sysbench.primes", "sysbench", "sysbench cpu --threads=1 --time=1 run",
            r"events per second:\s*([\d.]+)", "events/s", "higher",
        ),
        Load(
            "stress-ng.matrix", "stress-ng",
            "stress-ng --matrix 1 --matrix-method prod --timeout 1 --metrics-brief",
            r"matrix +\d+ +[\d.]+ +[\d.]+ +[\d.]+ +([\d.]+)", "bogo ops/s", "higher",
        ),
    )  # fmt: skip


BENCH = Cpu()
