"""The benchmark of the runtime's budgets, with real runtimes, and that it leaves nothing."""

from __future__ import annotations

import glob
import os
import re
import subprocess
import sys
import time

import pytest

from benchmarks.arms import all_arms
from benchmarks.arms.runtime import KINDS, complete, runtime_arms
from benchmarks.budgets import ALLOWANCES
from benchmarks.residents import residents
from minicontainer.runtime import config
from tests.bench_fakes import probe, processes_with
from tests.roots import REPOSITORY


def test_every_budget_is_about_arms_that_there_are():
    names = {arm.name.partition(":")[0] for arm in [*all_arms(), *runtime_arms()]}
    assert {rule.arm for rule in ALLOWANCES} | {rule.against for rule in ALLOWANCES} <= names


def test_the_bundle_is_complete():
    spec = complete("busybox", ["/probe"])
    config.check(spec)
    assert len(spec["process"]["capabilities"]["bounding"]) == 14
    assert spec["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    assert {one["type"] for one in spec["linux"]["namespaces"]} == set(KINDS)


def test_residents_are_found_by_their_words():
    word = f"/nowhere/residents-{os.getpid()}"
    assert residents("no-such-container", word) == []
    with subprocess.Popen(["sh", "-c", "read _; :", word], stdin=subprocess.PIPE) as process:
        # Popen may return before the kernel has put the new words in their place
        until = time.monotonic() + 20
        while not (all_found := residents("no-such-container", word)):
            assert time.monotonic() < until
        (found,) = all_found
        assert (found.program, found.in_container) == ("sh", False)
        assert found.pss_kib > 10
        process.communicate(b"\n")


@pytest.mark.root
@pytest.mark.slow
def test_each_budget_is_printed_with_its_verdict(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root: the bundle has a cgroup with limits")
    probe()
    able = {arm.name for arm in runtime_arms() if not arm.unavailable()}
    run = subprocess.Popen(
        [sys.executable, "-m", "benchmarks", "run", "--bench", "runtime", "--rounds", "5",
         "--out", tmp_path], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    said, _ = run.communicate(timeout=300)
    assert run.returncode == 0
    print(said)
    lines = said.splitlines()[1:]
    expected = {
        rule for rule in ALLOWANCES
        if {f"{rule.arm}:busybox", f"{rule.against}:busybox"} <= able
    }  # fmt: skip
    assert expected or "runc-run:busybox" not in able
    for rule in expected:
        (said,) = (
            line for line in lines if f"{rule.arm}:busybox: whole" in line
            and f"of {rule.against}:busybox, allowed × {rule.limit}" in line
        )  # fmt: skip
        assert re.match(r"budget (met|not met|not resolved): ", said)
        assert re.search(r"× [\d.]+ \([\d.]+–[\d.]+; n=5\)", said)
    for state in ("created", "running"):
        assert any(
            line.startswith("budget met: minicontainer-runtime-create-start-delete")
            and f"a {state} container keeps alive" in line for line in lines
        ), lines  # fmt: skip
    assert glob.glob(f"/sys/fs/cgroup/**/*bench-{run.pid}-*", recursive=True) == []
    assert processes_with(f"bench-{run.pid}") == []
