"""Instances that stay: their payload has signalled and sleeps, until they are stopped.

What is measured of them is what they take (memory, density), what they may do (isolation), and how
long it takes until nothing of them is left (stop).
"""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from benchmarks.arms.base import Arm, ArmFailed
from benchmarks.command import INTERRUPTS, Process, output_of, running, tidy, with_last_words
from benchmarks.receiver import first_byte, rest_of_line

START_S, STOP_S = 60.0, 30.0


class Ear:
    """What any number of payloads signal on. Once it is closed, or this process killed, all that
    stayed because of it end by themselves: see probe.c.

    fifo: its path, for payloads that cannot inherit a descriptor.
    """

    def __init__(self, fifo: str = "") -> None:
        if fifo:
            self.read = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
            # With a writer of our own it never looks ended. What the command says is not heard.
            self.fds = [self.read, os.open(fifo, os.O_WRONLY)]
            self.stdout = os.open(os.devnull, os.O_RDWR)
        else:
            self.read, self.stdout = os.pipe()
            self.fds = [self.read]

    def close(self) -> None:
        for fd in (*self.fds, self.stdout):
            os.close(fd)


class Held:
    """A running instance. t0, t6: as in a Shot. words: how it was started and is stopped.

    mark: what the command lines or the cgroups of its processes hold, where they are not the
    payload's own family.
    """

    mark = ""
    stopped = False

    def __init__(self, t0: int, t6: int, words: dict[str, list[str]]) -> None:
        self.t0, self.t6 = t0, t6
        self.words = words

    def payload(self) -> int:
        """The host's pid of the payload; 0 where it is no process of the host."""
        raise NotImplementedError

    def family(self) -> list[int]:
        """Its processes, where they are one family; those with its mark come on top."""
        return [self.payload()] if self.payload() else []

    def stop(self) -> tuple[int, int]:
        """End it; returns (t8, t9): just before that was asked, and when nothing was left of it.
        Raises ArmFailed.
        """
        asked, gone = self._stop()
        self.stopped = True
        return asked, gone

    def _stop(self) -> tuple[int, int]:
        raise NotImplementedError


@contextmanager
def held(arm: Arm) -> Iterator[Callable[[], Held]]:
    """A function that starts one more instance of the arm; at the end of the block all are gone."""
    ear = Ear(arm.fifo)
    instances: list[Held] = []

    def hold() -> Held:
        instances.append(arm.hold(ear))
        return instances[-1]

    try:
        yield hold
    finally:
        with undisturbed():
            ear.close()
            for one in reversed(instances):
                if not one.stopped:
                    with suppress(ArmFailed, OSError):  # what it is about was said already
                        one.stop()


