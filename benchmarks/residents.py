"""Who lives as long as a container does: its processes, and whatever its runtime left behind."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Resident:
    """A process. program: what it calls itself. pss_kib: its proportional share of memory, KiB."""

    program: str
    in_container: bool
    pss_kib: int

    def record(self) -> dict[str, Any]:
        return asdict(self)


def residents(container: str, state: str) -> list[Resident]:
    """Every process in a cgroup of this container's name, or with the directory `state` among its
    words.
    """
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cgroup", "rb") as file:
                inside = container.encode() in file.read()
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                named = state.encode() in file.read()
            if not inside and not named:
                continue
            with open(f"/proc/{pid}/comm", encoding="ascii", errors="replace") as file:
                program = file.read().strip()
            found.append(Resident(program, inside, _pss_kib(pid)))
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended meanwhile
    return found


def _pss_kib(pid: str) -> int:
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii", errors="replace") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
