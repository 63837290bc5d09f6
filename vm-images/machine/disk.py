"""A disk that a PC boots from, made without root and without loop devices: a partition table, GRUB
in front of the first partition, and one ext4 file system that mke2fs(8) fills from a tree.

    sector 0          GRUB's boot.img and the partition table
    sectors 1 to 2047 GRUB's core image, with a configuration in it and no menu
    from sector 2048  the partition
"""

from __future__ import annotations

import os
import struct

from kit import tools, trees
from kit.recipe import Failed, Work
from roots.debian_base import EPOCH

SECTOR, FIRST_SECTOR, MIB = 512, 2048, 1 << 20
LINUX_PARTITION, BOOTABLE = 0x83, 0x80
# Nothing about them is random, so that the same tree gives the same bytes.
UUID = "5eed0000-0000-4000-8000-000000000001"
DISK_ID = 0x5EED0001
TABLE = 440  # offset in the first sector; GRUB's code is before it

GRUB = "usr/lib/grub/i386-pc"
GRUB_MODULES = ["biosdisk", "part_msdos", "ext2", "linux"]
FIRST_INODE = 11  # of a file that is not ext4's own: lost+found
FIX = "sudo ./workshop setup (or: apt install e2fsprogs)"


def write(work: Work, tree: str, megabytes: int, command_line: str) -> None:
    """Write `work.target`: a raw image, sparse, of that size. The tree has its kernel's links
    /vmlinuz and /initrd.img, and GRUB.
    """
    clamp_times(tree)
    size = f"{megabytes - 2}m"  # FIRST_SECTOR before it; the end is left alone
    _file_system(work, tree, size)
    core = _core_image(work, tree, command_line)
    with open(os.path.join(tree, GRUB, "boot.img"), "rb") as file:
        code = file.read(TABLE)
    with open(work.target, "r+b") as disk:
        disk.truncate(megabytes * MIB)
        disk.write(code + table(megabytes * MIB // SECTOR - FIRST_SECTOR) + core)
    os.chmod(work.target, 0o644)


def table(sectors: int) -> bytes:
    """The rest of the first sector: one partition. Its CHS addresses say "see the other ones".

    https://wiki.osdev.org/MBR_(x86)
    """
    nowhere = b"\xfe\xff\xff"
    one = struct.pack(
        "<B3sB3sII", BOOTABLE, nowhere, LINUX_PARTITION, nowhere, FIRST_SECTOR, sectors
    )
    return struct.pack("<IH", DISK_ID, 0) + one.ljust(64, b"\0") + b"\x55\xaa"


def clamp_times(tree: str) -> None:
    """No later time than EPOCH: what was just written has today's."""
    latest = int(EPOCH)
    for name, status in trees.entries(tree):
        if status.st_mtime > latest:
            os.utime(os.path.join(tree, name), (latest, latest), follow_symlinks=False)


def _file_system(work: Work, tree: str, size: str) -> None:
    # What belongs to an ordinary user is root's in the image: so it looks from a user namespace.
    within = [] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user"]
    options = f"offset={FIRST_SECTOR * SECTOR},root_owner=0:0,hash_seed={UUID}"
    argv = [tools.find("mke2fs", "e2fsprogs"), "-q", "-F", "-t", "ext4", "-m", "0", "-U", UUID]
    argv += ["-E", options, "-d", tree, work.target, size]
    work.tools.run(argv, FIX, within=within, E2FSPROGS_FAKE_TIME=EPOCH)
    # mke2fs copies the times of access and of the last change, too: those of the unpacking.
    inodes = {status.st_ino for _, status in trees.entries(tree)}
    used = [2, *range(FIRST_INODE, FIRST_INODE + len(inodes))]  # 2: the root, which is in `inodes`
    script = os.path.join(work.scratch, "times")
    with open(script, "w", encoding="ascii") as file:
        for inode in used:
            file.write(f"sif <{inode}> atime @{EPOCH}\nsif <{inode}> ctime @{EPOCH}\n")
    where = f"{work.target}?offset={FIRST_SECTOR * SECTOR}"
    argv = [tools.find("debugfs", "e2fsprogs"), "-w", "-f", script, where]
    work.tools.run(argv, FIX, E2FSPROGS_FAKE_TIME=EPOCH)


def _core_image(work: Work, tree: str, command_line: str) -> bytes:
    """Made by the tree's own grub-mkimage with the tree's own libraries: the host needs no GRUB."""
    configuration = os.path.join(work.scratch, "grub.cfg")
    with open(configuration, "w", encoding="utf-8") as file:
        file.write(
            f"set root=(hd0,msdos1)\nlinux /vmlinuz root=UUID={UUID} {command_line}\n"
            "initrd /initrd.img\nboot\n"
        )
    core = os.path.join(work.scratch, "core.img")
    libraries = os.path.join(tree, "usr/lib/x86_64-linux-gnu")
    argv = [
        os.path.join(libraries, "ld-linux-x86-64.so.2"), "--library-path", libraries,
        os.path.join(tree, "usr/bin/grub-mkimage"), "-O", "i386-pc", "-p", "/boot/grub",
        "-d", os.path.join(tree, GRUB), "-c", configuration, "-o", core, *GRUB_MODULES,
    ]  # fmt: skip
    work.tools.run(argv, "look whether this host is x86-64; nothing else here needs it")
    with open(core, "rb") as file:
        image = file.read()
    if len(image) > (FIRST_SECTOR - 1) * SECTOR:
        raise Failed("GRUB does not fit in front of the partition", "fewer modules in disk.py")
    return image
