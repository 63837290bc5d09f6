"""Lesson 00, preflight: the letters of its predictions, and the checks of its exercises."""

from __future__ import annotations

from collections.abc import Callable

from ..catalogue import Exercise, NotYet
from ..judging import SECONDS, fact, must_run, text_of
from ..workbench import Workbench

PREDICTIONS = {"00.a": "a", "00.b": "b", "00.c": "b", "00.d": "c"}


# --- 00.1: leave a mark -------------------------------------------------------------------------


def _mark(bench: Workbench, answer: Callable) -> str:
    # A name that nobody can know: it has to be asked for
    name = bench.shell("hostname bench-$(od -An -N3 -tx1 /dev/urandom | tr -d ' '); hostname")
    must_run(bench.call(answer, timeout=SECONDS), "mark")
    found = bench.shell("cat /srv/mark/name")
    if found.status:
        raise NotYet(f"The file is not there: {found.output.strip()}.")
    if found.output.strip() != name.output.strip():
        raise NotYet(
            f"The file says {found.output.strip()!r}; this host is called {name.output.strip()!r}."
        )
    return "The name of the host is in the file, whatever the host is called."


# --- 00.2: may I? -------------------------------------------------------------------------------


def _ask(text: str, kind: str, forbidden: bool) -> tuple[object, list[str]]:
    """Call an answer; returns its value, and in which namespaces the caller is new after it."""
    from minicontainer.doctor import enter
    from minicontainer.kernel import namespaces, syscalls

    if forbidden:
        enter("user")
        syscalls.write_file(f"/proc/sys/user/max_{kind}_namespaces", "0")
    namespace: dict = {"__name__": "__main__"}
    exec(text, namespace)
    before = namespaces.inodes()
    value = namespace["allowed"](kind)
    after = namespaces.inodes()
    return value, [name for name in before if before[name] != after[name]]


def _allowed(bench: Workbench, answer: Callable) -> str:
    for kind in ("uts", "ipc"):
        for forbidden in (False, True):
            outcome = bench.call(_ask, text_of(answer), kind, forbidden, timeout=SECONDS)
            value, new = must_run(outcome, "allowed")
            if new:
                raise NotYet(
                    f"The process that asked is in a new {' and '.join(new)} namespace now. It "
                    "has to ask in a child."
                )
            if not isinstance(value, bool):
                raise NotYet(f"allowed({kind!r}) returned {value!r}, not True or False.")
            if value and forbidden:
                raise NotYet(
                    f"Where the limit of {kind} namespaces is 0, unshare fails, and allowed says "
                    "True. That the kernel knows this kind is not enough."
                )
            if not value and not forbidden:
                raise NotYet(f"A new {kind} namespace can be had here, and allowed says False.")
    return "It asks the kernel itself, and the one who asks stays where it was."


# --- 00.3: which cgroups? -----------------------------------------------------------------------

_PLAIN = "22 25 0:21 / /proc rw,nosuid,nodev,noexec - proc proc rw\n"
_UNIFIED = "31 25 0:26 / /sys/fs/cgroup rw,nosuid,nodev - cgroup2 cgroup2 rw,nsdelegate\n"
_PIDS = "33 32 0:29 / /sys/fs/cgroup/pids rw,nosuid shared:9 - cgroup cgroup rw,pids\n"
_TMPFS = "32 25 0:27 / /sys/fs/cgroup ro,nosuid shared:8 - tmpfs tmpfs ro,mode=755\n"
_BESIDE = "34 32 0:28 / /sys/fs/cgroup/unified rw,nosuid shared:7 - cgroup2 cgroup2 rw\n"
LAYOUTS = {
    "v2": _PLAIN + _UNIFIED,
    "v1": _PLAIN + _TMPFS + _PIDS,
    "hybrid": _PLAIN + _TMPFS + _BESIDE + _PIDS,
    "none": _PLAIN + _TMPFS,
}


def _put(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _cgroup_layout(bench: Workbench, answer: Callable) -> str:
    for expected, text in LAYOUTS.items():
        fact(bench.call(_put, "/srv/mountinfo", text))
        value = must_run(bench.call(answer, "/srv/mountinfo", timeout=SECONDS), "cgroup_layout")
        if value != expected:
            table = "".join(f"\n    {line}" for line in text.splitlines())
            raise NotYet(
                f"For these mounts the answer is {expected!r}, and yours was {value!r}:{table}"
            )
    return "Four mount tables, four answers, each from the type and not from a name."


EXERCISES = {
    "00.1": Exercise(
        "mark",
        _mark,
        (
            "Three things: make a directory, ask for the name, write a file.",
            "os.uname().nodename is the host's name, os.makedirs makes a directory.",
            "First os.makedirs for /srv/mark, with exist_ok=True. Then write_text of a Path, or "
            "open with 'w', for the file in it.",
        ),
    ),
    "00.2": Exercise(
        "allowed",
        _allowed,
        (
            "enter(kind) does it, or raises an OSError. Who should call it?",
            "in_child calls a function without arguments: a lambda makes one of enter(kind).",
            "try in_child with that lambda. If there is an OSError, the answer is False, "
            "otherwise True.",
        ),
    ),
    "00.3": Exercise(
        "cgroup_layout",
        _cgroup_layout,
        (
            "Names of mount points do not matter, and the word cgroup stands in many places.",
            "line.partition(' - ')[2] is what follows the lonely hyphen; its first word is the "
            "type.",
            "Make a set of the types of all lines. Then there are four cases: is cgroup2 in it, "
            "and is cgroup?",
        ),
    ),
}
