"""Lesson 05, user namespaces: the letters of its predictions, the checks of its exercises.

Answers are called by an ordinary user, as in the lesson: user 1000 of a user namespace, without
capabilities. So they cannot do with the workbench's root what an attendee could not.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from ...kernel import capabilities, namespaces, syscalls, userns
from ..catalogue import Exercise, NotYet
from ..judging import SECONDS, background, fact, function_of, must_run, text_of
from ..workbench import Workbench

PREDICTIONS = {"05.a": "b", "05.b": "c", "05.c": "a", "05.d": "c"}

USER = 1000


def _become_ordinary() -> None:
    namespaces.unshare(["user"])
    userns.write_single_id_map(USER, 0, USER, 0)
    capabilities.set_all(0, 0, 0)


# --- 05.1: read a map ---------------------------------------------------------------------------

MAP = "/srv/map"
RANGES = """\
         0       1000          1
         1     100000      65536
     70000     300000         10
"""


def _namespace_of(name: int) -> int:
    """A process in a user namespace where the workbench's root is called `name`; its number."""

    def build() -> None:
        namespaces.unshare(["user"])
        userns.write_single_id_map(name, 0, name, 0)

    return background(build)


def _outside(bench: Workbench, answer: Callable) -> str:
    def said(uid: int, path: str) -> object:
        return must_run(bench.call(answer, uid, path, timeout=SECONDS), "outside")

    pid = fact(bench.call(_namespace_of, 5))
    found = said(5, f"/proc/{pid}/uid_map")
    if found != 0 or isinstance(found, bool):
        raise NotYet(f"The map of a real process has 5 0 1, so user 5 is 0 outside, not {found!r}.")
    if said(0, f"/proc/{pid}/uid_map") is not None:
        raise NotYet("The map 5 0 1 has no user 0 of the inside: None is wanted for him.")
    bench.shell(f"cat > {MAP} <<'.'\n{RANGES}.")
    for uid, number, words in (
        (0, 1000, "that is the first line"),
        (33, 100032, "the second line begins with 1, so it is 32 steps from there"),
        (65536, 165535, "the last one of the second line"),
        (65537, None, "the second line has 65536 ids, from 1 to 65536"),
        (70003, 300003, "that is the third line"),
        (100032, None, "that is a number of the outside"),
    ):
        found = said(uid, MAP)
        if found != number:
            raise NotYet(
                "With the lines 0 1000 1, 1 100000 65536 and 70000 300000 10, outside"
                f"({uid}, …) is {number} ({words}), not {found!r}."
            )
    return "So the kernel translates, at every stat and kill."


# --- 05.2: another name -------------------------------------------------------------------------


def _call_call_me(text: str, uid: int, gid: int) -> dict:
    """Call the answer as an ordinary user; how far it came, and who the process is then."""
    _become_ordinary()
    before = namespaces.inodes()["user"]
    function, error = function_of(text, "call_me"), ""
    try:
        function(uid, gid)
    except OSError as failure:
        error = failure.strerror or str(failure)
    seen: dict = {"error": error, "new": namespaces.inodes()["user"] != before}
    seen |= {"uids": os.getresuid(), "gids": os.getresgid()}
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/self/{name}") as file:
            seen[name] = file.read().split()
    return seen


def _call_me(bench: Workbench, answer: Callable) -> str:
    for uid, gid in ((33, 34), (0, 7)):
        outcome = bench.call(_call_call_me, text_of(answer), uid, gid, timeout=SECONDS)
        seen = must_run(outcome, "call_me")
        if not seen["new"]:
            raise NotYet("The process is still in the user namespace that it was in.")
        if seen["error"]:
            raise NotYet(
                f"It was refused ({seen['error']}). The second number of a map is who you are "
                f"outside, {USER}; right after unshare, getuid() and getgid() cannot tell any more."
            )
        for kind, wanted in (("uid", uid), ("gid", gid)):
            if not seen[f"{kind}_map"]:
                raise NotYet(f"/proc/self/{kind}_map is empty: the {kind} is 65534, nobody's.")
            if set(seen[f"{kind}s"]) != {wanted}:
                raise NotYet(
                    f"call_me({uid}, {gid}) makes the process {kind} {seen[f'{kind}s'][0]}."
                )
    return "Two new names, one for the user and one for the group, and the kernel agrees."


