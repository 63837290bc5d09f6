"""For every test: the order (fast ones first), the fixtures of roots.py, and the leak check at the
end: a run that leaves anything on the host fails.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile

import pytest

import minicontainer
from minicontainer.lab import leaks
from minicontainer.paths import cache_dir, runtime_dir

pytest_plugins = ["tests.roots", "tests.v2_rig.plugin"]

# Everything temporary goes below one directory, so that nothing else on this host is mistaken for
# ours. Its name is short: unix sockets lie in it, and their paths end at 107 bytes.
TEMPORARY = tempfile.mkdtemp(prefix="mct-")
os.chmod(TEMPORARY, 0o755)
os.environ["TMPDIR"] = tempfile.tempdir = TEMPORARY

# A shell's background job, or nohup's, is deaf to these, and so would be all that the tests start
# and interrupt.
for _number, _handler in (
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _handler)

# What others keep there by themselves: the state of libvirt, runc, crun, podman and docker, which
# they make at their first start. And images, which are kept on purpose.
NOT_OURS = (
    "/run/libvirt", "/var/lib/libvirt", "/run/minicontainer/libvirt", cache_dir(), "/run/runc",
    "/run/crun", "/run/docker", "/run/containerd", "/run/libpod", "/run/containers",
    "/var/lib/containers", "/dev/shm/libpod_lock",
    f"{runtime_dir()}/benchmarks.lock",  # an empty file: to remove it would let two runs in
    "/sys/fs/cgroup/podman_probe",
    # podman's, for a user without XDG_RUNTIME_DIR; they end with our temporary directory
    f"{TEMPORARY}/containers-user-", f"{TEMPORARY}/podman-run-",
    f"{runtime_dir()}/seccomp",  # compiled filters: a cache
    f"{runtime_dir()}/sealed",  # the interpreter that containers cannot write, once a boot
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


def _ours(words: str) -> bool:
    """Other programs make files in /tmp too; ours carry our name or lie in TEMPORARY.

    And without systemd libvirt makes a group for all machines with its first one, and keeps it.
    """
    if re.fullmatch(r"cgroup /sys/fs/cgroup/([^/]+/)?machine", words):
        return False
    is_file = words.startswith(f"file {os.path.dirname(TEMPORARY)}/")
    return not is_file or "minicontainer" in words or TEMPORARY in words


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left(tmp_path_factory: pytest.TempPathFactory):
    os.makedirs(f"{runtime_dir()}/containers", 0o700, exist_ok=True)  # stays, when empty
    if os.geteuid() == 0 and shutil.which("ip") and not os.path.ismount("/run/netns"):
        for verb in ("add", "delete"):  # with the first one its directory becomes a mount
            subprocess.run(["ip", "netns", verb, "minicontainer-first"], check=False)
    before = leaks.snapshot(ignore=[*NOT_OURS, tmp_path_factory.getbasetemp().parent])
    yield
    minicontainer.helper_stop()
    left = leaks.settled(before, seconds=15, concerns=_ours)
    assert not left, "the tests left on this host:\n" + "\n".join(left)


def pytest_unconfigure() -> None:
    shutil.rmtree(TEMPORARY, ignore_errors=True)


def _needs_root(item: pytest.Item) -> bool:
    """A test's own mark goes before its module's."""
    users = [
        (node, mark.name)
        for node, mark in item.iter_markers_with_node()
        if mark.name in ("root", "rootless")
    ]
    nearest = {name for node, name in users if node is users[0][0]}
    return nearest == {"root"}


@pytest.fixture(autouse=True)
def skip_what_this_host_lacks(request: pytest.FixtureRequest) -> None:
    marks = {mark.name for mark in request.node.iter_markers()}
    if _needs_root(request.node) and os.geteuid() != 0:
        pytest.skip("needs root: sudo ./workshop test")
    if "docker" in marks and not shutil.which("dockerd"):
        pytest.skip("dockerd is not installed: apt install docker.io")
