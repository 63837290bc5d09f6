"""Virtual machines through the real libvirt: they signal, they end, and nothing of them stays."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from benchmarks import leftovers, roots, workdir
from benchmarks.arms.base import ArmFailed
from benchmarks.arms.vm import VirtualMachine, phases
from benchmarks.vm import domain
from tests.bench_fakes import processes_with
from tests.roots import REPOSITORY
from tests.waiting import until

hypervisor = pytest.importorskip(
    "benchmarks.vm.hypervisor", reason="libvirt-python is not installed"
)
driver = pytest.importorskip("benchmarks.vm.driver")

pytestmark = pytest.mark.vm


@pytest.fixture(autouse=True)
def libvirt_and_images():
    _skip_without_libvirt_and_images()
    yield
    workdir.remove_own()


def _skip_without_libvirt_and_images() -> None:
    try:
        hypervisor.connection()
    except ArmFailed as failure:
        pytest.skip(f"no libvirt: {failure}; ./workshop test starts it")
    for root in ("", "busybox"):
        skip = roots.missing_guest(root)
        if skip:
            pytest.skip(f"{skip.reason}; fix: {skip.fix}")


def domains(pid: int = 0) -> list[str]:
    """Machines of this process, or of another harness."""
    names = [machine.name() for machine in hypervisor.connection().listAllDomains()]
    return [name for name in names if name.startswith(prefix(pid))]


def prefix(pid: int) -> str:
    return f"{hypervisor.PREFIX}{pid or os.getpid()}-"


def qemus(pid: int = 0) -> list[str]:
    """Command lines of living QEMU processes that run such a machine."""
    return processes_with(f"guest={prefix(pid)}")


def test_nano_signals_and_is_gone():
    arm = VirtualMachine("nano")
    arm.prepare()
    shot = arm.shoot()
    assert shot.t0 < shot.t6 < (shot.t_end or 0)
    assert 0 < (shot.cpu_ms or 0) < 20_000
    assert domains() == qemus() == []
    arm.close()


def test_the_badge_is_what_ran():
    arm = VirtualMachine("nano")
    arm.prepare()
    assert arm.accel in {"kvm", "kvm (nested)", "kvm (pvm)", "tcg"}
    assert (arm.accel == "tcg") == bool(arm.params["why_not_kvm"])
    arm.shoot()
    assert f"<domain type='{'qemu' if arm.accel == 'tcg' else 'kvm'}'" in arm.params["domain_xml"]
    arm.close()


@pytest.mark.slow
@pytest.mark.parametrize("tier", ["micro", "direct"])
def test_linux_boots_to_the_probe_and_its_phases_are_without_gaps(tier):
    arm = VirtualMachine(tier, "busybox")
    arm.prepare()
    shot = arm.shoot_traced()
    start = [phase for phase in shot.phases if phase.name != "end"]
    assert start[0].start_ns == shot.t0
    assert start[-1].end_ns == shot.t6
    assert all(a.end_ns == b.start_ns for a, b in itertools.pairwise(start))
    assert [phase.name for phase in start][-1] == "kernel, to its init"
    assert domains() == qemus() == []
    arm.close()


def test_phases_never_trust_a_guests_clock_beyond_the_hosts():
    """A guest that says it has been up for a year does not get a phase before the start."""
    machine = driver.Machine("year", "micro", "busybox", kvm=False)
    machine.asked, machine.connected, machine.heard = 1000, 2000, 9000
    machine.data = b"p mono_ns=99999999\n"
    names = [phase.name for phase in phases(machine, 9100, 9200)]
    assert names == ["libvirt starts QEMU", "QEMU makes the machine, firmware", "end"]


def silent_image(directory: Path) -> None:
    """A boot sector that never signals: the guest that does not answer."""
    where = directory / "vm-images" / "nano"
    where.mkdir(parents=True)
    (where / "nano.img").write_bytes(b"\xf4\xeb\xfd".ljust(510, b"\0") + b"\x55\xaa")
    for path in (directory, *directory.rglob("*")):
        path.chmod(0o755)


def open_to_qemu(directory: Path) -> None:
    """QEMU may run as a user of its own."""
    for path in (directory, *directory.parents):
        if path.owner() == "root" and "pytest" in str(path):
            path.chmod(0o755)


def test_a_guest_that_never_answers(tmp_path, monkeypatch):
    silent_image(tmp_path / "cache")
    open_to_qemu(tmp_path)
    monkeypatch.setenv("MINICONTAINER_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ArmFailed, match=r"never signalled: .*in time; the machine was running"):
        driver.boot("silent", "nano", "", kvm=False, timeout_s=6.0)
    assert domains() == qemus() == []


def test_libvirts_refusal_is_the_reason(monkeypatch):
    monkeypatch.setitem(domain.MACHINES, "nano", "no-such-machine")
    with pytest.raises(ArmFailed, match="no-such-machine"):
        driver.boot("refused", "nano", "", kvm=False, timeout_s=2.0)
    assert domains() == qemus() == []


def test_another_hypervisor_is_refused(monkeypatch):
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", "test:///default")
    with pytest.raises(ArmFailed, match="libvirt's TEST driver, not QEMU"):
        hypervisor.connection()


def test_a_panic_is_told_with_the_console():
    guest = roots.guest("micro", "busybox")
    line = guest.command_line.replace("rdinit=/probe", "rdinit=/none")
    guest = roots.Guest(guest.kernel, guest.initramfs, line)
    machine = driver.Machine("panic", "micro", "busybox", kvm=False, guest=guest)
    with pytest.raises(ArmFailed) as failure:
        machine.start(60.0)
    words = str(failure.value)
    assert "the guest never signalled: the guest's kernel panicked: " in words
    assert re.search(r"last lines of its console: \[ +\d+\.\d+\] ", words)
    assert domains() == qemus() == []


def started_nano(name: str, **how) -> driver.Machine:
    machine = driver.Machine(name, "nano", kvm=False, **how)
    machine.start(30.0)
    return machine


def test_paused_and_resumed():
    with started_nano("paused") as machine:
        assert f"guest={machine.name}" in Path(f"/proc/{machine.pid()}/cmdline").read_text()
        machine.pause()
        assert machine.state() == "paused"
        machine.resume()
        assert machine.state() == "running"
        with pytest.raises(ArmFailed, match="a snapshot needs a disk"):
            machine.snapshot("one")
        asked, gone = machine.destroy()
        assert asked < gone
        with pytest.raises(ArmFailed, match="not running"):
            machine.pause()
    assert domains() == qemus() == []


def test_a_machine_that_does_not_stop_says_so():
    """A boot sector does not look at the power button."""
    with started_nano("deaf") as machine:
        with pytest.raises(ArmFailed, match="did not stop within 1 s"):
            machine.stop(1.0)
        assert machine.state() == "running"
    assert domains() == qemus() == []


def test_a_qemu_that_is_killed_while_it_is_listened_to(tmp_path, monkeypatch):
    silent_image(tmp_path / "cache")
    open_to_qemu(tmp_path)
    monkeypatch.setenv("MINICONTAINER_CACHE", str(tmp_path / "cache"))
    machine = driver.Machine("killed", "nano", kvm=False)

    def kill() -> None:
        until(lambda: machine.created)
        os.kill(pid_of(machine.name), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(ArmFailed, match="never signalled: the channel was closed"):
        machine.start(30.0)
    killer.join()
    assert domains() == qemus() == []


def pid_of(name: str) -> int:
    """Of the QEMU that runs the domain."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if f"guest={name}," in path.read_text(errors="replace"):
                return int(path.parent.name)
    raise AssertionError(f"no QEMU runs {name}")


