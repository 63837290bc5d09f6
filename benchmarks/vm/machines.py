"""Machines that stay, and machines that say something: benchmarks' other uses of the driver."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks import cpio, roots
from benchmarks.arms.base import ArmFailed
from benchmarks.held import Held
from benchmarks.vm.driver import Machine
from benchmarks.workdir import run_directory

if TYPE_CHECKING:
    from benchmarks.arms.vm import VirtualMachine

RUN_S = 300.0  # of a program, emulated, on a loaded machine
_numbers = itertools.count()
_BEFORE = """\
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
exec </dev/null >/dev/null 2>&1
"""


class Standing(Held):
    """A machine whose payload has signalled. libvirt ends it when this process ends."""

    def __init__(self, arm: VirtualMachine) -> None:
        self.machine = _machine(arm)
        self.machine.start(arm.timeout_s)
        words = {"start": ["virDomainCreateXML"], "stop": ["virDomainDestroy"]}
        super().__init__(self.machine.asked, self.machine.heard, words)
        self.mark = self.machine.name
        self._qemu = self.machine.pid()

    def payload(self) -> int:
        return 0

    def family(self) -> list[int]:
        return [self._qemu]

    def _stop(self) -> tuple[int, int]:
        try:
            return self.machine.destroy()
        finally:
            self.machine.close()


def _machine(arm: VirtualMachine, guest: roots.Guest | None = None, devices: str = "") -> Machine:
    return Machine(
        f"{arm.domain}-{next(_numbers):05}", arm.tier, arm.root, kvm=arm.kvm, network=arm.network,
        guest=guest, devices=devices,
    )  # fmt: skip


@dataclass(frozen=True)
class Extra:
    """What a guest has beside its root tree: an initramfs behind the tree's own, devices as XML,
    and the lines of a shell that come before its program.
    """

    initramfs: str = ""
    devices: str = ""
    script: str = ""


@contextlib.contextmanager
def running(arm: VirtualMachine, words: list[str], extra: Extra = Extra()) -> Iterator[Machine]:
    """A guest that runs a program of its root tree and nothing else. The first byte that this wrote
    on its stdout has been heard. Raises ArmFailed.
    """
    script = f"{_BEFORE}{extra.script}{shlex.join(words)} | /probe pour\nexec sleep 1000000\n"
    initramfs = os.path.join(run_directory(), f"{arm.domain}.cpio")
    try:
        guest = _with_script(roots.guest(arm.tier, arm.root), script, initramfs)
        if extra.initramfs:
            with open(initramfs, "ab") as whole, open(extra.initramfs, "rb") as more:
                shutil.copyfileobj(more, whole)
        with _machine(arm, guest, extra.devices) as machine:
            machine.start(arm.timeout_s)
            yield machine
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(initramfs)


def said_by(words: list[str], arm: VirtualMachine, extra: Extra = Extra()) -> str:
    """All that this program writes on its stdout. Raises ArmFailed."""
    deadline = time.monotonic_ns() + int(RUN_S * 1e9)
    with running(arm, words, extra) as machine:
        return _read_to_zero(machine, deadline).decode(errors="replace")


def _with_script(guest: roots.Guest, script: str, initramfs: str) -> roots.Guest:
    """The same guest with /bench in its initramfs, run by its shell in place of the probe."""
    shutil.copyfile(guest.initramfs, initramfs)
    with tempfile.TemporaryDirectory(dir=run_directory()) as tree, open(initramfs, "ab") as whole:
        os.chmod(tree, 0o755)
        with open(os.path.join(tree, "bench"), "w", encoding="utf-8") as file:
            file.write(script)
        cpio.write(tree, whole)
    before, _, _ = guest.command_line.partition(" rdinit=")
    return roots.Guest(guest.kernel, initramfs, f"{before} rdinit=/bin/sh -- /bench")


def _read_to_zero(machine: Machine, deadline_ns: int) -> bytes:
    """All that a guest writes to its debug console up to a zero byte. Raises ArmFailed."""
    data, link = machine.data, machine.payload.connected
    assert link is not None
    poller = select.poll()
    poller.register(link, select.POLLIN)
    while b"\0" not in data:
        if not poller.poll(max(0, (deadline_ns - time.monotonic_ns()) // 1_000_000)):
            raise ArmFailed(f"the guest did not finish; so far: {data[-200:]!r}")
        more = link.recv(65536)
        if not more:
            raise ArmFailed(f"the guest ended before it had finished: {data[-200:]!r}")
        data += more
    return data.partition(b"\0")[0]
