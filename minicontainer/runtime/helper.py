"""The fork helper: a small single-threaded process that starts containers for a library caller.

A notebook's kernel has threads: it may neither unshare a user namespace (EINVAL) nor fork safely.
So `minicontainer.client` runs `serve` once, in a `python -I -S`, and sends it requests over a Unix
socket. For each request there is a forked worker, which starts one container and stands by it;
the helper itself never waits for anything but the next request.

A request is one SOCK_SEQPACKET message: JSON {"spec": …, "trace": bool}, or {"image": …}, which
another floor understands, with four descriptors (SCM_RIGHTS): stdin, stdout, stderr, and a stream
socket on which the worker writes JSON lines: {"started": pid, "steps": …} or {"error": …}, then
{"exit": …}. The caller shuts down its direction of that socket, or closes it, to kill the
container. The end of the request socket ends the helper.
"""

from __future__ import annotations

import _signal as signal
import contextlib
import gc
import json
import os
import socket

from . import foreground, plan
from .errors import ContainerError
from .ready import MAX_REQUEST, Ready, rehearse


def serve(fd: int, start_image=None) -> None:
    """Have a worker for each request on the socket `fd`, until the caller's end of it closes.

    start_image  called with a request for an image, and its stdio; returns what `attend` does
    """
    connection = socket.socket(fileno=fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the caller's business
    gc.disable()  # a collection writes to all of the memory that a fork shares
    with contextlib.suppress(ContainerError, OSError):
        rehearse()  # what is imported and looked up at a first use is there in all workers
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # workers report by themselves: no zombies
    while True:
        # The next worker is forked before there is a request: that is a millisecond less to wait
        busy, busy_write = os.pipe()
        if os.fork() == 0:
            os.close(busy)
            try:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                init = _ready(connection.fileno(), busy_write)
                message, fds, _, _ = socket.recv_fds(connection, MAX_REQUEST, 4)
                os.write(busy_write, b"1" if message else b"0")
                os.close(busy_write)
                if message:
                    connection.close()
                    signal.signal(signal.SIGINT, signal.SIG_DFL)
                    work(message, fds[:3], fds[3], start_image, init)
            finally:
                os._exit(0)
        os.close(busy_write)
        word = os.read(busy, 1)  # nothing, should it be killed before a request came
        os.close(busy)
        if word == b"0":
            return


def _ready(*not_for_it: int) -> Ready | None:
    """None where there can be none: then a request fails, and says why."""
    try:
        return Ready(not_for_it)
    except (ContainerError, OSError):
        return None


def work(message: bytes, stdio, events: int, start_image=None, init: Ready | None = None) -> None:
    """Start one container, report, stand by it, report its end.

    init  one that waits for a plan
    """
    request = json.loads(message)

    def tell(**event) -> None:
        os.write(events, json.dumps(event).encode() + b"\n")

    try:
        if "image" in request:
            started = start_image(request, stdio)
        else:
            if init:
                init.begin(message, stdio)
            steps = plan.build(request["spec"])
            started = foreground.attend(
                steps, stdio, request["trace"], begun=init.context if init else None
            )
        for fd in stdio:
            os.close(fd)  # or the caller would never see the end of the container's output
        tell(started=started.pid, steps=started.steps)
        if init:
            init.dismiss()
        tell(exit=started.wait(hangup_fd=events))
    except ContainerError as error:
        tell(error=error.message, hint=error.hint, step=error.step, errno=error.errno,
             exit_code=error.exit_code)  # fmt: skip
    except BrokenPipeError:
        pass  # the caller is gone, and the container with it
    except Exception as error:  # a bug of ours: the caller shows it instead of waiting for ever
        tell(error=f"internal error: {error!r}", hint="", step="", errno=0, exit_code=125)
    finally:
        os.close(events)  # before the memory of this process is taken down, which takes a while
