"""kernel/cgroups: what the kernel does with the processes of a group, in this host's hierarchies.

Everything is made below names that start with minicontainer-test-, and is gone at the end.
"""

from __future__ import annotations

import errno
import itertools
import json
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from minicontainer.doctor import in_child
from minicontainer.kernel import cgroups, mounts, syscalls
from minicontainer.kernel.cgroups import CgroupError, detect, devices, devices_v2, directory
from tests.roots import ORDINARY_UID, REPOSITORY, make_busybox_root

MB = 1 << 20
FIRST_CGROUP_NAMESPACE = 0xEFFFFFFB  # its inode: PROC_CGROUP_INIT_INO of linux/proc_ns.h
_numbers = itertools.count()
# In each name that is made here, so that another run at the same time is not disturbed.
RUN = f"test-{os.getpid()}-"

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="making cgroups needs root: sudo ./workshop test"),
]


def needs(controller: str, version: int | None = None) -> None:
    found = detect.detect().versions().get(controller)
    if found is None or version not in (None, found):
        pytest.skip(
            f"this host has {controller} in cgroup v{found}, not in v{version or '1 or v2'}"
        )


def name() -> str:
    return f"{RUN}{os.getpid()}-{next(_numbers)}"


def all_groups() -> set[str]:
    return {
        path
        for hierarchy in detect.detect().hierarchies
        for path, _, _ in os.walk(hierarchy.mount_point)
        if RUN in path
    }


@pytest.fixture(autouse=True)
def nothing_is_left():
    """Each test must leave the trees as they were; what v2 hands down is put back as well."""
    before = all_groups()
    switches = {}
    for hierarchy in detect.detect().hierarchies:
        path = Path(hierarchy.mount_point, "cgroup.subtree_control")
        if hierarchy.version == 2:
            switches[path] = path.read_text().split()
    yield
    left = all_groups() - before
    for path in sorted(left, reverse=True):
        os.rmdir(path)
    for path, enabled in switches.items():
        for controller in set(path.read_text().split()) - set(enabled):
            path.write_text(f"-{controller}")
    assert not left, f"not removed: {sorted(left)}"


@pytest.fixture
def make():
    """A function that places and creates groups; they are deleted at the end."""
    groups: list[cgroups.Group] = []

    def one(limits: dict | None = None, path: str | None = None, layout=None) -> cgroups.Group:
        group = cgroups.place(path or name(), limits, layout)
        groups.append(group)
        assert group.create() == []
        assert group.set(limits or {}) == []
        return group

    yield one
    for group in groups:
        group.delete()


def unified() -> detect.Layout:
    """The v2 tree of this host alone, whatever it has; a hybrid host's lacks most controllers."""
    v2 = [h for h in detect.detect().hierarchies if h.version == 2]
    if not v2:
        pytest.skip("no cgroup v2 is mounted on this host")
    return detect.Layout(v2)


def v1_only() -> detect.Layout:
    v1 = [h for h in detect.detect().hierarchies if h.version == 1]
    if not v1:
        pytest.skip("no cgroup v1 is mounted on this host")
    return detect.Layout(v1)


def start(group: cgroups.Group, function=None) -> int:
    """A child process in the group, that runs the function or waits for a signal; returns its pid.

    When this returns the child is in the group.
    """
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            group.enter()
            os.write(tell, b".")
            if function is None:
                signal.pause()
            function()
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
        finally:
            os._exit(99)
    os.close(tell)
    assert os.read(ready, 1) == b"."
    os.close(ready)
    return pid


