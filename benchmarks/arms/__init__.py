"""The arms: one small file for each family, one list for each benchmark."""

from __future__ import annotations

from benchmarks.arms.base import Arm

BENCHES = ("start", "runtime")


def arms_of(bench: str) -> list[Arm]:
    """`start`: everything that can run the probe. `runtime`: what this project's OCI runtime is
    held against, on one complete bundle.
    """
    from benchmarks.arms.runtime import runtime_arms

    return runtime_arms() if bench == "runtime" else all_arms()


def every_arm() -> list[Arm]:
    """The arms of all benchmarks, each once: whose names a stored plan may hold."""
    named = {arm.name: arm for bench in BENCHES for arm in arms_of(bench)}
    return list(named.values())


def all_arms() -> list[Arm]:
    """Every arm of the benchmark `start`, runnable here or not, in the order of the report."""
    from benchmarks.arms.bubblewrap import Bubblewrap
    from benchmarks.arms.docker import Docker
    from benchmarks.arms.minicontainer import minicontainer_arms
    from benchmarks.arms.oci import oci_arms
    from benchmarks.arms.podman import Podman
    from benchmarks.arms.process import process_arms
    from benchmarks.arms.vm import vm_arms

    containers = [Bubblewrap("busybox"), *oci_arms(), Podman("busybox"), Docker("busybox")]
    return [*process_arms(), *minicontainer_arms(), *containers, *vm_arms()]
