"""A container's life: who starts it stands by it, and ends it.

In the foreground that is the command itself; a detached container has a process of its own, which
writes the log (`logs`). Either way the container dies with it (see the step "die with parent"),
whatever ends it: nothing runs that nobody answers for.
"""

from __future__ import annotations

import os
import sys
import time

from .. import paths
from ..images import layers, overlay, rootless
from ..images.store import Image, Store
from ..kernel import cgroups
from ..runtime import config as configs
from ..runtime import foreground, jsonfile, lifecycle, plan
from ..runtime import state as states
from ..runtime.errors import RUNTIME_FAILED, ContainerError
from . import bundle, containers, logs
from .containers import Container

MOUNT_POINTS = (
    "dev", "proc", "sys", "tmp", "etc/hosts", "etc/hostname", "etc/resolv.conf",
)  # fmt: skip


def prepare(store: Store, image: Image, options: dict, words: list[str]) -> Container:
    """A container of an image, of which nothing runs yet. After an error nothing is left."""
    os.umask(0o022)  # its users shall be able to read /etc/hosts
    told = image.config.get("config") or {}
    container = containers.create(options["name"] or "", {
        "image": image.name, "descriptor": image.descriptor, "remove": options["rm"],
        "labels": {**(told.get("Labels") or {}), **_labels(options["label"])},
        "stop_signal": options["stop_signal"] or told.get("StopSignal") or "SIGTERM",
    })  # fmt: skip
    try:
        store.pin(container.name, image.descriptor["digest"])
        found = layers.unpacked(store, image)
        for name in ("rootfs", "upper", "work"):
            os.mkdir(container.file(name), 0o755)
        lowers = [_base(), *found]
        upper = container.file("upper")
        rootless.inside(lambda: layers.copy_root_metadata(lowers, upper))
        config, volumes = bundle.configuration(told, lowers, container.directory, options, words)
        jsonfile.write_file(container.file(containers.CONFIG), jsonfile.dumps(config))
        container.save(
            layers=lowers, volumes=volumes, command=config["process"]["args"],
            detached=options["detach"], interactive=options["interactive"],
            log_size=logs.limit(options["log_opt"]),
        )  # fmt: skip
    except BaseException as error:
        container.remove(_say)
        raise (lifecycle.explained(error) if isinstance(error, OSError) else error) from None
    return container


