"""The command `minicontainer`, in docker's words.

Only `run` is built to start fast: what other commands need is imported when they are called.
"""

from __future__ import annotations

import os
import sys

from . import __version__
from .options import HELP, Option, UsageError, describe, parse, table
from .runtime import foreground, plan, spec
from .runtime.errors import RUNTIME_FAILED, ContainerError

RUN_OPTIONS = [
    Option("--rootfs", metavar="DIR", help="directory that becomes the root file system"),
    Option("--hostname", metavar="NAME", help="host name inside", default="minicontainer"),
    Option("--env", "-e", metavar="NAME=VALUE", help="set a variable (again for more)", default=[]),
    Option("--workdir", "-w", metavar="DIR", help="working directory inside", default="/"),
    Option("--user", "-u", metavar="UID[:GID]", help="run as this user; numbers"),
    Option("--read-only", help="make the root file system read-only", default=False),
    Option("--network", metavar="none|host", help="own loopback only, or the host's network",
           default="none"),
    Option("--trace", metavar="[=text|json]", help="show each step with its time, on stderr"),
    Option("--dry-run", help="show the plan instead of running it", default=False),
    HELP,
]  # fmt: skip

RUN_HELP = """\
usage: minicontainer run [OPTIONS] --rootfs DIR COMMAND [ARG...]

Run a command in a new container: eight namespaces (the user namespace when you
are not root), a root file system of its own, and few privileges.

{options}

The exit status is the command's; 125 when the container could not be built,
126 when the command is not executable, 127 when it is not found, 128+n when
signal n ended it.

examples:
  minicontainer run --rootfs ./busybox sh -c 'ps; hostname; id'
  minicontainer run --rootfs ./busybox --trace true
  minicontainer run --rootfs ./debian --read-only -u 1000:1000 -w /tmp id
  minicontainer run --rootfs ./debian --dry-run bash
"""

EXPLAIN_HELP = """\
usage: minicontainer explain [--json] [OPTIONS of run] --rootfs DIR COMMAND [ARG...]

Show, without doing it, each step of a container start: the system call, why it
is made, the clause that asks for it, and the lesson that teaches it.

{options}

examples:
  minicontainer explain --rootfs ./busybox sh
  minicontainer explain --json --rootfs ./busybox sh | jq '.[].calls'
"""

DOCTOR_HELP = """\
usage: minicontainer doctor [--json]

Try each thing that a container needs, in a throwaway child process, and say what
works on this host; for what does not: why, and what to do.

The exit status is 0 when containers can be run here, else 1.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    words = sys.argv[1:] if argv is None else argv
    try:
        return _dispatch(words)
    except UsageError as error:
        command = words[0] if words and words[0] in _commands(words) else ""
        help = " ".join(filter(None, ("minicontainer", command, "--help")))
        return _complain(f"{error}\n  help: {help}", RUNTIME_FAILED)
    except ContainerError as error:
        return _complain(str(error), error.exit_code)
    except BrokenPipeError:  # … | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except KeyboardInterrupt:
        return 130


def _complain(message: str, exit_code: int) -> int:
    print(f"minicontainer: {message}", file=sys.stderr)
    return exit_code


def _dispatch(words: list[str]) -> int:
    commands = _commands(words)
    if not words or words[0] in ("-h", "--help", "help"):
        if len(words) > 1 and words[1] in commands:
            return commands[words[1]][0](["--help"])
        print(_usage(commands))
        return 0 if words else RUNTIME_FAILED
    if words[0] in ("-V", "--version", "version"):
        print(f"minicontainer {__version__}")
        return 0
    if words[0] not in commands:
        from .options import _similar

        raise UsageError(f"unknown command {words[0]!r}{_similar(words[0], commands)}")
    return commands[words[0]][0](words[1:])


def run(words: list[str]) -> int:
    """`minicontainer run`: this very process becomes the container's parent."""
    options, args = parse(words, RUN_OPTIONS)
    if options["help"]:
        print(RUN_HELP.format(options=describe(RUN_OPTIONS)), end="")
        return 0
    trace = options["trace"]
    if trace not in (None, True, "text", "json"):
        raise UsageError(f"--trace={trace}: either text or json")
    steps = plan.build(_spec(options, args, "run"))
    if options["dry_run"]:
        _print_plan(plan.describe(steps))
        return 0
    started = foreground.attend(steps, trace=bool(trace))
    if trace:
        _print_trace(started.steps, as_json=trace == "json")
    return started.wait()


