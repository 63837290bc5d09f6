"""The benchmarks: one file each, one small interface (`base.Bench`)."""

from __future__ import annotations

import importlib

from benchmarks.benches.base import Bench

# The words of --bench, in the order in which they are run.
NAMES = (
    "start", "cold", "runtime", "ready", "stop", "memory", "density", "isolation", "images",
    "libvirt", "cpu", "syscall", "memspeed", "disk", "network", "application",
)  # fmt: skip
# What --full and --quick run where --bench does not say. `runtime` is about this project's own
# budgets, not about containers and machines.
FULL = tuple(name for name in NAMES if name != "runtime")
QUICK = ("start", "stop", "memory", "density", "isolation", "images")


def bench(name: str) -> Bench:
    """The benchmark of that name, loaded only now. Raises ValueError for another name."""
    if name not in NAMES:
        raise ValueError(f"there is no benchmark {name!r}; there are: {', '.join(NAMES)}")
    module = importlib.import_module(f"benchmarks.benches.{name}")
    found: Bench = module.BENCH
    return found


def every_bench() -> list[Bench]:
    return [bench(name) for name in NAMES]
