"""The run, with arms that only pretend: what is written, left out, and kept at an interrupt."""

from __future__ import annotations

import gc
import os
import resource
import signal

import pytest

from benchmarks import results, session
from benchmarks.arms.base import ArmFailed, Skip
from benchmarks.benches.start import BENCH as START
from benchmarks.guard import Guard, Rules
from benchmarks.report.analysis import analyse
from benchmarks.rounds import prepare, round_zero
from benchmarks.rows import RowMaker
from benchmarks.session import Part, Request
from tests.bench_fakes import BUSY, QUIET, FakeArm, rows_of, shoot_rounds, write_run

REFERENCE = "runc:busybox"  # the first choice, whichever fake happens to be faster
FIRST = "start.first_instruction"


def values(rows, arm, metric=FIRST, rep=0):
    return [r["value"] for r in rows if (r["arm"], r["metric"], r["rep"]) == (arm, metric, rep)]


def test_each_round_is_written_whole_and_once():
    written = shoot_rounds([FakeArm("a", 1, 2, 3), FakeArm("b", 7)], 3)
    assert [{row["round"] for row in rows} for rows in written] == [{1}, {2}, {3}]
    for rows in written:
        assert values(rows, "b") == [7]
        assert values(rows, "b", "start.whole_process") == [8]
        assert values(rows, "b", "start.phase.build") == [7]
        assert len(values(rows, "a")) == len(values(rows, "a", rep=1)) == 1
        assert rows[-1]["metric"] == results.LAST_OF_A_ROUND


def test_a_failed_shot_is_a_row_and_the_run_goes_on():
    written = shoot_rounds([FakeArm("a"), FakeArm("b", 5, "it broke", 6)], 3)
    failed = [row for rows in written for row in rows if row["status"] != "ok"]
    assert [(row["arm"], row["status"], row["reason"]) for row in failed] == [
        ("b", "error", "it broke")
    ]
    assert failed[0]["value"] is None, "never 0.0"
    assert [values(rows, "b") for rows in written] == [[5], [None], [6]]


def test_a_contaminated_round_is_marked_and_kept(tmp_path):
    arms = [FakeArm("a", 1), FakeArm("b", 10, 10, 10, 99, 10, 10, 10)]
    written = shoot_rounds(arms, 6, QUIET, QUIET, QUIET, BUSY, QUIET)
    assert [{row["contaminated"] for row in rows} for rows in written] == [
        {False}, {False}, {False}, {True}, {False}, {False}
    ]  # fmt: skip
    arms = [FakeArm("a", 1), FakeArm("b", 10, 10, 10, 99, 10, 10, 10)]
    write_run(tmp_path / "run", arms, 6, QUIET, QUIET, QUIET, BUSY, QUIET)
    found = analyse(str(tmp_path / "run"))
    assert found.marked_rounds == [4]
    b = found.arm("b")
    assert (b.first.n, b.clean.n) == (6, 5)
    assert 99 in b.samples, "the raw data stays"


def test_the_guard_names_the_rules_that_were_broken():
    assert QUIET.broken(Rules()) == []
    assert BUSY.broken(Rules()) == ["psi_cpu_share 0.9 > 0.1", f"runnable 3 > {Rules().runnable:g}"]


def test_a_machine_that_slept_in_a_round_is_noticed(monkeypatch):
    """CLOCK_BOOTTIME goes on while the machine is suspended, CLOCK_MONOTONIC does not."""
    asleep = iter([100.0, 100.0, 130.04])
    monkeypatch.setattr("benchmarks.guard._asleep_s", lambda: next(asleep))
    guard = Guard()
    guard.before_round()
    reading = guard.after_round()
    assert reading.suspended == 30.0
    assert "suspended 30 > 0" in reading.broken(Rules())


def test_a_machine_that_is_awake_has_not_slept():
    guard = Guard()
    guard.before_round()
    assert guard.after_round().suspended == 0.0


def test_the_guard_sees_somebody_elses_work(tmp_path):
    spin = ["sh", "-c", "while :; do :; done"]
    busy = [os.posix_spawnp("sh", spin, {"PATH": os.defpath}) for _ in range(4)]
    try:
        guard = Guard()
        guard.before_round()
        assert guard.after_round().broken(Rules())
    finally:
        for pid in busy:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_round_zero_finds_by_doing_who_can_run():
    class NoGood(FakeArm):
        def fix_for(self, failure):
            return f"mend {failure}"

    arms = [FakeArm("a", 3), NoGood("b", "the thing")]
    seconds, skips, rows = round_zero(arms, ["b", "a"], RowMaker("r", "e"), lambda _: None)
    assert set(seconds) == {"a"}
    assert skips == {"b": Skip("the thing", "mend the thing")}
    assert arms[1].closed == 1, "what it had prepared is undone at once"
    assert {(row["arm"], row["round"], row["warmup"]) for row in rows} == {("a", 0, True)}


def test_an_arm_that_cannot_be_prepared_is_a_skip_with_its_fix():
    class Broken(FakeArm):
        def prepare(self):
            raise ArmFailed("no such thing")

        def fix_for(self, failure):
            return "buy one"

    class Missing(FakeArm):
        def unavailable(self):
            return Skip("not installed", "apt-get install it")

    arms = [FakeArm("a"), Broken("b"), Missing("c")]
    ready, skips = prepare(arms, lambda _: None)
    assert ready == arms[:1]
    assert skips == {
        "b": Skip("no such thing", "buy one"),
        "c": Skip("not installed", "apt-get install it"),
    }


