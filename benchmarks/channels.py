"""What a channel itself costs: from the instant before `write` in one process to the receiver's
time in another.

Measured by the same receiver, once for each kind of channel, before the first round. A domain's
debug console adds the way from the guest's `outb` through QEMU, which cannot be separated from the
outside: its figure is the socket's.
"""

from __future__ import annotations

import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

from benchmarks.receiver import Listener, first_byte

SENDS = 40
# Sends its own clock, waits to be told to go on: the reader is asleep in poll at each send, as it
# is in a shot.
_SENDER = """
import os, struct, sys, time
out = os.open(sys.argv[1], os.O_WRONLY) if len(sys.argv) > 1 else 1
while os.read(0, 1):
    time.sleep(0.001)
    os.write(out, struct.pack("q", time.monotonic_ns()))
"""
_INTERPRETER = [sys.executable, "-I", "-S", "-c", _SENDER]


def channel_costs() -> dict[str, float]:
    """Median microseconds for each channel that an arm can name."""
    ours, theirs = socket.socketpair()
    reader, writer = os.pipe()
    with ours, theirs, tempfile.TemporaryDirectory(prefix="bench-channel-") as directory:
        fifo = os.path.join(directory, "fifo")
        os.mkfifo(fifo)
        fifo_reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return {
                "inherited fd 1": _cost(reader, stdout=writer),
                "inherited fd 1, receiver in a thread": _cost(reader, stdout=writer, thread=True),
                "fifo": _cost(fifo_reader, path=fifo),
                "isa-debugcon socket": _cost(ours.fileno(), stdout=theirs.fileno()),
            }
        finally:
            for fd in (reader, writer, fifo_reader):
                os.close(fd)


def _cost(fd: int, *, stdout: int | None = None, path: str = "", thread: bool = False) -> float:
    samples = []
    with subprocess.Popen(
        [*_INTERPRETER, *([path] if path else [])], stdin=subprocess.PIPE, stdout=stdout
    ) as sender:
        assert sender.stdin is not None
        for _ in range(SENDS):
            deadline = time.monotonic_ns() + 5_000_000_000
            if thread:
                with Listener(fd, deadline) as heard:
                    os.write(sender.stdin.fileno(), b".")
                    heard.wait()  # as a blocking library call does: without the interpreter lock
                received, data = heard.result()
            else:
                os.write(sender.stdin.fileno(), b".")
                received, data = first_byte(fd, deadline)
            samples.append((received - struct.unpack("q", data[:8])[0]) / 1000)
    return round(statistics.median(samples), 1)
