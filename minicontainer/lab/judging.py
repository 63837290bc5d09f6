"""What the checks of all lessons share: from what a call came to, to what the attendee is told."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from . import source
from .catalogue import NotYet
from .workbench import Outcome, WorkbenchError

SECONDS = 5  # for an answer that should take milliseconds


def fact(outcome: Outcome):
    """The value of a call of our own. Raises WorkbenchError."""
    if outcome.error:
        raise WorkbenchError(f"{outcome.error} (in: {outcome.where})")
    return outcome.value


def must_run(outcome: Outcome, name: str):
    """The value of the answer called `name`. Raises NotYet when it raised or did not end."""
    if outcome.timed_out:
        raise NotYet(f"{name} did not end and was killed.")
    if outcome.error:
        line = f" (in: {outcome.where})" if outcome.where else ""
        raise NotYet(f"{name} failed: {outcome.error}{line}")
    return outcome.value


def text_of(answer: Callable) -> str:
    """The answer's source, for a function of ours that runs it and looks on. Raises NotYet."""
    try:
        return source.text_of(answer)
    except source.NotSendable as reason:
        raise NotYet(f"{reason}.") from None


def function_of(text: str, name: str) -> Callable:
    """The function again, from such a source: for a process of the workbench."""
    namespace: dict = {"__name__": "__main__"}
    exec(text, namespace)
    return namespace[name]


def background(prepare: Callable[[], object]) -> int:
    """In the workbench: a child that has done `prepare` and sleeps on; returns its number."""
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        prepare()
        os.close(tell)
        time.sleep(3600)
        os._exit(0)
    os.close(tell)
    os.read(ready, 1)  # end of file: the child has done it
    return pid
