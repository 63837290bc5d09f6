"""The words of the command `minicontainer` for containers of images."""

from __future__ import annotations

import os
import sys
import time

from .engine import attend as life
from .engine import containers, logs
from .engine.containers import Container
from .images import rootless
from .images.errors import ImageError
from .images.store import Image, Store
from .images_cli import command, print_table
from .options import HELP, Option, UsageError, describe, parse
from .runtime import foreground, lifecycle, plan
from .runtime.errors import ContainerError
from .runtime_commands import signal_number

PRIVILEGED = (
    "--privileged is not supported: it gives the whole machine away. Give what is needed: "
    "--cap-add NAME (or ALL), --device DEV, --security-opt seccomp=unconfined, -v SRC:DST"
)


def say(text: str) -> None:
    print(f"minicontainer: {text}", file=sys.stderr)


# --- run ---------------------------------------------------------------------------------------


def run(options: dict, args: list[str]) -> int:
    """`minicontainer run IMAGE`."""
    from .cli import print_plan, print_trace

    if options["dry_run"]:
        print_plan(explained(options, args))
        return 0
    container = _made(options, args)
    if options["detach"]:
        life.detach(container)
        print(container.name)
        return 0

    def on_start(started: life.Kept) -> None:
        if options["trace"]:
            print_trace(started.steps, as_json=options["trace"] == "json")

    return life.run(container, options["interactive"], bool(options["trace"]), on_start)


def start_request(request: dict, stdio: list[int]) -> life.Kept:
    """For the library: a request of `client.run`. Raises ContainerError."""
    from .cli import RUN_OPTIONS

    try:
        options, rest = parse(request["options"], RUN_OPTIONS)
        given = {key: value for key, value in request["values"].items() if value}
        if rest or options["rootfs"] or options["detach"] or options["tty"]:
            raise UsageError(f"options: {request['options']}: not here")
        container = _made({**options, **given, "rm": True}, [request["image"], *request["args"]])
        return life.Kept(container, stdio, request["trace"])
    except UsageError as error:
        raise ContainerError(str(error)) from None


def explained(options: dict, args: list[str]) -> list[dict]:
    """The plan as data; the image is fetched and unpacked for it, and nothing else is left."""
    container = _made(options, args)
    try:
        return plan.describe(life.planned(container)[0])
    finally:
        container.remove(say)


def _made(options: dict, args: list[str]) -> Container:
    if options["privileged"]:
        raise UsageError(PRIVILEGED)
    if options["stop_signal"]:
        signal_number(options["stop_signal"])
    store = Store()
    image = _image(store, args[0], options["pull"])
    # Of a container that nobody could name, nothing is kept
    chosen = {**options, "rm": options["rm"] or not (options["name"] or options["detach"])}
    return life.prepare(store, image, chosen, args[1:])


def _image(store: Store, name: str, pull: str) -> Image:
    if pull not in ("missing", "never", "always"):
        raise UsageError(f"--pull {pull}: missing, never or always")
    if pull != "always":
        try:
            return store.image(name)
        except ImageError:
            if pull == "never" or _is_there(store, name):
                raise
    from . import registry_cli

    registry_cli.fetch(store, name)
    return store.image(name)


def _is_there(store: Store, name: str) -> bool:
    try:
        return bool(store.resolve(name))
    except ImageError:
        return False


# --- containers that are there -----------------------------------------------------------------


def ps(_: Store, options: dict, __: list[str]) -> None:
    """`minicontainer ps`."""
    found = [one for one in containers.all_() if options["all"] or one.status() != "exited"]
    if options["quiet"]:
        print("".join(f"{one.name}\n" for one in found), end="")
        return
    rows: list[tuple[str, ...]] = [("NAME", "IMAGE", "COMMAND", "CREATED", "STATUS")]
    for one in found:
        record = one.record
        words = " ".join(record.get("command") or ())
        plain = "".join(c if c.isprintable() else " " for c in words)
        rows.append((
            one.name, record.get("image", "?"), plain if len(plain) < 31 else f"{plain[:29]}…",
            f"{_since(record.get('created'))} ago", _status(one),
        ))  # fmt: skip
    print_table(rows)


def _status(container: Container) -> str:
    status, record = container.status(), container.record
    if status == "exited":
        return f"exited ({record['exit']}) {_since(record.get('finished'))} ago"
    return f"{status} {_since(record.get('started'))}" if status == "running" else status


def _since(when: int | None) -> str:
    seconds = max(0, int(time.time()) - (when or 0))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def logs_(_: Store, options: dict, words: list[str]) -> None:
    """`minicontainer logs`: what a detached container printed, each stream to ours."""
    container = containers.find(words[0])
    if not container.record.get("detached"):
        raise ContainerError(
            f"{container.name} has no log", hint="only what was started with --detach has one"
        )
    for line in logs.lines(container, options["follow"]):
        _print_logged(line, options["timestamps"])


