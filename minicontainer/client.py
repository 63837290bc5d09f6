"""`import minicontainer`: run containers from Python, notebooks included.

The words are those of `subprocess.run`. Nothing here forks or unshares: requests go to the helper
process (`runtime/helper.py`), which is started at the first call and ends with this process.
"""

from __future__ import annotations

import atexit
import codecs
import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from .kernel import rights
from .runtime import plan, spec
from .runtime.errors import SIGNALLED, ContainerError


@dataclass
class Result:
    """What a container left: like subprocess.CompletedProcess, with text output.

    returncode  exit status of the command, 128 + n when signal n ended it
    steps       of a traced start: dicts with n, name, where, call, calls, start_ns, end_ns
                (CLOCK_MONOTONIC, nanoseconds)
    """

    args: list[str]
    returncode: int
    stdout: str = ""
    stderr: str = ""
    steps: list[dict] = field(default_factory=list, repr=False)


class CommandFailed(ContainerError):
    """`check=True` and the command ended with another status than 0; `result` has the rest."""

    def __init__(self, result: Result) -> None:
        super().__init__(
            f"{result.args[0]}: exit status {result.returncode}", exit_code=result.returncode
        )
        self.result = result


# The helper gets no site-packages: only the directory that this package lies in.
_PARENT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_HELPER = """\
import sys
sys.path.insert(0, sys.argv[1])
from minicontainer import sealed
sealed.ensure(*sys.orig_argv[1:])
from minicontainer.runtime import helper
def start_image(request, stdio):
    from minicontainer import container_cli
    return container_cli.start_request(request, stdio)
helper.serve(int(sys.argv[2]), start_image)
"""


_PATIENCE = 5.0  # seconds for an answer that takes a millisecond
_HELPERS = 5  # that may be killed one after the other before a call gives up


