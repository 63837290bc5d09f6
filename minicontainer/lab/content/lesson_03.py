"""Lesson 03, mount namespaces and pivot_root: its predictions, and the checks of its exercises.

Every check makes the workbench's mounts shared first, as systemd does on a real host.
"""

from __future__ import annotations

from collections.abc import Callable

from ..catalogue import Exercise, NotYet
from ..judging import SECONDS, fact, must_run, text_of
from ..workbench import Workbench

PREDICTIONS = {"03.a": "b", "03.b": "a", "03.c": "b", "03.d": "c"}

MAKE_SHARED = "mount --make-rshared /"
TREE = "/srv/exercise"


# --- 03.1: a /tmp of one's own ------------------------------------------------------------------


def _call_private_tmp(text: str) -> dict:
    """Call the answer, then look at /tmp from here and from the workbench."""
    import os

    outside = os.stat("/proc/self/ns/mnt").st_ino
    namespace: dict = {"__name__": "__main__"}
    exec(text, namespace)
    namespace["private_tmp"]()
    found = os.listdir("/tmp")
    with open("/tmp/mine", "w"):
        pass
    return {
        "own": os.stat("/proc/self/ns/mnt").st_ino != outside,
        "found": found,
        "leak": os.path.exists("/proc/1/root/tmp/mine"),
        "mounted": os.path.ismount("/tmp"),
        "rest": os.path.exists("/srv/kept"),
    }


def _private_tmp(bench: Workbench, answer: Callable) -> str:
    fact(bench.shell(f"{MAKE_SHARED}; touch /tmp/before /srv/kept"))
    outcome = bench.call(_call_private_tmp, text_of(answer), timeout=SECONDS)
    seen = must_run(outcome, "private_tmp")
    if not seen["own"]:
        raise NotYet(
            "The process is still in the host's mount namespace, so what it mounts or deletes is "
            "mounted or deleted for everybody."
        )
    if seen["leak"] and seen["mounted"]:
        raise NotYet(
            "The host got this /tmp, too: its mounts are shared, and a copy of a shared mount "
            "tells the others. Change the propagation before you mount."
        )
    if seen["leak"]:
        raise NotYet(
            "What the process writes to /tmp, the host sees: the table is its own, but /tmp in it "
            "is still the host's file system."
        )
    if seen["found"]:
        raise NotYet(f"/tmp is not empty at the beginning: {', '.join(sorted(seen['found']))}.")
    if not seen["rest"]:
        raise NotYet("The process lost other files, too: only /tmp should change.")
    return "A /tmp of its own, and the host has seen nothing of it."


# --- 03.2: read the propagation -----------------------------------------------------------------

# Each trap is one that a search for words or for the beginning of a path walks into.
MOUNTS = f"""
    {MAKE_SHARED}
    mkdir /srv/data-old /srv/data /srv/copy /srv/trap
    for name in data-old data trap; do mount -t tmpfs shared:1 /srv/$name; done
    mount --make-private /srv/data-old
    mount --bind /srv/data /srv/copy
    mount --make-slave /srv/copy
    mount --make-private /srv/trap
"""
KINDS = {
    "/srv/data": "shared",
    "/srv/copy": "slave",
    "/srv/data-old": "private",
    "/srv/trap": "private",
}


def _propagation(bench: Workbench, answer: Callable) -> str:
    outcome = bench.shell(MOUNTS)
    assert not outcome.status, outcome.output
    said = {}
    for point, kind in KINDS.items():
        said[point] = must_run(bench.call(answer, point, timeout=SECONDS), "propagation")
        if said[point] not in ("shared", "slave", "private"):
            raise NotYet(
                f'propagation("{point}") returned {said[point]!r}; "shared", "slave" or "private" '
                "is wanted."
            )
        if kind == "slave" and said[point] != kind:
            raise NotYet(
                f"{point} is a slave: its row has a field master:N. You say {said[point]}."
            )
    if said["/srv/data"] != "shared" and said["/srv/data-old"] == "private":
        raise NotYet(
            "/srv/data is shared and you say private. There is a /srv/data-old, too: compare the "
            "whole mount point, field 5."
        )
    if said["/srv/trap"] == "shared":
        raise NotYet(
            "/srv/trap is private. Its row has the word shared after the -, where the name of what "
            "is mounted stands; only the fields before the - count."
        )
    for point, kind in KINDS.items():
        if said[point] != kind:
            raise NotYet(f"{point} is {kind}, and you say {said[point]}.")
    return "All three kinds are told apart, by the optional fields alone."


