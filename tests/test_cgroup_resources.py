"""kernel/cgroups without a kernel: detection from texts, OCI resources -> writes, device rules."""

from __future__ import annotations

import re
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicontainer.kernel.cgroups import detect, devices, devices_v2, resources, resources_v2
from minicontainer.kernel.cgroups.location import checked_path

V1 = dict.fromkeys(
    ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb",
     "net_cls", "net_prio", "rdma"), 1
)  # fmt: skip
V2 = dict.fromkeys(
    ("cpu", "cpuset", "memory", "io", "pids", "hugetlb", "rdma", "freezer", "devices"), 2
)
HYBRID = {**V1, "hugetlb": 2}


def writes(limits: object, versions: dict[str, int]) -> dict[str, str]:
    found = {}
    for _, _, item in resources.writes(limits, versions):
        if not isinstance(item, str):
            found[item.file] = item.value
    return found


def warnings(limits: object, versions: dict[str, int]) -> list[str]:
    return [item for _, _, item in resources.writes(limits, versions) if isinstance(item, str)]


# --- detection ----------------------------------------------------------------------------------

SYSTEMD_V1 = (
    """\
25 30 0:23 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
26 25 0:24 / /sys/fs/cgroup/systemd rw shared:10 - cgroup cgroup rw,xattr,name=systemd
29 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:11 - cgroup cgroup rw,cpu,cpuacct
30 25 0:28 / /sys/fs/cgroup/memory rw shared:12 - cgroup cgroup rw,memory
""",
    "4:memory:/user.slice\n3:cpu,cpuacct:/user.slice\n1:name=systemd:/user.slice/s.scope\n",
)
# In docker without a cgroup namespace: the mount shows a part of the tree.
DOCKER_V1 = (
    """\
121 120 0:19 /docker/dc4e /sys/fs/cgroup/systemd ro - cgroup cgroup rw,name=systemd
124 120 0:22 /docker/dc4e /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory
""",
    "4:memory:/docker/dc4e/inner\n1:name=systemd:/docker/dc4e\n",
)
# The same hierarchy twice, once from another cgroup namespace, once below a path with a blank.
TWICE = (
    """\
40 30 0:50 /.. /elsewhere rw - cgroup cgroup rw,memory
41 30 0:50 / /sys/fs/my\\040groups rw - cgroup cgroup rw,memory
""",
    "4:memory:/here\n",
)
NAMED_WITH_CONTROLLER = "40 30 0:50 / /g rw - cgroup cgroup rw,cpu,name=x\n", "4:cpu,name=x:/\n"


@pytest.mark.parametrize(
    ("texts", "kind", "expected"),
    [
        (SYSTEMD_V1, "v1", [
            (("memory",), "/sys/fs/cgroup/memory", "/user.slice"),
            (("cpu", "cpuacct"), "/sys/fs/cgroup/cpu,cpuacct", "/user.slice"),
            (("name=systemd",), "/sys/fs/cgroup/systemd", "/user.slice/s.scope"),
        ]),
        (DOCKER_V1, "v1", [
            (("memory",), "/sys/fs/cgroup/memory", "/inner"),
            (("name=systemd",), "/sys/fs/cgroup/systemd", ""),
        ]),
        (TWICE, "v1", [(("memory",), "/sys/fs/my groups", "/here")]),
        (NAMED_WITH_CONTROLLER, "v1", [(("cpu", "name=x"), "/g", "")]),
        (("", "0::/\n"), "none", []),
    ],
)  # fmt: skip
def test_v1_hierarchies_are_found(texts, kind, expected):
    layout = detect.parse(*(text.splitlines(keepends=True) for text in texts))
    assert layout.kind == kind
    assert [(h.controllers, h.mount_point, h.own) for h in layout.hierarchies] == expected


@pytest.mark.parametrize(
    ("root", "own", "expected"), [("/", "/a", "/a"), ("/a", "/b", None), ("/", "/../x", None)]
)
def test_v2_and_hybrid_layouts(tmp_path, root, own, expected):
    (tmp_path / "cgroup.controllers").write_text("cpu io memory pids\n")
    mounts = [f"26 25 0:24 {root} {tmp_path} rw - cgroup2 cgroup2 rw,nsdelegate\n"]
    layout = detect.parse(mounts, [f"0::{own}\n"])
    assert layout.kind == "v2"
    assert layout.hierarchies[0].own == expected
    assert layout.versions()["memory"] == layout.versions()["devices"] == 2
    mounts.append("29 25 0:27 / /c/devices rw - cgroup cgroup rw,devices\n")
    layout = detect.parse(mounts, ["3:devices:/\n", f"0::{own}\n"])
    assert layout.kind == "hybrid"
    assert (layout.versions()["devices"], layout.versions()["io"]) == (1, 2)


