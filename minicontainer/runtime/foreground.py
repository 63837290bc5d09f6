"""Stand by a process until it ends: pass signals on, and its terminal; then docker's exit code.

Three callers: `attend` for containers that live and die with their caller (the library, and
`minicontainer run`), `run` and `execute` for the OCI runtime's commands of that name.
"""

from __future__ import annotations

# The C module: `signal` itself imports enum, which costs a start 2 ms.
import _signal as signal
import os
import select

from . import launch, report
from .errors import SIGNALLED

TYPE_CHECKING = False  # as in typing, whose import would cost a start 3 ms
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable

# What a terminal or a supervisor sends to a program. SIGKILL and SIGSTOP cannot be passed on:
# the first takes an attended container with us (see the step "die with parent").
FORWARDED = tuple(
    getattr(signal, name)
    for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGTERM", "SIGCONT",
                 "SIGWINCH")
)  # fmt: skip
A_WHILE_MS = 20
# Their default action does not end a process.
_HARMLESS = (signal.SIGCONT, signal.SIGWINCH)


class Attended:
    """A running container: pid of its init on the host, and what its start reported.

    warnings  texts for the log
    """

    __slots__ = ("_alive_fd", "_wakeup_fd", "pid", "steps", "terminal", "warnings")

    def __init__(self, pid: int, steps: list[dict], alive_fd: int, wakeup_fd: int) -> None:
        self.pid = pid
        self.steps = steps  # only when traced: see `report.steps`
        self.warnings: list[str] = []
        self.terminal: _Terminal | None = None
        self._alive_fd = alive_fd
        self._wakeup_fd = wakeup_fd

    def wait(
        self, hangup_fd: int = -1, stdin: int = 0, outputs: dict | None = None,
        stays: Callable[[], None] | None = None,
    ) -> int:  # fmt: skip
        """Pass signals on until the container has ended; returns docker's exit code.

        hangup_fd  a socket; when its peer stops writing or goes away the container is killed
        stdin      what is typed on the container's terminal, when it has one
        outputs    descriptors, and what reads one of them, until it returns False; instead of a
                   terminal of ours
        stays      called once, when nothing has happened for a while
        """
        if self.terminal and outputs is None:
            code = _wait(self.pid, self._wakeup_fd, self.terminal, stdin)
        else:
            code = wait(self.pid, self._wakeup_fd, hangup_fd, outputs, stays)
        if self.terminal:
            self.terminal.close()
        os.close(self._alive_fd)
        return code


def context(group=None) -> launch.Launch:
    """What `attend` starts with: a pipe whose end is the container's end."""
    made = launch.Launch(group)
    made.ignored = FORWARDED
    made.alive_fd, alive_write = os.pipe()
    made.opened.append(made.alive_fd)
    made.kept.append(alive_write)
    return made


def attend(
    plan, stdio=None, trace: bool = False, group=None, journal=None, terminal: bool = False
) -> Attended:
    """Apply a plan with `attended`; returns when the command runs.

    stdio     three descriptors for the command
    group     its cgroup, or None
    journal   called with init's pid before that does anything
    terminal  the plan has a terminal

    Raises ContainerError when a step failed, and then nothing is left. Signals of FORWARDED are
    held back from here on, until `wait` passes them on.
    """
    wakeup_fd = catch_signals()
    start = context(group)
    start.traced |= trace
    start.stdio = stdio
    own = _Terminal() if terminal else None
    if own:
        start.console_fd = own.open()
    launch.launch(plan, start, journal)
    started = attended(start, lambda: plan, wakeup_fd)
    started.terminal = own
    return started


def attended(start: launch.Launch, build: Callable[[], list], wakeup_fd: int) -> Attended:
    """What was launched from a `context`; build gives its plan, when it was traced."""
    steps = report.steps(build(), start.records) if start.records else []
    started = Attended(start.pid, steps, start.kept[0], wakeup_fd)
    started.warnings = start.warnings
    return started


