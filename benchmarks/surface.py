"""The host's system calls that a process can reach: its seccomp filters are read out of the kernel,
and asked about every call that there is.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from minicontainer.kernel import bpf, seccomp_table

# include/uapi/linux/ptrace.h, seccomp.h, audit.h
SEIZE, INTERRUPT, DETACH, GET_FILTER = 0x4206, 0x4207, 17, 0x420C
ALLOW, LOG = 0x7FFF0000, 0x7FFC0000
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_WALL = 0x40000000  # waitpid(2): also for who is no child

_ptrace = ctypes.CDLL(None, use_errno=True).ptrace
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_ptrace.restype = ctypes.c_long


def calls() -> dict[str, int]:
    """Name and number of every system call of this architecture, as far as our table knows."""
    column = 1 + seccomp_table.COLUMNS.index(os.uname().machine)
    lines = (line.split() for line in seccomp_table.TABLE.splitlines())
    return {line[0]: int(line[column]) for line in lines if line[column] != "-"}


def allowed(programs: list[bytes]) -> list[str]:
    """The calls that every filter lets through, at least with some arguments."""
    architecture = ARCHITECTURES[os.uname().machine]
    decoded = [bpf.instructions(program) for program in programs]
    return [
        name
        for name, number in calls().items()
        if all({ALLOW, LOG} & actions(code, number, architecture) for code in decoded)
    ]


def actions(code: list[tuple[int, int, int, int]], number: int, architecture: int) -> set[int]:
    """What a filter may answer to this call, whatever its arguments are: where it looks at these,
    both ways are followed.
    """
    known = {bpf.NR: number, bpf.ARCH: architecture}
    found: set[int] = set()
    ways: list[tuple[int, int | None]] = [(0, None)]  # instruction, what A holds (None: unknown)
    seen = set(ways)
    while ways:
        at, a = ways.pop()
        op, yes, no, k = code[at]
        then: list[tuple[int, int | None]]
        if op == bpf.RETURN:
            found.add(k & 0x7FFF0000 if k < 0x80000000 else k & 0xFFFF0000)
            continue
        if op == bpf.LOAD:
            then = [(at + 1, known.get(k))]
        elif op == bpf.JUMP:
            then = [(at + 1 + k, a)]
        elif op == bpf.AND:
            then = [(at + 1, None if a is None else a & k)]
        elif op & 0x07 == bpf.JUMP:  # the class BPF_JMP
            answer = _compare(op, a, k)
            then = [(at + 1 + yes, a)] if answer is not False else []
            then += [(at + 1 + no, a)] if answer is not True else []
        else:
            then = [(at + 1, None)]
        ways += [way for way in then if way not in seen]
        seen.update(then)
    return found


def _compare(op: int, a: int | None, k: int) -> bool | None:
    if a is None:
        return None
    tests = {bpf.EQUAL: a == k, bpf.GREATER: a > k, bpf.AT_LEAST: a >= k, 0x45: bool(a & k)}
    return tests.get(op)


def filters(pid: int) -> list[bytes]:
    """The seccomp filters of a process, as it has loaded them. Raises OSError: only root may ask,
    of a kernel with CONFIG_CHECKPOINT_RESTORE.
    """
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        mode = next((line.split()[1] for line in file if line.startswith("Seccomp:")), "0")
    if mode == "0":
        return []
    with _stopped(pid):
        found: list[bytes] = []
        while True:
            length = _ptrace(GET_FILTER, pid, len(found), None)
            if length < 0:
                break  # ENOENT: that was the last one
            buffer = ctypes.create_string_buffer(length * struct.calcsize("=HBBI"))
            _ask(GET_FILTER, pid, len(found), ctypes.cast(buffer, ctypes.c_void_p).value)
            found.append(buffer.raw)
        if not found:
            raise OSError(ctypes.get_errno(), "PTRACE_SECCOMP_GET_FILTER")
        return found


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    """The process, stopped for a moment; it sleeps on afterwards, and sees nothing of this."""
    _ask(SEIZE, pid, None, None)
    try:
        _ask(INTERRUPT, pid, None, None)
        os.waitpid(pid, _WALL)
        yield
    finally:
        _ptrace(DETACH, pid, None, None)


def _ask(request: int, pid: int, address: int | None, data: int | None) -> int:
    result: int = _ptrace(request, pid, address, data)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"ptrace({request:#x}, {pid}): {os.strerror(error)}")
    return result