def status(pid: int) -> int:
    """How a child ended: its exit status, or minus a signal's number."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def own_paths(pid: int) -> set[str]:
    return {line.rpartition(":")[2] for line in Path(f"/proc/{pid}/cgroup").read_text().split("\n")}


# --- the groups themselves ----------------------------------------------------------------------


def test_the_child_is_in_each_directory_and_deleting_kills_it(make):
    group = make()
    pid = start(group)
    in_groups = Path(f"/proc/{pid}/cgroup").read_text()
    for one in group.directories:
        assert os.path.isdir(one.path)
        assert one.path.removeprefix(one.mount_point) in in_groups
    assert group.processes() == [pid]
    group.delete()
    assert status(pid) == -signal.SIGKILL
    assert not any(os.path.exists(one.path) for one in group.directories)
    group.delete()  # once more is no error


def test_another_process_can_be_moved(make):
    group = make()
    child = subprocess.Popen(["sleep", "100"])
    group.enter(child.pid)
    assert group.processes() == [child.pid]
    group.kill()
    assert child.wait() == -signal.SIGKILL


def test_anybody_undoes_a_group_from_its_record(tmp_path):
    """The maker is killed, half-way or at the end; another process has only the file."""
    for steps in range(4):
        record = tmp_path / "record.json"
        pid = os.fork()
        if pid == 0:
            group = cgroups.place(name())
            record.write_text(json.dumps(group.record()))
            if steps == 1:
                group.directories[0].make()
            if steps >= 2:
                group.create()
            if steps == 3:
                start(group)
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)
        code = (
            f"import sys, json; sys.path.insert(0, {str(REPOSITORY)!r})\n"
            "from minicontainer.kernel import cgroups\n"
            f"group = cgroups.load(json.load(open({str(record)!r})))\n"
            "group.delete(); group.delete()"
        )
        subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
        paths = [item["path"] for item in json.loads(record.read_text())["directories"]]
        assert paths
        assert not any(os.path.exists(path) for path in paths)


def test_running_processes_and_nested_groups_go_too(make):
    group = make()

    def nest() -> None:
        for one in group.directories:
            os.makedirs(f"{one.path}/a/b")
            if "cpuset" not in one.controllers:
                Path(one.path, "a/b/cgroup.procs").write_text("0")
        for _ in range(5):
            if os.fork() == 0:
                signal.pause()
        os.write(tell, b".")
        signal.pause()

    ready, tell = os.pipe()
    pid = start(group, nest)
    os.read(ready, 1)
    assert len(group.processes()) == 6
    group.delete()
    assert status(pid) == -signal.SIGKILL


def test_what_others_made_stays(make):
    above = f"/minicontainer-{name()}"
    group = make(path=f"{above}/ours")
    parents = [os.path.dirname(one.path) for one in group.directories]
    for parent in parents:
        os.mkdir(f"{parent}/theirs")
    group.delete()
    for one, parent in zip(group.directories, parents, strict=True):
        assert not os.path.exists(one.path)
        os.rmdir(f"{parent}/theirs")
    group.delete()  # now that nobody uses it, what we made above goes as well
    assert not any(os.path.exists(parent) for parent in parents)


def test_an_empty_group_of_others_is_used_and_stays():
    path = f"/minicontainer-{name()}"
    point = detect.detect().hierarchies[0].mount_point
    os.mkdir(point + path)
    group = cgroups.place(path)
    group.create()
    pid = start(group)
    group.delete()
    assert status(pid) == -signal.SIGKILL
    assert os.path.isdir(point + path)
    os.rmdir(point + path)


def test_a_group_in_use_is_refused(make):
    path = f"/minicontainer-{name()}"
    pid = start(make(path=path))
    with pytest.raises(CgroupError) as caught:
        cgroups.place(path)
    assert caught.value.errno == errno.EEXIST
    assert "in use" in caught.value.strerror
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_who_loses_the_race_for_a_path_harms_nobody(make):
    path = f"/minicontainer-{name()}"
    late = cgroups.place(path)
    group = make(path=path)
    pid = start(group)
    with pytest.raises(CgroupError, match="somebody else"):
        late.create()
    assert late.record() == {"directories": []}
    late.delete()
    assert group.processes() == [pid]
    group.delete()
    assert status(pid) == -signal.SIGKILL


def test_many_come_and_go_at_once():
    pids = []
    for _ in range(8):
        pid = os.fork()
        if pid == 0:
            try:
                for n in range(10):
                    group = cgroups.place(f"{name()}-{os.getpid()}-{n}")
                    group.create()
                    child = start(group)
                    group.delete()
                    if status(child) != -signal.SIGKILL:
                        os._exit(1)
                os._exit(0)
            finally:
                os._exit(99)
        pids.append(pid)
    assert [status(pid) for pid in pids] == [0] * 8


def test_we_do_not_kill_ourselves(make):
    group = make()

    def suicide() -> None:
        with pytest.raises(CgroupError, match="itself"):
            group.delete()

    assert status(start(group, suicide)) == 0


def test_two_may_delete_it_at_once(make):
    """The one finds processes in there; then the other has removed the freezer's directory."""
    group = make()
    pid = start(group)
    (freezer,) = [d for d in group.directories if d.version == 2 or "freezer" in d.controllers]
    if freezer.version == 2 and len(group.directories) == 1:
        pytest.skip("on v2 alone a process that is in the group keeps all of it")
    Path(freezer.mount_point, "cgroup.procs").write_text(str(pid))
    os.rmdir(freezer.path)
    group.delete()
    assert status(pid) == -signal.SIGKILL


