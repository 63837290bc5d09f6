"""Lesson 04, UTS, IPC, PID and time namespaces: its predictions, the checks of its exercises."""

from __future__ import annotations

import ast
import os
import signal
import time
from collections.abc import Callable

from ...kernel import namespaces, syscalls
from ..catalogue import Exercise, NotYet
from ..judging import SECONDS, background, fact, function_of, must_run, text_of
from ..workbench import Workbench

PREDICTIONS = {"04.a": "a", "04.b": "b", "04.c": "c", "04.d": "b"}


# --- 04.1: what do two processes share? ---------------------------------------------------------

APART = {"uts", "ipc"}


def _start_apart() -> int:
    return background(lambda: namespaces.unshare(APART))


def _shared(bench: Workbench, answer: Callable) -> str:
    kinds = set(fact(bench.call(namespaces.available)))
    pid = fact(bench.call(_start_apart))
    found = must_run(bench.call(answer, pid, 1, timeout=SECONDS), "shared")
    if not isinstance(found, list | tuple | set):
        raise NotYet(f"shared returned {found!r}; a set of names is wanted.")
    names = set(found)
    if not all(isinstance(name, str) for name in names):
        raise NotYet("The set is to have the names of the kinds alone, without the numbers.")
    if names == APART:
        raise NotYet("These are the kinds in which the two differ. The others are wanted.")
    if names & APART:
        raise NotYet(
            f"Your set has {' and '.join(sorted(names & APART))}, and there the two processes are "
            "in different namespaces. Every process has all kinds: compare their numbers."
        )
    if names != kinds - APART:
        wrong = ", ".join(sorted(names ^ (kinds - APART)))
        raise NotYet(f"Your set is not complete, or has something that is no kind: {wrong}.")
    everything = must_run(bench.call(answer, 1, 1, timeout=SECONDS), "shared")
    if set(everything) != kinds:
        raise NotYet("A process shares everything with itself: try shared(1, 1).")
    return "Equal numbers, the same namespace: that is all there is to compare."


# --- 04.2: an init ------------------------------------------------------------------------------

DONE, ZOMBIES, AS_INIT, ORPHAN = 7, 70, 71, 3  # exit statuses


def _program() -> None:
    """Make three orphans that end at once, then wait until all of them are reaped."""
    if os.getpid() == 1:
        os._exit(AS_INIT)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # the answer may have ignored it
    for _ in range(3):
        child = os.fork()
        if child == 0:
            if os.fork() == 0:
                while os.getppid() != 1:
                    time.sleep(0.001)
                os._exit(ORPHAN)
            os._exit(0)
        os.waitpid(child, 0)
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        if {name for name in os.listdir("/proc") if name.isdecimal()} == {"1", str(os.getpid())}:
            os._exit(DONE)
        time.sleep(0.01)
    os._exit(ZOMBIES)


def _run_init(text: str) -> tuple[int, str, int | str]:
    """How PID 1 of a new namespace ended, what the answer raised, what it returned in there."""
    read_fd, write_fd = os.pipe()
    namespaces.unshare(["pid", "mount"])
    pid = os.fork()
    if pid == 0:
        os.close(read_fd)
        syscalls.mount("proc", "/proc", "proc", 0, None)
        try:
            value = function_of(text, "init")(_program)
            report = "", value if isinstance(value, int) else repr(value)
        except Exception as error:
            report = f"{type(error).__name__}: {error}", ""
        os.write(write_fd, repr(report).encode() + b"\n")
        os._exit(0)
    os.close(write_fd)
    with open(read_fd) as pipe:
        said = pipe.read().partition("\n")[0]  # of two, when the answer raised in its child
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, *(ast.literal_eval(said) if said else ("", ""))


