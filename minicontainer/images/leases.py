"""Many processes on one store: a lock for changing it, and leases that keep what is in the making.

Both are flock(2)s on files of the store: the kernel releases them when their holder dies.
"""

from __future__ import annotations

import fcntl
import os
from _thread import RLock

from . import descriptor as d

TYPE_CHECKING = False  # as in typing, whose import would cost a start 3 ms
if TYPE_CHECKING:
    from .store import Store


def lock_if_there(fd: int, path: str) -> bool:
    """Wait for the lock of the file that was opened at `path`.

    False, and it is closed, when it is another's by then: whoever we waited for has renamed or
    removed it.
    """
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        if os.path.samestat(os.stat(path), os.fstat(fd)):
            return True
    except FileNotFoundError:
        pass
    os.close(fd)
    return False


class Lock:
    """Held by one process and one thread of it at a time; the same thread may nest it."""

    def __init__(self, root: str) -> None:
        self._path = f"{root}/lock"
        self._mutex = RLock()
        self._fd, self._depth = -1, 0

    def __enter__(self) -> None:
        self._mutex.acquire()
        self._depth += 1
        if self._depth > 1:
            return
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_) -> None:
        self._depth -= 1
        if self._depth == 0 and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._mutex.release()


class Lease:
    """A file of digests that `gc` keeps as long as the process that made it lives.

    made  digests of the blobs that were written under it
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._outer: Lease | None = None
        self._digests: set[str] = set()
        self.made: set[str] = set()

    def __enter__(self) -> Lease:
        store = self._store
        self._path = f"{store.root}/leases/process-{os.getpid()}-{os.urandom(4).hex()}"
        with store.lock():  # or `gc` might see it before it is locked
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._fd = os.open(self._path, flags, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            self._outer, store._lease = store._lease, self
        return self

    def __exit__(self, *_) -> None:
        with self._store.lock():
            self._store._lease = self._outer
            os.unlink(self._path)
            os.close(self._fd)

    def add(self, digest: str) -> None:
        """Keep a blob, whether it is there or comes yet. Waits while `gc` runs."""
        if digest not in self._digests:
            with self._store.lock():
                os.write(self._fd, f"{d.check_digest(digest)}\n".encode())
                self._digests.add(digest)
