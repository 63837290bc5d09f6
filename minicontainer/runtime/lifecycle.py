"""A container's life: create, start, kill, delete, each in a process of its own if you like.

https://github.com/opencontainers/runtime-spec/blob/v1.2.0/runtime.md#lifecycle
Functions raise ContainerError, and tell warnings to `log`, a function of one text.
"""

from __future__ import annotations

import _signal as signal
import errno
import os
from time import monotonic, sleep

from ..kernel import cgroups
from ..kernel.cgroups import CgroupError
from . import bundle as bundles
from . import config as configs
from . import hooks, jsonfile, report
from . import state as states
from .errors import ContainerError, kernel_words
from .failures import failure
from .launch import Launch, launch
from .state import State

_PATIENCE = 10.0  # seconds for a process that got SIGKILL to be gone


def create(
    root: str, name: str, config: dict, text: str, bundle: str, options: bundles.Options, log,
    console_fd: int = -1, own_cgroup: bool = True, pid_file: str = "",
) -> State:  # fmt: skip
    """Make everything but run nothing: init waits for `start`. After an error nothing is left.

    text        the configuration as it was read, which is kept
    own_cgroup  False: `--cgroup-manager disabled`
    """
    for warning in configs.warnings(config):
        log(warning)
    record = {
        "ociVersion": config["ociVersion"], "bundle": bundle,
        "rootfs": bundles.root_path(config, bundle), "annotations": config.get("annotations") or {},
        "hooks": config.get("hooks") or {},
        "options": {key: getattr(options, key) for key in bundles.Options.__slots__},
    }  # fmt: skip
    states.check_free(root, name)  # of several problems, the one that callers look for
    try:
        group = _place(config, name, own_cgroup, log)
        plan, warnings = bundles.build(config, bundle, group, options)
    except (ValueError, OSError) as error:
        raise _explained(error) from None
    for warning in warnings:
        log(warning)
    state = states.create(root, name, {**record, "cgroup": group.record() if group else None})
    try:
        _create(state, plan, text, group, log, console_fd)
        if pid_file:
            write_pid_file(pid_file, state.pid)
    except BaseException as error:
        # The spec: after a failure go on with delete, poststop hooks included
        _undo(state, log)
        raise (_explained(error) if isinstance(error, OSError) else error) from None
    return state


def _explained(error: Exception) -> ContainerError:
    if not isinstance(error, OSError):
        return ContainerError(str(error))
    return ContainerError(
        f"{error.strerror}: {kernel_words(error.errno or 0)}", hint=getattr(error, "hint", ""),
        errno=error.errno or 0,
    )  # fmt: skip


def _place(config: dict, name: str, own_cgroup: bool, log) -> cgroups.Group | None:
    resources = config["linux"].get("resources") or {}
    if own_cgroup:
        return cgroups.place(config["linux"].get("cgroupsPath") or name, resources)
    if resources:
        log("linux.resources: no effect, since cgroups are disabled")
    return None


def _create(state: State, plan, text: str, group, log, console_fd: int) -> None:
    jsonfile.write_file(state.file(states.CONFIG), text)
    for fifo in (states.UNREADY_FIFO, states.RESULT_FIFO):
        os.mkfifo(state.file(fifo), 0o600)
    context = Launch(group, state.public())
    context.console_fd = console_fd
    # O_RDWR does not wait for the other side, and keeps the fifo alive until init has exec'd
    flags = os.O_RDWR | os.O_CLOEXEC
    context.exec_fifo = os.open(state.file(states.UNREADY_FIFO), flags)
    context.result_fifo = os.open(state.file(states.RESULT_FIFO), flags)

    def journal(pid: int) -> None:
        state.save(pid=pid, startTime=states.start_time(pid),
                   cgroup=group.record() if group else None)  # fmt: skip

    def before_pivot() -> None:
        for kind in ("prestart", "createRuntime"):
            hooks.run(state.record["hooks"], kind, {**state.public(), "pid": state.pid})

    try:
        launch(plan, context, journal, before_pivot)
    finally:
        for warning in context.warnings:
            log(warning)
        os.close(context.exec_fifo)
        os.close(context.result_fifo)
    os.rename(state.file(states.UNREADY_FIFO), state.file(states.EXEC_FIFO))


def write_pid_file(path: str, pid: int) -> None:
    """Whole or not at all: somebody watches for it."""
    try:
        jsonfile.write_file(os.path.abspath(path), str(pid), 0o644)
    except OSError as error:
        raise ContainerError(
            f"--pid-file {path}: {kernel_words(error.errno or 0)}", errno=error.errno or 0
        ) from None


def start(state: State, log) -> None:
    """Let init exec the command. Raises ContainerError when it is not found or cannot run."""
    status = state.status()
    if status != "created":
        raise ContainerError(
            f"cannot start a container that is {status}",
            hint="only a created container can be started" if status != "running" else "",
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
    except OSError as error:  # ENXIO: nobody reads the fifo
        raise ContainerError(
            "cannot start a container that is stopped", errno=error.errno or 0
        ) from None
    finally:
        for fd in opened:
            os.close(fd)
    trace = report.trace
    if trace and not trace.plan:
        trace.begin(_plan_again(state))
    for kind, *fields in records:
        if kind == "warning":
            log(fields[0])
        if kind in ("call", "step") and trace:  # init tells when it was created with a trace
            trace.add(kind, fields)
        if kind == "error":
            step, errno_text, text, advice = fields
            _await_end(state)
            raise failure(_plan_again(state), int(step), int(errno_text), text, advice)
    if trace:
        trace.end()
    for problem in hooks.failures(state.record["hooks"], "poststart", state.public()):
        log(problem)


def _plan_again(state: State):
    """The plan that init works on, to name its step; only for an error's text."""
    config = jsonfile.loads(jsonfile.read_file(state.file(states.CONFIG)))
    configs.check(config)
    options = bundles.Options(**state.record["options"])
    group = state.group()
    return bundles.build(config, state.record["bundle"], group, options)[0]


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
    _undo(state, log)


def _undo(state: State, log) -> None:
    """Bring any container, half made or running, to nothing. Needs only the record."""
    maker = state.record.get("maker") or [0, 0]
    if state.status() == "creating" and maker[0] not in (0, os.getpid()):
        _kill(*maker)  # it is about to make more
    if state.running():
        try:
            state.signal(signal.SIGKILL)
        except ProcessLookupError:
            pass
    group = state.group()
    try:
        if group:
            group.delete()
        _await_end(state)
    except CgroupError as error:
        raise _explained(error) from None
    public = {**state.public(), "status": "stopped", "pid": 0}
    state.remove()
    for problem in hooks.failures(state.record.get("hooks") or {}, "poststop", public):
        log(problem)


def _kill(pid: int, started: int) -> None:
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return
    if states.start_time(pid) == started:
        signal.pidfd_send_signal(fd, signal.SIGKILL)
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