def _print_logged(line: bytes, timestamps: bool = False) -> None:
    when, stream, kind, text = line.split(b" ", 3)
    to = sys.stdout.buffer if stream == b"stdout" else sys.stderr.buffer
    to.write((when + b" " if timestamps else b"") + text + (b"\n" if kind == b"F" else b""))
    to.flush()


def attach(_: Store, __: dict, words: list[str]) -> int:
    """`minicontainer attach`: its output from now on, and its exit status."""
    container, _state = _running(words[0])
    if not container.record.get("detached"):
        raise ContainerError(f"{container.name} is in the foreground of another terminal")
    for line in logs.lines(container, follow=True, old=False):
        _print_logged(line)
    exit_status = containers.find(container.name).record.get("exit")
    if exit_status is None:
        raise ContainerError(f"how {container.name} ended is not known: who stood by it was killed")
    return exit_status


def exec_(_: Store, options: dict, words: list[str]) -> int:
    """`minicontainer exec`: docker's exit codes."""
    from .engine import bundle
    from .images import users
    from .runtime import execute

    state = _running(words[0])[1]
    uid, gid, groups = users.look_up(f"/proc/{state.pid}/root", options["user"] or "0")
    told = {
        "process": None, "env": [], "tty": options["tty"], "cwd": options["workdir"],
        "no_new_privs": False, "cap": [],
        "user": f"{uid}:{gid}" if options["user"] else None,
        "additional_gids": [str(one) for one in groups if one != gid] if options["user"] else [],
    }  # fmt: skip
    process, profile = execute.process(state, told, words[1:])
    process.update(bundle.console_size())
    process["env"] = bundle.changed(process["env"], bundle.variables(options))
    if options["user"]:
        process["env"] = [one for one in process["env"] if not one.startswith("HOME=")]
    if not options["interactive"]:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)

    def start(console) -> int:
        fd = console() if console and options["tty"] else -1
        return execute.start(state, process, profile, 0, fd, "", say)

    return foreground.execute({"detach": False}, True, start)


def _running(name: str):
    container = containers.find(name)
    state = container.state()
    if state is None or not state.running():
        raise ContainerError(f"container {container.name} is not running")
    return container, state


def kill(_: Store, options: dict, names: list[str]) -> None:
    """`minicontainer kill`."""
    number = signal_number(options["signal"])
    for name in names:
        container, state = _running(name)
        lifecycle.kill(state, number)
        print(container.name)


def stop(_: Store, options: dict, names: list[str]) -> None:
    """`minicontainer stop`: asks, waits, kills."""
    for name in names:
        container = containers.find(name)
        _stop(container, options["time"])
        print(container.name)


def _stop(container: Container, seconds: str) -> None:
    if not seconds.isdecimal():
        raise UsageError(f"--time {seconds}: whole seconds")
    container.stop(signal_number(container.record["stop_signal"]), int(seconds))


def start(_: Store, options: dict, names: list[str]) -> None:
    """`minicontainer start`: detached; what it changed is still there."""
    for name in names:
        container = containers.find(name)
        container.stand_by()
        container.end(say)  # what a killed process left
        life.detach(container)
        print(container.name)


def restart(store: Store, options: dict, names: list[str]) -> None:
    """`minicontainer restart`."""
    for name in names:
        container = containers.find(name)
        _stop(container, options["time"])
        start(store, {}, [container.name])


def rm(_: Store, options: dict, names: list[str]) -> None:
    """`minicontainer rm`."""
    for name in names:
        container = containers.find(name, whole=False)
        container.remove(say, options["force"])
        print(container.name)


def diff(_: Store, __: dict, words: list[str]) -> None:
    """`minicontainer diff`: A added, C changed, D deleted."""
    from .engine import changes

    container = containers.find(words[0])
    for kind, path in rootless.inside(lambda: changes.listed(container)):
        print(kind, path)


def commit(store: Store, options: dict, words: list[str]) -> None:
    """`minicontainer commit`: prints the new image's digest."""
    from .engine import changes

    print(changes.committed(store, containers.find(words[0]), words[1], options["message"] or ""))


def gc(store: Store, options: dict, words: list[str]) -> None:
    """`minicontainer gc`: containers first, since these need images."""
    from .images_cli import gc as collect

    count = containers.sweep(say)
    if count and not options["json"]:
        print(f"removed {count} container{'s'[: count != 1]} that had been killed")
    collect(store, options, words)


