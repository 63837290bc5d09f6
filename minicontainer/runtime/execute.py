"""`exec`: one more process in a container, with everything that the container has.

Its files are a stranger's: after the namespaces are joined we open none of them but /dev/pts, which
is proved to be a devpts; and nobody in there may look into our process (see JoinContainer).
"""

from __future__ import annotations

import os

from ..kernel import namespaces
from . import config as configs
from . import home, jsonfile, plan, steps, steps_host
from . import state as states
from .errors import ContainerError, kernel_words
from .launch import Launch, launch
from .state import State


def process(state: State, options: dict, words: list[str]) -> tuple[dict, dict | None]:
    """(the process object to run, the container's filter): --process, or create's with changes."""
    config = jsonfile.loads(jsonfile.read_file(state.file(states.CONFIG)))
    path = options["process"]
    try:
        if path:
            one = jsonfile.loads(jsonfile.read_file(path))
        else:
            one = _changed(config["process"], options, words)
        configs.check_process(one)
    except ValueError as error:
        raise ContainerError(f"{path}: {error}" if path else str(error)) from None
    except OSError as error:
        raise ContainerError(f"--process {path}: {kernel_words(error.errno or 0)}") from None
    return one, config["linux"].get("seccomp")


def _changed(one: dict, options: dict, words: list[str]) -> dict:
    one = {**one, "args": words, "terminal": options["tty"]}
    one["env"] = [*(one.get("env") or []), *options["env"]]
    if options["cwd"]:
        one["cwd"] = options["cwd"]
    if options["no_new_privs"]:
        one["noNewPrivileges"] = True
    if options["user"]:
        one["user"] = _user(options["user"])
    if options["additional_gids"]:
        gids = [_number(gid, "--additional-gids") for gid in options["additional_gids"]]
        one["user"] = {**(one.get("user") or {}), "additionalGids": gids}
    if options["cap"]:
        sets = {kind: list(names or []) for kind, names in (one.get("capabilities") or {}).items()}
        for kind in ("bounding", "effective", "permitted"):
            sets[kind] = [*sets.get(kind, []), *options["cap"]]
        one["capabilities"] = sets
    return one


def _user(text: str) -> dict:
    # Names would have to be looked up in files of the container
    uid, colon, gid = text.partition(":")
    return {"uid": _number(uid, "--user"), "gid": _number(gid, "--user") if colon else 0}


def _number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"{name} {text}: numbers only, as in 1000:1000")
    return int(text)


def start(
    state: State, process: dict, profile: dict | None, preserve_fds: int, console_fd: int,
    pid_file: str, log,
) -> int:  # fmt: skip
    """Run it; returns its pid, which is our child, once it has exec'd. Raises ContainerError."""
    status = state.status()
    if status not in ("created", "running"):
        hint = "resume it first: a new process would freeze at once" if status == "paused" else ""
        raise ContainerError(f"cannot exec in a container that is {status}", hint=hint)
    group = state.group()
    context = Launch(group, state.public())
    try:
        context.pidfd = os.pidfd_open(state.pid)
    except ProcessLookupError:
        raise ContainerError("container not running") from None
    if not state.running():  # only now: the descriptor has pinned whoever that is
        raise ContainerError("container not running")
    context.console_fd = console_fd
    context.setgroups = steps_host.may_setgroups(state.pid)
    uid = (process.get("user") or {}).get("uid", 0)
    process = {**process, "env": home.add(process.get("env") or [], f"/proc/{state.pid}/root", uid)}
    options = plan.Options(preserve_fds=preserve_fds)
    steps_ = _plan(process, profile, options, group, _foreign(state.pid))

    def journal(pid: int) -> None:
        if pid_file:
            states.write_pid_file(pid_file, pid)

    try:
        launch(steps_, context, journal)
    finally:
        os.close(context.pidfd)
        for warning in [*configs.process_warnings(process), *context.warnings]:
            log(warning)
    return context.pid


def _foreign(pid: int) -> list[str]:
    """The namespaces of that process that are not ours, too."""
    own, theirs = namespaces.inodes(), namespaces.inodes(pid)
    return [kind for kind in own if own[kind] != theirs[kind]]


def _plan(process: dict, profile: dict | None, options: plan.Options, group, kinds: list[str]):
    found: list[steps.Step] = []
    if group:
        found.append(steps_host.EnterCgroup(group, "stage"))
    found += [steps_host.JoinContainer(kinds), steps_host.ForkSibling()]
    found += plan.outside_steps(process, {}, None)
    found += [steps.NewSession(), steps.NewKeyring()]
    if process.get("terminal"):
        from . import steps_console

        uid = (process.get("user") or {}).get("uid", 0)
        found.append(steps_console.Console(process.get("consoleSize"), uid, in_container=True))
    return found + plan.process_steps(process, profile, options, [])
