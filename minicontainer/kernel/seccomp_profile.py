"""What an OCI `linux.seccomp` object says: read, checked, and put into words.

https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config-linux.md#seccomp
"""

from __future__ import annotations

import errno
import os

from . import seccomp_table
from .seccomp import flags, listed

# SECCOMP_RET_*: include/uapi/linux/seccomp.h; the low 16 bits of ERRNO and TRACE are data.
KILL_PROCESS, ERRNO, TRACE = 0x80000000, 0x00050000, 0x7FF00000
ACTIONS = {
    "SCMP_ACT_KILL": 0, "SCMP_ACT_KILL_THREAD": 0, "SCMP_ACT_KILL_PROCESS": KILL_PROCESS,
    "SCMP_ACT_TRAP": 0x00030000, "SCMP_ACT_ERRNO": ERRNO, "SCMP_ACT_TRACE": TRACE,
    "SCMP_ACT_LOG": 0x7FFC0000, "SCMP_ACT_ALLOW": 0x7FFF0000,
}  # fmt: skip
OPERATORS = {
    "SCMP_CMP_NE": "!=", "SCMP_CMP_LT": "<", "SCMP_CMP_LE": "<=", "SCMP_CMP_EQ": "==",
    "SCMP_CMP_GE": ">=", "SCMP_CMP_GT": ">", "SCMP_CMP_MASKED_EQ": "&",
}  # fmt: skip
# The kernel's machine -> the kinds of calls that it takes, its own first:
# (OCI's name, AUDIT_ARCH_* of include/uapi/linux/audit.h, column of the table)
ARCHITECTURES = {
    "x86_64": (
        ("SCMP_ARCH_X86_64", 0xC000003E, "x86_64"),
        ("SCMP_ARCH_X86", 0x40000003, "i386"),
    ),
    "aarch64": (
        ("SCMP_ARCH_AARCH64", 0xC00000B7, "aarch64"),
        ("SCMP_ARCH_ARM", 0x40000028, "arm"),
    ),
}
X32_BIT = 0x40000000  # __X32_SYSCALL_BIT

# i386 alone has two doors to these: a call of its own, and socketcall(2) or ipc(2) with a number
# (include/uapi/linux/{net,ipc}.h). A rule must guard both.
_DOORS = {
    "socketcall": ((n, name) for n, name in enumerate(
        ["socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername",
         "socketpair", "send", "recv", "sendto", "recvfrom", "shutdown", "setsockopt",
         "getsockopt", "sendmsg", "recvmsg", "accept4", "recvmmsg", "sendmmsg"], 1)),
    "ipc": ((1, "semop"), (2, "semget"), (3, "semctl"), (4, "semtimedop"), (11, "msgsnd"),
            (12, "msgrcv"), (13, "msgget"), (14, "msgctl"), (21, "shmat"), (22, "shmdt"),
            (23, "shmget"), (24, "shmctl")),
}  # fmt: skip
DOORS = {name: (door, n) for door, calls in _DOORS.items() for n, name in calls}


class Rule:
    """One entry of `syscalls`: for these names, when all conditions hold, this result."""

    __slots__ = ("conditions", "names", "result")

    def __init__(self, names, result: int, conditions) -> None:
        self.names = names
        self.result = result
        self.conditions = conditions  # of (argument's index, operator, value, second value)


def parse(profile: dict) -> tuple[int, list[Rule]]:
    """(result for calls without a rule, rules). Raises ValueError that names the field."""
    flags(profile)  # checks them
    default = _action(profile, "defaultAction", "defaultErrnoRet", "linux.seccomp")
    rules = []
    for n, entry in enumerate(listed(profile, "syscalls", "linux.seccomp")):
        where = f"linux.seccomp.syscalls[{n}]"
        names = listed(entry, "names", where)
        if not names or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{where}.names: at least one name is needed, and names only")
        result = _action(entry, "action", "errnoRet", where)
        conditions = [
            _condition(argument, f"{where}.args[{i}]")
            for i, argument in enumerate(listed(entry, "args", where))
        ]
        # Conditions hold together; but two on the same argument are alternatives, as in runc.
        if len({index for index, *_ in conditions}) < len(conditions):
            rules += [Rule(names, result, [condition]) for condition in conditions]
        else:
            rules.append(Rule(names, result, conditions))
    return default, rules