# --- 05.3: root for a moment --------------------------------------------------------------------

ROOT, NOT_ROOT, WEAK, NOT_FIRST, OTHERS_NAME = 42, 43, 44, 45, 46  # exit statuses
REASONS = {
    NOT_ROOT: "work() was not done by user 0: its process has no name yet, or the wrong one.",
    WEAK: "work() was done by user 0 without capabilities.",
    NOT_FIRST: (
        "The process of work() is not PID 1: unshare of pid holds for children, so it takes one "
        "fork more, after unshare."
    ),
    OTHERS_NAME: "work() cannot set the name of the host: its UTS namespace is not its own.",
}


def _call_as_root(text: str, kinds: list[str]) -> dict:
    """Call the answer as an ordinary user; what it returned, and whether the caller moved."""
    _become_ordinary()

    def work() -> None:
        if "pid" in kinds and os.getpid() != 1:
            os._exit(NOT_FIRST)
        if os.getresuid() != (0, 0, 0) or os.getresgid() != (0, 0, 0):
            os._exit(NOT_ROOT)
        if capabilities.current()["CapEff"].bit_count() <= capabilities.last():
            os._exit(WEAK)
        try:
            syscalls.sethostname("mine")
        except OSError:
            os._exit(OTHERS_NAME)
        os._exit(ROOT)

    before = namespaces.inodes()
    value = function_of(text, "as_root")(kinds, work)
    after = namespaces.inodes()
    return {"value": value, "moved": [kind for kind in before if before[kind] != after[kind]],
            "uid": os.getuid(), "name": os.uname().nodename}  # fmt: skip


def _as_root(bench: Workbench, answer: Callable) -> str:
    for kinds in (["uts"], ["uts", "pid"]):
        outcome = bench.call(_call_as_root, text_of(answer), kinds, timeout=SECONDS)
        if not outcome.timed_out and outcome.status in (ROOT, *REASONS):
            raise NotYet("work() was called in the calling process, which never comes back: fork.")
        seen = must_run(outcome, "as_root")
        if seen["moved"] or seen["uid"] != USER:
            raise NotYet(
                f"The caller itself is in a new {' and '.join(seen['moved'])} namespace now. "
                "unshare in a child."
            )
        if seen["value"] in REASONS and not isinstance(seen["value"], bool):
            raise NotYet(REASONS[seen["value"]])
        if seen["value"] != ROOT:
            raise NotYet(f"work() ended with status {ROOT}, and as_root returned {seen['value']}.")
        if seen["name"] == "mine":
            raise NotYet("The name that work() gave the host is the caller's name, too.")
    return "Root inside, with a host name and a PID 1 of its own; the caller did not move."


EXERCISES = {
    "05.1": Exercise(
        "outside",
        _outside,
        (
            "Each line has three numbers: where it begins inside, where outside, how many ids.",
            "A user belongs to a line if he is not below its first number, and less than its "
            "third number above that.",
            "Split each line, make numbers of the words. In the line that fits, he is as many "
            "steps from the second number as from the first. No line fits: None.",
        ),
    ),
    "05.2": Exercise(
        "call_me",
        _call_me,
        (
            "A new user namespace, then three files of /proc/self.",
            "Two of the three are maps. Who are you outside? Ask while you can still be told.",
            "Keep os.getuid() and os.getgid(), then unshare. Write deny to setgroups, then a line "
            "of three numbers to each map: the new id, the kept one, and 1.",
        ),
    ),
    "05.3": Exercise(
        "as_root",
        _as_root,
        (
            "fork, so that the caller stays. What does the child do before it works?",
            "The child unshares and maps itself to 0, as in `container`. Then PID 1 has to be "
            "born: another fork.",
            "The caller waits for the child, and the child waits for its own child, which does "
            "the work. Each hands on how the one below ended: os.waitstatus_to_exitcode makes the "
            "number, and os._exit ends the one in the middle with it.",
        ),
    ),
}
