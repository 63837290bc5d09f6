"""Runs set beside each other: `compare A B` and `merge`, on runs whose truth is known."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from benchmarks import results
from benchmarks.__main__ import main
from benchmarks.report import comparison, merging, series
from benchmarks.report.comparison import Change
from benchmarks.results import ResultsError
from benchmarks.statistics import Ratio, change
from tests.report_fakes import full_run, run_of

FIRST = "start.first_instruction"
OURS = ("minicontainer-cli:busybox", "minicontainer-library:busybox")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """a, a2: alike. slow, slow2: ours 20% slower. once: as a2. half: the whole machine slower."""
    base = tmp_path_factory.mktemp("runs")
    return {
        "a": run_of(base / "a", "run-a", seed=1),
        "a2": run_of(base / "a2", "run-a2", seed=2),
        "slow": run_of(base / "slow", "run-slow", 1.2, seed=3),
        "slow2": run_of(base / "slow2", "run-slow2", 1.2, seed=4),
        "faster": run_of(base / "faster", "run-faster", 0.7, seed=5),
        "half": run_of(base / "half", "run-half", slow=2.0, seed=6),
        "other": run_of(base / "other", "run-other", 1.2, slow=2.0, machine="another", seed=7),
        "few": run_of(base / "few", "run-few", 1.2, rounds=4, seed=8),
    }


read = functools.cache(series.read)


def compared(runs, before, after):
    sides = ([read(runs[name]) for name in side.split()] for side in (before, after))
    return comparison.compare(*sides)


def verdicts(found, metric=FIRST):
    return {one.key.arm: one.verdict for one in found.findings if one.key.group.metric == metric}


@pytest.mark.parametrize(
    ("before", "after", "ours"),
    [
        ("a", "a2", "no change"),
        ("a", "slow", "worse, seen once"),
        ("a", "slow slow2", "regression"),
        ("a", "slow a2", "worse once, not again"),
        ("a a2", "slow slow2", "regression"),
        ("a slow", "slow2 faster", "better once, not again"),  # slow2 is no worse than slow
        ("a", "faster", "better, seen once"),
        ("slow slow2", "a a2", "improvement"),
        ("a", "half", "no change"),
        ("a", "few", "not resolved: too few rounds for a noise floor"),
    ],
)
def test_a_regression_is_what_is_seen_twice(runs, before, after, ours):
    found = verdicts(compared(runs, before, after))
    assert {found[arm] for arm in OURS} == {ours}
    if after != "half":
        assert found["runc:busybox"].partition(":")[0] in ("no change", "not resolved")


def test_a_slower_machine_moves_the_reference_alone(runs):
    found = {one.key.arm: one for one in compared(runs, "a", "half").findings}
    assert found["runc:busybox"].verdict == "worse, seen once"
    assert found["runc:busybox"].reference
    assert found["runc:busybox"].changes[0].by == "time"
    assert found["runc:busybox"].changes[0].ratio.value == pytest.approx(2, rel=0.05)


def test_times_of_two_machines_are_not_compared(runs):
    found = compared(runs, "a", "other")
    assert not found.same_machine
    said = verdicts(found)
    assert said["runc:busybox"] == "not resolved: figures of two machines"
    assert {said[arm] for arm in OURS} == {"worse, seen once"}  # ratios are


def test_the_known_change_lies_in_the_interval(runs):
    for one in compared(runs, "a", "slow").findings:
        if one.key.arm in OURS and one.key.group.metric == FIRST:
            of = one.changes[0].ratio
            assert of.low < 1.2 < of.high


@pytest.mark.parametrize(
    ("value", "low", "high", "floor", "direction", "seen"),
    [
        (1.2, 1.1, 1.3, 1.05, "lower", "worse"),
        (1.2, 1.1, 1.3, 1.05, "higher", "better"),
        (0.8, 0.7, 0.9, 1.05, "higher", "worse"),
        (1.2, 0.9, 1.3, 1.05, "lower", ""),  # the interval holds 1
        (1.04, 1.03, 1.05, 1.01, "lower", ""),  # not beyond 5%
        (1.2, 1.1, 1.3, 1.25, "lower", ""),  # inside the floor
        (0.96, 0.95, 0.97, 1.01, "lower", ""),
        (0.5, 0.4, 0.6, None, "lower", "better"),  # no A/A in this benchmark
        (1.2, None, None, 1.05, "lower", ""),
    ],
)
def test_each_condition_of_the_rule(value, low, high, floor, direction, seen):
    assert Change("a", "b", "time", Ratio(9, value, low, high), floor, "").seen(direction) == seen
    assert Change("a", "b", "time", Ratio(9, value, low, high), floor, "x").seen(direction) == ""


def test_intervals_of_a_change_are_those_of_scipy():
    rng = np.random.default_rng(1)
    before, after = rng.normal(1, 0.1, 25), rng.normal(1.2, 0.1, 30)
    of = change(before, after, seed=3)

    def difference(a, b, axis):
        return np.median(b, axis=axis) - np.median(a, axis=axis)

    theirs = scipy.stats.bootstrap(
        (before, after), difference, n_resamples=10_000, method="percentile", rng=rng
    ).confidence_interval
    width = theirs.high - theirs.low
    assert math.log(of.low) == pytest.approx(theirs.low, abs=0.06 * width)
    assert math.log(of.high) == pytest.approx(theirs.high, abs=0.06 * width)


def test_alike_runs_are_seldom_called_a_regression(tmp_path):
    """Six comparisons of runs that differ by nothing but noise."""
    alike = [series.read(run_of(tmp_path / f"{n}", f"run-{n}", seed=n)) for n in range(6)]
    wrong = 0
    for first in range(2):
        for second in range(2, 5):
            found = comparison.compare([alike[first]], [alike[second], alike[second + 1]])
            wrong += len(found.of("regression", "improvement"))
    assert wrong == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["a", "a2"], 0, "no change in"),
        (["a", "slow"], 4, "worse, seen once"),
        (["a", "slow", "--again", "slow2"], 3, "4 × regression"),
        (["a", "faster"], 0, "better, seen once"),
        (["a", "slow", "--again", "slow"], 1, "run-slow is given twice"),
        (["a"], 2, "compare takes two stored runs, A and B, or none to measure"),
        (["a", "slow", "--rounds", "3"], 2, "compare A B measures nothing"),
        (["a", "/nowhere"], 1, "/nowhere/samples.jsonl: no such file"),
    ],
)
def test_compare_as_typed(runs, capsys, words, code, said):
    words = [runs.get(word, word) for word in words]
    assert main(["compare", *words]) == code
    out, err = capsys.readouterr()
    assert said in (err if code in (1, 2) else out)


def test_a_directory_of_runs_is_all_of_them(runs, tmp_path, capsys):
    for side, names in (("before", ("a", "a2")), ("after", ("slow", "slow2"))):
        (tmp_path / side).mkdir()
        for name in names:
            (tmp_path / side / name).symlink_to(runs[name])
    arguments = ["compare", str(tmp_path / "before"), str(tmp_path / "after"), "--json"]
    assert main(arguments) == 3
    record = json.loads(capsys.readouterr().out)
    # The first instruction and the whole process of both arms.
    assert record["regressions"] == 4
    assert len(record["before"]) == len(record["after"]) == 2
    one = next(f for f in record["findings"] if f["verdict"] == "regression")
    assert [change["by"] for change in one["changes"]] == ["reference"] * 4


def test_every_benchmark_is_compared(tmp_path, capsys):
    one = full_run(tmp_path / "one")
    two = full_run(tmp_path / "two")
    samples = tmp_path / "two" / results.SAMPLES
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    for row in rows:
        row["run_id"] = "two"
        if row["metric"] == "memory.pss" and row["arm"].startswith("mini"):
            row["value"] *= 1.3
        if row["bench"] == "cpu" and row["kind"] == "vm":
            row["value"] *= 0.8
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["compare", one, two, "--json"]) == 4
    record = json.loads(capsys.readouterr().out)
    found = [one for one in record["findings"] if "worse" in one["verdict"]]
    worse = {(one["metric"], one["n_concurrent"]) for one in found}
    assert worse == {("memory.pss", n) for n in (1, 2, 4, 8)} | {("cpu.sysbench.events", 1)}
    assert main(["compare", one, two]) == 4
    text = capsys.readouterr().out
    assert "[tcg] is emulated: not a KVM figure" in text
    assert "cold" in text


def test_nothing_in_common(runs, tmp_path):
    directory = run_of(tmp_path / "x", "run-x")
    rows = [json.loads(line) for line in (tmp_path / "x" / results.SAMPLES).open()]
    (tmp_path / "x" / results.SAMPLES).write_text("")
    results.append(directory, [{**row, "arm": f"other-{row['arm']}"} for row in rows if row["arm"]])
    with pytest.raises(ResultsError, match="no arm and metric that all these runs have"):
        comparison.compare([series.read(runs["a"])], [series.read(directory)])
    with pytest.raises(ResultsError, match="no arm was measured in all these runs"):
        merging.merge([series.read(runs["a"]), series.read(directory)])


def test_merge_never_averages_times(runs, tmp_path, capsys):
    to = tmp_path / "merged"
    assert main(["merge", runs["a"], runs["other"], "--to", str(to), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    arms = {arm["arm"]: arm["hosts"] for arm in record["arms"] if arm["metric"] == FIRST}
    here, there = arms["minicontainer-cli:busybox"]
    assert here["median"] == pytest.approx(15, rel=0.05)
    assert there["median"] == pytest.approx(36, rel=0.05)
    assert here["ratio"] == pytest.approx(0.75, rel=0.03)
    assert there["ratio"] == pytest.approx(0.9, rel=0.03)
    assert record["references"] == {FIRST: "runc:busybox"}
    assert arms["runc:busybox"][0]["verdict"] == "reference"
    text = (to / "merged.md").read_text()
    assert "averaged" in text
    assert "host 1: a CPU, 2 CPUs" in text
    assert "host 2: another, 2 CPUs" in text
    assert "hosts differ" not in text.partition("minicontainer-cli")[2].partition("\n")[0]
    line = next(line for line in text.splitlines() if line.startswith("| minicontainer-cli"))
    assert "faster on all 2" in line
    for name in ("a", "other"):
        assert f"{runs[name]}/report.html" in text
        assert Path(runs[name], "report.html").is_file(), "each host has its report"
    assert (to / "merged.html").stat().st_size > 5000


def test_hosts_that_disagree_are_named_and_gaps_stay_gaps(tmp_path):
    one = run_of(tmp_path / "one", "one", 0.9, machine="x")
    two = run_of(tmp_path / "two", "two", 1.6, machine="y", seed=9)
    rows = [json.loads(line) for line in (tmp_path / "two" / results.SAMPLES).open()]
    (tmp_path / "two" / results.SAMPLES).write_text("")
    results.append(two, [row for row in rows if not row["arm"].startswith("minicontainer-lib")])
    merged = merging.merge([series.read(one), series.read(two)])
    lines = {line.key.arm: line for line in merged.lines}
    assert lines["minicontainer-cli:busybox"].across.endswith("hosts differ")
    assert lines["minicontainer-library:busybox"].cells[1] is None
    assert lines["minicontainer-library:busybox"].across == "–"
    assert not merged.one_machine


def test_merge_wants_two_different_runs(runs, capsys):
    assert main(["merge", runs["a"]]) == 1
    assert "two hosts or more" in capsys.readouterr().err
    assert main(["merge", runs["a"], runs["a"]]) == 1
    assert "given twice" in capsys.readouterr().err


def test_export_as_typed(runs, capsys, tmp_path):
    assert main(["export", runs["a"]]) == 0
    (tmp_path / "rows.csv").write_text(capsys.readouterr().out)
    import benchmarks

    table = benchmarks.load(str(tmp_path / "rows.csv"))
    assert len(table) == len(benchmarks.load(runs["a"]))
    assert main(["export", runs["a"], "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(table)
