"""The guest as the suite sees it: a process beside it, and two files that grow."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.roots import REPOSITORY

# Nothing said for so long: longer than the guest's pytest lets one test take (selection.OPTIONS).
QUIET_S = 300
SWITCH_OFF_S = 20
LAST_LINES = 30


class GuestFailed(Exception):
    """The guest ended early, or hangs; with the last lines of its console."""


class Beside:
    """Starts at once; `stop` ends it at any time and removes its directory."""

    def __init__(self, command: Sequence[str] = (sys.executable, "-m", "tests.v2_rig.guest")):
        self.directory = Path(tempfile.mkdtemp(prefix="v2-rig-"))
        self.lines: defaultdict[str, deque[dict]] = defaultdict(deque)
        self.read = 0
        self.cpu_s = 0.0
        self.accelerator = ""
        with (self.directory / "log").open("wb") as log:
            # A session of its own: Ctrl-C is for the suite, which then calls `stop`.
            self.process = subprocess.Popen(
                [*command, str(self.directory)], cwd=REPOSITORY, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            )  # fmt: skip

    def follow(self, name: str, quiet_s: float = QUIET_S) -> Iterator[dict]:
        """Each line of this pass as it comes, up to its exit. Raises GuestFailed."""
        while True:
            ended = self._ended()
            self._read_on()
            while self.lines[name]:
                line = self.lines[name].popleft()
                yield line
                if "exit" in line:
                    return
            if ended:
                raise GuestFailed(f"the guest ended before the pass {name!r} did; {self.words()}")
            if time.time() - self._heard() > quiet_s:
                self._kill()
                raise GuestFailed(f"the guest said nothing for {quiet_s} s; {self.words()}")
            time.sleep(0.2)

    def words(self) -> str:
        """The last lines of the console, and of what the image's maker and QEMU themselves say."""
        console, log = (self._text(name).splitlines() for name in ("console", "log"))
        said = {"console": console[-LAST_LINES:], "log": log[-3 if console else -LAST_LINES :]}
        return "; ".join(f"last lines of its {name}:\n" + "\n".join(lines)
                         for name, lines in said.items() if lines)  # fmt: skip

    def stop(self) -> None:
        """A guest that has said all is given the time to switch itself off."""
        self._read_on()
        deadline = time.monotonic() + SWITCH_OFF_S
        while self.lines[""] and not self._ended() and time.monotonic() < deadline:
            time.sleep(0.05)
        self._kill()
        self.accelerator = self._text("accelerator") or self.accelerator
        shutil.rmtree(self.directory, ignore_errors=True)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            if not self._ended():
                os.killpg(self.process.pid, signal.SIGKILL)
        while not self._ended():
            time.sleep(0.01)

    def _ended(self) -> bool:
        """Also takes the time that it has used, QEMU's with it: wait4(2) tells only once."""
        if self.process.returncode is None:
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
            if not pid:
                return False
            self.process.returncode = os.waitstatus_to_exitcode(status)
            if self.process.returncode >= 0:  # else it has not waited for QEMU
                self.cpu_s = usage.ru_utime + usage.ru_stime
        return True

    def _heard(self) -> float:
        names = ("log", "accelerator", "console", "results")
        found = [path.stat().st_mtime for name in names if (path := self.directory / name).exists()]
        return max(found)

    def _read_on(self) -> None:
        path = self.directory / "results"
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self.read)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # the rest of it is still to come
                self.read += len(line)
                found = json.loads(line)
                self.lines[found["pass"]].append(found)

    def _text(self, name: str) -> str:
        path = self.directory / name
        return path.read_text(errors="replace").replace("\r", "") if path.exists() else ""