@pytest.mark.root
def test_limits_are_those_of_its_cgroup():
    limits = domain.Limits(memory_mib=768, cpus=0.5)
    with started_nano("limited", limits=limits) as machine:
        groups = Path(f"/proc/{machine.pid()}/cgroup").read_text().splitlines()
        path = next((g.split(":", 2)[2] for g in groups if ":memory:" in g), "")
        if not path:
            pytest.skip("libvirt has made no memory cgroup of version 1 here")
        limit = Path(f"/sys/fs/cgroup/memory{path}/memory.limit_in_bytes").read_text()
        assert int(limit) == 768 << 20
        path = next(g.split(":", 2)[2] for g in groups if re.search(r":(cpu|.*,cpu|cpu,.*):", g))
        top = path.removesuffix("/emulator")
        assert int(Path(f"/sys/fs/cgroup/cpu{top}/cpu.cfs_quota_us").read_text()) == 50_000


def test_clean_finds_a_machine_that_was_to_outlive_its_harness():
    code = (
        "import os, signal; from benchmarks.vm.driver import Machine\n"
        "machine = Machine('kept', 'nano', kvm=False, kept=True); machine.start(30.0)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    child = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False)
    assert child.returncode == -signal.SIGKILL
    (name,) = [one.name() for one in hypervisor.abandoned() if one.name().endswith("-kept")]
    told: list[str] = []
    leftovers.remove(told.append)
    assert f"destroy virtual machine {name}" in told
    assert not [one for one in hypervisor.abandoned() if one.name() == name]
    hypervisor.remove_log(name)


@pytest.mark.root
def test_clean_finds_the_bridge_of_a_killed_harness():
    if os.geteuid() != 0:
        pytest.skip("only root makes bridges")
    code = (
        "import os, signal; from benchmarks.vm.parts import Link\n"
        "print(Link('bridge', 'test').bridge, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    child = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True
    )
    name = child.stdout.strip()
    assert os.path.exists(f"/sys/class/net/{name}/bridge"), child.stderr
    told: list[str] = []
    leftovers.remove(told.append)
    assert f"remove bridge {name}" in told
    assert not os.path.exists(f"/sys/class/net/{name}")


@pytest.mark.slow
def test_the_life_of_a_whole_machine():
    """Firmware, boot loader, systemd; its own address; a pause; a snapshot; its power button."""
    skip = roots.missing_disk("debian")
    if skip:
        pytest.skip(f"{skip.reason}; fix: {skip.fix}")
    arm = VirtualMachine("full", "debian")
    arm.prepare()
    owner = os.stat(roots.disk("debian")).st_uid
    with arm.machine(kept=True, traced=True) as machine:
        machine.start(arm.timeout_s)
        found = phases(machine, machine.heard, machine.heard)
        assert all(a.end_ns == b.start_ns for a, b in itertools.pairwise(found))
        assert any("boot loader" in phase.name for phase in found)
        ready = machine.ready(120.0)
        assert ready > machine.heard
        machine.pause()
        with pytest.raises(ArmFailed, match="no reply from"):
            machine.link.first_reply(1.0)
        machine.resume()
        assert machine.link.first_reply(60.0) == b"r"
        machine.snapshot("one")
        machine.revert("one")
        assert machine.link.first_reply(60.0) == b"r"
        bridge, disk = machine.link.bridge, machine.disk.path
        assert os.stat(machine.disk.base).st_uid == owner, "nobody else's meanwhile"
        asked, gone = machine.stop(120.0)
        assert gone - asked > 10_000_000  # it did something first
    assert domains() == qemus() == []
    assert not os.path.exists(disk)
    assert not (bridge and os.path.exists(f"/sys/class/net/{bridge}"))


def run(*words: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks", *words],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_stays_of_a_boot_that_is_cut_short(tmp_path, number):
    arms = "fork+exec,vm-micro:busybox"
    process = run("run", "--rounds", "5", "--arms", arms, "--out", str(tmp_path))
    try:
        until(lambda: any("vm-micro" in name for name in domains(process.pid)), seconds=90)
        time.sleep(0.3)  # in the middle of its kernel
    finally:
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == (-9 if number == signal.SIGKILL else 130)
    until(
        lambda: domains(process.pid) == qemus(process.pid) == []
    )  # after kill -9, libvirt's own doing
    leftovers.remove(lambda _: None)
    for base in ("/run/minicontainer", "/var/cache/minicontainer"):
        assert not list(Path(base).glob(f"bench-{process.pid}"))
    log = Path("/var/log/libvirt/qemu")
    for path in log.glob(f"{hypervisor.PREFIX}{process.pid}-*"):
        path.unlink()  # of the killed one


def test_without_libvirt_the_arms_are_skipped_with_the_fix(tmp_path):
    socket = f"qemu+unix:///system?socket={tmp_path}/none"
    process = run("doctor", "--arms", "vm-*,fork+exec", "--connect", socket)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "ok    fork+exec" in out
    assert "skip  vm-micro:busybox: no libvirt: " in out
    assert "fix: sudo systemctl start libvirtd" in out


def test_without_images_the_arms_are_skipped_with_the_fix(tmp_path):
    process = run("doctor", "--arms", "vm-*", MINICONTAINER_CACHE=str(tmp_path / "empty"))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err  # no arm of those can run
    assert out.count("skip  vm-") == 6
    assert "nano.img" in out
    assert "fix: python -m benchmarks prepare" in out
