"""From a plan to a running init: up to three processes that talk over pipes.

    ours    steps "parent", the last of which may clone init
    stage   else steps "stage": enters the namespaces that only children get, and forks init as a
            child of ours; it ends then
    ours    writes init's pid down, then steps "outside"
    init    steps "init", the last of which is exec

Init does nothing before our word, which comes when its pid is on disk: whoever kills us, nobody
loses it. The end of our pipe is the end of the processes that wait for it. After pivot_root every
file is the stranger's, Python's library included, so nothing may be imported in there: the import
system is emptied first.
"""

from __future__ import annotations

import _signal as signal
import os
import select
import sys
from time import monotonic_ns

from ..kernel import syscalls
from . import report
from .errors import RUNTIME_FAILED, ContainerError
from .failures import failure, hint
from .steps import Context, Step
from .steps_host import Clone, MapIds, may_setgroups

_END = b"\x1e"

TYPE_CHECKING = False  # as in typing, whose import would cost a start 3 ms
if TYPE_CHECKING:
    from collections.abc import Callable

    Child = tuple[int, int, int]  # pid, read end of its records, write end of our words


class Launch(Context):
    """What the steps of one launch share; a copy is in each of its processes.

    group        cgroup, or None
    state        the container's state as hooks get it
    pid          of init, seen from the host
    warnings     texts for the log
    setgroups    whether the user namespace allows setgroups(2)
    console_fd   connection on which the terminal's master is sent
    exec_fifo, result_fifo   see `state`
    alive_fd     attended: read end of a pipe that hangs up when our process ends
    stdio        descriptors that become init's 0, 1, 2; None: ours
    ignored      signals that stay ignored when they are, as under nohup(1)
    records      of what is done, when traced: see `report`
    """

    __slots__ = (
        "alive_fd", "console_fd", "exec_fifo", "go_fd", "group", "ignored", "kept", "namespaces",
        "number", "opened", "pid", "pidfd", "records", "report_fd", "result_fifo", "setgroups",
        "state", "stdio", "traced", "warnings",
    )  # fmt: skip

    def __init__(self, group=None, state: dict | None = None, traced: bool = False) -> None:
        super().__init__()
        self.group = group
        self.state = state or {}
        self.traced = traced or report.trace is not None
        self.namespaces: dict[str, int] = {}
        self.opened: list[int] = []  # for init, and to be closed here
        self.kept: list[int] = []  # for us, and to be closed there
        self.warnings: list[str] = []
        self.records: list[list[str]] = report.trace.records if report.trace else []
        self.ignored: tuple[int, ...] = ()
        self.stdio: list[int] | None = None
        self.setgroups = may_setgroups()
        self.pid = self.number = 0
        self.pidfd = self.console_fd = self.exec_fifo = self.result_fifo = self.alive_fd = -1
        self.report_fd = self.go_fd = -1  # open in the stage and in init only

    def tell(self, *fields) -> None:
        """A record for our first process."""
        if self.report_fd < 0:
            self.records.append([str(field) for field in fields])
        else:
            os.write(self.report_fd, report.encode(*fields))

    def warn(self, text: str) -> None:
        """Something that was asked for is not there; the container works without."""
        if self.report_fd < 0:
            self.warnings.append(text)
        else:
            self.tell("warning", text)

    def ask(self, kind: str, *fields) -> str:
        """Have our first process do something; returns its answer. Ends with that process."""
        self.tell(kind, *fields)
        return self.answer()

    def answer(self) -> str:
        """Our first process's next word."""
        text = b""
        while not text.endswith(b"\n"):
            part = os.read(self.go_fd, 4096)
            if not part:
                os._exit(RUNTIME_FAILED)
            text += part
        return text.decode().rstrip("\n")

    def apply(self, plan, number: int) -> None:
        """Apply a step, and tell about it when traced.

        Under the container's filter even write(2) may be forbidden, and of an exec that succeeds no
        word comes back: from the first of these steps on all is told before.
        """
        step = plan[number - 1]
        self.number, self.hint = number, ""
        if not self.traced:
            step.apply(self)
            return
        begin = monotonic_ns()
        if step.name in ("seccomp", "exec"):
            for n in range(number, len(plan) + 1):
                self.tell("step", n, begin, begin)
            self.traced, syscalls.trace = False, None
            step.apply(self)
            return
        try:
            step.apply(self)
        finally:
            self.tell("step", number, begin, monotonic_ns())

    def on_call(self, text: str, result, begin: int, end: int) -> None:
        """For `syscalls.trace`."""
        if result != 0 or not text.startswith(("fork(", "clone")):  # else in the child
            self.tell("call", self.number, text, result, begin, end)


