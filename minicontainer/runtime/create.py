"""`create`: everything is made, and init waits for `start`."""

from __future__ import annotations

import os

from ..kernel import cgroups
from . import config as configs
from . import jsonfile, lifecycle, plan
from . import state as states
from .launch import Launch, launch
from .state import State


def create(
    root: str, name: str, config: dict, text: str, bundle: str, options: plan.Options, log,
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
        "rootfs": plan.root_path(config, bundle), "annotations": config.get("annotations") or {},
        "hooks": config.get("hooks") or {},
        "options": {key: getattr(options, key) for key in plan.Options.__slots__},
    }  # fmt: skip
    states.check_free(root, name)  # of several problems, the one that callers look for
    try:
        group = _place(config, name, own_cgroup, log)
        steps = plan.build(config, bundle, group, options)
    except (ValueError, OSError) as error:
        raise lifecycle.explained(error) from None
    state = states.create(root, name, {**record, "cgroup": group.record() if group else None})
    try:
        _create(state, steps, text, group, log, console_fd)
        if pid_file:
            states.write_pid_file(pid_file, state.pid)
    except BaseException as error:
        # The spec: after a failure go on with delete, poststop hooks included
        lifecycle.undo(state, log)
        raise (lifecycle.explained(error) if isinstance(error, OSError) else error) from None
    return state


def _place(config: dict, name: str, own_cgroup: bool, log) -> cgroups.Group | None:
    resources = config["linux"].get("resources") or {}
    if own_cgroup:
        return cgroups.place(config["linux"].get("cgroupsPath") or name, resources)
    if resources:
        log("linux.resources: no effect, since cgroups are disabled")
    return None


def _create(state: State, steps, text: str, group, log, console_fd: int) -> None:
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
        from . import hooks

        for kind in ("prestart", "createRuntime"):
            hooks.run(state.record["hooks"], kind, {**state.public(), "pid": state.pid})

    try:
        launch(steps, context, journal, before_pivot)
    finally:
        for warning in context.warnings:
            log(warning)
        os.close(context.exec_fifo)
        os.close(context.result_fifo)
    os.rename(state.file(states.UNREADY_FIFO), state.file(states.EXEC_FIFO))
