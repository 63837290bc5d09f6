"""The workbench: a host that a lesson can spoil, and that is gone with the notebook.

    bench = Workbench()
    bench.sh("mount -t tmpfs none /mnt; cat /proc/self/mountinfo")
    bench.run(function, "/srv/tiny")

Nothing here forks or unshares: the notebook's process has threads. The calls go to a process of
their own (`workbench_init`), started at the first one, as root or as an ordinary user.
"""

from __future__ import annotations

import ast
import atexit
import codecs
import contextlib
import json
import os
import selectors
import shutil
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass

from ..kernel import rights
from . import elf, source, workbench_child, workbench_limits
from .workbench_child import MAX_REQUEST

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# More than a reader looks at and less than a browser chokes on, in characters.
MAX_OUTPUT = 50_000
_INIT = """\
import sys
sys.path.insert(0, sys.argv[1])
from minicontainer.lab import workbench_init
workbench_init.keep(int(sys.argv[2]), sys.argv[3], sys.argv[4])
"""


class WorkbenchError(Exception):
    """There is no workbench, or it could not take the request; the text says why, and the fix."""


@dataclass
class Outcome:
    """How one call in the workbench ended.

    output     what it wrote, stdout and stderr in their order
    status     exit status; negative when a signal ended it, as in subprocess
    value      what the function returned
    error      why the function has no value: its exception in one line, or a refusal; "" else
    where      the line of the function's text that raised
    errno      the number of an OSError, else 0
    timed_out  it was killed after its time
    """

    output: str = ""
    status: int = 0
    value: object = None
    error: str = ""
    where: str = ""
    errno: int = 0
    timed_out: bool = False


def print_now(text: str) -> None:
    print(text, end="", flush=True)


