"""Virtual machines through libvirt: the same probe as a boot sector's one instruction (nano), as
the init of a Linux guest made of the same root tree (micro, direct), and as a service of a whole
system with the same packages (full).
"""

from __future__ import annotations

import os
import re
from types import ModuleType
from typing import Any

from benchmarks import roots
from benchmarks.arms.base import Arm, ArmFailed, Phase, Shot, Skip
from benchmarks.held import Ear, Held

_GUEST_CLOCK = re.compile(rb"mono_ns=(\d+)")
# What differs between the tiers beside their machines; one and the same build.
KERNELS = {
    "micro": "unpacked (ELF, entered by PVH), so at a fixed address: no KASLR",
    "direct": "as it comes (bzImage): unpacks itself at a random address",
    "full": "as it comes (bzImage), read by GRUB from the disk",
}
TIMEOUT_S, FULL_TIMEOUT_S = 60.0, 300.0  # emulated, on a loaded machine


def _hypervisor() -> ModuleType:
    """Only when a machine is asked for: libvirt-python may be missing (ImportError)."""
    from benchmarks.vm import hypervisor

    return hypervisor


def _driver() -> ModuleType:
    from benchmarks.vm import driver

    return driver


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

        self.network = ""
        self.timeout_s = TIMEOUT_S
        if tier == "full":
            self.network = self.net_mode = "bridge" if os.geteuid() == 0 else "user"
            self.timeout_s = FULL_TIMEOUT_S
            self.params["payload"] = "a service of multi-user.target, after basic.target"
            self.params["network"] = "virtio card, static addresses, no DHCP"

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
        return (
            roots.missing_disk(self.root) if self.tier == "full" else roots.missing_guest(self.root)
        )

    def prepare(self) -> None:
        from benchmarks.vm.accelerator import accelerator

        self.runtime_version = _hypervisor().version()
        chosen = accelerator(linux=bool(self.root))
        self.kvm = chosen.kvm
        self.accel = chosen.badge
        self.params["why_not_kvm"] = chosen.why_not_kvm
        if self.root:
            lines = roots.manifest()["command_lines"]
            self.params["kernel_command_line"] = lines[self.tier]
            self.params["kernel_image"] = KERNELS[self.tier]

    def shoot(self) -> Shot:
        return self._shoot(traced=False)

    def shoot_traced(self) -> Shot:
        return self._shoot(traced=True)

    def machine(self, **more: Any) -> Any:
        """One that is not started yet (driver.Machine), to be held, stopped, put to sleep."""
        return _driver().Machine(
            self.domain, self.tier, self.root, kvm=self.kvm, network=self.network, **more
        )

    def _shoot(self, traced: bool) -> Shot:
        with self.machine(traced=traced) as machine:
            machine.start(self.timeout_s)
            self.params["domain_xml"] = machine.xml
            cpu_ms = machine.cpu_ms()
            stopping, gone = machine.destroy()
            found = phases(machine, stopping, gone)
        return Shot(machine.asked, machine.heard, gone, found, cpu_ms)

    def hold(self, ear: Ear, words: list[str] | None = None) -> Held:
        from benchmarks.vm.machines import Standing

        if words:
            raise ArmFailed("a machine runs what it was made with")
        return Standing(self)

    def capture(self, words: list[str]) -> str:
        from benchmarks.vm.machines import said_by

        if self.tier not in ("micro", "direct"):
            raise ArmFailed("only a guest with an initramfs runs a program of our choice")
        return said_by(words, self)

    def fix_for(self, failure: str) -> str:
        if "Permission denied" in failure:
            return "see `virsh domcapabilities`, and the owner of /dev/kvm"
        return "sudo ./workshop doctor; `virsh list --all` shows what libvirt knows"


def phases(machine: Any, stopping: int, gone: int) -> list[Phase]:
    """t0 … t9 of the design. The kernel's entry is the payload's time less the guest's uptime."""
    heard, connected = machine.heard, machine.connected
    marks = [("libvirt starts QEMU", connected)]
    clock = _GUEST_CLOCK.search(machine.data)
    entry = heard - int(clock[1]) if machine.root and clock else heard
    if machine.firmware is not None and connected < machine.firmware < entry:
        marks.append(("QEMU makes the machine", machine.firmware))
        rest = "firmware"
    else:
        rest = "QEMU makes the machine, firmware"
    if machine.root and connected < entry < heard:
        loads = "boot loader" if machine.tier == "full" else "loading the kernel"
        marks.append((f"{rest}, {loads}", entry))
        rest = (
            "kernel, systemd, to its service" if machine.tier == "full" else "kernel, to its init"
        )
    marks.append((rest, heard))
    found, start = [], machine.asked
    for name, end in marks:
        found.append(Phase(name, start, end))
        start = end
    found.append(Phase("end", stopping, gone))
    return found


def vm_arms() -> list[Arm]:
    guests = [
        VirtualMachine(tier, root) for tier in ("micro", "direct") for root in ("busybox", "debian")
    ]
    return [VirtualMachine("nano"), *guests, VirtualMachine("full", "debian")]
