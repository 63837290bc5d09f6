"""The benchmark of the images' budgets: its verdicts, and a short run that leaves nothing."""

from __future__ import annotations

import glob
import json
import os
import re
import subprocess
import sys

import pytest

from benchmarks.images_budgets import BUDGETS, KINDS, judged, missing
from minicontainer.paths import cache_dir
from tests.roots import REPOSITORY


def test_verdicts_need_an_interval_on_one_side_of_the_limit() -> None:
    steady, late = [100.0 + n % 3 for n in range(15)], [200.0 + n % 3 for n in range(15)]
    wild = [50.0, 500.0] * 8
    commits = {"commit of 200 MiB": late, "commit of 10 MiB": steady}
    found = {one["arm"]: one for one in judged({"build cached": steady, **commits}, 1)}
    assert found["build cached"]["verdict"] == "met"
    assert found["commit of 200 MiB"]["verdict"] == "not met"
    (_, one) = judged({"build cached": steady, **commits}, 1, busy=True)
    assert one["verdict"] == "not resolved", "others may have made it slow"
    assert 1.9 < found["commit of 200 MiB"]["value"] < 2.1
    (one,) = judged({"build cached": wild}, 1)
    assert one["verdict"] == "not resolved"


def test_what_is_missing_is_said() -> None:
    if os.geteuid() != 0:
        assert "sudo" in missing()
    else:
        said = missing(lambda tool: None)
        assert "apt install" in said
        assert "mmdebstrap" in said


def test_each_kind_has_its_budget() -> None:
    assert {budget.arm.split()[0] for budget in BUDGETS} == set(KINDS)


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.skipif(bool(missing()), reason=missing())
def test_a_short_run(tmp_path) -> None:
    words = ["--rounds", "5", "--only", "build", "--only", "start", "--json", tmp_path / "found"]
    run = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.images_budgets", *words], cwd=REPOSITORY,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    said, _ = run.communicate(timeout=200)
    assert run.returncode in (0, 1)  # met or not is for a quiet machine to say
    for words in (
        r"build cached: [0-9.]+ ms \(.*, allowed 150 ms; of cpu [0-9.]+ ms",
        r"start of 64 layers: .* × start of 1 layer, allowed 1.2; of cpu [0-9.]+",
    ):
        assert re.search(f"^budget .*: {words}$", said, re.M), said
    assert re.search("^other work disturbed [0-5] of 5 rounds$", said, re.M), said
    found = json.loads((tmp_path / "found").read_text())
    assert all(len(times) == 5 and min(times) > 1 for times in found["ms"].values())
    assert glob.glob(f"{cache_dir()}/bench-{run.pid}") == []
