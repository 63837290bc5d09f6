"""libvirt, as far as the stopwatch needs it: one connection, transient domains that die with it,
and which accelerator works, found by doing.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import socket
import time
from dataclasses import dataclass

import libvirt

from benchmarks import domain
from benchmarks.arms.base import ArmFailed
from benchmarks.receiver import Listener, first_byte, rest_of_line
from benchmarks.workdir import run_directory

PREFIX = "minicontainer-"  # of every domain's name; then the pid of the harness that made it
# A boot that works takes a tenth of it; one that takes longer is emulated faster than this.
KVM_NANO_S, KVM_LINUX_S = 2.5, 5.0
SYSTEM_LOGS = "/var/log/libvirt/qemu"

libvirt.registerErrorHandler(lambda *_: None, None)  # errors are raised; never also printed


def uri() -> str:
    """LIBVIRT_DEFAULT_URI, else the system's libvirt for root and the user's own for a user."""
    default = "qemu:///system" if os.geteuid() == 0 else "qemu:///session"
    return os.environ.get("LIBVIRT_DEFAULT_URI", default)


@functools.cache
def connection() -> libvirt.virConnect:
    """The process's one connection. Raises ArmFailed, with libvirt's words, when none answers."""
    try:
        return libvirt.open(uri())
    except libvirt.libvirtError as error:
        raise ArmFailed(f"{uri()}: {error}") from error


def version() -> str:
    """'libvirt 9.0.0, QEMU 7.2.22'."""
    numbers = (connection().getLibVersion(), connection().getVersion())
    texts = [f"{n // 1_000_000}.{n // 1000 % 1000}.{n % 1000}" for n in numbers]
    return f"libvirt {texts[0]}, QEMU {texts[1]}"


@dataclass(frozen=True)
class Boot:
    """Times of one boot, ns of CLOCK_MONOTONIC; data: what the payload wrote, its clock in it.

    connected: QEMU had connected its debug console. created: libvirt's call had returned.
    firmware: SeaBIOS's first byte, None where nobody listened for it.
    """

    asked: int
    connected: int
    created: int
    firmware: int | None
    heard: int
    data: bytes
    stopping: int
    gone: int
    cpu_ms: float


class _Console:
    """A unix socket that QEMU connects one debug console to."""

    def __init__(self, name: str) -> None:
        self.path = os.path.join(run_directory(), f"{name}.sock")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listening.bind(self.path)
        # libvirt runs QEMU as a user of its own, which has to reach it.
        os.chmod(self.path, 0o666)
        self.listening.listen(1)
        self.connected: socket.socket | None = None

    def accept(self, deadline_ns: int, wake: int) -> int:
        """Wait for QEMU; returns the time at which it had connected."""
        poller = select.poll()
        poller.register(self.listening, select.POLLIN)
        poller.register(wake, select.POLLIN)
        ready = dict(poller.poll(max(0, (deadline_ns - time.monotonic_ns()) // 1_000_000)))
        now = time.monotonic_ns()
        if self.listening.fileno() not in ready:
            raise ArmFailed("QEMU did not connect its debug console")
        self.connected, _ = self.listening.accept()
        return now

    def close(self) -> None:
        for end in (self.listening, self.connected):
            if end is not None:
                end.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


class _Ear(Listener):
    """The receiver for a machine: first QEMU connects, then the payload is heard."""

    def __init__(self, payload: _Console, firmware: _Console | None, deadline_ns: int) -> None:
        super().__init__(payload.listening.fileno(), deadline_ns)
        self.payload, self.firmware = payload, firmware
        self.connected = 0
        self.log: list[tuple[int, bytes]] = []

    def _hear(self, wake: int) -> tuple[int, bytes]:
        self.connected = self.payload.accept(self.deadline_ns, wake)
        assert self.payload.connected is not None
        also = {}
        if self.firmware:
            self.firmware.accept(self.deadline_ns, wake)
            assert self.firmware.connected is not None
            also[self.firmware.connected.fileno()] = self.log
        fd = self.payload.connected.fileno()
        heard, data = first_byte(fd, self.deadline_ns, watch=wake, also=also)
        return heard, rest_of_line(fd, data, self.deadline_ns)


def boot(
    name: str, tier: str, root: str, *, kvm: bool, timeout_s: float, traced: bool = False
) -> Boot:
    """Start a transient domain, hear its payload, destroy it. Leaves nothing, however it ends.

    Raises ArmFailed when libvirt refuses it, or the guest does not signal within `timeout_s`.
    """
    host = connection()
    name = f"{PREFIX}{os.getpid()}-{name}"
    payload = _Console(name)
    firmware = _Console(f"{name}-firmware") if traced else None
    machine: libvirt.virDomain | None = None
    try:
        consoles = domain.Consoles(payload.path, firmware.path if firmware else "")
        text = domain.xml(name, tier, root, kvm=kvm, consoles=consoles)
        ear = _Ear(payload, firmware, time.monotonic_ns() + int(timeout_s * 1e9))
        with ear:
            asked = time.monotonic_ns()
            # AUTODESTROY: libvirt ends the machine when this process does, even by kill -9.
            machine = host.createXML(text, libvirt.VIR_DOMAIN_START_AUTODESTROY)
            created = time.monotonic_ns()
            ear.wait()
        try:
            heard, data = ear.result()
        except ArmFailed as failure:
            raise ArmFailed(f"{failure}; {_last_words(name, machine)}") from None
        cpu_ms = machine.info()[4] / 1e6
        stopping = time.monotonic_ns()
        machine.destroy()
        gone = time.monotonic_ns()
        machine = None
    except libvirt.libvirtError as error:
        raise ArmFailed(" ".join(str(error).split())) from error
    finally:
        _end(host, name)
        payload.close()
        if firmware:
            firmware.close()
    first = ear.log[0][0] if ear.log else None
    return Boot(asked, ear.connected, created, first, heard, data, stopping, gone, cpu_ms)


def _end(host: libvirt.virConnect, name: str) -> None:
    """Destroy the domain if it is still there; it may be so although createXML never returned."""
    with contextlib.suppress(libvirt.libvirtError):
        host.lookupByName(name).destroy()


def _last_words(name: str, machine: libvirt.virDomain | None) -> str:
    states = {1: "running", 3: "paused", 5: "shut off", 6: "crashed"}
    state = "unknown"
    if machine is not None:
        with contextlib.suppress(libvirt.libvirtError):
            state = states.get(machine.state()[0], "unknown")
    return f"the machine was {state}; QEMU's own log: {_log(name) or 'none'}"


def _log_path(name: str) -> str:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    users = os.path.join(cache, "libvirt", "qemu", "log")
    return os.path.join(SYSTEM_LOGS if uri().endswith("/system") else users, f"{name}.log")


def _log(name: str) -> str:
    """The last line of QEMU's log that is a message of QEMU's ('' without one)."""
    try:
        with open(_log_path(name), encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file if ": qemu-system" in line]
    except OSError:
        return ""
    return lines[-1][-300:] if lines else ""


def remove_logs(name: str) -> None:
    """libvirt keeps a log of each domain's name for ever; ours are of no use afterwards."""
    with contextlib.suppress(OSError):
        os.unlink(_log_path(f"{PREFIX}{os.getpid()}-{name}"))


