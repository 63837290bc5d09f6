"""One measured command: start it, hear its payload's first byte, see it end, and leave nothing of
it.

`os.posix_spawn` starts it (vfork semantics: its cost does not grow with this process), stdout is
the channel, and stderr goes into a memfd, which never blocks the writer and costs nothing to read
when all went well.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.arms.base import ArmFailed, Phase, Shot
from benchmarks.receiver import first_byte, rest_of_line

INTERRUPTS = {signal.SIGINT, signal.SIGTERM}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
GRACE_MS = 100  # between a closed channel and the end of the process that closed it
_PAYLOAD_CLOCK = re.compile(rb"mono_ns=(\d+)")


def environment() -> dict[str, str]:
    """The same short environment for every command."""
    kept = {name: os.environ[name] for name in ("HOME", "XDG_RUNTIME_DIR") if name in os.environ}
    return {"PATH": PATH, "LC_ALL": "C", **kept}


def shoot_command(argv: list[str], *, timeout_s: float = 20.0, fifo: str | None = None) -> Shot:
    """Run `argv` (absolute path first) once; its payload signals on stdout, or on `fifo` when
    given.

    cpu_ms is what wait4 says of the command and of those descendants it waited for; a daemon's
    share is not in it. Raises ArmFailed with the command's last words when it does not signal, does
    not end, or exits non-zero.
    """
    deadline = time.monotonic_ns() + int(timeout_s * 1e9)
    words = os.memfd_create("stderr")
    null = os.open(os.devnull, os.O_RDWR)
    if fifo is None:
        channel, stdout = os.pipe()
    else:
        # Before its first writer a FIFO opened this way is silent to poll: neither data nor hang-up
        # (poll(2), Linux).
        channel, stdout = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK), os.dup(null)
    try:
        with running(argv, null, stdout, words) as process:
            os.close(stdout)
            stdout = -1
            t6, line = _hear(channel, deadline, process)
            line = rest_of_line(channel, line, deadline)
            t_end, code, cpu_ms = process.wait(deadline)
        if code != 0:
            raise ArmFailed(f"exit code {code} after the payload had signalled")
        said = os.pread(words, os.fstat(words).st_size, 0).decode(errors="replace")
    except ArmFailed as failure:
        raise ArmFailed(with_last_words(str(failure), words)) from None
    except OSError as error:
        raise ArmFailed(f"{argv[0]}: {error.strerror}") from error
    finally:
        for fd in (channel, null, words, stdout):
            if fd >= 0:
                os.close(fd)
    t0 = process.asked
    return Shot(t0, t6, t_end, _phases(t0, process.spawned, line, t6, t_end), cpu_ms, words=said)


def shoot_in_steps(
    create: list[str], start: list[str], delete: list[str], pid_file: str, timeout_s: float = 20.0
) -> Shot:
    """Three commands one after the other, as a container engine calls a runtime; their payload
    signals on the stdout of `create`, and its process is named by `pid_file`.

    `delete` is called when the payload's process has ended. Raises ArmFailed.
    """
    deadline = time.monotonic_ns() + int(timeout_s * 1e9)
    words = os.memfd_create("stderr")
    null = os.open(os.devnull, os.O_RDWR)
    channel, stdout = os.pipe()
    payload, cpu_ms = -1, 0.0
    try:
        with running(create, null, stdout, words) as process:
            os.close(stdout)
            stdout = -1
            t0 = process.asked
            created = process.succeed("create", deadline)
            cpu_ms += process.cpu_ms
        with open(pid_file, encoding="ascii") as file:
            payload = os.pidfd_open(int(file.read()))
        with running(start, null, null, words) as process:
            started = process.succeed("start", deadline)
            cpu_ms += process.cpu_ms
        t6, line = first_byte(channel, deadline)
        rest_of_line(channel, line, deadline)
        if not _ends_within(payload, GRACE_MS):
            raise ArmFailed("the payload signalled, but did not end")
        with running(delete, null, null, words) as process:
            ended = process.asked
            t_end = process.succeed("delete", deadline)
            cpu_ms += process.cpu_ms
    except ArmFailed as failure:
        raise ArmFailed(with_last_words(str(failure), words)) from None
    except (OSError, ValueError) as error:
        raise ArmFailed(f"{create[0]}: {error}") from error
    finally:
        for fd in (channel, null, words, stdout, payload):
            if fd >= 0:
                os.close(fd)
    phases = [
        Phase("create", t0, created),
        Phase("start", created, started),
        Phase("payload", started, ended),
        Phase("delete", ended, t_end),
    ]
    return Shot(t0, t6, t_end, phases, cpu_ms)


def output_of(argv: list[str], timeout_s: float = 60.0) -> str:
    """What a command says on stdout, outside any measurement. Raises ArmFailed."""
    try:
        done = subprocess.run(
            argv, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", check=False, timeout=timeout_s,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ArmFailed(f"{argv[0]}: not done after {timeout_s:.0f} s") from None
    except OSError as error:
        raise ArmFailed(f"{argv[0]}: {error.strerror}") from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [""]
        raise ArmFailed(f"{argv[0]}: exit code {done.returncode}: {said[-1][:300]}")
    return done.stdout


def tidy(argv: list[str], timeout_s: float = 30.0) -> None:
    """Run a clean-up command, outside any measurement. It may fail when there is nothing to clean
    up; when it hangs, that is said and the run goes on.
    """
    try:
        subprocess.run(argv, env=environment(), capture_output=True, check=False, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        print(f"still not done after {timeout_s:.0f} s, left: {' '.join(argv)}", file=sys.stderr)


def _hear(channel: int, deadline_ns: int, process: Process) -> tuple[int, bytes]:
    """The first byte. A command that ends without one is reported by its exit code."""
    try:
        return first_byte(channel, deadline_ns, watch=process.pidfd)
    except ArmFailed:
        # A dying command's channel closes a moment before the process is gone.
        if not process.ends_within(GRACE_MS):
            raise
        _, code, _ = process.wait(deadline_ns)
        raise ArmFailed(f"exit code {code} before the payload signalled") from None


@contextmanager
def running(argv: list[str], stdin: int, stdout: int, stderr: int) -> Iterator[Process]:
    """The running command; at the end of the block it is gone, whatever happened, unless it was
    kept.
    """
    environ = environment()
    redirect = [
        (os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate((stdin, stdout, stderr))
    ]
    process: Process | None = None
    signal.pthread_sigmask(
        signal.SIG_BLOCK, INTERRUPTS
    )  # no Ctrl-C between the start and knowing the pid
    try:
        asked = time.monotonic_ns()
        pid = os.posix_spawn(
            argv[0], argv, environ, file_actions=redirect, setpgroup=0, setsigmask=()
        )
        process = Process(pid, asked, time.monotonic_ns())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)
        yield process
    finally:
        if process is not None and not process.kept:
            process.kill()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)


def _ends_within(pidfd: int, milliseconds: int) -> bool:
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(milliseconds))


class Process:
    """A started command: its pidfd, its end, and its certain death.

    asked, spawned: CLOCK_MONOTONIC ns before and after posix_spawn.
    cpu_ms: what wait4 said at its end.
    """

    def __init__(self, pid: int, asked: int, spawned: int) -> None:
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.asked, self.spawned = asked, spawned
        self.cpu_ms = 0.0
        self.ended = False
        self.kept = False

    def keep(self) -> None:
        """It outlives its block; whoever keeps it calls `kill` later."""
        self.kept = True

    def ends_within(self, milliseconds: int) -> bool:
        return _ends_within(self.pidfd, milliseconds)

    def succeed(self, verb: str, deadline_ns: int) -> int:
        """Wait for its end with exit code 0; returns its time. Raises ArmFailed."""
        try:
            end, code, self.cpu_ms = self.wait(deadline_ns)
        except ArmFailed:
            raise ArmFailed(f"{verb} did not end in time") from None
        if code != 0:
            raise ArmFailed(f"{verb}: exit code {code}")
        return end

    def _kill_group(self) -> None:
        """Whatever the command started in its process group goes with it. Call before it is reaped:
        until then neither the pid nor the group can belong to anyone else.
        """
        os.killpg(self.pid, signal.SIGKILL)

    def wait(self, deadline_ns: int) -> tuple[int, int, float]:
        """(CLOCK_MONOTONIC ns when it was reaped, exit code as a shell gives it, CPU in ms)."""
        if not self.ends_within(max(0, (deadline_ns - time.monotonic_ns()) // 1_000_000)):
            raise ArmFailed("the payload signalled, but the command did not end in time")
        self._kill_group()
        _, status, usage = os.wait4(self.pid, 0)
        end = time.monotonic_ns()
        self.ended = True
        code = os.waitstatus_to_exitcode(status)
        return end, code if code >= 0 else 128 - code, (usage.ru_utime + usage.ru_stime) * 1000

    def kill(self) -> None:
        """Kill its process group unless it has ended, and reap it."""
        if not self.ended:
            self._kill_group()
            os.waitpid(self.pid, 0)
            self.ended = True
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def _phases(t0: int, spawned: int, line: bytes, t6: int, t_end: int) -> list[Phase]:
    """The start in the parts every command has; the payload's own clock is the host's (same
    kernel).
    """
    clock = _PAYLOAD_CLOCK.search(line)
    first = int(clock[1]) if clock else t6
    first = first if t0 <= first <= t6 else t6
    # On a busy machine the payload may have run before this process did again.
    spawned = min(spawned, first)
    return [
        Phase("spawn", t0, spawned),
        Phase("build", spawned, first),
        Phase("signal", first, t6),
        Phase("end", t6, t_end),
    ]


def with_last_words(failure: str, words: int) -> str:
    said = os.pread(words, 65536, 0).decode(errors="replace").strip().splitlines()
    return f"{failure}: {said[-1].strip()[:300]}" if said else failure
