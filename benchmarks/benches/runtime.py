"""runtime: this project's OCI runtime beside those it is held against, on a complete bundle."""

from __future__ import annotations

from benchmarks.arms.base import Arm
from benchmarks.arms.runtime import runtime_arms
from benchmarks.benches.start import Start


class Runtime(Start):
    name = "runtime"
    title = "OCI runtimes on one complete bundle: this project's budgets"

    def arms(self, quick: bool = False) -> list[Arm]:
        return runtime_arms()


BENCH = Runtime()
