"""The parent's side: start a container from a plan, and stand by it until it ends.

`start` changes the calling process (it enters a new pid namespace for its children), so the caller
is a process made for one container: the command line, or a child of the helper.
"""

from __future__ import annotations

# The C module: `signal` itself imports enum, which costs a start 2 ms.
import _signal as signal
import os
import select
from time import monotonic_ns

from ..kernel import syscalls
from . import init, report
from .errors import SIGNALLED
from .failures import failure
from .steps import Context, Exec, Fork

# What a terminal or a supervisor sends to a program. SIGKILL and SIGSTOP cannot be passed on:
# the first takes the container with us (see the step "die with parent").
FORWARDED = tuple(
    getattr(signal, name)
    for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGTERM", "SIGCONT",
                 "SIGWINCH")
)  # fmt: skip
# Their default action does not end a process.
_HARMLESS = (signal.SIGCONT, signal.SIGWINCH)


class Container:
    """A running container: pid of its init on the host, and what its start reported."""

    __slots__ = ("_alive_fd", "_wakeup_fd", "pid", "steps")

    def __init__(self, pid: int, steps: list[dict], alive_fd: int, wakeup_fd: int) -> None:
        self.pid = pid
        self.steps = steps  # only when traced: n, name, where, call…, see `_steps`
        self._alive_fd = alive_fd
        self._wakeup_fd = wakeup_fd


def start(plan, stdio=(0, 1, 2), trace: bool = False) -> Container:
    """Apply the plan up to and including exec.

    Returns when the command runs; raises ContainerError when a step failed, and then nothing is
    left. Signals of FORWARDED are held back from here on, until `wait` passes them on.
    """
    wakeup_fd = _catch_signals()
    context = Context(-1)
    done: list[bytes] = []
    number, pid = 0, 0
    if trace:
        syscalls.trace = lambda text, result, begin, end: done.append(
            report.encode("call", number, text, result, begin, end)
        )
    for number, step in enumerate(plan, 1):
        if step.where != "parent":
            break
        begin = monotonic_ns()
        if isinstance(step, Fork):
            report_read, report_write = os.pipe()
            alive_read, alive_write = os.pipe()
            pid = os.fork()
            if pid == 0:
                try:
                    os.close(alive_write)
                    _reset_signals()
                finally:
                    init.run(plan, report_write, alive_read, stdio, trace)
        else:
            try:
                step.apply(context)
            except OSError as error:
                raise failure(
                    plan, number, error.errno or 0, error.strerror or "", init.hint(step, error)
                ) from None
        if trace:
            done.append(report.encode("step", number, begin, monotonic_ns()))
    syscalls.trace = None
    os.close(report_write)
    os.close(alive_read)
    records = report.decode(b"".join(done) + report.read_all(report_read))
    end = monotonic_ns()
    os.close(report_read)
    if records and records[-1][0] == "error":
        os.waitpid(pid, 0)
        _, failed, errno, text, advice = records[-1]
        raise failure(plan, int(failed), int(errno), text, advice)
    return Container(pid, _steps(plan, records, end) if trace else [], alive_write, wakeup_fd)


def wait(container: Container, hangup_fd: int = -1) -> int:
    """Pass signals on until the container has ended; returns docker's exit code.

    hangup_fd: a socket; when its peer stops writing or goes away the container is killed.
    """
    poll = select.poll()
    pidfd = os.pidfd_open(container.pid)
    poll.register(pidfd, select.POLLIN)
    poll.register(container._wakeup_fd, select.POLLIN)
    if hangup_fd >= 0:
        poll.register(hangup_fd, select.POLLRDHUP)
    killed_by = 0
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if pidfd in ready:
            break
        if container._wakeup_fd in ready:
            for number in os.read(container._wakeup_fd, 64):
                if not _forward(container.pid, number):
                    killed_by = number
        if hangup_fd in ready:
            os.kill(container.pid, signal.SIGKILL)
            poll.unregister(hangup_fd)
    _, status = os.waitpid(container.pid, 0)
    for fd in (pidfd, container._alive_fd):
        os.close(fd)
    if os.WIFSIGNALED(status):
        return SIGNALLED + (killed_by or os.WTERMSIG(status))
    return os.WEXITSTATUS(status)


def _forward(pid: int, number: int) -> bool:
    """Give a signal to PID 1 of the container; False when that ended it.

    The kernel drops a signal to a PID 1 that has no handler for it (pid_namespaces(7)), which would
    leave `run … sleep 100` deaf to Ctrl-C. As any other process would die of it, it dies.
    """
    os.kill(pid, number)
    if number in _HARMLESS:
        return True
    bit = 1 << (number - 1)
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith(("SigIgn:", "SigCgt:")) and int(line.split()[1], 16) & bit:
                return True
    os.kill(pid, signal.SIGKILL)
    return False


def _catch_signals() -> int:
    """Have the signals of FORWARDED written to a pipe; returns its read end."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    signal.set_wakeup_fd(write_fd)
    for number in FORWARDED:
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup(1)
            signal.signal(number, lambda *_: None)
    return read_fd


def _reset_signals() -> None:
    """Give the command the signal dispositions of a fresh process."""
    signal.set_wakeup_fd(-1)
    for number in FORWARDED:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    # Python ignores these two for itself; ignoring would be inherited through exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)


def _steps(plan, records, end: int) -> list[dict]:
    """The records of a traced start as one dict a step; the last one, exec, ended when we knew."""
    steps: list[dict] = []
    calls: dict[int, list[dict]] = {}
    for kind, number, *fields in records:
        n = int(number)
        if kind == "call":
            text, result, call_start, call_end = fields
            calls.setdefault(n, []).append(
                {"call": text, "result": result, "start_ns": int(call_start),
                 "end_ns": int(call_end)}
            )  # fmt: skip
        else:
            step = plan[n - 1]
            steps.append(
                {"n": n, "name": step.name, "where": step.where, "call": "; ".join(step.calls()),
                 "calls": calls.get(n, []), "start_ns": int(fields[0]), "end_ns": int(fields[1])}
            )  # fmt: skip
    if steps and isinstance(plan[steps[-1]["n"] - 1], Exec):
        steps[-1]["end_ns"] = end
    return steps
