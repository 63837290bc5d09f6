"""`python -m benchmarks` as a user types it: real arms, few rounds, results in a directory of the
test's own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import pytest

from benchmarks import results, roots, rows
from benchmarks.arms import all_arms
from minicontainer.paths import cache_dir
from tests.bench_fakes import probe, processes_with, rows_of
from tests.roots import REPOSITORY

ARMS = "fork+exec,unshare*,minicontainer-*:busybox,bubblewrap*,runc:busybox,crun:busybox"
VERBS = ("doctor", "list", "prepare", "run", "compare", "report", "merge", "export", "clean")


def benchmarks(*words, prefix=(), env=None):
    command = [*prefix, sys.executable, "-m", "benchmarks", *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=REPOSITORY, env={**os.environ, **(env or {})}
    )


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """One `compare` of the arms that need no daemon: (its output, the run's directory)."""
    probe()
    out = tmp_path_factory.mktemp("results")
    done = benchmarks("compare", "--rounds", 5, "--seed", 7, "--arms", ARMS, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), Path(results.latest(str(out)))


def test_help_names_every_verb():
    text = benchmarks("--help").stdout
    assert all(f"\n    {verb} " in text for verb in VERBS)
    assert "examples:" in text


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_examples(verb):
    done = benchmarks(verb, "--help")
    assert done.returncode == 0
    assert f"examples:\n  python -m benchmarks {verb}" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--arms", "nothing:*"], "no arm is called 'nothing:*'; there are: fork+exec, "),
        (["run", "--rounds", "0"], "invalid positive int value: '0'"),
        (["run", "--budget", "inf"], "invalid positive float value: 'inf'"),
        (["run", "--resume", "x", "--rounds", "3"], "--resume keeps the run's plan"),
        (["run", "--resume", "x", "--bench", "stop"], "--resume keeps the run's plan"),
        (["run", "--resume", "x", "--reference", "fork+exec"], "--resume keeps the run's plan"),
        (["run", "--arms", "fork+exec", "--reference", "x"], "no arm of this run is called 'x'"),
        (["run", "--bench", "stop,speed"], "there is no benchmark 'speed'; there are: start, "),
        (["run", "--quick", "--full"], "not allowed with argument"),
        (["report", "--nonsense"], "unrecognized arguments"),
        ([], "the following arguments are required: VERB"),
    ],
)
def test_wrong_usage_is_2(words, said):
    done = benchmarks(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["report", "/nowhere"], "/nowhere/samples.jsonl: no such file; run `python -m benchmarks"),
        (["report", "--out", "/nowhere"], "/nowhere: no run here; start one with"),
        (["run", "--resume", "/nowhere"], "/nowhere/plan.json: no such file; is /nowhere the"),
        (["run", "--out", "/proc/x", "--arms", "fork+exec"], "/proc/x"),
    ],
)
def test_failure_is_1_and_says_where(words, said):
    done = benchmarks(*words)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_list_names_every_arm():
    record = json.loads(benchmarks("list", "--json").stdout)
    listed = record["arms"]
    assert {"start", "runtime"} <= set(record["benches"])
    assert all(record["benches"].values()), "each says what it measures"
    assert [fact["arm"] for fact in listed] == [arm.name for arm in all_arms()]
    assert {fact["kind"] for fact in listed} == {"process", "container", "vm"}
    text = benchmarks("list").stdout.splitlines()
    count = len(record["benches"])
    benches, text = text[:count], text[count:]
    assert [line.split()[:2] for line in benches] == [["--bench", b] for b in record["benches"]]
    assert [line.split()[0] for line in text] == [fact["arm"] for fact in listed]


