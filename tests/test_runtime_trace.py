"""`--trace`: what a start did, in the order in which it did it, also when a step failed."""

from __future__ import annotations

import json

import pytest

from tests.bundles import FOREVER, Bundle, bundle

__all__ = ["bundle"]
pytestmark = pytest.mark.root


def traced(bundle: Bundle, *words: str, trace: str = "json", check: bool = True):
    """(the rows, what `call` returned) of a command with the trace in a file."""
    path = bundle.directory / "trace"
    options = ["--trace", trace, "--trace-file", str(path)]
    done = bundle.call(words[0], *options, *words[1:], check=check)
    return json.loads(path.read_text())["steps"], done


def names(rows: list[dict]) -> list[str]:
    return [row["name"] for row in rows]


def test_run_tells_each_step_of_the_plan_once_and_in_order(bundle: Bundle):
    bundle.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    explained = json.loads(bundle.call("explain", "--json").stdout)["plan"]
    rows, done = traced(bundle.args("sh", "-c", "echo out"), "run", bundle.id)
    assert done.stdout == "out\n"
    assert sorted(row["n"] for row in rows) == [step["n"] for step in explained]
    assert [row["start_ns"] for row in rows] == sorted(row["start_ns"] for row in rows)
    assert names(rows)[-1] == "exec"
    for row in rows:
        step = explained[row["n"] - 1]
        assert set(row) == {"n", "name", "where", "call", "calls", "start_ns", "end_ns"}
        assert (row["name"], row["where"]) == (step["name"], step["where"])
        assert row["start_ns"] <= row["end_ns"]
        for call in row["calls"]:
            assert "(" in call["call"]
            assert call["start_ns"] <= call["end_ns"]
            # The fork of the stage returns here while that is at work
            stage = call["call"].startswith(("fork(", "clone3"))
            assert stage or row["start_ns"] <= call["start_ns"] <= call["end_ns"] <= row["end_ns"]
    assert {row["where"] for row in rows} == {"parent", "outside", "init"}
    pivot = next(row for row in rows if row["name"] == "pivot_root")
    assert [call["call"].partition("(")[0] for call in pivot["calls"]] == [
        "chdir", "pivot_root", "umount2", "chdir",
    ]  # fmt: skip
    forks = [call for row in rows for call in row["calls"]
             if call["call"].startswith(("fork(", "clone"))]  # fmt: skip
    assert len(forks) == 1
    assert all(int(fork["result"]) > 1 for fork in forks)


def test_create_tells_until_init_waits_and_start_the_rest(bundle: Bundle):
    with open(bundle.directory / "trace", "w+") as file:
        bundle.args(*FOREVER).create("--trace", "json", stderr=file)
        file.seek(0)
        created = names(json.loads(file.read())["steps"])
    assert created[-1] == "find command"
    started, _ = traced(bundle, "start", bundle.id)
    assert names(started) == ["wait for start", "exec"]
    assert bundle.state()["status"] == "running"


def test_start_of_what_was_created_without_one(bundle: Bundle):
    bundle.args(*FOREVER).create()
    rows, _ = traced(bundle, "start", bundle.id)
    assert rows == []
    assert bundle.state()["status"] == "running"


def test_created_with_a_trace_and_started_without(bundle: Bundle):
    bundle.args(*FOREVER).create("--trace", "json", "--trace-file", "/dev/null")
    assert bundle.call("start", bundle.id).stderr == ""


def test_exec_tells_how_it_joins(bundle: Bundle):
    bundle.args(*FOREVER).create()
    bundle.call("start", bundle.id)
    rows, done = traced(bundle, "exec", bundle.id, "sh", "-c", "exit 7", check=False)
    assert done.returncode == 7
    assert names(rows)[:1] == ["enter cgroup"]
    assert any(name.startswith("join ") for name in names(rows))
    assert names(rows)[-1] == "exec"


def test_a_step_that_fails_is_the_last_one(bundle: Bundle):
    bundle.config["process"]["cwd"] = "/nowhere"
    rows, done = traced(bundle, "run", bundle.id, check=False)
    assert done.returncode == 1
    assert "working directory: no such file or directory" in done.stderr
    assert names(rows)[-1] == "working directory"
    assert "[Errno 2]" in rows[-1]["calls"][-1]["result"]
    assert bundle.left() == []


def test_a_filter_that_forbids_write_is_not_in_the_way(bundle: Bundle):
    """To tell anything after it was loaded would kill init."""
    bundle.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["write"], "action": "SCMP_ACT_KILL_PROCESS"}],
    }
    rows, done = traced(bundle.args("true"), "run", bundle.id)
    assert done.returncode == 0
    assert names(rows)[-2:] == ["seccomp", "exec"]


def test_text_on_stderr_and_as_a_global_option(bundle: Bundle):
    bundle.args("true").write()
    done = bundle.call("run", bundle.id)
    assert done.stderr == ""
    bundle.command += ["--trace", "text"]
    told = bundle.call("run", bundle.id).stderr
    assert "pivot_root(new_root='.', put_old='.')" in told
    assert max(map(len, told.splitlines())) <= 130
    assert bundle.call("list").stderr == ""  # starts nothing: no trace


@pytest.mark.parametrize(
    ("options", "says"),
    [(["--trace", "xml"], "either text or json"),
     (["--trace", "json", "--trace-file", "/nowhere/x"], "--trace-file /nowhere/x: no such file")],
)  # fmt: skip
def test_wrong_options(bundle: Bundle, options, says):
    done = bundle.call("run", *options, bundle.id, check=False)
    assert done.returncode == 1
    assert says in done.stderr
    assert bundle.left() == []
