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
import time

from benchmarks.arms.base import ArmFailed, Phase, Shot
from benchmarks.receiver import first_byte, rest_of_line

INTERRUPTS = {signal.SIGINT, signal.SIGTERM}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
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
        t6, line = first_byte(channel, deadline, watch=process.pidfd)
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


class _Process:
    """A started command: its pidfd, its end, and its certain death."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.ended = False

    def wait(self, deadline_ns: int) -> tuple[int, int, float]:
        """(CLOCK_MONOTONIC ns when it was reaped, exit code as a shell gives it, CPU in ms)."""
        poller = select.poll()
        poller.register(self.pidfd, select.POLLIN)
        if not poller.poll(max(0, (deadline_ns - time.monotonic_ns()) // 1_000_000)):
            raise ArmFailed("the payload signalled, but the command did not end in time")
        _, status, usage = os.wait4(self.pid, 0)
        end = time.monotonic_ns()
        self.ended = True
        code = os.waitstatus_to_exitcode(status)
        return end, code if code >= 0 else 128 - code, (usage.ru_utime + usage.ru_stime) * 1000

    def kill(self) -> None:
        """Kill its process group unless it has ended, and reap it."""
        if not self.ended:
            # Not yet reaped, so neither the pid nor the group can belong to anyone else.
            os.killpg(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.ended = True
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def _phases(t0: int, spawned: int, line: bytes, t6: int, t_end: int) -> list[Phase]:
    """The start in the parts every command has; the payload's own clock is the host's (same
    kernel).
    """
    phases = [Phase("spawn", t0, spawned)]
    clock = _PAYLOAD_CLOCK.search(line)
    first = int(clock[1]) if clock else t6
    if spawned <= first <= t6:
        phases.append(Phase("build", spawned, first))
        phases.append(Phase("signal", first, t6))
    phases.append(Phase("end", t6, t_end))
    return phases


def _with_last_words(failure: str, words: int) -> str:
    said = os.pread(words, 65536, 0).decode(errors="replace").strip().splitlines()
    return f"{failure}: {said[-1].strip()[:300]}" if said else failure