def test_rmdir_is_tried_again_while_a_process_is_leaving(make, monkeypatch):
    group = make()
    pid = start(group)
    one = group.directories[0]
    monkeypatch.setattr(type(one), "kill", lambda self, done: set())
    monkeypatch.setattr(directory, "PATIENCE", 0.02)
    with pytest.raises(CgroupError) as caught:
        one.remove()
    assert caught.value.errno == errno.EBUSY
    monkeypatch.undo()
    monkeypatch.setattr(type(one), "kill", lambda self, done: set())
    timer = threading.Timer(0.1, os.kill, (pid, signal.SIGKILL))
    timer.start()
    one.remove()
    assert not os.path.exists(one.path)
    assert status(pid) == -signal.SIGKILL
    timer.join()


@pytest.mark.parametrize(
    "path",
    ["", "/", "//", "..", "/..", "a/../../b", "./a", "a//b", "a\0b", "a\nb", "/a/..", "x" * 300,
     "/a" * 2000, None, 5, "a/\x7f"],
)  # fmt: skip
def test_odd_paths_are_refused(path):
    with pytest.raises(ValueError, match="cgroupsPath"):
        cgroups.place(path)


@pytest.mark.parametrize("path", ["/cgroup.procs", "/cgroup.procs/x"])
def test_a_file_of_the_kernel_is_no_group(path):
    group = cgroups.place(path)
    with pytest.raises(OSError, match=path.split("/")[1]):
        group.create()


# --- limits that the kernel enforces ------------------------------------------------------------


def test_a_process_that_wants_too_much_memory_is_killed(make):
    needs("memory")
    group = make({"memory": {"limit": 24 * MB, "swap": 24 * MB}})
    assert group.stats()["memory"]["oom_kills"] == 0
    pid = start(group, lambda: bytearray(96 * MB).count(1))
    assert status(pid) == -signal.SIGKILL
    memory = group.stats()["memory"]
    assert memory["oom_kills"] == 1
    assert memory["limit"] == 24 * MB
    assert 16 * MB < memory["peak"] <= 24 * MB


def test_a_busy_process_is_throttled(make):
    needs("cpu")
    group = make({"cpu": {"quota": 10_000, "period": 50_000}})

    def spin() -> None:
        end = time.monotonic() + 0.6
        while time.monotonic() < end:
            pass

    assert status(start(group, spin)) == 0
    stats = group.stats()
    assert stats["cpu"]["throttled"] >= 3
    assert stats["cpu"]["throttled_us"] > 100_000
    assert stats["cpu"]["usage_us"] < 350_000  # of 600,000


def test_a_fork_bomb_is_defused(make):
    needs("pids")
    group = make({"pids": {"limit": 8}})
    counts = mmap.mmap(-1, 16)

    def bomb() -> None:
        while True:
            try:
                pid = os.fork()
            except BlockingIOError:
                counts[0] = 1
                continue
            if pid == 0:
                continue

    pid = start(group, bomb)
    while not counts[0] or group.stats()["pids"]["current"] < 8:
        time.sleep(0.01)
    assert len(group.processes()) == 8
    group.kill()
    assert status(pid) == -signal.SIGKILL
    assert group.processes() == []


LIMITS = {
    "memory": {"limit": 64 * MB, "swap": 96 * MB, "reservation": 32 * MB},
    "cpu": {"shares": 512, "quota": 20_000, "period": 40_000, "burst": 5_000, "cpus": "0"},
    "pids": {"limit": 100},
}
READ_BACK = {
    1: {
        "memory.limit_in_bytes": 64 * MB, "memory.memsw.limit_in_bytes": 96 * MB,
        "memory.soft_limit_in_bytes": 32 * MB, "cpu.shares": 512, "cpu.cfs_quota_us": 20_000,
        "cpu.cfs_period_us": 40_000, "cpu.cfs_burst_us": 5_000, "cpuset.cpus": 0, "pids.max": 100,
    },
    2: {
        "memory.max": 64 * MB, "memory.swap.max": 32 * MB, "memory.low": 32 * MB, "cpu.weight": 59,
        "cpu.max": "20000 40000", "cpu.max.burst": 5_000, "cpuset.cpus": 0, "pids.max": 100,
    },
}  # fmt: skip


@pytest.mark.parametrize("version", [1, 2])
def test_limits_are_what_was_asked_for(make, version):
    for controller in ("memory", "cpu", "cpuset", "pids"):
        needs(controller, version)
    group = make(LIMITS)
    found = {
        file: Path(group.having(file.split(".")[0]).path, file).read_text().strip()
        for file in READ_BACK[version]
    }
    assert found == {file: str(value) for file, value in READ_BACK[version].items()}
    assert group.stats()["memory"]["limit"] == 64 * MB
    assert group.stats()["pids"]["limit"] == 100


