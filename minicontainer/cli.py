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

# Of `run`, for a root file system from an image or from a directory.
_COMMON = [
    Option("--hostname", metavar="NAME", help="host name inside"),
    Option("--env", "-e", metavar="NAME=VALUE", help="set a variable (again for more)", default=[]),
    Option("--workdir", "-w", metavar="DIR", help="working directory inside"),
    Option("--user", "-u", metavar="UID[:GID]", help="run as this user; an image has names, too"),
    Option("--read-only", help="make the root file system read-only", default=False),
    Option("--network", metavar="none|host", help="own loopback only, or the host's network",
           default="none"),
    Option("--trace", metavar="[=text|json]", help="show each step with its time, on stderr"),
    Option("--dry-run", help="show the plan instead of running it", default=False),
]  # fmt: skip
# Of `run IMAGE`, as docker has them.
IMAGE_OPTIONS = [
    Option("--name", metavar="NAME", help="its name; without one, and -d, nothing is kept of it"),
    Option("--detach", "-d", help="do not wait for the end; print the name", default=False),
    Option("--rm", help="remove it at the end", default=False),
    Option("--interactive", "-i", help="pass stdin on; else it is empty", default=False),
    Option("--tty", "-t", help="with a terminal", default=False),
    Option("--entrypoint", metavar="PROGRAM", help="instead of the image's; and without its Cmd"),
    Option("--env-file", metavar="FILE", help="variables, one a line", default=[]),
    Option("--volume", "-v", metavar="SRC:DST[:ro]", help="show the host's SRC at DST", default=[]),
    Option("--tmpfs", metavar="DST[:OPTIONS]", help="an empty one in memory at DST", default=[]),
    Option("--memory", "-m", metavar="SIZE", help="limit, as in 64m"),
    Option("--cpus", metavar="NUMBER", help="limit, as in 1.5"),
    Option("--cpuset-cpus", metavar="LIST", help="these alone, as in 0-2,5"),
    Option("--pids-limit", metavar="N", help="at most so many processes"),
    Option("--ulimit", metavar="NAME=SOFT[:HARD]", help="limit of each process", default=[]),
    Option("--device", metavar="DEV[:DST[:rwm]]", help="a device of the host's", default=[]),
    Option("--cap-add", metavar="NAME", help="beside docker's 14; ALL", default=[]),
    Option("--cap-drop", metavar="NAME", help="of those; ALL", default=[]),
    Option("--security-opt", metavar="WORD", help="seccomp=unconfined|FILE, no-new-privileges",
           default=[]),
    Option("--privileged", help="refused, with what to take instead", default=False),
    Option("--stop-signal", metavar="NAME", help="what `stop` sends"),
    Option("--log-opt", metavar="max-size=SIZE", help="of the log of --detach; 64m", default=[]),
    Option("--label", "-l", metavar="NAME=VALUE", help="a note on it", default=[]),
    Option("--pull", metavar="missing|never|always", help="whether to fetch the image",
           default="missing"),
]  # fmt: skip
RUN_OPTIONS = [
    Option("--rootfs", metavar="DIR", help="a directory as the root file system, no image"),
    *_COMMON,
    *IMAGE_OPTIONS,
    HELP,
]

RUN_HELP = """\
usage: minicontainer run [OPTIONS] IMAGE [COMMAND [ARG...]]
       minicontainer run [OPTIONS] --rootfs DIR COMMAND [ARG...]

Run a command in a new container: eight namespaces (the user namespace when you
are not root), a root file system of its own, and few privileges. An image says
what to run, as whom and where, unless the command line does.

{options}

The exit status is the command's; 125 when the container could not be built,
126 when the command is not executable, 127 when it is not found, 128+n when
signal n ended it.

examples:
  minicontainer run busybox sh -c 'ps; hostname; id'
  minicontainer run -it -v ./src:/src:ro -w /src --memory 512m debian bash
  minicontainer run -d --name web --read-only --tmpfs /tmp busybox httpd -f
  minicontainer run --rootfs ./busybox --trace true
  minicontainer run --dry-run busybox sh
"""

