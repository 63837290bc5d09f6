"""config.json: every wrong field is named, what is left out on purpose is refused by name."""

from __future__ import annotations

import copy
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicontainer.runtime import checks, config, features, jsonfile
from tests.bundles import Bundle, bundle

__all__ = ["bundle"]


def template() -> dict:
    return copy.deepcopy(features.template(rootless=False))


def put(value: dict, path: str, new) -> dict:
    *keys, last = path.split(".")
    for key in keys:
        value = value.setdefault(key, {})
    value[last] = new
    return value


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("ociVersion", 1, "ociVersion: a text is expected, not 1"),
        ("ociVersion", "2.0.0", "ociVersion: '2.0.0'"),
        ("process", None, "process: is required"),
        ("process.args", [], "process.args: at least 1 is needed"),
        ("process.args", ["a\0b"], "process.args[0]: 'a\\x00b' contains a NUL byte"),
        ("process.args", ["\ud800"], "process.args[0]"),
        ("process.cwd", "tmp", "process.cwd: an absolute path is expected"),
        ("process.env", ["A"], "process.env[0]: NAME=VALUE is expected"),
        ("process.env", ["=x"], "process.env[0]: NAME=VALUE is expected"),
        ("process.user.uid", -1, "process.user.uid"),
        ("process.user.uid", 2**32 - 1, "process.user.uid"),
        ("process.user.umask", 0o1000, "process.user.umask"),
        ("process.terminal", "yes", "process.terminal: true or false is expected"),
        ("process.rlimits", [{"type": "X", "soft": 1, "hard": 1}], "process.rlimits[0].type"),
        ("process.rlimits", [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}],
         "process.rlimits[0].soft: 2 is more than the hard limit"),
        ("process.oomScoreAdj", 1001, "process.oomScoreAdj"),
        ("process.scheduler", {"policy": "SCHED_FIFO"}, "process.scheduler: not supported"),
        ("process.ioPriority", {"class": "IOPRIO_CLASS_RT"}, "process.ioPriority: not supported"),
        ("root", None, "root: is required"),
        ("root.path", "", "root.path"),
        ("mounts", [{"source": "x"}], "mounts[0].destination: is required"),
        ("mounts", [{"destination": "/x", "options": ["idmap"]}], "mounts[0].options: 'idmap'"),
        ("mounts", [{"destination": "/x", "uidMappings": [1]}], "mounts[0].uidMappings"),
        ("hooks.poststart", [{"path": "true"}], "hooks.poststart[0].path: an absolute path"),
        ("hooks.poststop", [{"path": "/x", "timeout": 0}], "hooks.poststop[0].timeout"),
        ("hostname", "x" * 65, "hostname: at most 64 bytes"),
        ("annotations", {"a": 1}, "annotations.a: a text is expected"),
        ("linux.namespaces", [{"type": "moon"}], "linux.namespaces[0].type"),
        ("linux.namespaces", [], "linux.namespaces: mount is needed"),
        ("linux.namespaces", [{"type": "pid"}, {"type": "pid"}], "linux.namespaces[1].type"),
        ("linux.uidMappings", [{"containerID": 0, "hostID": 0, "size": 1}],
         "linux.uidMappings: needs a new user namespace"),
        ("linux.timeOffsets", {"boottime": {"secs": 1}}, "linux.timeOffsets: needs a new time"),
        ("linux.devices", [{"path": "/dev/x", "type": "z"}], "linux.devices[0].type"),
        ("linux.rootfsPropagation", "wide", "linux.rootfsPropagation"),
        ("linux.sysctl", {"kernel.panic": "1"}, "linux.sysctl.kernel.panic: is not in a namespace"),
        ("linux.sysctl", {"net/../../kernel/panic": "1"}, "linux.sysctl"),
        ("linux.intelRdt", {"closID": "x"}, "linux.intelRdt: not supported"),
        ("linux.personality", {"domain": "LINUX32"}, "linux.personality: not supported"),
        ("linux.maskedPaths", ["proc"], "linux.maskedPaths[0]"),
        ("linux.seccomp", {}, "linux.seccomp.defaultAction: is required"),
        ("linux.seccomp", {"defaultAction": "x", "architectures": 7},
         "linux.seccomp.architectures: a list"),
        ("linux.seccomp", {"defaultAction": "x", "syscalls": [{"names": "read", "action": "x"}]},
         "linux.seccomp.syscalls[0].names: a list"),
        ("linux.seccomp", {"defaultAction": "x", "listenerPath": "/run/agent"},
         "linux.seccomp.listenerPath: not supported"),
    ],
)  # fmt: skip
def test_wrong_fields_are_named(path, value, says):
    wrong = template()
    put(wrong, path, value)
    if value is None:
        del wrong[path]
    with pytest.raises(ValueError, match=re.escape(says)):
        config.check(wrong)


def test_sysctl_of_the_hosts_namespace():
    wrong = template()
    wrong["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
    config.check(wrong)
    wrong["linux"]["namespaces"] = [{"type": "mount"}]
    del wrong["hostname"]
    with pytest.raises(ValueError, match="needs a network namespace"):
        config.check(wrong)


def test_unknown_fields_and_null_are_ignored():
    fine = template()
    fine["vendor"] = {"x": 1}
    fine["linux"]["vendor"] = 7
    fine["hooks"] = None
    fine["linux"]["intelRdt"] = None
    config.check(fine)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("cgroupsPath", "/../x", "linux.cgroupsPath"),
        ("resources", {"memory": {"limit": "1G"}}, "linux.resources.memory.limit"),
        ("seccomp", {"defaultAction": "SCMP_ACT_NOTIFY"}, "SCMP_ACT_NOTIFY is not supported"),
        ("seccomp", {"defaultAction": "x"}, "linux.seccomp.defaultAction: unknown action"),
    ],
)
@pytest.mark.root
def test_what_the_kernel_floor_refuses_is_named_too(bundle: Bundle, field, value, says):
    bundle.config["linux"][field] = value
    done = bundle.create(check=False)
    assert done.returncode == 1
    assert says in done.stderr
    assert bundle.left() == []


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '{"a": NaN}', "[" * 5000, "\0"])
@pytest.mark.root
def test_files_that_are_no_configuration(bundle: Bundle, text):
    (bundle.directory / "other.json").write_text(text)
    done = bundle.call("create", "--config", "other.json", bundle.id, check=False)
    assert (done.returncode, "other.json" in done.stderr) == (1, True)


@pytest.mark.root
def test_no_configuration_at_all(bundle: Bundle):
    done = bundle.call("create", "--bundle", "/nowhere", bundle.id, check=False)
    assert "no such file or directory" in done.stderr
    assert "--bundle" in done.stderr


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_json_agrees_with_the_module(value):
    assert json.loads(jsonfile.dumps(value)) == value
    assert jsonfile.loads(json.dumps(value)) == value


def leaves(value, path=()):
    yield path
    if isinstance(value, dict):
        for key, one in value.items():
            yield from leaves(one, (*path, key))
    elif isinstance(value, list):
        for n, one in enumerate(value):
            yield from leaves(one, (*path, n))


PATHS = [path for path in leaves(template()) if path]


@given(st.sampled_from(PATHS), JSON)
@settings(max_examples=400)
def test_any_field_with_anything_in_it(path, value):
    spoilt = template()
    place = spoilt
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    try:
        config.check(spoilt)
    except ValueError as error:
        said = str(error)
    else:
        said = str(path[0])
    assert str(path[0]) in said


def test_shown_values_are_short():
    assert len(str(checks.wrong("field", "a text", ["x" * 1000]))) < 200
