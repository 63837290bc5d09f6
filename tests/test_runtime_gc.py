"""`gc`: what killed runtimes left is gone, and nothing else is."""

from __future__ import annotations

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from minicontainer import runtime_gc
from minicontainer.kernel import cgroups
from minicontainer.runtime import state
from minicontainer.runtime_gc import Collector, dead
from tests.bundles import FOREVER, Bundle, bundle
from tests.test_runtime_crash import full, killed_at, strangers
from tests.waiting import until

__all__ = ["bundle"]
pytestmark = pytest.mark.root


def gc(bundle: Bundle, *options: str) -> list[dict]:
    """What it says about this root directory; of the host it may have found others' things, too."""
    told = json.loads(bundle.call("gc", "--json", *options).stdout)["removed"]
    assert [one for one in told if one["error"]] == []
    mine = (bundle.id, str(bundle.directory))
    return [one for one in told if one["kind"] not in ("cgroup", "file")
            or any(word in one["name"] for word in mine)]  # fmt: skip


def collector(bundle: Bundle, log=print) -> Collector:
    """A run in this process, one step of which a test disturbs."""
    return Collector(str(bundle.states), stopped=False, grace=0.0, dry_run=False, log=log)


@pytest.fixture
def half_made(bundle: Bundle) -> Bundle:
    """A container whose maker was killed in the middle, with a group and a process."""
    bundle.args(*FOREVER).write()
    point = 60
    killed_at(bundle, point, "create", bundle.id)
    assert os.path.exists(bundle.states / bundle.id / state.UNREADY_FIFO)
    assert bundle.groups()
    return bundle


@pytest.mark.slow
def test_killed_at_every_step_then_collected(bundle: Bundle):
    """Either gc brings it to nothing, or the container is whole and stays."""
    full(bundle)
    points = killed_at(bundle, -1, "create", bundle.id)
    assert points is not None
    assert gc(bundle) == []
    bundle.call("delete", "--force", bundle.id)
    whole = 0
    for point in range(1, points + 1):
        killed_at(bundle, point, "create", bundle.id)
        told = gc(bundle)
        if bundle.left():
            assert bundle.state()["status"] == "created", point
            assert told == [], point
            bundle.call("delete", "--force", bundle.id)
            whole += 1
        until(lambda: strangers(bundle) == [])
        assert bundle.left() == [], point
    assert whole < points / 2
    print(f"collected at {points - whole} of {points} points")


def test_dry_run_says_it_and_leaves_it(half_made: Bundle):
    told = gc(half_made, "--dry-run")
    assert [(one["kind"], one["name"]) for one in told] == [("container", half_made.id)]
    assert "half made, its maker" in told[0]["why"]
    assert half_made.groups()
    assert gc(half_made) == told
    assert half_made.left() == []
    assert gc(half_made) == []


def test_poststop_hooks_are_run(half_made: Bundle):
    """The record leads to them: gc is a delete."""
    path = half_made.states / half_made.id / "state.json"
    record = json.loads(path.read_text())
    note = half_made.directory / "note"
    record["hooks"] = {"poststop": [{"path": "/bin/sh", "args": ["sh", "-c", f"cat > {note}"]}]}
    path.write_text(json.dumps(record))
    gc(half_made)
    assert json.loads(note.read_text())["status"] == "stopped"


def test_whole_containers_stay(bundle: Bundle):
    bundle.args(*FOREVER).create()
    assert gc(bundle, "--stopped") == []
    bundle.call("start", bundle.id)
    assert gc(bundle, "--stopped") == []
    bundle.call("pause", bundle.id)
    assert gc(bundle, "--stopped") == []
    bundle.call("kill", bundle.id, "KILL")
    until(lambda: bundle.state()["status"] == "stopped")
    assert gc(bundle) == []
    assert bundle.state()["status"] == "stopped"
    assert [one["why"] for one in gc(bundle, "--stopped")] == ["stopped"]
    assert bundle.left() == []


def test_a_create_in_progress_stays(bundle: Bundle):
    """A hook holds it up in the middle: its maker is alive."""
    go = bundle.directory / "go"
    os.mkfifo(go)
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"read x < {go}"]}
    bundle.config["hooks"] = {"createRuntime": [hook]}
    nowhere = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    with bundle.args(*FOREVER).popen("create", bundle.id, **nowhere) as maker:
        until(lambda: bundle.states.exists() and bundle.state()["status"] == "creating"
                 if os.path.isdir(bundle.states / bundle.id) else False)  # fmt: skip
        until(lambda: bundle.groups() != [])
        assert gc(bundle, "--stopped") == []
        go.write_text("x\n")
        assert maker.wait(20) == 0
    assert bundle.state()["status"] == "created"