@pytest.mark.parametrize("to", [(16, 24), (128, 256), (100, 100), (16, 200), (-1, -1)])
def test_memory_and_swap_change_up_and_down(make, to):
    """On v1 each bounds the other: the order of the two writes depends on what is there."""
    needs("memory")
    group = make({"memory": {"limit": 32 * MB, "swap": 64 * MB}})
    directory = group.having("memory")
    limit, swap = (value * MB if value > 0 else value for value in to)
    group.set({"memory": {"limit": limit, "swap": swap}})
    assert group.stats()["memory"]["limit"] == (limit if limit > 0 else None)
    if directory.version == 1:
        both = int(Path(directory.path, "memory.memsw.limit_in_bytes").read_text())
        assert both == swap if swap > 0 else both > 1 << 60
    else:
        alone = Path(directory.path, "memory.swap.max").read_text().strip()
        assert alone == (str(swap - limit) if swap > 0 else "max")


def test_quota_and_period_change_in_any_order(make):
    needs("cpu")
    group = make({"cpu": {"quota": 5_000, "period": 10_000}})
    below = Path(group.having("cpu").path)
    for quota, period in ((800_000, 1_000_000), (1_000, 2_000), (-1, 100_000), (50_000, 100_000)):
        group.set({"cpu": {"quota": quota, "period": period}})
        if (below / "cpu.max").exists():
            quota = "max" if quota < 0 else quota
            assert (below / "cpu.max").read_text().split() == [str(quota), str(period)]
        else:
            assert (below / "cpu.cfs_quota_us").read_text().strip() == str(quota)
            assert (below / "cpu.cfs_period_us").read_text().strip() == str(period)


def test_a_refused_value_names_the_file_and_the_way_out(make):
    needs("cpuset")
    group = make()
    with pytest.raises(CgroupError) as caught:
        group.set({"cpu": {"cpus": "999"}})
    assert caught.value.errno in (errno.EINVAL, errno.ERANGE)
    assert "cpuset.cpus', text='999')" in caught.value.strerror
    assert "group above" in caught.value.hint


def test_a_limit_below_what_is_in_use_is_refused_when_asked(make):
    needs("memory")
    group = make()

    def hold() -> None:
        held = bytearray(32 * MB)
        os.write(tell, b".")
        signal.pause()
        del held

    ready, tell = os.pipe()
    pid = start(group, hold)
    os.read(ready, 1)
    with pytest.raises(CgroupError) as caught:
        group.set({"memory": {"limit": 8 * MB, "checkBeforeUpdate": True}})
    assert caught.value.errno == errno.EBUSY
    assert group.stats()["memory"]["limit"] is None
    group.delete()
    assert status(pid) == -signal.SIGKILL


def test_a_process_stays_on_its_cpus(make):
    needs("cpuset")
    group = make({"cpu": {"cpus": "0"}})
    pid = start(group)
    assert os.sched_getaffinity(pid) == {0}


def test_an_empty_cpuset_above_is_filled(make):
    """v1: whoever made the group above may have left it empty; no process could be in there."""
    needs("cpuset", 1)
    point = next(h.mount_point for h in detect.detect().hierarchies if "cpuset" in h.controllers)
    above = f"/minicontainer-{name()}"
    os.mkdir(point + above)
    try:
        group = make(path=f"{above}/a/b")
        pid = start(group)
        assert os.sched_getaffinity(pid) == os.sched_getaffinity(0)
        group.delete()
        assert status(pid) == -signal.SIGKILL
    finally:
        os.rmdir(point + above)


def test_what_nobody_has_is_named_and_nothing_is_written(make):
    group = make()
    needs("memory")
    if "rdma" in detect.detect().versions():
        pytest.skip("this kernel has rdma, which the test takes for a missing controller")
    with pytest.raises(CgroupError) as caught:
        group.set({"memory": {"limit": 64 * MB}, "rdma": {"mlx5_1": {"hcaHandles": 3}}})
    assert caught.value.strerror == "this kernel has no rdma controller"
    assert caught.value.hint
    assert group.stats()["memory"]["limit"] is None


def test_the_plan_says_what_is_written(make):
    needs("memory")
    group = cgroups.place("web")
    path = group.having("memory").path
    assert path.endswith("/minicontainer-web")
    file = {1: "memory.limit_in_bytes", 2: "memory.max"}[group.having("memory").version]
    assert group.calls({"memory": {"limit": 64 * MB}}) == [
        f"write(file='{path}/{file}', text='67108864')"
    ]


# --- devices ------------------------------------------------------------------------------------


