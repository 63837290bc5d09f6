"""isolation: a table of facts. What does a process in each arm see and reach of its host?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from benchmarks import facts, roots, surface
from benchmarks.arms.base import Arm, ArmFailed
from benchmarks.arms.staying import staying_arms
from benchmarks.benches.base import Bench, Size, Value
from benchmarks.command import output_of
from benchmarks.facts import Fact
from benchmarks.footprint import processes
from benchmarks.held import Held, held
from benchmarks.plan import Plan, one_after_the_other
from benchmarks.rows import Where

SHELL = ["/bin/busybox", "sh", "-c"]


class Isolation(Bench):
    name = rows = "isolation"
    title = "what a process sees and reaches of its host, as facts found by probes"
    metric = "isolation.own_kernel"
    unit = "fact"
    direction = "higher"

    def __init__(self) -> None:
        self.host: dict[str, str] = {}

    def arms(self, quick: bool = False) -> list[Arm]:
        # Others run no program of our choice; what is around them is the same.
        return [arm for arm in staying_arms(quick) if arm.tier in ("", "micro", "direct")]

    def plan(self, seconds: dict[str, float], seed: int, size: Size, traced: list[str]) -> Plan:
        return one_after_the_other(seconds, seed)  # facts do not vary

    def values(self, arm: Arm, where: Where) -> Iterable[Value]:
        if where.warmup:
            with held(arm) as hold:  # whether it can, cheaply; what it has to say comes once
                hold()
            return []
        tree = roots.tree("busybox")
        on_host = facts.script(f"{tree}/probe")
        host = facts.parsed(output_of([tree + SHELL[0], *SHELL[1:], on_host]))
        said = arm.capture([*SHELL, facts.script() if arm.root else on_host])
        seen, asked = facts.parsed(said), facts.answers(said)
        if "hostname" not in seen:
            raise ArmFailed("its shell said nothing")
        boot = seen.get("boot", "")
        # Without /proc there is no telling, but only a machine has another kernel.
        own_kernel = boot != host["boot"] if boot else arm.kind == "vm"
        kernel = Fact(
            "own_kernel", own_kernel, "It runs on a kernel of its own.",
            "/proc/sys/kernel/random/boot_id", boot or "no /proc", better=True,
        )  # fmt: skip
        with held(arm) as hold:
            one = hold()
            found = [kernel, *facts.outside(one, own_kernel)]
            reached = list(_reached(one, own_kernel))
        found += facts.inside(seen, asked, host, own_kernel)
        return [*map(_value, found), *reached]


def _value(fact: Fact) -> Value:
    params = {"fact": fact.text, "how": fact.how, "seen": fact.seen[:300]}
    direction = "higher" if fact.better else "lower"
    return Value(f"isolation.{fact.name}", float(fact.so), "fact", direction, params=params)


def _reached(one: Held, own_kernel: bool) -> Iterator[Value]:
    """How many of the host's system calls its payload can reach, and the process around it."""
    total = len(surface.calls())
    how = "its seccomp filters, read with ptrace(2) and asked about each call"
    pid = one.payload()
    if own_kernel:
        yield _calls(
            "host_calls", 0, "So many of the host's system calls its programs can reach.",
            "its own kernel", f"none of {total}: they end in the guest's kernel",
        )  # fmt: skip
        pid = min(processes([one])[one])
    try:
        reachable = surface.allowed(surface.filters(pid))
    except OSError as error:
        raise ArmFailed(f"seccomp filters cannot be read: {error}") from error
    name, text = "host_calls", "So many of the host's system calls its programs can reach."
    if own_kernel:
        name, text = "vmm_calls", "So many can the process around it, which a guest may break into."
    lacking = sorted(surface.calls().keys() - set(reachable))
    seen = f"{len(reachable)} of {total}" + (f"; not {', '.join(lacking)}" if lacking else "")
    yield _calls(name, len(reachable), text, how, seen)


def _calls(name: str, count: int, text: str, how: str, seen: str) -> Value:
    params = {"fact": text, "how": how, "seen": seen}
    return Value(f"isolation.{name}", count, "calls", "lower", params=params)


BENCH = Isolation()
