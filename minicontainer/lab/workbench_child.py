"""A throwaway child in the workbench: becomes a shell, or calls a function of the notebook.

A request has either

shell                a script for /bin/sh
source, name, args   the text of a function and what it needs, its name, its arguments

and two descriptors: `output`, which becomes stdout and stderr, and `report`, on which a call leaves
the repr of {"value": …} or {"error": …, "line": …}. A call that execs leaves nothing there.
"""

from __future__ import annotations

import _signal as signal
import ast
import errno
import os
import resource
import sys
import traceback

MAX_REQUEST = 1 << 17
MEMORY = 2 << 30  # bytes of data for each process: an endless list ends before the machine does
FILENAME = "<notebook>"
ESCAPED = "(in a child process that was forked and not ended by exec or os._exit)"
ENVIRONMENT = {
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    # Busybox in /bin first: its output is the same on every distribution.
    "PATH": "/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
    "TERM": "dumb",
}


def work(request: dict, output: int, report: int) -> None:
    """Do the request; ends the process."""
    become_plain(output, report)
    children = []
    os.register_at_fork(after_in_child=lambda: children.append(os.getpid()))
    if "shell" in request:
        try:
            os.execve("/bin/sh", ["sh", "-c", request["shell"]], ENVIRONMENT)
        except OSError as error:  # by the attendee's doing, or for too long a script
            print(words(error))
            os._exit(127 if error.errno == errno.ENOENT else 126)
    answer = call(request["source"], request["name"], ast.literal_eval(request["args"]))
    if children:  # the report is for the process that init waits for
        if "status" not in answer:  # sys.exit ends a child as it should
            print(answer.get("error") or f"{request['name']} returned", ESCAPED)
        os._exit(answer.get("status", 1))
    sys.stdout.flush()
    os.write(report, repr(answer).encode())
    os._exit(answer.get("status", 1 if "error" in answer else 0))


def become_plain(output: int, report: int) -> None:
    """What a process finds that a shell started: descriptors, signals, environment, session."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.set_inheritable(report, False)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(ENVIRONMENT)
    os.chdir("/")
    os.umask(0o022)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    # Line by line, so that nothing is lost by exec.
    sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1, errors="replace", closefd=False)


def call(source: str, name: str, args: tuple) -> dict:
    """Run the text of a function, then the function."""
    try:
        namespace: dict = {"__name__": "__main__"}
        exec(compile(source, FILENAME, "exec"), namespace)
        value = namespace[name](*args)
        try:
            ast.literal_eval(repr(value))
        except (ValueError, SyntaxError):
            kind = type(value).__name__
            return {"error": f"{name} returned a {kind}; only numbers, text and lists of them "
                             "can leave the workbench"}  # fmt: skip
        return {"value": value}
    except SystemExit as end:
        return {"value": None, "status": end.code if isinstance(end.code, int) else 0}
    except BaseException as error:
        return {"error": words(error), "where": where(error, source), "errno": number(error)}


def words(error: BaseException) -> str:
    """The error in one line; of a system call, errno's name and the kernel's words."""
    if isinstance(error, OSError) and error.errno:
        kernel = os.strerror(error.errno)
        text = str(error.strerror or "")
        shown = repr(error.filename) if text == kernel and error.filename is not None else text
        name = errno.errorcode.get(error.errno, error.errno)
        return f"{name} ({kernel})" + (f": {shown}" if shown != kernel else "")
    return traceback.format_exception_only(error)[-1].strip()


def number(error: BaseException) -> int:
    return getattr(error, "errno", None) or 0


def where(error: BaseException, source: str) -> str:
    """The line of the notebook's text in which it was raised."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == FILENAME]
    text = source.splitlines()
    if lines and lines[-1] and lines[-1] <= len(text):
        return text[lines[-1] - 1].strip()
    return ""