def _action(entry: dict, field: str, errno_field: str, where: str) -> int:
    name = entry.get(field)
    if name == "SCMP_ACT_NOTIFY":
        raise ValueError(f"{where}.{field}: SCMP_ACT_NOTIFY is not supported: no agent listens")
    if not isinstance(name, str) or name not in ACTIONS:
        raise ValueError(f"{where}.{field}: unknown action {name!r}; known: {' '.join(ACTIONS)}")
    number = entry.get(errno_field)
    if ACTIONS[name] not in (ERRNO, TRACE):
        if number is not None:
            raise ValueError(f"{where}.{errno_field}: {name} does not return a number")
        return ACTIONS[name]
    if number is None:
        number = errno.EPERM
    return ACTIONS[name] | _number(number, 0xFFFF, f"{where}.{errno_field}")


def _condition(argument: dict, where: str) -> tuple[int, str, int, int]:
    if not isinstance(argument, dict):
        raise ValueError(f"{where}: an object is expected, not {argument!r}")
    operator = argument.get("op")
    if not isinstance(operator, str) or operator not in OPERATORS:
        raise ValueError(f"{where}.op: unknown {operator!r}; known: {' '.join(OPERATORS)}")
    return (
        _number(argument.get("index"), 5, f"{where}.index"),
        OPERATORS[operator],
        _number(argument.get("value"), 2**64 - 1, f"{where}.value"),
        _number(argument.get("valueTwo") or 0, 2**64 - 1, f"{where}.valueTwo"),
    )


def _number(value, limit: int, where: str) -> int:
    if type(value) is not int or not 0 <= value <= limit:
        raise ValueError(f"{where}: {value!r} is not a number from 0 to {limit}")
    return value


def architectures(profile: dict, machine: str) -> list[tuple[int, str]]:
    """(AUDIT_ARCH, column of the table): the machine's own first, then its others if listed."""
    if machine not in ARCHITECTURES:
        raise ValueError(f"linux.seccomp: no table of system calls for {machine}")
    names = listed(profile, "architectures", "linux.seccomp")
    for n, name in enumerate(names):
        # The names of other machines are in order: their calls never reach this kernel.
        if not str(name).startswith("SCMP_ARCH_"):
            raise ValueError(f"linux.seccomp.architectures[{n}]: unknown {name!r}")
    own, *others = ARCHITECTURES[machine]
    return [own[1:], *(other[1:] for other in others if other[0] in names)]


def unknown(rules: list[Rule]) -> list[str]:
    """Names that no table has: they are skipped, since profiles list calls newer than a runtime."""
    known = {line.split()[0] for line in seccomp_table.TABLE.splitlines()} | set(DOORS)
    return sorted({name for rule in rules for name in rule.names} - known)


def describe(profile: dict) -> list[str]:
    """The profile in words, for `explain`: a line for each fate and each condition."""
    default, rules = parse(profile)
    lines = [f"by default: {_words(default)}"]
    fates: dict[int, set[str]] = {}
    for rule in rules:
        if not rule.conditions:
            fates.setdefault(rule.result, set()).update(rule.names)
    for result, names in fates.items():
        few = f": {' '.join(sorted(names))}" if len(names) <= 8 else ""
        lines.append(f"{_words(result)}: {len(names)} calls{few}")
    for rule in rules:
        if rule.conditions:
            tests = " and ".join(_condition_words(*condition) for condition in rule.conditions)
            lines.append(f"{_words(rule.result)}: {' '.join(rule.names)} if {tests}")
    columns = [column for _, column in architectures(profile, os.uname().machine)]
    lines.append(f"calls of {', '.join(columns)}; any other machine's: kill process")
    if "x86_64" in columns:
        lines.append(f"x32 calls (numbers from {X32_BIT:#x}): errno ENOSYS")
    if missing := unknown(rules):
        lines.append(f"skipped, unknown to this runtime: {' '.join(missing)}")
    return lines


def _condition_words(index: int, operator: str, value: int, second: int) -> str:
    if operator == "&":
        return f"args[{index}] & {value:#x} == {second:#x}"
    return f"args[{index}] {operator} {value:#x}"


def _words(result: int) -> str:
    for name, base in ACTIONS.items():
        if result & 0xFFFF0000 == base and name != "SCMP_ACT_KILL":
            words = name.removeprefix("SCMP_ACT_").lower().replace("_", " ")
            if base in (ERRNO, TRACE):
                number = result & 0xFFFF
                return f"{words} {errno.errorcode.get(number, number)}"
            return words
    return hex(result)
