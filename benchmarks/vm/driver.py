"""The driver of the virtual machines: a transient domain from its start to its end.

Nothing is polled: the payload is heard on a socket that QEMU itself is connected to, a kernel that
panics or a QEMU that ends closes it, and the end of a machine is that of its QEMU, by a pidfd.
"""

from __future__ import annotations

import os
import re
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import libvirt

from benchmarks import roots
from benchmarks.arms.base import ArmFailed
from benchmarks.vm import domain, hypervisor
from benchmarks.vm.consoles import Console, Ear
from benchmarks.vm.parts import Link, linked_clone

LAST_LINES = 8
RECONNECT_NS, KILLED_MS = 20_000_000_000, 10_000
PANIC = re.compile(r"Kernel panic - not syncing: (.*)")
STATES = {1: "running", 3: "paused", 4: "stopping", 5: "shut off", 6: "crashed"}


@dataclass(frozen=True)
class Boot:
    """Times of one boot, ns of CLOCK_MONOTONIC; data: what the payload wrote, its clock in it.

    connected: QEMU had connected its debug console. created: libvirt's call had returned.
    firmware: SeaBIOS's first byte, None where nobody listened for it.
    ready: the first reply on the guest's own address, None where nobody asked for one.
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
    ready: int | None = None


class Machine:
    """One machine of a tier; `with` ends it, however the block ends.

    network: "" | bridge (root) | user, of the full tier. traced: the firmware is listened to.
    kept: it outlives this process (snapshots need that); `python -m benchmarks clean` finds it.
    devices: more of them, as XML.
    """

    def __init__(
        self,
        name: str,
        tier: str,
        root: str = "",
        *,
        kvm: bool,
        network: str = "",
        traced: bool = False,
        kept: bool = False,
        guest: roots.Guest | None = None,
        limits: domain.Limits | None = None,
        devices: str = "",
    ) -> None:
        self.name = hypervisor.own_name(name)
        self.tier, self.root, self.kvm, self.guest = tier, root, kvm, guest
        self.network, self.traced, self.kept = network, traced, kept
        self.limits, self.devices = limits or domain.Limits(), devices
        self.domain: libvirt.virDomain | None = None
        self.closed = False
        self.disk: domain.Disk | None = None
        self.link: Link | None = None
        self.consoles: list[Console] = []
        self.qemu = -1  # a pidfd
        self.asked = self.connected = self.created = self.heard = 0
        self.data = b""
        self.xml = ""

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- its life --------------------------------------------------------------------------------

    def start(self, timeout_s: float) -> None:
        """Until its payload has signalled. Raises ArmFailed when libvirt refuses it, the guest ends
        or panics, or does not signal in time; nothing of it is left then.
        """
        try:
            host = hypervisor.connection()
            self.xml = self._prepare()
            deadline = time.monotonic_ns() + int(timeout_s * 1e9)
            with Ear(self.payload, self.consoles[1:], deadline) as ear:
                hypervisor.answer(lambda: self._create(host))
                ear.wait()
            self.connected = ear.connected
            self._watch_qemu()
            self.heard, self.data = ear.result()
        except ArmFailed as failure:
            self._watch_qemu()
            words = self._last_words(str(failure))
            self.close()
            raise ArmFailed(words) from None
        except libvirt.libvirtError as error:
            self._watch_qemu()
            self.close()
            raise hypervisor.explained(error) from error
        except BaseException:
            self.close()
            raise

    def _create(self, host: libvirt.virConnect) -> None:
        # AUTODESTROY: libvirt ends the machine when this process does, even by kill -9.
        flags = 0 if self.kept else libvirt.VIR_DOMAIN_START_AUTODESTROY
        self.asked = time.monotonic_ns()
        self.domain = host.createXML(self.xml, flags)
        self.created = time.monotonic_ns()
        if self.limits.memory_mib:
            self.domain.setMemoryParameters({"hard_limit": self.limits.memory_mib << 10})
        if self.closed:  # nobody has waited for this: libvirt did not answer for a while
            self.domain.destroy()

    def ready(self, timeout_s: float) -> int:
        """Wait until the guest says that its address is there, then ask it for a reply; returns
        when that came, in ns. Raises ArmFailed.
        """
        assert self.link is not None
        assert self.payload.connected is not None
        deadline = time.monotonic_ns() + int(timeout_s * 1e9)
        if not self._wait(deadline, self.payload.connected.fileno(), b"r mono_ns="):
            raise ArmFailed(self._last_words("the guest did not say that its address is there"))
        self.link.first_reply(timeout_s)
        return time.monotonic_ns()

    def pause(self) -> None:
        self._call(libvirt.virDomain.suspend)

    def resume(self) -> None:
        self._call(libvirt.virDomain.resume)

    def stop(self, timeout_s: float) -> tuple[int, int]:
        """Press its power button (ACPI); returns (asked, gone) in ns when its QEMU has ended.
        Raises ArmFailed when it does not end in time; it still runs then.
        """
        flags = libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN
        asked = time.monotonic_ns()
        self._call(lambda machine: machine.shutdownFlags(flags))
        if not self._wait(asked + int(timeout_s * 1e9), self.qemu):
            raise ArmFailed(self._last_words(f"it did not stop within {timeout_s:.0f} s"))
        return asked, time.monotonic_ns()

    def destroy(self) -> tuple[int, int]:
        """Pull its plug; returns (asked, gone) in ns when libvirt's call had returned, which is
        after its QEMU has ended. Raises ArmFailed.
        """
        asked = time.monotonic_ns()
        self._call(libvirt.virDomain.destroy)
        gone = time.monotonic_ns()
        self.domain = None
        return asked, gone

    def snapshot(self, name: str) -> None:
        """Memory, devices and disk, kept in its qcow2 image. Raises ArmFailed."""
        if not (self.disk and self.kept):
            raise ArmFailed("a snapshot needs a disk, and a machine that is kept (kept=True)")
        text = f"<domainsnapshot><name>{name}</name></domainsnapshot>"
        self._call(lambda machine: machine.snapshotCreateXML(text, 0))

    def revert(self, name: str) -> None:
        """Back to a snapshot, running. Raises ArmFailed."""
        flags = libvirt.VIR_DOMAIN_SNAPSHOT_REVERT_RUNNING
        self._call(
            lambda machine: machine.revertToSnapshot(machine.snapshotLookupByName(name), flags)
        )
        if _ended(self.qemu, 0):  # libvirt has started another QEMU from the snapshot
            deadline = time.monotonic_ns() + RECONNECT_NS
            for console in self.consoles:
                console.accept(deadline)
            os.close(self.qemu)
            self.qemu = -1
            self._watch_qemu()

    def cpu_ms(self) -> float:
        """User and system time of its QEMU so far."""
        return float(self._call(libvirt.virDomain.info)[4] / 1e6)

    def state(self) -> str:
        if self.domain is None:
            return "never there"
        try:
            return STATES.get(hypervisor.answer(self.domain.state)[0], "unknown")
        except libvirt.libvirtError as error:
            gone = error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN
            return "gone" if gone else str(hypervisor.explained(error))
        except ArmFailed:
            return "not to be asked for"

    def pid(self) -> int:
        """Of its QEMU, as QEMU's own end of the debug console tells."""
        return self.payload.peer()

    def close(self) -> None:
        """Nothing of it stays. Safe to call twice, and without a libvirt that answers."""
        self.closed = True
        # It may be there although createXML never returned.
        hypervisor.destroy(self.name)
        self.domain = None
        if self.qemu >= 0:
            with suppress(ProcessLookupError):  # as it should be
                signal.pidfd_send_signal(self.qemu, signal.SIGKILL)
            _ended(self.qemu, KILLED_MS)
            os.close(self.qemu)
            self.qemu = -1
        for console in self.consoles:
            console.close()
        self.consoles = []
        if self.disk is not None:
            with suppress(FileNotFoundError):
                os.unlink(self.disk.path)
        if self.link is not None:
            self.link.close()
        hypervisor.remove_log(self.name)

    # --- how -------------------------------------------------------------------------------------

    @property
    def payload(self) -> Console:
        return self.consoles[0]

    @property
    def firmware(self) -> int | None:
        """When SeaBIOS's first byte came."""
        log = self.consoles[-1].log if self.traced else []
        return log[0][0] if log else None

    def _prepare(self) -> str:
        """All that has to be there before the clock starts; returns the domain's XML."""
        kinds = ["", *(["text"] if self.tier != "nano" else []), *(["firmware"] * self.traced)]
        for kind in kinds:
            self.consoles.append(Console(f"{self.name}-{kind}" if kind else self.name))
        if self.tier == "full":
            self.disk = linked_clone(roots.disk(self.root), self.name)
            if self.network:
                self.link = Link(self.network, self.name)
        paths = dict(zip(kinds, (console.path for console in self.consoles), strict=True))
        consoles = domain.Consoles(paths[""], paths.get("firmware", ""), paths.get("text", ""))
        return domain.xml(
            self.name, self.tier, self.root, kvm=self.kvm, consoles=consoles, guest=self.guest,
            disk=self.disk, network=self.link.network if self.link else None, limits=self.limits,
            more=self.devices,
        )  # fmt: skip

    def _watch_qemu(self) -> None:
        pid = self.payload.peer() if self.consoles else 0
        if pid and self.qemu < 0:
            with suppress(ProcessLookupError):  # it has ended already
                self.qemu = os.pidfd_open(pid)

    def _call(self, verb: Callable[[libvirt.virDomain], Any]) -> Any:
        machine = self.domain
        if machine is None:
            raise ArmFailed("the machine is not running")
        try:
            return hypervisor.answer(lambda: verb(machine))
        except libvirt.libvirtError as error:
            raise hypervisor.explained(error) from error

    def _wait(self, deadline_ns: int, fd: int, wanted: bytes = b"") -> bool:
        """Until `fd` is readable (a pidfd), or has given `wanted`; all consoles are emptied
        meanwhile. False when the deadline has passed, or `fd` was closed.
        """
        links = {c.connected.fileno(): c for c in self.consoles if c.connected is not None}
        poller = select.poll()
        for one in {fd, *links}:
            poller.register(one, select.POLLIN)
        said = self.data
        while wanted not in said or not wanted:
            left_ms = (deadline_ns - time.monotonic_ns()) // 1_000_000
            ready = [number for number, _ in poller.poll(max(0, left_ms))]
            if not ready:
                return False
            if not wanted and fd in ready:
                return True
            for number in ready:
                data = os.read(number, 65536) if number in links else b""
                if number == fd:
                    said += data
                links[number].log.append((time.monotonic_ns(), data))
                if not data:
                    poller.unregister(number)
                    if number == fd:
                        return False
        return True

    def _last_words(self, failure: str) -> str:
        """What failed, how the machine is, and what it said last. Asks libvirt for the state."""
        text = next((c.text() for c in self.consoles if c.path.endswith("-text.sock")), "")
        lines = [line.strip() for line in text.splitlines() if line.strip()][-LAST_LINES:]
        panic = PANIC.search(text)
        what = f"the guest's kernel panicked: {panic[1].strip()}" if panic else failure
        return (
            f"the guest never signalled: {what}; the machine was {self.state()}; "
            f"last lines of its console: {' | '.join(lines) or 'none'}; "
            f"QEMU's own log: {hypervisor.log_words(self.name) or 'none'}"
        )


def _ended(pidfd: int, within_ms: int) -> bool:
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(within_ms))


def boot(
    name: str,
    tier: str,
    root: str,
    *,
    kvm: bool,
    timeout_s: float,
    traced: bool = False,
    network: str = "",
    ready: bool = False,
) -> Boot:
    """Start a machine, hear its payload, destroy it. Leaves nothing, however it ends.

    ready: wait for the first reply on its own address, too. Raises ArmFailed.
    """
    with Machine(name, tier, root, kvm=kvm, network=network, traced=traced) as machine:
        machine.start(timeout_s)
        replied = machine.ready(timeout_s) if ready else None
        cpu_ms = machine.cpu_ms()
        stopping, gone = machine.destroy()
        return Boot(
            machine.asked, machine.connected, machine.created, machine.firmware, machine.heard,
            machine.data, stopping, gone, cpu_ms, replied,
        )  # fmt: skip
