"""Nonsense of all kinds, through the command's own `main`: no traceback ever reaches a user, and
what is wrong with a configuration is named.

In this process `create` stops where it would take the id: its root directory lies below a file. Up
to there the configuration was checked, the group was placed and the plan was built.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from minicontainer import runtime_cli
from minicontainer.kernel import cgroups
from minicontainer.kernel.cgroups.resources import CONTROLLERS, V2_NAMES
from minicontainer.kernel.seccomp_default import default_profile
from minicontainer.paths import runtime_dir
from minicontainer.runtime import config, features
from tests.bundles import FOREVER, Bundle, bundle

__all__ = ["bundle"]

# A function-scoped fixture is a directory here, and each example writes its files anew.
EXAMPLES = int(os.environ.get("MINICONTAINER_TEST_FUZZ", "400"))
FUZZ = settings(
    max_examples=EXAMPLES, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
FEW = settings(FUZZ, max_examples=max(50, EXAMPLES // 6))

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=20)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner,
                                                               max_size=3),
    max_leaves=6,
)  # fmt: skip
# What is special to some field or other.
WORDS = st.sampled_from([
    "", "/", ".", "..", "../x", "/proc/self/exe", "\0", "a\0b", "\ud800", "x" * 5000, "-1", "0",
    -1, 0, 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64, -(2**63), 1e308, True, None, [], {},
    [[]], [{}], [None], "SCMP_ACT_KILL", "rbind", "bind", "tmpfs", "cgroup", "shared", "user",
    "mount", "root",
])  # fmt: skip
ANYTHING = WORDS | JSON

FIELDS = {
    "ociVersion", "process", "root", "mounts", "hooks", "hostname", "domainname", "annotations",
    "linux",
}  # fmt: skip
IDENTITY = [{"containerID": 0, "hostID": 0, "size": 65536}]
HOOK = [{"path": "/bin/true", "args": ["true"], "env": ["A=B"], "timeout": 5}]


def maximal() -> dict:
    """A valid configuration with something in every field that this runtime knows."""
    full = copy.deepcopy(features.template(rootless=False))
    full.update(domainname="example.org", annotations={"org.example": "value"})
    full["hooks"] = {kind: copy.deepcopy(HOOK) for kind in config.HOOKS}
    full["process"].update(
        terminal=False, consoleSize={"height": 25, "width": 80}, oomScoreAdj=100, args=["true"],
        user={"uid": 1, "gid": 2, "umask": 0o27, "additionalGids": [3, 4]}, apparmorProfile="",
        selinuxLabel="",
    )  # fmt: skip
    kinds = ("ambient", "inheritable", "bounding", "effective", "permitted")
    full["process"]["capabilities"] = {kind: ["CAP_KILL", "CAP_CHOWN"] for kind in kinds}
    full["mounts"] += [
        {"destination": "/host", "source": "/etc", "type": "bind", "options": ["rbind", "rro"]},
        {"destination": "/tmp", "type": "tmpfs", "source": "x", "options": ["tmpcopyup"]},
    ]  # fmt: skip
    linux = full["linux"]
    linux["namespaces"] += [{"type": "user"}, {"type": "time"}]
    linux.update(
        uidMappings=copy.deepcopy(IDENTITY), gidMappings=copy.deepcopy(IDENTITY), mountLabel="",
        timeOffsets={"monotonic": {"secs": 5, "nanosecs": 7}, "boottime": {"secs": -1}},
        devices=[{"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229, "fileMode": 438,
                  "uid": 0, "gid": 0}],
        sysctl={"net.ipv4.ip_forward": "1", "kernel.msgmax": "65536"}, rootfsPropagation="rslave",
        seccomp=default_profile(["CAP_KILL"]),
    )  # fmt: skip
    linux["resources"] = {
        "memory": {"limit": 1 << 28, "reservation": 1 << 27, "swappiness": 10,
                   "disableOOMKiller": False, "checkBeforeUpdate": True},
        "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 64},
        "blockIO": {"weight": 500, "throttleReadBpsDevice": [
            {"major": 8, "minor": 0, "rate": 1048576}]},
        "devices": [{"allow": False, "access": "rwm"},
                    {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"}],
        "network": {"classID": 1048577, "priorities": [{"name": "lo", "priority": 5}]},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 2097152}],
        "unified": {},
    }  # fmt: skip
    return full


def possible() -> dict:
    """The same without the limits that this host cannot set."""
    full = maximal()
    here = cgroups.detect.detect().versions()
    for member, controllers in CONTROLLERS.items():
        if not here.keys() & {*controllers, *(V2_NAMES.get(one, one) for one in controllers)}:
            full["linux"]["resources"].pop(member, None)
    full["linux"]["resources"].pop("blockIO", None)  # names a disk
    return full


def places(value, path=()):
    """The path of everything in a JSON value."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        inner = enumerate(value[:2])  # of two hundred system calls, two
    for key, one in inner:
        yield from places(one, (*path, key))


