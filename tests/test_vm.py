"""Virtual machines through the real libvirt: they signal, they end, and nothing of them stays."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import domain, leftovers, roots, workdir
from benchmarks.arms.base import ArmFailed
from benchmarks.arms.vm import VirtualMachine, phases
from tests.roots import REPOSITORY

hypervisor = pytest.importorskip("benchmarks.hypervisor", reason="libvirt-python is not installed")

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
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if f"guest={prefix(pid)}" in text:
            found.append(text)
    return found


def wait_until(condition, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


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
    assert f"<domain type='{'qemu' if arm.accel == 'tcg' else 'kvm'}'" in arm.params["domain_xml"]
    arm.shoot()
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
    times = hypervisor.Boot(1000, 2000, 2500, None, 9000, b"p mono_ns=99999999\n", 9100, 9200, 0.0)
    names = [phase.name for phase in phases(times, linux=True)]
    assert names == ["libvirt starts QEMU", "QEMU makes the machine, firmware", "end"]


def silent_image(directory: Path) -> None:
    """A boot sector that never signals: the guest that does not answer."""
    where = directory / "vm-images" / "nano"
    where.mkdir(parents=True)
    (where / "nano.img").write_bytes(b"\xf4\xeb\xfd".ljust(510, b"\0") + b"\x55\xaa")
    for path in (directory, *directory.rglob("*")):
        path.chmod(0o755)


def test_a_guest_that_never_answers(tmp_path, monkeypatch):
    silent_image(tmp_path / "cache")
    for path in (tmp_path, *tmp_path.parents):
        if path.owner() == "root" and "pytest" in str(path):
            path.chmod(0o755)  # for QEMU's own user
    monkeypatch.setenv("MINICONTAINER_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ArmFailed, match=r"did not signal in time; the machine was running"):
        hypervisor.boot("silent", "nano", "", kvm=False, timeout_s=6.0)
    hypervisor.remove_logs("silent")
    assert domains() == qemus() == []


def test_libvirts_refusal_is_the_reason(monkeypatch):
    monkeypatch.setitem(domain.MACHINES, "nano", "no-such-machine")
    with pytest.raises(ArmFailed, match="no-such-machine"):
        hypervisor.boot("refused", "nano", "", kvm=False, timeout_s=2.0)
    assert domains() == qemus() == []


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
        wait_until(lambda: any("vm-micro" in name for name in domains(process.pid)))
        time.sleep(0.3)  # in the middle of its kernel
    finally:
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == (-9 if number == signal.SIGKILL else 130)
    wait_until(
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
    process = run("doctor", "--arms", "vm-*,fork+exec", LIBVIRT_DEFAULT_URI=socket)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "ok    fork+exec" in out
    assert "skip  vm-micro:busybox: no libvirt: " in out
    assert "fix: sudo systemctl start libvirtd" in out


def test_without_images_the_arms_are_skipped_with_the_fix(tmp_path):
    process = run("doctor", "--arms", "vm-*", MINICONTAINER_CACHE=str(tmp_path / "empty"))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err  # no arm of those can run
    assert out.count("skip  vm-") == 5
    assert "nano.img" in out
    assert "fix: python -m benchmarks prepare" in out
