"""The one receiver: every arm's first byte is seen here, by the same call on the same clock.

The time is taken when `poll` says that the descriptor is readable, before the byte is read and
before any Python object is made of it. No arm is polled: the kernel wakes this process when the
byte is there.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import MutableMapping
from typing import Self

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

    watch: a pidfd (or a pipe); when that process ends first and `fd` stays silent, the wait ends
    too.
    also: other descriptors to drain meanwhile (a guest stalls when nobody reads its debug console);
          each chunk is appended to that descriptor's list as (time in ns, data).
    Raises ArmFailed when the deadline passes, the channel closes, or the watched process ends,
    without a byte.
    """
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    if watch is not None:
        poller.register(watch, select.POLLIN)  # or POLLHUP, which poll always reports
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
            # Its byte may have come between poll's look at fd and its look at the pidfd: look once
            # more, no longer.
            watched_ended = True
            deadline_ns = now


def rest_of_line(fd: int, data: bytes, deadline_ns: int) -> bytes:
    """Read on after `first_byte` until `data` holds a newline, the channel ends, or the deadline
    passes.
    """
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    while b"\n" not in data and poller.poll(_wait_ms(deadline_ns)):
        more = os.read(fd, CHUNK)
        if not more:
            break
        data += more
    return data


class Listener:
    """The same receiver in a thread of its own, for starts that are one blocking call (a library's
    `run`).

    The thread waits in poll before t0 is taken, without the interpreter lock, and is gone at the
    end of the block:

        with Listener(fd, deadline_ns) as heard:
            t0 = time.monotonic_ns()
            start_and_wait()
        t6, data = heard.result()
    """

    def __init__(self, fd: int, deadline_ns: int) -> None:
        self.fd, self.deadline_ns = fd, deadline_ns
        self._wake, self._silence = os.pipe()
        self._heard: tuple[int, bytes] | None = None
        self._failure: ArmFailed | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def _listen(self) -> None:
        self._ready.set()
        try:
            self._heard = self._hear(self._wake)
        except ArmFailed as failure:
            self._failure = failure

    def _hear(self, wake: int) -> tuple[int, bytes]:
        """What is waited for; `wake` becomes readable when the block ends."""
        return first_byte(self.fd, self.deadline_ns, watch=wake)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._silence)  # wakes the thread, which looks at fd once more and ends
        self._thread.join()
        os.close(self._wake)

    def wait(self) -> None:
        """Until the byte is there (or the deadline has passed), without the interpreter lock."""
        self._thread.join()

    def result(self) -> tuple[int, bytes]:
        """(CLOCK_MONOTONIC ns, data) of the first byte; raises ArmFailed when there was none."""
        if self._heard is None:
            raise self._failure or ArmFailed("nothing was heard")
        return self._heard
