"""base/machine.tar: the packages of debian_base.py, and those that a machine of its own needs."""

from __future__ import annotations

from kit.recipe import Recipe, Work
from roots import debian_base

# systemd with udev and dbus; a kernel with its modules, and the tool that makes its initramfs; the
# boot loader. Debian's own choice in each case.
PACKAGES = [
    "systemd-sysv", "udev", "dbus", "initramfs-tools", "zstd", "linux-image-cloud-amd64",
    "grub-pc-bin",
]  # fmt: skip
SPACE_MB = 1000

# The initramfs is made while the kernel's package is installed, so this has to be there before: the
# drivers of the machine that it boots on, in place of all (5 MB, not 13), and no wait for a swap
# device to resume from.
INITRAMFS = "MODULES=list\\nCOMPRESS=zstd\\nRESUME=none\\n"
MODULES = "virtio_pci\\nvirtio_blk\\next4\\n"
HOOK = (
    'mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d" && '
    f'printf "{INITRAMFS}" >"$1/etc/initramfs-tools/conf.d/machine" && '
    f'printf "{MODULES}" >"$1/usr/share/initramfs-tools/modules.d/machine"'
)


def bootstrap(
    work: Work, packages: list[str], space_mb: int, hooks: list[str]
) -> dict[str, str]:  # fmt: skip
    """A machine's system, with `packages` beside its own."""
    include = ",".join([*PACKAGES, *packages])
    options = [f"--include={include}", f"--essential-hook={HOOK}", *hooks]
    return debian_base.bootstrap(work, space_mb, options)


def make(work: Work) -> dict[str, str]:
    return bootstrap(work, [], SPACE_MB, [])


SOURCES = (__file__, debian_base.__file__)
RECIPES = [Recipe("base/machine.tar", "full", make, SOURCES, facts=debian_base.facts, shared=True)]
