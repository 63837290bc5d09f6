"""Machines that stay, and machines that say something: beside `hypervisor.boot`, which measures a
start and ends the machine at once.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import shlex
import stat
import time

import libvirt

from benchmarks import domain, hypervisor, roots
from benchmarks.arms.base import ArmFailed
from benchmarks.held import Held
from benchmarks.workdir import run_directory
from minicontainer.images import cpio

_numbers = itertools.count()
_MOUNTS = """\
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
"""


class Machine(Held):
    """A transient domain whose payload has signalled. libvirt ends it when this process ends."""

    def __init__(
        self, name: str, tier: str, root: str, kvm: bool, timeout_s: float,
        guest: roots.Guest | None = None,
    ) -> None:  # fmt: skip
        self.mark = f"{hypervisor.PREFIX}{os.getpid()}-{name}-{next(_numbers):05}"
        self.console = hypervisor._Console(self.mark)
        text = domain.xml(
            self.mark, tier, root, kvm=kvm, consoles=domain.Consoles(self.console.path), guest=guest
        )
        ear = hypervisor._Ear(self.console, None, time.monotonic_ns() + int(timeout_s * 1e9))
        try:
            with ear:
                asked = time.monotonic_ns()
                self.machine = hypervisor.connection().createXML(
                    text, libvirt.VIR_DOMAIN_START_AUTODESTROY
                )
                ear.wait()
            heard, self.data = ear.result()
        except libvirt.libvirtError as error:
            self._end()
            raise ArmFailed(" ".join(str(error).split())) from error
        except BaseException:
            self._end()
            raise
        super().__init__(asked, heard, {"start": ["virDomainCreateXML"], "stop": ["destroy"]})

    def payload(self) -> int:
        return 0

    def _stop(self) -> tuple[int, int]:
        asked = time.monotonic_ns()
        try:
            self.machine.destroy()
        except libvirt.libvirtError as error:
            raise ArmFailed(" ".join(str(error).split())) from error
        gone = time.monotonic_ns()
        self._end()
        return asked, gone

    def _end(self) -> None:
        hypervisor._end(hypervisor.connection(), self.mark)
        self.console.close()
        with contextlib.suppress(OSError):
            os.unlink(hypervisor._log_path(self.mark))

    def rest(self, end: bytes, deadline_ns: int) -> bytes:
        """All that it writes to its console up to `end`. Raises ArmFailed."""
        data, link = self.data, self.console.connected
        assert link is not None
        poller = select.poll()
        poller.register(link, select.POLLIN)
        while end not in data:
            if not poller.poll(max(0, (deadline_ns - time.monotonic_ns()) // 1_000_000)):
                raise ArmFailed(f"the guest did not finish; so far: {data[-200:]!r}")
            more = link.recv(65536)
            if not more:
                raise ArmFailed(f"the guest ended before it had finished: {data[-200:]!r}")
            data += more
        return data.partition(end)[0]


def said_by(
    words: list[str], name: str, tier: str, root: str, kvm: bool, timeout_s: float
) -> str:  # fmt: skip
    """What a program of the root tree writes on stdout in a guest that runs nothing else. Raises
    ArmFailed.
    """
    deadline = time.monotonic_ns() + int(timeout_s * 1e9)
    script = (
        f"{_MOUNTS}exec </dev/null >/dev/null 2>&1\n{shlex.join(words)} | /probe pour\n"
        "exec sleep 1000000\n"
    )
    initramfs = os.path.join(run_directory(), f"{name}.cpio")
    try:
        guest = _with_script(roots.guest(root), script, initramfs, tier)
        machine = Machine(name, tier, root, kvm, timeout_s, guest)
        try:
            return machine.rest(b"\0", deadline).decode(errors="replace")
        finally:
            machine.stop()
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(initramfs)


def _with_script(guest: roots.Guest, script: str, initramfs: str, tier: str) -> roots.Guest:
    """The same guest with /bench in its initramfs, run by its shell in place of the probe. Archives
    may follow one another: https://docs.kernel.org/driver-api/early-userspace/buffer-format.html
    """
    data = script.encode()
    with open(guest.initramfs, "rb") as file, open(initramfs, "wb") as whole:
        whole.write(file.read())
        whole.write(cpio.header(b"bench", 1, stat.S_IFREG | 0o755, 0, 0, 1, 0, len(data)))
        whole.write(data + cpio.padding(len(data)) + cpio.END)
    before, _, _ = guest.command_lines[tier].partition(" rdinit=")
    return roots.Guest(guest.kernel, initramfs, {tier: f"{before} rdinit=/bin/sh -- /bench"})
