"""Virtual machines with a disk or a network card, for the loads that go through one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks import roots
from benchmarks.arms.base import Skip
from benchmarks.arms.vm import VirtualMachine

if TYPE_CHECKING:
    from benchmarks.vm.machines import Extra

# What drives virtio's devices is in modules, so that the guests of the other benchmarks do not pay
# for it.
_DRIVERS = """\
for module in /modules/*; do
    case $module in *virtio*|*failover*) insmod $module ;; esac
done
"""


class Equipped(VirtualMachine):
    """devices: of libvirt's XML, asked for at each start."""

    def __init__(self, tier: str, root: str, devices: Callable[[], str]) -> None:
        super().__init__(tier, root)
        self.devices = devices

    def unavailable(self) -> Skip | None:
        if self.tier == "micro":
            # Its only bus is virtio-mmio, and the kernel's command line is where its devices are
            # named.
            return Skip(
                "microvm has no PCI, and the distribution's kernel finds no other disk or card: "
                "it is built without VIRTIO_MMIO_CMDLINE_DEVICES",
                "vm-direct has the same guest and a bus",
            )
        return super().unavailable() or roots.missing_modules()

    def extra(self) -> Extra:
        """For `machines.running`."""
        from benchmarks.vm.machines import Extra

        return Extra(roots.modules(), self.devices(), _DRIVERS)

    def capture(self, words: list[str]) -> str:
        from benchmarks.vm.machines import said_by

        return said_by(words, self, self.extra())
