"""memspeed: how fast memory is written, and how fast pages are given."""

from __future__ import annotations

from benchmarks.benches.tools import Load, Tools


class Memspeed(Tools):
    name = rows = "memspeed"
    title = "memory bandwidth and page faults, by sysbench and stress-ng"
    metric = "memspeed.sysbench.write"
    unit = "MiB/s"
    direction = "higher"
    loads = (
        Load(
            "sysbench.write", "sysbench",
            "sysbench memory --memory-block-size=1M --memory-total-size=100T --time=1 run",
            r"\(([\d.]+) MiB/sec\)", "MiB/s", "higher",
        ),
        Load(
            "stress-ng.fault", "stress-ng", "stress-ng --fault 1 --timeout 1 --metrics-brief",
            r"fault +\d+ +[\d.]+ +[\d.]+ +[\d.]+ +([\d.]+)", "bogo ops/s", "higher",
        ),
    )  # fmt: skip


BENCH = Memspeed()
