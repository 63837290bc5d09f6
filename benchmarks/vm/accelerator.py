"""KVM or emulation: what really boots here, found by doing, and the badge that says which."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass

from benchmarks.arms.base import ArmFailed
from benchmarks.vm.driver import boot

# A boot that works takes a tenth of it; one that takes longer is emulated faster than this.
KVM_NANO_S, KVM_LINUX_S = 2.5, 5.0


@dataclass(frozen=True)
class Accelerator:
    """kvm: whether guests run on it. badge: 'kvm', 'kvm (nested)', 'kvm (pvm)' or 'tcg'."""

    kvm: bool
    badge: str
    why_not_kvm: str = ""


@functools.cache
def accelerator(linux: bool) -> Accelerator:
    """What boots: a boot sector, or (`linux`) a Linux kernel.

    Some hosts have a /dev/kvm that runs the first and not the second (nested PVM).
    """
    if not os.path.exists("/dev/kvm"):
        return Accelerator(False, "tcg", "there is no /dev/kvm")
    if linux:
        first = accelerator(linux=False)
        if not first.kvm:
            return first
    try:
        tier, root = ("micro", "busybox") if linux else ("nano", "")
        seconds = KVM_LINUX_S if linux else KVM_NANO_S
        boot(f"kvm-{tier}", tier, root, kvm=True, timeout_s=seconds)
    except ArmFailed as failure:
        return Accelerator(False, "tcg", f"tried KVM with the {tier} guest: {failure}")
    return Accelerator(True, _kvm_badge())


def _kvm_badge() -> str:
    if os.path.isdir("/sys/module/kvm_pvm"):
        return "kvm (pvm)"
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        flags = next((line for line in file if line.startswith("flags")), "")
    return "kvm (nested)" if "hypervisor" in flags.split() else "kvm"
