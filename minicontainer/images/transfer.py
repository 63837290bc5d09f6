"""Bodies that are blobs: what the store reads from a registry, and what a registry is sent."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

from urllib3 import BaseHTTPResponse

from .errors import ImageError
from .transport import CHUNK, SLOWEST, Broken, Transport

# Called from several threads with: digest, bytes done, bytes in all, and what came of it ("" while
# it moves, then "pulled", "pushed", "already there").
Progress = Callable[[str, int, int, str], None]


def silent(digest: str, done: int, size: int, note: str) -> None:
    """Progress that nobody wants to see."""


class Download:
    """A blob's bytes from `position` on, over one connection, made when it is first read from."""

    def __init__(
        self, http: Transport, path: str, blob: dict, position: int, report: Progress
    ) -> None:
        self._http, self._path, self._report = http, path, report
        self._digest, self._size = blob["digest"], blob["size"]
        self.position = position
        self._response: BaseHTTPResponse | None = None
        self._waited, self._came = 0.0, 0

    def __enter__(self) -> Download:
        return self

    def __exit__(self, *_) -> None:
        if self._response:
            self._http.release(self._response)

    def read(self, size: int) -> bytes:
        """At most `size` bytes; b"" at the end. Raises Broken, ImageError."""
        response = self._response or self._open()
        if self.position == self._size:
            if self._http.read(response, 1):
                more = f"the registry sends more than the manifest's {self._size} bytes"
                raise ImageError(f"{self._digest}: {more}")
            return b""
        began = time.monotonic()
        data = self._http.read(response, min(size, CHUNK, self._size - self.position))
        if not data:
            raise Broken(f"the connection ended after {self.position} of {self._size} bytes")
        self._waited += time.monotonic() - began
        self._came += len(data)
        if self._waited > self._http.timeout:
            if self._came < SLOWEST * self._waited:
                raise Broken(f"only {self._came} bytes in {self._waited:.0f} s")
            self._waited, self._came = 0.0, 0
        self.position += len(data)
        self._report(self._digest, self.position, self._size, "")
        return data

    def _open(self) -> BaseHTTPResponse:
        start, size = self.position, self._size
        headers = {"Range": f"bytes={start}-"} if start else {}
        self._response = self._http.open(self._path, headers, (200, 206) if start else (200,))
        length = self._response.headers.get("Content-Length")
        span = self._response.headers.get("Content-Range", "")
        if self._response.status == 206:
            right = bool(re.fullmatch(rf"bytes {start}-{size - 1}/({size}|\*)", span))
        else:
            right = length in (None, str(size))
        if not right:
            raise ImageError(
                f"{self._digest}: {size} bytes by the manifest, the registry sends others: "
                f"Content-Length {length!a}, Content-Range {span!a}"
            )
        if start and self._response.status == 200:  # no ranges (RFC 9110 14.2: it need not)
            self.position = 0
            while self.position < start and self.read(start - self.position):
                pass
        return self._response


def upload(http: Transport, path: str, digest: str, size: int, report: Progress) -> Iterator[bytes]:
    """A blob's file as a request's body. Raises Broken when the client was closed."""
    with open(path, "rb") as file:
        while part := file.read(CHUNK):
            http.check()
            report(digest, file.tell(), size, "")
            yield part
