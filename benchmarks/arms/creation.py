"""What libvirt itself costs: one machine, the boot sector, made three ways up to the moment at
which its QEMU runs. By the driver of this suite, its preparations included; by a plain createXML of
the same XML; and by the command line that libvirt would make of it, run directly.
"""

from __future__ import annotations

import itertools
import json
import shlex
import socket
import subprocess
import time
from typing import Any

from benchmarks.arms.base import Arm, ArmFailed, Skip
from benchmarks.arms.vm import VirtualMachine
from benchmarks.vm import domain

TIMEOUT_S = 60.0
HOW = ("driver", "createXML", "QEMU")


class Creation(Arm):
    """One way; `how` is one of HOW."""

    kind = "vm"
    tier = "nano"
    net_mode = "none"

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.name = f"create-by-{how}"
        self.runtime = "qemu" if how == "QEMU" else "libvirt/qemu"
        self.channel = "QMP" if how == "QEMU" else "libvirt's return"
        self.vm = VirtualMachine("nano")
        self.tool = self.vm.tool
        self.numbers = itertools.count()

    def unavailable(self) -> Skip | None:
        return self.vm.unavailable()

    def prepare(self) -> None:
        self.vm.prepare()
        self.accel = self.vm.accel
        self.runtime_version = self.vm.runtime_version

    def create(self) -> float:
        """Milliseconds. Leaves nothing behind. Raises ArmFailed."""
        name = f"{self.name}-{next(self.numbers)}"
        if self.how == "driver":
            return _by_driver(name, self.vm.kvm)
        return _by_libvirt(name, self.vm.kvm) if self.how == "createXML" else self._directly(name)

    def _directly(self, name: str) -> float:
        from benchmarks.vm.consoles import Console

        payload, monitor = Console(name), Console(f"{name}-monitor")
        try:
            words = command_line(_xml(name, self.vm.kvm, payload.path), monitor.path)
            self.params["command"] = words
            return _run(words, monitor.listening)
        finally:
            payload.close()
            monitor.close()


def _xml(name: str, kvm: bool, payload: str) -> str:
    return domain.xml(name, "nano", "", kvm=kvm, consoles=domain.Consoles(payload))


def _by_driver(name: str, kvm: bool) -> float:
    """From the first line of the driver's to libvirt's return: its sockets, its XML, its thread."""
    from benchmarks.vm.driver import Machine

    began = time.monotonic_ns()
    with Machine(name, "nano", kvm=kvm) as machine:
        machine.start(TIMEOUT_S)
        return (machine.created - began) / 1e6


def _by_libvirt(name: str, kvm: bool) -> float:
    """The call alone, on what was prepared before."""
    import libvirt

    from benchmarks.vm import hypervisor
    from benchmarks.vm.consoles import Console

    name = hypervisor.own_name(name)
    payload = Console(name)
    try:
        text, host = _xml(name, kvm, payload.path), hypervisor.connection()

        def create() -> float:
            began = time.monotonic_ns()
            host.createXML(text, libvirt.VIR_DOMAIN_START_AUTODESTROY)
            return (time.monotonic_ns() - began) / 1e6

        return hypervisor.answer(create)
    except libvirt.libvirtError as error:
        raise hypervisor.explained(error) from error
    finally:
        hypervisor.destroy(name)
        hypervisor.remove_log(name)
        payload.close()


def command_line(xml: str, monitor: str) -> list[str]:
    """libvirt's own (virsh domxml-to-native), with two changes: the monitor is connected to a
    socket of ours, and there is no secret, which libvirt makes a file for.
    """
    import libvirt

    from benchmarks.vm import hypervisor

    try:
        host = hypervisor.connection()
        said = hypervisor.answer(lambda: host.domainXMLToNative("qemu-argv", xml, 0))
    except libvirt.libvirtError as error:
        raise hypervisor.explained(error) from error
    words = shlex.split(said)
    words = words[next(i for i, word in enumerate(words) if "=" not in word) :]  # its variables
    found: list[str] = []
    for word in words:
        if word.startswith("{") and json.loads(word).get("qom-type") == "secret":
            found.pop()  # its -object
        elif word.startswith("socket,id=charmonitor,"):
            found.append(f"socket,id=charmonitor,path={monitor}")
        else:
            found.append(word)
    return found


def _run(words: list[str], monitor: socket.socket) -> float:
    """From before the fork until QEMU has answered that its CPU runs."""
    monitor.settimeout(TIMEOUT_S)
    began = time.monotonic_ns()
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        link, _ = monitor.accept()
        with link, link.makefile("rw", encoding="utf-8") as qmp:
            link.settimeout(TIMEOUT_S)
            qmp.readline()  # its greeting
            for verb in ("qmp_capabilities", "cont"):
                _ask(qmp, verb)
            return (time.monotonic_ns() - began) / 1e6
    except OSError as error:
        process.kill()
        said = process.communicate()[1].decode(errors="replace").strip()[-300:]
        raise ArmFailed(f"QEMU's monitor: {error}; {said}") from error
    finally:
        process.kill()
        process.communicate()


def _ask(qmp: Any, verb: str) -> None:
    qmp.write(json.dumps({"execute": verb}) + "\n")
    qmp.flush()
    while True:
        answer = json.loads(qmp.readline() or '{"error": "it has ended"}')
        if "error" in answer:
            raise ArmFailed(f"QEMU refused {verb}: {answer['error']}")
        if "return" in answer:
            return


def creation_arms() -> list[Creation]:
    return [Creation(how) for how in HOW]
