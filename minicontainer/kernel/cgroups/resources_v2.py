"""OCI resources, which speak v1, in the words of cgroup v2: the conversions of runc and crun."""

from __future__ import annotations

from . import resources_v1 as v1
from .resources import Section, Write

# The same words. Of net_cls and net_prio v2 has no equivalent: see `detect.why_missing`.
cpuset, pids, rdma, net_cls, net_prio = v1.cpuset, v1.pids, v1.rdma, v1.net_cls, v1.net_prio


def weight_of_shares(shares: int) -> int:
    """cpu.shares (2 … 1024 … 262144) -> cpu.weight (1 … 100 … 10000).

    The curve through those three points, as runc has it since 1.3.2. The straight line before it
    made 39 of the default 1024, so a container had less than its neighbours.
    """
    import math

    log = math.log2(min(max(shares, 2), 1 << 18))
    return math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


def weight_of_blkio(weight: int) -> int:
    """blkio.weight (10 … 1000) -> io.weight (1 … 10000), a straight line, as runc and crun."""
    return 1 + (weight - 10) * 9999 // 990


def swap_max(swap: int, limit: int | None) -> int:
    """OCI's `swap` is memory and swap together, memory.swap.max is swap alone; -1 is no limit."""
    if swap == -1 or limit == -1:
        return swap
    if limit is None:
        raise ValueError("linux.resources.memory.swap: is of no use on cgroup v2 without `limit`")
    if swap < limit:
        raise ValueError(
            f"linux.resources.memory.swap: {swap} is memory and swap together, so it cannot be "
            f"less than `limit`, {limit}"
        )
    return swap - limit


def memory(top: Section):
    """cgroup-v2.rst, "Memory Interface Files" """
    m = top.section("memory")
    limit, swap = m.nonzero("limit", -1), m.nonzero("swap", -1)
    if limit == -1 and swap is None:
        swap = -1
    if swap is not None:
        # Without CONFIG_SWAP, or with swapaccount=0, there is no swap to limit.
        yield Write("memory.swap.max", _max(swap_max(swap, limit)), optional=True)
    if limit is not None:
        yield Write("memory.max", _max(limit))
    if reservation := m.nonzero("reservation", -1):
        yield Write("memory.low", _max(reservation))
    if m.integer("swappiness", 0, 100) is not None:
        yield f"{m.name}.swappiness is ignored: cgroup v2 has it for the whole host only"
    if m.flag("disableOOMKiller"):
        yield f"{m.name}.disableOOMKiller is ignored: cgroup v2 always kills"
    if m.flag("useHierarchy") is False:
        yield f"{m.name}.useHierarchy is ignored: cgroup v2 always counts the groups below"
    yield from v1.kernel_memory(m)


def cpu(top: Section):
    """cgroup-v2.rst, "CPU Interface Files"; times in µs."""
    c = top.section("cpu")
    if shares := c.nonzero("shares", 2):
        yield Write("cpu.weight", weight_of_shares(shares))
    quota, period = c.nonzero("quota", -1), c.nonzero("period")
    if quota is not None:
        # A quota alone leaves the period as it is.
        yield Write("cpu.max", f"{_max(quota)} {period or ''}".strip())
    elif period is not None:
        yield Write("cpu.max", period, keep_word=True)
    burst, idle = c.integer("burst"), c.integer("idle", 0, 1)
    if burst is not None:
        yield Write("cpu.max.burst", burst)
    if idle is not None:
        yield Write("cpu.idle", idle)
    for key in ("realtimePeriod", "realtimeRuntime"):
        if c.nonzero(key, -1):
            yield f"{c.name}.{key} is ignored: cgroup v2 does not control realtime"


def blkio(top: Section):
    """cgroup-v2.rst, "IO Interface Files"; BFQ keeps v1's scale (bfq-iosched.rst)."""
    b = top.section("blockIO")
    if weight := b.nonzero("weight", 10, 1000):
        yield Write("io.bfq.weight", weight, Write("io.weight", weight_of_blkio(weight)))
    for item in b.sections("weightDevice"):
        if weight := item.nonzero("weight", 10, 1000):
            other = Write("io.weight", f"{item.device()} {weight_of_blkio(weight)}")
            yield Write("io.bfq.weight", f"{item.device()} {weight}", other)
        yield from v1.leaf_weight(item)
    yield from v1.leaf_weight(b)
    for key, (_, name) in v1.THROTTLES.items():
        for item in b.sections(key):
            yield Write("io.max", f"{item.device()} {name}={v1.rate(item) or 'max'}")


def hugetlb(top: Section):
    """cgroup-v2.rst, "HugeTLB Interface Files" """
    for size, limit in v1.huge_pages(top):
        yield Write(f"hugetlb.{size}.max", limit)
        yield Write(f"hugetlb.{size}.rsvd.max", limit, optional=True)  # Linux 5.7


def unified(top: Section):
    """Files of v2 by name. A stranger's: it must stay a limit, and in the group's directory."""
    section = top.section("unified")
    for key in section.keys():  # noqa: SIM118 (a Section is no dict)
        name = key if isinstance(key, str) else ""
        plain = name.replace(".", "").replace("_", "")
        if not (plain.isascii() and plain.isalnum()) or "." not in name.strip("."):
            raise ValueError(f"{section.name}: {key!r} is not the name of a controller's file")
        if name.startswith((".", "cgroup.")) and not name.startswith("cgroup.max."):
            # cgroup.procs, cgroup.kill, cgroup.freeze …: not limits, but the runtime's own tools
            raise ValueError(f"{section.name}: {key!r} is not a limit")
        if value := section.text(name):
            yield Write(name, value)


def _max(value: int) -> str:
    return str(value) if value >= 0 else "max"
