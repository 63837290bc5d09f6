"""What the container's init tells its parent over a close-on-exec pipe.

Records of text fields; the fields are `repr`s, numbers and messages, so control characters are free
to separate them. (json would cost a container start 5 ms.) End of file without an error record
means that exec succeeded: the kernel closed the pipe.
"""

from __future__ import annotations

import os
from time import monotonic_ns

_FIELD, _RECORD = "\x1f", "\x1e"

# Set while somebody wants to know each step of all that is launched: its plan and its records.
trace: Trace | None = None


class Trace:
    def __init__(self) -> None:
        self.plan: list = []
        self.records: list[list[str]] = []

    def steps(self) -> list[dict]:
        """See the function."""
        return steps(self.plan, self.records)


def encode(*fields) -> bytes:
    """One record. The first field is its kind:

    step   n, start, end                 a step is done; CLOCK_MONOTONIC in nanoseconds
    call   n, text, result, start, end   a system call within step n (only when traced)
    error  n, errno, text, hint          step n failed; nothing follows
    warning, pid, maps, hooks, ready, outside, refused     see `launch`
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


def steps(plan, records: list[list[str]]) -> list[dict]:
    """The records of a traced start as one dict a step; the last one, exec, has ended just now.

    Keys: n, name, where, call (as planned), calls (as made: call, result, start_ns, end_ns),
    start_ns, end_ns; times are CLOCK_MONOTONIC's.
    """
    rows: list[dict] = []
    calls: dict[int, list[dict]] = {}
    for kind, number, *fields in records:
        n = int(number)
        if kind == "call":
            text, result, begin, end = fields
            calls.setdefault(n, []).append(
                {"call": text, "result": result, "start_ns": int(begin), "end_ns": int(end)}
            )
        elif kind == "step":
            step = plan[n - 1]
            rows.append(
                {"n": n, "name": step.name, "where": step.where, "call": "; ".join(step.calls()),
                 "start_ns": int(fields[0]), "end_ns": int(fields[1])}
            )  # fmt: skip
    rows.sort(key=lambda row: row["start_ns"])
    for row in rows:
        row["calls"] = calls.get(row["n"], [])
    if rows and rows[-1]["name"] == "exec":
        rows[-1]["end_ns"] = monotonic_ns()
    return rows
