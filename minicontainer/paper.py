"""Reports for people: columns that fit the terminal, and colours where there is one."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Sequence


class Paper:
    """Prints lines of at most `width` columns, 80 to 100, to stdout."""

    def __init__(self) -> None:
        self.width = min(max(shutil.get_terminal_size((100, 0)).columns, 80), 100)
        self._coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def line(self, text: str = "") -> None:
        print(text.rstrip())

    def bold(self, text: str) -> str:
        return self._code("1", text)

    def dim(self, text: str) -> str:
        return self._code("2", text)

    def red(self, text: str) -> str:
        return self._code("31", text)

    def yellow(self, text: str) -> str:
        return self._code("33", text)

    def _code(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[m" if self._coloured and text else text

    def columns(self, left: list[str], right: list[str], colour=str, at: int = 30) -> None:
        """Two columns side by side; the right one begins at `at` and is wrapped."""
        lines = [line for text in right for line in self._wrap(text, self.width - at)]
        left = [part for text in left for part in self._wrap(text, at - 2)]
        for n in range(max(len(left), len(lines))):
            beside = left[n] if n < len(left) else ""
            text = lines[n] if n < len(lines) else ""
            self.line(f"{beside:<{at}}{colour(text)}")

    @staticmethod
    def _wrap(text: str, width: int) -> list[str]:
        indent = " " * (len(text) - len(text.lstrip()))
        lines = [indent]
        # Flags (A|B|C) and lists (a,b,c) break, too; and what is too long anyway, anywhere
        for word in re.findall(r"[^ |,]*[ |,]*", text.strip()):
            while len(lines[-1] + word.rstrip()) > width:
                if lines[-1].strip():
                    lines.append(indent + "  ")
                    continue
                room = width - len(lines[-1])
                lines[-1] += word[:room]
                word = word[room:]
            lines[-1] += word
        return [line.rstrip() for line in lines]

    def table(self, rows: Sequence[tuple[str, ...]], indent: str = "  ") -> None:
        """Aligned columns, each wrapped; the last one takes what the others leave."""
        if not rows:
            return
        most = (self.width - len(indent)) // len(rows[0]) - 2
        widths = [min(most, max(len(row[n]) for row in rows)) for n in range(len(rows[0]) - 1)]
        widths.append(self.width - len(indent) - sum(width + 2 for width in widths))
        for row in rows:
            cells = [self._wrap(cell, width) for cell, width in zip(row, widths, strict=True)]
            for n in range(max(map(len, cells))):
                parts = [cell[n] if n < len(cell) else "" for cell in cells]
                line = "  ".join(
                    f"{part:<{width}}" for part, width in zip(parts, widths, strict=True)
                )
                self.line(indent + line)


def compact(value, room: int) -> str:
    """A JSON value on one line of at most `room` characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= room else text[: room - 1] + "…"
