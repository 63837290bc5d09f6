"""Lesson 01, a process: the letters of its predictions, and the checks of its exercises."""

from __future__ import annotations

import errno
from collections.abc import Callable

from ..catalogue import Exercise, NotYet
from ..judging import SECONDS, fact, must_run, text_of
from ..workbench import Workbench
from ..workbench_child import ESCAPED

PREDICTIONS = {"01.a": "a", "01.b": "b", "01.c": "c", "01.d": "b", "01.e": "a"}

NOISE = "/srv/noise"  # executable, and neither a program nor a script
MAKE_NOISE = f"echo '#$%&' > {NOISE}; chmod +x {NOISE}"


def _call(text: str, name: str, argv: list[str]) -> tuple[object, int, list[str]]:
    """Call an answer; returns its value, the errno that it raised, and the state of each child."""
    import os

    namespace: dict = {"__name__": "__main__"}
    exec(text, namespace)
    value, number = None, 0
    try:
        value = namespace[name](argv)
    except OSError as error:
        if not error.errno:
            raise
        number = error.errno
    states = []
    for pid in [int(pid) for pid in os.listdir("/proc") if pid.isdecimal()]:
        with open(f"/proc/{pid}/status") as file:
            fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        if int(fields["PPid"]) == os.getpid():
            states.append(fields["State"][0])
            os.kill(pid, 9)
    return value, number, states


def _try(bench: Workbench, answer: Callable, argv: list[str]) -> tuple[object, int, list[str]]:
    """The same in the workbench. Raises NotYet for an answer that comes back in two processes."""
    name = answer.__name__
    outcome = bench.call(_call, text_of(answer), name, argv, timeout=SECONDS)
    if ESCAPED in outcome.output:
        raise NotYet(
            f"{argv[0]} cannot be executed, and then two processes come out of {name}: the child "
            "goes on with its parent's work. It has to end with os._exit."
        )
    return must_run(outcome, name)


# --- 01.1: what a shell would say ---------------------------------------------------------------


def _shell_status(bench: Workbench, answer: Callable) -> str:
    bench.shell(MAKE_NOISE)
    for what, argv, expected in (
        ("a program that succeeds", ["/bin/true"], 0),
        ("a program that ends with status 3", ["/bin/sh", "-c", "exit 3"], 3),
        ("a program that does not exist", ["/nowhere"], 127),
        ("a file without execute permission", ["/etc/passwd"], 126),
        ("a file that is no program", [NOISE], 126),
        ("a program that SIGKILL ends", ["/bin/sh", "-c", "kill -KILL $$"], 137),
        ("a program that SIGTERM ends", ["/bin/sh", "-c", "kill -TERM $$"], 143),
    ):
        value, number, states = _try(bench, answer, argv)
        if number:
            raise NotYet(
                f"For {what}, {argv[0]}, shell_status raised {errno.errorcode[number]}. A shell "
                "turns that into a number, in the child."
            )
        if states:
            raise NotYet(f"For {what} shell_status did not wait: a child is left.")
        if value != expected:
            raise NotYet(f"For {what} a shell says {expected}; shell_status returned {value!r}.")
    return "Seven ways to end, and each number is the one that a shell has in $?."


# --- 01.2: who has not been buried --------------------------------------------------------------


def _haunt(names: tuple[str, str, str]) -> tuple[list[int], int]:
    """Leave a process in the background that does not wait for its children; two have ended.

    names: of the two, and of the living one.
    """
    import os
    import signal

    ready, tell = os.pipe()

    def rename(name: str) -> None:
        with open("/proc/self/comm", "w") as file:
            file.write(name)

    parent = os.fork()
    if parent == 0:
        for name in names[:2]:
            pid = os.fork()
            if pid == 0:
                rename(name)
                os._exit(0)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            os.write(tell, f"{pid} ".encode())
        rename(names[2])
        os.close(tell)
        signal.pause()
    os.close(tell)
    with open(ready) as pipe:
        return [int(pid) for pid in pipe.read().split()], parent


