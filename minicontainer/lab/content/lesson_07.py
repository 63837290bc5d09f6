"""Lesson 07, overlay: its predictions, and the checks of its exercises."""

from __future__ import annotations

import os
from collections.abc import Callable

from ..catalogue import Exercise, NotYet
from ..judging import SECONDS, fact, must_run
from ..workbench import Outcome, Workbench

PREDICTIONS = {"07.a": "c", "07.b": "b", "07.c": "a", "07.d": "b"}


def _made(outcome: Outcome) -> None:
    """Our own preparations; an overlay may be refused. Raises WorkbenchError."""
    if outcome.status:
        outcome.error = outcome.error or outcome.output.strip()
    fact(outcome)


# --- 07.1: docker diff --------------------------------------------------------------------------

CHANGE = """
    mkdir -p /srv/x/lower/etc/ssl /srv/x/lower/usr /srv/x/upper /srv/x/work /srv/x/merged; cd /srv/x
    for name in os motd ssl/key; do echo 1 > lower/etc/$name; done
    ln -s /nowhere lower/etc/zone
    mount -t overlay -o userxattr,lowerdir=lower,upperdir=upper,workdir=work overlay merged || exit
    cd merged
    rm etc/os
    echo 2 > etc/motd
    ln -sfn /elsewhere etc/zone
    mkdir srv srv/www; echo 2 > srv/www/page
"""
CHANGED = ["A srv", "A srv/www", "A srv/www/page", "C etc", "C etc/motd", "C etc/zone", "D etc/os"]


def _changes(bench: Workbench, answer: Callable) -> str:
    _made(bench.shell(CHANGE))
    found = must_run(bench.call(answer, "/srv/x/upper", "/srv/x/lower", timeout=SECONDS), "changes")
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise NotYet(f"changes returned {found!r}; a list of texts is wanted.")
    if "D etc/os" not in found and any(one.endswith(" etc/os") for one in found):
        raise NotYet("etc/os was deleted: what the upper directory has there is a whiteout.")
    if "A etc/zone" in found:
        raise NotYet(
            "etc/zone was there before: a link to a file that does not exist. os.path.exists "
            "looks where a link leads to, os.path.lexists at the link."
        )
    if not any(one.endswith(" srv/www/page") for one in found):
        raise NotYet("Something deeper down is missing, as srv/www/page.")
    if missing := sorted(set(CHANGED) - set(found)):
        raise NotYet(f"Your list lacks {missing[0]!r}.")
    if more := sorted(set(found) - set(CHANGED)):
        raise NotYet(f"Your list has {more[0]!r}, and nothing like that happened.")
    if found != CHANGED:
        raise NotYet("The list has all that is wanted, but it is not sorted, or has it twice.")
    return "Read from the upper directory alone; the image was not looked through."


# --- 07.2: a container's files ------------------------------------------------------------------

LAYERS = ["/srv/x/base", "/srv/x/add", "/srv/x/fix"]
MAKE_LAYERS = """
    mkdir -p /srv/x/base /srv/x/add /srv/x/fix; cd /srv/x
    echo debian > base/os; echo a tool > base/tool
    echo 1 > add/app; mknod add/tool c 0 0
    echo 2 > fix/app
"""


def _container(bench: Workbench, answer: Callable) -> str:
    _made(bench.shell(MAKE_LAYERS))
    before = bench.shell("ls -R /srv/x; cat /srv/x/*/app").output
    for place in ("/srv/one", "/srv/two"):
        must_run(bench.call(answer, LAYERS, place, timeout=SECONDS), "container")
        if bench.shell(f"grep -q ' {place}/merged overlay ' /proc/mounts").status:
            raise NotYet(f"There is no overlay on {place}/merged.")
    if bench.shell("cat /srv/one/merged/app").output != "2\n":
        raise NotYet(
            "app is not the highest layer's, which has version 2. In lowerdir the first one is the "
            "topmost, in your list the last one."
        )
    if bench.shell("test ! -e /srv/one/merged/tool -a -e /srv/one/merged/os").status:
        raise NotYet("The three layers together show os and app, and not tool.")
    wrote = bench.shell("echo 3 > /srv/one/merged/app && echo new > /srv/one/merged/new")
    if wrote.status:
        raise NotYet(f"It cannot be written: {wrote.output.strip()}. Who takes the changes?")
    if bench.shell("ls -R /srv/x; cat /srv/x/*/app").output != before:
        raise NotYet("A write in one container changed a layer, which others have, too.")
    if bench.shell("test -e /srv/two/merged/new").status == 0:
        raise NotYet("The second container sees what the first wrote: they share an upper.")
    if not bench.shell("find /srv/one -path /srv/one/merged -prune -o -name new -print").output:
        raise NotYet("The changes of the first container are not below its place.")
    return "Two containers, three layers, each once on the disk; nobody sees the other's changes."


