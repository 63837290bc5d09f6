"""What a detached container prints: a file of its directory, and one more when that is full.

A line is CRI's, as podman's k8s-file: `TIME stdout|stderr F|P TEXT`, where P is a part of a line
(https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md).
A file that would get larger than the limit is renamed to PATH.1, in place of the one before: so
what is kept is what came last, and never takes more than twice the limit.
"""

from __future__ import annotations

import os
import time

from ..options import UsageError
from . import bundle
from .containers import LOG, Container

LINE = 16 << 10  # bytes of a line, as CRI has it
LIMIT = 64 << 20  # bytes of a file, unless --log-opt max-size says otherwise


def limit(words: list[str]) -> int:
    """The size that values of --log-opt allow."""
    size = LIMIT
    for word in words:
        key, _, value = word.partition("=")
        if key != "max-size":
            raise UsageError(f"--log-opt {word}: max-size=SIZE is what there is")
        size = bundle.size("--log-opt max-size", value)
    return size


def lines(container: Container, follow: bool = False, old: bool = True):
    """The lines that there are, `old` ones too; with `follow` those that come until it ends."""
    path = container.file(LOG)
    file, before = _opened(path), _opened(f"{path}.1") if old else None
    if before:
        with before:
            if not (file and os.path.sameopenfile(before.fileno(), file.fileno())):
                yield from before.read().split(b"\n")[:-1]
    if file and not old:
        file.seek(0, os.SEEK_END)
    rest = b""
    while True:
        ended = container.status() == "exited" or not container.attended()
        full = bool(file) and not _is_at(file, path)
        part = file.read(1 << 20) if file else b""
        *whole, rest = (rest + part).split(b"\n")
        yield from whole
        if part:
            continue
        if full or not file:  # what there was of it is read
            if file:
                file.close()
            file, rest = _opened(path), b""
            if file:
                continue
        if ended or not follow:
            break
        time.sleep(0.1)
    if file:
        file.close()


def _opened(path: str):
    try:
        return open(path, "rb")
    except FileNotFoundError:
        return None


def _is_at(file, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:  # between two, or removed
        return True


class Log:
    """Written by who stands by the container; `limit` is of one file, in bytes."""

    def __init__(self, path: str, limit: int) -> None:
        self._path, self._limit = path, limit
        self._open()
        self._rest: dict[str, bytes] = {}  # the beginning of a line, of each stream

    def __enter__(self) -> Log:
        return self

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._fd).st_size

    def __exit__(self, *_) -> None:
        for stream, rest in self._rest.items():
            if rest:
                self._line(stream, rest, whole=False)
        os.close(self._fd)

    def reader(self, fd: int, stream: str):
        """What `Attended.wait` calls when there is something to read."""

        def read() -> bool:
            try:
                data = os.read(fd, 1 << 16)
            except OSError:  # EIO: nobody has the terminal open any more
                return False
            self._add(stream, data)
            return bool(data)

        return read

    def _add(self, stream: str, data: bytes) -> None:
        *lines, rest = (self._rest.get(stream, b"") + data).split(b"\n")
        for line in lines:
            self._line(stream, line, whole=True)
        while len(rest) >= LINE:
            self._line(stream, rest[:LINE], whole=False)
            rest = rest[LINE:]
        self._rest[stream] = rest

    def _line(self, stream: str, text: bytes, whole: bool) -> None:
        seconds, rest = divmod(time.time_ns(), 10**9)
        when = time.strftime(f"%Y-%m-%dT%H:%M:%S.{rest:09}Z", time.gmtime(seconds))
        head = f"{when} {stream} {'F' if whole else 'P'} ".encode()
        entry = head + text + b"\n"
        if self._size and self._size + len(entry) > self._limit:
            os.rename(self._path, f"{self._path}.1")
            os.close(self._fd)
            self._open()
        os.write(self._fd, entry)
        self._size += len(entry)