def _zombies(bench: Workbench, answer: Callable) -> str:
    names = ("plain", "a) S (b", "c) Z (d")
    dead, living = fact(bench.call(_haunt, names))
    found = must_run(bench.call(answer, timeout=SECONDS), "zombies")
    if not isinstance(found, list | tuple | set):
        raise NotYet(f"zombies returned {found!r}; a list of process numbers is wanted.")
    if any(isinstance(pid, str) for pid in found):
        raise NotYet("Your list has the numbers as text: int(name) makes a number of each.")
    if living in found:
        raise NotYet(f"Your list has a process that lives; {names[2]!r} is only its name.")
    if set(found) - set(dead):
        raise NotYet("Your list has processes that have not ended.")
    if dead[1] in set(dead) - set(found):
        raise NotYet(f"Your list lacks a zombie whose name is {names[1]!r}.")
    if set(dead) - set(found):
        raise NotYet("Your list lacks a process that has ended, and that is in state Z.")
    return "These two and no other, whatever they call themselves."


# --- 01.3: started, or not ----------------------------------------------------------------------


def _launch(bench: Workbench, answer: Callable) -> str:
    bench.shell(MAKE_NOISE)
    for path, expected in (("/nowhere", "ENOENT"), ("/etc/passwd", "EACCES"), (NOISE, "ENOEXEC")):
        value, number, states = _try(bench, answer, [path])
        if not number:
            raise NotYet(
                f"{path} cannot be executed, and launch returned {value!r} instead of raising: "
                "the error is known to the child alone."
            )
        if errno.errorcode[number] != expected:
            raise NotYet(
                f"For {path} execve says {expected}; launch raised {errno.errorcode[number]}."
            )
        if states:
            raise NotYet("After a failed start a child is left; it has to be waited for.")
    outcome = bench.call(_call, text_of(answer), "launch", ["/bin/sleep", "60"], timeout=2)
    if outcome.timed_out:
        raise NotYet(
            "launch does not return while the program runs. Does it wait for the end of a pipe "
            "that somebody holds open, the program or you?"
        )
    value, number, states = must_run(outcome, "launch")
    if number or not isinstance(value, int):
        said = errno.errorcode[number] if number else repr(value)
        raise NotYet(f"/bin/sleep can be started, and launch did not return its number but {said}.")
    if len(states) != 1 or states[0] == "Z":
        raise NotYet(f"One running child was expected; the states of yours are {states}.")
    return "The number of a running program, or the errno of its execve: nothing in between."


EXERCISES = {
    "01.1": Exercise(
        "shell_status",
        _shell_status,
        (
            "Two processes: what does the child do, and what the parent? And what does the child "
            "do when it could not become the program?",
            "os.execv raises FileNotFoundError or another OSError, in the child. That is the place "
            "for 127 and 126: os._exit takes the number.",
            "os.waitstatus_to_exitcode makes one number of what os.waitpid returns: the exit "
            "status, or minus the signal. Only the second has to be changed.",
        ),
    ),
    "01.2": Exercise(
        "zombies",
        _zombies,
        (
            "Every process is a directory in /proc whose name is a number. You have a function "
            "that tells the state of one.",
            "A zombie is in state Z. /proc/PID/status has it on a line of its own, and there a "
            "name cannot disturb you.",
            "Keep the names in os.listdir('/proc') that are decimal numbers, make integers of "
            "them, and of these keep the ones for which state() is 'Z'.",
        ),
    ),
    "01.3": Exercise(
        "launch",
        _launch,
        (
            "Look at in_child again. The error takes the same way. What must not be the same: "
            "launch does not wait for the end of the program.",
            "Nothing has to be written after a successful execve: os.pipe() is close-on-exec, so "
            "the parent, which reads, sees the end.",
            "In the child: os.execv, and for an OSError write its errno to the pipe; then "
            "os._exit. In the parent: close the writing end, read. If something came, wait for "
            "the child, and raise OSError with that number.",
        ),
    ),
}
