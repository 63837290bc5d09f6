"""What a machine says: unix sockets that its QEMU connects the guest's ports to, and the receiver
that hears the payload on one of them and empties the others meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from collections.abc import Sequence

from benchmarks.arms.base import ArmFailed
from benchmarks.receiver import Listener, first_byte, rest_of_line
from benchmarks.workdir import run_directory

CREDENTIALS = struct.Struct("3i")  # pid, uid, gid of SO_PEERCRED, unix(7)


class Console:
    """A unix socket that QEMU connects one of the machine's ports to."""

    def __init__(self, name: str) -> None:
        self.path = os.path.join(run_directory(), f"{name}.sock")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listening.bind(self.path)
        # libvirt runs QEMU as a user of its own, which has to reach it.
        os.chmod(self.path, 0o666)
        self.listening.listen(1)
        self.connected: socket.socket | None = None
        self.log: list[tuple[int, bytes]] = []  # (ns, data), where another console is listened to

    def accept(self, deadline_ns: int, wake: int = -1) -> int:
        """Wait for QEMU, or until `wake` is readable; returns when it had connected."""
        poller = select.poll()
        poller.register(self.listening, select.POLLIN)
        if wake >= 0:
            poller.register(wake, select.POLLIN)
        ready = dict(poller.poll(max(0, (deadline_ns - time.monotonic_ns()) // 1_000_000)))
        now = time.monotonic_ns()
        if self.listening.fileno() not in ready:
            raise ArmFailed("QEMU did not connect its debug console")
        if self.connected is not None:
            self.connected.close()
        self.connected, _ = self.listening.accept()
        return now

    def peer(self) -> int:
        """The pid of the QEMU that has connected; 0 where none has."""
        if self.connected is None:
            return 0
        data = self.connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        return int(CREDENTIALS.unpack(data)[0])

    def text(self) -> str:
        """All that came, and what is there to be read now."""
        data = b"".join(chunk for _, chunk in self.log)
        if self.connected is not None:
            with contextlib.suppress(OSError):
                while more := self.connected.recv(65536, socket.MSG_DONTWAIT):
                    data += more
        return data.decode(errors="replace")

    def close(self) -> None:
        for end in (self.listening, self.connected):
            if end is not None:
                end.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


class Ear(Listener):
    """The receiver for a machine: first QEMU connects, then the payload is heard."""

    def __init__(self, payload: Console, others: Sequence[Console], deadline_ns: int) -> None:
        super().__init__(payload.listening.fileno(), deadline_ns)
        self.payload, self.others = payload, others
        self.connected = 0

    def _hear(self, wake: int) -> tuple[int, bytes]:
        self.connected = self.payload.accept(self.deadline_ns, wake)
        also = {}
        for other in self.others:
            other.accept(self.deadline_ns, wake)
            assert other.connected is not None
            also[other.connected.fileno()] = other.log
        assert self.payload.connected is not None
        fd = self.payload.connected.fileno()
        heard, data = first_byte(fd, self.deadline_ns, watch=wake, also=also)
        return heard, rest_of_line(fd, data, self.deadline_ns)