def _init(bench: Workbench, answer: Callable) -> str:
    outcome = bench.call(_run_init, text_of(answer), timeout=SECONDS)
    status, error, value = must_run(outcome, "init")
    if status == AS_INIT:
        raise NotYet("program() was called in PID 1 itself, which then is the program: fork first.")
    if error:
        raise NotYet(f"init failed: {error}")
    if value == ZOMBIES:
        raise NotYet(
            "The program has ended, and all the time there were zombies in /proc: its orphans, "
            "which PID 1 got as children and never waited for."
        )
    if value == ORPHAN:
        raise NotYet(
            "init returned the status of an orphan that ended before the program. wait() tells "
            "which process it was: go on until it is yours."
        )
    if value == DONE << 8:
        raise NotYet(
            f"init returned {value}, the status as the kernel packs it. "
            "os.waitstatus_to_exitcode makes an exit status of it."
        )
    if value != DONE:
        raise NotYet(f"The program ended with status {DONE}, and init returned {value}.")
    return "No zombie was left, and the program's status came through."


# --- 04.3: docker exec --------------------------------------------------------------------------

KINDS = ("uts", "ipc", "pid", "mount")
INSIDE, NOT_FORKED = 42, 43  # exit statuses


def _contain() -> int:
    """Start a container without a program; returns the number of its PID 1."""

    def build() -> None:
        syscalls.sethostname("box")
        syscalls.mount("proc", "/proc", "proc", 0, None)

    namespaces.unshare(KINDS)
    return background(build)


def _call_enter(text: str, pid: int) -> tuple[list[str], object]:
    """The namespaces that work() was in by mistake, and what the answer returned."""
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)  # of the workbench, wherever we go
    wanted, caller = namespaces.inodes(pid), os.readlink("self", dir_fd=proc)
    read_fd, write_fd = os.pipe()

    def work() -> None:
        if os.readlink("self", dir_fd=proc) == caller:
            os._exit(NOT_FORKED)
        for kind in KINDS:
            path = f"self/ns/{namespaces.NAMESPACES[kind][0]}"
            if os.stat(path, dir_fd=proc).st_ino != wanted[kind]:
                os.write(write_fd, kind.encode() + b" ")
        os._exit(INSIDE)

    value = function_of(text, "enter")(pid, work)
    os.close(write_fd)
    with open(read_fd) as pipe:
        return pipe.read().split(), value


def _enter(bench: Workbench, answer: Callable) -> str:
    pid = fact(bench.call(_contain))
    outcome = bench.call(_call_enter, text_of(answer), pid, timeout=SECONDS)
    if outcome.status == NOT_FORKED:
        raise NotYet("work() was called in the calling process, which never comes back: fork.")
    missed, value = must_run(outcome, "enter")
    if missed == ["pid"]:
        raise NotYet(
            "work() is in the right place but for pid: setns into a PID namespace, like unshare, "
            "holds for the children that are forked after it."
        )
    if missed:
        raise NotYet(f"work() is not in these namespaces of the container: {', '.join(missed)}.")
    if value != INSIDE:
        raise NotYet(f"work() ended with status {INSIDE}, and enter returned {value!r}.")
    return "The child was inside in all four kinds, and its status came back."


EXERCISES = {
    "04.1": Exercise(
        "shared",
        _shared,
        (
            "Two processes are in the same namespace when its number is the same.",
            "Call namespaces.inodes for a and for b, and go through the kinds.",
            "Both dictionaries have the same keys. Put into a set each kind for which the two "
            "values are equal.",
        ),
    ),
    "04.2": Exercise(
        "init",
        _init,
        (
            "fork first. Then the parent waits, not for one process, but for any.",
            "os.wait() returns (pid, status) of any child that has ended, also of those that were "
            "given to PID 1.",
            "Call os.wait() again and again. When the pid is the one that your fork returned, "
            "give os.waitstatus_to_exitcode the status, and return what it says.",
        ),
    ),
    "04.3": Exercise(
        "enter",
        _enter,
        (
            "Three steps: open the files of the namespaces, enter each, then fork.",
            "Open all four before you enter the first: once you are in mnt, /proc is another one.",
            "os.open(f'/proc/{pid}/ns/uts', os.O_RDONLY) and so on; syscalls.setns for each; "
            "os.fork, the work in the child; then as in end_of.",
        ),
    ),
}
