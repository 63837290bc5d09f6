"""The words of `minicontainer-runtime`: help, runc's small options, and errors of one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from minicontainer.kernel import cgroups, namespaces
from minicontainer.options import UsageError
from minicontainer.runtime_commands import COMMANDS, signal_number
from tests.bundles import FOREVER, RUNTIME, Bundle, alive, bundle
from tests.waiting import until

__all__ = ["bundle"]


def call(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([RUNTIME, *words], capture_output=True, text=True)


@pytest.mark.parametrize("verb", COMMANDS)
def test_each_verb_has_help_with_an_example(verb):
    done = call(verb, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    usage, *rest = done.stdout.splitlines()
    assert usage.startswith(f"usage: minicontainer-runtime {verb} [OPTIONS]")
    assert COMMANDS[verb][3] in rest
    example = rest[rest.index("example:") + 1]
    assert example.startswith(f"  minicontainer-runtime {verb}")
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert f"  {verb} " in call("--help").stdout or f"  {verb}  " in call("--help").stdout


@pytest.mark.parametrize("verb", COMMANDS)
@pytest.mark.parametrize("words", [["--nonsense"], ["no/such/id"], ["a", "b", "c", "d"]])
def test_nonsense_is_one_line(tmp_path, verb, words):
    done = subprocess.run([RUNTIME, "--root", str(tmp_path / "root"), verb, *words],
                          capture_output=True, text=True, cwd=tmp_path)  # fmt: skip
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if not line.startswith("  fix: ")]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("minicontainer-runtime: ")
    assert "internal error" not in done.stderr


@pytest.mark.parametrize(
    ("word", "number"),
    [("9", 9), ("KILL", 9), ("sigkill", 9), ("SIGTERM", 15), ("64", 64), ("RTMIN", 34),
     ("RTMIN+3", 37), ("SIGRTMAX-1", 63)],
)  # fmt: skip
def test_signals_by_name_and_number(word, number):
    assert signal_number(word) == number


@pytest.mark.parametrize(
    "word", ["", "0", "65", "-9", "SIG", "NOPE", "_DFL", "TERM+1", "RTMIN-1", "RTMAX+1", "RTMIN+x"]
)
def test_what_is_no_signal(word):
    with pytest.raises(UsageError, match="unknown signal"):
        signal_number(word)


def test_features_are_the_runtimes_not_the_hosts():
    told = json.loads(call("features").stdout)
    assert set(told) == {"ociVersionMin", "ociVersionMax", "hooks", "mountOptions", "linux",
                         "annotations", "potentiallyUnsafeConfigAnnotations"}  # fmt: skip
    linux = told["linux"]
    assert set(linux) == {"namespaces", "capabilities", "cgroup", "seccomp", "apparmor", "selinux",
                          "intelRdt", "mountExtensions"}  # fmt: skip
    assert set(linux["cgroup"]) == {"v1", "v2", "systemd", "systemdUser", "rdma"}
    assert set(linux["seccomp"]) == {"enabled", "actions", "operators", "archs", "knownFlags",
                                     "supportedFlags"}  # fmt: skip
    assert linux["namespaces"] == list(namespaces.NAMESPACES)
    assert linux["mountExtensions"] == {"idmap": {"enabled": False}}
    assert {"defaults", "rro", "tmpcopyup", "rbind"} <= set(told["mountOptions"])


@pytest.mark.root
def test_delete_of_nobody(bundle: Bundle):
    assert bundle.call("delete", bundle.id, check=False).returncode == 1
    assert bundle.call("delete", "--force", bundle.id).stderr == ""


@pytest.mark.root
def test_list_and_ps_formats(bundle: Bundle):
    bundle.args(*FOREVER).create()
    assert bundle.call("list", "--format", "json", "-q").stdout == f"{bundle.id}\n"
    assert json.loads(bundle.call("ps", "-f", "json", bundle.id).stdout) == [bundle.state()["pid"]]
    for verb in (["list"], ["ps", bundle.id]):
        done = bundle.call(verb[0], "--format", "xml", *verb[1:], check=False)
        assert (done.returncode, "either table or json" in done.stderr) == (1, True)


# --- exec in a group below, and in a paused container ------------------------------------------


@pytest.fixture
def running(bundle: Bundle) -> Bundle:
    bundle.args(*FOREVER).create()
    bundle.call("start", bundle.id)
    return bundle


def groups_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return {names: path for _, names, path in (line.split(":", 2) for line in lines)}


@pytest.mark.root
def test_exec_in_a_group_below(running: Bundle):
    """Where it is there; in other hierarchies in the container's own."""
    group = next(path for path in running.groups() if "/pids/" in path or len(running.groups()) < 2)
    os.mkdir(f"{group}/sub")
    with running.popen("exec", "--cgroup", "sub", "--pid-file", "pid", running.id, "sleep",
                       "1000") as process:  # fmt: skip
        path = running.directory / "pid"
        until(lambda: path.exists() and path.read_text())
        paths = groups_of(int(path.read_text()))
        assert [one for one in paths.values() if one.endswith(f"{running.id}/sub")]
        if len(running.groups()) > 2:
            assert [one for one in paths.values() if one.endswith(running.id)]
        running.call("kill", running.id, "KILL")
        process.wait(20)
    running.call("delete", "--force", running.id)
    assert running.left() == []


