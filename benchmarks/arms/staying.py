"""The arms that can hold an instance: one of each kind of container, on the small tree."""

from __future__ import annotations

from benchmarks.arms.base import Arm


def staying_arms(quick: bool = False) -> list[Arm]:
    """quick: without the machines whose start takes long."""
    from benchmarks.arms.bubblewrap import Bubblewrap
    from benchmarks.arms.docker import Docker
    from benchmarks.arms.minicontainer import Command
    from benchmarks.arms.oci import OciRuntime
    from benchmarks.arms.podman import Podman
    from benchmarks.arms.process import process_arms
    from benchmarks.arms.runtime import OURS, Run
    from benchmarks.arms.vm import vm_arms

    root = "busybox"
    ours = [Command(root), Run(OURS, root)]
    others = [Bubblewrap(root), OciRuntime("runc", root), OciRuntime("crun", root)]
    tiers = ("nano", "micro") if quick else ("nano", "micro", "direct", "full")
    machines = [
        arm
        for arm in vm_arms()
        if arm.tier in tiers and (arm.root != "debian" or arm.tier == "full")
    ]
    return [*process_arms(), *ours, *others, Podman(root), Docker(root), *machines]
