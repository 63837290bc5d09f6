"""Lesson 06, control groups: the letters of its predictions, and the checks of its exercises."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from ...kernel import cgroups
from ...kernel.cgroups import files, resources
from .. import controllers
from ..catalogue import Exercise, NotYet
from ..groups import end_of, inside
from ..judging import SECONDS, fact, function_of, must_run, text_of
from ..workbench import Workbench, WorkbenchError

PREDICTIONS = {"06.a": "c", "06.b": "b", "06.c": "b", "06.d": "b"}

MEGABYTE = 1 << 20


# --- 06.1: docker's words, the kernel's files ---------------------------------------------------

CONTROLLERS = ("memory", "cpu", "pids")


def _limits(memory: int, cpus: float, processes: int) -> dict:
    quota = {"quota": round(cpus * 100_000), "period": 100_000}
    return {"memory": {"limit": memory}, "cpu": quota, "pids": {"limit": processes}}


def _wanted(version: int, limits: dict) -> dict[str, str]:
    """What the package itself would write."""
    found = resources.writes(limits, dict.fromkeys(CONTROLLERS, version))
    return {write.file: write.value for _, _, write in found if not isinstance(write, str)}


def _write_all(texts: dict[int, dict[str, str]], limits: dict) -> list[str]:
    """Write the answer's texts into a group of this host; which limits it has not after that."""
    group = cgroups.place("files", limits)
    group.create()
    try:
        for directory in group.directories:
            for name, text in texts[directory.version].items():
                if os.path.exists(f"{directory.path}/{name}"):
                    files.write(f"{directory.path}/{name}", text)
        found = group.stats()
        wrong = [
            name
            for name in ("memory", "pids")
            if found.get(name, {}).get("limit") not in (None, limits[name]["limit"])
        ]
    finally:
        group.delete()
    return wrong


def _files_of(bench: Workbench, answer: Callable) -> str:
    limits = 64 * MEGABYTE, 0.5, 20
    texts = {}
    for version in (1, 2):
        for numbers in (limits, (100 * MEGABYTE, 1.5, 7)):
            found = must_run(bench.call(answer, version, *numbers, timeout=SECONDS), "files_of")
            _compare(version, numbers, found)
        texts[version] = must_run(bench.call(answer, version, *limits), "files_of")
    wrong = fact(bench.call(_write_all, texts, _limits(*limits)))
    if wrong:
        raise NotYet(f"This host's kernel took the texts, and its limits differ: {wrong}.")
    return "Version 1 and version 2, file by file what a runtime writes."


def _compare(version: int, numbers: tuple, found: object) -> None:
    if not isinstance(found, dict):
        raise NotYet(f"files_of returned {found!r}; a dictionary, file: text, is wanted.")
    wanted = _wanted(version, _limits(*numbers))
    called = f"files_of({version}, {', '.join(map(str, numbers))})"
    for name, text in wanted.items():
        if name not in found:
            raise NotYet(f"{called} has no file {name}. The table of the lesson has all names.")
        if not isinstance(found[name], str):
            raise NotYet(f"{called}: the text for {name} is {found[name]!r}, which is no text.")
        if found[name].split() != text.split():
            raise NotYet(f"{called}: {name} gets {found[name]!r}, and should get {text!r}.")
    for name in set(found) - set(wanted):
        raise NotYet(f"{called} has {name}, which these limits do not need.")


# --- 06.2: confine yourself ---------------------------------------------------------------------


def _call_confine(text: str, limit: int) -> dict:
    """Call the answer, then fork until the kernel says no."""
    before = _own_group()
    function_of(text, "confine")("cell", limit)
    seen = {"moved": _own_group() != before, "processes": 1}
    pids: list[int] = []
    try:
        while seen["moved"] and len(pids) < 3 * limit:
            pid = os.fork()
            if pid == 0:
                time.sleep(60)
                os._exit(0)
            pids.append(pid)
    except BlockingIOError:
        pass
    seen["processes"] += len(pids)
    for pid in pids:
        os.kill(pid, 9)
        end_of(pid)
    return seen


def _own_group() -> str:
    """The path of our group in the hierarchy that counts processes."""
    with open("/proc/self/cgroup") as file:
        lines = [line.rstrip("\n").split(":", 2) for line in file]
    own = {name: path for _, names, path in lines for name in names.split(",")}
    return own.get("pids", own.get("", ""))


