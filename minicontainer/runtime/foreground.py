"""`run`: create and start a container, stand by it until it ends, delete it."""

from __future__ import annotations

import os

from . import container, lifecycle


def run(options: dict, create, log) -> int:
    """create is given a descriptor for the terminal, -1 for none; returns docker's exit code."""
    terminal = None if options["detach"] or options["console_socket"] else _Terminal()
    try:
        state = create(terminal.theirs if terminal else -1)
        try:
            # Ours from here on: we are its parent
            wakeup_fd = -1 if options["detach"] else container._catch_signals()
            lifecycle.start(state, log)
            if options["detach"]:
                return 0
            code = _wait(state.pid, wakeup_fd, terminal)
        except BaseException:
            lifecycle.delete(state, log, force=True)
            raise
    finally:
        if terminal:
            terminal.close()
    if not options["keep"]:
        lifecycle.delete(state, log, force=True)
    return code


def execute(options: dict, console_fd: int, start) -> int:
    """`exec`: the same for one more process; start is given the terminal's descriptor."""
    terminal = None if options["detach"] or console_fd >= 0 else _Terminal()
    wakeup_fd = -1 if options["detach"] else container._catch_signals()
    try:
        pid = start(terminal.theirs if terminal else console_fd)
        return 0 if options["detach"] else _wait(pid, wakeup_fd, terminal)
    finally:
        if terminal:
            terminal.close()


def _wait(pid: int, wakeup_fd: int, terminal) -> int:
    master = terminal.receive() if terminal else -1
    if master >= 0:
        from ..kernel import pty

        pty.relay(master, 0, 1, wakeup_fd, lambda number: container._forward(pid, number))
    return container.wait(
        container.Container(pid, [], os.open("/dev/null", os.O_RDONLY), wakeup_fd)
    )


class _Terminal:
    """A connection to ourselves, on which the container's init sends its terminal's master."""

    def __init__(self) -> None:
        import _socket

        kind = _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
        self.ours, theirs = _socket.socketpair(_socket.AF_UNIX, kind)
        self.theirs = theirs.detach()

    def receive(self) -> int:
        """The master; -1 when the container has no terminal."""
        try:
            _, rights, _, _ = self.ours.recvmsg(4096, 64)
        except BlockingIOError:
            return -1
        return int.from_bytes(rights[0][2][:4], "little") if rights else -1

    def close(self) -> None:
        self.ours.close()
        try:
            os.close(self.theirs)
        except OSError:
            pass
