"""The arms: one small file for each family."""

from __future__ import annotations

from benchmarks.arms.base import Arm


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
