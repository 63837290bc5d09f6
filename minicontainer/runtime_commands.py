"""The commands of `minicontainer-runtime`: their options, and what they call.

Each is a function of (option values, other words, log) that returns the exit status. What only one
of them needs is imported when it is called: callers wait for `create`, `start` and `delete`.
"""

from __future__ import annotations

import _signal as signal
import os

from . import __version__
from .options import Option, UsageError
from .runtime.errors import ContainerError, NoSuchContainer, kernel_words

BUNDLE = Option("--bundle", "-b", metavar="DIR", help="directory of config.json", default=".")
PID_FILE = Option("--pid-file", metavar="FILE", help="write the pid of the process there")
CONSOLE = Option("--console-socket", metavar="SOCKET", help="send the terminal's master there")
PRESERVE = Option("--preserve-fds", metavar="N", help="pass descriptors 3 to N+2 on", default="0")
DETACH = Option("--detach", "-d", help="do not wait for the end", default=False)
TRACE = [
    Option("--trace", metavar="text|json", help="show each step of the start with its times"),
    Option("--trace-file", metavar="FILE", help="show them there, not on stderr"),
]
CREATE = [
    BUNDLE, Option("--config", "-f", metavar="FILE", help="instead of BUNDLE/config.json"),
    PID_FILE, CONSOLE, PRESERVE,
    Option("--no-pivot", help="for a root in an initramfs", default=False),
    Option("--no-new-keyring", help="keep the caller's session keyring", default=False), *TRACE,
]  # fmt: skip
RUN = [
    *CREATE,
    DETACH,
    Option("--keep", help="do not delete it at the end", default=False),
    Option("--no-subreaper", help="accepted; nobody is needed for that", default=False),
]
EXEC = [
    Option("--process", "-p", metavar="FILE", help="the whole process object, as JSON"),
    CONSOLE, PID_FILE, DETACH, PRESERVE,
    Option("--tty", "-t", help="with a terminal", default=False),
    Option("--cwd", metavar="DIR", help="working directory"),
    Option("--env", "-e", metavar="NAME=VALUE", help="set a variable (again for more)", default=[]),
    Option("--user", "-u", metavar="UID[:GID]", help="numbers"),
    Option("--additional-gids", "-g", metavar="GID", help="again for more", default=[]),
    Option("--cap", "-c", metavar="CAP_NAME", help="a capability more", default=[]),
    Option("--no-new-privs", help="setuid programs give nothing", default=False),
    Option("--cgroup", metavar="PATH", help="of a group below the container's; NAMES:PATH for some",
           default=""),
    Option("--ignore-paused", help="also in a paused container; waits for resume", default=False),
    *TRACE,
]  # fmt: skip
UPDATE = [
    Option("--resources", "-r", metavar="FILE", help="linux.resources as JSON; - is stdin"),
    *(Option("--" + name, metavar="VALUE", help="a limit") for name in (
        "memory", "memory-reservation", "memory-swap", "cpu-quota", "cpu-period", "cpu-share",
        "cpuset-cpus", "cpuset-mems", "pids-limit", "blkio-weight")),
]  # fmt: skip


def _only_id(args: list[str]) -> str:
    if len(args) != 1:
        raise UsageError(f"exactly one container id is needed, not {len(args)} words")
    return args[0]


def _no_words(verb: str, args: list[str]) -> None:
    if args:
        raise UsageError(f"{verb} takes no other words, not {args[0]!r}")


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


def create(options: dict, args: list[str], log) -> int:
    _create(options, _only_id(args), None, log)
    return 0


def _create(options: dict, name: str, own_console, log):
    """Also for `run`, which in the foreground has a place for the terminal: `own_console()`."""
    from .runtime import config, plan
    from .runtime import create as making

    preserved = _preserved(options["preserve_fds"])
    directory = os.path.abspath(options["bundle"])
    loaded, text = config.load(options["config"] or f"{directory}/config.json")
    terminal, console_fd = loaded["process"].get("terminal"), -1
    if options["console_socket"] and not terminal:
        raise UsageError("--console-socket: process.terminal is not true in the configuration")
    if terminal and options["console_socket"]:
        console_fd = _connect(options["console_socket"])
    elif terminal and own_console:
        console_fd = own_console()
    elif terminal:
        raise UsageError("process.terminal is true: --console-socket says where it goes")
    chosen = plan.Options(pivot=not options["no_pivot"], keyring=not options["no_new_keyring"],
                            preserve_fds=preserved)  # fmt: skip
    return making.create(
        options["root"], name, loaded, text, directory, chosen, log, console_fd,
        options["own_cgroup"], options["pid_file"] or "",
    )  # fmt: skip


def _connect(path: str) -> int:
    from .kernel import pty

    try:
        return pty.connect_console(path)
    except OSError as error:
        raise ContainerError(f"--console-socket {path}: {error.strerror}") from None


def run(options: dict, args: list[str], log) -> int:
    from .runtime import foreground

    name = _only_id(args)
    return foreground.run(options, lambda console: _create(options, name, console, log), log)


