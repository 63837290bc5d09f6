"""`minicontainer-runtime` on a bad day: full disks, frozen, stopped and undying processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from minicontainer.kernel import cgroups
from tests.bundles import FOREVER, Bundle, alive, bundle

__all__ = ["bundle"]
pytestmark = pytest.mark.root


def mounted(bundle: Bundle, options: str, *words: str) -> subprocess.CompletedProcess:
    """Run the runtime where the state directory is a small tmpfs that nobody else sees; what is
    left in it is on stdout.
    """
    bundle.write()
    bundle.states.mkdir(exist_ok=True)
    script = f'mount -t tmpfs -o {options} none "$0" && "$@" >&2; code=$?; ls "$0"; exit $code'
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", script, bundle.states, *bundle.command, *words],
        cwd=bundle.directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


# --- disks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["nr_inodes", "nr_blocks"])
def test_disk_full_at_any_moment(bundle: Bundle, what):
    """One file or page more each time, until there is room: also in the middle of an update of the
    record. Each failure says so and undoes all.
    """
    bundle.args("true")
    failed = 0
    for room in range(1, 40):
        done = mounted(bundle, f"{what}={room}", "run", bundle.id)
        assert done.stdout == "", room
        assert bundle.left() == [], room
        if done.returncode == 0:
            break
        failed += 1
        assert done.returncode == 1
        assert "no space left on device" in done.stderr
        assert "Traceback" not in done.stderr
        assert "internal error" not in done.stderr
    print(f"{what}: {failed} sizes are too small, {room} is enough")
    assert failed >= 2
    assert done.returncode == 0, done.stderr


def test_state_directory_that_became_read_only(bundle: Bundle):
    """start and delete say why they cannot; kill needs no file. Writable again, all is undone."""
    bundle.args(*FOREVER).create()
    pid = bundle.state()["pid"]
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'

    def call(*words: str) -> subprocess.CompletedProcess:
        command = ["unshare", "-m", "sh", "-c", script, bundle.states, *bundle.command, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert json.loads(call("state", bundle.id).stdout)["status"] == "created"
    for words in (["start", bundle.id], ["delete", "--force", bundle.id]):
        done = call(*words)
        assert done.returncode == 1, words
        assert "read-only file system" in done.stderr, words
        assert "Traceback" not in done.stderr
        assert "internal error" not in done.stderr
    assert not alive(pid)  # by delete, which then found that it cannot forget it
    bundle.call("delete", "--force", bundle.id)
    assert bundle.left() == []


# --- frozen, stopped, waiting ------------------------------------------------------------------


def test_frozen_container_is_deleted(bundle: Bundle):
    bundle.args("sh", "-c", "sleep 1000 & sleep 1001").create()
    bundle.call("start", bundle.id)
    bundle.call("pause", bundle.id)
    assert "not stopped: paused" in bundle.call("delete", bundle.id, check=False).stderr
    bundle.call("delete", "--force", bundle.id)
    assert bundle.left() == []


def test_stopped_container_is_deleted(bundle: Bundle):
    """All of its processes, its init included, have been stopped from outside."""
    bundle.args("sh", "-c", "sleep 1000 & exec sleep 1001").create()
    bundle.call("start", bundle.id)
    pids = json.loads(bundle.call("ps", "--format", "json", bundle.id).stdout)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    bundle.call("delete", "--force", bundle.id)
    assert bundle.left() == []
    assert not any(map(alive, pids))


def test_delete_while_run_is_stopped(bundle: Bundle):
    """As after Ctrl-Z. It goes on later, finds its container gone, and says 137."""
    bundle.args(*FOREVER)
    with bundle.popen("run", bundle.id, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"ready\n"
        run.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, run.pid, os.WSTOPPED | os.WNOWAIT)
        bundle.call("delete", "--force", bundle.id)
        assert bundle.left() == []
        run.send_signal(signal.SIGCONT)
        assert run.wait(20) == 128 + signal.SIGKILL
        assert run.stderr is not None
        assert run.stderr.read() == b""


@pytest.mark.slow
def test_init_that_cannot_die(bundle: Bundle):
    """Uninterruptible, because somebody has frozen the group above: `delete --force` says within
    its patience who does not end, and does the rest when it can.
    """
    layout = cgroups.detect.detect()
    freezer = next((h for h in layout.hierarchies if "freezer" in h.controllers), None)
    if freezer is None or freezer.version != 1:
        pytest.skip("in a frozen group of cgroup v2 SIGKILL is deadly: no such state to be had")
    above = Path(freezer.mount_point, f"minicontainer-test-{bundle.id}-above")
    bundle.config["linux"]["cgroupsPath"] = f"/{above.name}/{bundle.id}"
    above.mkdir()
    try:
        bundle.args("sleep", "1000").create()
        bundle.call("start", bundle.id)
        pid = bundle.state()["pid"]
        (above / "freezer.state").write_text("FROZEN")
        began = time.monotonic()
        done = bundle.call("delete", "--force", bundle.id, check=False)
        assert time.monotonic() - began < 25
        assert done.returncode == 1
        assert str(pid) in done.stderr
        assert "fix:" in done.stderr
        assert alive(pid)
        assert bundle.state()["id"] == bundle.id  # it is still known
        (above / "freezer.state").write_text("THAWED")
        bundle.call("delete", "--force", bundle.id)
        assert not alive(pid)
    finally:
        if above.exists():
            (above / "freezer.state").write_text("THAWED")
        bundle.clean()
        for path in Path("/sys/fs/cgroup").glob(f"*/{above.name}"):
            path.rmdir()
    assert bundle.groups() == []
