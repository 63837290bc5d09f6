"""`explain`: no field of a configuration is missing, and no step carries one without saying so."""

from __future__ import annotations

import json
import os
import re
import subprocess

import pytest

from minicontainer.kernel import capabilities, cgroups, namespaces
from minicontainer.runtime import checks, config, features, steps
from minicontainer.runtime import plan as plans
from minicontainer.runtime.errors import ContainerError
from minicontainer.runtime_explain import NOTES, Explanation, Options
from tests.bundles import RUNTIME


def maximal() -> dict:
    """Everything that config.py knows and does not refuse; `test_maximal_is` holds it to that."""
    hook = {"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 5}
    ids = [{"containerID": 0, "hostID": 0, "size": 65536}]
    return {
        "ociVersion": "1.2.0",
        "hostname": "box",
        "domainname": "example.org",
        "annotations": {"org.example.key": "value", "plain": "value"},
        "root": {"path": "rootfs", "readonly": True},
        "process": {
            "terminal": True,
            "consoleSize": {"height": 25, "width": 80},
            "user": {"uid": 1000, "gid": 1000, "umask": 0o27, "additionalGids": [5, 6]},
            "args": ["sh", "-c", "id"],
            "env": ["PATH=/bin", "TERM=xterm"],
            "cwd": "/tmp",
            "capabilities": {
                kind: ["CAP_KILL", "CAP_NET_BIND_SERVICE"] for kind in capabilities.SETS
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 512, "hard": 1024},
                        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}],
            "noNewPrivileges": True,
            "oomScoreAdj": 100,
            "apparmorProfile": "unconfined",
            "selinuxLabel": "a:b:c",
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            {"destination": "/etc/hosts", "type": "bind", "source": "hosts",
             "options": ["rbind", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["ro"]},
        ],
        "hooks": {kind: [hook] for kind in config.HOOKS},
        "linux": {
            "namespaces": [{"type": kind} for kind in namespaces.NAMESPACES if kind != "network"]
            + [{"type": "network", "path": "/run/netns/box"}],
            "uidMappings": ids,
            "gidMappings": ids,
            "timeOffsets": {"monotonic": {"secs": 5, "nanosecs": 6},
                            "boottime": {"secs": 7, "nanosecs": 8}},
            "devices": [{"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229,
                         "fileMode": 0o600, "uid": 1, "gid": 2}],
            "cgroupsPath": "/minicontainer-test-explain/box",
            "resources": {
                "memory": {"limit": 1 << 26, "swap": 1 << 27, "reservation": 1 << 25,
                           "swappiness": 0, "kernel": 1 << 20, "checkBeforeUpdate": True},
                "cpu": {"shares": 512, "quota": 20000, "period": 100000, "cpus": "0"},
                "pids": {"limit": 64},
                "devices": [{"allow": False, "access": "rwm"},
                            {"allow": True, "type": "c", "major": 10, "minor": 229,
                             "access": "rw"}],
            },
            "sysctl": {"net.ipv4.ip_forward": "1", "kernel.msgmax": "8192"},
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO",
                "defaultErrnoRet": 38,
                "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
                "flags": ["SECCOMP_FILTER_FLAG_LOG"],
                "syscalls": [
                    {"names": ["read", "write", "execve"], "action": "SCMP_ACT_ALLOW"},
                    {"names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
                     "args": [{"index": 0, "value": 1, "valueTwo": 1,
                               "op": "SCMP_CMP_MASKED_EQ"}]},
                ],
            },
            "rootfsPropagation": "rslave",
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
            "mountLabel": "a:b:c",
        },
    }  # fmt: skip


def explain(tmp_path, value, **options) -> Explanation:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(value))
    return Explanation(str(path), str(tmp_path), **options)


def rows(tmp_path, value) -> dict[str, dict]:
    return {row["field"]: row for row in explain(tmp_path, value).fields}


