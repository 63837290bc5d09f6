"""What every way of running the probe has in common.

An *arm* is one way to run the same static program (`vm-images/probe/`): as a plain process, in a
container of some runtime, in a virtual machine of some tier. The harness only knows this interface.

All times are nanoseconds of the host's CLOCK_MONOTONIC (`time.monotonic_ns()`); a guest's own clock
is never used for a start or an end, only to split an interval that the host has measured.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.held import Ear, Held


class ArmFailed(Exception):
    """One shot failed. The message is the reason that goes into its row (`status=error`); the run
    goes on.
    """


@dataclass(frozen=True)
class Skip:
    """Why an arm cannot run on this host, and what would let it run."""

    reason: str
    fix: str


@dataclass(frozen=True)
class Phase:
    """A named part of a start: [start_ns, end_ns) of the host's CLOCK_MONOTONIC."""

    name: str
    start_ns: int
    end_ns: int


@dataclass
class Shot:
    """One sample of one arm.

    t0: just before the first call that asks for the start.
    t6: the receiver had the payload's first byte.
    t_end: nothing of it was left (process reaped, domain gone); None when the arm does not measure
    that.
    cpu_ms: user + system CPU of the start's own processes, None where it cannot be had.
    extra: what this one shot adds to its arm's `params` (JSON values).
    """

    t0: int
    t6: int
    t_end: int | None = None
    phases: list[Phase] = field(default_factory=list)
    cpu_ms: float | None = None
    words: str = ""  # what the command said on stderr
    extra: dict[str, Any] = field(default_factory=dict)


class Arm:
    """One way to run the probe. Subclasses fill in the attributes and the verbs."""

    name: str = ""  # unique, "runc:busybox", "vm-micro:debian"
    kind: str = ""  # process | container | vm
    runtime: str = ""  # "runc", "libvirt/qemu"
    runtime_version: str = ""
    tier: str = ""  # "" | nano | micro | direct | full
    accel: str = ""  # "" | kvm | kvm (nested) | kvm (pvm) | tcg
    root: str = ""  # "" | busybox | debian
    net_mode: str = ""  # "" | none | host
    channel: str = "inherited fd 1"  # how the first byte travels; or "fifo", "isa-debugcon socket"
    fifo: str = ""  # its path, for the channel "fifo"
    tool: str = ""  # path of the program that does the work, "" when it is the harness itself
    params: dict[str, Any]  # anything else worth recording: command line, domain XML's sha256

    def __init__(self) -> None:
        self.params = {}

    def unavailable(self) -> Skip | None:
        """Why this arm cannot run here, cheaply (a missing program, a missing tree); None when
        nothing forbids it.

        What can only be known by doing is found by the one shot that `rounds.round_zero` fires
        after `prepare`.
        """
        return None

    def prepare(self) -> None:
        """Everything that must exist before the clock starts. Untimed, called once. Raises
        ArmFailed.
        """

    def shoot(self) -> Shot:
        """One sample. Leaves nothing behind, whether it returns or raises (ArmFailed,
        KeyboardInterrupt).
        """
        raise NotImplementedError

    def shoot_traced(self) -> Shot | None:
        """One sample with its phases, where asking for them costs time; None when `shoot` already
        has them.

        Traced shots are a series of their own: they feed the waterfall and never the headline.
        """
        return None

    def hold(self, ear: Ear, words: list[str] | None = None) -> Held:
        """One instance whose payload stays: the probe, or a program that signals on its stdout.
        Leaves nothing behind when it raises (ArmFailed, KeyboardInterrupt). `ear` is one of this
        arm's `fifo`.
        """
        raise NotImplementedError

    def capture(self, words: list[str]) -> str:
        """What a program of the root tree (words[0] is its path there) says on stdout. Untimed.
        Raises ArmFailed.
        """
        raise NotImplementedError

    def fix_for(self, failure: str) -> str:
        """What a user can do about a failure in `prepare` or in round 0; '' when we do not know."""
        return ""

    def close(self) -> None:
        """Undo `prepare`. Safe to call twice, and after a `prepare` that failed."""
