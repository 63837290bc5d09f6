"""The virtual machines as libvirt domain XML: one short text for each tier, nothing persistent.

nano    a boot sector of 512 bytes on a floppy: hypervisor and firmware, no guest system at all
micro   QEMU's microvm machine: no PCI, no ACPI, kernel and initramfs given directly
direct  the q35 machine with its firmware, the same kernel and the same initramfs

https://libvirt.org/formatdomain.html
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from benchmarks import roots

MEMORY_MIB = 512  # for every tier: a guest kernel's start grows with its memory
MACHINES = {"nano": "pc", "micro": "microvm", "direct": "q35"}
NAMESPACE = "urn:minicontainer:benchmarks"

PAYLOAD_PORT = 0xE9  # the probe's `outb`
FIRMWARE_PORT = 0x402  # SeaBIOS writes its log there when something listens


@dataclass(frozen=True)
class Consoles:
    """Paths of the unix sockets that QEMU connects its debug consoles to; firmware "" is none."""

    payload: str
    firmware: str = ""


def xml(name: str, tier: str, root: str, *, kvm: bool, consoles: Consoles) -> str:
    """The whole domain, ready for virDomainCreateXML."""
    system, disk = _nano(kvm) if tier == "nano" else _linux(tier, root)
    # A kernel sees the host's CPU where it runs on it; emulation has no such CPU to show.
    cpu = "<cpu mode='host-passthrough' check='none'/>" if kvm and root else ""
    firmware = _console(consoles.firmware, FIRMWARE_PORT) if consoles.firmware else ""
    return f"""\
<domain type='{"kvm" if kvm else "qemu"}'>
  <name>{escape(name)}</name>
  <metadata><owner xmlns={quoteattr(NAMESPACE)} pid='{os.getpid()}'/></metadata>
  <memory unit='MiB'>{MEMORY_MIB}</memory>
  <vcpu>1</vcpu>
  {system}
  {cpu}
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    {disk}
    {_console(consoles.payload, PAYLOAD_PORT)}
    {firmware}
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
</domain>
"""


def _nano(kvm: bool) -> tuple[str, str]:
    machine = MACHINES["nano"]
    system = f"<os><type arch='x86_64' machine='{machine}'>hvm</type><boot dev='fd'/></os>"
    if kvm:  # kernel_irqchip=split: without it the firmware hangs under nested PVM
        system += "<features><ioapic driver='qemu'/></features>"
    image = quoteattr(os.path.join(roots.images(), "nano", "nano.img"))
    disk = (
        "<disk type='file' device='floppy'><driver name='qemu' type='raw'/>"
        f"<source file={image}/><target dev='fda'/><readonly/></disk>"
    )
    return system, disk


def _linux(tier: str, root: str) -> tuple[str, str]:
    guest = roots.guest(root)
    system = (
        f"<os><type arch='x86_64' machine='{MACHINES[tier]}'>hvm</type>"
        f"<kernel>{escape(guest.kernel)}</kernel><initrd>{escape(guest.initramfs)}</initrd>"
        f"<cmdline>{escape(guest.command_lines[tier])}</cmdline></os>"
    )
    return system, ""


def _console(path: str, port: int) -> str:
    return (
        f"<serial type='unix'><source mode='connect' path={quoteattr(path)}/>"
        "<target type='isa-debug'><model name='isa-debugcon'/></target>"
        f"<address type='isa' iobase='{port:#x}'/></serial>"
    )