def device_group(make, version: int) -> cgroups.Group:
    limits = {
        "devices": [
            {"allow": False, "access": "rwm"},
            {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"},
        ]
    }
    if version == 2:
        return make(limits, layout=unified())
    needs("devices", 1)
    return make(limits)


@pytest.mark.parametrize("version", [1, 2])
def test_devices_that_no_rule_allows_are_refused(make, tmp_path, version):
    group = device_group(make, version)
    nodes = {"null": (1, 3), "kmsg": (1, 11), "loop-control": (10, 237)}
    answers: dict[str, str] = {}
    ready, tell = os.pipe()

    def attempt(what, *args) -> str:
        try:
            os.close(what(*args) or os.open("/", os.O_RDONLY))
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return "ok"

    def inside() -> None:
        for node, number in nodes.items():
            path = str(tmp_path / node)
            answers[f"mknod {node}"] = attempt(os.mknod, path, 0o20666, os.makedev(*number))
            answers[f"read {node}"] = attempt(os.open, path, os.O_RDONLY)
            answers[f"write {node}"] = attempt(os.open, path, os.O_WRONLY)
        os.write(tell, json.dumps(answers).encode())

    assert status(start(group, inside)) == 0
    answers = json.loads(os.read(ready, 4096))
    assert answers == {
        "mknod null": "ok", "read null": "ok", "write null": "ok",
        "mknod kmsg": "ok", "read kmsg": "ok", "write kmsg": "EPERM",
        "mknod loop-control": "ok", "read loop-control": "EPERM", "write loop-control": "EPERM",
    }  # fmt: skip


def test_a_device_program_is_replaced_not_added(make, tmp_path):
    """Of several programs each must allow, so one that stayed would go on refusing."""
    group = device_group(make, 2)
    path = group.directories[0].path
    os.mknod(tmp_path / "kmsg", 0o20666, os.makedev(1, 11))

    def try_to_write() -> None:
        os.close(os.open(tmp_path / "kmsg", os.O_WRONLY))

    def refused() -> None:
        with pytest.raises(PermissionError):
            try_to_write()

    assert status(start(group, refused)) == 0
    group.set({"devices": [{"allow": True, "access": "rwm"}]})
    assert status(start(group, try_to_write)) == 0
    devices_v2.attach(path, devices_v2.compile(False, []))

    def refused_mknod() -> None:
        with pytest.raises(PermissionError):
            os.mknod(tmp_path / "new", 0o20666, os.makedev(1, 3))
        refused()

    assert status(start(group, refused_mknod)) == 0


def test_v1_refuses_mknod_too(make, tmp_path):
    needs("devices", 1)
    group = make()
    for write in devices.writes_v1(False, []):
        group.having("devices").write(write)

    def refused_mknod() -> None:
        with pytest.raises(PermissionError):
            os.mknod(tmp_path / "new", 0o20666, os.makedev(1, 3))

    assert status(start(group, refused_mknod)) == 0


# --- freezing and killing, in both versions -----------------------------------------------------


def layouts(version: int) -> detect.Layout:
    if version == 2:
        return unified()
    needs("freezer", 1)
    return v1_only()


@pytest.mark.parametrize("version", [1, 2])
def test_a_frozen_process_does_not_run(make, version):
    group = make(layout=layouts(version))
    counter = mmap.mmap(-1, 16)

    def count() -> None:
        for n in itertools.count():
            counter[:8] = n.to_bytes(8, "little")

    def now() -> int:
        return int.from_bytes(counter[:8], "little")

    start(group, count)
    group.freeze()
    assert group.frozen()
    before = now()
    time.sleep(0.05)
    assert now() == before
    group.thaw()
    end = time.monotonic() + 5
    while now() == before:
        assert time.monotonic() < end, "it does not go on"
    assert not group.frozen()


@pytest.mark.parametrize("version", [1, 2])
def test_a_frozen_group_can_be_killed_and_deleted(make, version):
    group = make(layout=layouts(version))
    pid = start(group)
    group.freeze()
    if version == 1:  # why `kill` thaws
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
        assert Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "D"
    group.delete()
    assert status(pid) == -signal.SIGKILL


@pytest.mark.parametrize("version", [1, 2])
def test_killing_outruns_a_process_that_forks_away(make, version):
    group = make(layout=layouts(version))

    def run_away() -> None:  # each process forks and ends: a list of pids is old at once
        while True:
            if os.fork():
                os._exit(0)

    pid = start(group, run_away)
    os.waitpid(pid, 0)
    group.kill()
    assert group.processes() == []


def test_freezing_gives_up_in_time(make, monkeypatch):
    group = make(layout=unified())
    pid = start(group)
    monkeypatch.setattr("minicontainer.kernel.cgroups.directory.PATIENCE", 0.0)
    monkeypatch.setattr(type(group.directories[0]), "frozen", lambda self: False)
    with pytest.raises(CgroupError) as caught:
        group.freeze()
    assert str(pid) in caught.value.hint
    monkeypatch.undo()
    assert not group.frozen()


# --- cgroup v2, as far as a hybrid host has it --------------------------------------------------


def test_a_v2_limit_takes_the_v2_tree_along_on_a_hybrid_host(make):
    needs("hugetlb", 2)
    size = next(
        (p.name.split("-")[1] for p in Path("/sys/kernel/mm/hugepages").glob("hugepages-2048kB")),
        "",
    )
    if not size:
        pytest.skip("this machine has no huge pages of 2 MB")
    if detect.detect().kind == "hybrid":
        assert 2 not in {one.version for one in make().directories}
    group = make({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MB}]})
    path = Path(group.having("hugetlb").path)
    assert (path / "hugetlb.2MB.max").read_text() == f"{4 * MB}\n"
    group.set({"unified": {"hugetlb.2MB.max": "max"}})
    assert (path / "hugetlb.2MB.max").read_text() == "max\n"


