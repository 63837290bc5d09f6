"""Classic BPF, the little machine in the kernel that runs a seccomp filter: write it, read it.

One register A, an input of 64 bytes (`struct seccomp_data`, include/uapi/linux/seccomp.h), and only
jumps forward, so that every program ends. An instruction is `struct sock_filter`: code, two jump
distances of 8 bits for yes and no, a constant of 32 bits (include/uapi/linux/filter.h).
"""

from __future__ import annotations

import struct

LOAD = 0x20  # BPF_LD|BPF_W|BPF_ABS: A = the 32-bit word at offset k of the input
AND = 0x54  # BPF_ALU|BPF_AND|BPF_K: A &= k
JUMP = 0x05  # BPF_JMP|BPF_JA: k instructions forward, 32 bits wide
EQUAL = 0x15  # BPF_JMP|BPF_JEQ|BPF_K
GREATER = 0x25  # BPF_JMP|BPF_JGT|BPF_K, unsigned
AT_LEAST = 0x35  # BPF_JMP|BPF_JGE|BPF_K, unsigned
RETURN = 0x06  # BPF_RET|BPF_K

MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS
NR, ARCH, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data; arguments have 64 bits each

_INSTRUCTION = struct.Struct("=HBBI")
_FAR = 254  # 255 is what 8 bits hold; one less, since a jump may get in between


class Assembler:
    """Builds a program from its last instruction to its first.

    As all jumps go forward, the target of each one is there before it: methods take and return the
    places of instructions, counted from the end. Equal tails are written once.
    """

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int]] = []
        self._known: dict[tuple[int, int, int, int], int] = {}
        self._jumps: dict[int, int] = {}  # target -> the last JUMP to it

    def ret(self, value: int) -> int:
        """End with `value`, an action of seccomp(2)."""
        return self._once((RETURN, value, 0, 0), lambda: (0, 0))

    def load(self, offset: int, then: int) -> int:
        """A = the word at `offset`, then go on at the place `then`."""
        return self._once((LOAD, offset, then, then), lambda: self._next(then))

    def mask(self, bits: int, then: int) -> int:
        """A &= bits, then go on at the place `then`."""
        return self._once((AND, bits, then, then), lambda: self._next(then))

    def branch(self, test: int, value: int, yes: int, no: int) -> int:
        """Compare A with `value`; go on at one place or the other."""
        if yes == no:
            return yes
        return self._once((test, value, yes, no), lambda: self._distances(yes, no))

    def program(self, start: int) -> bytes:
        """The finished program. Raises ValueError when it is longer than the kernel takes."""
        self._next(start)
        if len(self._code) > MAX_INSTRUCTIONS:
            raise ValueError(
                f"the filter has {len(self._code)} instructions; the kernel takes at most "
                f"{MAX_INSTRUCTIONS}: name fewer conditions"
            )
        return b"".join([_INSTRUCTION.pack(*one) for one in reversed(self._code)])

    def _once(self, key, jumps) -> int:
        place = self._known.get(key)
        if place is None:
            yes, no = jumps()  # may write a JUMP first
            self._code.append((key[0], yes, no, key[1]))
            place = self._known[key] = len(self._code) - 1
        return place

    def _next(self, target: int) -> tuple[int, int]:
        if target != len(self._code) - 1:
            self._jump(target)
        return 0, 0

    def _distances(self, yes: int, no: int) -> tuple[int, int]:
        yes, no = self._near(yes), self._near(no)
        return len(self._code) - yes - 1, len(self._code) - no - 1

    def _near(self, target: int) -> int:
        """`target`, or a JUMP to it when a branch's 8 bits do not reach that far."""
        if len(self._code) - target - 1 < _FAR:
            return target
        jump = self._jumps.get(target)
        if jump is None or len(self._code) - jump - 1 >= _FAR:
            jump = self._jump(target)
        return jump

    def _jump(self, target: int) -> int:
        self._code.append((JUMP, 0, 0, len(self._code) - target - 1))
        self._jumps[target] = len(self._code) - 1
        return len(self._code) - 1


_TESTS = {EQUAL: "==", GREATER: ">", AT_LEAST: ">="}


def instructions(program: bytes) -> list[tuple[int, int, int, int]]:
    """(code, yes, no, constant) of each instruction."""
    return list(_INSTRUCTION.iter_unpack(program))


def disassemble(program: bytes) -> list[str]:
    """One line for each instruction: `  3: if A == 0xc000003e goto 5 else 4`."""
    lines = []
    for here, (code, yes, no, k) in enumerate(instructions(program)):
        if code == LOAD:
            text = f"A = {_field(k)}"
        elif code == AND:
            text = f"A &= {k:#x}"
        elif code == RETURN:
            text = f"return {k:#x}"
        elif code == JUMP:
            text = f"goto {here + 1 + k}"
        elif code in _TESTS:
            text = f"if A {_TESTS[code]} {k:#x} goto {here + 1 + yes} else {here + 1 + no}"
        else:
            text = f"code {code:#x} yes {yes} no {no} k {k:#x}"
        lines.append(f"{here:4}: {text}")
    return lines


def _field(offset: int) -> str:
    if offset < ARGUMENTS:
        return {NR: "nr", ARCH: "arch"}.get(offset, f"input[{offset}]")
    index, high = divmod(offset - ARGUMENTS, 8)
    return f"args[{index}].{'high' if high else 'low'}"