@pytest.mark.root
@pytest.mark.parametrize(
    ("path", "says"),
    [("../other", "without `..`"), ("a/../../b", "without `..`"), ("nowhere", "is below none of"),
     ("pids:nowhere", "is below none of"), ("/../", "without `..`")],
)  # fmt: skip
def test_groups_that_are_refused(running: Bundle, path, says):
    done = running.call("exec", "--cgroup", path, running.id, "true", check=False)
    assert done.returncode == 1
    assert f"--cgroup {path}: " in done.stderr
    assert says in done.stderr


@pytest.mark.root
def test_the_containers_own_group_has_a_name(running: Bundle):
    assert running.call("exec", "--cgroup", "/", running.id, "true").returncode == 0


@pytest.mark.root
def test_one_controller_only(running: Bundle):
    if "pids" not in cgroups.detect.detect().versions():
        pytest.skip("no pids controller on this host")
    for group in running.groups():
        os.mkdir(f"{group}/sub")
    with running.popen("exec", "--cgroup", "pids:sub", "--pid-file", "pid", running.id, "sleep",
                       "1000") as process:  # fmt: skip
        path = running.directory / "pid"
        until(lambda: path.exists() and path.read_text())
        paths = groups_of(int(path.read_text()))
        below = {names for names, one in paths.items() if one.endswith(f"{running.id}/sub")}
        assert below == {names for names in paths if "pids" in names.split(",")} or below == {""}
        running.call("kill", running.id, "KILL")
        process.wait(20)


@pytest.mark.root
def test_exec_in_a_paused_container_waits_for_resume(running: Bundle):
    running.call("pause", running.id)
    done = running.call("exec", running.id, "true", check=False)
    assert done.returncode == 1
    assert "resume it first" in done.stderr
    group = Path(next(path for path in running.groups()
                      if "/freezer/" in path or len(running.groups()) == 1))  # fmt: skip
    with running.popen("exec", "--ignore-paused", running.id, "sh", "-c", "exit 7") as process:
        until(lambda: len((group / "cgroup.procs").read_text().split()) > 1)
        assert process.poll() is None
        running.call("resume", running.id)
        assert process.wait(20) == 7


@pytest.mark.root
def test_a_real_time_signal_arrives(bundle: Bundle):
    number = signal.SIGRTMIN + 3
    bundle.args("sh", "-c", f"trap 'exit 33' {number}; echo ready; while :; do sleep 0.05; done")
    with open(bundle.directory / "out", "w") as out:
        bundle.create(out=out)
    bundle.call("start", bundle.id)
    until(lambda: "ready" in (bundle.directory / "out").read_text())
    pid = bundle.state()["pid"]
    bundle.call("kill", bundle.id, "RTMIN+3")
    until(lambda: not alive(pid))