def start(options: dict, args: list[str], log) -> int:
    from .runtime import lifecycle, state

    lifecycle.start(state.load(options["root"], _only_id(args)), log)
    return 0


def state(options: dict, args: list[str], log) -> int:
    from .runtime import jsonfile, state

    print(jsonfile.dumps(state.load(options["root"], _only_id(args)).public()))
    return 0


def kill(options: dict, args: list[str], log) -> int:
    from .runtime import lifecycle, state

    if len(args) not in (1, 2):
        raise UsageError("kill ID [SIGNAL]")
    number = signal_number(args[1] if len(args) == 2 else "SIGTERM")
    lifecycle.kill(state.load(options["root"], args[0]), number, options["all"])
    return 0


def signal_number(word: str) -> int:
    name, sign, rest = word.upper().removeprefix("SIG").partition("-" if "-" in word else "+")
    number = getattr(signal, f"SIG{name}", 0) if name.isalnum() else 0
    if word.isdecimal():
        number = int(word)
    elif sign:  # RTMIN+3 ends systemd as a container's init, systemd(1)
        known = name in ("RTMIN", "RTMAX") and rest.isdecimal()
        number = number + int(sign + rest) if known else 0
        number = number if signal.SIGRTMIN <= number <= signal.SIGRTMAX else 0
    if not 0 < number < 65:
        raise UsageError(f"unknown signal {word!r}: like KILL, SIGTERM or 9; kill -l lists them")
    return number


def delete(options: dict, args: list[str], log) -> int:
    from .runtime import lifecycle, state

    name = _only_id(args)
    try:
        found = state.load(options["root"], name, options["force"])
    except NoSuchContainer:
        if options["force"]:
            return 0
        raise
    lifecycle.delete(found, log, options["force"])
    return 0


def _as_json(options: dict) -> bool:
    if options["format"] not in ("table", "json"):
        raise UsageError(f"--format {options['format']}: either table or json")
    return options["format"] == "json"


def list_(options: dict, args: list[str], log) -> int:
    from .runtime import jsonfile, state

    _no_words("list", args)
    as_json, found = _as_json(options), []
    for name in state.names(options["root"]):
        try:
            found.append(state.load(options["root"], name).public())
        except NoSuchContainer:
            pass  # deleted meanwhile
        except ContainerError as error:
            log(str(error))
    if options["quiet"]:
        print("".join(f"{one['id']}\n" for one in found), end="")
    elif as_json:
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


def ps(options: dict, args: list[str], log) -> int:
    from .runtime import jsonfile

    as_json = _as_json(options)
    group = _group(options, args[:1])
    pids = group.processes()
    if as_json:
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


def pause(options: dict, args: list[str], log) -> int:
    _freeze(options, args, "freeze")
    return 0


def resume(options: dict, args: list[str], log) -> int:
    _freeze(options, args, "thaw")
    return 0


def _freeze(options: dict, args: list[str], verb: str) -> None:
    group = _group(options, args)
    try:
        getattr(group, verb)()
    except OSError as error:
        raise ContainerError(
            f"{error.strerror}: {kernel_words(error.errno or 0)}", hint=getattr(error, "hint", "")
        ) from None


def exec_(options: dict, args: list[str], log) -> int:
    from .runtime import execute, foreground, state

    if not args:
        raise UsageError("exec ID COMMAND [ARG...]")
    found = state.load(options["root"], args[0])
    process, profile = execute.process(found, options, args[1:])
    preserved = _preserved(options["preserve_fds"])
    console_fd = -1
    if process.get("terminal") and options["console_socket"]:
        console_fd = _connect(options["console_socket"])
    elif process.get("terminal") and options["detach"]:
        raise UsageError("a terminal and --detach: --console-socket says where it goes")

    def start(console) -> int:
        fd = console() if console and process.get("terminal") else console_fd
        pid_file = options["pid_file"] or ""
        pid = execute.start(
            found, process, profile, preserved, fd, pid_file, log, options["cgroup"],
            options["ignore_paused"],
        )  # fmt: skip
        if "started" in options:  # see --trace
            options["started"]()
        return pid

    found.stand_by()
    return foreground.execute(options, console_fd < 0, start)


def update(options: dict, args: list[str], log) -> int:
    from .runtime import jsonfile, report

    source = options["resources"]
    try:
        if source:
            text = report.read_all(0).decode() if source == "-" else jsonfile.read_file(source)
            limits = jsonfile.loads(text)
        else:
            limits = _limits(options)
        group = _group(options, args)
        for warning in group.set(limits):
            log(warning)
    except ValueError as error:
        raise ContainerError(str(error)) from None
    except OSError as error:
        raise ContainerError(
            f"{error.strerror}: {kernel_words(error.errno or 0)}", hint=getattr(error, "hint", "")
        ) from None
    return 0


# Option of `update` -> where its value goes in `linux.resources`.
_UPDATES = {
    "memory": ("memory", "limit"), "memory_reservation": ("memory", "reservation"),
    "memory_swap": ("memory", "swap"), "cpu_quota": ("cpu", "quota"),
    "cpu_period": ("cpu", "period"), "cpu_share": ("cpu", "shares"),
    "cpuset_cpus": ("cpu", "cpus"), "cpuset_mems": ("cpu", "mems"),
    "pids_limit": ("pids", "limit"), "blkio_weight": ("blockIO", "weight"),
}  # fmt: skip


