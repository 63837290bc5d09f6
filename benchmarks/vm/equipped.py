"""Guests with a disk or a network card, whose first process is a script of ours."""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import shutil
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from benchmarks import roots
from benchmarks.vm.driver import Machine
from benchmarks.vm.machines import RUN_S, _read_to_zero, _with_script
from benchmarks.workdir import run_directory

if TYPE_CHECKING:
    from benchmarks.arms.equipped import Equipped

_numbers = itertools.count()
# What drives virtio's devices is in modules, so that the guests of the other benchmarks do not pay
# for it.
_BEFORE = """\
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
exec </dev/null >/dev/null 2>&1
for module in /modules/*; do
    case $module in *virtio*|*failover*) insmod $module ;; esac
done
"""


class _Machine(Machine):
    def __init__(self, arm: Equipped, guest: roots.Guest) -> None:
        name = f"{arm.domain}-{next(_numbers):05}"
        super().__init__(name, arm.tier, arm.root, kvm=arm.kvm, guest=guest)
        self.devices = arm.devices()

    def _prepare(self) -> str:
        before, end, after = super()._prepare().rpartition("</devices>")
        return f"{before}{self.devices}{end}{after}"


@contextlib.contextmanager
def running(arm: Equipped, words: list[str]) -> Iterator[Machine]:
    """A guest that runs a program of its root tree and nothing else. The first byte that this wrote
    on its stdout has been heard. Raises ArmFailed.
    """
    script = f"{_BEFORE}{shlex.join(words)} | /probe pour\nexec sleep 1000000\n"
    initramfs = os.path.join(run_directory(), f"{arm.domain}.cpio")
    try:
        guest = _with_script(roots.guest(arm.tier, arm.root), script, initramfs)
        with open(initramfs, "ab") as whole, open(roots.modules(), "rb") as modules:
            shutil.copyfileobj(modules, whole)
        with _Machine(arm, guest) as machine:
            machine.start(arm.timeout_s)
            yield machine
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(initramfs)


def said_by(words: list[str], arm: Equipped) -> str:
    """All that this program writes on its stdout. Raises ArmFailed."""
    deadline = time.monotonic_ns() + int(RUN_S * 1e9)
    with running(arm, words) as machine:
        return _read_to_zero(machine, deadline).decode(errors="replace")
