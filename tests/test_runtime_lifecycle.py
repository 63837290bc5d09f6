"""`minicontainer-runtime`: a container's life, and what is left of it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from minicontainer.runtime import state as states
from tests.bundles import FOREVER, RUNTIME, Bundle, alive, bundle, end
from tests.waiting import until

__all__ = ["bundle"]
pytestmark = pytest.mark.root


# --- the words ---------------------------------------------------------------------------------


def test_states_follow_each_other(bundle: Bundle):
    bundle.args(*FOREVER).create()
    state = bundle.state()
    assert state["status"] == "created"
    assert alive(state["pid"])
    bundle.call("start", bundle.id)
    assert bundle.state()["status"] == "running"
    bundle.call("pause", bundle.id)
    assert bundle.state()["status"] == "paused"
    bundle.call("resume", bundle.id)
    assert bundle.state()["status"] == "running"
    bundle.call("kill", bundle.id, "KILL")
    until(lambda: bundle.state()["status"] == "stopped")
    assert bundle.state()["pid"] == 0
    bundle.call("delete", bundle.id)
    assert bundle.left() == []


def test_state_says_what_the_spec_asks_for(bundle: Bundle):
    bundle.config["annotations"] = {"org.example.key": "value"}
    bundle.args(*FOREVER).create()
    state = bundle.state()
    assert state["ociVersion"] == bundle.config["ociVersion"]
    assert state["id"] == bundle.id
    assert state["bundle"] == str(bundle.directory)
    assert state["rootfs"] == str(bundle.root)
    assert state["annotations"] == {"org.example.key": "value"}
    assert state["created"].endswith("Z")


def test_nothing_of_ours_stays_but_the_command(bundle: Bundle):
    bundle.args("sleep", "1000").create()
    bundle.call("start", bundle.id)
    group = bundle.groups()[0]
    pids = [int(pid) for pid in Path(group, "cgroup.procs").read_text().split()]
    assert pids == [bundle.state()["pid"]]
    assert os.readlink(f"/proc/{pids[0]}/exe").endswith("/bin/busybox")
    assert sorted(os.listdir(bundle.states / bundle.id)) == [
        "config.json", "result.fifo", "state.json",
    ]  # fmt: skip


def test_pid_file_and_list_and_ps(bundle: Bundle):
    bundle.args(*FOREVER).create("--pid-file", "pid")
    pid = bundle.state()["pid"]
    assert (bundle.directory / "pid").read_text() == str(pid)
    assert bundle.call("list", "-q").stdout.split() == [bundle.id]
    assert json.loads(bundle.call("list", "--format", "json").stdout)[0]["id"] == bundle.id
    assert bundle.id in bundle.call("list").stdout.splitlines()[1]
    assert json.loads(bundle.call("ps", "--format", "json", bundle.id).stdout) == [pid]
    assert str(pid) in bundle.call("ps", bundle.id).stdout


def test_kill_all_reaches_every_process(bundle: Bundle):
    bundle.config["linux"]["namespaces"] = [
        one for one in bundle.config["linux"]["namespaces"] if one["type"] != "pid"
    ]
    bundle.args("sh", "-c", "sleep 1000 & exec sleep 1001").create()
    bundle.call("start", bundle.id)
    group = Path(bundle.groups()[0], "cgroup.procs")
    until(lambda: len(group.read_text().split()) == 2)
    bundle.call("kill", "--all", bundle.id, "KILL")
    until(lambda: not group.read_text())
    bundle.call("delete", bundle.id)
    assert bundle.left() == []


def test_paused_container_is_killed(bundle: Bundle):
    bundle.args(*FOREVER).create()
    bundle.call("start", bundle.id)
    pid = bundle.state()["pid"]
    bundle.call("pause", bundle.id)
    bundle.call("kill", bundle.id, "KILL")
    until(lambda: not alive(pid))
    bundle.call("delete", "--force", bundle.id)
    assert bundle.left() == []


def test_created_container_is_paused_and_resumed(bundle: Bundle):
    """What would be started in it would stand still, and whoever waits for it, too."""
    bundle.args("true").create()
    bundle.call("pause", bundle.id)
    assert bundle.state()["status"] == "paused"
    for words in (["start", bundle.id], ["exec", bundle.id, "true"]):
        done = bundle.call(*words, check=False)
        assert (done.returncode, "that is paused" in done.stderr) == (1, True)
        assert "resume it first" in done.stderr
    bundle.call("resume", bundle.id)
    assert bundle.state()["status"] == "created"
    bundle.call("exec", bundle.id, "true")
    bundle.call("start", bundle.id)
    until(lambda: bundle.state()["status"] == "stopped")


def test_created_container_dies_of_sigterm(bundle: Bundle):
    bundle.args(*FOREVER).create()
    bundle.call("kill", bundle.id)
    until(lambda: bundle.state()["status"] == "stopped")


@pytest.mark.parametrize("code", [0, 7, 255])
def test_run_gives_the_exit_status(bundle: Bundle, code):
    assert bundle.run("sh", "-c", f"exit {code}").returncode == code
    assert bundle.left() == []


def test_run_keep_and_detach(bundle: Bundle):
    bundle.args("true").call("run", "--keep", bundle.id)
    assert bundle.state()["status"] == "stopped"
    bundle.call("delete", bundle.id)
    done = bundle.args(*FOREVER).call("run", "--detach", bundle.id, capture_output=False,
                                      stdout=subprocess.DEVNULL)  # fmt: skip
    assert done.returncode == 0
    assert bundle.state()["status"] == "running"


def test_run_forwards_signals(bundle: Bundle):
    bundle.args(*FOREVER)
    with bundle.popen("run", bundle.id, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.wait(20) == 9
    assert bundle.left() == []


def test_works_with_an_empty_environment(bundle: Bundle):
    assert bundle.args("true").call("run", bundle.id, env={}).returncode == 0


def test_configuration_is_fixed_at_create(bundle: Bundle):
    with open(bundle.directory / "out", "w+") as out:
        bundle.args("echo", "first").create(out=out)
        bundle.args("echo", "second").call("start", bundle.id)
        until(lambda: bundle.state()["status"] == "stopped")
        out.seek(0)
        assert out.read() == "first\n"


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "-x", "a b", "é", "a\n", "x" * 300])
def test_ids_are_names_and_nothing_else(bundle: Bundle, name):
    done = bundle.call("create", "--", name, check=False)
    assert done.returncode == 1
    assert "container id" in done.stderr
    assert bundle.left() == []


def test_unknown_container(bundle: Bundle):
    for words in (["state"], ["start"], ["kill"], ["delete"], ["pause"], ["ps"]):
        done = bundle.call(*words, "nobody", check=False)
        assert (done.returncode, "does not exist" in done.stderr) == (1, True)
    bundle.call("delete", "--force", "nobody")


def test_wrong_state(bundle: Bundle):
    bundle.args(*FOREVER).create()
    bundle.call("start", bundle.id)
    assert "that is running" in bundle.call("start", bundle.id, check=False).stderr
    assert "not stopped" in bundle.call("delete", bundle.id, check=False).stderr
    assert "exists" in bundle.create(check=False).stderr
    bundle.call("kill", bundle.id, "KILL")
    until(lambda: bundle.state()["status"] == "stopped")
    assert "container not running" in bundle.call("kill", bundle.id, check=False).stderr
    assert "that is stopped" in bundle.call("start", bundle.id, check=False).stderr


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["nope"], 127, 'exec: "nope": executable file not found in $PATH'),
        (["/nope"], 127, 'exec: "/nope": no such file or directory'),
        (["/bin"], 126, 'exec: "/bin": permission denied'),
    ],
)
def test_missing_commands_are_found_out_at_create(bundle: Bundle, words, code, says):
    done = bundle.args(*words).create(check=False)
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert bundle.left() == []


def test_what_only_exec_finds_out_is_told_by_start(bundle: Bundle):
    (bundle.root / "garbage").write_bytes(b"\0\1\2")
    (bundle.root / "garbage").chmod(0o755)
    bundle.args("/garbage").create()
    done = bundle.call("start", bundle.id, check=False)
    assert done.returncode == 126
    assert 'exec: "/garbage": exec format error' in done.stderr
    assert bundle.state()["status"] == "stopped"


def test_log_is_json_for_those_who_ask(bundle: Bundle):
    log = bundle.directory / "log"
    bundle.args("nope").write()
    done = subprocess.run(
        [RUNTIME, "--root", bundle.states, "--log", log, "--log-format", "json", "run", "x"],
        cwd=bundle.directory, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 127
    entry = json.loads(log.read_text().splitlines()[-1])
    assert entry["level"] == "error"
    assert "executable file not found" in entry["msg"]


# --- what is left ------------------------------------------------------------------------------


def test_same_id_at_once_has_one_winner(bundle: Bundle):
    bundle.args(*FOREVER)
    racers = [
        bundle.popen("create", bundle.id, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                     stderr=subprocess.DEVNULL) for _ in range(6)
    ]  # fmt: skip
    assert sorted(racer.wait(60) for racer in racers) == [0, 1, 1, 1, 1, 1]
    assert bundle.state()["status"] == "created"


@pytest.mark.parametrize("kind", ["prestart", "createRuntime"])
def test_runtime_killed_in_the_middle(bundle: Bundle, kind):
    bundle.config["hooks"] = {
        kind: [{"path": "/bin/sh", "args": ["sh", "-c", "kill -9 $PPID; sleep 1"]}]
    }
    done = bundle.args(*FOREVER).create(check=False)
    assert done.returncode == -9
    pid = bundle.state()["pid"] or json.loads(
        (bundle.states / bundle.id / "state.json").read_text()
    )["pid"]  # fmt: skip
    bundle.call("delete", "--force", bundle.id)
    assert bundle.left() == []
    until(lambda: not alive(pid))


def test_directory_without_record_is_deleted(bundle: Bundle):
    (bundle.states / "half").mkdir(parents=True)
    bundle.call("delete", "--force", "half")
    assert bundle.left() == []


def test_pid_that_is_somebody_else_is_not_hit(bundle: Bundle):
    bundle.args(*FOREVER).create()
    stranger = subprocess.Popen(["sleep", "1000"])
    try:
        path = bundle.states / bundle.id / "state.json"
        record = json.loads(path.read_text())
        real = record["pid"]
        path.write_text(json.dumps({**record, "pid": stranger.pid}))
        done = bundle.call("kill", bundle.id, "KILL", check=False)
        assert "container not running" in done.stderr
        bundle.call("delete", "--force", bundle.id)
        assert stranger.poll() is None
        assert not alive(real)  # by its cgroup
    finally:
        end(stranger.pid)
        stranger.wait()


def test_start_times_tell_processes_apart():
    process = subprocess.Popen(["sleep", "1000"])
    try:
        later, first = states.start_time(process.pid), states.start_time(1)
        assert later is not None
        assert first is not None
        assert later > first
    finally:
        end(process.pid)
        process.wait()
    assert states.start_time(process.pid) is None


def test_read_only_state_directory(bundle: Bundle):
    bundle.args("true").write()
    bundle.states.mkdir()
    script = 'mount -t tmpfs -o ro none "$0" && exec "$@"'
    words = ["unshare", "-m", "sh", "-c", script, bundle.states, *bundle.command, "run", "x"]
    done = subprocess.run(words, cwd=bundle.directory, capture_output=True, text=True)
    assert done.returncode == 1
    assert "read-only file system" in done.stderr
    assert "Traceback" not in done.stderr


def test_full_disk_during_create(bundle: Bundle):
    bundle.args("true").write()
    bundle.states.mkdir()
    script = 'mount -t tmpfs -o nr_inodes=5 none "$0" && "$@"; code=$?; ls "$0"; exit $code'
    words = ["unshare", "-m", "sh", "-c", script, bundle.states, *bundle.command, "run", "x"]
    done = subprocess.run(words, cwd=bundle.directory, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no space left on device" in done.stderr
    assert bundle.left() == []
