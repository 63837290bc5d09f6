"""`--trace`: each step of a start with its system calls, from our first one to exec.

Loaded only when asked for. What happens in the stage and in init comes to our process as records,
between the others (see `report`). Under the container's filter even write(2) may be forbidden, so
from that step on nothing is told: its record and that of exec are sent before.
"""

from __future__ import annotations

import os
from time import monotonic_ns

from ..kernel import syscalls
from . import container, report
from .steps import Exec
from .steps_process import Filter


class Trace:
    """What is known of the starts since it was made. `report.trace` is where `launch` finds it."""

    def __init__(self) -> None:
        self.plan: list = []
        self._records: list[list[str]] = []
        self._pending: list[bytes] = []  # of the step that is being applied
        self._number = self._start = self._end = 0  # of that step; of them all
        syscalls.trace = self._call

    def begin(self, plan) -> None:
        """Steps of this plan follow; the fork of the stage, which is none, counts as its first."""
        self.plan = plan
        self._number = next((n for n, step in enumerate(plan, 1) if step.where == "stage"), 0)

    def add(self, kind: str, fields: list[str]) -> None:
        """A record from the stage or from init."""
        self._records.append([kind, *fields])

    def apply(self, step, number: int, context) -> None:
        """`step.apply`, told also when it fails."""
        self.start(number)
        silent = isinstance(step, Filter) or type(step) is Exec  # not "find command", which is one
        if silent and syscalls.trace:
            self._pending += [report.encode("step", n, self._start, self._start)
                              for n in range(number, len(self.plan) + 1)]  # fmt: skip
            self._tell(context)
            syscalls.trace = None
        try:
            step.apply(context)
        finally:
            if not silent:
                self.done(context)

    def start(self, number: int) -> None:
        self._number, self._start = number, monotonic_ns()

    def done(self, context) -> None:
        self._pending.append(report.encode("step", self._number, self._start, monotonic_ns()))
        self._tell(context)

    def end(self) -> None:
        """The command runs, as far as we know."""
        self._end = monotonic_ns()

    def steps(self) -> list[dict]:
        """The rows so far, in order of time; the same as `Container.steps`."""
        syscalls.trace = None
        self._tell(None)
        found = container._steps(self.plan, self._records, self._end or monotonic_ns())
        return sorted(found, key=lambda row: (row["start_ns"], row["n"]))

    def _call(self, text: str, result: object, start: int, end: int) -> None:
        if result == 0 and text.startswith(("fork(", "clone")):
            return  # in the child; its parent tells
        self._pending.append(report.encode("call", self._number, text, result, start, end))

    def _tell(self, context) -> None:
        data = b"".join(self._pending)
        self._pending.clear()
        if context and context.report_fd >= 0:
            os.write(context.report_fd, data)
        else:
            self._records += report.decode(data)
