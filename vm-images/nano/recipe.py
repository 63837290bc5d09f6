"""nano/nano.img: a boot sector, the guest without an operating system. See nano.S."""

from __future__ import annotations

import os

from kit import tools
from kit.recipe import Failed, Recipe, Work

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.join(HERE, "nano.S")
FIX = "sudo ./workshop setup (or: apt install binutils)"
SECTOR = 512


def facts() -> dict[str, str]:
    if os.uname().machine != "x86_64":
        raise Failed("a boot sector is x86 code", "an x86-64 host; nothing else here needs it")
    return {"as": tools.version("as", "binutils"), "ld": tools.version("ld", "binutils")}


def make(work: Work) -> dict[str, str]:
    """Assembled as 32-bit x86 (.code16 in it), linked to where the BIOS loads it."""
    thing = os.path.join(work.scratch, "nano.o")
    work.tools.run([tools.find("as", "binutils"), "--32", "-o", thing, SOURCE], FIX)
    place = ["-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary"]
    work.tools.run([tools.find("ld", "binutils"), *place, "-o", work.target, thing], FIX)
    os.chmod(work.target, 0o644)  # not a program of the host's
    if os.path.getsize(work.target) != SECTOR:
        raise Failed(f"the image has {os.path.getsize(work.target)} bytes, not {SECTOR}", FIX)
    return facts()


RECIPES = [Recipe("nano/nano.img", "nano", make, (SOURCE, __file__), facts=facts)]