def _confine(bench: Workbench, answer: Callable) -> str:
    reason = fact(bench.call(controllers.why_not, "pids"))["pids"]
    if reason:
        raise WorkbenchError(f"It needs the controller pids: {reason}")
    for limit in (4, 9):
        outcome = bench.call(_call_confine, text_of(answer), limit, timeout=SECONDS)
        seen = must_run(outcome, "confine")
        if not seen["moved"]:
            raise NotYet(
                "After confine the calling process is in the group that it was in before. Making "
                "a group does not move anybody."
            )
        if seen["processes"] >= 3 * limit:
            raise NotYet(f"In the new group {seen['processes']} processes could be started.")
        if seen["processes"] != limit:
            raise NotYet(
                f"confine(…, {limit}): with the caller there could be {seen['processes']} "
                f"processes, not {limit}."
            )
        bench.reset()
    return "In the group, and the limit holds for you and your children together."


# --- 06.3: who killed it? -----------------------------------------------------------------------


def _kill_for_memory() -> tuple[int, dict, dict]:
    """How a process of a small group ends that takes memory, with what `verdict` is given."""
    limits = {"memory": {"limit": 16 * MEGABYTE, "swap": 16 * MEGABYTE}}
    group = cgroups.place("small", limits)
    group.create()
    group.set(limits)
    before = group.stats()["memory"]
    status = end_of(inside(group, lambda: bytearray(b"x" * (64 * MEGABYTE))))
    after = group.stats()["memory"]
    group.delete()
    return status, before, after


# What a host said that has the controller (cgroup v1).
_RECORDED = (
    -9,
    {"current": 0, "peak": 0, "limit": 16777216, "oom_kills": 0},
    {"current": 0, "peak": 16777216, "limit": 16777216, "oom_kills": 1},
)


def _verdict(bench: Workbench, answer: Callable) -> str:
    reason = fact(bench.call(controllers.why_not, "memory"))["memory"]
    status, before, after = _RECORDED if reason else fact(bench.call(_kill_for_memory))
    once_more = {**after, "oom_kills": after["oom_kills"] + 1}
    for case, wanted, words in (
        ((status, before, after), "out of memory", "this is a process that took too much"),
        ((0, before, before), "exited", "a process that ended by itself"),
        ((1, before, before), "exited", "a status of 1 is a failure, but nobody killed it"),
        ((-9, before, before), "killed", "SIGKILL, and the counter is as before"),
        ((-9, after, after), "killed", "the counter tells of an earlier process of the group"),
        ((-9, after, once_more), "out of memory", "it was the second one of the group"),
        ((-15, before, before), "killed", "SIGTERM"),
        ((-15, before, after), "killed", "SIGTERM; another one of the group lacked memory"),
        ((0, before, after), "exited", "another one of the group was killed, this one was not"),
    ):
        found = must_run(bench.call(answer, *case, timeout=SECONDS), "verdict")
        if found != wanted:
            kills = [numbers["oom_kills"] for numbers in case[1:]]
            raise NotYet(
                f"Status {case[0]}, oom_kills {kills[0]} before and {kills[1]} after: {wanted!r} "
                f"({words}), not {found!r}."
            )
    return "A status and a counter together; neither is enough alone."


EXERCISES = {
    "06.1": Exercise(
        "files_of",
        _files_of,
        (
            "Three files in version 2, four in version 1: the table has them.",
            "Half a processor is a quota of half a period. Version 1 has a file for each of the "
            "two, version 2 one file with both, the quota first.",
            "All texts are text: str() makes one of a number, int() a whole number of the quota. "
            "The file for pids is the same in both versions.",
        ),
    ),
    "06.2": Exercise(
        "confine",
        _confine,
        (
            "Two steps: a group with a limit, and the caller in it.",
            "`make` of this lesson does the first; its second argument is for pids, as in `bomb`.",
            "A group has a method that moves the caller into it, when it is called without a "
            "number; `inside` calls it in a child. Here it is the caller who goes.",
        ),
    ),
    "06.3": Exercise(
        "verdict",
        _verdict,
        (
            "A status of 0 or more is an exit, a negative one a signal.",
            "The OOM killer sends SIGKILL, and counts it in oom_kills. The counter may have been "
            "above 0 before.",
            "Three cases in this order: not negative; SIGKILL and the counter has grown; all else.",
        ),
    ),
}