def test_a_v2_host_names_the_successor_of_net_cls(tmp_path):
    layout = detect.Layout([detect.Hierarchy(2, ("memory",), str(tmp_path), "")])
    why, fix = detect.why_missing("net_cls", layout)
    assert why == "cgroup v2 has no net_cls"
    assert "socket cgroupv2" in fix


def test_what_the_kernel_has_but_the_group_was_not_given(tmp_path):
    layout = detect.Layout([detect.Hierarchy(2, ("memory",), str(tmp_path), "")])
    for name in ("cpuset", "io"):
        why, fix = detect.why_missing(name, layout)
        assert why == f"the {name} controller is not handed down to this group"
        assert "Delegate" in fix
    assert detect.why_missing("other", layout)[0] == "this kernel has no other controller"


# --- conversions, against known values ----------------------------------------------------------


@pytest.mark.parametrize(
    ("shares", "weight"),
    # opencontainers/cgroups utils_test.go: the ends and the defaults; others from its formula
    [(1, 1), (2, 1), (100, 17), (512, 59), (1024, 100), (2048, 174), (262144, 10000),
     (1 << 40, 10000)],
)  # fmt: skip
def test_shares_become_a_weight(shares, weight):
    assert resources_v2.weight_of_shares(shares) == weight


@given(st.integers(2, 1 << 18))
def test_more_shares_are_no_less_weight(shares):
    weight = resources_v2.weight_of_shares(shares)
    assert 1 <= weight <= resources_v2.weight_of_shares(shares + 1) <= 10000


@pytest.mark.parametrize(("weight", "io"), [(10, 1), (100, 910), (500, 4950), (1000, 10000)])
def test_blkio_weight_becomes_io_weight(weight, io):
    assert resources_v2.weight_of_blkio(weight) == io


@pytest.mark.parametrize(
    ("limit", "swap", "expected"),
    # opencontainers/cgroups utils_test.go, TestConvertMemorySwapToCgroupV2Value
    [(None, -1, "max"), (-1, None, "max"), (-1, -1, "max"), (-1, 1000, "1000"),
     (1000, 2000, "1000"), (1000, 1000, "0"), (1000, -1, "max"), (1000, None, None),
     (1000, 0, None)],
)  # fmt: skip
def test_swap_is_without_memory_in_v2(limit, swap, expected):
    found = writes({"memory": {"limit": limit, "swap": swap}}, V2)
    assert found.get("memory.swap.max") == expected


@pytest.mark.parametrize("memory", [{"swap": 5}, {"limit": 10, "swap": 5}, {"limit": -2}])
def test_impossible_swap_is_refused(memory):
    with pytest.raises(ValueError, match=r"linux\.resources\.memory"):
        writes({"memory": memory}, V2)


ALL = {
    "memory": {"limit": 64, "swap": 96, "reservation": 32, "kernel": 5, "swappiness": 0,
               "disableOOMKiller": True, "useHierarchy": True},
    "cpu": {"shares": 1024, "quota": 20, "period": 50, "burst": 0, "realtimeRuntime": 7,
            "realtimePeriod": 9, "idle": 1, "cpus": "0-1,3", "mems": "0"},
    "pids": {"limit": 33},
    "blockIO": {
        "weight": 100, "leafWeight": 10,
        "weightDevice": [{"major": 8, "minor": 0, "weight": 500, "leafWeight": 300}],
        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
        "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 0}],
    },
    "hugepageLimits": [{"pageSize": "2MB", "limit": 9}],
    "network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 5}]},
    "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}},
}  # fmt: skip


def test_all_of_the_spec_in_v1():
    assert writes(ALL, V1) == {
        "cpuset.cpus": "0-1,3", "cpuset.mems": "0", "cpu.shares": "1024", "cpu.cfs_period_us": "50",
        "cpu.cfs_quota_us": "20", "cpu.cfs_burst_us": "0", "cpu.rt_period_us": "9",
        "cpu.rt_runtime_us": "7", "cpu.idle": "1", "memory.use_hierarchy": "1",
        "memory.limit_in_bytes": "64", "memory.memsw.limit_in_bytes": "96",
        "memory.soft_limit_in_bytes": "32", "memory.swappiness": "0", "memory.oom_control": "1",
        "pids.max": "33", "blkio.bfq.weight": "100", "blkio.bfq.weight_device": "8:0 500",
        "blkio.throttle.read_bps_device": "8:0 600", "blkio.throttle.write_iops_device": "8:16 0",
        "hugetlb.2MB.limit_in_bytes": "9", "hugetlb.2MB.rsvd.limit_in_bytes": "9",
        "net_cls.classid": "1048577", "net_prio.ifpriomap": "eth0 5",
        "rdma.max": "mlx5_1 hca_handle=3 hca_object=10000",
    }  # fmt: skip
    assert [line.split()[0].removeprefix("linux.resources.") for line in warnings(ALL, V1)] == [
        "memory.kernel", "blockIO.weightDevice[0].leafWeight", "blockIO.leafWeight",
    ]  # fmt: skip


