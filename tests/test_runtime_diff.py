"""`diff`: what it says of two processes is what the kernel says of each."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import time

import pytest

from minicontainer import runtime_diff
from minicontainer.kernel import capabilities, namespaces
from tests.bundles import FOREVER, RUNTIME, Bundle, alive, bundle

__all__ = ["bundle"]


@pytest.fixture
def web(bundle: Bundle) -> Bundle:
    linux = bundle.config["linux"]
    linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    linux["resources"] = {"pids": {"limit": 77}}
    bundle.config["root"]["readonly"] = True
    bundle.config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 100}]
    bundle.args(*FOREVER).create()
    bundle.call("start", bundle.id)
    return bundle


def diff(bundle: Bundle, a: str, b: str) -> dict:
    return json.loads(bundle.call("diff", a, b, "--json").stdout)


@pytest.mark.root
def test_a_container_and_the_host(web: Bundle):
    told = diff(web, web.id, "host")
    pid = web.state()["pid"]
    assert (told["a"], told["b"]["name"]) == ({"name": web.id, "pid": pid}, "host")

    inside, outside = namespaces.inodes(pid), namespaces.inodes()
    assert {kind: (one["a"], one["b"]) for kind, one in told["namespaces"].items()} == {
        kind: (inside[kind], outside[kind]) for kind in inside
    }
    shared = {kind for kind, one in told["namespaces"].items() if one["equal"]}
    assert shared == {"user", "time"}

    kept = set(web.config["process"]["capabilities"]["bounding"])
    sets = told["capabilities"]
    assert set(sets) == set(capabilities.SETS)
    assert set(sets["effective"]["both"]) | set(sets["effective"]["only_a"]) == kept
    assert "CAP_SYS_ADMIN" in sets["bounding"]["only_b"]

    process = told["process"]
    assert (process["seccomp"]["a"], process["seccomp"]["b"]) == ("filter", "none")
    assert (process["seccomp filters"]["a"], process["no_new_privs"]["a"]) == ("1", "1")
    assert process["root"]["a"] == "read-only"
    assert process["user"] == {"a": "0", "b": "0", "equal": True}

    assert told["rlimits"]["max open files"]["a"] == "99:100"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert told["rlimits"]["max open files"]["b"] == f"{soft}:{hard}"

    pids = next(one for name, one in told["cgroups"].items()
                if name == "v2" or "pids" in name.split(","))  # fmt: skip
    assert pids["a"].endswith(web.id)
    assert pids["limits"]["pids.max"]["a"] == "77"


@pytest.mark.root
def test_mounts_by_mount_point(web: Bundle):
    told = diff(web, web.id, "host")["mounts"]
    assert told["only_a"]["/proc/sys"]["options"][0] == "ro"
    assert {"nosuid", "noexec"} <= set(told["differ"]["/proc"]["options"]["only_a"])
    assert told["differ"]["/"]["root"]["a"].endswith(str(web.root))
    mirrored = diff(web, "host", web.id)["mounts"]
    assert mirrored["only_b"] == told["only_a"]
    assert mirrored["only_a"] == told["only_b"]


@pytest.mark.root
def test_a_container_and_itself(web: Bundle):
    told = diff(web, web.id, f"pid:{web.state()['pid']}")
    assert all(one["equal"] for one in told["namespaces"].values())
    assert all(one["equal"] for one in told["process"].values())
    assert not any(one["only_a"] or one["only_b"] for one in told["capabilities"].values())
    assert (told["mounts"]["only_a"], told["mounts"]["only_b"], told["mounts"]["differ"]) == (
        {}, {}, {},
    )  # fmt: skip
    assert told["rlimits"] == {}
    assert all(not one["limits"] and one["a"] == one["b"] for one in told["cgroups"].values())


@pytest.mark.root
def test_user_namespaces_have_maps(bundle: Bundle):
    linux = bundle.config["linux"]
    linux["namespaces"].append({"type": "user"})
    for field in ("uidMappings", "gidMappings"):
        linux[field] = [{"containerID": 0, "hostID": 70000, "size": 1000},
                        {"containerID": 1000, "hostID": 0, "size": 1}]  # fmt: skip
    for path in (bundle.directory, *bundle.directory.parents):
        if path.name.startswith(("test_", "pytest", "mct")):
            path.chmod(0o755)
    os.chown(bundle.root, 70000, 70000)
    bundle.args(*FOREVER).create()
    process = diff(bundle, bundle.id, "host")["process"]
    assert process["uid map"]["a"] == "0:70000:1000 1000:0:1"
    assert process["user"]["a"] == "70000"  # seen from the host


@pytest.mark.root
@pytest.mark.parametrize("columns", ["80", "100"])
def test_the_table_says_it_too_and_fits(web: Bundle, columns):
    done = web.call("diff", web.id, "host", env={**os.environ, "COLUMNS": columns})
    assert max(map(len, done.stdout.splitlines())) <= int(columns)
    for words in ("namespaces: 6 of 8", "sys_admin", "read-only", "99:100", "77", "/proc/sys"):
        assert words in done.stdout, words
    assert "\x1b" not in done.stdout


def test_mountinfo_with_odd_names():
    text = (
        "30 25 0:26 / / rw,relatime shared:1 master:2 - ext4 /dev/sda\\0401 rw\n"
        "31 30 0:27 /a\\134b /x\\040y ro - tmpfs  rw,size=5k\n"
        "32 31 0:28 / /x\\040y rw - ramfs none rw\n"
    )
    mounts = runtime_diff._mounts(text)
    assert list(mounts) == ["/", "/x y"]
    assert mounts["/"]["source"] == "/dev/sda 1"
    assert mounts["/"]["propagation"] == ["master", "shared"]
    assert mounts["/x y"]["type"] == "ramfs"  # the topmost


def test_limits_of_a_process_are_those_that_it_has():
    told = runtime_diff.look(os.getpid())["rlimits"]
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    words = [("unlimited" if n == resource.RLIM_INFINITY else str(n)) for n in (soft, hard)]
    assert told["max core file size"] == ":".join(words)
    assert len(told) == 16


def call(*words: str, user: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    return subprocess.run([*user, RUNTIME, *words], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["host"], "diff needs two"),
        (["host", "host", "host"], "diff needs two"),
        (["host", "no-such-container"], "does not exist"),
        (["pid:0", "host"], "pid:NUMBER"),
        (["pid:x", "host"], "pid:NUMBER"),
        (["host", "pid:4194304"], "there is no process 4194304"),
        (["a/b", "host"], "container id"),
    ],
)
def test_wrong_words(tmp_path, words, says):
    done = call("--root", str(tmp_path), "diff", *words)
    assert (done.returncode, says in done.stderr) == (1, True), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.root
def test_a_container_that_does_not_run(bundle: Bundle):
    bundle.args(*FOREVER).create()
    pid = bundle.state()["pid"]
    bundle.call("kill", bundle.id, "KILL")
    until = time.monotonic() + 20
    while alive(pid):
        assert time.monotonic() < until
    done = bundle.call("diff", bundle.id, "host", check=False)
    assert done.returncode == 1
    assert "is stopped" in done.stderr


def test_somebody_elses_process(tmp_path, ordinary_user):
    if not ordinary_user:
        pytest.skip("only root can show that an ordinary user may not")
    done = call("--root", str(tmp_path), "diff", "host", "pid:1", user=tuple(ordinary_user))
    assert done.returncode == 1
    assert "permission denied" in done.stderr
    done = call("--root", str(tmp_path), "diff", "host", "host", user=tuple(ordinary_user))
    assert done.returncode == 0
