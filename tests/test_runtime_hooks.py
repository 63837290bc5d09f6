"""Hooks: order, namespaces, state on stdin, timeouts, and what a failure does."""

from __future__ import annotations

import json
import os

import pytest

from minicontainer.runtime.config import HOOKS
from tests.bundles import Bundle, alive, bundle

__all__ = ["bundle"]
pytestmark = pytest.mark.root


def hook(script: str, **more) -> dict:
    return {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"], **more}


def lines(bundle: Bundle, name: str = "log") -> list[str]:
    path = bundle.directory / name
    return path.read_text().splitlines() if path.exists() else []


def test_all_six_in_order_with_the_state(bundle: Bundle):
    log = bundle.directory / "log"
    inner = bundle.root / "log"
    for kind in HOOKS:
        path = "/log" if kind == "startContainer" else log
        bundle.config.setdefault("hooks", {})[kind] = [
            hook(f"echo {kind} $(cat) $(readlink /proc/self/ns/mnt) >> {path}")
        ]
    bundle.config["annotations"] = {"a": "b"}
    bundle.args("true").create()
    pid = bundle.state()["pid"]
    inside = os.readlink(f"/proc/{pid}/ns/mnt")
    assert [line.split()[0] for line in lines(bundle)] == list(HOOKS[:3])
    bundle.call("start", bundle.id)
    bundle.call("delete", "--force", bundle.id)
    seen = {line.split()[0]: line.split() for line in [*lines(bundle), inner.read_text()]}
    assert list(seen) == [*HOOKS[:3], "poststart", "poststop", "startContainer"]
    for kind, (_, text, namespace) in seen.items():
        state = json.loads(text)
        assert state["id"] == bundle.id
        assert state["bundle"] == str(bundle.directory)
        assert state["annotations"] == {"a": "b"}
        assert (namespace == inside) == (kind in ("createContainer", "startContainer")), kind
        wanted = {"startContainer": "created", "poststop": "stopped"}.get(kind, "creating")
        if kind == "poststart":
            assert state["status"] in ("running", "stopped")  # `true` is fast
        else:
            assert (state["status"], state["pid"]) == (wanted, 0 if kind == "poststop" else pid)


def test_create_runtime_sees_the_network_namespace(bundle: Bundle):
    """What CNI and docker need: set the container's network up from outside, by its pid."""
    bundle.config["hooks"] = {"createRuntime": [hook(
        "pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/');"
        "nsenter -t $pid -n ip link add veth7 type veth peer name veth8"
    )]}  # fmt: skip
    done = bundle.run("ip", "-o", "link")
    assert "veth7" in done.stdout


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_failure_at_create_leaves_nothing_and_runs_poststop(bundle: Bundle, kind):
    bundle.config["hooks"] = {
        kind: [hook("echo oh no; exit 3"), hook("exit 0")],
        "poststop": [hook(f"echo poststop >> {bundle.directory}/log")],
    }
    done = bundle.args("true").create(check=False)
    assert done.returncode == 1
    assert f"hooks.{kind}[0]: /bin/sh: exit status 3: oh no" in done.stderr
    assert bundle.left() == []
    assert lines(bundle) == ["poststop"]


def test_failure_at_start_stops_the_container(bundle: Bundle):
    bundle.config["hooks"] = {"startContainer": [hook("exit 4")]}
    bundle.args("touch", "/ran").create()
    done = bundle.call("start", bundle.id, check=False)
    assert done.returncode == 1
    assert "hooks.startContainer[0]: /bin/sh: exit status 4" in done.stderr
    assert bundle.state()["status"] == "stopped"
    assert not (bundle.root / "ran").exists()


@pytest.mark.parametrize("kind", ["poststart", "poststop"])
def test_later_failures_are_warnings_and_the_others_still_run(bundle: Bundle, kind):
    bundle.config["hooks"] = {kind: [hook("exit 5"), hook(f"echo on >> {bundle.directory}/log")]}
    done = bundle.run("true")
    assert done.returncode == 0
    assert f"hooks.{kind}[0]: /bin/sh: exit status 5" in done.stderr
    assert lines(bundle) == ["on"]
    assert bundle.left() == []


def test_timeout_kills_the_hook_and_what_it_started(bundle: Bundle):
    script = f"sleep 1000 & echo $! > {bundle.directory}/log; wait"
    bundle.config["hooks"] = {"createRuntime": [hook(script, timeout=1)]}
    done = bundle.args("true").create(check=False)
    assert "timed out after 1 s" in done.stderr
    assert not alive(int(lines(bundle)[0]))
    assert bundle.left() == []


def test_missing_program_is_named(bundle: Bundle):
    bundle.config["hooks"] = {"createRuntime": [{"path": "/no/such/hook"}]}
    done = bundle.args("true").create(check=False)
    assert "/no/such/hook: exit status 127: no such file or directory" in done.stderr


def test_hooks_get_their_environment_and_no_descriptors(bundle: Bundle):
    bundle.config["hooks"] = {"createRuntime": [
        {"path": "/bin/sh", "env": ["A=b"],
         "args": ["sh", "-c", f"exec > {bundle.directory}/log; /usr/bin/env; "
                              "/bin/ls -l /proc/self/fd"]}
    ]}  # fmt: skip
    bundle.args("true").create()
    env = [line for line in lines(bundle) if "=" in line]
    assert {line.split("=")[0] for line in env} <= {"A", "PWD", "SHLVL", "_", "OLDPWD"}
    fds = [line.split("->")[0].split()[-1] for line in lines(bundle) if "->" in line]
    assert fds == ["0", "1", "2", "3"]  # 3 is ls's own


def test_hook_that_ignores_a_large_state(bundle: Bundle):
    bundle.config["annotations"] = {"large": "x" * 300_000}
    bundle.config["hooks"] = {"createRuntime": [hook("exit 0")]}
    assert bundle.args("true").create().returncode == 0
