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
    environ = environment()
    redirect = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, stdout, 1)]
    redirect.append((os.POSIX_SPAWN_DUP2, words, 2))
    process: _Process | None = None
    signal.pthread_sigmask(
        signal.SIG_BLOCK, INTERRUPTS
    )  # no Ctrl-C between the start and knowing the pid
    try:
        t0 = time.monotonic_ns()
        pid = os.posix_spawn(
            argv[0], argv, environ, file_actions=redirect, setpgroup=0, setsigmask=()
        )
        spawned = time.monotonic_ns()
        process = _Process(pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)
        os.close(stdout)
        stdout = -1
        t6, line = _hear(channel, deadline, process)
        line = rest_of_line(channel, line, deadline)
        t_end, code, cpu_ms = process.wait(deadline)
        if code != 0:
            raise ArmFailed(f"exit code {code} after the payload had signalled")
        said = os.pread(words, os.fstat(words).st_size, 0).decode(errors="replace")
    except ArmFailed as failure:
        raise ArmFailed(_with_last_words(str(failure), words)) from None
    except OSError as error:
        raise ArmFailed(f"{argv[0]}: {error.strerror}") from error
    finally:
        if process is not None:
            process.kill()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)
        for fd in (channel, null, words, stdout):
            if fd >= 0:
                os.close(fd)
    return Shot(t0, t6, t_end, _phases(t0, spawned, line, t6, t_end), cpu_ms, words=said)


def tidy(argv: list[str], timeout_s: float = 30.0) -> None:
    """Run a clean-up command, outside any measurement. It may fail when there is nothing to clean
    up; when it hangs, that is said and the run goes on.
    """
    try:
        subprocess.run(argv, env=environment(), capture_output=True, check=False, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        print(f"still not done after {timeout_s:.0f} s, left: {' '.join(argv)}", file=sys.stderr)


def _hear(channel: int, deadline_ns: int, process: _Process) -> tuple[int, bytes]:
    """The first byte. A command that ends without one is reported by its exit code."""
    try:
        return first_byte(channel, deadline_ns, watch=process.pidfd)
    except ArmFailed:
        # A dying command's channel closes a moment before the process is gone.
        if not process.ends_within(GRACE_MS):
            raise
        _, code, _ = process.wait(deadline_ns)
        raise ArmFailed(f"exit code {code} before the payload signalled") from None


class _Process:
    """A started command: its pidfd, its end, and its certain death."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.ended = False

    def ends_within(self, milliseconds: int) -> bool:
        poller = select.poll()
        poller.register(self.pidfd, select.POLLIN)
        return bool(poller.poll(milliseconds))

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


def _with_last_words(failure: str, words: int) -> str:
    said = os.pread(words, 65536, 0).decode(errors="replace").strip().splitlines()
    return f"{failure}: {said[-1].strip()[:300]}" if said else failure