@contextmanager
def undisturbed() -> Iterator[None]:
    """A second Ctrl-C or SIGTERM does not cut this block short."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Foreground(Held):
    """One command that lasts as long as its payload: stopped by SIGKILL to the payload, over when
    the command has tidied up and is reaped.
    """

    def __init__(self, argv: list[str], ear: Ear) -> None:
        self.process, t6 = _spawn(argv, ear, may_end=False)
        super().__init__(self.process.asked, t6, {"start": argv, "stop": ["kill", "-9", "PAYLOAD"]})
        self._payload = _chain(self.process.pid)[-1]
        self._handle = os.pidfd_open(self._payload)

    def payload(self) -> int:
        return self._payload

    def family(self) -> list[int]:
        return _chain(self.process.pid)

    def _stop(self) -> tuple[int, int]:
        deadline = time.monotonic_ns() + int(STOP_S * 1e9)
        asked = time.monotonic_ns()
        try:
            with suppress(ProcessLookupError):  # ended when nobody listened any more
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
            gone, _, _ = self.process.wait(deadline)
        finally:
            self.process.kill()
            os.close(self._handle)
        return asked, gone


class Detached(Held):
    """Started by a command that returns, ended by another one.

    stop: the words that kill and remove it. find: asked once, untimed, for its payload's pid, and
    for what the command lines or the cgroups of all its processes hold.
    """

    def __init__(
        self, start: list[str], stop: list[str], ear: Ear, find: Callable[[], tuple[int, str]]
    ) -> None:
        self._words = stop
        try:
            process, t6 = _spawn(start, ear, may_end=True)
            super().__init__(process.asked, t6, {"start": start, "stop": stop})
            self._payload, self.mark = find()
        except BaseException:
            tidy(stop)
            raise

    def payload(self) -> int:
        return self._payload

    def _stop(self) -> tuple[int, int]:
        asked, gone = over(self._words)
        if _alive(self._payload):
            raise ArmFailed(f"{' '.join(self._words)}: the payload {self._payload} is still there")
        return asked, gone


def on_fifo(words: list[str] | None) -> list[str]:
    """The payload of an engine, which passes no descriptor on: it signals on the FIFO /signal."""
    if words is None:
        return ["/probe", "stay", "/signal"]
    return ["/bin/busybox", "sh", "-c", f"exec {shlex.join(words)} >/signal"]


def inspected(base: list[str], name: str) -> tuple[int, str]:
    """(pid, id) of a container, as docker and podman tell. Raises ArmFailed."""
    said = output_of([*base, "inspect", "--format", "{{.State.Pid}} {{.Id}}", name]).split()
    return int(said[0]), said[1]


def _spawn(argv: list[str], ear: Ear, may_end: bool) -> tuple[Process, int]:
    """Start a command and hear its payload. may_end: it returns with exit code 0 when that is
    started, and is waited for; else it goes on. Raises ArmFailed, and ends it then.
    """
    deadline = time.monotonic_ns() + int(START_S * 1e9)
    said, null = os.memfd_create("stderr"), os.open(os.devnull, os.O_RDWR)
    process: Process | None = None
    try:
        with running(argv, null, ear.stdout, said) as process:
            t6, line = _hear(process, ear, deadline)
            rest_of_line(ear.read, line, deadline)
            if not may_end:
                process.keep()
            elif not process.ended:
                process.succeed(os.path.basename(argv[0]), deadline)
    except ArmFailed as failure:
        raise ArmFailed(with_last_words(str(failure), said)) from None
    except OSError as error:
        raise ArmFailed(f"{argv[0]}: {error.strerror}") from error
    finally:
        os.close(said)
        os.close(null)
    return process, t6


def _hear(process: Process, ear: Ear, deadline: int) -> tuple[int, bytes]:
    """The payload's first byte. A command that has returned may have started it: then it is waited
    for a moment longer.
    """
    try:
        return first_byte(ear.read, deadline, watch=process.pidfd)
    except ArmFailed:
        if not process.ends_within(0):
            raise
        process.succeed("before the payload signalled", deadline)
        return first_byte(ear.read, min(deadline, time.monotonic_ns() + 5_000_000_000))


def over(argv: list[str]) -> tuple[int, int]:
    """One command to its end: (when it was asked, when it was over). Raises ArmFailed."""
    said, null = os.memfd_create("stderr"), os.open(os.devnull, os.O_RDWR)
    try:
        with running(argv, null, null, said) as process:
            end = process.succeed(
                os.path.basename(argv[0]), time.monotonic_ns() + int(STOP_S * 1e9)
            )
            return process.asked, end
    except ArmFailed as failure:
        raise ArmFailed(with_last_words(str(failure), said)) from None
    finally:
        os.close(said)
        os.close(null)


def _alive(pid: int) -> bool:
    """Whether it runs; where PID 1 reaps late, an orphan that has ended is still listed."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def _chain(pid: int) -> list[int]:
    """A process and its descendants, each the last child of the one before."""
    chain = [pid]
    while True:
        try:
            with open(f"/proc/{chain[-1]}/task/{chain[-1]}/children", encoding="ascii") as file:
                children = file.read().split()
        except OSError:
            return chain
        if not children:
            return chain
        chain.append(int(children[-1]))
