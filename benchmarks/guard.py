"""The contamination guard: what else the machine was doing, judged by rules that are fixed before
the run.

A round that breaks a rule is *marked*, never dropped: the report gives both analyses. Other work is
looked for in a quiet window before each round, when this harness sleeps and whatever runs is
somebody else's; stolen time is counted over the window and the round. What a kernel does not tell
(PSI off) is recorded as None.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass

QUIET_S = 0.05
LOOKS = 5


@dataclass(frozen=True)
class Rules:
    """A round is marked when any of these is exceeded. Shares are 0..1."""

    steal_share: float = 0.01  # of all CPU time in the round, taken by the hypervisor for others
    psi_cpu_share: float = 0.10  # of the quiet window in which some task waited for a CPU
    runnable: float = max(1.0, (os.cpu_count() or 1) / 2)  # other threads, mean of the looks
    suspended: float = 0.0  # seconds in which the machine slept


@dataclass(frozen=True)
class Reading:
    steal_share: float | None
    psi_cpu_share: float | None
    runnable: float | None
    suspended: float | None = 0.0

    def broken(self, rules: Rules) -> list[str]:
        """The rules this reading breaks, in words; empty for a clean round."""
        limits = asdict(rules)
        return [
            f"{name} {value:.3g} > {limits[name]:.3g}"
            for name, value in asdict(self).items()
            if value is not None and value > limits[name]
        ]


class Guard:
    """`before_round()`, the shots, then `after_round()` gives the reading."""

    def __init__(self) -> None:
        self._steal = _steal_ticks()
        self._start = time.monotonic()
        self._asleep = _asleep_s()
        self._psi: float | None = None
        self._runnable: float | None = None

    def before_round(self) -> None:
        self._steal = _steal_ticks()
        self._start = time.monotonic()
        self._asleep = _asleep_s()
        stall = _psi_cpu_us()
        looks = []
        for _ in range(LOOKS):
            time.sleep(QUIET_S / LOOKS)
            looks.append(_other_runnable())
        window_us = (time.monotonic() - self._start) * 1e6
        after = _psi_cpu_us()
        self._psi = None if stall is None or after is None else (after - stall) / window_us
        self._runnable = sum(looks) / LOOKS

    def after_round(self) -> Reading:
        ticks = (time.monotonic() - self._start) * os.sysconf("SC_CLK_TCK") * (os.cpu_count() or 1)
        steal = (_steal_ticks() - self._steal) / ticks
        # The two clocks are read one after the other: a difference below that is none.
        slept = round(max(0.0, _asleep_s() - self._asleep), 1)
        psi = None if self._psi is None else round(self._psi, 4)
        return Reading(round(steal, 4), psi, self._runnable, slept)


def _asleep_s() -> float:
    """How long the machine was suspended since it booted: CLOCK_BOOTTIME counts that, the other
    does not.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


def _steal_ticks() -> int:
    with open("/proc/stat", encoding="ascii") as file:
        # proc_stat(5): cpu user nice system idle iowait irq softirq steal
        return int(file.readline().split()[8])


def _psi_cpu_us() -> float | None:
    try:
        with open("/proc/pressure/cpu", encoding="ascii") as file:
            return float(file.readline().rpartition("total=")[2])
    except OSError:
        return None


def _other_runnable() -> int:
    with open("/proc/loadavg", encoding="ascii") as file:
        running = file.read().split()[3].partition("/")[0]
    return max(0, int(running) - 1)  # this thread is running, or it could not look
