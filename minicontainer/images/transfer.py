"""Bodies that are blobs: what the store reads from a registry, and what a registry is sent."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable

from urllib3 import BaseHTTPResponse

from .errors import ImageError
from .transport import ATTEMPTS, CHUNK, SLOWEST, Broken, Transport

# Called from several threads with: digest, bytes done, bytes in all, and what came of it ("" while
# it moves, then "pulled", "pushed", "already there").
Progress = Callable[[str, int, int, str], None]
_ENOUGH = 1 << 20  # bytes after which a broken connection counts as the first one again


def silent(digest: str, done: int, size: int, note: str) -> None:
    """Progress that nobody wants to see."""


class Download:
    """A blob's bytes from `position` on, through as many connections as it takes."""

    def __init__(
        self, http: Transport, path: str, blob: dict, position: int, report: Progress
    ) -> None:
        self._http, self._path, self._report = http, path, report
        self._digest, self._size = blob["digest"], blob["size"]
        self.position = position
        self._response: BaseHTTPResponse | None = None
        self._failures, self._failed_at = 0, position
        self._waited, self._came = 0.0, 0

    def __enter__(self) -> Download:
        return self

    def __exit__(self, *_) -> None:
        self._drop()

    def read(self, size: int) -> bytes:
        """At most `size` bytes; b"" at the end. Raises Broken, ImageError."""
        while True:
            if self._response is None and self.position == self._size:
                return b""
            response = self._response or self._open()
            try:
                if self.position == self._size:
                    return self._end(response)
                data = self._some(response, min(size, CHUNK, self._size - self.position))
            except Broken as error:
                self._drop()
                if self.position - self._failed_at >= _ENOUGH:
                    self._failures = 0
                self._failures, self._failed_at = self._failures + 1, self.position
                if self._failures == ATTEMPTS:
                    raise Broken(f"{self._http.host}: {self._digest}: {error}") from error
                self._http.pause(self._failures)
                continue
            self.position += len(data)
            self._report(self._digest, self.position, self._size, "")
            return data

    def _open(self) -> BaseHTTPResponse:
        start = self.position
        headers = {"Range": f"bytes={start}-"} if start else {}
        response = self._http.open(self._path, headers, (200, 206) if start else (200,))
        self._response = response
        resumed = response.status == 206
        announced = response.headers.get("Content-Length")
        if resumed:
            span = rf"bytes {start}-{self._size - 1}/({self._size}|\*)"
            right = bool(re.fullmatch(span, response.headers.get("Content-Range", "")))
        else:
            right = announced in (None, str(self._size))
        if not right:
            raise ImageError(
                f"{self._digest}: {self._size} bytes by the manifest, the registry sends others: "
                f"Content-Length {announced!a}, Content-Range "
                f"{response.headers.get('Content-Range')!a}"
            )
        if start and not resumed:  # it knows no ranges (RFC 9110 14.2: it need not)
            self.position = 0
            while self.position < start:
                self.position += len(self._some(response, min(CHUNK, start - self.position)))
        return response

    def _some(self, response: BaseHTTPResponse, size: int) -> bytes:
        began = time.monotonic()
        data = self._http.read(response, size)
        if not data:
            raise Broken(f"the connection ended after {self.position} of {self._size} bytes")
        self._waited += time.monotonic() - began
        self._came += len(data)
        if self._waited > self._http.timeout:
            if self._came < SLOWEST * self._waited:
                raise Broken(f"only {self._came} bytes in {self._waited:.0f} s")
            self._waited, self._came = 0.0, 0
        return data

    def _end(self, response: BaseHTTPResponse) -> bytes:
        if self._http.read(response, 1):
            raise ImageError(
                f"{self._digest}: the registry sends more than the manifest's {self._size} bytes"
            )
        self._drop()
        return b""

    def _drop(self) -> None:
        if self._response is not None:
            self._http.release(self._response)
            self._response = None


class Upload:
    """A blob's file, as urllib3 reads a request's body; rewound for each attempt."""

    def __init__(self, http: Transport, path: str, digest: str, report: Progress) -> None:
        self._http, self._digest, self._report = http, digest, report
        self._file = open(path, "rb")  # noqa: SIM115 (closed by __exit__)
        self._size = os.fstat(self._file.fileno()).st_size

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def rewound(self) -> Upload:
        """From the beginning."""
        self._file.seek(0)
        return self

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; b"" at the end. Raises Broken when the client was closed."""
        self._http.check()
        data = self._file.read(size)
        if data:
            self._report(self._digest, self._file.tell(), self._size, "")
        return data
