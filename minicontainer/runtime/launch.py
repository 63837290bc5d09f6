"""From a plan to a running init: our process, the stage between, and init, which talk over pipes.

    ours    steps "parent"; forks the stage
    stage   steps "stage": enters the cgroup and the namespaces that only children get; forks init,
            as our child, and ends
    ours    writes init's pid down, then steps "outside"
    init    steps "init", the last of which is exec

Init does nothing before our word, which comes when its pid is on disk: whoever kills us, nobody
loses it. The end of our pipe is the end of the processes that wait for it.
"""

from __future__ import annotations

import _signal as signal
import os
import select
import sys

from ..kernel import syscalls
from . import report
from .errors import RUNTIME_FAILED, ContainerError
from .failures import failure
from .init import hint
from .steps import Context
from .steps_host import MapIdsFromOutside, may_setgroups

_END = b"\x1e"


class Launch(Context):
    """What the steps of one launch share; a copy is in each of its processes.

    group        cgroup, or None
    state        the container's state as hooks get it
    pid          of init, seen from the host
    warnings     texts for the log
    setgroups    whether the user namespace allows setgroups(2)
    console_fd   connection on which the terminal's master is sent
    exec_fifo, result_fifo   see `state`
    """

    __slots__ = (
        "console_fd", "exec_fifo", "go_fd", "group", "hint", "namespaces", "opened", "pid",
        "pidfd", "report_fd", "result_fifo", "setgroups", "state", "warnings",
    )  # fmt: skip

    def __init__(self, group, state: dict) -> None:
        super().__init__(-1)
        self.group = group
        self.state = state
        self.namespaces: dict[str, int] = {}
        self.opened: list[int] = []  # for init, and to be closed here
        self.warnings: list[str] = []
        self.hint = ""
        self.setgroups = may_setgroups()
        self.pid = 0
        self.pidfd = self.console_fd = self.exec_fifo = self.result_fifo = -1
        self.report_fd = self.go_fd = -1  # open in the stage and in init only

    def warn(self, text: str) -> None:
        """Something that was asked for is not there; the container works without."""
        if self.report_fd < 0:
            self.warnings.append(text)
        else:
            os.write(self.report_fd, report.encode("warning", text))

    def ask(self, kind: str, *fields) -> str:
        """Have our first process do something; returns its answer. Ends with that process."""
        os.write(self.report_fd, report.encode(kind, *fields))
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


def launch(plan, context: Launch, journal, before_pivot=None) -> None:
    """Apply the plan until init waits for `start`, or until exec when it has no such step.

    journal       called with init's pid before that does anything
    before_pivot  called when the container is mounted, for hooks
    Raises ContainerError; then neither stage nor init are left. `context.pid` is our child.
    """
    apply(plan, context, "parent")
    report_read, report_write = os.pipe()
    go_read, go_write = os.pipe()
    stage = context.group.fork() if context.group else syscalls.fork()
    if stage == 0:
        try:
            os.close(report_read)
            os.close(go_write)
            context.report_fd, context.go_fd = report_write, go_read
            _stage(plan, context)
        finally:
            os._exit(RUNTIME_FAILED)
    for fd in (report_write, go_read, *context.opened):
        os.close(fd)
    try:
        for kind, *fields in _records(report_read, stage, lambda: context.pid):
            if kind == "warning":
                context.warnings.append(fields[0])
                continue
            if kind == "error":
                number, errno, text, advice = fields
                raise failure(plan, int(number), int(errno), text, advice)
            if kind == "ready":
                break
            answer = ""
            if kind == "maps":
                step = next(step for step in plan if isinstance(step, MapIdsFromOutside))
                _try(plan, step, lambda step=step: step.write(context, stage), context)
            elif kind == "pid":
                context.pid = int(fields[0])
                journal(context.pid)
                # Not while init is at work: devices are all denied before some are allowed again
                apply(plan, context, "outside")
                answer = str(context.pid)
            elif kind == "hooks" and before_pivot:
                before_pivot()
            _answer(go_write, answer)
        if not context.pid:
            raise ContainerError("the process that starts the container was killed")
        if kind != "ready" and any(step.name == "wait for start" for step in plan):
            raise ContainerError("the container's init was killed before it was ready")
    except BaseException:
        _end(context.pid)
        raise
    finally:
        os.close(report_read)
        os.close(go_write)
        _end(stage)


def apply(plan, context: Launch, where: str) -> None:
    """Apply the steps of one place. Raises ContainerError that names the step."""
    for step in plan:
        if step.where == where:
            context.hint = ""
            _try(plan, step, lambda step=step: step.apply(context), context)


def _try(plan, step, action, context: Launch) -> None:
    try:
        action()
    except OSError as error:
        advice = getattr(error, "hint", "") or context.hint or hint(step, error)
        number = plan.index(step) + 1
        raise failure(
            plan, number, error.errno or 0, error.strerror or str(error), advice
        ) from None
    except ValueError as error:
        raise failure(plan, plan.index(step) + 1, 0, str(error), "") from None


def _records(fd: int, child: int, born):
    """The records as they come, until the other side is closed.

    A stage that is killed after its fork, before it says so (`born` is false), leaves an init that
    waits for us; the end of our pipe is the end of that.
    """
    data = b""
    poll, pidfd = select.poll(), os.pidfd_open(child)
    poll.register(fd, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    while True:
        ready = {one for one, _ in poll.poll()}
        if fd not in ready:
            poll.unregister(pidfd)
            if born():
                continue
            break
        part = os.read(fd, 65536)
        if not part:
            break
        whole, end, data = (data + part).rpartition(_END)
        yield from report.decode(whole + end)
    os.close(pidfd)


def _answer(fd: int, text: str) -> None:
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


def _stage(plan, context: Launch) -> None:
    """The stage and, after its fork, init. Never returns."""
    number = 0
    try:
        sys.path.clear()
        sys.meta_path.clear()
        _reset_signals()
        for number, step in enumerate(plan, 1):  # noqa: B007 (errors tell it)
            if step.where not in ("stage", "init"):
                continue
            if step.name == "fork":
                pid = syscalls.fork_sibling()
                if pid:
                    os.write(context.report_fd, report.encode("pid", pid))
                    os._exit(0)
                context.state["pid"] = int(context.answer())
                continue
            context.hint = ""
            step.apply(context)
    except ContainerError as error:
        _report(context, number, 0, error.message, error.hint)
    except OSError as error:
        advice = getattr(error, "hint", "") or context.hint or hint(plan[number - 1], error)
        _report(context, number, error.errno or 0, error.strerror or str(error), advice)
    except ValueError as error:
        _report(context, number, 0, str(error), "")
    except BaseException as error:  # a bug of ours: the caller shows it, whatever it is
        _report(context, number, 0, f"internal error: {error!r}", "")
    finally:
        os._exit(RUNTIME_FAILED)


def _report(context: Launch, *fields) -> None:
    os.write(context.report_fd, report.encode("error", *fields))


def _reset_signals() -> None:
    """The dispositions and the mask of a fresh process, for the command (signal(7))."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in range(1, 65):
        if number in (signal.SIGKILL, signal.SIGSTOP, 32, 33):
            continue
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)
