"""The benchmarks beside the start: their logic with arms that pretend, and one real sample each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import benches, netns, results, roots, session, surface
from benchmarks.arms.base import ArmFailed
from benchmarks.arms.bubblewrap import Bubblewrap
from benchmarks.arms.layers import CHANGED_MIB, Disks, Layers
from benchmarks.arms.minicontainer import Command
from benchmarks.arms.oci import OciRuntime
from benchmarks.arms.process import ForkExec, UnshareChroot
from benchmarks.arms.runtime import OURS, Run
from benchmarks.arms.vm import VirtualMachine
from benchmarks.benches.base import Bench, Size, Value
from benchmarks.benches.cold import Cold
from benchmarks.benches.cpu import Cpu
from benchmarks.benches.density import Density
from benchmarks.benches.isolation import Isolation
from benchmarks.benches.libvirt import Libvirt
from benchmarks.benches.memory import Memory
from benchmarks.benches.ready import Ready
from benchmarks.benches.stop import Stop
from benchmarks.benches.tools import Load
from benchmarks.footprint import footprint
from benchmarks.held import held
from benchmarks.lock import alone
from benchmarks.rows import RowMaker, Where
from benchmarks.session import Part, Request
from benchmarks.workdir import remove_own
from minicontainer.kernel import bpf
from minicontainer.paths import runtime_dir
from tests.bench_fakes import FakeArm, probe, processes_with, rows_of
from tests.roots import REPOSITORY


class Pretends(Bench):
    """A benchmark of one figure, which its arms make up."""

    def __init__(self, name: str = "stop", metric: str = "stop.teardown") -> None:
        self.name = self.rows = name
        self.metric = metric
        self.prepared = self.closed = 0

    def prepare(self, size):
        super().prepare(size)
        self.prepared += 1

    def values(self, arm, where):
        shot = arm.shoot()
        return [Value(self.metric, (shot.t6 - shot.t0) / 1e6, n=3, params={"said": arm.name})]

    def close(self):
        self.closed += 1


def parts(*chosen):
    """What `session.resume` asks for, of these parts."""
    return lambda names, patterns, quick: list(chosen)


def run_of(tmp_path, *chosen, rounds=3, budget=None):
    return session.new_run(Request(str(tmp_path), "", 5, rounds, budget), list(chosen))


# --- the logic --------------------------------------------------------------------------------


def test_libvirts_own_cost_gets_the_rounds_that_resolve_it():
    seconds = {"create-by-QEMU": 0.05, "create-by-createXML": 0.4, "create-by-driver": 0.4}
    for size, rounds in ((Size(), 150), (Size(rounds=3), 3), (Size(budget_s=9.0), 10)):
        plan = Libvirt().plan(seconds, 1, size, [])
        assert plan.rounds <= rounds if size.budget_s else plan.rounds == rounds
        assert plan.reference == "create-by-QEMU"


def test_the_reference_that_is_asked_for_is_shot_twice(tmp_path):
    both = [FakeArm("runc:busybox", 1), FakeArm("other", 1)]
    chosen = [Part(Pretends(), both), Part(Pretends("memory", "memory.pss"), both[:1])]
    run = session.new_run(Request(str(tmp_path), "", 5, 3, reference="other"), chosen)
    again = {(row["bench"], row["arm"]) for row in rows_of(run) if row["rep"] == 1}
    assert again == {("stop", "other"), ("memory", "runc:busybox")}


def test_each_name_is_a_benchmark():
    found = benches.every_bench()
    assert [bench.name for bench in found] == list(benches.NAMES)
    assert set(benches.QUICK) <= set(benches.FULL) <= set(benches.NAMES)
    for bench in found:
        assert bench.title
        assert bench.metric.startswith(("start.", f"{bench.rows}."))
        names = [arm.name for arm in bench.arms()]
        assert len(names) == len(set(names)) > 1
        assert {arm.name for arm in bench.arms(quick=True)} <= set(names)


def test_a_value_is_a_row_of_its_benchmark(tmp_path):
    bench = Pretends()
    directory = run_of(tmp_path, Part(bench, [FakeArm("a", 9, 1), FakeArm("b", 9, 2)]))
    rows = [row for row in rows_of(directory) if row["arm"] == "b" and not row["warmup"]]
    assert {row["value"] for row in rows} == {2}
    assert {row["round"] for row in rows} == {1, 2, 3}
    assert {(row["bench"], row["metric"], row["n_concurrent"]) for row in rows} == {
        ("stop", "stop.teardown", 3)
    }
    assert {row["params"]["said"] for row in rows} == {"b"}
    assert (bench.prepared, bench.closed) == (1, 1)


def test_rounds_are_numbered_through_the_benchmarks(tmp_path):
    one, two = Pretends("stop"), Pretends("ready", "start.ready_ip")
    directory = run_of(tmp_path, Part(one, [FakeArm("a")]), Part(two, [FakeArm("a")]))
    found = {}
    for row in rows_of(directory):
        if row["bench"] != "guard" and not row["warmup"]:
            found.setdefault(row["bench"], set()).add(row["round"])
    assert found == {"stop": {1, 2, 3}, "ready": {4, 5, 6}}
    stored = results.read_json(directory, "plan.json")
    assert {name: plan["before"] for name, plan in stored["plans"].items()} == {
        "stop": 0, "ready": 3,
    }  # fmt: skip
    assert stored["plan"] == stored["plans"]["stop"]["plan"]


def test_an_interrupted_run_of_several_benchmarks_goes_on(tmp_path, capsys):
    arms = [FakeArm("a", 1), FakeArm("b", 1), FakeArm("c", 1)]
    arms[1].interrupt_at = 4  # the warm-up, rounds 4 and 5 (and their second shots), not 6
    names = (("stop", "stop.teardown"), ("ready", "start.ready_ip"), ("memory", "memory.pss"))
    three = [Part(Pretends(*name), [arm]) for name, arm in zip(names, arms, strict=True)]
    with pytest.raises(KeyboardInterrupt):
        run_of(tmp_path, *three)
    [directory] = results.runs(str(tmp_path))
    assert f"--resume {directory}" in capsys.readouterr().err
    assert all(part.bench.closed == part.bench.prepared for part in three)
    before = rows_of(directory)
    assert max(row["round"] for row in before) < 6

    session.resume(directory, parts(*three))
    rows = rows_of(directory)
    assert rows[: len(before)] == before
    counted = [row for row in rows if row["bench"] != "guard" and not row["warmup"]]
    by_bench = {bench: {r["round"] for r in counted if r["bench"] == bench} for bench, _ in names}
    assert by_bench == {"stop": {1, 2, 3}, "ready": {4, 5, 6}, "memory": {7, 8, 9}}
    session.resume(directory, parts(*three))
    assert rows_of(directory) == rows, "a whole run stays as it is"


def test_a_benchmark_without_arms_does_not_keep_the_others(tmp_path, capsys):
    none = Part(Pretends("stop"), [FakeArm("a", "no such thing")])
    directory = run_of(tmp_path, none, Part(Pretends("ready", "start.ready_ip"), [FakeArm("a")]))
    assert "stop: no arm can take part" in capsys.readouterr().err
    skip, *_ = rows_of(directory)
    assert (skip["status"], skip["metric"], skip["reason"]) == (
        "skip", "stop.teardown", "no such thing",
    )  # fmt: skip


def test_the_budget_is_shared_by_weight(tmp_path):
    sizes = {}

    class Looks(Pretends):
        def plan(self, seconds, seed, size, traced):
            sizes[self.name] = size
            return super().plan(seconds, seed, Size(rounds=1), traced)

    chosen = [Part(Looks("stop"), [FakeArm("a")]), Part(Looks("memory"), [FakeArm("a")])]
    run_of(tmp_path, *chosen, rounds=None, budget=60.0)
    assert {name: size.budget_s for name, size in sizes.items()} == {"stop": 30.0, "memory": 30.0}


def test_arms_are_chosen_in_each_benchmark(tmp_path):
    class Has(Pretends):
        def __init__(self, *names):
            super().__init__()
            self.names = names

        def arms(self, quick=False):
            return [FakeArm(name) for name in self.names]

    chosen = session.choose([Has("a", "ab"), Has("ab", "b"), Has("c")], "a*,b")
    assert [[arm.name for arm in part.arms] for part in chosen] == [["a", "ab"], ["ab", "b"]]
    with pytest.raises(session.UsageError, match="no arm is called 'x'; there are: a, ab, b, c"):
        session.choose([Has("a", "ab"), Has("ab", "b", "c")], "a,x")


def test_a_second_run_waits_and_says_for_whom():
    script = (
        "from benchmarks.lock import alone\n"
        "with alone(lambda line: print(line, flush=True)): print('in', flush=True)"
    )
    with alone(lambda line: pytest.skip(f"on this machine {line}")):
        second = subprocess.Popen(
            [sys.executable, "-c", script], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        assert f"another run is measuring (pid {os.getpid()})" in second.stdout.readline()
        third = subprocess.Popen(
            [sys.executable, "-c", script], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        assert "another run" in third.stdout.readline()
        third.send_signal(signal.SIGINT)
        assert third.wait(20) != 0
        assert second.poll() is None
    said, _ = second.communicate(timeout=20)
    assert said == "in\n"


def test_a_filter_is_asked_about_every_call():
    calls = surface.calls()
    assert surface.allowed([]) == list(calls)
    make = bpf.Assembler()
    allow, deny = make.ret(surface.ALLOW), make.ret(0x00050001)
    # getpid never; close only with descriptor 3, which a look without arguments cannot know.
    close = make.load(16, make.branch(bpf.EQUAL, 3, allow, deny))
    start = make.load(
        bpf.NR,
        make.branch(
            bpf.EQUAL, calls["getpid"], deny, make.branch(bpf.EQUAL, calls["close"], close, allow)
        ),
    )
    program = make.program(start)
    assert set(calls) - set(surface.allowed([program])) == {"getpid"}
    code = bpf.instructions(program)
    architecture = surface.ARCHITECTURES[os.uname().machine]
    assert surface.actions(code, calls["close"], architecture) == {surface.ALLOW, 0x00050000}


# --- real instances ---------------------------------------------------------------------------


def staying(*extra):
    probe()
    return [ForkExec(), UnshareChroot("busybox"), Bubblewrap("busybox"), Command("busybox"), *extra]


@pytest.fixture(params=["fork+exec", "unshare", "bubblewrap", "cli", "runtime", "runc"])
def arm(request):
    """An arm that is prepared, of each kind that needs no daemon."""
    probe()
    made = {
        "fork+exec": ForkExec, "unshare": lambda: UnshareChroot("busybox"),
        "bubblewrap": lambda: Bubblewrap("busybox"), "cli": lambda: Command("busybox"),
        "runtime": lambda: Run(OURS, "busybox"), "runc": lambda: OciRuntime("runc", "busybox"),
    }[request.param]()  # fmt: skip
    skip = made.unavailable()
    if skip:
        pytest.skip(f"{skip.reason}: {skip.fix}")
    made.prepare()
    yield made
    made.close()
    remove_own()


def test_an_instance_stays_until_it_is_stopped(arm):
    with held(arm) as hold:
        one, two = hold(), hold()
        pids = [one.payload(), two.payload()]
        for pid in pids:
            assert Path(f"/proc/{pid}/comm").read_text() == "probe\n"
        asked, gone = one.stop()
        assert 0 < gone - asked < 20e9
        assert not Path(f"/proc/{pids[0]}/exe").exists()
        assert Path(f"/proc/{pids[1]}/exe").exists()
        taken = footprint([two])
        assert taken.processes >= 1
        assert 0 < taken.pss <= taken.rss <= taken.mapped
    assert not Path(f"/proc/{pids[1]}/exe").exists(), "the block's end ends the rest"


KILLED = """
import os, signal, sys
from benchmarks.arms.process import ForkExec, UnshareChroot
from benchmarks.held import held
with held(ForkExec()) as one, held(UnshareChroot("busybox")) as two:
    print(one().payload(), two().payload(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_harness_leaves_no_payload():
    probe()
    done = subprocess.run(
        [sys.executable, "-c", KILLED], cwd=REPOSITORY, capture_output=True, text=True
    )
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 2, done.stderr
    give_up = time.monotonic() + 10
    while any(Path(f"/proc/{pid}/exe").exists() for pid in pids):
        assert time.monotonic() < give_up


def sampled(bench, arm, warmup=False):
    make = RowMaker("run", "env").of(bench)
    return list(bench.sample(arm, Where(1, 0, 0, warmup=warmup), make))


def test_memory_counts_each_instance(monkeypatch):
    probe()
    bench = Memory()
    monkeypatch.setattr("benchmarks.benches.memory.STEPS", {"": (1, 4)})
    rows = sampled(bench, ForkExec())
    found = {(row["metric"], row["n_concurrent"]): row["value"] for row in rows}
    names = {"memory.mapped", "memory.rss", "memory.pss", "memory.available"}
    assert set(found) == {(name, count) for name in names for count in (1, 4)}
    # The probe is a page of program and a stack: a tiny part of a MiB, however many there are.
    assert 0.004 <= found["memory.pss", 4] <= found["memory.pss", 1] < 0.1
    assert found["memory.mapped", 4] == pytest.approx(found["memory.mapped", 1], rel=0.01)
    [skip] = [row for row in sampled(bench, ForkExec(), warmup=True) if row["status"] == "skip"]
    assert skip["metric"] == "memory.cgroup"
    assert skip["params"]["fix"]


def test_density_goes_on_until_there_are_enough_or_a_limit(monkeypatch):
    probe()
    bench = Density()
    monkeypatch.setattr("benchmarks.benches.density.ENOUGH", 120)
    bench.prepare(Size())
    try:
        rows = sampled(bench, ForkExec())
        starts = [row for row in rows if row["metric"] == "density.start"]
        assert [row["n_concurrent"] for row in starts] == list(range(120))
        assert rows[-1]["params"]["stopped"] == "there were 120"
        looks = {row["n_concurrent"] for row in rows if row["metric"] == "density.available"}
        assert {1, 2, 20, 60, 120} <= looks
        monkeypatch.setattr("benchmarks.benches.density.LEAST_FREE", 2.0)
        *_, last = sampled(bench, Slow(ForkExec(), after=3))
        assert "of the host's memory were left" in last["params"]["stopped"]
        monkeypatch.setattr("benchmarks.benches.density.LEAST_FREE", 0.0)
        *_, last = sampled(bench, Slow(ForkExec(), after=3))
        assert last["params"]["stopped"] == "the next one failed: too many"
        assert last["n_concurrent"] == 3
    finally:
        bench.close()


class Slow:
    """An arm that can hold so many instances and no more."""

    def __init__(self, arm, after):
        self.arm, self.left = arm, after

    def __getattr__(self, name):
        return getattr(self.arm, name)

    def hold(self, ear):
        if not self.left:
            raise ArmFailed("too many")
        self.left -= 1
        return self.arm.hold(ear)


def test_stop_measures_the_way_of_this_arm(arm):
    [row] = sampled(Stop(), arm)
    assert (row["metric"], row["unit"]) == ("stop.teardown", "ms")
    assert 0 < row["value"] < 20000
    assert row["params"]["stop"]


def facts_of(arm):
    return {row["metric"].removeprefix("isolation."): row for row in sampled(Isolation(), arm)}


@pytest.mark.root
def test_facts_of_a_process_and_of_a_container():
    if os.geteuid() != 0:
        pytest.skip("needs root: seccomp filters are read with ptrace")
    probe()
    container = Run(OURS, "busybox")
    container.prepare()
    try:
        process, inside = facts_of(ForkExec()), facts_of(container)
    finally:
        container.close()
        remove_own()
    assert set(process) == set(inside)
    for fact in (*process.values(), *inside.values()):
        assert fact["value"] in (0, 1) or fact["unit"] == "calls"
        assert {"fact", "how", "seen"} <= set(fact["params"])
    for name in ("own_root", "own_mounts", "own_processes", "own_hostname", "own_pid_1"):
        assert (process[name]["value"], inside[name]["value"]) == (0, 1), name
    for name in ("sees_host_name", "sees_host_processes", "sees_host_mounts", "set_clock", "mount"):
        assert (process[name]["value"], inside[name]["value"]) == (1, 0), name
    for name in ("own_kernel", "host_kernel_version", "host_memory_size"):
        assert process[name]["value"] == inside[name]["value"] == (name != "own_kernel"), name
    # The filter of the complete bundle is docker's default one.
    assert process["host_calls"]["value"] == len(surface.calls())
    assert 200 < inside["host_calls"]["value"] < len(surface.calls()) - 40
    assert "mount" in inside["host_calls"]["params"]["seen"]


@pytest.mark.root
def test_a_cold_start_reads_the_disk():
    if os.geteuid() != 0:
        pytest.skip("needs root, to drop the page cache")
    probe()
    rows = sampled(Cold(), UnshareChroot("busybox"))
    assert {row["cache_state"] for row in rows if row["bench"] == "start"} == {"cold"}
    assert rows[0]["metric"] == "start.first_instruction"


def test_only_root_drops_the_page_cache(monkeypatch):
    monkeypatch.setattr("benchmarks.benches.cold.DROP", "/proc/version")
    if os.access("/proc/version", os.W_OK):  # root may, by mode
        monkeypatch.setattr("benchmarks.benches.cold.DROP", "/no/such")
    skip = Cold().unavailable(ForkExec())
    assert (skip.reason, skip.fix) == ("only root may drop the page cache", "use sudo")


def test_a_run_of_several_real_benchmarks(tmp_path):
    probe()
    command = [sys.executable, "-m", "benchmarks", "run", "--bench", "stop,memory,density"]
    done = subprocess.run(
        [*command, "--quick", "--arms", "fork+exec,unshare*", "--out", tmp_path, "--json"],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = rows_of(json.loads(done.stdout)["directory"])
    assert {row["bench"] for row in rows} == {"stop", "memory", "density", "guard"}
    assert {row["status"] for row in rows if row["metric"] != "memory.cgroup"} == {"ok"}
    assert processes_with("probe stay") == []


ABANDONS = """
import os, signal, sys
from benchmarks import netns
from benchmarks.arms.oci import OciRuntime
from benchmarks.arms.runtime import OURS, Run
from benchmarks.held import held
arms = [Run(OURS, "busybox"), OciRuntime("runc", "busybox")]
arms = [arm for arm in arms if arm.unavailable() is None]
netns.make_bridge()
netns.Namespace()
for arm in arms:
    arm.prepare()
with held(arms[0]) as one, held(arms[-1]) as two:
    print(one().payload(), two().payload(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.root
def test_clean_removes_containers_and_networks_of_a_killed_harness():
    if os.geteuid() != 0 or netns.why_not():
        pytest.skip("needs root and ip(8)")
    probe()
    harness = subprocess.Popen(
        [sys.executable, "-c", ABANDONS], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    said, _ = harness.communicate(timeout=60)
    assert len(said.split()) == 2

    def left():
        groups = [str(p) for p in Path("/sys/fs/cgroup").glob(f"*/**/*bench-{harness.pid}-*")]
        spaces = [str(p) for p in Path("/run/netns").glob(f"bench-{harness.pid}-*")]
        links = [str(p) for p in Path("/sys/class/net").glob(f"bn{harness.pid}*")]
        run = Path(runtime_dir(), f"bench-{harness.pid}")
        return [*groups, *spaces, *links, *([str(run)] if run.exists() else [])]

    assert len(left()) >= 4
    done = subprocess.run([sys.executable, "-m", "benchmarks", "clean"], cwd=REPOSITORY)
    assert done.returncode == 0
    assert left() == []


@pytest.mark.root
def test_a_container_answers_on_its_own_address():
    bench = Ready()
    bench.prepare(Size())
    try:
        arms = [arm for arm in bench.arms() if arm.name.startswith(("netns", OURS))]
        assert len(arms) == 2
        for arm in arms:
            skip = arm.unavailable()
            if skip:
                pytest.skip(f"{skip.reason}: {skip.fix}")
            arm.prepare()
            try:
                rows = [row for _ in range(2) for row in sampled(bench, arm)]
            finally:
                arm.close()
            assert {(row["metric"], row["net_mode"]) for row in rows} == {
                ("start.ready_ip", "bridge")
            }
            assert all(0 < row["value"] < 20000 for row in rows)
    finally:
        bench.close()
        remove_own()
    assert list(Path("/sys/class/net").glob(f"bn{os.getpid()}*")) == []
    assert not list(Path("/run/netns").glob(f"bench-{os.getpid()}-*"))


@pytest.mark.slow
def test_the_bytes_of_a_change_are_its_own():
    """The same change costs a copy its own size, as a layer and as a disk; the rest is shared."""
    skip = roots.missing("debian")
    if skip:
        pytest.skip(f"{skip.reason}: {skip.fix}")
    for arm in (Layers(), Disks(internal=True)):
        skip = arm.unavailable()
        if skip:
            print(f"{arm.name}: {skip.reason}")
            continue
        try:
            arm.prepare()
            life = arm.life()
            again = arm.life()
        finally:
            arm.close()
            remove_own()
        assert set(life) == set(again) >= {"clone", "commit", "revert", "unique", "shared"}
        assert all(value > 0 for value in life.values())
        assert CHANGED_MIB <= life["unique"] < CHANGED_MIB + 1
        assert again["unique"] == pytest.approx(life["unique"], abs=0.1)
        assert life["shared"] > 3 * CHANGED_MIB


@pytest.mark.vm
@pytest.mark.slow
def test_a_machine_is_held_and_asked_too():
    """The boot sector stays and takes memory; a guest's facts are those of a kernel of its own."""
    nano, micro = VirtualMachine("nano"), VirtualMachine("micro", "busybox")
    for arm in (nano, micro):
        skip = arm.unavailable()
        if skip:
            pytest.skip(f"{skip.reason}: {skip.fix}")
        arm.prepare()
    try:
        with held(nano) as hold:
            one = hold()
            taken = footprint([one])
            assert taken.processes == 1
            assert 1 < taken.pss <= taken.rss <= taken.mapped
            assert Path(f"/proc/{one.family()[0]}/exe").resolve().name.startswith("qemu-system")
            asked, gone = one.stop()
            assert 0 < gone - asked < 20e9
            assert not Path(f"/proc/{one.family()[0]}/exe").exists()
        if os.geteuid() == 0:
            facts = facts_of(micro)
            assert facts["own_kernel"]["value"] == facts["own_pid_1"]["value"] == 1
            assert facts["sees_host_processes"]["value"] == facts["set_clock"]["value"] == 0
            assert "permitted by its own kernel" in facts["set_clock"]["params"]["seen"]
            assert facts["host_calls"]["value"] == 0
            assert 100 < facts["vmm_calls"]["value"] <= len(surface.calls())
    finally:
        remove_own()


def test_a_tool_that_is_missing_is_a_skip_with_its_package(monkeypatch):
    bench = Cpu()
    monkeypatch.setattr("benchmarks.benches.tools.PATH", "/nowhere")
    bench.prepare(Size())
    skip = bench.unavailable(bench.arms()[0])
    assert (skip.reason, skip.fix) == ("tool missing: sysbench", "apt-get install sysbench")


def test_a_tool_says_the_same_thing_in_every_arm(monkeypatch):
    """A load that is always there: busybox's own clock, in a tree made for it."""
    probe()

    class Counts(Cpu):
        loads = (
            Load("sh.sum", "busybox", "busybox expr 40 + 2", r"(\d+)", "events/s", "higher"),
            Load("none.at_all", "nothing", "no-such-tool", r"(\d+)", "events/s", "higher"),
        )

    if not Counts.loads[0].program:
        pytest.skip("busybox is not installed: apt-get install busybox-static")
    bench = Counts()
    try:
        bench.prepare(Size())
        arms = [arm for arm in bench.arms() if arm.kind != "vm" and arm.unavailable() is None]
        assert len(arms) >= 2
        for arm in arms:
            arm.prepare()
            try:
                row, skip = sampled(bench, arm, warmup=True)
            finally:
                arm.close()
            assert (row["metric"], row["value"], row["unit"]) == ("cpu.sh.sum", 42, "events/s")
            assert (skip["metric"], skip["status"]) == ("cpu.none.at_all", "skip")
            assert skip["params"]["fix"] == "apt-get install nothing"
    finally:
        bench.close()
        remove_own()
    assert not os.path.exists(roots.tree(roots.TOOLS))


def test_a_quick_run_leaves_an_emulated_system_out(tmp_path):
    full = FakeArm("vm-full:debian", kind="vm", tier="full", accel="tcg")
    request = Request(str(tmp_path), "", 5, 1, None, quick=True)
    directory = session.new_run(request, [Part(Pretends(), [FakeArm("a"), full])])
    [skip] = [row for row in rows_of(directory) if row["status"] == "skip"]
    assert (skip["arm"], skip["params"]["fix"]) == ("vm-full:debian", "--full")
    assert (full.shots, full.closed) == (0, 2)
