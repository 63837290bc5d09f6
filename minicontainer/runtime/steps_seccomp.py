"""The step for `linux.seccomp`; loaded only then."""

from __future__ import annotations

from ..kernel import seccomp, syscalls
from .steps import Step
from .steps_process import SYS_ADMIN


class Filter(Step):
    """The seccomp filter, as the very last thing before exec.

    Loading one takes no_new_privs or CAP_SYS_ADMIN. Where the container is to have neither, the
    capability is kept until here and dropped under the filter, which has to allow capset(2): that
    way nothing else that we do needs to be allowed in it.
    """

    name = "seccomp"
    why = "system calls that the command does not need are refused"
    clause = "config-linux.md#seccomp"
    lesson = "10"

    def __init__(self, program: bytes, flags: int, drop: dict[str, int] | None) -> None:
        self.program = program
        self.flags = flags
        self.drop = drop  # the capabilities to have after it

    def calls(self):
        found = [syscalls.seccomp.text(syscalls.SECCOMP_SET_MODE_FILTER, self.flags, self.program)]
        if self.drop:
            kinds = ("effective", "permitted", "inheritable")
            found.append(syscalls.capset.text(*[self.drop[kind] for kind in kinds]))
        return found

    def apply(self, context):
        # What is granted now is less than asked for on some hosts: only our own is taken back.
        sets = syscalls.capget() if self.drop else (0, 0, 0)
        seccomp.load(self.program, self.flags)
        if self.drop:
            syscalls.capset(sets[0] & ~SYS_ADMIN, sets[1] & ~SYS_ADMIN, sets[2])