def spoil(value: dict, path, how: str, new) -> None:
    """Replace, drop, or add beside what is at the path, where it still is."""
    *above, last = path
    try:
        for key in above:
            value = value[key]
        value[last]
    except (KeyError, IndexError, TypeError):
        return  # an earlier one took it away
    if not isinstance(value, dict | list):
        return
    if how == "replace":
        value[last] = new
    elif how == "drop":
        del value[last]
    elif isinstance(value, list):
        value.insert(last, new)
    else:
        value[str(new)] = new


def spoilt(whole: dict, most: int = 3):
    """A strategy: the value with one to `most` changes."""
    change = st.tuples(
        st.sampled_from(list(places(whole))),
        st.sampled_from(["replace", "replace", "drop", "add"]),
        ANYTHING,
    )

    def make(changes) -> dict:
        value = copy.deepcopy(whole)
        for one in changes:
            spoil(value, *copy.deepcopy(one))
        return value

    return st.lists(change, min_size=1, max_size=most).map(make)


def main(*words: str) -> tuple[int, str, str]:
    """(exit status, stdout, stderr) of the command line, in this process."""
    out, err = io.StringIO(), io.StringIO()
    before = {*os.listdir("/proc/self/fd")}
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = runtime_cli.main(list(words))
    # What ends with a process of its own has to be undone in ours.
    signal.set_wakeup_fd(-1)
    for number, handler in handlers.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)
    for fd in {*os.listdir("/proc/self/fd")} - before:
        with contextlib.suppress(OSError):  # that of the list itself
            os.close(int(fd))
    said = err.getvalue()
    assert "internal error" not in said, said
    assert "Traceback" not in said, said
    return code, out.getvalue(), said


def write(path: Path, value) -> str:
    path.write_text(json.dumps(value))
    return str(path)


@pytest.fixture
def no_filters_stay():
    """Compiled filters are kept; those of nonsense need not be."""
    directory = Path(runtime_dir(), "seccomp")
    before = set(directory.glob("*"))
    yield
    for path in set(directory.glob("*")) - before:
        path.unlink()


# --- configurations ----------------------------------------------------------------------------


def names_a_field(said: str, path: str, top: set[str]) -> bool:
    """Whether the message is "PATH: FIELD: …" or "FIELD: …", with a field of the configuration."""
    text = said.removeprefix("minicontainer-runtime: ").removeprefix(f"{path}: ")
    found = re.match(r"(\w+)[^\s:]*", text)
    return bool(found) and found[1] in top


def test_the_maximal_configuration_is_valid(tmp_path):
    code, _, said = main(
        "--root", "/dev/null/x", "--cgroup-manager", "disabled", "create", "--config",
        write(tmp_path / "config.json", maximal()), "x",
    )  # fmt: skip
    assert (code, "state directory /dev/null/x: not a directory" in said) == (1, True), said


@FUZZ
@given(spoilt(maximal()))
def test_create_names_the_field(tmp_path, no_filters_stay, value):
    path = write(tmp_path / "config.json", value)
    code, out, said = main("--root", "/dev/null/x", "create", "--config", path, "x")
    assert (code, out) == (1, "")
    last = said.splitlines()
    accepted = any("state directory /dev/null/x: not a directory" in line for line in last)
    terminal = "--console-socket says where it goes" in said
    error = next(line for line in last if line.startswith("minicontainer-runtime: ")
                 and "warning" not in line) if last else ""  # fmt: skip
    assert accepted or terminal or names_a_field(error, path, FIELDS), said


@FUZZ
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode)
       | st.integers(0, 4000).map(lambda n: json.dumps(maximal()).encode()[:n]))  # fmt: skip
def test_files_that_are_no_json(tmp_path, data):
    path = tmp_path / "config.json"
    path.write_bytes(data)
    code, _, said = main("--root", "/dev/null/x", "create", "--config", str(path), "x")
    assert (code, f"{path}: " in said) == (1, True)


@pytest.mark.root
@pytest.mark.slow
def test_real_processes(bundle: Bundle, no_filters_stay):
    """Fifty of them, as a caller would start them: whatever can be made is made, and undone."""
    codes = []
    whole = possible()
    bundle.config = whole
    bundle.create()
    bundle.call("delete", bundle.id)

    @settings(FUZZ, max_examples=50)
    @given(spoilt(whole, most=2))
    def one(value) -> None:
        # The host's own directories are no place for a test to make mount points in.
        root = value.get("root")
        assume(isinstance(root, dict) and root.get("path") == "rootfs")
        bundle.config = value
        done = bundle.create(check=False)
        codes.append(done.returncode)
        assert done.returncode in (0, 1, 126, 127), done.stderr
        assert bool(done.stderr) or done.returncode == 0
        assert "internal error" not in done.stderr
        bundle.call("delete", "--force", bundle.id)
        assert bundle.left() == [], value

    one()
    print(f"{len(codes)} configurations, {codes.count(0)} became containers")


