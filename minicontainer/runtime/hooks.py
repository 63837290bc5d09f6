"""Hooks: programs of the user that are run at points of a container's life.

https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config.md#posix-platform-hooks
Each gets the container's state as JSON on its stdin. This also runs in the container's init, after
its files have become a stranger's: nothing may be imported here when called.
"""

from __future__ import annotations

import _signal as signal
import os
import select

from . import jsonfile
from .errors import ContainerError, kernel_words

BEFORE_PIVOT = ("prestart", "createRuntime", "createContainer")
_SHOWN = 1000  # bytes of a failed hook's output in the error


def run(hooks: dict, kind: str, state: dict) -> None:
    """Run the hooks of one kind, in order. Raises ContainerError at the first that fails."""
    text = jsonfile.dumps(state).encode() if hooks.get(kind) else b""
    for n, hook in enumerate(hooks.get(kind) or ()):
        _run_one(hook, f"hooks.{kind}[{n}]", text)


def failures(hooks: dict, kind: str, state: dict) -> list[str]:
    """Run all of one kind, whatever fails; returns why each that failed did."""
    found = []
    for hook in hooks.get(kind) or ():
        try:
            run({kind: [hook]}, kind, state)
        except ContainerError as error:
            found.append(str(error))
    return found


def _run_one(hook: dict, name: str, state: bytes) -> None:
    # Memory files, not pipes: a hook that does not read, or prints a lot, holds nobody up.
    stdin, output = os.memfd_create("state"), os.memfd_create("output")
    try:
        os.write(stdin, state)
        os.lseek(stdin, 0, os.SEEK_SET)
        pid = os.fork()
        if pid == 0:
            _become(hook, stdin, output)
        status = _wait(pid, hook.get("timeout"))
        said = os.pread(output, _SHOWN, 0).decode(errors="replace").strip()
    finally:
        os.close(stdin)
        os.close(output)
    if status:
        code = os.waitstatus_to_exitcode(status) if status > 0 else 0
        why = f"exit status {code}" if code > 0 else f"killed by signal {-code}"
        if status < 0:
            why = f"timed out after {hook['timeout']} s"
        raise ContainerError(f"{name}: {hook['path']}: {why}{': ' if said else ''}{said}")


def _become(hook: dict, stdin: int, output: int) -> None:
    try:
        os.setsid()  # so that a timeout reaches what it has started, too
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        for fd, target in ((stdin, 0), (output, 1), (output, 2)):
            os.dup2(fd, target, inheritable=True)
        env = dict(entry.split("=", 1) for entry in hook.get("env") or ())
        os.execve(hook["path"], hook.get("args") or [hook["path"]], env)
    except OSError as error:
        os.write(output, kernel_words(error.errno or 0).encode())
    finally:
        os._exit(127)


def _wait(pid: int, timeout: int | None) -> int:
    """The wait status, or -1 when the time was up."""
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if poll.poll(timeout * 1000 if timeout else None):
            return os.waitpid(pid, 0)[1]
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            os.kill(pid, signal.SIGKILL)  # it has not come to setsid yet
        os.waitpid(pid, 0)
        return -1
    finally:
        os.close(pidfd)