class Pipes:
    """Records come out of one, our words go into the other: made before a child is forked."""

    __slots__ = ("go_read", "go_write", "report_read", "report_write")

    def __init__(self) -> None:
        self.report_read, self.report_write = os.pipe()
        self.go_read, self.go_write = os.pipe()

    def ours(self, child: int) -> Child:
        """In our process: it as pid and the two descriptors for it."""
        os.close(self.report_write)
        os.close(self.go_read)
        return child, self.report_read, self.go_write

    def theirs(self, context: Launch) -> None:
        """In the child."""
        for fd in (self.report_read, self.go_write, *context.kept):
            os.close(fd)
        context.report_fd, context.go_fd = self.report_write, self.go_read


def launch(plan, context: Launch, journal=None, before_pivot=None) -> None:
    """Apply the plan until init waits for `start`, or until exec when it has no such step.

    journal       called with init's pid before that does anything
    before_pivot  called when the container is mounted, for hooks
    Raises ContainerError; then neither stage nor init are left. `context.pid` is our child.
    """
    if report.trace:
        report.trace.plan = plan
    _traced(context, lambda: _launch(plan, context, journal, before_pivot))


def adopt(child: Child, build: Callable[[], list[Step]], context: Launch) -> bool:
    """The same with an init that is there, and makes its own plan: see `ready`.

    build  makes that plan here, when it is needed: for a step outside, or for an error
    Returns False when init had no use for its plan; it is gone then.
    """
    context.pid, report_read, go_write = child
    refused = False
    with _Hearing(context, child):
        for kind, *fields in _records(report_read, 0, context):
            if kind == "refused":
                refused = True
            elif kind == "outside":
                context.traced = fields == ["True"]
                _traced(context, lambda: _here(build(), context, "outside"))
                answer(go_write, "")
            else:
                _heard(kind, fields, build, context)
        if refused:
            _end(context.pid)
    return not refused


class _Hearing:
    """What is done while a child's records are read. An error in there ends init; in the end the
    pipes are closed, and a stage is reaped.
    """

    __slots__ = ("child", "context", "stage")

    def __init__(self, context: Launch, child: Child, stage: bool = False) -> None:
        self.context, self.child, self.stage = context, child, stage

    def __enter__(self) -> None:
        pass

    def __exit__(self, error, *_) -> None:
        pid, *pipes = self.child
        if error:
            _end(self.context.pid)
        for fd in pipes:
            os.close(fd)
        if self.stage:
            _end(pid)


def _traced(context: Launch, action):
    others = syscalls.trace
    if context.traced:
        syscalls.trace = context.on_call
    try:
        return action()
    finally:
        syscalls.trace = others


def _launch(plan, context: Launch, journal, before_pivot) -> None:
    clone = next((step for step in plan if isinstance(step, Clone)), None)
    _here(plan, context, "parent")
    begin = monotonic_ns()
    made = _first_child(plan, clone, context)
    child, report_read, go_write = made
    for fd in context.opened:
        os.close(fd)

    def born(pid: int) -> None:
        context.pid = pid
        if journal:
            journal(pid)
        _here(plan, context, "outside")
        answer(go_write, str(pid))

    kind = ""
    with _Hearing(context, made, stage=not clone):
        if clone:
            if context.traced:
                context.tell("step", plan.index(clone) + 1, begin, monotonic_ns())
            born(child)
        for kind, *fields in _records(report_read, 0 if clone else child, context):
            if kind == "ready":
                break
            if kind == "pid":
                born(int(fields[0]))
            elif kind == "maps":
                step = next(step for step in plan if isinstance(step, MapIds))
                _try(plan, step, lambda step=step: step.write(context, child), context)
                answer(go_write, "")
            elif kind == "hooks":
                if before_pivot:
                    before_pivot()
                answer(go_write, "")
            else:
                _heard(kind, fields, lambda: plan, context)
        if not context.pid:
            raise ContainerError("the process that starts the container was killed")
        if kind != "ready" and any(step.name == "wait for start" for step in plan):
            raise ContainerError("the container's init was killed before it was ready")


def _heard(kind: str, fields: list[str], build: Callable[[], list[Step]], context: Launch) -> None:
    if kind == "error":
        number, errno, text, advice = fields
        raise failure(build(), int(number), int(errno), text, advice)
    if kind == "warning":
        context.warnings.append(fields[0])
    else:
        context.records.append([kind, *fields])