def test_doctor_answers_by_doing():
    probe()
    done = benchmarks("doctor", "--json", "--arms", "fork+exec,crun:*,minicontainer-cli:*")
    facts = {fact["arm"]: fact for fact in json.loads(done.stdout)}
    assert done.returncode == 0
    assert facts["fork+exec"]["runs"]
    assert 0 < facts["fork+exec"]["seconds"] < 1
    for fact in facts.values():
        assert fact["runs"] or (fact["reason"] and fact["fix"])


def test_doctor_without_images_says_what_to_do(tmp_path):
    env = {"MINICONTAINER_CACHE": str(tmp_path)}
    done = benchmarks("doctor", "--arms", "fork+exec,runc:*", env=env)
    assert done.returncode == 1
    assert "not built" in done.stdout or "not installed" in done.stdout
    assert "fix: python -m benchmarks prepare" in done.stdout
    assert os.listdir(tmp_path) == []


def test_compare_leaves_all_that_it_promises(compared):
    record, directory = compared
    assert sorted(os.listdir(directory)) == [
        "environment.json", "figures", "plan.json", "report.html", "report.md", "samples.jsonl",
    ]  # fmt: skip
    for name in ("start_times", "waterfall", "ecdf", "forest", "drift"):
        assert (directory / "figures" / f"{name}.svg").stat().st_size > 1000
    assert record["rounds"] == record["planned_rounds"] == 5
    medians = {arm["arm"]: arm["median_ms"] for arm in record["arms"]}
    assert 0 < medians["fork+exec"] < medians["minicontainer-cli:busybox"] < 5000
    told = {*medians, *(skip["arm"] for skip in record["skipped"])}
    assert told == {arm.name for arm in all_arms() if _asked(arm.name)}
    plan = json.loads((directory / "plan.json").read_text())
    assert plan["plan"]["seed"] == 7
    assert plan["rules"]["psi_cpu_share"] == 0.1


def _asked(name):
    import fnmatch

    return any(fnmatch.fnmatchcase(name, pattern) for pattern in ARMS.split(","))


def test_real_rows_follow_the_schema(compared):
    with open(rows.SCHEMA_FILE, encoding="utf-8") as file:
        schema = jsonschema.Draft202012Validator(json.load(file))
    found = rows_of(compared[1])
    for row in found:
        schema.validate(row)
    assert {row["bench"] for row in found} == {"start", "start.phases", "guard"}
    env = json.loads((compared[1] / "environment.json").read_text())
    assert {row["env_id"] for row in found} == {env["env_id"]}
    assert {row["run_id"] for row in found} == {compared[1].name}


def test_phases_lie_inside_their_shot_and_cover_it(compared):
    """spawn, build, signal of each command follow one another from t0 to t6."""
    found = rows_of(compared[1])
    shots = {
        (row["arm"], row["round"], row["rep"]): row["value"]
        for row in found
        if row["metric"] == "start.first_instruction" and row["status"] == "ok"
    }
    covered = dict.fromkeys(shots, 0.0)
    for row in found:
        if row["bench"] == "start.phases" and not row["params"]["traced"] and row["phase"] != "end":
            covered[row["arm"], row["round"], row["rep"]] += row["value"]
    for shot, value in covered.items():
        if not shot[0].startswith("minicontainer-library"):  # its phases only come from traces
            assert value == pytest.approx(shots[shot], abs=0.001), shot


def test_the_traced_steps_of_a_container_are_those_of_its_plan(compared):
    phases = [
        row["phase"]
        for row in rows_of(compared[1])
        if row["arm"] == "minicontainer-cli:busybox"
        and row["round"] == 1
        and row["phase"]
        and row["params"]["traced"]
    ]
    assert {"pivot_root", "exec", "first instruction heard", "end"} <= set(phases)


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.links, self.tags = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "srcset")]


def test_the_page_needs_nothing_but_itself(compared):
    page = (compared[1] / "report.html").read_text()
    parser = Links()
    parser.feed(page)
    assert parser.tags.count("img") == 5
    raw = ["samples.jsonl", "environment.json", "plan.json"]
    pictures = [link for link in parser.links if link not in raw]
    assert all(link.startswith("data:image/svg+xml;base64,") for link in pictures)
    assert len(parser.links) == 5 + len(raw)
    assert not {"script", "link", "iframe"} & set(parser.tags)
    assert "url(" not in page
    assert "@import" not in page


