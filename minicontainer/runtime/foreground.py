"""`run`: create and start a container, stand by it until it ends, delete it."""

from __future__ import annotations

import os

from . import container, lifecycle

TYPE_CHECKING = False  # as in typing, whose import would cost a start 3 ms
if TYPE_CHECKING:
    from _socket import socket


def run(options: dict, create, log) -> int:
    """create gets a function that makes a place for the terminal; returns docker's exit code."""
    terminal = _Terminal()
    own = None if options["detach"] or options["console_socket"] else terminal.open
    try:
        state = create(own)
        try:
            # Ours from here on: we are its parent
            wakeup_fd = -1 if options["detach"] else container._catch_signals()
            lifecycle.start(state, log)
            if "started" in options:  # see --trace
                options["started"]()
            if options["detach"]:
                return 0
            code = _wait(state.pid, wakeup_fd, terminal)
        except BaseException:
            lifecycle.delete(state, log, force=True)
            raise
    finally:
        terminal.close()
    if not options["keep"]:
        lifecycle.delete(state, log, force=True)
    return code


def execute(options: dict, own_console: bool, start) -> int:
    """`exec`: the same for one more process, which is deleted by itself."""
    terminal = _Terminal()
    wakeup_fd = -1 if options["detach"] else container._catch_signals()
    try:
        pid = start(terminal.open if own_console and not options["detach"] else None)
        return 0 if options["detach"] else _wait(pid, wakeup_fd, terminal)
    finally:
        terminal.close()


def _wait(pid: int, wakeup_fd: int, terminal) -> int:
    master = terminal.receive()
    if master >= 0:
        from ..kernel import pty

        pty.relay(master, 0, 1, wakeup_fd, lambda number: container._forward(pid, number))
    nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    return container.wait(container.Container(pid, [], nothing, wakeup_fd))


class _Terminal:
    """A connection to ourselves, on which init sends the master of its terminal, if it has one."""

    def __init__(self) -> None:
        self.ours: socket | None = None
        self.theirs = -1

    def open(self) -> int:
        """The end for init."""
        import _socket

        kind = _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC
        self.ours, theirs = _socket.socketpair(_socket.AF_UNIX, kind)
        self.theirs = theirs.detach()
        return self.theirs

    def receive(self) -> int:
        """The master, which was sent by now; -1 when there is no terminal."""
        if not self.ours:
            return -1
        _, rights, _, _ = self.ours.recvmsg(4096, 64)
        return int.from_bytes(rights[0][2][:4], "little")

    def close(self) -> None:
        if self.ours:
            self.ours.close()
            os.close(self.theirs)
