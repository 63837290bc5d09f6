"""A run on disk: damage, other versions, a full disk, and every point at which it can break off."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import jsonschema
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import benchmarks
from benchmarks import results, rows, tables
from benchmarks import schema as our_schema
from benchmarks.arms.base import Skip
from benchmarks.report.analysis import analyse
from benchmarks.results import ResultsError
from benchmarks.rows import RowMaker, Where
from tests.bench_fakes import BUSY, QUIET, FakeArm, plan_of, rows_of, shoot_rounds, write_run
from tests.roots import REPOSITORY


@pytest.fixture(scope="module")
def schema():
    with open(rows.SCHEMA_FILE, encoding="utf-8") as file:
        loaded = json.load(file)
    jsonschema.Draft202012Validator.check_schema(loaded)
    return jsonschema.Draft202012Validator(
        loaded, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )


def arms():
    return [FakeArm("a", 1, 2, 3), FakeArm("b", 4, "broken", 5)]


def test_rows_follow_the_schema_which_documents_each_field(schema, tmp_path):
    for row in rows_of(write_run(tmp_path, arms(), 3)):
        schema.validate(row)
    schema.validate(RowMaker("r", "e").skip(FakeArm("vm", kind="vm", tier="full"), Skip("a", "b")))
    row = RowMaker("r", "e").error(FakeArm("a"), Where(1, 0, 0), "why")
    assert list(row) == list(rows.fields()) == list(schema.schema["properties"])


@pytest.mark.parametrize(
    "change",
    [
        {"value": None}, {"value": "1"}, {"status": "skip"}, {"status": "odd"}, {"kind": ""},
        {"accel": "qemu"}, {"unit": "s"}, {"unit": ""}, {"round": -1}, {"round": 1.5},
        {"rep": True}, {"bench": "other"}, {"warmup": 0}, {"params": []}, {"n_concurrent": -1},
        {"more": 1}, {"reason": "why"},
        {"metric": "start.other"}, {"phase": "kernel"}, {"tool_sha256": "xyz"}, {"schema": 2},
        {"ts_utc": ""}, {"ts_utc": "yesterday"}, {"ts_utc": "2026-11-29"},
    ],
)  # fmt: skip
def test_the_schema_refuses(schema, tmp_path, change):
    row = rows_of(write_run(tmp_path, arms(), 1))[0]
    schema.validate(row)
    with pytest.raises(jsonschema.ValidationError):
        schema.validate({**row, **change})
    assert our_schema.problem(row) == ""
    assert our_schema.problem({**row, **change})


def test_a_broken_row_is_told_what_is_wrong(tmp_path):
    row = rows_of(write_run(tmp_path, arms(), 1))[0]
    assert our_schema.problem({**row, "value": "fast"}) == "value: 'fast' is not number or null"
    assert our_schema.problem({**row, "more": 1}) == "not a row: unknown more"
    assert our_schema.problem({**row, "round": -1}) == "round: -1 is below 0"
    del row["arm"], row["kind"]
    assert our_schema.problem(row) == "not a row: no arm, kind"


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2), st.floats(-2, 2), st.builds(dict),
    st.sampled_from(["", "ms", "MiB", "ok", "skip", "guard", "isolation", "memory.rss", "start"]),
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(rows.fields()), VALUES, max_size=4))
@settings(max_examples=150, deadline=None)
def test_our_reader_of_the_schema_agrees_with_a_library(schema, whole_rounds, change):
    for row in whole_rounds[0][:2]:
        changed = {**row, **change}
        assert (our_schema.problem(changed) == "") == schema.is_valid(changed)


def test_a_damaged_line_is_left_out_and_named(tmp_path):
    directory = write_run(tmp_path, arms(), 3)
    path = tmp_path / results.SAMPLES
    lines = path.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4][:40] + b"\n"
    lines[6] = b'{"schema": 1}\n'
    lines[7] = b"\xff\xfe[]\n"
    path.write_bytes(b"".join(lines))
    found, damaged = results.read_rows(directory)
    assert len(found) == len(lines) - 3
    assert [line.partition(": ")[0] for line in damaged] == [
        "samples.jsonl:5", "samples.jsonl:7", "samples.jsonl:8",
    ]  # fmt: skip
    assert "no run_id" in damaged[1]
    assert benchmarks.load(directory).attrs["damaged"] == damaged
    assert analyse(directory).damaged == damaged


def test_rows_of_another_schema_are_refused(tmp_path):
    directory = write_run(tmp_path, arms(), 1)
    results.append(directory, [{"schema": 99, "something": "else"}])
    with pytest.raises(ResultsError, match=r"schema \['99'\], this program reads 1"):
        results.read_rows(directory)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_in_json_is_damage(tmp_path, number):
    directory = write_run(tmp_path, [FakeArm("a", 1)], 1)
    with open(tmp_path / results.SAMPLES, "a", encoding="utf-8") as file:
        file.write(f'{{"schema": 1, "value": {number}}}\n')
    assert number in results.read_rows(directory)[1][0]


def test_a_run_as_a_table_and_as_csv(tmp_path):
    directory = write_run(tmp_path, arms(), 3, BUSY, QUIET)
    table = benchmarks.load(directory)
    assert list(table.columns) == list(rows.fields())
    assert len(table) == len(rows_of(directory))
    assert table[table.metric == "start.whole_process"].value.min() == 2.0
    with open(tmp_path / "rows.csv", "w", newline="", encoding="utf-8") as file:
        tables.write_csv(results.read_rows(directory)[0], file)
    again = benchmarks.load(str(tmp_path / "rows.csv"))
    pd.testing.assert_frame_equal(table, again, check_dtype=False)
    assert list(again[again.contaminated]["round"].unique()) == [1]


@pytest.mark.parametrize(
    ("text", "said"),
    [("a,b\n1,2\n", "no column schema"), ("", "No columns"), ("\x00", "no column")],
)
def test_a_table_that_is_not_ours(tmp_path, text, said):
    (tmp_path / "other.csv").write_text(text)
    with pytest.raises(ResultsError, match=rf"other\.csv: not a table that `exp.*{said}"):
        benchmarks.load(str(tmp_path / "other.csv"))


@pytest.mark.parametrize("name", ["samples.jsonl", "plan.json", "environment.json"])
def test_a_missing_file_is_named(tmp_path, name):
    directory = write_run(tmp_path, arms(), 2)
    (tmp_path / name).unlink()
    with pytest.raises(ResultsError, match=f"{name}: no such file"):
        analyse(directory)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("plan.json", "{}", "no plan in it; another version wrote it"),
        ("plan.json", "[1]", "not readable as JSON"),
        ("plan.json", "{", "not readable as JSON"),
        ("environment.json", '{"cpu": {}}', "no env_id, kernel, "),
    ],
)
def test_a_damaged_record_is_named(tmp_path, name, text, said):
    directory = write_run(tmp_path, arms(), 2)
    (tmp_path / name).write_text(text)
    with pytest.raises(ResultsError, match=f"{name}: {said}"):
        analyse(directory)


def test_an_empty_file_and_no_round_and_no_run(tmp_path):
    directory = write_run(tmp_path / "run", arms(), 1)
    (tmp_path / "run" / results.SAMPLES).write_text("")
    with pytest.raises(ResultsError, match="no row can be read"):
        analyse(directory)
    results.append(directory, [RowMaker("r", "e").skip(FakeArm("a"), Skip("a", "b"))])
    with pytest.raises(ResultsError, match="no whole round yet"):
        analyse(directory)
    with pytest.raises(ResultsError, match="no run here"):
        results.latest(str(tmp_path / "nothing"))


def test_the_latest_run_is_the_last_one_begun(tmp_path):
    for name in ("20260101T000000Z-1", "20260301T000000Z-0", "20260201T000000Z-9"):
        write_run(tmp_path / name, arms(), 1)
    (tmp_path / "zzz").mkdir()
    assert results.latest(str(tmp_path)).endswith("20260301T000000Z-0")


@pytest.fixture(scope="module")
def whole_rounds():
    return shoot_rounds(arms(), 4)


@given(st.floats(0, 1))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_wherever_it_broke_off_it_resumes_to_whole_rounds(tmp_path, whole_rounds, share):
    """Cut the file at any byte, as a power cut does: no round is lost, doubled, or half there."""
    path = tmp_path / results.SAMPLES
    whole = "".join(json.dumps(row) + "\n" for rows in whole_rounds for row in rows).encode()
    path.write_bytes(whole[: int(share * len(whole))])
    expected = {
        number: {(arm, rep) for arm, rep, _ in plan_of(arms(), 4).order(number)}
        for number in range(1, 5)
    }
    first = results.discard_incomplete_round(str(tmp_path), expected)
    assert whole.startswith(path.read_bytes())
    assert {row["round"] for row in rows_of(tmp_path)} == set(range(1, first))
    results.append(str(tmp_path), [row for rows in whole_rounds[first - 1 :] for row in rows])
    assert path.read_bytes() == whole
    (tmp_path / results.DISCARDED).unlink(missing_ok=True)


def test_what_is_cut_off_is_kept(tmp_path):
    directory = write_run(tmp_path, arms(), 2)
    whole = (tmp_path / results.SAMPLES).read_bytes()
    (tmp_path / results.SAMPLES).write_bytes(whole[:-30])
    results.discard_incomplete_round(directory, {1: {("a", 0)}, 2: {("a", 0)}})
    kept = (tmp_path / results.SAMPLES).read_bytes()
    assert kept + (tmp_path / results.DISCARDED).read_bytes() == whole[:-30]


FULL_DISK = """
import sys
from benchmarks import results
directory, row = sys.argv[1], {"schema": 1, "text": "x" * 700}
before = 0
try:
    for number in range(1000):
        results.append(directory, [{**row, "round": number}] * 9)
        before = number