class _Helper:
    """The helper process and our end of its socket."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _HELPER, _PARENT, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self.socket = ours
        self.owner = os.getpid()

    def alive(self) -> bool:
        # After a fork of the caller the helper is somebody else's child: take a new one.
        return self.owner == os.getpid() and self.process.poll() is None

    def send(self, request: bytes, fds: Sequence[int]) -> bool:
        """Whether it took it: not when it was killed just now."""
        try:
            rights.send(self.socket, request, fds)
        except ConnectionError:
            if self.owner == os.getpid():
                self.process.wait()
            return False
        return True

    def stop(self) -> None:
        """The end of our socket ends it; one that does not listen (SIGSTOP) is killed."""
        self.socket.close()
        if self.owner == os.getpid():
            try:
                self.process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self.end_stopped()
                self.process.kill()
                self.process.wait()

    def end_stopped(self) -> bool:
        """Whether the helper or a worker is stopped: then kill these, and the helper in any case.

        None of them must get to a request later that nobody waits for. Other workers stay.
        """
        pid, stopped = self.process.pid, []
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children") as children:
            for one in (pid, *map(int, children.read().split())):
                with contextlib.suppress(OSError):  # ended meanwhile
                    fd = os.pidfd_open(one)
                    stopped.append(fd)
                    with open(f"/proc/{one}/stat", "rb") as file:
                        if file.read().rpartition(b")")[2].split()[0] not in (b"T", b"t"):
                            os.close(stopped.pop())
        if stopped:
            self.process.kill()
        for fd in stopped:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
            os.close(fd)
        if stopped:
            self.process.wait()
        return bool(stopped)


_helper: _Helper | None = None
_helper_lock = threading.Lock()


def helper_start() -> int:
    """Start the helper now (the first `run` does it otherwise); returns its pid."""
    return _living_helper().process.pid


def _living_helper() -> _Helper:
    global _helper
    with _helper_lock:
        if _helper is None or not _helper.alive():
            _helper = _Helper()
        return _helper


def helper_stop() -> None:
    """End the helper; the next `run` starts another one. Running containers are not touched."""
    global _helper
    with _helper_lock:
        if _helper is not None:
            _helper.stop()
            _helper = None


atexit.register(helper_stop)


def explain(rootfs, args: Sequence[str], **options) -> list[dict]:
    """The plan for `run(rootfs, args, **options)`, without doing it; needs no privilege.

    One dict a step: n, name, where ("parent" or "init"), calls (text), why, clause (of the OCI
    runtime spec or a man page), lesson. Raises ContainerError for input that `run` would refuse.
    """
    return plan.describe(plan.build(spec.default(rootfs, args, **options)))


def run(
    rootfs=None, args: Sequence[str] = (), *, image: str | None = None,
    options: Sequence[str] = (), hostname: str | None = None, env: dict[str, str] | None = None,
    cwd: str | None = None, user: tuple[int, int] | None = None, read_only: bool = False,
    network: str = "none", stdin: int | None = None, stdout: int | None = None,
    stderr: int | None = None, input: str | None = None, capture_output: bool = False,
    timeout: float | None = None, check: bool = False, trace: bool = False,
) -> Result:  # fmt: skip
    """Run `args` in a new container whose root is the directory `rootfs`; wait for its end.

    image                  a name, in place of `rootfs`: what the other arguments leave open, `args`
                           too, it says. Nothing of the container is kept
    options                with an image: words of `minicontainer run`, like ["--memory", "64m"]
    stdin, stdout, stderr  descriptors given to the container as they are. Without them stdin is
                           /dev/null (or `input`), and output is printed as it comes
    capture_output         keep output in the Result instead of printing it
    timeout                seconds; then the container is killed and TimeoutError raised
    check                  raise CommandFailed when the exit status is not 0
    trace                  fill Result.steps

    Raises ContainerError when the container could not be built (nothing is left of it then) or its
    command not be started, and with exit code 137 when the helper was killed: then it may have run.
    KeyboardInterrupt kills the container.
    """
    if (rootfs is None) == (image is None) or (options and image is None):
        raise TypeError("run() takes rootfs and args, or image and perhaps args and options")
    request: dict = {"trace": trace}
    if image is None:
        request["spec"] = spec.default(
            rootfs, args, hostname=hostname or "minicontainer", env=env, cwd=cwd or "/", user=user,
            read_only=read_only, network=network,
        )  # fmt: skip
    else:
        request.update(
            image=image, args=list(args), options=list(options),
            values={
                "hostname": hostname, "env": [f"{name}={env[name]}" for name in env] if env else [],
                "workdir": cwd, "user": user and f"{user[0]}:{user[1]}", "read_only": read_only,
                "network": network,
            },
        )  # fmt: skip
    result = Result(list(args) or [str(image)], 0)
    with contextlib.ExitStack() as stack:
        streams = _Streams(stack, result, capture_output)
        fds = [
            streams.source(stdin, input),
            streams.sink(stdout, "stdout"),
            streams.sink(stderr, "stderr"),
        ]
        events, theirs = socket.socketpair()
        stack.enter_context(events)
        try:
            with theirs:
                _send(request, [*fds, theirs.fileno()])
        finally:
            streams.close_theirs()
        try:
            streams.relay(events, timeout)
        except BaseException as error:  # Ctrl-C, timeout, a closed stdout: nothing stays behind
            if not _kill(events):
                error.add_note(_unanswered())
            raise
    if check and result.returncode:
        raise CommandFailed(result)
    return result


def _send(request: dict, fds: Sequence[int]) -> None:
    """Give it to a helper that lives. Raises ContainerError when each one ends at once."""
    message = json.dumps(request).encode()
    for _ in range(_HELPERS):
        if _living_helper().send(message, fds):
            return
    raise ContainerError(
        f"the helper process ends as soon as it is started, {_HELPERS} times",
        hint="what it said is above; or somebody kills it",
    )


def _kill(events: socket.socket) -> bool:
    """Have the worker kill its container; returns when both are gone, or False when nobody does."""
    with contextlib.suppress(ConnectionError):
        events.settimeout(_PATIENCE)
        try:
            events.shutdown(socket.SHUT_WR)
            while events.recv(65536):
                pass
        except TimeoutError:
            return False
    return True


def _unanswered() -> str:
    """Why nobody has killed the container, in words."""
    with _helper_lock:
        if _helper and _helper.owner == os.getpid() and _helper.end_stopped():
            pid = _helper.process.pid
            return f"the helper, process {pid}, was stopped (SIGSTOP); it was ended, nothing ran"
    return f"the container did not end within {_PATIENCE:.0f} s: it waits for a device"


class _Streams:
    """The descriptors of one call: what the container gets, what we read, and where it goes."""

    def __init__(self, stack: contextlib.ExitStack, result: Result, capture: bool) -> None:
        self.stack = stack
        self.result = result
        self.capture = capture
        self.theirs: list[int] = []
        self.selector = stack.enter_context(selectors.DefaultSelector())

    def source(self, fd: int | None, text: str | None) -> int:
        if fd is not None:
            return fd
        if text is None:
            self.theirs.append(os.open(os.devnull, os.O_RDONLY))
        else:
            # A memory file, not a pipe: it takes any length without a second thread.
            memory = os.memfd_create("input")
            self.theirs.append(memory)
            with open(memory, "wb", closefd=False) as file:
                file.write(text.encode())
            os.lseek(memory, 0, os.SEEK_SET)
        return self.theirs[-1]

    def sink(self, fd: int | None, name: str) -> int:
        if fd is not None:
            return fd
        read_fd, write_fd = os.pipe()
        self.stack.callback(os.close, read_fd)
        self.theirs.append(write_fd)
        self.selector.register(read_fd, selectors.EVENT_READ, name)
        return write_fd

    def close_theirs(self) -> None:
        for fd in self.theirs:
            os.close(fd)

    def relay(self, events: socket.socket, timeout: float | None) -> None:
        """Pass output on until the container has ended and its output with it."""
        decode = codecs.getincrementaldecoder("utf-8")
        decoders = {"stdout": decode("replace"), "stderr": decode("replace")}
        deadline = None if timeout is None else time.monotonic() + timeout
        answer = b""
        self.selector.register(events, selectors.EVENT_READ, "answer")
        while self.selector.get_map():
            left = None if deadline is None else deadline - time.monotonic()
            ready = self.selector.select(left) if left is None or left > 0 else []
            if not ready:
                raise TimeoutError(f"{self.result.args[0]}: killed after {timeout} s")
            for key, _ in ready:
                chunk = os.read(key.fd, 65536)
                if key.data == "answer":
                    answer += chunk
                    if not chunk or answer.endswith(b"\n"):  # the end of the worker is not needed
                        self.selector.unregister(key.fd)
                elif not chunk:
                    self.selector.unregister(key.fd)
                else:
                    self._output(key.data, decoders[key.data].decode(chunk))
        self._outcome(answer)

    def _output(self, name: str, text: str) -> None:
        if self.capture:
            setattr(self.result, name, getattr(self.result, name) + text)
        else:
            print(text, end="", file=getattr(sys, name), flush=True)

    def _outcome(self, answer: bytes) -> None:
        if not answer:
            raise ContainerError(
                "the process that stands by the container was killed, and the container with it",
                hint="run it again: there is another one by then",
                exit_code=SIGNALLED + signal.SIGKILL,
            )
        said = json.loads(answer)
        if "error" in said:
            raise ContainerError(
                said["error"], hint=said["hint"], step=said["step"], errno=said["errno"],
                exit_code=said["exit_code"],
            )  # fmt: skip
        self.result.returncode, self.result.steps = said["exit"], said["steps"]
