"""Running compilers and package tools: progress while they run, their last words when they fail,
and none of them left behind.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence

from kit.recipe import Failed

LAST_LINES = 12
TERM_GRACE_S = 10  # mmdebstrap unmounts and cleans up when it is told to end
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    """In the child: when the builder is killed, even by kill -9, the tool ends too (prctl(2))."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def find(name: str, package: str) -> str:
    """The path of a tool. Raises Failed with the way to get it."""
    path = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if path is None:
        raise Failed(f"{name} is not installed", f"sudo ./workshop setup; or apt install {package}")
    return path


def version(name: str, package: str) -> str:
    """The first line of `name --version`. Raises Failed when it is missing or does not run."""
    path = find(name, package)
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, errors="replace", check=False
        )
    except OSError as error:
        raise Failed(f"{path} does not run: {error.strerror}", f"apt install {package}") from error
    return (done.stdout or "unknown").splitlines()[0].strip()


def require_space(directory: str, megabytes: int) -> None:
    """Raises OSError, ENOSPC, before a tool is started that would not notice."""
    status = os.statvfs(directory)
    if status.f_bavail * status.f_frsize < megabytes * 1_000_000:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), directory)


class Tools:
    """Runs the tools of one recipe.

    lock: the descriptor of the cache's lock, which each tool inherits: the lock is free only when
          the last of them has gone.
    """

    def __init__(self, scratch: str, lock: int, progress: Callable[[str], None]) -> None:
        self.scratch = scratch
        self.lock = lock
        self.progress = progress

    def run(
        self,
        argv: list[str],
        fix: str,
        *,
        within: Sequence[str] = (),
        stdin: str = "",
        **variables: str,
    ) -> None:
        """Run `argv` in the scratch directory, quietly. Raises Failed with its last lines.

        within: words before it, of a command that runs it in some namespace.
        """
        log = os.path.join(self.scratch, "log")
        given = os.path.join(self.scratch, "stdin")
        environment = {**os.environ, "LC_ALL": "C", "TMPDIR": self.scratch, **variables}
        with open(given, "w", encoding="utf-8") as file:
            file.write(stdin)
        with open(log, "wb") as output, open(given, "rb") as source:
            try:
                process = subprocess.Popen(
                    [*within, *argv], stdin=source, stdout=output, stderr=subprocess.STDOUT,
                    cwd=self.scratch, env=environment, pass_fds=[self.lock],
                    start_new_session=True,
                    preexec_fn=_die_with_parent,  # noqa: PLW1509 (there are no threads here)
                )  # fmt: skip
            except OSError as error:
                raise Failed(f"{argv[0]} does not start: {error.strerror}", fix) from error
            try:
                self._wait(process, log)
            except BaseException:
                _end(process)
                raise
        if process.returncode:
            code = process.returncode
            ended = f"exit code {code}" if code > 0 else f"signal {-code}"
            raise Failed(f"{os.path.basename(argv[0])} failed, {ended}", fix, last_lines(log))

    def _wait(self, process: subprocess.Popen[bytes], log: str) -> None:
        pause_s = 0.005
        while process.poll() is None:
            time.sleep(pause_s)
            pause_s = min(0.2, pause_s * 1.5)
            lines = last_lines(log)
            self.progress(lines[-1] if lines else "")


def _end(process: subprocess.Popen[bytes]) -> None:
    """The tool and what it started: they are one process group."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(TERM_GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def last_lines(log: str, size: int = 8192) -> list[str]:
    with open(log, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - size))
        text = file.read().decode(errors="replace").replace("\r", "\n")
    return [line for line in text.splitlines() if line.strip()][-LAST_LINES:]
