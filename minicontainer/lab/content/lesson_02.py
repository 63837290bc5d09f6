"""Lesson 02, chroot: the letters of its predictions, and the checks of its exercises."""

from __future__ import annotations

import errno
from collections.abc import Callable

from .. import elf
from ..catalogue import Exercise, NotYet
from ..judging import SECONDS, fact, must_run, text_of
from ..workbench import Workbench

PREDICTIONS = {"02.a": "c", "02.b": "b", "02.c": "c", "02.d": "a"}

TREE = "/srv/exercise"
PROGRAM = "/opt/dynamic/ls"
MAKE_TREE = f"mkdir -p {TREE}/bin && cp /bin/busybox {TREE}/bin/ && ln -s busybox {TREE}/bin/sh"


# --- 02.1: a dynamic program needs its loader and its libraries ---------------------------------


def _move_in(bench: Workbench, answer: Callable) -> str:
    bench.shell(f"mkdir {TREE}")
    must_run(bench.call(answer, PROGRAM, TREE, timeout=SECONDS), "move_in")
    if bench.shell(f"test -f {TREE}{PROGRAM}").status:
        raise NotYet(f"The program is not in the tree: there is no {TREE}{PROGRAM}.")
    loader = fact(bench.call(elf.interpreter, PROGRAM))
    if bench.shell(f"test -e {TREE}{loader}").status:
        raise NotYet(f"The loader is missing: the kernel looks for {loader} inside the tree.")
    outcome = bench.shell(f"chroot {TREE} {PROGRAM} /opt")
    if outcome.status:
        said = outcome.output.strip().splitlines()[-1:] or [f"status {outcome.status}"]
        raise NotYet(f"The program starts, and its loader gives up: {said[0]}")
    return "The program runs in the tree: loader and libraries are where it looks for them."


# --- 02.2: who lives in a chroot ----------------------------------------------------------------


def _inhabit(tree: str) -> tuple[list[int], int]:
    """Start three processes in the background: two whose root is `tree`, one that stands there."""
    import os
    import signal

    pids = []
    for chrooted in (True, False, True):
        ready, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.chdir(tree)
            if chrooted:
                os.chroot(tree)
            os.close(tell)
            signal.pause()
        os.close(tell)
        os.read(ready, 1)  # end of file: the child has done it
        pids.append(pid)
    return [pids[0], pids[2]], pids[1]


def _jailed(bench: Workbench, answer: Callable) -> str:
    bench.shell(MAKE_TREE)
    jailed, visitor = fact(bench.call(_inhabit, TREE))
    found = must_run(bench.call(answer, timeout=SECONDS), "jailed")
    if not isinstance(found, list | tuple | set):
        raise NotYet(f"jailed returned {found!r}; a list of process numbers is wanted.")
    if any(isinstance(pid, str) for pid in found):
        raise NotYet("Your list has the numbers as text: int(name) makes a number of each.")
    if visitor in found:
        raise NotYet(
            f"Your list has a process whose working directory is {TREE}, but whose root is /. "
            "Where a process stands says nothing about its root."
        )
    if set(found) - set(jailed):
        raise NotYet("Your list has processes whose root is / like yours.")
    if set(jailed) - set(found):
        raise NotYet(f"Your list lacks a process whose root, in /proc, is {TREE}.")
    return "These two and no other: the root of a process is one link in /proc."


# --- 02.3: a chroot that holds ------------------------------------------------------------------


def _seal_and_escape(text: str, tree: str) -> str:
    """Call the answer, then do all to leave; returns how far that came."""
    import os

    inside = os.stat(tree)
    namespace: dict = {"__name__": "__main__"}
    exec(text, namespace)
    namespace["sealed_root"](tree)
    if not os.path.samestat(os.stat("/"), inside):
        return "no chroot"
    words = ["busybox", "chroot", "/", "/bin/sh", "-c", ":"]
    again = os.spawnv(os.P_WAIT, "/bin/busybox", words) == 0
    try:
        os.mkdir("/below")
        os.chroot("/below")
    except PermissionError:
        return "exec" if again else "sealed"
    return "escaped"


def _sealed_root(bench: Workbench, answer: Callable) -> str:
    bench.shell(MAKE_TREE)
    outcome = bench.call(_seal_and_escape, text_of(answer), TREE, timeout=SECONDS)
    if outcome.errno == errno.EPERM:
        raise NotYet(
            f"sealed_root failed: {outcome.error}. The order matters: who has given the right away "
            "has it no more."
        )
    end = must_run(outcome, "sealed_root")
    if end == "no chroot":
        raise NotYet("After sealed_root the root of the process is not the tree.")
    if end == "escaped":
        raise NotYet("A second chroot still works, so the escape does: CAP_SYS_CHROOT is left.")
    if end == "exec":
        raise NotYet(
            "The process itself is held, but a program that it starts with exec is not: root gets "
            "its capabilities back there, as far as the bounding set goes."
        )
    return "Neither the process nor a program that it starts can call chroot again."


EXERCISES = {
    "02.1": Exercise(
        "move_in",
        _move_in,
        (
            "Three things must be in the tree, each at the very path where it lies outside.",
            "elf.interpreter(program) names the loader, elf.libraries(program) the libraries.",
            "Make a list of the three kinds of paths. For each: os.makedirs for the directory "
            "below root (exist_ok=True), then shutil.copy. A path that starts with / is joined "
            "to root by +, not by os.path.join.",
        ),
    ),
    "02.2": Exercise(
        "jailed",
        _jailed,
        (
            "Each process has a directory in /proc, and in it a link that names its root.",
            "os.readlink(f'/proc/{pid}/root') is / for a process that is in no chroot.",
            "Go through os.listdir('/proc'), keep the names that are decimal numbers, and of "
            "these the ones whose link is not /. Return numbers, not text.",
        ),
    ),
    "02.3": Exercise(
        "sealed_root",
        _sealed_root,
        (
            "The escape needs a second chroot(2). Which right does chroot(2) ask for?",
            "It is CAP_SYS_CHROOT. Call change_root first, while you still have it.",
            "capabilities.mask([...]) makes a mask, ~ turns it round to 'all but this'. The "
            "bounding set (drop_bounding) rules over exec, set_all over this process: you need "
            "both, in this order.",
        ),
    ),
}