# --- 07.3: where does it come from? -------------------------------------------------------------

DEEP = """
    mkdir -p /srv/x/base/usr/share/doc /srv/x/base/opt/old /srv/x/base/data /srv/x/base/lib
    mkdir -p /srv/x/add/usr/share /srv/x/fix/usr/share/doc /srv/x/fix/opt/new
    cd /srv/x
    for file in base/os base/usr/share/doc/a base/usr/share/doc/b base/opt/old/tool base/data/1 \\
        base/lib/so add/usr/share/c fix/usr/share/doc/a fix/opt/new/tool
    do echo $file > $file; done
    mknod add/opt c 0 0; mknod add/data c 0 0; mknod fix/usr/share/doc/b c 0 0
    echo add/lib > add/lib
    mkdir merged; mount -t overlay -o userxattr,lowerdir=fix:add:base overlay merged
"""
PATHS = (
    "os", "usr/share/doc/a", "usr/share/doc/b", "usr/share/c", "opt/new/tool", "opt/old/tool",
    "data/1", "lib/so", "lib", "nothing/here",
)  # fmt: skip


def _shown(paths: list[str]) -> dict[str, str]:
    """What the kernel shows: each file has its own place as its content."""
    found = {}
    for path in paths:
        try:
            with open(f"/srv/x/merged/{path}") as file:
                found[path] = "/srv/x/" + file.read().strip()
        except OSError:
            found[path] = ""
    return found


def _origin(bench: Workbench, answer: Callable) -> str:
    _made(bench.shell(DEEP))
    shown = fact(bench.call(_shown, list(PATHS)))
    for path in PATHS:
        found = must_run(bench.call(answer, LAYERS, path, timeout=SECONDS), "origin")
        if not isinstance(found, str):
            raise NotYet(f'origin(layers, "{path}") returned {found!r}; a text is wanted.')
        if os.path.normpath(found or "/") != (shown[path] or "/"):
            raise NotYet(_why(path, shown[path], found))
    return f"{len(PATHS)} paths, and for each of them the kernel shows the file that you name."


def _why(path: str, right: str, found: str) -> str:
    said = f"For {path} you say {found!r}, and the overlay shows "
    if right:
        return said + f"{right}. Begin with the topmost layer, and go down name by name."
    if path.startswith(("opt", "data")):
        name = path.partition("/")[0]
        return said + f"none: there is a whiteout for the directory {name} above that layer."
    if path.startswith("lib"):
        return said + "none: in a layer above, lib is a file, so no directory goes on below it."
    return said + "none."


EXERCISES = {
    "07.1": Exercise(
        "changes",
        _changes,
        (
            "Each entry of the upper directory is one of three: a whiteout, something that the "
            "lower directory has at that path, or something that it has not.",
            "Path(upper).rglob('*') goes through all of them, path.relative_to(upper) is the path "
            "that you need, and is_whiteout(path.lstat()) tells a whiteout.",
            "Whether the lower directory has it: os.path.lexists of lower, a slash and the path. "
            "Ask for the whiteout, too, and let that win. At the end, sorted.",
        ),
    ),
    "07.2": Exercise(
        "container",
        _container,
        (
            "Three directories have to be made in place, and then one call of mount.",
            "The options are userxattr, lowerdir=, upperdir= and workdir=, with commas between. "
            "Several lower ones have colons between them.",
            "The topmost comes first in lowerdir: reversed(layers). Source and type are both "
            "'overlay', flags 0; the target is the directory merged in place.",
        ),
    ),
    "07.3": Exercise(
        "origin",
        _origin,
        (
            "lookup answers for one name in a list of directories, the topmost first. A path is "
            "several names, one after the other.",
            "What lookup returns for one name is the list of directories in which the next name "
            "has to be looked for.",
            "Start with the layers turned round. For each name of path.split('/'), let the list be "
            "what lookup makes of it. What is first in the list at the end, if anything, is shown.",
        ),
    ),
}
