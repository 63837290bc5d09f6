"""The word `build` of the command `minicontainer`."""

from __future__ import annotations

import os
import sys

from .options import HELP, Option, UsageError, describe, parse

OPTIONS = [
    Option("--file", "-f", metavar="FILE", help="Containerfile or Dockerfile of the context"),
    Option("--tag", "-t", metavar="NAME", help="name the image (again for more)", default=[]),
    Option("--build-arg", metavar="NAME[=VALUE]", help="value of an ARG (again)", default=[]),
    Option("--target", metavar="STAGE", help="build this stage, not the last one"),
    Option("--no-cache", help="make each layer anew", default=False),
    Option("--network", metavar="none|host", help="what RUN can reach", default="host"),
    Option("--quiet", "-q", help="print the image's digest alone", default=False),
    HELP,
]

BUILD_HELP = """\
usage: minicontainer build [OPTIONS] DIRECTORY

Build an image from a Containerfile and the files beside it. Each instruction is a
layer, kept and taken again as long as what it is made from stays the same. With
SOURCE_DATE_EPOCH in the environment the same input gives the same digest.

{options}

The exit status is 1 when a RUN failed, 125 when the build could not be done.

examples:
  minicontainer build -t app .
  minicontainer build -t app --build-arg VERSION=2 --target test .
  SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) minicontainer build -q .
"""


def build(words: list[str]) -> int:
    """`minicontainer build`: prints the image's digest."""
    options, names = parse(words, OPTIONS)
    if options["help"]:
        print(BUILD_HELP.format(options=describe(OPTIONS)), end="")
        return 0
    if len(names) != 1:
        raise UsageError("build takes one DIRECTORY")
    if options["network"] not in ("none", "host"):
        raise UsageError(f"--network {options['network']}: either none or host")
    import _signal as signal

    from .images.build import build as build_image
    from .images.store import Store

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or nothing would be cleaned up
    quiet = options["quiet"]
    built = build_image(
        Store(), names[0], options["file"], options["tag"], _arguments(options["build_arg"]),
        options["target"], not options["no_cache"], options["network"],
        None if quiet else lambda text: print(text, file=sys.stderr, flush=True),
        None if quiet else 2,
    )  # fmt: skip
    print(built["digest"])
    return 0


# As cli.COMMANDS has it.
COMMANDS = {"build": (build, "build an image from a Containerfile")}


def _arguments(words: list[str]) -> dict[str, str]:
    """docker's rule: NAME alone takes the caller's variable, when there is one."""
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if equals or name in os.environ:
            found[name] = value if equals else os.environ[name]
    return found
