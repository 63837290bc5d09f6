"""Arms, a guard and whole runs without any real start, for the logic of the harness; and what the
tests with real starts share.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from benchmarks import results, roots
from benchmarks.arms.base import Arm, ArmFailed, Phase, Shot
from benchmarks.guard import Guard, Reading
from benchmarks.plan import Plan, make_plan
from benchmarks.rounds import run_rounds
from benchmarks.rows import Row, RowMaker

MS = 1_000_000
QUIET, BUSY = Reading(0.0, 0.0, 0.0), Reading(0.0, 0.9, 3.0)


class FakeArm(Arm):
    """Its n-th shot takes ms[n] (the last one again and again), or fails with the text given."""

    def __init__(
        self, name: str, *ms: float | str, kind: str = "container", tier: str = "", accel: str = ""
    ) -> None:
        super().__init__()
        self.name, self.kind, self.tier, self.accel = name, kind, tier, accel
        self.runtime = name.partition(":")[0]
        self.ms = list(ms) or [1.0]
        self.shots = 0
        self.closed = 0
        self.interrupt_at = 0

    def shoot(self) -> Shot:
        self.shots += 1
        if self.shots == self.interrupt_at:
            raise KeyboardInterrupt
        ms = self.ms[min(self.shots, len(self.ms)) - 1]
        if isinstance(ms, str):
            raise ArmFailed(ms)
        t0 = self.shots * 1000 * MS
        t6 = t0 + int(ms * MS)
        phases = [Phase("build", t0, t6), Phase("end", t6, t6 + MS)]
        return Shot(t0, t6, t6 + MS, phases, cpu_ms=ms / 2)

    def close(self) -> None:
        self.closed += 1


class FakeGuard(Guard):
    """Reads what it is told, round after round, and waits for nothing."""

    def __init__(self, *readings: Reading) -> None:
        self.readings = list(readings) or [QUIET]
        self.rounds = 0

    def before_round(self) -> None:
        self.rounds += 1

    def after_round(self) -> Reading:
        return self.readings[min(self.rounds, len(self.readings)) - 1]


def plan_of(arms: Iterable[Arm], rounds: int, seed: int = 1) -> Plan:
    return make_plan({arm.name: 0.001 for arm in arms}, seed=seed, rounds=rounds)


def shoot_rounds(
    arms: list[FakeArm], rounds: int, *readings: Reading, seed: int = 1
) -> list[list[Row]]:
    """The rows of each round that was written."""
    written: list[list[Row]] = []
    gc.freeze()  # as the harness does; a collection after each round is then short
    run_rounds(
        list(arms),
        plan_of(arms, rounds, seed),
        RowMaker("run", "env"),
        written.append,
        guard=FakeGuard(*readings),
    )
    gc.unfreeze()
    return written


ENVIRONMENT = {
    "env_id": "env", "cpu": {"model": "a CPU", "online": 2, "flags": []}, "kernel": "6.1",
    "kernel_version": "#1", "architecture": "x86_64", "distribution": "Debian", "memory_mib": 1024,
    "mitigations": {"meltdown": "Vulnerable"}, "clocksource": "tsc", "transparent_hugepages": "",
    "ksm": "0", "governor": "", "cgroups": "v2", "root": True, "capabilities": "0",
    "hypervisor": "", "kvm_device": False, "accelerators": [], "python": "3.11", "tools": {},
    "source": "",
}  # fmt: skip


def write_run(
    directory: Path, arms: list[FakeArm], rounds: int, *readings: Reading, seed: int = 1
) -> str:
    """A run on disk, as the harness writes it."""
    directory.mkdir(parents=True, exist_ok=True)
    written = shoot_rounds(arms, rounds, *readings, seed=seed)
    results.append(str(directory), [row for rows in written for row in rows])
    results.write_json(str(directory), "plan.json", {"plan": plan_of(arms, rounds, seed).record()})
    results.write_json(str(directory), "environment.json", ENVIRONMENT)
    return str(directory)


def processes_with(word: str) -> list[str]:
    """Command lines of living processes that hold this word (zombies have none)."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if word in line and int(pid) != os.getpid():
            found.append(f"{pid} {line}")
    return found


def children() -> list[str]:
    """Children of this process, zombies included."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def probe() -> str:
    """The static program that every arm runs; skips where it is not built."""
    missing = roots.missing("busybox")
    if missing:
        pytest.skip(f"{missing.reason}: {missing.fix}")
    return os.path.join(roots.tree("busybox"), "probe")


def rows_of(directory: str | Path) -> list[Row]:
    with open(os.path.join(directory, results.SAMPLES), encoding="utf-8") as file:
        return [json.loads(line) for line in file]