EXPLAIN_HELP = """\
usage: minicontainer explain [--json] [OPTIONS of run] IMAGE [COMMAND [ARG...]]
       minicontainer explain [--json] [OPTIONS of run] --rootfs DIR COMMAND [ARG...]

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

# The words that put a process into a container: see `sealed`.
_INTO_CONTAINERS = ("run", "exec", "start", "build")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    words = sys.argv[1:] if argv is None else argv
    try:
        if argv is None and words[:1] and words[0] in _INTO_CONTAINERS:
            from . import sealed

            directory = os.path.dirname(os.path.realpath(__file__))
            # The sealed interpreter knows no virtual environment; see `libraries.find`
            prefix = f"prefix={sys.prefix}"
            sealed.ensure("-I", "-S", "-X", prefix, f"{directory}/__main__.py", *words)
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
    if words and words[0] in ("-V", "--version", "version"):
        print(f"minicontainer {__version__}")
        return 0
    commands = _commands(words)
    if not words or words[0] in ("-h", "--help", "help"):
        if len(words) > 1 and words[1] in commands:
            return commands[words[1]][0](["--help"])
        print(_usage())
        return 0 if words else RUNTIME_FAILED
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
    if _of_an_image(options, args):
        from . import container_cli

        return container_cli.run(options, args)
    steps = plan.build(_spec(options, args, "run"))
    if options["dry_run"]:
        print_plan(plan.describe(steps))
        return 0
    started = foreground.attend(steps, trace=bool(trace))
    if trace:
        print_trace(started.steps, as_json=trace == "json")
    return started.wait()


def explain(words: list[str]) -> int:
    """`minicontainer explain`: the plan, in words or as JSON."""
    table = [Option("--json", help="as JSON, for machines", default=False), *RUN_OPTIONS]
    options, args = parse(words, table)
    if options["help"]:
        print(EXPLAIN_HELP.format(options=describe(table)), end="")
        return 0
    if _of_an_image(options, args):
        from . import container_cli

        described = container_cli.explained(options, args)
    else:
        described = plan.describe(plan.build(_spec(options, args, "explain")))
    if options["json"]:
        import json

        print(json.dumps(described, indent=1))
    else:
        print_plan(described)
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
    from . import container_cli

    if words and words[0] in container_cli.COMMANDS:
        return container_cli.COMMANDS
    return {name: command for _, group in _groups() for name, command in group.items()}


def _groups() -> list[tuple[str, dict]]:
    """Every command, in the order of the help."""
    from . import build_cli, container_cli, images_cli, registry_cli

    images = {**build_cli.COMMANDS, **registry_cli.COMMANDS, **images_cli.COMMANDS}
    del images["gc"]  # the one of containers calls it
    images["image"] = (container_cli.image, "make a base image here, or a machine of an image")
    first, rest = ("run",), ("explain", "doctor")
    return [
        ("containers", {**{name: COMMANDS[name] for name in first}, **container_cli.COMMANDS}),
        ("images", images),
        ("understanding", {name: COMMANDS[name] for name in rest}),
    ]


def _usage() -> str:
    parts = [
        f"{title}:\n{table([(name, summary) for name, (_, summary) in group.items()])}"
        for title, group in _groups()
    ]
    return (
        "usage: minicontainer COMMAND [OPTIONS] …\n\nA container you can read.\n\n"
        + "\n\n".join(parts)
        + "\n\n`minicontainer COMMAND --help` explains a command, with examples;\n"
        "`minicontainer --version` prints the version."
    )


def _of_an_image(options: dict, args: list[str]) -> bool:
    """Whether the root comes from an image; raises UsageError for what goes with images alone."""
    if options["network"] not in ("none", "host"):
        raise UsageError(f"--network {options['network']}: either none or host")
    if options["rootfs"] is None:
        if not args:
            raise UsageError("which image? minicontainer run IMAGE [COMMAND]; or --rootfs DIR")
        if args[0].startswith(("/", ".")):
            raise UsageError(
                f"{args[0]}: a path is no image's name; which root file system? --rootfs DIR"
            )
        return True
    for option in IMAGE_OPTIONS:
        if options[option.key] != option.default:
            raise UsageError(f"{option.flags[0]} is for images: it does not go with --rootfs")
    return False


def _spec(options: dict, args: list[str], command: str) -> dict:
    if not args:
        raise UsageError(f"which command? minicontainer {command} --rootfs DIR COMMAND [ARG...]")
    return spec.default(
        options["rootfs"],
        args,
        hostname=options["hostname"] or "minicontainer",
        env=_environment(options["env"]),
        cwd=options["workdir"] or "/",
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


def print_plan(described: list[dict]) -> None:
    for step in described:
        print(f"{step['n']:3}  {step['name']}   [{step['where']}]")
        calls = step["calls"]
        for call in calls[:4]:
            print(f"       {call}")
        if len(calls) > 4:
            print(f"       … {len(calls) - 4} more like these")
        print(f"       # {step['why']}  ({step['clause']}; lesson {step['lesson']})")


def print_trace(steps: list[dict], as_json: bool) -> None:
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
