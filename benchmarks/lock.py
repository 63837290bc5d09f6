"""One run at a time: two would measure each other."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from minicontainer.paths import runtime_dir


@contextmanager
def alone(say: Callable[[str], None]) -> Iterator[None]:
    """No other run of this user begins in this block; one that goes on is waited for, and said.
    Nothing is left of the lock.
    """
    path = os.path.join(runtime_dir(), "benchmarks.lock")
    while True:
        os.makedirs(runtime_dir(), exist_ok=True)
        file = open(path, "a+", encoding="ascii")  # noqa: SIM115 (it is held over the block)
        try:
            _take(file, say)
            if _is_at(file.fileno(), path):
                break
        except BaseException:
            file.close()
            raise
        file.close()  # its last owner has removed it meanwhile
    try:
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
    finally:
        os.unlink(path)
        file.close()
        with suppress(OSError):  # not empty: a container
            os.rmdir(runtime_dir())


def _take(file, say: Callable[[str], None]) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        say(
            f"another run is measuring (pid {file.read().strip() or 'unknown'}); two at once would "
            "disturb each other: waiting until it ends, Ctrl-C gives up"
        )
        fcntl.flock(file, fcntl.LOCK_EX)


def _is_at(fd: int, path: str) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(fd), os.stat(path))
    return False