def leaves(value, name=""):
    """The names of all fields that have a value, a list of plain values being one."""
    if isinstance(value, dict) and value:
        for key, one in value.items():
            yield from leaves(one, f"{name}.{key}".lstrip("."))
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        for n, one in enumerate(value):
            yield from leaves(one, f"{name}[{n}]")
    else:
        yield name


def known(check, name=""):
    """(name, check) of every field that a check knows; members of lists as `[]`."""
    if isinstance(check, checks.fields):
        for key, one in check.known.items():
            yield from known(one, f"{name}.{key}".lstrip("."))
    elif isinstance(check, checks.items) and isinstance(check.one, checks.fields):
        yield from known(check.one, f"{name}[]")
    else:
        yield name, check


KNOWN = dict(known(config.CONFIG))
CONFIGURATIONS = {
    "spec": features.template(False), "rootless": features.template(True), "maximal": maximal(),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_no_field_is_missing(tmp_path, name):
    value = CONFIGURATIONS[name]
    told = rows(tmp_path, value)
    assert list(told) == list(leaves(value))
    for row in told.values():
        assert row["status"] in ("step", "note", "warned", "nothing"), row
        assert bool(row["steps"]) == (row["status"] == "step"), row
        assert not row["steps"] or row["calls"], row
        assert row["status"] == "nothing" or row["clause"] or row["why"], row


def test_maximal_is_all_that_is_known():
    there = {re.sub(r"\[\d+\]", "[]", name) for name in leaves(maximal())}
    for name, check in KNOWN.items():
        if not isinstance(check, checks.refused):
            assert any(one == name or one.startswith(f"{name}.") for one in there), name


def test_each_known_field_is_carried_by_a_step_or_noted(tmp_path):
    """The list of what needs no step is short, and here."""
    told = rows(tmp_path, maximal())
    without = {name for name, row in told.items() if row["status"] != "step"}
    labels = {"process.apparmorProfile", "process.selinuxLabel", "linux.mountLabel"}
    limits = {name for name in without if name.startswith("linux.resources.")}
    noted = {name for name in without if name.startswith(tuple(NOTES))}
    assert without - labels - limits - noted == set()
    assert labels <= without
    # Of limits, those that the kernel's floor says have no effect, or none by themselves
    assert limits <= {f"linux.resources.memory.{key}" for key in
                      ("kernel", "swappiness", "checkBeforeUpdate")}  # fmt: skip


def test_every_declared_field_is_known():
    """A step that names a field which config.py does not have would be a spelling mistake."""
    names = [field for kind in steps_of(steps.Step) for field in kind.fields]
    assert len(names) > 30
    for name in [re.sub(r"\[\w+\]", "[]", field) for field in names]:
        assert any(one == name or one.startswith((f"{name}.", f"{name}[")) or
                   name.startswith(f"{one}.") for one in KNOWN), name  # fmt: skip


def steps_of(kind):
    for one in kind.__subclasses__():
        yield one
        yield from steps_of(one)


def described(value) -> dict[str, list]:
    """Name of a step -> its calls, for a plan that nobody applies."""
    linux = value["linux"]
    group = cgroups.look(linux.get("cgroupsPath") or "x", linux.get("resources") or {})
    plan = plans.build(value, "/nowhere", group, Options())
    return {step["name"]: step["calls"] for step in plans.describe(plan)}


# What a step depends on beside its own fields: where its files are, and how a filter is loaded.
DEPENDS = {
    "linux.cgroupsPath": {"cgroup limits"},
    "process.noNewPrivileges": {"capabilities", "seccomp"},
    "process.terminal": {"stdio owner"},  # declares it, and is there only without one
}
# Fields without which a configuration is none, or another one.
REQUIRED = re.compile(r"ociVersion|root.path|process.(args|cwd)|.*\.(type|destination|path|soft|"
                      r"hard|containerID|hostID|size)|linux\.seccomp\..*|linux\.resources\..*|"
                      r"linux\.(uid|gid)Mappings.*|.*consoleSize.*")  # fmt: skip


@pytest.mark.parametrize("name", [n for n in leaves(maximal()) if not REQUIRED.fullmatch(n)])
def test_a_step_says_which_fields_it_depends_on(tmp_path, name):
    """Without the field, only steps that declare it are different."""
    told = explain(tmp_path, maximal())
    row = next(row for row in told.fields if row["field"] == name)
    declared = {told.plan[number - 1]["name"] for number in row["steps"]}
    less = json.loads(json.dumps(maximal()))
    place, key = less, name
    while True:  # keys have dots, too: take the longest that fits
        found = max((k for k in place if key == k or key.startswith((f"{k}.", f"{k}["))), key=len)
        rest = key[len(found) :]
        if not rest:
            break
        place = place[found]
        if rest.startswith("["):
            number, _, rest = rest[1:].partition("]")
            place = place[int(number)]
        key = rest.lstrip(".")
    del place[found]
    before, after = described(maximal()), described(less)
    names = {step for step in before | after if before.get(step) != after.get(step)}
    assert names - declared - DEPENDS.get(name, set()) == set()


def test_what_is_refused_says_why(tmp_path):
    value = maximal()
    value["process"]["scheduler"] = {"policy": "SCHED_FIFO"}
    value["linux"]["personality"] = {"domain": "LINUX32"}
    value["linux"]["intelRdt"] = {"closID": "x"}
    value["linux"]["sysctl"]["kernel.panic"] = "1"
    value["mounts"][2]["options"].append("idmap")
    value["linux"]["seccomp"]["syscalls"][0]["action"] = "SCMP_ACT_NOTIFY"
    value["linux"]["resources"]["pids"]["limit"] = "many"
    told = rows(tmp_path, value)
    refused = {name: row["why"] for name, row in told.items() if row["status"] == "refused"}
    assert set(refused) == {
        "process.scheduler", "linux.personality", "linux.intelRdt", "linux.sysctl.kernel.panic",
        "mounts[2].options", "linux.seccomp.syscalls[0].action", "linux.resources.pids.limit",
    }  # fmt: skip
    assert "chrt(1)" in refused["process.scheduler"]
    assert "it would change the host" in refused["linux.sysctl.kernel.panic"]
    assert told["linux.maskedPaths"]["status"] == "step"


def test_unknown_fields_are_named(tmp_path):
    value = maximal()
    value["vendor"] = {"x": 1}
    value["mounts"][0]["vendor"] = 1
    value["process"]["user"]["username"] = "root"
    value["linux"]["resources"]["memory"]["moon"] = 1
    value["linux"]["resources"]["moon"] = {"limit": 1}
    value["linux"]["seccomp"]["moon"] = 1
    value["linux"]["seccomp"]["syscalls"][0]["comment"] = ""
    told = rows(tmp_path, value)
    assert {name for name, row in told.items() if row["status"] == "unknown"} == {
        "vendor", "mounts[0].vendor", "process.user.username", "linux.resources.memory.moon",
        "linux.resources.moon", "linux.seccomp.moon", "linux.seccomp.syscalls[0].comment",
    }  # fmt: skip


def test_null_is_absent(tmp_path):
    value = {**features.template(False), "hooks": None}
    row = rows(tmp_path, value)["hooks"]
    assert (row["status"], "absent" in row["why"]) == ("nothing", True)


def test_a_limit_has_the_writes_that_are_for_it(tmp_path):
    told = rows(tmp_path, maximal())
    calls = told["linux.resources.pids.limit"]["calls"]
    if not told["linux.resources.pids.limit"]["steps"]:
        pytest.skip("no pids controller on this host")
    assert len(calls) == 1
    assert calls[0].endswith("/box/pids.max', text='64')")


def test_a_controller_that_is_not_there(tmp_path):
    value = features.template(False)
    value["linux"]["resources"] = {"network": {"classID": 1}, "pids": {"limit": 5}}
    if "net_cls" in cgroups.detect.detect().versions():
        pytest.skip("this host has net_cls")
    told = rows(tmp_path, value)
    row = told["linux.resources.network"]
    assert (row["status"], "net_cls" in row["why"]) == ("refused", True)
    assert told["linux.resources.pids.limit"]["status"] == "step"


def test_without_cgroups(tmp_path):
    told = {row["field"]: row for row in explain(tmp_path, maximal(), own_cgroup=False).fields}
    assert told["linux.cgroupsPath"]["status"] == "warned"
    assert told["linux.resources.pids.limit"]["status"] == "warned"
    assert told["mounts[3].destination"]["status"] == "step"


def call(*words: str, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run([RUNTIME, *words], capture_output=True, text=True, **kwargs)


def test_nothing_is_touched_and_no_privilege_needed(tmp_path, ordinary_user):
    """The group of the configuration, the cache of filters, the bundle: all as before."""
    value = maximal()
    value["linux"]["seccomp"]["defaultErrnoRet"] = 4000 + os.getpid() % 90  # in no cache
    path = tmp_path / "config.json"
    path.write_text(json.dumps(value))
    places = [str(tmp_path), "/sys/fs/cgroup", "/run/minicontainer/seccomp"]
    watched = [place for place in places if os.path.isdir(place)]
    before = {place: sorted(os.listdir(place)) for place in watched}
    done = subprocess.run([*ordinary_user, RUNTIME, "explain", "--json", path],
                          capture_output=True, text=True)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert [row["field"] for row in told["fields"]] == list(leaves(value))
    assert {place: sorted(os.listdir(place)) for place in watched} == before
    assert not os.path.exists("/sys/fs/cgroup/pids/minicontainer-test-explain")


@pytest.mark.parametrize("columns", ["40", "90", "200"])
def test_the_table_fits(tmp_path, columns):
    (tmp_path / "config.json").write_text(json.dumps(maximal()))
    done = call("explain", cwd=tmp_path, env={**os.environ, "COLUMNS": columns})
    assert done.returncode == 0, done.stderr
    longest = max(map(len, done.stdout.splitlines()))
    assert longest <= min(max(int(columns), 80), 100)
    assert "\x1b" not in done.stdout
    for words in ("linux.maskedPaths", "mask paths", "config-linux.md#masked-paths", "lesson 10",
                  "steps that no field asks for", "wait for start"):  # fmt: skip
        assert words in done.stdout


def test_options_may_come_last_and_the_bundle_is_a_directory(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(features.template(False)))
    one = call("explain", f"{tmp_path}/config.json", "--json")
    two = call("explain", "--json", "--bundle", str(tmp_path))
    assert one.stdout == two.stdout
    assert f"{tmp_path}/rootfs" in one.stdout


@pytest.mark.parametrize(
    ("words", "text", "says"),
    [
        (["explain", "a", "b"], "{}", "one CONFIG.json"),
        (["explain", "a", "--bundle", "."], "{}", "not both"),
        (["explain", "nowhere.json"], "{}", "no such file or directory"),
        (["explain"], "{", "config.json"),
        (["explain"], "[]", "an object is expected"),
        (["explain"], "{}", "ociVersion: is required"),
        (["explain"], json.dumps({**features.template(False), "root": 7}), "root: an object"),
        (["explain"], json.dumps({**features.template(False), "root": {"path": ""}}), "root.path"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line(tmp_path, words, text, says):
    (tmp_path / "config.json").write_text(text)
    done = call(*words, cwd=tmp_path)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if "fix:" not in line]) == 1


@pytest.mark.slow
def test_anything_in_any_field_is_explained_or_refused(tmp_path):
    """Each field with a value of another kind: an explanation, or an error that is one line."""
    value, said = maximal(), []
    for odd in (7, "", [{}], {"x": {"y": [1]}}):
        for parent, key in list(places(value)):
            before, parent[key] = parent[key], odd
            try:
                explain(tmp_path, value)
            except ContainerError as error:
                said.append(error.message)
            parent[key] = before
    assert value == maximal()
    assert len(said) > 100
    assert [message for message in said if "\n" in message] == []


def places(value):
    """Each object or list in it, and each key there."""
    for key, one in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(one, dict | list):
            yield from places(one)
