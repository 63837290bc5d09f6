"""The one receiver: every arm's first byte is seen here, by the same call on the same clock.

The time is taken when `poll` says that the descriptor is readable, before the byte is read and before any
Python object is made of it. No arm is polled: the kernel wakes this process when the byte is there.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import MutableMapping

from benchmarks.arms.base import ArmFailed

CHUNK = 4096


def _wait_ms(deadline_ns: int) -> int:
    """Milliseconds to the deadline, rounded up, never negative (poll's -1 would wait forever)."""
    return max(0, -(-(deadline_ns - time.monotonic_ns()) // 1_000_000))


def first_byte(
    fd: int,
    deadline_ns: int,
    *,
    watch: int | None = None,
    also: MutableMapping[int, list[tuple[int, bytes]]] | None = None,
) -> tuple[int, bytes]:
    """Wait for the first byte on `fd`; return (its CLOCK_MONOTONIC time in ns, what was read).

    watch: a pidfd; when that process ends first and `fd` stays silent, the wait ends too.
    also: other descriptors to drain meanwhile (a guest stalls when nobody reads its debug console);
          each chunk is appended to that descriptor's list as (time in ns, data).
    Raises ArmFailed when the deadline passes, the channel closes, or the watched process ends, without a byte.
    """
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    if watch is not None:
        poller.register(watch, select.POLLIN)
    others = also or {}
    for other in others:
        poller.register(other, select.POLLIN)
    watched_ended = False
    while True:
        events = poller.poll(_wait_ms(deadline_ns))
        now = time.monotonic_ns()
        ready = {readable for readable, _ in events}
        if fd in ready:
            data = os.read(fd, CHUNK)
            if data:
                return now, data
            raise ArmFailed("the channel was closed before the payload signalled")
        if watched_ended:
            raise ArmFailed("the command ended before the payload signalled")
        if now >= deadline_ns:
            raise ArmFailed("the payload did not signal in time")
        for other in ready & others.keys():
            data = os.read(other, CHUNK)
            if data:
                others[other].append((now, data))
            else:
                poller.unregister(other)
        if watch in ready:
            # Its byte may have come between poll's look at fd and its look at the pidfd: look once more, no longer.
            watched_ended = True
            deadline_ns = now


def rest_of_line(fd: int, data: bytes, deadline_ns: int) -> bytes:
    """Read on after `first_byte` until `data` holds a newline, the channel ends, or the deadline passes."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    while b"\n" not in data and poller.poll(_wait_ms(deadline_ns)):
        more = os.read(fd, CHUNK)
        if not more:
            break
        data += more
    return data
