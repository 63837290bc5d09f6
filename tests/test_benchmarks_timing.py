"""Our stopwatch beside hyperfine's, on the same commands in alternation."""

from __future__ import annotations

import json
import shlex
import shutil
import statistics
import subprocess

import pytest

from benchmarks.arms.minicontainer import Command
from benchmarks.arms.process import UnshareChroot
from benchmarks.command import environment, shoot_command
from benchmarks.statistics import ratio
from tests.bench_fakes import probe

HYPERFINE = shutil.which("hyperfine")
PAIRS = 25


def both(argv, report):
    """Whole process, ms: what we say and what hyperfine says, in pairs."""
    ours, theirs = [], []
    hyperfine = [HYPERFINE, "--runs", "1", "-N", "--style", "none", "--export-json", str(report)]
    for _ in range(PAIRS):
        shot = shoot_command(argv)
        ours.append((shot.t_end - shot.t0) / 1e6)
        subprocess.run(
            [*hyperfine, shlex.join(argv)], env=environment(), capture_output=True, check=True
        )
        theirs.append(json.loads(report.read_text())["results"][0]["times"][0] * 1000)
    return ours, theirs


@pytest.mark.slow
@pytest.mark.parametrize("arm", [UnshareChroot, Command])
def test_hyperfine_says_the_same(arm, tmp_path):
    """Within 10%, as far as the noise of this moment lets anybody say: on a quiet machine the
    interval is a few percent wide.
    """
    if not HYPERFINE:
        pytest.skip("no second stopwatch: apt-get install hyperfine")
    probe()
    argv = arm("busybox").argv
    tries = []
    for _ in range(2):  # once more for noise
        ours, theirs = both(argv, tmp_path / "report.json")
        found = ratio(ours, theirs, seed=1)
        medians = statistics.median(ours), statistics.median(theirs)
        tries.append(f"{medians[0]:.2f} and {medians[1]:.2f} ms, ratio {found}")
        if found.low <= 1.1 and found.high >= 1 / 1.1:
            print("ours and hyperfine's:", *tries)
            return
    pytest.fail(f"ours and hyperfine's: {tries}")
