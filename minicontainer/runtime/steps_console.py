"""The step for `process.terminal`; loaded only then, since a terminal costs two more modules."""

from __future__ import annotations

import os

from ..kernel import mountfd, pty, syscalls
from ..kernel.syscalls import MS_BIND
from .steps import Step


class Console(Step):
    name = "terminal"
    fields = ("process.terminal", "process.consoleSize", "process.user.uid")
    why = "a pty of the container's own devpts; who asked for the container gets the other end"
    clause = "config.md#process"
    lesson = "10"

    def __init__(self, size: dict | None, uid: int, in_container: bool = False) -> None:
        self.size = size
        self.uid = uid
        self.in_container = in_container  # exec: "/" is the container's root already

    def calls(self):
        return [
            "openat2(ROOT, '/dev/pts'); open('ptmx')",
            "sendmsg(CONSOLE_SOCKET, SCM_RIGHTS: the master)",
            syscalls.ioctl.text("SLAVE", syscalls.TIOCSCTTY, 0),
        ]

    def apply(self, context):
        root = context.root_fd
        if self.in_container:
            root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        master, slave, name = pty.open_pty(root)
        if self.size:
            pty.set_size(master, self.size["height"], self.size["width"])
        if not self.in_container:
            mountfd.bind_in_root(root, slave, "/dev/console", MS_BIND)
        pty.send_console(context.console_fd, master, name)
        os.close(master)
        os.close(context.console_fd)
        pty.become_terminal(slave, self.uid)