@dataclass(frozen=True)
class Accelerator:
    """kvm: whether guests run on it. badge: 'kvm', 'kvm (nested)', 'kvm (pvm)' or 'tcg'."""

    kvm: bool
    badge: str
    why_not_kvm: str = ""


@functools.cache
def accelerator(linux: bool) -> Accelerator:
    """What really boots here: a boot sector, or (`linux`) a Linux kernel.

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
    finally:
        remove_logs(f"kvm-{tier}")
    return Accelerator(True, _kvm_badge())


def _kvm_badge() -> str:
    if os.path.isdir("/sys/module/kvm_pvm"):
        return "kvm (pvm)"
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        flags = next((line for line in file if line.startswith("flags")), "")
    return "kvm (nested)" if "hypervisor" in flags.split() else "kvm"


def abandoned() -> list[libvirt.virDomain]:
    """Domains of harness processes that no longer live (AUTODESTROY leaves none but on a crash)."""
    try:
        machines = connection().listAllDomains()
    except (ArmFailed, libvirt.libvirtError):
        return []
    found = []
    for machine in machines:
        pid = machine.name().removeprefix(PREFIX).partition("-")[0]
        if machine.name().startswith(PREFIX) and not os.path.exists(f"/proc/{pid}"):
            found.append(machine)
    return found
