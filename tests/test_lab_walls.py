"""What a cell does stays in the workbench: attacks on the machine, and what they came to."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

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
