"""The command `minicontainer-runtime`: an OCI runtime, in runc's words.

podman, docker and containerd call these; so do you. Words and log lines are runc's, because its
callers recognise them. What only one command needs is imported when it is called.
"""

from __future__ import annotations

import _signal as signal
import os
import sys

from . import __version__
from .options import HELP, Option, UsageError, describe, parse, table
from .runtime.errors import RUNTIME_FAILED, ContainerError

GLOBAL = [
    Option("--root", metavar="DIR", help="where the state of containers is kept"),
    Option("--log", metavar="FILE", help="write errors and warnings there, beside stderr"),
    Option("--log-format", metavar="text|json", help="of the log", default="text"),
    Option("--debug", help="show a traceback of an internal error", default=False),
    Option("--cgroup-manager", metavar="cgroupfs|disabled", help="make cgroups, or none",
           default="cgroupfs"),
    Option("--systemd-cgroup", help="not supported: use cgroupfs", default=False),
    Option("--rootless", metavar="VALUE", help="accepted; it is found out", default="auto"),
    Option("--version", "-v", help="print the version", default=False),
    HELP,
]  # fmt: skip
BUNDLE = Option("--bundle", "-b", metavar="DIR", help="directory of config.json", default=".")
PID_FILE = Option("--pid-file", metavar="FILE", help="write the pid of the process there")
CONSOLE = Option("--console-socket", metavar="SOCKET", help="send the terminal's master there")
PRESERVE = Option("--preserve-fds", metavar="N", help="pass descriptors 3 to N+2 on", default="0")
DETACH = Option("--detach", "-d", help="do not wait for the end", default=False)
CREATE = [
    BUNDLE, Option("--config", "-f", metavar="FILE", help="instead of BUNDLE/config.json"),
    PID_FILE, CONSOLE, PRESERVE,
    Option("--no-pivot", help="for a root in an initramfs", default=False),
    Option("--no-new-keyring", help="keep the caller's session keyring", default=False),
]  # fmt: skip
RUN = [
    *CREATE,
    DETACH,
    Option("--keep", help="do not delete it at the end", default=False),
    Option("--no-subreaper", help="accepted; nobody is needed for that", default=False),
]


class Log:
    """Where errors and warnings go: the log file in the format asked for, and stderr."""

    def __init__(self) -> None:
        self.path, self.as_json, self.debug = "", False, False

    def __call__(self, text: str, level: str = "warning") -> None:
        if level == "error" or not self.path:
            print(f"minicontainer-runtime: {text}", file=sys.stderr)
        if self.path:
            try:
                self._append(text, level)
            except OSError as error:
                print(f"minicontainer-runtime: --log {self.path}: {error}", file=sys.stderr)

    def _append(self, text: str, level: str) -> None:
        import time

        from .runtime import jsonfile

        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = f'time="{now}" level={level} msg={jsonfile.dumps(text)}'
        if self.as_json:
            line = jsonfile.dumps({"level": level, "msg": text, "time": now})
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with open(fd, "w") as file:
            file.write(line + "\n")


log = Log()


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    words = sys.argv[1:] if argv is None else argv
    try:
        return _dispatch(words)
    except UsageError as error:
        log(f"{error}; help: minicontainer-runtime --help", "error")
        return 1
    except ContainerError as error:
        log(str(error), "error")
        return error.exit_code if error.exit_code != RUNTIME_FAILED else 1
    except BrokenPipeError:  # … | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if log.debug:
            raise
        reason = f"{error.strerror}: {os.strerror(error.errno or 0).lower()}" \
            if isinstance(error, OSError) else repr(error)  # fmt: skip
        log(f"internal error: {reason}; --debug shows more", "error")
        return 1


def _dispatch(words: list[str]) -> int:
    options, rest = parse(words, GLOBAL)
    log.path, log.debug = options["log"] or "", options["debug"]
    log.as_json = options["log_format"] == "json"
    if options["log_format"] not in ("text", "json"):
        raise UsageError(f"--log-format {options['log_format']}: either text or json")
    if options["version"]:
        from .runtime.config import VERSION

        print(f"minicontainer-runtime version {__version__}\nspec: {VERSION}")
        return 0
    if options["help"] or not rest:
        print(_usage())
        return 0 if options["help"] else 1
    if options["systemd_cgroup"]:
        raise UsageError(
            "--systemd-cgroup is not supported: have the caller use cgroupfs "
            "(podman --cgroup-manager=cgroupfs; docker: native.cgroupdriver=cgroupfs)"
        )
    if options["cgroup_manager"] not in ("cgroupfs", "disabled"):
        raise UsageError(f"--cgroup-manager {options['cgroup_manager']}: cgroupfs or disabled")
    if rest[0] not in COMMANDS:
        from .options import _similar

        raise UsageError(f"unknown command {rest[0]!r}{_similar(rest[0], COMMANDS)}")
    function, known, usage, _ = COMMANDS[rest[0]]
    values, args = parse(rest[1:], [*known, HELP])
    if values["help"]:
        text = describe([*known, HELP])
        print(f"usage: minicontainer-runtime {rest[0]} [OPTIONS] {usage}\n\n{text}")
        return 0
    values["root"] = os.path.abspath(options["root"] or _root())
    values["own_cgroup"] = options["cgroup_manager"] == "cgroupfs"
    return function(values, args)