def _first_child(plan, clone: Clone | None, context: Launch) -> Child:
    """Fork the stage, or init right into its namespaces."""
    pipes = Pipes()
    if clone:
        context.number = plan.index(clone) + 1
        child = _try(plan, clone, clone.fork, context)
    else:
        child = context.group.fork() if context.group else syscalls.fork()
    if child == 0:
        try:
            pipes.theirs(context)
            inside(plan, context, ("init",) if clone else ("stage", "init"))
        finally:
            os._exit(RUNTIME_FAILED)
    return pipes.ours(child)


def _here(plan, context: Launch, where: str) -> None:
    """Apply the steps of our process. Raises ContainerError that names the step."""
    for number, step in enumerate(plan, 1):
        if step.where == where and not isinstance(step, Clone):
            _try(plan, step, lambda: context.apply(plan, number), context)  # noqa: B023


def _try(plan, step: Step, action, context: Launch):
    try:
        return action()
    except OSError as error:
        advice = getattr(error, "hint", "") or context.hint or hint(step, error)
        number = plan.index(step) + 1
        text = error.strerror or str(error)
        raise failure(plan, number, error.errno or 0, text, advice) from None
    except ValueError as error:
        raise failure(plan, plan.index(step) + 1, 0, str(error), "") from None


def _records(fd: int, stage: int, context: Launch):
    """The records as they come, until the other side is closed.

    A stage that is killed after its fork, before it says so, leaves an init that waits for us; the
    end of our pipe is the end of that.
    """
    data = b""
    while context.pid or not stage or _speaks(fd, stage):
        part = os.read(fd, 65536)
        if not part:
            return
        whole, end, data = (data + part).rpartition(_END)
        yield from report.decode(whole + end)


def _speaks(fd: int, child: int) -> bool:
    """Wait until there is something to read, or the child has ended without a word."""
    poll, pidfd = select.poll(), os.pidfd_open(child)
    try:
        poll.register(fd, select.POLLIN)
        poll.register(pidfd, select.POLLIN)
        return fd in [ready for ready, _ in poll.poll()]
    finally:
        os.close(pidfd)


def answer(fd: int, text: str) -> None:
    """Our word to a child that waits for it."""
    try:
        os.write(fd, text.encode() + b"\n")
    except BrokenPipeError:
        pass  # killed meanwhile; the end of its records says so


def _end(pid: int) -> None:
    """Kill a child, if it has not ended yet, and reap it."""
    if not pid:
        return
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def inside(plan, context: Launch, places: tuple[str, ...], done: int = 0) -> None:
    """The stage, and init. Never returns. done: that many steps are behind it."""
    number = 0
    try:
        sys.path.clear()
        sys.meta_path.clear()
        if not done:
            reset_signals(context.ignored)
        if context.stdio:
            _place(context.stdio)
        if "stage" not in places and not done:
            context.state["pid"] = int(context.answer())
        for number, step in enumerate(plan, 1):
            if step.where not in places or number <= done:
                continue
            if step.name == "fork":
                context.number, begin = number, monotonic_ns()
                pid = syscalls.fork_sibling()
                if pid:
                    if context.traced:
                        context.tell("step", number, begin, monotonic_ns())
                    context.tell("pid", pid)
                    os._exit(0)
                context.state["pid"] = int(context.answer())
            else:
                context.apply(plan, number)
    except ContainerError as error:
        context.tell("error", number, 0, error.message, error.hint)
    except OSError as error:
        advice = getattr(error, "hint", "") or context.hint or hint(plan[number - 1], error)
        text = error.strerror or str(error)
        context.tell("error", number, error.errno or 0, text, advice)
    except ValueError as error:
        context.tell("error", number, 0, str(error), "")
    except BaseException as error:  # a bug of ours: the caller shows it, whatever it is
        context.tell("error", number, 0, f"internal error: {error!r}", "")
    finally:
        os._exit(RUNTIME_FAILED)


def reset_signals(ignored: tuple[int, ...]) -> None:
    """The dispositions and the mask of a fresh process, for the command (signal(7))."""
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in range(1, 65):
        if number in (signal.SIGKILL, signal.SIGSTOP, 32, 33):
            continue
        now = signal.getsignal(number)
        if now not in (signal.SIG_DFL, None) and not (number in ignored and now == signal.SIG_IGN):
            signal.signal(number, signal.SIG_DFL)


def _place(stdio: list[int]) -> None:
    # Out of the way first: a source may have a number that is the target of another one.
    high = [os.dup(fd) if fd < 3 else fd for fd in stdio]
    for target, fd in enumerate(high):
        os.dup2(fd, target, inheritable=True)