def test_bare_directories_and_temporary_files(bundle: Bundle):
    bundle.args(*FOREVER).create()
    mine = bundle.states / bundle.id
    ended = subprocess.Popen(["true"])
    ended.wait()
    (bundle.states / "bare").mkdir()
    (bundle.states / "begun").mkdir()
    (bundle.states / "begun" / f"state.json.{ended.pid}").touch()
    (bundle.states / "at-work").mkdir()
    (bundle.states / "at-work" / f"state.json.{os.getpid()}").touch()
    (mine / f"state.json.{ended.pid}").touch()
    (mine / f"config.json.{os.getpid()}").touch()
    (bundle.states / ".hidden").mkdir()
    (bundle.states / "a file").touch()
    told = {(one["kind"], os.path.basename(one["name"])) for one in gc(bundle)}
    assert told == {("directory", "bare"), ("directory", "begun"),
                    ("file", f"state.json.{ended.pid}")}  # fmt: skip
    assert sorted(os.listdir(bundle.states)) == sorted([".hidden", "a file", "at-work", bundle.id])
    assert bundle.state()["status"] == "created"
    assert (mine / f"config.json.{os.getpid()}").exists()


def test_a_temporary_file_of_a_pid_that_is_somebody_elses_by_now(tmp_path: Path):
    mine = tmp_path / f"state.json.{os.getpid()}"
    mine.touch()
    assert not dead(str(mine))
    os.utime(mine, (1, 1))  # written long before we were started
    assert dead(str(mine))


def test_a_record_that_nobody_can_read_stays(bundle: Bundle):
    (bundle.states / "odd").mkdir(parents=True)
    (bundle.states / "odd" / "state.json").write_text("{")
    # Nor a group that may be its own
    group = f"{cgroups.detect.detect().hierarchies[0].mount_point}/minicontainer-{bundle.id}-odd"
    os.mkdir(group)
    try:
        os.utime(group, (1, 1))
        assert gc(bundle) == []
        assert (bundle.states / "odd" / "state.json").exists()
        assert os.path.isdir(group)
    finally:
        os.rmdir(group)


def test_groups_without_a_container(bundle: Bundle):
    """Empty, of relative paths, not young, and in no record: each alone is not enough."""
    bundle.config["linux"].pop("cgroupsPath")
    bundle.args(*FOREVER).create()
    for group in bundle.groups():
        os.utime(group, (1, 1))
    layout = cgroups.detect.detect()
    point = layout.hierarchies[0].mount_point
    paths = {what: f"{point}/minicontainer-{bundle.id}-{what}" for what in ("old", "new", "busy")}
    foreign = f"{point}/foreign-{bundle.id}"
    sleeper = subprocess.Popen(["sleep", "1000"])
    try:
        for path in (*paths.values(), foreign):
            os.mkdir(path)
            if not path.endswith("new"):
                os.utime(path, (1, 1))
        Path(paths["busy"], "cgroup.procs").write_text(str(sleeper.pid))
        told = gc(bundle)
        assert [one["name"] for one in told] == [f"minicontainer-{bundle.id}-old"]
        there = {path for path in (*paths.values(), foreign) if os.path.isdir(path)}
        assert there == {paths["new"], paths["busy"], foreign}
        assert bundle.state()["status"] == "created"
    finally:
        sleeper.kill()
        sleeper.wait()
        for path in (*paths.values(), foreign):
            until(lambda path=path: not os.path.isdir(path) or not _rmdir_fails(path))
    bundle.call("delete", "--force", bundle.id)


def _rmdir_fails(path: str) -> bool:
    try:
        os.rmdir(path)
    except OSError:
        return True
    return False


def test_a_record_that_comes_just_after_the_look(bundle: Bundle, monkeypatch):
    """`create` writes it between its mkdir(2) and gc's next step: nothing to say, nothing to do."""
    bundle.args(*FOREVER).write()
    said: list[str] = []

    def load(root: str, name: str) -> state.State:
        (bundle.states / name).mkdir(parents=True)
        seen = real_load(root, name)
        (bundle.states / name).rmdir()
        bundle.create()
        return seen

    real_load = state.load
    monkeypatch.setattr(state, "load", load)
    one = collector(bundle, lambda *words: said.append(words))
    one._container(bundle.id)
    assert (said, one.found, one.all_read) == ([], [], True)
    monkeypatch.undo()
    assert bundle.state()["status"] == "created"


