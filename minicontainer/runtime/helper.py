"""The fork helper: a small single-threaded process that starts containers for a library caller.

A notebook's kernel has threads: it may neither unshare a user namespace (EINVAL) nor fork safely.
So `minicontainer.client` runs `serve` once, in a `python -I -S`, and sends it requests over a Unix
socket. For each request there is a forked worker, which starts one container and stands by it;
the helper itself never waits for anything but the next request.

A request is one SOCK_SEQPACKET message: JSON {"spec": …, "trace": bool}, or {"image": …}, which
another floor understands, with four descriptors (SCM_RIGHTS): stdin, stdout, stderr, and a stream
socket on which the worker writes one line of JSON when all is over: {"exit": …, "steps": …} or
{"error": …}. The caller shuts down its direction of that socket, or closes it, to kill the
container. The end of the request socket ends the helper.
"""

from __future__ import annotations

import _signal as signal
import _socket
import gc
import os
import select

from ..kernel import rights
from . import foreground, jsonfile, plan
from .errors import ContainerError
from .ready import MAX_REQUEST, Ready, rehearse

# Workers that wait. The successor of one that was called is made when its container has ended, or
# has run for a while: it would take a CPU from both.
IDLE = 2


def serve(fd: int, start_image=None) -> None:
    """Have a worker for each request on the socket `fd`, until the caller's end of it closes.

    start_image  called with a request for an image, and its stdio; returns what `attend` does
    """
    connection = _socket.socket(fileno=fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the caller's business
    gc.disable()  # a collection writes to all of the memory that a fork shares
    try:
        rehearse()  # what is imported and looked up at a first use is there in all workers
    except (ContainerError, OSError):
        pass  # a request will say it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # workers report by themselves: no zombies
    idle: set[int] = set()
    while True:
        while len(idle) < IDLE:
            idle.add(_worker(connection, start_image))
        for fd in select.select(idle, [], [])[0]:
            idle.remove(fd)
            word = os.read(fd, 1)  # nothing but when the caller's end is closed
            os.close(fd)
            if word == b"0":
                return


def _worker(connection: _socket.socket, start_image) -> int:
    """Fork one; returns a pipe that ends when the next one can be forked."""
    busy, busy_write = os.pipe()
    if os.fork():
        os.close(busy_write)
        return busy
    os.close(busy)
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        init = _ready(connection.fileno(), busy_write)
        message, fds = rights.receive(connection, MAX_REQUEST, 4)
        if not message:
            os.write(busy_write, b"0")
            os._exit(0)
        connection.close()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        work(message, fds[:3], fds[3], busy_write, start_image, init)
    finally:
        os._exit(0)


def _ready(*not_for_it: int) -> Ready | None:
    """None where there can be none: then a request fails, and says why."""
    try:
        return Ready(not_for_it)
    except (ContainerError, OSError):
        return None


def work(
    message: bytes, stdio, events: int, busy: int, start_image=None, init: Ready | None = None
) -> None:
    """Start one container, stand by it, and answer.

    busy  is closed when that takes long; else it ends with us
    init  one that waits for a plan
    """

    def tell(**event) -> None:
        os.write(events, jsonfile.dumps(event).encode() + b"\n")

    try:
        # The message goes on as it is: whoever has an init ready need not read it
        started = init.attend(message, stdio) if init else None
        if not started:
            request = jsonfile.loads(message.decode())
            if "image" in request:
                started = start_image(request, stdio)
            else:
                started = foreground.attend(plan.build(request["spec"]), stdio, request["trace"])
        for fd in stdio:
            os.close(fd)  # or the caller would never see the end of the container's output
        if init:
            init.dismiss()
        code = started.wait(hangup_fd=events, stays=lambda: os.close(busy))
        tell(exit=code, steps=started.steps)
    except ContainerError as error:
        tell(error=error.message, hint=error.hint, step=error.step, errno=error.errno,
             exit_code=error.exit_code)  # fmt: skip
    except BrokenPipeError:
        pass  # the caller is gone, and the container with it
    except Exception as error:  # a bug of ours: the caller shows it instead of waiting for ever
        tell(error=f"internal error: {error!r}", hint="", step="", errno=0, exit_code=125)
    finally:
        os.close(events)  # before the memory of this process is taken down, which takes a while