class Workbench:
    """One throwaway host. Calls come one after another, from any thread."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._socket: socket.socket | None = None
        self._lock = threading.RLock()
        self._owner = os.getpid()
        self._lost = False  # an earlier host of this object ended by itself
        self.limit = ""  # what holds back a fork bomb: "cgroup" or "rlimit"
        _open.add(self)

    # --- what cells call ------------------------------------------------------------------------

    def sh(self, script: str, timeout: float = 20) -> None:
        """Run a shell script in the workbench and print what it prints."""
        explain(self.shell(script, timeout, echo=print_now), timeout, of_script=True)

    def run(
        self, function: Callable, *args: object, timeout: float = 20,
        echo: Callable[[str], object] = print_now,
    ) -> object:  # fmt: skip
        """Call a function in a throwaway process of the workbench; returns what it returns.

        Its output is printed, and so is its exception, in one line: a failure is something to look
        at here, and the notebook goes on. Arguments and value are plain data. echo gets its output
        piece by piece, in place of printing it.
        """
        outcome = self.call(function, *args, timeout=timeout, echo=echo)
        explain(outcome, timeout)
        return outcome.value

    def deny_devices(self, group: str, *devices: str) -> None:
        """Take devices, each as "c 1:3 rwm", from a control group; all others are allowed.

        For this the kernel asks for rights over the host, which nothing inside has: it is done from
        outside, for a group of the workbench alone, named by its path below the topmost, as "box".
        Prints why not, as for an ordinary user.
        """
        try:
            workbench_limits.deny_devices(self.pid, group, devices)
        except (OSError, ValueError) as error:
            _line(workbench_child.words(error))

    def reset(self) -> None:
        """Throw this host away and start another."""
        self.close()
        self._start()

    def close(self) -> None:
        """End the host and everything in it; returns when it is gone. Harmless twice."""
        with self._lock:
            self._lost = False
            if self._socket is not None:
                self._socket.close()
            if self._process is not None and self._owner == os.getpid():
                self._process.wait()
            self._socket = self._process = None

    # --- what checks and tests call -------------------------------------------------------------

    def shell(self, script: str, timeout: float = 20, echo: Callable = str) -> Outcome:
        """As `sh`, but tells the outcome instead of printing it."""
        return self._request({"shell": script}, timeout, echo)

    def call(
        self, function: Callable, *args: object, timeout: float = 20, echo: Callable = str
    ) -> Outcome:
        """As `run`, but tells the outcome instead of printing it."""
        try:
            text = source.text_of(function)
        except source.NotSendable as reason:
            return Outcome(error=str(reason), status=1)
        request = {"source": text, "name": function.__name__, "args": repr(args)}
        return self._request(request, timeout, echo)

    @property
    def pid(self) -> int:
        """The process that keeps the host; it is started when it does not run."""
        with self._lock:
            self._start()
            assert self._process is not None
            return self._process.pid

    def __enter__(self) -> Workbench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the wire -------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._owner != os.getpid():  # after a fork the host is somebody else's
            self._process = self._socket = None
            self._owner = os.getpid()
        if self._process is not None and self._process.poll() is None:
            return
        if self._process is not None or self._lost:
            self.close()
            _line("the workbench had ended; this is a fresh one: run the lesson from its reset on")
        busybox = find_busybox()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-X", "utf8", "-c", _INIT, os.path.dirname(PACKAGE),
                 str(theirs.fileno()), PACKAGE, busybox],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                # Jupyter kills a kernel with its process group; the keeper has to clean up then.
                start_new_session=True,
            )  # fmt: skip
        self._socket = ours
        started.add(self._process.pid)
        answer = self._receive()
        if not answer.get("ready"):
            self.close()
            raise WorkbenchError(answer.get("failed", "the workbench ended while it was built"))
        self.limit = answer["limit"]

    def _receive(self) -> dict:
        """The next message of init; {} when it is gone."""
        assert self._socket is not None
        try:
            return json.loads(self._socket.recv(MAX_REQUEST) or b"{}")
        except ConnectionError:
            return {}

    def _request(self, request: dict, timeout: float, echo: Callable) -> Outcome:
        with self._lock, contextlib.ExitStack() as stack:
            self._start()
            assert self._socket is not None
            message = json.dumps({**request, "timeout": timeout}).encode()
            if len(message) > MAX_REQUEST:
                return Outcome(error="too much text for one call", status=1)
            pipes = _Pipes(stack, echo)
            try:
                rights.send(self._socket, message, pipes.theirs)
            except ConnectionError:
                pass  # `relay` finds the end
            finally:
                pipes.close_theirs()
            try:
                answer = pipes.relay(self._socket, self._receive)
            except BaseException:  # Ctrl-C: what runs is killed, the host stays
                with contextlib.suppress(OSError):
                    rights.send(self._socket, b"{}", [])
                    self._receive()
                raise
            return self._outcome(pipes, answer)

    def _outcome(self, pipes: _Pipes, answer: dict) -> Outcome:
        outcome = Outcome(output=pipes.text, status=answer.get("status", 1))
        if not answer:
            self.close()
            self._lost = True
            outcome.error = "the workbench has ended (was its process killed?)"
            return outcome
        if "refused" in answer:
            outcome.error = answer["refused"]
        outcome.timed_out = answer.get("timed_out", False)
        if pipes.report:
            for name, value in ast.literal_eval(pipes.report.decode()).items():
                setattr(outcome, name, value)
        return outcome


class _Pipes:
    """The two pipes of one call: what it prints, and what it reports."""

    def __init__(self, stack: contextlib.ExitStack, echo: Callable) -> None:
        self.echo = echo
        self.text = ""
        self.report = b""
        self.theirs: list[int] = []
        self.selector = stack.enter_context(selectors.DefaultSelector())
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for name in ("output", "report"):
            read_fd, write_fd = os.pipe()
            os.set_blocking(read_fd, False)
            stack.callback(os.close, read_fd)
            self.theirs.append(write_fd)
            self.selector.register(read_fd, selectors.EVENT_READ, name)

    def close_theirs(self) -> None:
        for fd in self.theirs:
            os.close(fd)

    def relay(self, events: socket.socket, receive: Callable[[], dict]) -> dict:
        """Pass output on until init answers; returns its answer.

        Not until the pipe closes: a program left in the background holds it open.
        """
        self.selector.register(events, selectors.EVENT_READ, "answer")
        while True:
            answer = None
            for key, _ in self.selector.select():
                if key.data == "answer":
                    answer = receive()
                else:
                    self._read(key.fd, key.data)
            if answer is not None:
                break
        for key in list(self.selector.get_map().values()):
            while key.data != "answer" and self._read(key.fd, key.data):
                pass  # all that it wrote before its end
        return answer

    def _read(self, fd: int, name: str) -> bool:
        """Take one piece from a pipe; False when there is none now."""
        try:
            chunk = os.read(fd, 65536)
        except BlockingIOError:
            return False
        if not chunk:
            with contextlib.suppress(KeyError):
                self.selector.unregister(fd)
        elif name == "report":
            self.report += chunk
        else:
            self._keep(self.decoder.decode(chunk))
        return bool(chunk)

    def _keep(self, text: str) -> None:
        room = MAX_OUTPUT - len(self.text)
        if room <= 0:
            return
        if len(text) > room:
            text = f"{text[:room]}\n… the rest of the output is left out\n"
        self.text += text
        self.echo(text)


def _line(text: str) -> None:
    print(text, flush=True)


def explain(outcome: Outcome, timeout: float, of_script: bool = False) -> None:
    """Say in words why a call has no good end. of_script: an exit status is worth a word, too."""
    if outcome.timed_out:
        _line(f"killed after {timeout:g} s, with all that ran in the workbench")
    elif outcome.error:
        _line(outcome.error + (f"\n  in: {outcome.where}" if outcome.where else ""))
    elif of_script and outcome.status:
        _line(f"exit status {outcome.status}")


def find_busybox() -> str:
    """The path of a static busybox. Raises WorkbenchError."""
    path = shutil.which("busybox", path=os.defpath + ":/usr/sbin:/sbin:/usr/local/bin")
    fix = "sudo apt install busybox-static (dnf: sudo dnf install busybox)"
    if path is None:
        raise WorkbenchError(f"the workbench needs busybox, which is not installed\n  fix: {fix}")
    if elf.interpreter(path):
        raise WorkbenchError(f"{path} is not static: it needs libraries\n  fix: {fix}")
    return path


# The keepers of this process, also those that have ended: their cgroups have their numbers.
started: set[int] = set()
_open: weakref.WeakSet[Workbench] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for bench in list(_open):
        bench.close()
