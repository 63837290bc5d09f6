"""From an OCI `linux.seccomp` object to a BPF program; what libseccomp does for runc.

Loaded only when no compiled filter is at hand (see `seccomp.cached`).
"""

from __future__ import annotations

import errno
import os

from . import bpf, seccomp_table
from .seccomp_profile import DOORS, ERRNO, KILL_PROCESS, X32_BIT, Rule, architectures, parse

WIDE = 0x80000000  # __AUDIT_ARCH_64BIT


def compile(profile: dict, machine: str = "") -> bytes:
    """The program for seccomp(2). Raises ValueError that names the field which is wrong."""
    default, rules = parse(profile)
    asm = bpf.Assembler()
    # A call made the way of another machine (int 0x80 on x86-64) has other numbers: had it no
    # table of its own it would be judged by the wrong one. So: not listed, not survived.
    start = asm.ret(KILL_PROCESS)
    for audit_arch, column in reversed(architectures(profile, machine or os.uname().machine)):
        calls = _by_number(rules, column, default)
        dispatch = asm.load(bpf.NR, _dispatch(asm, calls, default, column, audit_arch & WIDE))
        start = asm.branch(bpf.EQUAL, audit_arch, dispatch, start)
    return asm.program(asm.load(bpf.ARCH, start))


def numbers(column: str) -> dict[str, int]:
    """Name -> number of the system calls of one machine."""
    at = seccomp_table.COLUMNS.index(column) + 1
    rows = [line.split() for line in seccomp_table.TABLE.splitlines()]
    return {row[0]: int(row[at]) for row in rows if row[at] != "-"}


def _by_number(rules: list[Rule], column: str, default: int) -> dict[int, list]:
    """Number -> its rules as (conditions, result), in order.

    As in libseccomp a rule without conditions replaces those that have some, and the first of its
    kind stays. A rule that says what the default says is left out, as runc does.
    """
    table = numbers(column)
    calls: dict[int, list] = {}

    def add(name: str, conditions, result: int) -> None:
        number = table.get(name)
        if number is None:
            return
        known = calls.setdefault(number, [])
        if not conditions and not (known and not known[0][0]):
            calls[number] = [(conditions, result)]
        elif conditions and not (known and not known[0][0]):
            known.append((conditions, result))

    for rule in rules:
        if rule.result == default:
            continue
        for name in rule.names:
            add(name, rule.conditions, rule.result)
            if column == "i386" and name in DOORS:
                door, number = DOORS[name]
                rest = [c for c in rule.conditions if c[0] != 0]
                add(door, [(0, "==", number, 0), *rest], rule.result)
    return calls


def _dispatch(asm: bpf.Assembler, calls: dict, default: int, column: str, wide: int) -> int:
    """From a number in A to its rules: ranges with the same fate, found by binary search."""
    otherwise = asm.ret(default)
    # Where the default is an error, calls younger than the youngest in the profile do not exist:
    # programs fall back on ENOSYS, but give up on EPERM (runc has the same).
    newest = max((n for n in calls if n < 0xF0000), default=-1)  # above: ARM's private calls
    missing = default & 0xFFFF0000 == ERRNO and newest >= 0
    newer = asm.ret(ERRNO | errno.ENOSYS) if missing else otherwise
    ranges: list[tuple[int, int]] = []  # (first number, place)

    def extend(number: int, place: int) -> None:
        if not ranges or ranges[-1][1] != place:
            ranges.append((number, place))

    following = 0
    for number in sorted(calls):
        if number > following:
            extend(following, otherwise if following <= newest else newer)
        extend(number, _rules(asm, calls[number], otherwise, wide))
        following = number + 1
    extend(following, newer)
    if column == "x86_64":
        # The x32 ABI, 32-bit pointers on x86-64, has the same AUDIT_ARCH and this bit in its
        # numbers. Distributions build or boot without it, so we give that kernel's answer.
        extend(X32_BIT, asm.ret(ERRNO | errno.ENOSYS))

    def search(low: int, high: int) -> int:
        if high - low == 1:
            return ranges[low][1]
        middle = (low + high) // 2
        upper, lower = search(middle, high), search(low, middle)
        return asm.branch(bpf.AT_LEAST, ranges[middle][0], upper, lower)

    return search(0, len(ranges))


def _rules(asm: bpf.Assembler, rules: list, otherwise: int, wide: int) -> int:
    """The first rule whose conditions hold decides."""
    place = otherwise
    for conditions, result in reversed(rules):
        yes, no = asm.ret(result), place
        for condition in reversed(conditions):
            yes = _compare(asm, condition, yes, no, wide)
        place = yes
    return place


def _compare(asm: bpf.Assembler, condition, yes: int, no: int, wide: int) -> int:
    """A comparison of 64 bits with a machine of 32: the high half decides unless it is equal."""
    index, operator, value, second = condition
    low, high = bpf.ARGUMENTS + 8 * index, bpf.ARGUMENTS + 8 * index + 4
    if operator in ("!=", "<", "<="):
        operator = {"!=": "==", "<": ">=", "<=": ">"}[operator]
        yes, no = no, yes
    if operator == "&":

        def half(offset: int, shift: int, then: int) -> int:
            bits = value >> shift & 0xFFFFFFFF
            if not bits:
                return then
            test = asm.branch(bpf.EQUAL, second >> shift & bits, then, no)
            return asm.load(offset, asm.mask(bits, test))

        place = half(low, 0, yes)
        return half(high, 32, place) if wide else place
    test = {"==": bpf.EQUAL, ">=": bpf.AT_LEAST, ">": bpf.GREATER}[operator]
    place = asm.load(low, asm.branch(test, value & 0xFFFFFFFF, yes, no))
    if not wide:
        return place  # a 32-bit call has 32-bit arguments; libseccomp compares no more of them
    place = asm.branch(bpf.EQUAL, value >> 32, place, no)
    if operator != "==":
        place = asm.branch(bpf.GREATER, value >> 32, yes, place)
    return asm.load(high, place)