def test_markdown_points_at_figures_that_exist(compared):
    text = (compared[1] / "report.md").read_text()
    names = [part.partition(")")[0] for part in text.split("](")[1:]]
    assert len(names) == 5
    assert all((compared[1] / name).is_file() for name in names)


def test_report_again_from_the_stored_samples(compared):
    record, directory = compared
    before = {path.name: path.read_bytes() for path in directory.glob("**/*.*") if path.is_file()}
    done = benchmarks("report", directory)
    assert done.returncode == 0
    assert "A container runs its first instruction after" in done.stdout
    assert f"report: {directory}/report.html" in done.stdout
    after = {path.name: path.read_bytes() for path in directory.glob("**/*.*") if path.is_file()}
    assert after == before, "the same samples give the same report"
    assert json.loads(benchmarks("report", "--out", directory.parent, "--json").stdout) == record


@pytest.mark.rootless
def test_an_ordinary_user_can_run(ordinary_user, tmp_path):
    probe()
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o777)
    cache.chmod(0o777)
    (cache / "vm-images").symlink_to(os.path.join(cache_dir(), "vm-images"))
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(0o777)
    wanted = "fork+exec,unshare*,minicontainer-*:busybox,bubblewrap*,docker:*"
    done = benchmarks(
        "run", "--rounds", 3, "--arms", wanted, "--out", out, "--json",
        prefix=ordinary_user, env={"MINICONTAINER_CACHE": str(cache)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = rows_of(json.loads(done.stdout)["directory"])
    assert {row["round"] for row in found} == {0, 1, 2, 3}
    for row in found:
        assert row["status"] != "error", row["reason"]
        assert row["status"] == "ok" or row["params"]["fix"]
    assert os.listdir(cache) == ["vm-images"]


def _reached(out, number):
    runs = results.runs(str(out))
    return bool(runs) and any(row["round"] >= number for row in rows_of(runs[-1]))


def test_ctrl_c_gives_130_and_leaves_whole_rounds(tmp_path):
    probe()
    command = [sys.executable, "-m", "benchmarks", "run", "--arms", "fork+exec,unshare*"]
    harness = subprocess.Popen(
        [*command, "--rounds", "2000", "--out", tmp_path],
        cwd=REPOSITORY, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    give_up = time.monotonic() + 30
    while not _reached(tmp_path, 3):
        assert time.monotonic() < give_up
        assert harness.poll() is None
        time.sleep(0.05)  # the harness is left in peace between the looks
    harness.send_signal(signal.SIGINT)
    _, said = harness.communicate(timeout=30)
    assert harness.returncode == 130
    directory = results.latest(str(tmp_path))
    assert f"run --resume {directory}" in said
    assert rows_of(directory)[-1]["metric"] == results.LAST_OF_A_ROUND
    done = benchmarks("report", directory)
    assert "of 2000 planned rounds (stopped early)" in done.stdout
    assert processes_with(roots.tree("busybox")) == []


def test_clean_removes_what_a_killed_harness_left(tmp_path):
    env = {"MINICONTAINER_CACHE": str(tmp_path)}
    dead = subprocess.Popen(["true"])
    dead.wait()
    (tmp_path / f"bench-{dead.pid}" / "podman").mkdir(parents=True)
    (tmp_path / f"bench-{os.getpid()}").mkdir()  # alive: left alone
    done = benchmarks("clean", "--json", env=env)
    assert done.returncode == 0
    assert str(tmp_path / f"bench-{dead.pid}") in json.loads(done.stdout)
    assert os.listdir(tmp_path) == [f"bench-{os.getpid()}"]