def run(options: dict, create, log) -> int:
    """create gets a function that makes a place for the terminal; returns docker's exit code."""
    from . import lifecycle

    terminal = _Terminal()
    own = None if options["detach"] or options["console_socket"] else terminal.open
    try:
        state = create(own)
        try:
            # Ours from here on: we are its parent
            wakeup_fd = -1 if options["detach"] else catch_signals()
            lifecycle.start(state, log)
            if "started" in options:  # see --trace
                options["started"]()
            if options["detach"]:
                return 0
            code = _wait(state.pid, wakeup_fd, terminal)
        except BaseException:
            lifecycle.delete(state, log, force=True)
            raise
    finally:
        terminal.close()
    if not options["keep"]:
        lifecycle.delete(state, log, force=True)
    return code


def execute(options: dict, own_console: bool, start) -> int:
    """`exec`: the same for one more process, which is deleted by itself."""
    terminal = _Terminal()
    wakeup_fd = -1 if options["detach"] else catch_signals()
    try:
        pid = start(terminal.open if own_console and not options["detach"] else None)
        return 0 if options["detach"] else _wait(pid, wakeup_fd, terminal)
    finally:
        terminal.close()


def _wait(pid: int, wakeup_fd: int, terminal, stdin: int = 0) -> int:
    master = terminal.receive()
    if master >= 0:
        from ..kernel import pty

        pty.relay(master, stdin, 1, wakeup_fd, lambda number: _forward(pid, number))
    return wait(pid, wakeup_fd)


def wait(
    pid: int, wakeup_fd: int, hangup_fd: int = -1, outputs: dict | None = None,
    stays: Callable[[], None] | None = None,
) -> int:  # fmt: skip
    """Pass signals on to our child until it has ended; see `Attended.wait`."""
    poll = select.poll()
    pidfd = os.pidfd_open(pid)
    poll.register(pidfd, select.POLLIN)
    poll.register(wakeup_fd, select.POLLIN)
    if hangup_fd >= 0:
        poll.register(hangup_fd, select.POLLRDHUP)
    left = dict(outputs or {})
    for fd in left:
        poll.register(fd, select.POLLIN)
    killed_by = 0
    while True:
        ready = {fd for fd, _ in poll.poll(A_WHILE_MS if stays else None)}
        if stays and not ready:
            stays()
            stays = None
        for fd in ready & left.keys():
            if not left[fd]():
                poll.unregister(fd)
                del left[fd]
        if pidfd in ready and not ready & left.keys():
            break  # and nothing is left to be read
        if wakeup_fd in ready:
            for number in os.read(wakeup_fd, 64):
                if not _forward(pid, number):
                    killed_by = number
        if hangup_fd in ready:
            os.kill(pid, signal.SIGKILL)
            poll.unregister(hangup_fd)
    _, status = os.waitpid(pid, 0)
    os.close(pidfd)
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


def catch_signals() -> int:
    """Have the signals of FORWARDED written to a pipe; returns its read end."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    signal.set_wakeup_fd(write_fd)
    for number in FORWARDED:
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup(1)
            signal.signal(number, lambda *_: None)
    return read_fd


class _Terminal:
    """A connection to ourselves, on which init sends the master of its terminal, if it has one."""

    def __init__(self) -> None:
        self.ours: socket | None = None
        self.theirs = -1

    def open(self) -> int:
        """The end for init."""
        import _socket

        kind = _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC
        self.ours, theirs = _socket.socketpair(_socket.AF_UNIX, kind)
        self.theirs = theirs.detach()
        return self.theirs

    def receive(self) -> int:
        """The master, which was sent by now; -1 when there is no terminal."""
        if not self.ours:
            return -1
        from ..kernel import rights

        return rights.receive(self.ours, 4096, 1)[1][0]

    def close(self) -> None:
        if self.ours:
            self.ours.close()
            os.close(self.theirs)
