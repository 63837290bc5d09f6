"""One run at a time: two would measure each other."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from minicontainer.paths import runtime_dir


def _path() -> str:
    return os.path.join(runtime_dir(), "benchmarks.lock")


@contextmanager
def alone(say: Callable[[str], None]) -> Iterator[None]:
    """No other run of this user begins in this block; one that goes on is waited for, and said."""
    os.makedirs(runtime_dir(), exist_ok=True)
    # A file that stays: who removes it while another waits would let a third one in.
    with open(_path(), "a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            say(
                f"another run is measuring (pid {file.read().strip() or 'unknown'}); two at once "
                "would disturb each other: waiting until it ends, Ctrl-C gives up"
            )
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
