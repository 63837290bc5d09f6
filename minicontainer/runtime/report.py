"""What the container's init tells its parent over a close-on-exec pipe.

Records of text fields; the fields are `repr`s, numbers and messages, so control characters are free
to separate them. (json would cost a container start 5 ms.) End of file without an error record
means that exec succeeded: the kernel closed the pipe.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # as in typing, whose import would cost a start 3 ms
if TYPE_CHECKING:
    from .tracing import Trace

_FIELD, _RECORD = "\x1f", "\x1e"

# Set while somebody wants to know each step.
trace: Trace | None = None


def encode(*fields) -> bytes:
    """One record. The first field is its kind:

    step   n, start, end                 a step is done; CLOCK_MONOTONIC in nanoseconds
    call   n, text, result, start, end   a system call within step n (only when traced)
    error  n, errno, text, hint          step n failed; nothing follows
    """
    return (_FIELD.join(map(str, fields)) + _RECORD).encode(errors="backslashreplace")


def decode(data: bytes) -> list[list[str]]:
    """All records in `data`."""
    return [record.split(_FIELD) for record in data.decode().split(_RECORD)[:-1]]


def read_all(fd: int) -> bytes:
    """Everything until the other side closes, by exec or by death."""
    chunks = []
    while chunk := os.read(fd, 65536):
        chunks.append(chunk)
    return b"".join(chunks)
