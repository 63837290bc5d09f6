"""The virtual machines as libvirt domain XML: one short text for each tier, nothing persistent.

nano    a boot sector of 512 bytes on a floppy: hypervisor and firmware, no guest system at all
micro   QEMU's microvm machine: no PCI, no ACPI, kernel and initramfs given directly
direct  the q35 machine with its firmware, the same kernel and the same initramfs
full    the q35 machine with ACPI, a disk, a network card: firmware, boot loader, systemd

https://libvirt.org/formatdomain.html
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from benchmarks import roots

MEMORY_MIB = 512  # for every tier: a guest kernel's start grows with its memory
MACHINES = {"nano": "pc", "micro": "microvm", "direct": "q35", "full": "q35"}
NAMESPACE = "urn:minicontainer:benchmarks"
QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"

QBOOT = "/usr/share/qemu/qboot.rom"  # https://github.com/qemu/qboot; part of QEMU

PAYLOAD_PORT = 0xE9  # the probe's `outb`
FIRMWARE_PORT = 0x402  # SeaBIOS writes its log there when something listens


@dataclass(frozen=True)
class Consoles:
    """Paths of the unix sockets that QEMU connects the machine's ports to; "" is none.

    payload: the debug console that the probe writes to. firmware: SeaBIOS's own. text: the guest
    kernel's, a serial port.
    """

    payload: str
    firmware: str = ""
    text: str = ""


@dataclass(frozen=True)
class Network:
    """One card. bridge: the name of the host's bridge that it is on; "" for QEMU's user network,
    which forwards `port` of the loopback to the guest's `guest_port`.
    """

    mac: str
    bridge: str = ""
    port: int = 0
    guest_port: int = 0


@dataclass(frozen=True)
class Disk:
    """A qcow2 image with a raw one behind it. direct: past the host's page cache, by Linux's own
    asynchronous I/O.
    """

    path: str
    base: str
    direct: bool


@dataclass(frozen=True)
class Limits:
    """The cgroup around QEMU, as a container has one; 0 is no limit. cpus: of one CPU's time."""

    memory_mib: int = 0
    cpus: float = 0


def xml(
    name: str,
    tier: str,
    root: str,
    *,
    kvm: bool,
    consoles: Consoles,
    guest: roots.Guest | None = None,
    disk: Disk | None = None,
    network: Network | None = None,
    limits: Limits = Limits(),
    more: str = "",
) -> str:
    """The whole domain, ready for virDomainCreateXML. guest: in place of the root's own. more:
    devices, as XML.
    """
    if tier == "nano":
        system, devices = _nano(kvm)
    elif tier == "full":
        system, devices = _full(disk)
    else:
        system, devices = _linux(tier, guest or roots.guest(tier, root)), ""
    # A kernel sees the host's CPU where it runs on it; emulation has no such CPU to show.
    cpu = "<cpu mode='host-passthrough' check='none'/>" if kvm and root else ""
    card, words = _network(network) if network else ("", "")
    return f"""\
<domain type='{"kvm" if kvm else "qemu"}' xmlns:qemu={quoteattr(QEMU_NAMESPACE)}>
  <name>{escape(name)}</name>
  <metadata><owner xmlns={quoteattr(NAMESPACE)} pid='{os.getpid()}'/></metadata>
  <memory unit='MiB'>{MEMORY_MIB}</memory>
  <vcpu>1</vcpu>
  {_limits(limits)}
  {system}
  {cpu}
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    {devices}
    {card}
    {_text_console(consoles.text) if consoles.text else ""}
    {_console(consoles.payload, PAYLOAD_PORT)}
    {_console(consoles.firmware, FIRMWARE_PORT) if consoles.firmware else ""}
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    {more}
  </devices>
  {words}
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


def _linux(tier: str, guest: roots.Guest) -> str:
    # microvm's own firmware, made for nothing but to start a kernel; without it QEMU takes SeaBIOS.
    minimal = tier == "micro" and os.path.exists(QBOOT)
    loader = f"<loader readonly='yes' type='rom'>{QBOOT}</loader>" if minimal else ""
    return (
        f"<os><type arch='x86_64' machine='{MACHINES[tier]}'>hvm</type>{loader}"
        f"<kernel>{escape(guest.kernel)}</kernel><initrd>{escape(guest.initramfs)}</initrd>"
        f"<cmdline>{escape(guest.command_line)}</cmdline></os>"
    )


def _full(disk: Disk | None) -> tuple[str, str]:
    """With ACPI: by its power button the system is asked to stop."""
    assert disk is not None
    system = (
        f"<os><type arch='x86_64' machine='{MACHINES['full']}'>hvm</type><boot dev='hd'/></os>"
        "<features><acpi/></features>"
    )
    how = "cache='none' io='native'" if disk.direct else "cache='writeback'"
    return system, (
        f"<disk type='file' device='disk'><driver name='qemu' type='qcow2' {how}/>"
        f"<source file={quoteattr(disk.path)}/><target dev='vda' bus='virtio'/>"
        # Many machines share it and none writes to it: it is not given to QEMU's user.
        f"<backingStore type='file'><format type='raw'/><source file={quoteattr(disk.base)}>"
        "<seclabel model='dac' relabel='no'/></source><backingStore/></backingStore></disk>"
    )


def _network(network: Network) -> tuple[str, str]:
    """(the device, words for QEMU's command line): libvirt 9 cannot say hostfwd itself."""
    if network.bridge:
        card = (
            f"<interface type='bridge'><source bridge={quoteattr(network.bridge)}/>"
            f"<mac address='{network.mac}'/><model type='virtio'/><rom enabled='no'/></interface>"
        )
        return card, ""
    forward = f"hostfwd=tcp:127.0.0.1:{network.port}-:{network.guest_port}"
    words = (
        "-netdev", f"user,id=user0,restrict=on,{forward}",
        "-device", f"virtio-net-pci,netdev=user0,mac={network.mac},bus=pcie.0,addr=0x10,romfile=",
    )  # fmt: skip
    arguments = "".join(f"<qemu:arg value={quoteattr(word)}/>" for word in words)
    return "", f"<qemu:commandline>{arguments}</qemu:commandline>"


def _limits(limits: Limits) -> str:
    """Of the CPU; with a <memtune> libvirt would want to lock memory as well, which takes a
    privilege more: driver.py sets that limit.
    """
    if not limits.cpus:
        return ""
    quota = int(limits.cpus * 100_000)
    return (
        "<cputune><global_period>100000</global_period>"
        f"<global_quota>{quota}</global_quota></cputune>"
    )


def _console(path: str, port: int) -> str:
    return (
        f"<serial type='unix'><source mode='connect' path={quoteattr(path)}/>"
        "<target type='isa-debug'><model name='isa-debugcon'/></target>"
        f"<address type='isa' iobase='{port:#x}'/></serial>"
    )


def _text_console(path: str) -> str:
    return (
        f"<serial type='unix'><source mode='connect' path={quoteattr(path)}/>"
        "<target type='isa-serial' port='0'/></serial>"
    )