# --- exec, update ------------------------------------------------------------------------------


@pytest.fixture
def stopped(tmp_path: Path) -> tuple[str, str]:
    """(root directory, id) of a container whose processes have ended."""
    directory = tmp_path / "states" / "gone"
    directory.mkdir(parents=True)
    write(directory / "state.json", {"id": "gone", "pid": 0, "startTime": 0, "maker": [0, 0]})
    write(directory / "config.json", maximal())
    return str(directory.parent), "gone"


@FUZZ
@given(spoilt(maximal()["process"]) | ANYTHING)
def test_exec_names_the_field(tmp_path, stopped, value):
    root, name = stopped
    path = write(tmp_path / "process.json", value)
    code, _, said = main("--root", root, "exec", "--process", path, name)
    accepted = "cannot exec in a container that is stopped" in said
    console = "a terminal and" in said
    assert (code, accepted or console or names_a_field(said, path, {"process"})) == (1, True), said


@FEW
@given(st.lists(
    st.sampled_from(["--user", "--cwd", "--env", "--cap", "--additional-gids", "-t", "-d", "--",
                     "--no-new-privs", "--preserve-fds"]) | st.text(max_size=8), max_size=6,
))  # fmt: skip
def test_exec_options(stopped, words):
    root, name = stopped
    code, _, said = main("--root", root, "exec", *words, name, "true")
    assert code in (0, 1)
    assert said or code == 0


@pytest.mark.root
def test_update(bundle: Bundle):
    """On a real container: the kernel has the last word on each value."""
    bundle.args("sleep", "1000").write()
    resources = possible()["linux"]["resources"]
    codes = []

    @FEW
    @given(spoilt(resources) | ANYTHING)
    def one(value) -> None:
        if not bundle.states.exists() or not os.listdir(bundle.states):
            bundle.create()
            bundle.call("start", bundle.id)
        path = write(bundle.directory / "resources.json", value)
        code, _, said = main("--root", str(bundle.states), "update", "-r", path, bundle.id)
        codes.append(code)
        if "container not running" in said:  # it was given less memory than it needs
            bundle.call("delete", "--force", bundle.id)
            return
        assert code == 0 or re.search(
            r"linux\.resources|write\(|no group for|controller is|JSON|line 1", said
        ), said

    for limit in range(50, 56):  # so that it does not depend on luck that some take effect
        one = example({"pids": {"limit": limit}})(one)
    one()
    print(f"{len(codes)} updates, {codes.count(0)} took effect")
    assert codes.count(0) > 5


# --- names and command lines -------------------------------------------------------------------


@FUZZ
@given(st.text(max_size=300) | WORDS.filter(lambda word: isinstance(word, str)))
def test_ids(tmp_path, name):
    states = tmp_path / "states"
    before = sorted(os.listdir(tmp_path))
    for verb in ("state", "delete", "start", "pause"):
        code, _, said = main("--root", str(states), verb, "--", name)
        assert (code, bool(re.search("container id|does not exist", said))) == (1, True), said
    path = write(tmp_path / "config.json", maximal())
    code, _, said = main("--root", "/dev/null/x", "create", "-f", path, "--", name)
    assert (code, bool(re.search("container id|state directory", said))) == (1, True), said
    assert sorted(os.listdir(tmp_path)) == sorted({*before, "config.json"})


COMMANDS = [*runtime_cli.COMMANDS, "help", "--help", "--version"]
OPTIONS = [
    "--root", "--log", "--log-format", "--debug", "--systemd-cgroup", "--rootless", "--bundle",
    "-b", "--config", "--pid-file", "--console-socket", "--preserve-fds", "--no-pivot", "--detach",
    "--force", "--all", "--format", "-q", "--tty", "--process", "--memory", "--pids-limit", "--",
    "-", "--=", "--root=", "--log=/dev/null/x", "--format=json", "--preserve-fds=9999999",
]  # fmt: skip


@FUZZ
@given(st.lists(st.sampled_from(COMMANDS) | st.sampled_from(OPTIONS) | st.text(max_size=10)
                | st.integers().map(str), max_size=7))  # fmt: skip
def test_command_lines(tmp_path, monkeypatch, words):
    (tmp_path / "empty").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "empty")
    assume("--debug" not in words or "--" not in words)
    code, out, said = main(
        "--root", str(tmp_path / "states"), *[w for w in words if w != "--debug"]
    )
    assert code in (0, 1)
    assert out or said or code == 0
    for path in (tmp_path / "empty").iterdir():  # `spec` has written one, --log another
        path.unlink()