_TIME = Option("--time", "-t", metavar="SECONDS", help="to wait before it is killed", default="10")
_ENV_FILE = Option("--env-file", metavar="FILE", help="variables, one a line", default=[])
COMMANDS = {
    "ps": command(
        ps, "", "list containers", "List the containers that run.", "ps\nps -aq",
        Option("--all", "-a", help="those that have ended, too", default=False),
        Option("--quiet", "-q", help="names only", default=False),
    ),
    "exec": command(
        exec_, "CONTAINER COMMAND [ARG...]", "run one more command in a container",
        "Run one more command in a running container, with all that this has.",
        "exec -it web sh\nexec -u nobody -e A=1 web env",
        Option("--interactive", "-i", help="pass stdin on; else it is empty", default=False),
        Option("--tty", "-t", help="with a terminal", default=False),
        Option("--env", "-e", metavar="NAME=VALUE", help="set a variable", default=[]), _ENV_FILE,
        Option("--user", "-u", metavar="USER[:GROUP]", help="run as this user"),
        Option("--workdir", "-w", metavar="DIR", help="working directory"),
    ),
    "logs": command(
        logs_, "CONTAINER", "what a detached container printed",
        "Show what a detached container printed, on stdout and stderr as it did. Of a lot it is\n"
        "what came last: see run --log-opt.", "logs -f web",
        Option("--follow", "-f", help="go on until it ends", default=False),
        Option("--timestamps", "-t", help="with the time of each line", default=False),
    ),
    "stop": command(
        stop, "CONTAINER [CONTAINER...]", "end a container",
        "Send the image's stop signal, SIGTERM by default; kill what has not ended in time.",
        "stop -t 2 web", _TIME,
    ),
    "restart": command(
        restart, "CONTAINER [CONTAINER...]", "end a container and start it again",
        "What `stop` does, then what `start` does.", "restart web", _TIME,
    ),
    "attach": command(
        attach, "CONTAINER", "see what a detached container prints from now on",
        "Show what a detached container prints from now on; the exit status is the container's.\n"
        "Ctrl-C leaves it running. What is typed does not go to it: see exec -it.", "attach web",
    ),
    "kill": command(
        kill, "CONTAINER [CONTAINER...]", "send a signal to a container",
        "Send a signal to a container's first process.", "kill -s HUP web",
        Option("--signal", "-s", metavar="NAME", help="which", default="KILL"),
    ),
    "start": command(
        start, "CONTAINER [CONTAINER...]", "run a container that has ended once more",
        "Run the command of a container that has ended once more, detached.", "start web",
    ),
    "rm": command(
        rm, "CONTAINER [CONTAINER...]", "remove a container",
        "Remove containers, and what they changed.", "rm -f web",
        Option("--force", "-f", help="also a running one", default=False),
    ),
    "diff": command(
        diff, "CONTAINER", "what a container changed",
        "List what a container changed of its image: A added, C changed, D deleted.", "diff web",
    ),
    "commit": command(
        commit, "CONTAINER NAME", "make an image of what a container changed",
        "Make an image: the container's, and one more layer with what it changed.",
        "commit web web:2", Option("--message", "-m", metavar="TEXT", help="for the history"),
    ),
    "gc": command(
        gc, "", "remove what nothing needs",
        "Remove containers that were killed with `run --rm`, and what no image, container or\n"
        "running command needs of the images.", "gc",
        Option("--json", help="as JSON, for machines", default=False),
    ),
}  # fmt: skip


# --- image bootstrap, export -------------------------------------------------------------------

IMAGE_HELP = """\
usage: minicontainer image bootstrap [OPTIONS] busybox|debian [NAME]
       minicontainer image export-initramfs [OPTIONS] IMAGE FILE
       minicontainer image export-disk [OPTIONS] IMAGE FILE

bootstrap makes a base image on this machine, so that none has to be pulled: from the
busybox here (busybox-static), or Debian's packages by mmdebstrap. It gets the name
busybox, or debian, unless NAME is another.

export-… writes an image's root file system, entry by entry, in the form that a virtual
machine boots: an initramfs (cpio, with gzip when FILE ends in .gz) or an ext4 file
system. `vm-images/README.md` shows how to boot them.

{options}

examples:
  minicontainer image bootstrap busybox && minicontainer run -it busybox
  minicontainer image bootstrap debian debian:12
  minicontainer image export-initramfs busybox root.cpio.gz
  minicontainer image export-disk --size 2g debian debian.ext4
"""
IMAGE_OPTIONS = [
    Option("--suite", metavar="NAME", help="of Debian; this host's own, or bookworm"),
    Option("--size", metavar="SIZE", help="of the disk, as in 2g; the content's and some more"),
    HELP,
]


def image(words: list[str]) -> int:
    """`minicontainer image`."""
    options, rest = parse(words[1:] if words else [], IMAGE_OPTIONS)
    word = words[0] if words else ""
    if options["help"] or word in ("--help", "-h"):
        print(IMAGE_HELP.format(options=describe(IMAGE_OPTIONS)), end="")
        return 0
    store = Store()
    if word == "bootstrap" and len(rest) in (1, 2):
        from .images import bootstrap

        print(bootstrap.make(store, rest[0], rest[-1], options["suite"], say))
    elif word in ("export-initramfs", "export-disk") and len(rest) == 2:
        from .engine import bundle
        from .images import machine

        size = bundle.size("--size", options["size"]) if options["size"] else 0
        if word == "export-disk":
            machine.disk(store, rest[0], rest[1], size)
        else:
            machine.initramfs(store, rest[0], rest[1])
    else:
        raise UsageError("image bootstrap, export-initramfs or export-disk, and what they take")
    return 0