def test_a_process_is_born_in_a_v2_group(make):
    group = make(layout=unified())
    pid = group.fork()
    if pid == 0:
        try:
            group.enter()
            signal.pause()
        finally:
            os._exit(99)
    assert group.processes() == [pid]
    assert any(path.startswith("/minicontainer-test-") for path in own_paths(pid))
    group.kill()
    assert status(pid) == -signal.SIGKILL


def test_no_internal_processes_is_explained(make):
    """A v2 group with processes cannot hand controllers on; the root is exempt."""
    layout = unified()
    if not layout.hierarchies[0].controllers:
        pytest.skip("the v2 tree of this host has no controller at all")
    needs("hugetlb", 2)
    above = make(path=f"/minicontainer-{name()}", layout=layout)
    start(above)
    path = above.directories[0].path.removeprefix(above.directories[0].mount_point)
    below = cgroups.place(f"{path}/below", layout=layout)
    assert below.create() == []  # without limits nobody minds
    assert status(start(below, lambda: None)) == 0
    with pytest.raises(CgroupError) as caught:
        below.set({"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]})
    assert caught.value.errno == errno.EBUSY
    assert "has no hugetlb controller" in caught.value.strerror
    assert "Delegate=yes" in caught.value.hint
    below.delete()


def test_controllers_are_handed_down_each_level(make):
    needs("hugetlb", 2)
    limits = {"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}
    group = make(limits, f"/minicontainer-{name()}/a/b", unified())
    assert Path(group.directories[0].path, "hugetlb.2MB.max").read_text() == "0\n"
    assert cgroups.load(json.loads(json.dumps(group.record()))).record() == group.record()


def test_v2_files_are_written_as_asked(tmp_path):
    """The logic only, on plain files: this host cannot have these controllers in v2."""
    names = ("memory", "cpu", "io", "pids", "cpuset")
    group = cgroups.place(
        "/box", layout=detect.Layout([detect.Hierarchy(2, names, str(tmp_path), "")])
    )
    (tmp_path / "cgroup.controllers").write_text(" ".join(names))
    (tmp_path / "cgroup.subtree_control").write_text("")
    group.directories[0].make()
    box = tmp_path / "box"
    (box / "cgroup.controllers").write_text(" ".join(names))
    files = {"memory.max": "", "memory.swap.max": "", "cpu.max": "max 100000", "io.weight": "",
             "cpu.weight": "", "pids.max": ""}  # fmt: skip
    for file, text in files.items():
        (box / file).write_text(text)
    group.set(
        {"memory": {"limit": 64 * MB, "swap": 96 * MB}, "cpu": {"shares": 1024, "period": 200000},
         "blockIO": {"weight": 500}, "pids": {"limit": -1}}
    )  # fmt: skip
    assert {file: (box / file).read_text() for file in files} == {
        "memory.max": str(64 * MB), "memory.swap.max": str(32 * MB), "cpu.max": "max 200000",
        "io.weight": "4950", "cpu.weight": "100", "pids.max": "max",
    }  # fmt: skip


# --- who may, and where -------------------------------------------------------------------------


def become_ordinary() -> None:
    os.setgroups([])
    os.setresgid(ORDINARY_UID, ORDINARY_UID, ORDINARY_UID)
    os.setresuid(ORDINARY_UID, ORDINARY_UID, ORDINARY_UID)


def test_a_delegated_v2_group_is_used():
    """As systemd delegates: a group of the user's, and the process in another one below it."""
    needs("memory", 2)
    above = Path(f"{unified().hierarchies[0].mount_point}/minicontainer-{name()}")
    (above / "app").mkdir(parents=True)
    for one in (above.parent, above):
        (one / "cgroup.subtree_control").write_text("+memory +pids")
    for one in (above, above / "app"):
        for file in (one, one / "cgroup.procs", one / "cgroup.subtree_control"):
            os.chown(file, ORDINARY_UID, ORDINARY_UID)

    def delegated() -> None:
        (above / "app/cgroup.procs").write_text("0")
        become_ordinary()
        detect.detect(fresh=True)
        limits = {"memory": {"limit": 64 * MB}, "pids": {"limit": 9}}
        group = cgroups.place(name(), limits)
        warnings = group.create() + group.set(limits)
        pid = start(group)
        if warnings or group.processes() != [pid] or group.stats()["pids"]["limit"] != 9:
            raise OSError(0, f"{warnings} {group.processes()} {group.stats()}")
        if Path(group.directories[0].path).parent != above:
            raise OSError(0, f"it is in {group.directories[0].path}")
        group.delete()
        os.waitpid(pid, 0)

    try:
        in_child(delegated)
    finally:
        (above / "app").rmdir()
        above.rmdir()


def test_without_delegation_no_limits_is_a_warning_and_limits_are_an_error():
    needs("memory")

    def ordinary() -> None:
        become_ordinary()
        group = cgroups.place(name())
        warnings = group.create()
        if not warnings or "Delegate=yes" not in warnings[0]:
            raise OSError(0, f"warnings: {warnings}")
        group.enter()
        group.set({})
        try:
            group.set({"memory": {"limit": 64 * MB}})
        except CgroupError as error:
            if error.errno != errno.EACCES or "Delegate=yes" not in error.hint:
                raise
        else:
            raise OSError(0, "a limit was set without the right to")
        group.delete()

    in_child(ordinary)


def test_controllers_that_are_not_mounted(tmp_path):
    """net_cls and net_prio, mounted together in a throwaway mount namespace, then gone again."""
    known = {line.split()[0]: line.split() for line in Path("/proc/cgroups").read_text().split("\n")
             if line}  # fmt: skip
    for controller in ("net_cls", "net_prio"):
        if controller not in known or known[controller][1] != "0":
            pytest.skip(f"{controller} is not in this kernel, or mounted already")
    limits = {"network": {"classID": 0x100001, "priorities": [{"name": "lo", "priority": 3}]}}
    group = cgroups.place(name())
    if detect.detect().kind == "hybrid":
        with pytest.raises(CgroupError, match="in no mounted hierarchy") as caught:
            group.set(limits)
        assert "mount -t cgroup -o net_cls" in caught.value.hint
    if os.stat("/proc/self/ns/cgroup").st_ino != FIRST_CGROUP_NAMESPACE:
        pytest.skip("a hierarchy is made from the first cgroup namespace only, and this is another")

    def child() -> None:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        mounts.set_propagation("/", syscalls.MS_PRIVATE | syscalls.MS_REC)
        try:
            syscalls.mount("cgroup", str(tmp_path), "cgroup", 0, "net_cls,net_prio")
        except OSError as error:
            if error.errno == errno.EBUSY:
                os._exit(77)
            raise
        try:
            layout = detect.detect(fresh=True)
            group = cgroups.place(name(), limits, layout)
            group.create()
            group.set(limits)
            path = Path(group.having("net_cls").path)
            if path.parent != tmp_path or (path / "net_cls.classid").read_text() != "1048577\n":
                raise OSError(0, f"{path} has not the class")
            if "lo 3\n" not in (path / "net_prio.ifpriomap").read_text():
                raise OSError(0, f"{path} has not the priority")
            _, links = cgroups.container_mounts(group, own_namespace=True)
            if ("net_cls,net_prio", "/sys/fs/cgroup/net_cls") not in links:
                raise OSError(0, f"no link for net_cls among {links}")
            group.delete()
        finally:
            syscalls.umount2(str(tmp_path), 0)
        # A group is let go some time after its rmdir. Was it there at the umount, the hierarchy
        # stays until another one (kernel/cgroup/cgroup.c, cgroup_kill_sb).
        for attempt in range(200):
            if "net_cls" not in Path("/proc/self/cgroup").read_text():
                return
            time.sleep(0.02)
            if attempt % 20 == 19:
                syscalls.mount("cgroup", str(tmp_path), "cgroup", 0, "net_cls,net_prio")
                syscalls.umount2(str(tmp_path), 0)

    try:
        in_child(child)
        assert "net_cls" not in Path("/proc/self/cgroup").read_text()
    except OSError as error:
        if "status 77" in str(error):
            pytest.skip("net_cls and net_prio are in use in another hierarchy")
        raise


@pytest.mark.parametrize("own_namespace", [False, True])
def test_a_container_sees_its_own_group(make, tmp_path, own_namespace):
    group = make()

    def child() -> None:
        group.enter()
        kinds = syscalls.CLONE_NEWNS | (syscalls.CLONE_NEWCGROUP if own_namespace else 0)
        syscalls.unshare(kinds)
        mounts.set_propagation("/", syscalls.MS_PRIVATE | syscalls.MS_REC)
        listed, links = cgroups.container_mounts(group, own_namespace)
        root = os.open(tmp_path, os.O_PATH)
        for mount in listed:
            flags, _, data = mounts.parse_options(mount["options"])
            mounts.mount_in_root(
                root, mount["source"], mount["destination"], mount["type"], flags, data
            )
        for target, path in links:
            os.symlink(target, f"{tmp_path}{path}")
        for mount in listed[1:] or listed:
            procs = f"{tmp_path}{mount['destination']}/cgroup.procs"
            if Path(procs).read_text().split() != [str(os.getpid())]:
                raise OSError(0, f"{procs}: {Path(procs).read_text()!r}")
            try:
                Path(procs).write_text("0")
            except OSError as error:
                if error.errno != errno.EROFS:
                    raise
            else:
                raise OSError(0, f"{procs} can be written")

    in_child(child)


# --- runc as the oracle -------------------------------------------------------------------------


@pytest.mark.slow
def test_the_files_are_as_runc_writes_them(make, tmp_path):
    runc = next((p for p in ("/usr/sbin/runc", "/usr/bin/runc") if os.path.exists(p)), None)
    if not runc:
        pytest.skip("runc is not installed: apt install runc")
    limits = {
        "devices": [{"allow": False, "access": "rwm"},
                    {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}],
        "memory": {"limit": 64 * MB, "swap": 96 * MB, "reservation": 32 * MB, "swappiness": 10},
        "cpu": {"shares": 300, "quota": 30_000, "period": 60_000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 77}, "blockIO": {"weight": 300},
    }  # fmt: skip
    for controller in ("memory", "cpu", "cpuset", "pids", "blkio", "devices"):
        needs(controller, 1)
    make_busybox_root(tmp_path / "rootfs")
    container = f"minicontainer-{name()}"
    runc = [runc, "--root", str(tmp_path / "state")]
    subprocess.run([*runc, "spec"], cwd=tmp_path, check=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config["process"].update(terminal=False, args=["/bin/sleep", "100"], rlimits=[])
    config["linux"].update(resources=limits, cgroupsPath=f"/{container}")
    (tmp_path / "config.json").write_text(json.dumps(config))
    log = tmp_path / "log"  # a pipe would stay open as long as the container lives
    with log.open("w") as file:
        theirs = subprocess.run(
            [*runc, "create", "--bundle", tmp_path, container],
            stdin=subprocess.DEVNULL, stdout=file, stderr=file, timeout=30,
        )  # fmt: skip
    try:
        if theirs.returncode:
            pytest.skip(f"runc cannot make a container here: {log.read_text()[-300:]}")
        group = make(limits)
        differences = []
        for one in group.directories:
            if one.version == 1:
                for file in sorted(os.listdir(one.path)):
                    if file.startswith(_CONFIGURED):
                        differences += _difference(one, f"{one.mount_point}/{container}", file)
        assert differences == []
    finally:
        subprocess.run([*runc, "delete", "--force", container], capture_output=True)


_CONFIGURED = ("memory.", "cpu.", "cpuset.", "pids.max", "blkio.bfq.weight", "devices.list")
# What a process does, or the kernel keeps for itself, and no configuration says.
_COUNTED = ("usage", "stat", "failcnt", "slabinfo", "pressure", "memory.shown_ram")


def _difference(one, theirs: str, file: str) -> list[str]:
    if any(word in file for word in _COUNTED) or not os.access(f"{one.path}/{file}", os.R_OK):
        return []
    try:
        texts = [sorted(Path(path, file).read_text().split("\n")) for path in (one.path, theirs)]
    except OSError:
        return []  # only for writing, or not for this kind of group
    texts[1] = [line for line in texts[1] if line != "c 10:200 rwm"]  # tun, until runc 1.2
    return [f"{file}: {texts[0]} is not {texts[1]}"] if texts[0] != texts[1] else []