# --- records of containers ---------------------------------------------------------------------

RECORD = {
    "ociVersion": "1.2.0", "id": "hurt", "bundle": "/b", "rootfs": "/b/rootfs", "pid": 0,
    "startTime": 5, "maker": [0, 5], "created": "2026-01-01T00:00:00.000000000Z", "annotations": {},
    "hooks": {"poststop": [{"path": "/bin/true"}]},
    "options": {"keyring": True, "pivot": True, "preserve_fds": 0, "wait": True},
    "cgroup": {"directories": [{
        "version": 1, "mount_point": "/nowhere", "path": "/nowhere/x/y", "controllers": ["memory"],
        "made": ["/nowhere/x", "/nowhere/x/y"],
    }]},
}  # fmt: skip
VERBS = (
    ["state"], ["start"], ["kill"], ["pause"], ["resume"], ["ps"], ["delete"], ["exec"],
    ["update", "--pids-limit", "5"],
)  # fmt: skip


def fresh(tmp_path: Path) -> Path:
    """An empty directory for a container called "hurt"."""
    shutil.rmtree(tmp_path / "states", ignore_errors=True)
    directory = tmp_path / "states" / "hurt"
    directory.mkdir(parents=True)
    return directory


def damaged(directory: Path) -> None:
    """Every command on the one container below: a clear word from each, and `delete --force`."""
    root = str(directory.parent)
    for words in VERBS:
        tail = ["true"] if words[0] == "exec" else []
        if words[0] == "delete":
            continue  # it may succeed
        code, _, said = main("--root", root, *words, "hurt", *tail)
        assert (code, bool(said)) == (1, True) or words == ["state"], (words, said)
    for words in (["list"], ["list", "--format", "json"], ["list", "-q"]):
        code, out, said = main("--root", root, *words)
        assert code == 0
        assert "hurt" in out + said
    code, _, said = main("--root", root, "delete", "--force", "hurt")
    assert code == 0, said
    assert not directory.exists()


@FUZZ
@given(spoilt(RECORD))
def test_records_with_anything_in_them(tmp_path, value):
    # That would be a process of this host, or a group with processes in it.
    assume(value.get("pid") == 0 or not isinstance(value.get("pid"), int))
    directory = fresh(tmp_path)
    write(directory / "state.json", value)
    write(directory / "config.json", maximal())
    damaged(directory)


STATE_FILES = ["state.json", "config.json", "exec.fifo", "result.fifo", "exec-1-x", "odd"]


@FEW
@given(st.sampled_from(STATE_FILES), st.binary(max_size=40) | st.integers(0, 600), st.booleans())
def test_truncated_and_strange_files(tmp_path, name, data, is_directory):
    directory = fresh(tmp_path)
    write(directory / "state.json", RECORD)
    write(directory / "config.json", maximal())
    path = directory / name
    if isinstance(data, int):
        data = path.read_bytes()[:data] if path.exists() else b""
    if is_directory:
        path.unlink(missing_ok=True)
        path.mkdir()
        (path / "inside").write_bytes(data)
    else:
        path.write_bytes(data)
    damaged(directory)


@pytest.mark.root
def test_damaged_record_of_a_running_container(bundle: Bundle):
    """Its pid is still good: delete --force ends it, and finds the group by what is sound."""
    bundle.args(*FOREVER).create()
    bundle.call("start", bundle.id)
    path = bundle.states / bundle.id / "state.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "bundle": 7, "hooks": "no", "maker": "me"}))
    for verb in ("state", "kill", "start", "delete"):
        done = bundle.call(verb, bundle.id, check=False)
        assert done.returncode == 1
        assert "state.json is damaged: " in done.stderr
        assert f"delete --force {bundle.id}" in done.stderr
    bundle.call("delete", "--force", bundle.id)
    assert bundle.left() == []


@pytest.mark.parametrize(
    "path",
    [
        "/sys/fs/cgroup/memory",
        "/sys/fs/cgroup/memory/",
        "/x",
        "/sys/fs/cgroup/memory/../pids/x",
        "/sys/fs/cgroup/memory/a/",
    ],
)
def test_record_that_names_everybodys_group(tmp_path, path):
    """Whatever is in a container's group is killed, so it must not be the topmost one."""
    directory = fresh(tmp_path)
    item = {"version": 1, "mount_point": "/sys/fs/cgroup/memory", "path": path,
            "controllers": ["memory"], "made": [path]}  # fmt: skip
    write(directory / "state.json", {**RECORD, "cgroup": {"directories": [item]}})
    code, _, said = main("--root", str(directory.parent), "delete", "hurt")
    assert (code, "is no group below" in said) == (1, True), said
    damaged(directory)
