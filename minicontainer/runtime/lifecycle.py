"""A container's life after `create`: start, kill, delete, each in a process of its own if you like.

https://github.com/opencontainers/runtime-spec/blob/v1.2.0/runtime.md#lifecycle
Functions raise ContainerError, and tell warnings to `log`, a function of one text.
"""

from __future__ import annotations

import _signal as signal
import errno
import os
from time import monotonic, sleep

from . import report
from . import state as states
from .errors import ContainerError, kernel_words
from .state import State

_PATIENCE = 10.0  # seconds for a process that got SIGKILL to be gone


def explained(error: Exception) -> ContainerError:
    """A ValueError or OSError of the kernel floor, for the user."""
    if not isinstance(error, OSError):
        return ContainerError(str(error))
    return ContainerError(
        f"{error.strerror}: {kernel_words(error.errno or 0)}", hint=getattr(error, "hint", ""),
        errno=error.errno or 0,
    )  # fmt: skip


def start(state: State, log) -> None:
    """Let init exec the command. Raises ContainerError when it is not found or cannot run."""
    status = state.status()
    if status != "created":
        raise ContainerError(
            f"cannot start a container that is {status}",
            hint={"running": "", "paused": "resume it first"}.get(
                status, "only a created container can be started"
            ),
        )
    opened = []
    try:
        flags = os.O_NONBLOCK | os.O_CLOEXEC
        opened.append(os.open(state.file(states.RESULT_FIFO), os.O_RDONLY | flags))
        opened.append(os.open(state.file(states.EXEC_FIFO), os.O_WRONLY | flags))
        os.unlink(state.file(states.EXEC_FIFO))  # of two that start it at once, one gets here
        os.write(opened[1], b"0")
        os.set_blocking(opened[0], True)
        records = report.decode(report.read_all(opened[0]))
    except FileNotFoundError:
        raise ContainerError("cannot start a container that is running") from None
    except ValueError as error:
        raise states.damaged(state.record["id"], state.file(states.RESULT_FIFO), error) from None
    except OSError as error:
        number = error.errno or 0
        why = f"cannot start the container: {state.directory}: {kernel_words(number)}"
        if number == errno.ENXIO:  # nobody reads the fifo
            why = "cannot start a container that is stopped"
        raise ContainerError(why, errno=number) from None
    finally:
        for fd in opened:
            os.close(fd)
    if report.trace and not report.trace.plan:
        report.trace.plan = _plan(state)
    for kind, *fields in records:
        if kind == "warning":
            log(fields[0])
        if kind in ("call", "step") and report.trace:  # init tells: it was created with a trace
            report.trace.records.append([kind, *fields])
        if kind == "error":
            step, errno_text, text, advice = fields
            _await_end(state)
            from .failures import failure

            raise failure(_plan(state), int(step), int(errno_text), text, advice)
    _hooks(state, "poststart", {}, log)


def _plan(state: State) -> list:
    """The plan that init works on, made again to name its steps."""
    from . import plan

    options = plan.Options(**state.record["options"])
    return plan.build(state.config(), state.record["bundle"], state.group(), options)


def kill(state: State, number: int, everybody: bool = False) -> None:
    """Send a signal to the container's first process, or to all in its cgroup."""
    if not state.running() and not everybody:
        raise ContainerError("container not running", errno=errno.ESRCH)
    group = state.group()
    if everybody and group:
        for pid in group.processes():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
    else:
        try:
            state.signal(number)
        except ProcessLookupError:
            raise ContainerError("container not running", errno=errno.ESRCH) from None
    if number == signal.SIGKILL and group:
        # Frozen, it would die at the thaw only (v1: freezer-subsystem.rst)
        try:
            if group.frozen():
                group.thaw()
        except OSError:
            pass  # no freezer here, so nobody froze it


def delete(state: State, log, force: bool = False) -> None:
    """Undo `create`: cgroup, processes and state directory; then the poststop hooks."""
    status = state.status()
    if status not in ("stopped", "created") and not force:
        raise ContainerError(
            f"cannot delete container {state.record['id']} that is not stopped: {status}",
            hint="kill it first, or delete --force",
        )
    undo(state, log)


def undo(state: State, log) -> None:
    """Bring any container, half made or running, to nothing. Needs only the record."""
    maker = state.record.get("maker") or [0, 0]
    if state.status() == "creating" and maker[0] not in (0, os.getpid()):
        kill_process(*maker)  # it is about to make more
    if state.running():
        try:
            state.signal(signal.SIGKILL)
        except ProcessLookupError:
            pass
    for pid, started in state.standing_by():
        _signal(pid, started, signal.SIGCONT)
    group = state.group()
    try:
        if group:
            group.delete()
        _await_end(state)
    except OSError as error:
        raise explained(error) from None
    state.remove()
    _hooks(state, "poststop", {"status": "stopped", "pid": 0}, log)


def _hooks(state: State, kind: str, changes: dict, log) -> None:
    """Run those after which nothing is undone; their failures are warnings."""
    configured = state.record.get("hooks") or {}
    if configured.get(kind):
        from . import hooks

        for problem in hooks.failures(configured, kind, {**state.public(), **changes}):
            log(problem)


def kill_process(pid: int, started: int) -> None:
    """Kill a process that a record names; nobody else, should that one be gone."""
    _signal(pid, started, signal.SIGKILL)


def _signal(pid: int, started: int, number: int) -> None:
    """To a runtime, unless it has ended, and to its children: a stage may be in no cgroup yet."""
    opened = []
    try:
        opened.append(os.pidfd_open(pid))
        if states.start_time(pid) == started:
            if number == signal.SIGKILL:
                signal.pidfd_send_signal(opened[0], signal.SIGSTOP)  # so that it forks no more
            with open(f"/proc/{pid}/task/{pid}/children") as children:
                opened += map(os.pidfd_open, map(int, children.read().split()))
            for fd in reversed(opened):
                signal.pidfd_send_signal(fd, number)
    except OSError:
        pass  # ended meanwhile
    finally:
        for fd in opened:
            os.close(fd)


def _await_end(state: State) -> None:
    """Wait until the first process is gone; it was killed, or is about to exit by itself."""
    end = monotonic() + _PATIENCE
    pause = 0.0005
    while state.running():
        if monotonic() > end:
            raise ContainerError(
                f"process {state.pid} does not end",
                hint=f"it waits for a device or a file server: cat /proc/{state.pid}/stack",
            )
        sleep(pause)
        pause = min(2 * pause, 0.05)
    try:
        os.waitpid(state.pid, os.WNOHANG)
    except (ChildProcessError, OverflowError):
        pass  # not our child
