"""OCI resources in the words of cgroup v1: one function for each controller, a Write each.

The order within a controller is the one that fits a new group. Where a running one needs another
(memory before memory and swap, or after?), `group` tries again what was EINVAL.
"""

from __future__ import annotations

from .resources import Section, Write


def memory(top: Section):
    """Documentation/admin-guide/cgroup-v1/memory.rst"""
    m = top.section("memory")
    if m.flag("useHierarchy"):
        yield Write("memory.use_hierarchy", 1)
    limit, swap = m.nonzero("limit", -1), m.nonzero("swap", -1)
    if limit == -1 and swap is None:
        swap = -1  # "no limit" cannot stop at a lower limit of both
    if limit is not None:
        yield Write("memory.limit_in_bytes", limit)
    if swap is not None:
        yield Write("memory.memsw.limit_in_bytes", swap)
    if reservation := m.nonzero("reservation", -1):
        yield Write("memory.soft_limit_in_bytes", reservation)
    swappiness = m.integer("swappiness", 0, 100)
    if swappiness is not None:
        yield Write("memory.swappiness", swappiness)
    if m.flag("disableOOMKiller"):
        yield Write("memory.oom_control", 1)
    yield from kernel_memory(m)


def kernel_memory(m: Section):
    """Part of `limit` since Linux 5.4, where a limit of its own was deprecated."""
    for key in ("kernel", "kernelTCP"):
        if m.nonzero(key, -1):
            yield f"{m.name}.{key} is ignored: kernel memory counts towards `limit` (Linux 5.4)"


def cpu(top: Section):
    """Documentation/scheduler/sched-bwc.rst, sched-rt-group.rst; times in µs."""
    c = top.section("cpu")
    for file, value in (
        ("cpu.shares", c.nonzero("shares", 2)),
        ("cpu.cfs_period_us", c.nonzero("period")),
        ("cpu.cfs_quota_us", c.nonzero("quota", -1)),
        ("cpu.cfs_burst_us", c.integer("burst")),
        ("cpu.rt_period_us", c.nonzero("realtimePeriod")),
        ("cpu.rt_runtime_us", c.nonzero("realtimeRuntime", -1)),
        ("cpu.idle", c.integer("idle", 0, 1)),
    ):
        if value is not None:
            yield Write(file, value)


def cpuset(top: Section):
    """Documentation/admin-guide/cgroup-v1/cpusets.rst; the same files in v2."""
    c = top.section("cpu")
    for key in ("cpus", "mems"):
        if value := c.word(key):
            yield Write(f"cpuset.{key}", value)


def pids(top: Section):
    """Documentation/admin-guide/cgroup-v1/pids.rst; the same file in v2."""
    if limit := top.section("pids").nonzero("limit", -1):
        yield Write("pids.max", limit if limit > 0 else "max")


THROTTLES = {
    "throttleReadBpsDevice": ("read_bps", "rbps"), "throttleReadIOPSDevice": ("read_iops", "riops"),
    "throttleWriteBpsDevice": ("write_bps", "wbps"),
    "throttleWriteIOPSDevice": ("write_iops", "wiops"),
}  # fmt: skip


def blkio(top: Section):
    """Documentation/admin-guide/cgroup-v1/blkio-controller.rst

    Before Linux 5.0 the CFQ scheduler had weights, and leaf weights; now BFQ has.
    """
    b = top.section("blockIO")
    if weight := b.nonzero("weight", 10, 1000):
        yield Write("blkio.bfq.weight", weight, Write("blkio.weight", weight))
    for item in b.sections("weightDevice"):
        if weight := item.nonzero("weight", 10, 1000):
            line = f"{item.device()} {weight}"
            yield Write("blkio.bfq.weight_device", line, Write("blkio.weight_device", line))
        yield from leaf_weight(item)
    yield from leaf_weight(b)
    for key, (name, _) in THROTTLES.items():
        for item in b.sections(key):
            yield Write(f"blkio.throttle.{name}_device", f"{item.device()} {rate(item)}")


def leaf_weight(item: Section):
    if item.nonzero("leafWeight", 10, 1000):
        yield f"{item.name}.leafWeight is ignored: it went with the CFQ scheduler (Linux 5.0)"


def rate(item: Section) -> int:
    """Bytes or operations a second; 0 takes a limit away."""
    value = item.integer("rate")
    if value is None:
        raise ValueError(f"{item.name}.rate is required")
    return value


def hugetlb(top: Section):
    """Documentation/admin-guide/cgroup-v1/hugetlb.rst"""
    for size, limit in huge_pages(top):
        yield Write(f"hugetlb.{size}.limit_in_bytes", limit)
        yield Write(f"hugetlb.{size}.rsvd.limit_in_bytes", limit, optional=True)  # Linux 5.7


def huge_pages(top: Section):
    for item in top.sections("hugepageLimits"):
        size, limit = item.word("pageSize") or "", item.integer("limit")
        if size[-2:] not in ("KB", "MB", "GB") or not size[:-2].isdigit() or size[0] == "0":
            raise ValueError(f"{item.name}.pageSize: {size!r} is not like 2MB")
        if limit is None:
            raise ValueError(f"{item.name}.limit is required")
        yield size, limit


def net_cls(top: Section):
    """Documentation/admin-guide/cgroup-v1/net_cls.rst: a mark on packets, for tc(8)."""
    class_id = top.section("network").integer("classID", 0, 2**32 - 1)
    if class_id is not None:
        yield Write("net_cls.classid", class_id)


def net_prio(top: Section):
    """Documentation/admin-guide/cgroup-v1/net_prio.rst"""
    for item in top.section("network").sections("priorities"):
        name, priority = item.word("name"), item.integer("priority", 0, 2**32 - 1)
        if name is None or priority is None:
            raise ValueError(f"{item.name}: name and priority are required")
        yield Write("net_prio.ifpriomap", f"{name} {priority}")


def rdma(top: Section):
    """Documentation/admin-guide/cgroup-v1/rdma.rst; the same file in v2."""
    limits = top.section("rdma")
    for device in limits.keys():  # noqa: SIM118 (a Section is no dict)
        item = limits.section(device)
        Section(limits.name, {"device": device}).word("device")
        handles, objects = item.integer("hcaHandles"), item.integer("hcaObjects")
        words = [f"hca_handle={handles}"] if handles is not None else []
        words += [f"hca_object={objects}"] if objects is not None else []
        if not words or not device:
            raise ValueError(f"{item.name}: hcaHandles or hcaObjects is required")
        yield Write("rdma.max", " ".join([device, *words]))
