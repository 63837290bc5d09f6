"""The command `minicontainer-runtime`: an OCI runtime, in runc's words.

podman, docker and containerd call these; so do you. Words and log lines are runc's, because its
callers recognise them. What only one command needs is imported when it is called.
"""

from __future__ import annotations

import os
import sys

from . import __version__
from .options import HELP, Option, UsageError, describe, parse, table
from .runtime.errors import RUNTIME_FAILED, ContainerError
from .runtime_commands import COMMANDS, MIXED, TRACE

GLOBAL = [
    Option("--root", metavar="DIR", help="where the state of containers is kept"),
    Option("--log", metavar="FILE", help="write errors and warnings there, beside stderr"),
    Option("--log-format", metavar="text|json", help="of the log", default="text"),
    Option("--debug", help="show a traceback of an internal error", default=False),
    Option("--cgroup-manager", metavar="cgroupfs|disabled", help="make cgroups, or none",
           default="cgroupfs"),
    Option("--systemd-cgroup", help="not supported: use cgroupfs", default=False),
    Option("--rootless", metavar="VALUE", help="accepted; it is found out", default="auto"),
    *TRACE,
    Option("--version", "-v", help="print the version", default=False),
    HELP,
]  # fmt: skip


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
        return _dispatch(words, own_process=argv is None)
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


def _dispatch(words: list[str], own_process: bool) -> int:
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
    function, known, usage, does, example = COMMANDS[rest[0]]
    values, args = parse(rest[1:], [*known, HELP], mixed=rest[0] in MIXED)
    if values["help"]:
        text = describe([*known, HELP])
        print(f"usage: minicontainer-runtime {rest[0]} [OPTIONS] {usage}".rstrip())
        print(f"\n{does}\n\n{text}\n\nexample:\n  minicontainer-runtime {example}")
        return 0
    if own_process and rest[0] in ("create", "run", "exec"):
        from . import sealed

        directory = os.path.dirname(os.path.realpath(__file__))
        sealed.ensure("-I", "-S", f"{directory}/runtime_main.py", *words)
    values["root"] = os.path.abspath(options["root"] or _root())
    values["own_cgroup"] = options["cgroup_manager"] == "cgroupfs"
    if "trace" in values:  # of a command that starts something
        for key in ("trace", "trace_file"):
            values[key] = values[key] or options[key]
        if values["trace"]:
            from . import runtime_trace

            return runtime_trace.run(rest[0], function, values, args, log)
    return function(values, args, log)


def _root() -> str:
    from . import paths

    return f"{paths.runtime_dir()}/containers"


def _usage() -> str:
    rows = [(f"{name} {usage}".rstrip(), text) for name, (_, _, usage, text, _) in COMMANDS.items()]
    return (
        "usage: minicontainer-runtime [GLOBAL OPTIONS] COMMAND …\n\n"
        "An OCI container runtime that you can read, in runc's words.\n\n"
        f"{table(rows)}\n\nglobal options, before the command:\n{describe(GLOBAL)}"
    )