def test_all_of_the_spec_in_v2():
    found = [(i.file, i.value) for _, _, i in resources.writes(ALL, V2) if not isinstance(i, str)]
    assert found == [
        ("cpuset.cpus", "0-1,3"), ("cpuset.mems", "0"), ("cpu.weight", "100"),
        ("cpu.max", "20 50"), ("cpu.max.burst", "0"), ("cpu.idle", "1"), ("memory.swap.max", "32"),
        ("memory.max", "64"), ("memory.low", "32"), ("pids.max", "33"), ("io.bfq.weight", "100"),
        ("io.bfq.weight", "8:0 500"), ("io.max", "8:0 rbps=600"), ("io.max", "8:16 wiops=max"),
        ("hugetlb.2MB.max", "9"), ("hugetlb.2MB.rsvd.max", "9"), ("net_cls.classid", "1048577"),
        ("net_prio.ifpriomap", "eth0 5"), ("rdma.max", "mlx5_1 hca_handle=3 hca_object=10000"),
    ]  # fmt: skip
    # What v2 has no controller for is yielded with version 0: the group says why it is missing.
    missing = {name for name, version, _ in resources.writes(ALL, V2) if not version}
    assert missing == {"net_cls", "net_prio"}
    assert [line.split()[0].removeprefix("linux.resources.") for line in warnings(ALL, V2)] == [
        "cpu.realtimePeriod", "cpu.realtimeRuntime", "memory.swappiness", "memory.disableOOMKiller",
        "memory.kernel", "blockIO.weightDevice[0].leafWeight", "blockIO.leafWeight",
    ]  # fmt: skip


def test_a_hybrid_host_gets_each_controller_in_its_version():
    found = {(name, version) for name, version, _ in resources.writes(ALL, HYBRID)}
    assert ("hugetlb", 2) in found
    assert ("memory", 1) in found


def test_kernels_with_other_weights():
    items = {i.file: i for _, _, i in resources.writes({"blockIO": {"weight": 100}}, V2)}
    assert items["io.bfq.weight"].instead.file == "io.weight"
    assert items["io.bfq.weight"].instead.value == "910"


# --- what a stranger may write ------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    ["../memory.max", "memory.max/..", "a/b", "memory", ".", "..", "", ".memory", "memory.max\n",
     "cgroup.procs", "cgroup.kill", "cgroup.freeze", "cgroup.subtree_control", "cgroup.threads"],
)  # fmt: skip
def test_unified_names_limits_only(key):
    with pytest.raises(ValueError, match="unified"):
        writes({"unified": {key: "1"}}, V2)


def test_unified_is_for_v2():
    assert writes({"unified": {"memory.high": "7", "cgroup.max.depth": "3"}}, V2) == {
        "memory.high": "7", "cgroup.max.depth": "3",
    }  # fmt: skip
    with pytest.raises(ValueError, match="on this host memory is in v1"):
        writes({"unified": {"memory.high": "7"}}, HYBRID)
    assert writes({"unified": {"hugetlb.2MB.max": "7"}}, HYBRID) == {"hugetlb.2MB.max": "7"}


KEYS = sorted(
    {"limit", "swap", "kernel", "shares", "quota", "period", "cpus", "mems", "idle", "weight",
     "weightDevice", "major", "minor", "rate", "pageSize", "classID", "priorities", "name",
     "priority", "hcaHandles", "allow", "type", "access", "memory.max", "cgroup.procs", "../x",
     "throttleReadBpsDevice", "useHierarchy", "burst", "swappiness", "devices", "unified",
     *resources.CONTROLLERS}
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from(["0", "2MB", "rwm", "c", "eth0", "0\n", "/"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=5),
    max_leaves=20,
)  # fmt: skip
FILES = re.compile(
    r"(cpu|cpuset|memory|pids|blkio|io|hugetlb|net_cls|net_prio|rdma)(\.[A-Za-z0-9_]+)+"
    r"|cgroup\.max\.[a-z]+"
)


@settings(max_examples=400)
@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=6) | JSON,
       st.sampled_from([V1, V2, HYBRID, {}]))  # fmt: skip
def test_whatever_comes_in_only_limits_come_out(limits, versions):
    try:
        found = list(resources.writes(limits, versions))
        resources.controllers(limits)
        if isinstance(limits, dict):
            devices.writes_v1(*devices.rules(limits))
            devices_v2.compile(*devices.rules(limits))
    except ValueError as error:
        assert "linux.resources" in str(error)  # noqa: PT017 (it may, or may not, be raised)
        return
    for _, _, item in found:
        if isinstance(item, str):
            continue
        if "unified" not in limits:
            assert FILES.fullmatch(item.file), item.file
            assert "\n" not in item.value
        assert "/" not in item.file
        assert not item.file.startswith("cgroup.") or item.file.startswith("cgroup.max.")


