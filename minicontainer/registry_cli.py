"""The words `pull` and `push` of the command `minicontainer`."""

from __future__ import annotations

import os
import sys
import threading
import time

from .options import HELP, Option, UsageError, describe, parse

CREDENTIALS = "MINICONTAINER_CREDS"  # in the environment, unlike an option, others do not see it

_COMMON = [
    Option("--creds", metavar="USER:PASSWORD", help=f"who you are there; or ${CREDENTIALS}"),
    Option("--plain-http", help="without TLS, over a network that you trust", default=False),
    Option("--quiet", "-q", help="print the result alone", default=False),
    HELP,
]
PULL_OPTIONS = [
    Option("--platform", metavar="OS/ARCH[/VARIANT]", help="this one of several; linux/arm64"),
    *_COMMON,
]
PUSH_OPTIONS = _COMMON

_CREDENTIALS_HELP = """\
The user and the password are those that `docker login`, `podman login` or `skopeo
login` keep, unless given. TLS is required, but for a registry on this machine.
"""

PULL_HELP = f"""\
usage: minicontainer pull [OPTIONS] NAME

Fetch an image from a registry: `busybox` is docker.io/library/busybox:latest. What
is here already is not fetched again; what was broken off goes on where it was.

{{options}}

{_CREDENTIALS_HELP}
examples:
  minicontainer pull debian:12
  minicontainer pull --platform linux/arm64 quay.io/podman/hello
  minicontainer pull localhost:5000/app@sha256:…
"""

PUSH_HELP = f"""\
usage: minicontainer push [OPTIONS] NAME [DESTINATION]

Bring an image to a registry: the one in its name, or in DESTINATION.

{{options}}

{_CREDENTIALS_HELP}
examples:
  minicontainer push localhost:5000/app:v1
  MINICONTAINER_CREDS=me:secret minicontainer push app registry.example.org/me/app:v1
"""


def pull(words: list[str]) -> int:
    """`minicontainer pull`: prints the full name, with the digest."""
    options, names = parse(words, PULL_OPTIONS)
    if options["help"]:
        print(PULL_HELP.format(options=describe(PULL_OPTIONS)), end="")
        return 0
    if len(names) != 1:
        raise UsageError("pull takes one NAME")
    platform = _platform(options["platform"])
    registry, store = _images()
    with _Progress(options["quiet"]) as progress:
        found = registry.pull(store, names[0], platform, progress, **_connection(options))
    _print_pinned(names[0], found)
    return 0


def fetch(store, name: str) -> None:
    """What `run` does for an image that is not here."""
    registry, _ = _images()
    print(f"minicontainer: {name} is not here: it is pulled", file=sys.stderr)
    connection = _connection({"creds": "", "plain_http": False})
    with _Progress(False) as progress:
        registry.pull(store, name, None, progress, **connection)


def push(words: list[str]) -> int:
    """`minicontainer push`: prints the full name, with the digest."""
    options, names = parse(words, PUSH_OPTIONS)
    if options["help"]:
        print(PUSH_HELP.format(options=describe(PUSH_OPTIONS)), end="")
        return 0
    if len(names) not in (1, 2):
        raise UsageError("push takes a NAME and perhaps a DESTINATION")
    registry, store = _images()
    with _Progress(options["quiet"]) as progress:
        found = registry.push(store, names[0], names[-1], progress, **_connection(options))
    _print_pinned(names[-1], found)
    return 0


# As cli.COMMANDS has them.
COMMANDS = {
    "pull": (pull, "fetch an image from a registry"),
    "push": (push, "bring an image to a registry"),
}


def _images():
    """The module and the store."""
    from . import libraries

    libraries.load("urllib3")
    from .images import registry
    from .images.store import Store

    return registry, Store()


def _connection(options: dict) -> dict:
    from .images.auth import given

    creds = options["creds"] or os.environ.get(CREDENTIALS)
    return {"plain_http": options["plain_http"], "creds": given(creds) if creds else None}


def _platform(text: str | None) -> dict[str, str] | None:
    if text is None:
        return None
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise UsageError(f"--platform {text}: as in linux/arm64 or linux/arm/v7")
    return dict(zip(("os", "architecture", "variant"), parts, strict=False))


def _print_pinned(name: str, found: dict) -> None:
    from .images.reference import parse as parse_name

    print(parse_name(name)._replace(digest=found["digest"]))


class _Progress:
    """On a terminal a bar for each blob, elsewhere a line when it is done; on stderr."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._lock = threading.Lock()
        self._rows: dict[str, str] = {}
        self._height, self._drawn = 0, 0.0

    def __enter__(self):
        if self._quiet:
            return None
        return self._bar if sys.stderr.isatty() else self._line

    def __exit__(self, *_) -> None:
        if self._rows:
            self._draw()

    def _bar(self, digest: str, done: int, size: int, note: str) -> None:
        bar = "=" * (20 * done // max(size, 1))
        row = f"{_short(digest)} [{bar:<20}] {done / 1e6:>9.1f}/{size / 1e6:.1f} MB  {note}"
        with self._lock:
            self._rows[digest] = row
            if time.monotonic() - self._drawn > 0.1:
                self._draw()

    def _draw(self) -> None:
        columns, lines = os.get_terminal_size(sys.stderr.fileno())
        rows = list(self._rows.values())[-max(lines - 2, 1) :]
        # ECMA-48: CPL goes to the beginning of the line, n lines up; EL clears the rest of one.
        up = f"\x1b[{self._height}F" if self._height else ""
        text = "".join(f"{row[: columns - 1] if columns else row}\x1b[K\n" for row in rows)
        sys.stderr.write(up + text)
        sys.stderr.flush()
        self._height, self._drawn = len(rows), time.monotonic()

    def _line(self, digest: str, done: int, size: int, note: str) -> None:
        if note:
            print(f"{_short(digest)}  {size:>12} bytes  {note}", file=sys.stderr)


def _short(digest: str) -> str:
    return digest.partition(":")[2][:12]