def explain(words: list[str]) -> int:
    """`minicontainer explain`: the plan, in words or as JSON."""
    table = [Option("--json", help="as JSON, for machines", default=False), *RUN_OPTIONS]
    options, args = parse(words, table)
    if options["help"]:
        print(EXPLAIN_HELP.format(options=describe(table)), end="")
        return 0
    described = plan.describe(plan.build(_spec(options, args, "explain")))
    if options["json"]:
        import json

        print(json.dumps(described, indent=1))
    else:
        _print_plan(described)
    return 0


def doctor(words: list[str]) -> int:
    """`minicontainer doctor`: what this host can do, found by doing it."""
    table = [Option("--json", help="as JSON, for machines", default=False), HELP]
    options, rest = parse(words, table)
    if rest:
        raise UsageError(f"doctor takes no arguments, not {rest[0]!r}")
    if options["help"]:
        print(DOCTOR_HELP, end="")
        return 0
    from . import doctor as probes

    return probes.report(as_json=options["json"])


COMMANDS = {
    "run": (run, "run a command in a new container"),
    "explain": (explain, "show the steps of a container start, without doing them"),
    "doctor": (doctor, "what this host can do, and how to mend what it cannot"),
}


def _commands(words: list[str]) -> dict:
    """COMMANDS; and, unless the word is one of them, those of modules that `run` goes without."""
    if words and words[0] in COMMANDS:
        return COMMANDS
    from . import images_cli, registry_cli

    return {**COMMANDS, **images_cli.COMMANDS, **registry_cli.COMMANDS}


def _usage(commands: dict) -> str:
    rows = [(name, summary) for name, (_, summary) in commands.items()]
    return (
        "usage: minicontainer COMMAND [OPTIONS] …\n\nA container you can read.\n\n"
        f"{table(rows)}\n\n"
        "`minicontainer COMMAND --help` explains a command, with examples;\n"
        "`minicontainer --version` prints the version."
    )


def _spec(options: dict, args: list[str], command: str) -> dict:
    if options["rootfs"] is None:
        raise UsageError(f"which root file system? minicontainer {command} --rootfs DIR COMMAND")
    if not args:
        raise UsageError(f"which command? minicontainer {command} --rootfs DIR COMMAND [ARG...]")
    if options["network"] not in ("none", "host"):
        raise UsageError(f"--network {options['network']}: either none or host")
    return spec.default(
        options["rootfs"],
        args,
        hostname=options["hostname"],
        env=_environment(options["env"]),
        cwd=options["workdir"],
        user=_user(options["user"]),
        read_only=options["read_only"],
        network=options["network"],
    )


def _environment(entries: list[str]) -> dict[str, str]:
    """docker's rule: NAME=VALUE sets, NAME alone takes the caller's value when there is one."""
    env = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if equals:
            env[name] = value
        elif name in os.environ:
            env[name] = os.environ[name]
    return env


def _user(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    uid, colon, gid = text.partition(":")
    limit = 2**32 - 1  # (uid_t) -1 means "leave as it is" to setresuid(2)
    if not (uid.isdecimal() and (gid.isdecimal() if colon else True)):
        raise UsageError(f"--user {text}: numbers only, as in 1000 or 1000:1000")
    if int(uid) >= limit or int(gid or 0) >= limit:
        raise UsageError(f"--user {text}: ids are below {limit}")
    return int(uid), int(gid or 0)


def _print_plan(described: list[dict]) -> None:
    for step in described:
        print(f"{step['n']:3}  {step['name']}   [{step['where']}]")
        calls = step["calls"]
        for call in calls[:4]:
            print(f"       {call}")
        if len(calls) > 4:
            print(f"       … {len(calls) - 4} more like these")
        print(f"       # {step['why']}  ({step['clause']}; lesson {step['lesson']})")


def _print_trace(steps: list[dict], as_json: bool) -> None:
    if as_json:
        import json

        for step in steps:
            print(json.dumps(step), file=sys.stderr)
        return
    for step in steps:
        call = step["call"] if len(step["call"]) <= 76 else step["call"][:75] + "…"
        took = (step["end_ns"] - step["start_ns"]) / 1000
        print(f"{step['n']:3} {step['name']:<44.44} {took:8.0f} µs  {call}", file=sys.stderr)
    total = (steps[-1]["end_ns"] - steps[0]["start_ns"]) / 1000
    print(f"    {'first step to exec':<44} {total:8.0f} µs", file=sys.stderr)
