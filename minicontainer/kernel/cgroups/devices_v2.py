"""The device filter of cgroup v2: a small eBPF program that the kernel asks at each open and mknod.

cgroup-v2.rst, "Device controller"; the machine: Documentation/bpf/standardization/
instruction-set.rst. Its input is `struct bpf_cgroup_dev_ctx` (include/uapi/linux/bpf.h): the access
(mknod 1, read 2, write 4) in the upper 16 bits of the first word and the kind (block 1, char 2) in
the lower, then major and minor. It returns 1 to allow and 0 for EPERM.
"""

from __future__ import annotations

import os
import struct

from .. import syscalls
from .devices import ANY, Rule
from .files import CgroupError

_INSTRUCTION = struct.Struct("=BBhi")  # code, registers (source << 4 | destination), offset, value
_LOAD, _COPY, _SET, _EXIT = 0x61, 0xBF, 0xB7, 0x95
_AND, _SHIFT_RIGHT, _JUMP_EQUAL, _JUMP_NOT_EQUAL = 0x57, 0x77, 0x15, 0x55
_RESULT, _INPUT, _KIND, _ACCESS, _MAJOR, _MINOR, _SCRATCH = range(7)  # registers r0 to r6

_KINDS = {"b": 1, "c": 2}
_BITS = {"m": 1, "r": 2, "w": 4}
_PROG_TYPE_CGROUP_DEVICE, _ATTACH_CGROUP_DEVICE = 15, 6
_NAME = b"minicontainer\0\0\0"  # how we know our own program among others


class Filter:
    """The filter for `devices.rules`, to be done as a `resources.Write` is."""

    __slots__ = ("program",)
    file = "devices"

    def __init__(self, default: bool, rules: list[Rule]) -> None:
        self.program = compile(default, rules)

    def text(self, directory: str) -> str:
        calls = (syscalls.BPF_PROG_LOAD, syscalls.BPF_PROG_ATTACH)
        return ", ".join(syscalls.bpf.text(call) for call in calls) + f" to {directory!r}"

    def apply(self, directory: str) -> None:
        attach(directory, self.program)


def compile(default: bool, rules: list[Rule]) -> bytes:
    """The program for `devices.rules`: from the last rule to the first, as the later one holds.

    Each access bit is decided by the last rule that names it: an allow takes its bits out of
    what is asked for until nothing is left, a deny ends it all.
    """
    code = [
        (_LOAD, _INPUT << 4 | _KIND, 0, 0),
        (_COPY, _KIND << 4 | _ACCESS, 0, 0),
        (_SHIFT_RIGHT, _ACCESS, 0, 16),
        (_AND, _KIND, 0, 0xFFFF),
        (_LOAD, _INPUT << 4 | _MAJOR, 4, 0),
        (_LOAD, _INPUT << 4 | _MINOR, 8, 0),
    ]
    for rule in reversed(rules):
        code += _rule(rule)
    code += [(_SET, _RESULT, 0, int(default)), (_EXIT, 0, 0, 0)]
    return b"".join([_INSTRUCTION.pack(*one) for one in code])


def _rule(rule: Rule) -> list[tuple[int, int, int, int]]:
    bits = sum(_BITS[letter] for letter in rule.access)
    if rule.allow:
        decide = [(_AND, _ACCESS, 0, 7 & ~bits), (_JUMP_NOT_EQUAL, _ACCESS, 2, 0)]
    else:
        decide = [
            (_COPY, _ACCESS << 4 | _SCRATCH, 0, 0),
            (_AND, _SCRATCH, 0, bits),
            (_JUMP_EQUAL, _SCRATCH, 2, 0),
        ]
    decide += [(_SET, _RESULT, 0, int(rule.allow)), (_EXIT, 0, 0, 0)]
    tests = [(_KIND, _KINDS[rule.kind]), (_MAJOR, rule.major), (_MINOR, rule.minor)]
    tests = [(register, value) for register, value in tests if value != ANY]
    rest = len(tests) + len(decide)
    return [(_JUMP_NOT_EQUAL, register, rest - place, value)
            for place, (register, value) in enumerate(tests, 1)] + decide  # fmt: skip


def attach(directory: str, program: bytes) -> None:
    """Load the program and attach it to a v2 group, in place of one that we attached before.

    Of several programs on the way to the root each must allow (bpf(2), BPF_F_ALLOW_MULTI). Raises
    CgroupError: EPERM without CAP_BPF and CAP_NET_ADMIN, as in a user namespace.
    """
    opened = [os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
    try:
        group = opened[0]
        old = _ours(group, opened)
        new = syscalls.bpf(
            syscalls.BPF_PROG_LOAD, "=IIQQIIQII16s", _PROG_TYPE_CGROUP_DEVICE, len(program) // 8,
            bytearray(program), bytearray(b"Apache-2.0\0"), 0, 0, 0, 0, 0, _NAME,
        )  # fmt: skip
        opened.append(new)
        flags = syscalls.BPF_F_ALLOW_MULTI | (syscalls.BPF_F_REPLACE if old else 0)
        syscalls.bpf(syscalls.BPF_PROG_ATTACH, "=IIIII", group, new, _ATTACH_CGROUP_DEVICE, flags,
                     old)  # fmt: skip
    except OSError as error:
        hint = "only root may; a user namespace cannot mknod: leave linux.resources.devices out"
        text = f"{error.strerror}: the device filter of {directory}"
        raise CgroupError(error.errno or 0, text, hint) from None
    finally:
        for fd in opened:
            os.close(fd)


def _ours(group: int, opened: list[int]) -> int:
    """A descriptor of the program that we attached to this group before, or 0."""
    ids = bytearray(4 * 64)  # BPF_CGROUP_MAX_PROGS
    syscalls.bpf(syscalls.BPF_PROG_QUERY, "=IIIIQI", group, _ATTACH_CGROUP_DEVICE, 0, 0, ids, 64)
    for (number,) in struct.iter_unpack("=I", ids):
        if number:
            fd = syscalls.bpf(syscalls.BPF_PROG_GET_FD_BY_ID, "=III", number, 0, 0)
            opened.append(fd)
            info = bytearray(80)  # struct bpf_prog_info up to `name`, its last 16 bytes
            syscalls.bpf(syscalls.BPF_OBJ_GET_INFO_BY_FD, "=IIQ", fd, len(info), info)
            if info[64:] == _NAME:
                return fd
    return 0
