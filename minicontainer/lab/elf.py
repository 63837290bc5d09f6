"""The two facts of an ELF file that a root tree depends on: which loader, which libraries.

As `readelf --program-headers` shows them; elf(5), ld.so(8).
"""

from __future__ import annotations

import os
import shlex
import struct

PT_INTERP = 3


def interpreter(path: str) -> str | None:
    """The loader that the kernel starts in the program's place, from its PT_INTERP header.

    None for a static program, and for a file that is no ELF of 64 bits. Raises OSError.
    """
    with open(path, "rb") as file:
        header = file.read(64)
        if header[:5] != b"\x7fELF\x02":  # the fifth byte: 64 bits
            return None
        (table,) = struct.unpack_from("=Q", header, 32)  # e_phoff
        size, count = struct.unpack_from("=HH", header, 54)  # e_phentsize, e_phnum
        for number in range(count):
            file.seek(table + number * size)
            entry = file.read(size)
            if struct.unpack_from("=I", entry)[0] == PT_INTERP:
                offset, length = struct.unpack_from("=Q16xQ", entry, 8)  # p_offset, p_filesz
                file.seek(offset)
                return os.fsdecode(file.read(length).rstrip(b"\0"))
    return None


def libraries(path: str) -> list[str]:
    """The files that the program's loader would map into it, as `ldd` prints them.

    Runs the loader with --list, never the program itself. [] for a static program.
    """
    loader = interpreter(path)
    if loader is None:
        return []
    with os.popen(f"{loader} --list {shlex.quote(path)} 2>&1") as listing:
        words = [word for line in listing for word in line.split()]
    return [word for word in words if word.startswith("/") and word != loader]