except OSError as error:
    print(before, error.errno, error.filename)
try:
    results.write_whole(f"{directory}/report.html", "y" * 100_000)
except OSError as error:
    print(error.errno, error.filename)
"""


def on_a_small_disk(tmp_path, command, size="64k"):
    """Run it with a file system of this size on tmp_path/disk, then list that and its samples."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = (
        'mount -t tmpfs -o size="$1" tmpfs "$2" || exit 77; disk=$2; shift 2; "$@"; echo "code $?";'
        ' cd "$disk"; find . -type f | sort; cat $(find . -name samples.jsonl)'
    )
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", size, disk,
         *command], capture_output=True, text=True, cwd=REPOSITORY,
    )  # fmt: skip
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no mount namespace for a small disk: {done.stderr.strip()}")
    said, _, listing = done.stdout.partition("code ")
    return said.split("\n"), listing.split("\n"), done.stderr


def test_a_full_disk_leaves_only_whole_rounds(tmp_path):
    disk = str(tmp_path / "disk")
    said, listing, stderr = on_a_small_disk(tmp_path, [sys.executable, "-c", FULL_DISK, disk])
    assert stderr == ""
    last, enospc, name = said[0].split()
    assert (enospc, name) == ("28", f"{disk}/samples.jsonl")
    assert said[1] == f"28 {disk}/report.html"
    code, files, lines = listing[0], listing[1:2], listing[2:]
    assert code == "0"
    assert files == ["./samples.jsonl"], "no half-written report, no report.html.new"
    numbers = [json.loads(line)["round"] for line in lines if line]
    assert numbers == sorted([*range(int(last) + 1)] * 9)


def test_a_run_on_a_full_disk_says_so(tmp_path):
    from tests.bench_fakes import probe

    probe()
    command = [sys.executable, "-m", "benchmarks", "run", "--rounds", "50"]
    command += ["--arms", "fork+exec", "--out", str(tmp_path / "disk")]
    _, listing, stderr = on_a_small_disk(tmp_path, command)
    assert listing[0] == "1"
    assert "samples.jsonl: No space left on device; make room and run again" in stderr
    assert "Traceback" not in stderr
    assert "run --resume" in stderr
    lines = [json.loads(line) for line in listing if line.startswith("{")]
    assert lines[-1]["metric"] == results.LAST_OF_A_ROUND
    assert not [name for name in listing if name.endswith(".new")]


def test_a_directory_that_cannot_be_written(tmp_path, ordinary_user):
    if not ordinary_user:
        pytest.skip("needs root, to own a directory that a user cannot write")
    (tmp_path / "mine").mkdir(mode=0o755)
    command = [sys.executable, "-m", "benchmarks", "run", "--arms", "fork+exec"]
    done = subprocess.run(
        [*ordinary_user, *command, "--out", tmp_path / "mine"],
        capture_output=True, text=True, cwd=REPOSITORY,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Permission denied" in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path / "mine") == []
