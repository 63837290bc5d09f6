"""The arms with a daemon or an engine behind them: one shot each, and nothing of them left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.arms.docker import Docker
from benchmarks.arms.podman import Podman
from benchmarks.dockerd import SIDE_EFFECTS
from benchmarks.workdir import remove_own, run_directory
from tests.bench_fakes import children, probe, processes_with


def traces():
    """What a container engine leaves when it forgets something."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    cgroups = [where for where, _, _ in os.walk("/sys/fs/cgroup")]
    return {
        "mounts": [line for line in mounts if f"bench-{os.getpid()}" in line],
        "cgroups": [where for where in cgroups if str(os.getpid()) in where or "libpod" in where],
        "processes": processes_with(f"bench-{os.getpid()}"),
        "children": children(),
        "files": [path for path in SIDE_EFFECTS if os.path.exists(path)],
    }


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.docker
@pytest.mark.parametrize("kind", [Podman, Docker])
def test_one_shot_and_nothing_left(kind):
    if os.geteuid() != 0:
        pytest.skip("needs root, to start the daemon")
    probe()
    arm = kind("busybox")
    skip = arm.unavailable()
    if skip:
        pytest.skip(f"{skip.reason}: {skip.fix}")
    before = traces()
    try:
        arm.prepare()
        shots = [arm.shoot() for _ in range(2)]
        directory = run_directory()
        assert os.path.isdir(directory)
    finally:
        arm.close()
        arm.close()  # safe to call twice
        remove_own()
    for shot in shots:
        assert 0 < shot.t6 - shot.t0 < 20e9
        assert shot.t6 < shot.t_end
    assert traces() == before
    assert not os.path.exists(directory)
