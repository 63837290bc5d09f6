"""The stored example says what its raw values say."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from benchmarks.example.__main__ import main
from benchmarks.report import units
from benchmarks.report.budgets import noise_budget
from benchmarks.report.series import paired
from benchmarks.statistics import floor, summarize
from tests.report_fakes import run_of
from tests.roots import REPOSITORY

STORED = REPOSITORY / "benchmarks" / "example"


@pytest.fixture(scope="module", params=["made", "stored"])
def example(request, tmp_path_factory):
    """An example made now of a run that takes no time, and the one in the repository."""
    if request.param == "stored":
        if not (STORED / "starts.csv").is_file():
            pytest.skip(
                "it is of before its raw values were kept: python -m benchmarks.example RUN"
            )
        return STORED
    base = tmp_path_factory.mktemp("example")
    (base / "made").mkdir()
    main(run_of(base / "run", "run-1", rounds=30), str(base / "made"))
    return base / "made"


@pytest.fixture
def report(example):
    return (example / "report.md").read_text()


@pytest.fixture
def starts(example):
    return pd.read_csv(example / "starts.csv", keep_default_na=False)


def seed_of(report):
    return int(re.search(r"seed (\d+)\.", report)[1])


def test_the_noise_floor_is_that_of_the_raw_values(report, starts):
    stated = re.search(
        r"because (\S+) against itself in (\d+) rounds is × ([\d.]+) \(([\d.]+)–([\d.]+); "
        r"budget ±5%: (.+?)\)",
        report,
    )
    arm, n, value, low, high, budget = stated.groups()
    shots = [
        dict(zip(part["round"], part.value, strict=True))
        for rep in (1, 0)
        for part in [starts[(starts.arm == arm) & (starts.rep == rep)]]
    ]
    a_a = paired(*shots, seed_of(report))
    assert a_a.n == int(n)
    assert [f"{number:.3f}" for number in (a_a.value, a_a.low, a_a.high)] == [value, low, high]
    assert noise_budget(a_a) == budget
    # Whatever the machine was like: an arm against itself is no difference that counts.
    assert a_a.low <= 1 <= a_a.high or floor(a_a) >= max(a_a.value, 1 / a_a.value)


def test_every_arm_is_what_its_raw_values_are(report, starts):
    for arm, part in starts[starts.rep == 0].groupby("arm"):
        summary = summarize(part.value, seed_of(report))
        row = re.compile(rf"\| {re.escape(arm)}\W")
        line = next(line for line in report.splitlines() if row.match(line))
        assert f"| {units.measured(summary)} |" in line


def test_what_it_shows_is_there(example, report):
    shown = re.findall(r"\]\((\w+\.svg)\)", report)
    assert len(shown) >= 4
    assert {path.name for path in example.glob("*.svg")} == set(shown)
    for line in report.splitlines():
        if line.startswith("| vm-") and "[tcg]" in line:
            assert units.EMULATED in line


def test_the_readme_shows_what_is_there():
    readme = (REPOSITORY / "README.md").read_text()
    shown = re.findall(r"\]\(benchmarks/example/([^)]+)\)", readme)
    assert "start_times.svg" in shown
    assert all((STORED / name).is_file() for name in shown)