@given(st.text(alphabet="ab./\0\n\u202e é", max_size=12))
def test_a_path_is_refused_or_stays_below(path):
    try:
        names = checked_path(path)
    except ValueError as error:
        assert "cgroupsPath" in str(error)  # noqa: PT017
        return
    assert names
    assert not {"", ".", ".."} & set(names)
    assert all("/" not in name and name.isprintable() for name in names)


# --- devices: the rules in order are the oracle for both forms ----------------------------------

RULES = st.lists(
    st.builds(
        lambda allow, kind, major, minor, access: {
            "allow": allow, "type": kind, "major": major, "minor": minor, "access": access,
        },
        st.booleans(), st.sampled_from("abc"), st.sampled_from([None, -1, 1, 5]),
        st.sampled_from([None, 3, 7]), st.sampled_from(["r", "w", "m", "rw", "rwm"]),
    ),
    max_size=6,
)  # fmt: skip
DEVICE = st.tuples(st.sampled_from("bc"), st.sampled_from([1, 5, 136]), st.sampled_from([3, 7]))
ACCESS = st.sets(st.sampled_from("rwm"), min_size=1)


def allowed(items: list[dict], device, access: set[str]) -> bool:
    """Each kind of access on its own: what the last rule that names it says."""
    kind, major, minor = device
    for letter in access:
        answer = False
        for item in items + devices.DEFAULT:
            if (
                item.get("type", "a") in ("a", kind)
                and item.get("major") in (None, -1, major)
                and item.get("minor") in (None, -1, minor)
                and letter in item["access"]
            ):
                answer = item["allow"]
        if not answer:
            return False
    return True


def run_program(program: bytes, device, access: set[str]) -> bool:
    """What the kernel's eBPF machine does, as far as our instructions go."""
    kind, major, minor = device
    bits = sum({"m": 1, "r": 2, "w": 4}[letter] for letter in access)
    context = struct.pack("=III", bits << 16 | {"b": 1, "c": 2}[kind], major, minor)
    code = list(struct.iter_unpack("=BBhi", program))
    registers = [0] * 11
    place = 0
    while True:
        opcode, pair, offset, value = code[place]
        target, source = pair & 15, pair >> 4
        place += 1
        if opcode == 0x61:
            assert source == 1
            registers[target] = struct.unpack_from("=I", context, offset)[0]
        elif opcode == 0xBF:
            registers[target] = registers[source]
        elif opcode == 0x77:
            registers[target] >>= value
        elif opcode == 0x57:
            registers[target] &= value
        elif opcode == 0xB7:
            registers[target] = value
        elif opcode == 0x55:
            place += offset * (registers[target] != value)
        elif opcode == 0x15:
            place += offset * (registers[target] == value)
        else:
            assert opcode == 0x95
            return bool(registers[0])


@settings(max_examples=400)
@given(RULES, DEVICE, ACCESS)
def test_the_v2_program_does_what_the_rules_say(items, device, access):
    program = devices_v2.compile(*devices.rules({"devices": items}))
    assert run_program(program, device, access) == allowed(items, device, access)


@settings(max_examples=400)
@given(RULES, DEVICE, st.sampled_from("rwm"))
def test_the_v1_writes_do_what_the_rules_say(items, device, letter):
    """For one kind of access at a time: for several v1 wants a single rule that has them all."""
    try:
        listed = devices.writes_v1(*devices.rules({"devices": items}))
    except ValueError as error:
        assert "takes back a part of" in str(error)  # noqa: PT017
        return
    kind = device[0]
    answer = listed[0].file == "devices.allow"
    for write in listed[1:]:
        assert (write.file == "devices.deny") == (listed[0].file == "devices.allow")
        what, numbers, letters = write.value.split()
        matches = [
            n in ("*", str(own)) for n, own in zip(numbers.split(":"), device[1:], strict=True)
        ]
        if what == kind and letter in letters and all(matches):
            answer = write.file == "devices.allow"
    assert answer == allowed(items, device, {letter})


@pytest.mark.parametrize(
    "item",
    [{}, {"allow": 1}, {"allow": True, "type": "x"}, {"allow": True, "access": "q"},
     {"allow": True, "major": -2}, {"allow": True, "minor": "3"}, "a", None],
)  # fmt: skip
def test_odd_device_rules_are_refused(item):
    with pytest.raises(ValueError, match=r"linux\.resources\.devices"):
        devices.rules({"devices": [item]})