def _limits(options: dict) -> dict:
    limits: dict = {}
    for key, (section, field) in _UPDATES.items():
        value = options[key]
        if value is None:
            continue
        if not key.startswith("cpuset"):
            if not value.removeprefix("-").isdecimal():
                raise UsageError(f"--{key.replace('_', '-')} {value}: a whole number is needed")
            value = int(value)
        limits.setdefault(section, {})[field] = value
    if not limits:
        raise UsageError("update what? --resources FILE, or an option for each limit")
    return limits


def features(options: dict, args: list[str], log) -> int:
    import json

    from .runtime import features as told

    _no_words("features", args)
    print(json.dumps(told.features(__version__), indent=4))
    return 0


def spec(options: dict, args: list[str], log) -> int:
    import json

    from .runtime import features as told

    _no_words("spec", args)
    path = f"{options['bundle']}/config.json"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except OSError as error:
        raise ContainerError(f"{path}: {kernel_words(error.errno or 0)}") from None
    with open(fd, "w") as file:
        json.dump(told.template(options["rootless"]), file, indent="\t")
    return 0


def explain(options: dict, args: list[str], log) -> int:
    from . import runtime_explain

    if len(args) > 1:
        raise UsageError(f"explain one CONFIG.json, not {len(args)} words")
    path, directory = runtime_explain.config_of(args, options["bundle"])
    runtime_explain.report(path, directory, options["own_cgroup"], options["json"])
    return 0


def diff(options: dict, args: list[str], log) -> int:
    from . import runtime_diff

    if len(args) != 2:
        raise UsageError(f"diff needs two: ids, host, or pid:NUMBER, not {len(args)} words")
    runtime_diff.report(options["root"], args[0], args[1], options["json"])
    return 0


def gc(options: dict, args: list[str], log) -> int:
    from . import runtime_gc

    _no_words("gc", args)
    if not options["grace"].isdecimal():
        raise UsageError(f"--grace {options['grace']}: a number of seconds")
    collector = runtime_gc.Collector(
        options["root"], options["stopped"], int(options["grace"]), options["dry_run"], log
    )
    return runtime_gc.report(collector, options["json"])


FORMAT = Option("--format", "-f", metavar="table|json", help="of the output", default="table")
JSON = Option("--json", help="for machines", default=False)
GC = [
    JSON, Option("--dry-run", "-n", help="say it, do not do it", default=False),
    Option("--stopped", help="stopped containers, too", default=False),
    Option("--grace", metavar="SECONDS", default="60",
           help="leave groups alone that are younger: another root's `create` may be at it"),
]  # fmt: skip
# Name -> (function, options, the other words, what it does, an example)
COMMANDS = {
    "create": (create, CREATE, "ID", "make a container; nothing of it runs yet",
               "create --bundle ./web --pid-file web.pid web"),
    "start": (start, TRACE, "ID", "run a created container's command", "start web"),
    "run": (run, RUN, "ID", "create, start, wait, delete", "run --bundle ./web web"),
    "state": (state, [], "ID", "the container's state, as JSON", "state web"),
    "kill": (kill, [Option("--all", "-a", help="all its processes", default=False)],
             "ID [SIGNAL]", "send a signal, SIGTERM unless named", "kill web SIGKILL"),
    "delete": (delete, [Option("--force", "-f", help="also a running one", default=False)],
               "ID", "undo create", "delete --force web"),
    "list": (list_, [FORMAT, Option("--quiet", "-q", help="ids only", default=False)], "",
             "the containers of this root directory", "list --format json"),
    "ps": (ps, [FORMAT], "ID [OPTIONS OF ps(1)]", "the container's processes",
           "ps web -o pid,args"),
    "pause": (pause, [], "ID", "freeze all processes", "pause web"),
    "resume": (resume, [], "ID", "let them go on", "resume web"),
    "exec": (exec_, EXEC, "ID COMMAND [ARG...]", "run one more process in a container",
             "exec --user 1000:1000 --env TERM=xterm web sh -c id"),
    "update": (update, UPDATE, "ID", "change limits while it runs",
               "update --memory 67108864 --pids-limit 100 web"),
    "explain": (explain, [JSON, Option("--bundle", "-b", metavar="DIR", help="its config.json")],
                "[CONFIG.json]", "what becomes of each field of a configuration, without doing it",
                "explain --bundle ./web"),
    "diff": (diff, [JSON], "A B",
             "what is different for two containers; also host, and pid:NUMBER", "diff web host"),
    "gc": (gc, GC, "", "remove what killed runtimes left; no container that is whole",
           "gc --dry-run"),
    "features": (features, [], "", "what this runtime can do, as JSON", "features"),
    "spec": (spec, [BUNDLE, Option("--rootless", help="for no root", default=False)], "",
             "write a config.json to start from", "spec --bundle ./web"),
}  # fmt: skip
# Of these, options may also follow the other words
MIXED = ("explain", "diff", "gc")
