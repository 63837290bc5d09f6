"""Virtual machines through libvirt: the same probe as a boot sector's one instruction (nano), and
as the init of a Linux guest made of the same root tree (micro, direct).
"""

from __future__ import annotations

import os
import re
from types import ModuleType

from benchmarks import roots
from benchmarks.arms.base import Arm, ArmFailed, Phase, Shot, Skip

_GUEST_CLOCK = re.compile(rb"mono_ns=(\d+)")
TIMEOUT_S = 60.0  # emulated, on a loaded machine


def _hypervisor() -> ModuleType:
    """Only when a machine is asked for: libvirt-python may be missing (ImportError)."""
    from benchmarks import hypervisor

    return hypervisor


class VirtualMachine(Arm):
    """One tier on one root (nano has none), on KVM where that works for it."""

    kind = "vm"
    runtime = "libvirt/qemu"
    channel = "isa-debugcon socket"
    net_mode = "none"

    def __init__(self, tier: str, root: str = "") -> None:
        super().__init__()
        self.tier = tier
        self.root = root
        self.name = f"vm-{tier}:{root}" if root else f"vm-{tier}"
        self.tool = f"/usr/bin/qemu-system-{os.uname().machine}"
        self.kvm = False
        self.domain = self.name.replace(":", "-")
        self.params["isolation"] = "own kernel, own machine" if root else "own machine, no kernel"

    def unavailable(self) -> Skip | None:
        if os.uname().machine != "x86_64":
            return Skip("the guests signal through an I/O port: x86 only", "use an x86-64 host")
        try:
            _hypervisor().connection()
        except ImportError as error:
            return Skip(f"libvirt-python: {error}", "sudo ./workshop setup")
        except ArmFailed as failure:
            fix = "sudo systemctl start libvirtd (without systemd: use ./workshop compare)"
            return Skip(f"no libvirt: {failure}", fix)
        return roots.missing_guest(self.root)

    def prepare(self) -> None:
        self.runtime_version = _hypervisor().version()
        chosen = _hypervisor().accelerator(linux=bool(self.root))
        self.kvm = chosen.kvm
        self.accel = chosen.badge
        self.params["why_not_kvm"] = chosen.why_not_kvm
        self.params["domain_xml"] = self._xml()
        if self.root:
            self.params["kernel_command_line"] = roots.guest(self.root).command_lines[self.tier]

    def _xml(self) -> str:
        from benchmarks import domain

        consoles = domain.Consoles("SOCKET")
        return domain.xml(self.domain, self.tier, self.root, kvm=self.kvm, consoles=consoles)

    def shoot(self) -> Shot:
        return self._shoot(traced=False)

    def shoot_traced(self) -> Shot:
        return self._shoot(traced=True)

    def _shoot(self, traced: bool) -> Shot:
        times = _hypervisor().boot(
            self.domain, self.tier, self.root, kvm=self.kvm, timeout_s=TIMEOUT_S, traced=traced
        )
        return Shot(
            times.asked, times.heard, times.gone, phases(times, linux=bool(self.root)), times.cpu_ms
        )

    def fix_for(self, failure: str) -> str:
        if "Permission denied" in failure:
            return "see `virsh domcapabilities`, and the owner of /dev/kvm"
        return "sudo ./workshop doctor; `virsh list --all` shows what libvirt knows"

    def close(self) -> None:
        try:
            _hypervisor().remove_logs(self.domain)
        except ImportError:
            return


def phases(times, linux: bool) -> list[Phase]:
    """t0 … t9 of the design. The kernel's entry is the payload's time less the guest's uptime."""
    marks = [("libvirt starts QEMU", times.connected)]
    clock = _GUEST_CLOCK.search(times.data)
    entry = times.heard - int(clock[1]) if linux and clock else times.heard
    if times.firmware is not None and times.connected < times.firmware < entry:
        marks.append(("QEMU makes the machine", times.firmware))
        rest = "firmware"
    else:
        rest = "QEMU makes the machine, firmware"
    if linux and times.connected < entry < times.heard:
        marks.append((f"{rest}, loading the kernel", entry))
        rest = "kernel, to its init"
    marks.append((rest, times.heard))
    found, start = [], times.asked
    for name, end in marks:
        found.append(Phase(name, start, end))
        start = end
    found.append(Phase("end", times.stopping, times.gone))
    return found


def vm_arms() -> list[Arm]:
    guests = [
        VirtualMachine(tier, root) for tier in ("micro", "direct") for root in ("busybox", "debian")
    ]
    return [VirtualMachine("nano"), *guests]