# --- 03.3: a root that nobody can write ---------------------------------------------------------


def _call_read_only_root(text: str, tree: str) -> dict:
    """Call the answer, try to write, and try the escape of lesson 02."""
    import errno
    import os

    inside = os.stat(tree)
    namespace: dict = {"__name__": "__main__"}
    exec(text, namespace)
    namespace["read_only_root"](tree)
    seen = {"root": os.path.samestat(os.stat("/"), inside), "writable": True}
    try:
        os.mkdir("/written")
    except OSError as error:
        seen["writable"] = error.errno != errno.EROFS
    os.chroot("/bin")
    for _ in range(10):
        os.chdir("..")
    os.chroot(".")
    seen["escaped"] = not os.path.samestat(os.stat("/"), inside)
    return seen


def _read_only_root(bench: Workbench, answer: Callable) -> str:
    fact(bench.shell(f"{MAKE_SHARED}; mkdir -p {TREE}/bin {TREE}/proc"))
    outcome = bench.call(_call_read_only_root, text_of(answer), TREE, timeout=SECONDS)
    seen = must_run(outcome, "read_only_root")
    if not seen["root"]:
        raise NotYet("After read_only_root the root of the process is not the tree.")
    if seen["escaped"]:
        raise NotYet("The host is still behind the root: the escape of lesson 02 reaches it.")
    if seen["writable"]:
        raise NotYet(
            "A file can still be made in the root. mount(2) ignores all flags beside MS_BIND, "
            "MS_RDONLY too: the new mount has those of the old one, until a second call."
        )
    if bench.shell(f"touch {TREE}/by-the-host").status:
        raise NotYet(
            "Now the host cannot write there either. Without MS_BIND, MS_REMOUNT changes the file "
            "system for all who have it in a table, not this one mount."
        )
    return "Read-only for this process, and for it alone; the host is out of reach."


EXERCISES = {
    "03.1": Exercise(
        "private_tmp",
        _private_tmp,
        (
            "Three things, in the right order: a table of one's own, silence, a new mount.",
            "The host's mounts are shared. Which call of round 3 comes between unshare and mount?",
            "namespaces.unshare, then mounts.set_propagation on / with MS_REC and MS_SLAVE (or "
            "MS_PRIVATE), then syscalls.mount of a tmpfs on /tmp, as in `hide`.",
        ),
    ),
    "03.2": Exercise(
        "propagation",
        _propagation,
        (
            "Find the row whose fifth field (row[4]) is the mount point, all of it. Which of its "
            "fields are optional?",
            "The optional fields are those from row[6] to the first - after it. "
            "row.index('-', 6) says where that is.",
            "Join the optional fields to one text. If 'shared:' is in it, if 'master:' is in it, "
            "if neither is: one answer for each.",
        ),
    ),
    "03.3": Exercise(
        "read_only_root",
        _read_only_root,
        (
            "prepare makes the mount, pivot_root makes it the root. Between the two, or after "
            "them, the mount has to be changed.",
            "A bind mount cannot be read-only from the beginning: it takes a second call of mount "
            "with MS_REMOUNT on the same place.",
            "To change this one mount and not the file system for all, MS_REMOUNT, MS_BIND and "
            "MS_RDONLY go together; source, type and data are None.",
        ),
    ),
}