def _root() -> str:
    from . import paths

    return f"{paths.runtime_dir()}/containers"


def _usage() -> str:
    rows = [(f"{name} {usage}".rstrip(), text) for name, (_, _, usage, text) in COMMANDS.items()]
    return (
        "usage: minicontainer-runtime [GLOBAL OPTIONS] COMMAND …\n\n"
        "An OCI container runtime that you can read, in runc's words.\n\n"
        f"{table(rows)}\n\nglobal options, before the command:\n{describe(GLOBAL)}"
    )


def _only_id(args: list[str]) -> str:
    if len(args) != 1:
        raise UsageError(f"exactly one container id is needed, not {len(args)} words")
    return args[0]


def _preserved(text: str) -> int:
    """How many descriptors after stderr go to the container, sd_listen_fds(3); all must be open."""
    if not text.isdecimal():
        raise UsageError(f"--preserve-fds {text}: a number")
    count = int(text) + int(os.environ.get("LISTEN_FDS") or 0)
    for fd in range(3, 3 + count):
        try:
            os.fstat(fd)
        except OSError:
            raise UsageError(f"--preserve-fds: descriptor {fd} is not open") from None
    return count


def create(options: dict, args: list[str]) -> int:
    _create(options, _only_id(args), console_fd=-1)
    return 0


def _create(options: dict, name: str, console_fd: int):
    """Also for `run`, which has a console_fd of its own when it is in the foreground."""
    from .kernel import pty
    from .runtime import bundle, config, lifecycle

    preserved = _preserved(options["preserve_fds"])
    directory = os.path.abspath(options["bundle"])
    loaded, text = config.load(options["config"] or f"{directory}/config.json")
    terminal = loaded["process"].get("terminal")
    if options["console_socket"] and not terminal:
        raise UsageError("--console-socket: process.terminal is not true in the configuration")
    if terminal and options["console_socket"]:
        console_fd = _connect(pty, options["console_socket"])
    elif terminal and console_fd < 0:
        raise UsageError("process.terminal is true: --console-socket says where it goes")
    chosen = bundle.Options(pivot=not options["no_pivot"], keyring=not options["no_new_keyring"],
                            preserve_fds=preserved)  # fmt: skip
    return lifecycle.create(
        options["root"], name, loaded, text, directory, chosen, log, console_fd,
        options["own_cgroup"], options["pid_file"] or "",
    )  # fmt: skip


def _connect(pty, path: str) -> int:
    try:
        return pty.connect_console(path)
    except OSError as error:
        raise ContainerError(f"--console-socket {path}: {error.strerror}") from None


def run(options: dict, args: list[str]) -> int:
    from .runtime import foreground

    name = _only_id(args)
    return foreground.run(options, lambda console_fd: _create(options, name, console_fd), log)


def start(options: dict, args: list[str]) -> int:
    from .runtime import lifecycle, state

    lifecycle.start(state.load(options["root"], _only_id(args)), log)
    return 0


def state(options: dict, args: list[str]) -> int:
    from .runtime import jsonfile, state

    print(jsonfile.dumps(state.load(options["root"], _only_id(args)).public()))
    return 0


def kill(options: dict, args: list[str]) -> int:
    from .runtime import lifecycle, state

    if len(args) not in (1, 2):
        raise UsageError("kill ID [SIGNAL]")
    number = _signal_number(args[1] if len(args) == 2 else "SIGTERM")
    lifecycle.kill(state.load(options["root"], args[0]), number, options["all"])
    return 0


def _signal_number(word: str) -> int:
    name = "SIG" + word.upper().removeprefix("SIG")
    number = int(word) if word.isdecimal() else getattr(signal, name, 0)
    if not name[3:].isalnum() or not 0 < int(number) < 65:
        raise UsageError(f"unknown signal {word!r}: like KILL, SIGTERM or 9; kill -l lists them")
    return int(number)