def test_a_temporary_file_that_is_renamed_just_after_the_look(bundle: Bundle, monkeypatch):
    """Its writer renames it and ends: there is nothing to remove, and that is no error."""
    bundle.args(*FOREVER).create()
    here = bundle.states / bundle.id
    ended = subprocess.Popen(["true"])
    ended.wait()
    beside = here / f"state.json.{ended.pid}"
    beside.write_text((here / "state.json").read_text())

    def renamed(path: str) -> bool:
        os.rename(path, here / "state.json")
        return dead(path)

    monkeypatch.setattr(runtime_gc, "dead", renamed)
    one = collector(bundle)
    one._container(bundle.id)
    assert one.found == []


def test_a_container_that_is_deleted_just_before(half_made: Bundle, monkeypatch):
    def undo(self: Collector, one: state.State) -> bool:
        half_made.call("delete", "--force", half_made.id)
        return real_undo(self, one)

    real_undo = Collector._undo
    monkeypatch.setattr(Collector, "_undo", undo)
    one = collector(half_made)
    one._container(half_made.id)
    assert one.found == []
    assert half_made.left() == []


def test_a_record_without_a_maker_is_damaged(bundle: Bundle):
    """No `create` wrote it, so gc leaves it, and says so."""
    (bundle.states / "odd").mkdir(parents=True)
    (bundle.states / "odd" / "state.json").write_text('{"id": "odd"}')
    done = bundle.call("gc")
    assert "state.json is damaged: maker: a pid" in done.stderr
    assert "delete --force odd" in done.stderr
    assert (bundle.states / "odd").is_dir()
    bundle.call("delete", "--force", "odd")
    assert bundle.left() == []


@pytest.mark.slow
def test_beside_create_and_beside_another(bundle: Bundle):
    """Eight make and delete containers, two collect all the time: nobody is in another's way."""
    bundle.config["linux"].pop("cgroupsPath")
    bundle.args("true").write()
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "timeout": 120,
             "stderr": subprocess.PIPE, "text": True}  # fmt: skip
    working = True

    def collect() -> list[str]:
        said = []
        while working:
            done = subprocess.run([*bundle.command, "gc"], **quiet)
            if done.returncode or done.stderr:
                said.append(done.stderr)
        return said

    def live(n: int) -> list[str]:
        name, said = f"{bundle.id}-{n}", []
        for words in (["create", name], ["start", name], ["delete", "--force", name]):
            # A pipe would be held open by the container
            with open(bundle.directory / f"stderr-{n}", "w+") as stderr:
                done = subprocess.run(
                    [*bundle.command, *words], cwd=bundle.directory, **{**quiet, "stderr": stderr}
                )
                stderr.seek(0)
                if done.returncode:
                    said.append(stderr.read())
        return said

    with ThreadPoolExecutor(10) as pool:
        collectors = [pool.submit(collect) for _ in range(2)]
        try:
            said = list(pool.map(live, range(32)))
        finally:
            working = False
        assert said == [[]] * 32
        assert [one.result() for one in collectors] == [[], []]
    assert bundle.left() == []


def test_two_at_once_share_the_work(bundle: Bundle):
    """Each half-made container is removed by exactly one."""
    bundle.args(*FOREVER).write()
    names = [f"{bundle.id}-{n}" for n in range(6)]
    for name in names:
        bundle.config["linux"]["cgroupsPath"] = f"/minicontainer-test-{name}"
        killed_at(bundle, 60, "create", name)
    with ThreadPoolExecutor(2) as pool:
        told = list(pool.map(lambda _: gc(bundle), range(2)))
    assert sorted(one["name"] for part in told for one in part) == names
    assert bundle.left() == []


@pytest.mark.parametrize(
    ("words", "says"),
    [(["--grace", "x"], "a number of seconds"), (["web"], "no other words"),
     (["--force"], "unknown option --force")],
)  # fmt: skip
def test_wrong_words(bundle: Bundle, words, says):
    done = bundle.call("gc", *words, check=False)
    assert (done.returncode, says in done.stderr) == (1, True)


def test_nothing_at_all(bundle: Bundle):
    done = bundle.call("gc", "--grace", "1000000")
    assert done.stdout == "nothing to remove\n"
