"""syscall: what goes through the kernel: a call that does nothing, a switch between two processes,
many that talk to each other, and fork.
"""

from __future__ import annotations

from benchmarks.benches.tools import Load, Tools

PER_OP = r"([\d.]+) usecs/op"


class Syscall(Tools):
    name = rows = "syscall"
    title = "system calls, context switches and fork, by perf bench, hackbench and stress-ng"
    metric = "syscall.perf.getppid"
    unit = "us/op"
    loads = (
        Load(
            "perf.getppid", "linux-perf", "perf bench syscall basic --loop 200000", PER_OP,
            "us/op", "lower",
        ),
        Load(
            "perf.pipe", "linux-perf", "perf bench sched pipe --loop 5000", PER_OP,
            "us/op", "lower",
        ),
        Load(
            "hackbench.time", "rt-tests", "hackbench -g 1 -l 50", r"Time: ([\d.]+)", "s", "lower",
        ),
        Load(
            "stress-ng.fork", "stress-ng", "stress-ng --fork 1 --timeout 1 --metrics-brief",
            r"fork +\d+ +[\d.]+ +[\d.]+ +[\d.]+ +([\d.]+)", "bogo ops/s", "higher",
        ),
    )  # fmt: skip


BENCH = Syscall()
