"""Layers as they are stored, to plain tar and back, hashed on the way in a thread of its own.

One pass over a blob gives its digest, that of its plain content (the diffID), and the content.
Decompressing and hashing release Python's lock, so they cost what they cost only on another core.

gzip is zlib-ng's: three times faster than zlib at decompressing, and its output is the same on all
processors, which Intel's isa-l (as fast) does not promise.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import os
import threading
from collections.abc import Iterable, Iterator
from queue import Queue

from .. import libraries
from .errors import ImageError

CHUNK = 1 << 20
GZIP_LEVEL = 4  # a Debian layer: 1.5 s and 37 % of its size; level 6 would be 2.3 s and 36 %
ZSTD_WINDOW = 128 << 20  # bytes of memory that a frame may ask for: what zstd --long makes
SUFFIX = {"gzip": "+gzip", "zstd": "+zstd", "": ""}
MAGIC = {
    "gzip": b"\x1f\x8b\x08", "zstd": b"\x28\xb5\x2f\xfd", "xz": b"\xfd7zXZ\0", "bzip2": b"BZh",
}  # fmt: skip


class Limits:
    """How much a stranger's layer may become: a small blob can be a bomb.

    total    bytes of plain content of one layer
    ratio    plain bytes for each stored byte, when they are more than `free`
    free     bytes that any layer may have: zeros compress well
    entries  files of one layer

    MINICONTAINER_MAX_LAYER, in bytes, is another `total`, with no regard to the ratio.
    """

    def __init__(
        self, total: int = 64 << 30, ratio: int = 200, free: int = 1 << 30, entries: int = 2_000_000
    ) -> None:
        chosen = os.environ.get("MINICONTAINER_MAX_LAYER", "")
        self.total = int(chosen) if chosen.isdecimal() else total
        self.ratio = self.total if chosen.isdecimal() else ratio
        self.free = free
        self.entries = entries

    def check(self, name: str, stored: int, plain: int) -> None:
        """Raise ImageError when a layer became bigger than it may."""
        if plain > self.total:
            what = f"more than {self.total} bytes"
        elif plain > self.free and plain > self.ratio * stored:
            what = f"{plain} bytes from {stored}: more than {self.ratio} for one"
        else:
            return
        raise ImageError(
            f"{name}: its content is {what}", "if you trust it: MINICONTAINER_MAX_LAYER=BYTES"
        )


class Plain:
    """The plain content of a blob that is gzip, zstd, or plain already; read once, in order.

    file  an object with read(n); `with` ends the thread that reads it, and leaves it open
    name  for messages

    Damaged content raises ImageError from whatever reads it.
    """

    def __init__(self, file, name: str, limits: Limits | None = None) -> None:
        self.name = name
        self.position = 0
        self._hashing = _Hashing(file)
        self._source = io.BufferedReader(self._hashing, CHUNK // 4)
        self._plain = hashlib.sha256()
        self._limits = limits or Limits()
        self._chunk = memoryview(b"")
        self._queue: Queue = Queue(8)
        self._stopped = False
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Plain:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stopped = True
        while self._thread.is_alive():
            while not self._queue.empty():
                self._queue.get()
            self._thread.join(0.001)

    def read(self, size: int) -> bytes:
        """So many bytes; fewer only at the end."""
        if len(self._chunk) >= size:
            part = bytes(self._chunk[:size])
            self._chunk = self._chunk[size:]
            self.position += size
            return part
        return b"".join(self.pieces(size))

    def pieces(self, size: int) -> Iterator[memoryview]:
        """So many bytes, in the pieces in which they are there; fewer only at the end."""
        while size > 0:
            if not self._chunk and not self._next():
                return
            part = self._chunk[:size]
            self._chunk = self._chunk[len(part) :]
            self.position += len(part)
            size -= len(part)
            yield part

    def finish(self) -> tuple[str, str]:
        """Read what is left; returns the digests of the blob and of the plain content."""
        while self._chunk or self._next():
            self._chunk = memoryview(b"")
        digests = (self._hashing.hasher.hexdigest(), self._plain.hexdigest())
        return f"sha256:{digests[0]}", f"sha256:{digests[1]}"

    def _next(self) -> bool:
        if self._stopped:
            return False
        chunk = self._queue.get()
        if isinstance(chunk, Exception):
            raise chunk
        self._chunk = memoryview(chunk)
        self._stopped = not chunk
        return bool(chunk)

    def _work(self) -> None:
        try:
            plain = 0
            reader = decompressor(self._source)
            if reader is self._source:
                self._plain = self._hashing.hasher  # plain already: one digest is the other
            while not self._stopped:
                chunk = reader.read(CHUNK)
                plain += len(chunk)
                self._limits.check(self.name, self._hashing.size, plain)
                if self._plain is not self._hashing.hasher:
                    self._plain.update(chunk)
                if not chunk:
                    while self._source.read(CHUNK):
                        pass  # what follows the end of compressed content is the blob's, too
                    break
                self._queue.put(chunk)
            self._queue.put(b"")
        except Exception as error:
            ours = isinstance(error, ImageError) or getattr(error, "errno", None)
            damage = ImageError(f"{self.name}: damaged or cut short: {error}")
            self._queue.put(error if ours else damage)


class _Hashing(io.RawIOBase):
    """A file that hashes what is read of it."""

    def __init__(self, file) -> None:
        self._file = file
        self.hasher = hashlib.sha256()
        self.size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        part = self._file.read(len(buffer))
        self.hasher.update(part)
        self.size += len(part)
        buffer[: len(part)] = part
        return len(part)


def kind(beginning: bytes) -> str:
    """How content that begins so is compressed: "gzip", "zstd", "xz", "bzip2" or ""."""
    if beginning[257:262] == b"ustar":  # the first file's name may look like anything
        return ""
    return next((name for name, magic in MAGIC.items() if beginning.startswith(magic)), "")


def decompressor(source):
    """An object with read(n) that gives plain content, never much more at a time than asked for.

    source  an io.BufferedReader
    """
    found = kind(source.peek(512))
    if found == "gzip":
        return libraries.load("zlib_ng.gzip_ng").GzipNGFile(fileobj=source, mode="rb")
    if found == "zstd":
        machine = libraries.load("zstandard").ZstdDecompressor(max_window_size=ZSTD_WINDOW)
        return machine.stream_reader(source, CHUNK, read_across_frames=True)
    if found == "xz":
        return importlib.import_module("lzma").LZMAFile(source)
    if found == "bzip2":
        return importlib.import_module("bz2").BZ2File(source)
    return source


class Chunks:
    """An iterable of bytes as an object with read(n)."""

    def __init__(self, chunks: Iterable[bytes | memoryview]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        """At most so many bytes; b"" at the end."""
        while not self._rest and (chunk := next(self._chunks, None)) is not None:
            self._rest = memoryview(chunk)
        part, self._rest = self._rest[:size], self._rest[size:]
        return bytes(part)


class Compressed:
    """Plain chunks as a gzip stream; `diff_id` is known once it was read to its end."""

    def __init__(self, chunks: Iterable[bytes | memoryview]) -> None:
        self.diff_id = ""
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        hasher = hashlib.sha256()
        zlib = libraries.load("zlib_ng.zlib_ng")
        machine = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 31)  # a gzip header without a time
        for chunk in self._chunks:
            hasher.update(chunk)
            yield machine.compress(chunk)
        self.diff_id = f"sha256:{hasher.hexdigest()}"
        yield machine.flush()
