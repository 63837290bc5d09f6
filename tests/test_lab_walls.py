"""What a cell does stays in the workbench: attacks on the machine, and what they came to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from minicontainer.kernel.cgroups import detect
from minicontainer.lab import workbench, workbench_limits
from minicontainer.lab.workbench import Workbench, WorkbenchError
from tests import workbench_attacks
from tests.roots import REPOSITORY

pytestmark = [pytest.mark.root, pytest.mark.rootless]


@pytest.fixture(autouse=True)
def needs_workbench():
    try:
        with Workbench() as bench:
            bench.shell("true")
    except WorkbenchError as reason:
        pytest.skip(str(reason))


def attack(words: list[str]) -> dict[str, str]:
    victim = subprocess.Popen([*words, "sleep", "1000"])
    try:
        done = subprocess.run(
            [*words, sys.executable, "-m", "tests.workbench_attacks", str(victim.pid)],
            cwd=REPOSITORY, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()
    for place in ("/usr", REPOSITORY / "minicontainer"):
        assert not os.path.exists(f"{place}/{workbench_attacks.TRACE}")
    return json.loads(done.stdout)


def test_no_attack_works():
    came_to = attack([])
    assert len(came_to) >= 30
    assert [name for name, error in came_to.items() if not error] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="the test before this one ran as an ordinary user")
def test_no_attack_of_an_ordinary_user_works(ordinary_user):
    came_to = attack(ordinary_user)
    assert [name for name, error in came_to.items() if not error] == []


# --- control groups of its own ------------------------------------------------------------------


@pytest.fixture
def bench():
    with Workbench() as bench:
        if not bench.shell("ls /sys/fs/cgroup").output:
            pytest.skip("this user may not make control groups: run as root, or delegate one")
        yield bench


def test_groups_can_be_made_limited_and_entered(bench):
    outcome = bench.shell("""
        cd /sys/fs/cgroup; [ -d pids ] && cd pids
        mkdir box box/below
        echo 1 > box/pids.max
        echo $$ > box/cgroup.procs
        cat /proc/self/cgroup | grep -c :/box
        (true)
    """)
    assert "0\n" not in outcome.output
    assert "fork" in outcome.output  # sh: can't fork: Resource temporarily unavailable


def test_every_controller_of_the_host_is_there(bench):
    def controllers():
        return sorted(name for h in detect.detect(fresh=True).hierarchies for name in h.controllers)

    assert bench.call(controllers).value == controllers()


def test_groups_end_with_it_even_frozen(bench):
    freeze = "cgroup.freeze" if detect.detect().kind == "v2" else "freezer.state"
    word = "1" if freeze == "cgroup.freeze" else "FROZEN"
    script = f"""
        cd /sys/fs/cgroup; [ -d freezer ] && cd freezer
        mkdir box box/below
        sleep 1000 & echo $! > box/below/cgroup.procs
        for group in box/below box; do echo {word} > $group/{freeze}; done
    """
    bench.shell(script)
    bench.reset()
    # One that freezes itself is killed after its time like any other.
    assert bench.shell(f"{script}\necho $$ > box/below/cgroup.procs; sleep 9", timeout=1).timed_out
    assert bench.shell("echo on").output == "on\n"
    bench.close()
    paths = [
        d.path for pid in workbench.started for d in workbench_limits.group_of(pid).directories
    ]
    assert list(filter(os.path.exists, paths)) == []


def test_groups_of_a_killed_keeper_are_swept(bench):
    bench.shell("cd /sys/fs/cgroup; [ -d freezer ] && cd freezer; mkdir -p box/below")
    path = workbench_limits.group_of(bench.pid).directories[0].path
    assert os.path.isdir(path)
    os.kill(bench.pid, signal.SIGKILL)
    bench._process.wait()
    deadline = time.monotonic() + 5
    while os.path.exists(path) and time.monotonic() < deadline:
        bench.reset()  # another workbench, when the last process of the first is buried
    assert not os.path.exists(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="devices are taken from a group by root alone")
def test_devices_are_taken_from_a_group_from_outside(bench, capsys):
    place = "/sys/fs/cgroup/devices" if detect.detect().kind != "v2" else "/sys/fs/cgroup"
    look = f"""
        mkdir -p {place}/box
        sh -c 'echo $$ > {place}/box/cgroup.procs
               head -c 1 /dev/null; head -c 1 /dev/zero' 2>&1 | tr '\\0' 0
    """
    bench.deny_devices("box", "c 1:3 rwm")
    assert capsys.readouterr().out.startswith("ENOENT")
    assert bench.shell(look).output == "0"
    bench.deny_devices("box", "c 1:5 rwm")
    assert bench.shell(look).output == "head: /dev/zero: Operation not permitted\n"
    bench.deny_devices("box", "c 1:3 r", "b *:* rwm")
    assert bench.shell(look).output == "head: /dev/null: Operation not permitted\n0"
    for wrong in ("1:3", "c 1:3 x", "c 1:3 rwm; b"):
        bench.deny_devices("box", wrong)
        assert "a device is named as" in capsys.readouterr().out
    bench.deny_devices("../box", "c 1:3 rwm")
    assert "without `..`" in capsys.readouterr().out
