"""kernel/vmlinux: the same kernel without its wrapping, as an ELF file.

A vmlinuz unpacks itself first: a fifth of an emulated boot. QEMU starts an ELF kernel at its PVH
entry, after everything that the wrapping does. Same kernel, same configuration.

https://docs.kernel.org/arch/x86/boot.html, https://xenbits.xen.org/docs/unstable/misc/pvh.html
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import subprocess

from kit.recipe import Failed, Recipe, Work

# Offsets in the setup header (boot.html): sectors of setup code; where the packed kernel is.
SETUP_SECTORS, PAYLOAD_OFFSET, PAYLOAD_LENGTH = 0x1F1, 0x248, 0x24C
LZ4_LEGACY = b"\x02\x21\x4c\x18"
FIX = "nothing needs it that cannot use kernel/vmlinuz instead"


def facts() -> dict[str, str]:
    if os.uname().machine != "x86_64":
        raise Failed("PVH is x86's", FIX)
    return {}


def make(work: Work) -> dict[str, str]:
    with open(work.output["kernel/vmlinuz"], "rb") as file:
        image = file.read()
    kernel = unpacked(payload(image))
    if kernel[:4] != b"\x7fELF":
        raise Failed("what is packed in this kernel is not an ELF file", FIX)
    with open(work.target, "wb") as file:
        file.write(kernel)
    return {}


def payload(image: bytes) -> bytes:
    """The packed kernel inside a bzImage of boot protocol 2.08 or later."""
    if image[:4] == b"\x7fELF":
        return image
    if image[0x202:0x206] != b"HdrS":
        raise Failed("this kernel is not a bzImage", FIX)
    offset, length = (
        int.from_bytes(image[at : at + 4], "little") for at in (PAYLOAD_OFFSET, PAYLOAD_LENGTH)
    )
    begin = ((image[SETUP_SECTORS] or 4) + 1) * 512 + offset
    return image[begin : begin + length]


def unpacked(packed: bytes) -> bytes:
    """By its first bytes. Behind the data the kernel's build puts its unpacked size, four bytes."""
    if packed[:4] == b"\x7fELF":
        return packed
    if packed[:4] == LZ4_LEGACY:
        return lz4_legacy(packed[:-4])
    try:
        if packed[:2] == b"\x1f\x8b":
            return gzip.decompress(packed[:-4])
        if packed[:3] == b"BZh":
            return bz2.BZ2Decompressor().decompress(packed)
        if packed[:6] == b"\xfd7zXZ\0" or packed[:3] == b"\x5d\0\0":
            return lzma.LZMADecompressor().decompress(packed)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise Failed(f"the packed kernel is damaged: {error}", FIX) from error
    if packed[:4] == b"\x28\xb5\x2f\xfd" and shutil.which("zstd"):
        done = subprocess.run(["zstd", "-dcq"], input=packed[:-4], capture_output=True, check=False)
        if done.returncode == 0:
            return done.stdout
        raise Failed(f"zstd: {done.stderr.decode(errors='replace').strip()}", FIX)
    raise Failed(f"no way to unpack a kernel that begins with {packed[:6].hex()}", FIX)


def lz4_legacy(packed: bytes) -> bytes:
    """`lz4 -l`, which Debian's cloud kernel is packed with: blocks, each behind its length.

    https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md (legacy frame)
    """
    out = bytearray()
    at = len(LZ4_LEGACY)
    while at + 4 <= len(packed):
        length = int.from_bytes(packed[at : at + 4], "little")
        at += 4
        _lz4_block(packed[at : at + length], out)
        at += length
    return bytes(out)


def _lz4_block(block: bytes, out: bytearray) -> None:
    """Sequences of (literals, copy of what is `offset` bytes back): lz4_Block_format.md."""
    at, end = 0, len(block)
    while True:
        token = block[at]
        count, at = _lz4_length(block, at + 1, token >> 4)
        out += block[at : at + count]
        at += count
        if at >= end:  # the last sequence is literals only
            return
        offset = block[at] | block[at + 1] << 8
        count, at = _lz4_length(block, at + 2, token & 15)
        count += 4
        begin = len(out) - offset
        if count <= offset:
            out += out[begin : begin + count]
        else:  # it overlaps what it writes: a repetition
            out += (out[begin:] * (count // offset + 1))[:count]


def _lz4_length(block: bytes, at: int, length: int) -> tuple[int, int]:
    """(length, where to go on): 15 means that more bytes are added, up to one that is not 255."""
    if length == 15:
        while True:
            length += block[at]
            at += 1
            if block[at - 1] != 255:
                break
    return length, at


RECIPES = [
    Recipe("kernel/vmlinux", "micro", make, (__file__,), ("kernel/vmlinuz",), facts),
]