def _labels(words: list[str]) -> dict[str, str]:
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def _base() -> str:
    """The layer below all others: mount points, for images that have none.

    What an image has is shown as the image has it; and nothing of this is in a container's diff.
    """
    path = f"{paths.data_dir()}/mount-points"
    if not os.path.isdir(path):
        new = f"{path}.{os.getpid()}"
        for name in MOUNT_POINTS:
            directory = name if "." not in name and "host" not in name else "etc"
            os.makedirs(f"{new}/{directory}", 0o755, exist_ok=True)
            os.chmod(f"{new}/{directory}", 0o755)
            if directory != name:
                os.close(os.open(f"{new}/{name}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        os.chmod(f"{new}/tmp", 0o1777)
        os.chmod(new, 0o755)
        try:
            os.rename(new, path)
        except OSError:
            containers.remove_tree(new)  # another process was first
    return path


def planned(container: Container) -> tuple[list, dict, cgroups.Group | None]:
    """(the plan for it, its configuration, its place among the cgroups).

    Raises ValueError or OSError.
    """
    record = container.record
    config = jsonfile.loads(jsonfile.read_file(container.file(containers.CONFIG)))
    configs.check(config)
    resources = config["linux"].get("resources")
    group = cgroups.place(container.name, resources) if resources else None
    root: list = []
    if not record.get("copied"):
        root.append(overlay.Root(
            record["layers"], config["root"]["path"], container.file("upper"),
            container.file("work"), volatile=record["remove"],
        ))  # fmt: skip
    else:
        from ..runtime.steps_files import BindRoot

        root.append(BindRoot(config["root"]["path"]))
    volumes = {} if record.get("started") else record["volumes"]
    root.append(bundle.Furnish(volumes, config["process"]["cwd"]))
    return plan.build(config, container.directory, group, root_steps=root), config, group


def start(container: Container, stdio=None, trace: bool = False) -> foreground.Attended:
    """Run its command; this process stands by it. After an error nothing runs."""
    try:
        try:
            started = _start(container, stdio, trace)
        except ContainerError as error:
            if error.step != overlay.Root.name or container.record.get("started"):
                raise
            _say(f"the image is copied, since overlayfs cannot be used: {error.message}")
            target, prefix = container.file("rootfs"), rootless.overlay_prefix()
            from ..images import merge

            rootless.inside(lambda: merge.copy(container.record["layers"], prefix, target))
            container.save(copied=True)
            started = _start(container, stdio, trace)
    except (ValueError, OSError) as error:
        raise lifecycle.explained(error) from None
    container.save(started=int(time.time()), exit=None)
    for text in started.warnings:
        _say(text)
    return started


def _start(container: Container, stdio, trace: bool) -> foreground.Attended:
    steps, config, group = planned(container)
    state = states.create(containers.state_root(), container.name, {
        "ociVersion": config["ociVersion"], "bundle": container.directory,
        "rootfs": config["root"]["path"], "annotations": {}, "hooks": {}, "options": {},
        "cgroup": group.record() if group else None,
    })  # fmt: skip
    jsonfile.write_file(state.file(states.CONFIG), jsonfile.dumps(config))

    def journal(pid: int) -> None:
        state.save(pid=pid, startTime=states.start_time(pid),
                   cgroup=group.record() if group else None)  # fmt: skip

    try:
        terminal = config["process"].get("terminal", False)
        return foreground.attend(steps, stdio, trace, group, journal, terminal)
    except BaseException:
        lifecycle.undo(state, _say)
        raise


def finish(container: Container, code: int) -> None:
    """Undo the start, and with `remove` the container; else remember how it ended."""
    container.end(_say)
    if container.record["remove"]:
        container.remove(_say)
    else:
        container.save(exit=code, finished=int(time.time()), monitor=None)


class Kept:
    """A container that was started, as `foreground.Attended`; its end is looked after, too."""

    def __init__(self, container: Container, stdio: list[int], trace: bool) -> None:
        self.container = container
        try:
            self._started = start(container, stdio, trace)
        except BaseException as error:
            finish(container, getattr(error, "exit_code", RUNTIME_FAILED))
            raise
        self.pid, self.steps = self._started.pid, self._started.steps

    def wait(self, hangup_fd: int = -1, stdin: int = 0, stays=None) -> int:
        """See `foreground.Attended.wait`."""
        code = RUNTIME_FAILED
        try:
            code = self._started.wait(hangup_fd, stdin, stays=stays)
        finally:
            finish(self.container, code)
        return code


def run(container: Container, interactive: bool, trace: bool = False, on_start=None) -> int:
    """In the foreground; returns docker's exit code."""
    stdin = 0 if interactive else os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    kept = Kept(container, [stdin, 1, 2], trace)
    if on_start:
        on_start(kept)
    return kept.wait(stdin=stdin)


# --- detached ----------------------------------------------------------------------------------


def detach(container: Container) -> None:
    """Have a process of its own stand by it; returns when the command runs.

    Raises ContainerError.
    """
    container.save(detached=True)
    answers, answer = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                _monitor(container, answer)
        finally:
            os._exit(0)
    os.close(answer)
    os.waitpid(child, 0)
    told = b""
    while part := os.read(answers, 1 << 16):
        told += part
    os.close(answers)
    reply: dict = {"error": "the process that stands by the container was killed"}
    if told:
        reply = jsonfile.loads(told.decode())
    if reply:
        raise ContainerError(
            reply["error"], hint=reply.get("hint", ""),
            exit_code=reply.get("exit_code", RUNTIME_FAILED),
        )  # fmt: skip


def _monitor(container: Container, answer: int) -> None:
    code = RUNTIME_FAILED
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    # With -i a stdin that does not end, though nobody types
    stdin = os.pipe2(os.O_CLOEXEC)[0] if container.record["interactive"] else nothing
    streams, stdio = {}, [stdin]
    for name in ("stdout", "stderr"):
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        streams[read_fd] = name
        stdio.append(write_fd)
    try:
        container.stand_by()
        started = start(container, stdio)
        for fd in stdio[1:]:
            os.close(fd)
        os.write(answer, b"{}")
        os.close(answer)
        for fd in (0, 1, 2):  # the caller's: who waits for their end shall not wait for us
            os.dup2(nothing, fd)
        if started.terminal:
            streams = {started.terminal.receive(): "stdout"}
        with logs.Log(container.file(containers.LOG), container.record["log_size"]) as log:
            code = started.wait(outputs={fd: log.reader(fd, streams[fd]) for fd in streams})
    except ContainerError as error:
        code = error.exit_code
        reply = {"error": error.message, "hint": error.hint, "exit_code": code}
        os.write(answer, jsonfile.dumps(reply).encode())
    finally:
        finish(container, code)


def _say(text: str) -> None:
    print(f"minicontainer: {text}", file=sys.stderr)