def test_no_collector_runs_inside_a_shot():
    class Looks(FakeArm):
        def shoot(self):
            assert not gc.isenabled()
            return super().shoot()

    shoot_rounds([Looks("a")], 1)
    assert gc.isenabled()


def new_run(tmp_path, arms, rounds=6):
    return session.new_run(Request(str(tmp_path), "", 5, rounds), [Part(START, arms)])


def resume(directory, arms):
    return session.resume(directory, lambda names, patterns, quick: [Part(START, arms)])


def test_a_run_leaves_warm_up_out_and_skips_in(tmp_path, capsys):
    class Missing(FakeArm):
        def unavailable(self):
            return Skip("not here", "get it")

    slow_first = FakeArm("b", 500, 10)  # the warm-up is fifty times slower
    directory = new_run(tmp_path, [FakeArm("a", 1), slow_first, Missing("c")])
    found = analyse(directory)
    assert set(found.arm("b").samples) == {10}
    assert 500 in values(rows_of(directory), "b")
    assert [(s.arm, s.reason, s.fix) for s in found.skips] == [("c", "not here", "get it")]
    assert "skip c: not here\n     fix: get it" in capsys.readouterr().err
    assert os.path.exists(os.path.join(directory, "environment.json"))


def test_an_arm_that_only_fails_is_not_silently_missing(tmp_path):
    directory = new_run(tmp_path, [FakeArm(REFERENCE, 1), FakeArm("b", 1, "it broke")])
    [gone] = analyse(directory).skips
    assert gone.arm == "b"
    assert "all 6 shots" in gone.reason
    assert "it broke" in gone.reason


def test_an_interrupt_keeps_whole_rounds_and_resume_goes_on_at_the_border(tmp_path, capsys):
    arms = [FakeArm(REFERENCE, 1), FakeArm("b", 2)]
    arms[1].interrupt_at = 5  # shot 1 is the warm-up: the fourth round breaks
    with pytest.raises(KeyboardInterrupt):
        new_run(tmp_path, arms)
    assert all(arm.closed for arm in arms), "everything is undone"
    [directory] = results.runs(str(tmp_path))
    assert {row["round"] for row in rows_of(directory)} == {0, 1, 2, 3}
    assert f"--resume {directory}" in capsys.readouterr().err
    assert analyse(directory).rounds == 3
    assert analyse(directory).planned == 6
    before = rows_of(directory)

    again = [FakeArm(REFERENCE, 1000), FakeArm("b", 2000)]  # as after a reboot: all is slower
    assert resume(directory, again) == directory
    rows = rows_of(directory)
    assert rows[: len(before)] == before
    found = analyse(directory)
    assert found.rounds == 6
    # Each ratio pairs what was shot together; across the border it would be 1000 or 0.001.
    assert found.arm("b").ratio.value == pytest.approx(2)
    assert found.arm("b").ratio.low == pytest.approx(2)
    assert found.arm("b").ratio.high == pytest.approx(2)
    assert resume(directory, again) == directory, "a whole run stays as it is"
    assert rows_of(directory) == rows


def test_without_its_reference_an_arm_is_not_compared(tmp_path):
    found = analyse(new_run(tmp_path, [FakeArm(REFERENCE, 1, "it broke"), FakeArm("b", 2)]))
    b = found.arm("b")
    assert (b.ratio, b.verdict) == (None, "no round shared with the reference")


def test_resume_needs_the_arms_of_the_plan(tmp_path):
    directory = new_run(tmp_path, [FakeArm("a"), FakeArm("b")], 3)
    with pytest.raises(results.ResultsError, match="unknown here"):
        resume(directory, [FakeArm("a")])


def test_nothing_measured_leaves_no_directory(tmp_path):
    arm = FakeArm("a")
    arm.interrupt_at = 1
    with pytest.raises(KeyboardInterrupt):
        new_run(tmp_path, [arm])
    assert os.listdir(tmp_path) == []


def test_no_arm_at_all_is_an_error(tmp_path):
    with pytest.raises(results.ResultsError, match="no arm runs on this host"):
        new_run(tmp_path, [FakeArm("a", "broken")])


def test_a_full_disk_keeps_whole_rounds(tmp_path, monkeypatch, capsys):
    """A real one: the samples' file may not grow further than so many bytes (RLIMIT_FSIZE)."""
    arms = [FakeArm(REFERENCE, 1), FakeArm("b", 2)]
    append = results.append

    def smaller_disk(directory, rows):
        path = os.path.join(directory, results.SAMPLES)
        room = os.path.getsize(path) + 500 if rows[0]["round"] == 3 else resource.RLIM_INFINITY
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        try:
            append(directory, rows)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    monkeypatch.setattr(results, "append", smaller_disk)
    with pytest.raises(OSError, match=r"samples\.jsonl"):
        new_run(tmp_path, arms)
    monkeypatch.undo()
    [directory] = results.runs(str(tmp_path))
    assert {row["round"] for row in rows_of(directory)} == {0, 1, 2}
    assert f"--resume {directory}" in capsys.readouterr().err
    assert all(arm.closed for arm in arms)
    resume(directory, [FakeArm(REFERENCE, 1), FakeArm("b", 2)])
    assert analyse(directory).rounds == 6


def test_one_arm_that_cannot_be_undone_does_not_keep_the_others(tmp_path, capsys):
    class Stuck(FakeArm):
        def close(self):
            super().close()
            raise OSError("stuck")

    arms = [Stuck("a"), FakeArm("b")]
    new_run(tmp_path, arms, 1)
    assert arms[1].closed
    assert "a could not be cleaned up (stuck)" in capsys.readouterr().err


def test_signals_are_as_before_a_run(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    new_run(tmp_path, [FakeArm("a")], 1)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
