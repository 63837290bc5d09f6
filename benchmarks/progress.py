"""Progress on stderr with the time left: one line that is rewritten on a terminal, a few lines
elsewhere.
"""

from __future__ import annotations

import sys
import time
from typing import TextIO

PLAIN_EVERY_S = 10.0


class Progress:
    """`start(seconds)` once, `update(done, what)` between shots (never inside one), `finish()`."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.terminal = self.stream.isatty()
        self.total_s = 0.0
        self.began = self.last = time.monotonic()

    def start(self, expected_s: float) -> None:
        self.total_s = expected_s
        self.began = time.monotonic()
        self.last = self.began if not self.terminal else 0.0

    def left_s(self, done_s: float) -> float:
        """Seconds left: the expected cost of what remains, scaled by how this run does against its
        plan.
        """
        pace = (time.monotonic() - self.began) / done_s if done_s > 1 else 1.0
        return max(0.0, self.total_s - done_s) * pace

    def update(self, done_s: float, what: str) -> None:
        """done_s: expected cost of what is done."""
        now = time.monotonic()
        if now - self.last < (0.1 if self.terminal else PLAIN_EVERY_S):
            return
        self.last = now
        share = min(1.0, done_s / self.total_s) if self.total_s else 1.0
        line = f"{share:4.0%}  {clock(self.left_s(done_s))} left  {what}"
        if self.terminal:
            bar = "█" * int(share * 20)
            self.stream.write(f"\r\033[K{bar:░<20} {line[:60]}")
        else:
            self.stream.write(line + "\n")
        self.stream.flush()

    def finish(self) -> None:
        if self.terminal:
            self.stream.write("\r\033[K")
            self.stream.flush()


def clock(seconds: float) -> str:
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"