def delete(options: dict, args: list[str]) -> int:
    from .runtime import lifecycle, state

    name = _only_id(args)
    try:
        found = state.load(options["root"], name)
    except ContainerError as error:
        if options["force"] and "does not exist" in error.message:
            return 0
        raise
    lifecycle.delete(found, log, options["force"])
    return 0


def list_(options: dict, args: list[str]) -> int:
    from .runtime import jsonfile, state

    found = []
    for name in state.names(options["root"]):
        try:
            found.append(state.load(options["root"], name).public())
        except ContainerError:
            continue  # deleted meanwhile
    if options["quiet"]:
        print("".join(f"{one['id']}\n" for one in found), end="")
    elif options["format"] == "json":
        print(jsonfile.dumps(found))
    else:
        rows: list[tuple[str, ...]] = [("ID", "PID", "STATUS", "BUNDLE", "CREATED")]
        rows += [tuple(str(one[key.lower()]) for key in rows[0]) for one in found]
        widths = [max(len(row[n]) for row in rows) for n in range(5)]
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    return 0


def _group(options: dict, args: list[str]):
    from .runtime import state

    found = state.load(options["root"], _only_id(args))
    group = found.group()
    if found.status() not in ("created", "running", "paused") or not group:
        raise ContainerError("container not running" if group else "the container has no cgroup")
    return group


def ps(options: dict, args: list[str]) -> int:
    from .runtime import jsonfile

    group = _group(options, args[:1])
    pids = group.processes()
    if options["format"] == "json":
        print(jsonfile.dumps(pids))
        return 0
    # ps(1) knows best how to show them; the words after the id are its options
    words = args[1:] or ["-ef"]
    read_fd, write_fd = os.pipe()
    spawn = [(os.POSIX_SPAWN_DUP2, write_fd, 1)]
    try:
        pid = os.posix_spawnp("ps", ["ps", *words], os.environ, file_actions=spawn)
    except FileNotFoundError:
        raise ContainerError("ps(1) is not installed", hint="ps --format json needs none") from None
    os.close(write_fd)
    with open(read_fd) as output:
        lines = output.read().splitlines()
    os.waitpid(pid, 0)
    column = lines[0].split().index("PID") if lines and "PID" in lines[0].split() else 1
    for n, line in enumerate(lines):
        if n == 0 or line.split()[column] in map(str, pids):
            print(line)
    return 0


def pause(options: dict, args: list[str]) -> int:
    _freeze(options, args, "freeze")
    return 0


def resume(options: dict, args: list[str]) -> int:
    _freeze(options, args, "thaw")
    return 0


def _freeze(options: dict, args: list[str], verb: str) -> None:
    from .runtime.errors import kernel_words

    group = _group(options, args)
    try:
        getattr(group, verb)()
    except OSError as error:
        raise ContainerError(
            f"{error.strerror}: {kernel_words(error.errno or 0)}", hint=getattr(error, "hint", "")
        ) from None


def features(options: dict, args: list[str]) -> int:
    import json

    from .runtime import features as told

    print(json.dumps(told.features(__version__), indent=4))
    return 0


def spec(options: dict, args: list[str]) -> int:
    import json

    from .runtime import features as told

    path = f"{options['bundle']}/config.json"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except OSError as error:
        raise ContainerError(f"{path}: {os.strerror(error.errno or 0).lower()}") from None
    with open(fd, "w") as file:
        json.dump(told.template(options["rootless"]), file, indent="\t")
    return 0


FORMAT = Option("--format", "-f", metavar="table|json", help="of the output", default="table")
COMMANDS = {
    "create": (create, CREATE, "ID", "make a container; nothing of it runs yet"),
    "start": (start, [], "ID", "run a created container's command"),
    "run": (run, RUN, "ID", "create, start, wait, delete"),
    "state": (state, [], "ID", "the container's state, as JSON"),
    "kill": (kill, [Option("--all", "-a", help="all its processes", default=False)],
             "ID [SIGNAL]", "send a signal, SIGTERM unless named"),
    "delete": (delete, [Option("--force", "-f", help="also a running one", default=False)],
               "ID", "undo create"),
    "list": (list_, [FORMAT, Option("--quiet", "-q", help="ids only", default=False)], "",
             "the containers of this root directory"),
    "ps": (ps, [FORMAT], "ID [OPTIONS OF ps(1)]", "the container's processes"),
    "pause": (pause, [], "ID", "freeze all processes"),
    "resume": (resume, [], "ID", "let them go on"),
    "features": (features, [], "", "what this runtime can do, as JSON"),
    "spec": (spec, [BUNDLE, Option("--rootless", help="for no root", default=False)], "",
             "write a config.json to start from"),
}  # fmt: skip
