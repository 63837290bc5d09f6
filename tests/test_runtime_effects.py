"""What a configuration does, as the kernel shows it, and the same from runc for the same bundle."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from minicontainer.kernel import capabilities, namespaces
from tests.bundles import FOREVER, Bundle, bundle
from tests.roots import ORDINARY_UID

__all__ = ["bundle"]
pytestmark = pytest.mark.root
needs_runc = pytest.mark.skipif(not shutil.which("runc"), reason="apt install runc")


def status_of(text: str) -> dict[str, str]:
    return {
        line.split(":")[0]: line.split(":")[1].strip() for line in text.splitlines() if ":" in line
    }


def sh(bundle: Bundle, script: str) -> str:
    done = bundle.run("sh", "-c", script)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- namespaces --------------------------------------------------------------------------------


def test_all_eight_namespaces_new_and_in_any_order(bundle: Bundle):
    kinds = list(reversed(namespaces.NAMESPACES))
    bundle.config["linux"]["namespaces"] = [{"type": kind} for kind in kinds]
    for field in ("uidMappings", "gidMappings"):
        bundle.config["linux"][field] = [{"containerID": 0, "hostID": 0, "size": 1000}]
    out = sh(bundle, "for n in /proc/self/ns/*; do stat -Lc '%n %i' $n; done")
    inside = {Path(line.split()[0]).name: int(line.split()[1]) for line in out.splitlines()}
    for kind, inode in namespaces.inodes().items():
        assert inside[namespaces.NAMESPACES[kind][0]] != inode, kind


def test_namespaces_are_joined_by_path(bundle: Bundle, tmp_path_factory):
    bundle.args(*FOREVER).create()
    pid = bundle.state()["pid"]
    bundle.call("start", bundle.id)
    other = Bundle(tmp_path_factory.mktemp("other"))
    try:
        joined = ("network", "ipc", "uts", "pid")
        other.config["linux"]["namespaces"] = [
            {"type": kind, "path": f"/proc/{pid}/ns/{namespaces.NAMESPACES[kind][0]}"}
            for kind in joined
        ] + [{"type": "mount"}]
        del other.config["hostname"]
        out = sh(other, "for n in /proc/self/ns/*; do stat -Lc '%n %i' $n; done; echo shell $$")
        inside = {Path(line.split()[0]).name: int(line.split()[1]) for line in out.splitlines()}
        theirs = namespaces.inodes(pid)
        for kind in joined:
            assert inside[namespaces.NAMESPACES[kind][0]] == theirs[kind], kind
        assert inside["mnt"] != theirs["mount"]
        assert inside["shell"] != 1
    finally:
        other.clean()


def test_missing_namespace_is_named(bundle: Bundle):
    bundle.config["linux"]["namespaces"].append({"type": "user", "path": "/no/such"})
    done = bundle.args("true").create(check=False)
    assert "linux.namespaces user: open('/no/such')" in done.stderr


def test_user_namespace_maps_ids_and_files(bundle: Bundle):
    bundle.config["linux"]["namespaces"].append({"type": "user"})
    for field in ("uidMappings", "gidMappings"):
        bundle.config["linux"][field] = [
            {"containerID": 0, "hostID": 100000, "size": 500},
            {"containerID": 500, "hostID": 200000, "size": 500},
        ]
    bundle.config["process"]["user"] = {"uid": 500, "gid": 501, "additionalGids": [502]}
    for path in (bundle.root, *bundle.root.rglob("*")):
        os.chown(path, 100000, 100000, follow_symlinks=False)
    for above in (bundle.directory, *bundle.directory.parents):
        if above.name.startswith(("pytest", "test_")):
            above.chmod(0o755)
    out = sh(bundle, "id; cat /proc/self/uid_map; stat -c %u /bin/busybox; echo x > /dev/null")
    assert "uid=500 gid=501 groups=502" in out
    assert out.split()[-1] == "0"
    assert [line.split() for line in out.splitlines()[1:3]] == [
        ["0", "100000", "500"], ["500", "200000", "500"]
    ]  # fmt: skip


def test_time_offsets(bundle: Bundle):
    bundle.config["linux"]["namespaces"].append({"type": "time"})
    bundle.config["linux"]["timeOffsets"] = {"boottime": {"secs": 86400000, "nanosecs": 0}}
    assert float(sh(bundle, "cat /proc/uptime").split()[0]) > 86400000


def test_hostname_domainname_sysctl(bundle: Bundle):
    bundle.config.update(hostname="box", domainname="example")
    bundle.config["linux"]["sysctl"] = {
        "net.ipv4.ip_forward": "1", "kernel.msgmax": "9999", "net/ipv4/conf/lo/forwarding": "0",
    }  # fmt: skip
    out = sh(bundle, "hostname; cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_forward "
                     "/proc/sys/kernel/msgmax /proc/sys/net/ipv4/conf/lo/forwarding")  # fmt: skip
    assert out.split() == ["box", "example", "1", "9999", "0"]


# --- files -------------------------------------------------------------------------------------


def test_mounts_of_every_kind(bundle: Bundle):
    outside = bundle.directory / "outside"
    (outside / "below").mkdir(parents=True)
    (outside / "file").write_text("text")
    (bundle.root / "copied").mkdir()
    (bundle.root / "copied/file").write_text("copy")
    bundle.config["mounts"] += [
        {"destination": "/bind", "type": "bind", "source": str(outside), "options": ["ro"]},
        {"destination": "/one", "source": "outside/file", "options": ["bind"]},
        {"destination": "/all", "source": str(outside), "options": ["rbind", "rro", "rshared"]},
        {"destination": "relative", "type": "tmpfs", "source": "t", "options": ["size=1m"]},
        {"destination": "/copied", "type": "tmpfs", "source": "t", "options": ["tmpcopyup", "ro"]},
    ]
    out = sh(
        bundle,
        "cat /bind/file /one /copied/file; touch /bind/x || echo 1; "
        "touch /all/below/x || echo 2; touch /copied/x || echo 3; "
        "cat /proc/self/mountinfo",
    )
    assert out.startswith("texttextcopy")
    assert out.split()[0].endswith("copy1")
    targets = {line.split()[4]: line for line in out.splitlines() if " - " in line}
    assert {"/bind", "/one", "/all", "/relative", "/copied"} <= set(targets)
    assert "shared:" in targets["/all"]
    assert "size=1024k" in targets["/relative"]


def test_devices_are_those_and_no_others_open(bundle: Bundle):
    bundle.config["linux"]["devices"] = [
        {"path": "/dev/mine/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640,
         "uid": 7, "gid": 8},
        {"path": "/dev/pipe", "type": "p"},
    ]  # fmt: skip
    bundle.config["process"]["capabilities"] = {
        kind: ["CAP_MKNOD", "CAP_DAC_OVERRIDE"] for kind in ("bounding", "effective", "permitted")
    }
    out = sh(bundle, "stat -c '%a %u %g %t %T %F' /dev/mine/zero; stat -c %F /dev/pipe; "
                     "head -c 1 /dev/mine/zero | wc -c; mknod /mem c 1 1; "
                     "head -c 1 /mem 2>&1 | tail -1")  # fmt: skip
    lines = out.splitlines()
    assert lines[0] == "640 7 8 1 5 character special file"
    assert lines[1:3] == ["fifo", "1"]
    assert "Operation not permitted" in lines[3]


def test_masked_and_read_only(bundle: Bundle):
    bundle.config["root"]["readonly"] = True
    for name in ("proc", "dev", "sys"):
        (bundle.root / name).mkdir()
    out = sh(bundle, "cat /proc/keys /proc/timer_list | wc -c; ls /sys/firmware | wc -l; "
                     "echo 1 > /proc/sys/kernel/panic || echo no; touch /x || echo no")  # fmt: skip
    assert out.split() == ["0", "0", "no", "no"]


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_proc_as_a_symlink_is_refused(bundle: Bundle, name):
    (bundle.root / "elsewhere").mkdir()
    (bundle.root / name).symlink_to("elsewhere")
    done = bundle.args("true").create(check=False)
    assert "belongs on a directory, not on a symlink" in done.stderr
    assert bundle.left() == []


def test_cgroup_view_is_the_containers_and_read_only(bundle: Bundle):
    shown = "cat /sys/fs/cgroup/pids/cgroup.procs /sys/fs/cgroup/cgroup.procs 2>/dev/null"
    tried = "mkdir /sys/fs/cgroup/x /sys/fs/cgroup/pids/x 2>/dev/null || echo no"
    out = sh(bundle, f"{shown}; {tried}")
    assert "1" in out.split()
    assert out.split()[-1] == "no"


def test_preserved_descriptors(bundle: Bundle):
    read_fd, write_fd = os.pipe()
    try:
        words = [*bundle.args("sh", "-c", "echo hi >&3; ls /proc/$$/fd; true").command,
                 "run", "--preserve-fds", "1", bundle.id]  # fmt: skip
        bundle.write()
        script = f'exec 3>&{write_fd}; exec "$@"'
        done = subprocess.run(["bash", "-c", script, "sh", *words], cwd=bundle.directory,
                              pass_fds=[write_fd], capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["0", "1", "2", "3"]
        assert os.read(read_fd, 10) == b"hi\n"
    finally:
        os.close(read_fd)
        os.close(write_fd)


# --- process -----------------------------------------------------------------------------------


@pytest.mark.parametrize("uid", [0, 1000])
def test_five_sets_of_capabilities(bundle: Bundle, uid):
    sets = {
        "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_NET_RAW"],
        "permitted": ["CAP_KILL", "CAP_CHOWN"],
        "effective": ["CAP_KILL"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"],
    }  # fmt: skip
    bundle.config["process"].update(user={"uid": uid, "gid": uid}, capabilities=sets)
    found = status_of(sh(bundle, "cat /proc/self/status"))
    assert int(found["CapBnd"], 16) == capabilities.mask(sets["bounding"])
    assert int(found["CapInh"], 16) == int(found["CapAmb"], 16) == capabilities.mask(["CAP_KILL"])
    if uid:  # root gets permitted and effective from the bounding set again at exec
        assert int(found["CapPrm"], 16) == int(found["CapEff"], 16)
        assert int(found["CapEff"], 16) == capabilities.mask(["CAP_KILL"])


def test_capabilities_that_cannot_be_had_are_warnings(bundle: Bundle):
    names = ["CAP_KILL", "CAP_BRAND_NEW"]
    for kind in bundle.config["process"]["capabilities"]:
        bundle.config["process"]["capabilities"][kind] = names
    done = bundle.run("true")
    assert done.returncode == 0
    assert "unknown capability 'CAP_BRAND_NEW'" in done.stderr


def test_limits_scores_and_umask(bundle: Bundle):
    bundle.config["process"].update(
        rlimits=[{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}], oomScoreAdj=500,
        user={"uid": 0, "gid": 0, "umask": 0o27, "additionalGids": [10, 20]},
    )  # fmt: skip
    out = sh(bundle, "ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj; umask; id")
    assert out.split()[:4] == ["50", "60", "500", "0027"]
    assert "groups=10,20" in out


def test_limit_that_the_host_does_not_give(bundle: Bundle):
    if capabilities.current()["CapEff"] & capabilities.mask(["CAP_SYS_RESOURCE"]):
        pytest.skip("this host lets us raise hard limits")
    bundle.config["process"]["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 1 << 20, "hard": 1 << 20}
    ]
    done = bundle.args("true").create(check=False)
    assert "operation not permitted: process.rlimits RLIMIT_NOFILE" in done.stderr
    assert "--ulimit nofile=1024:1024" in done.stderr
    assert bundle.left() == []


@pytest.mark.parametrize("no_new_privs", [True, False])
@pytest.mark.parametrize("uid", [0, 1000])
def test_filter_is_loaded_last_and_no_capability_stays(bundle: Bundle, no_new_privs, uid):
    """It may forbid nearly everything that we ourselves do before."""
    bundle.config["process"].update(noNewPrivileges=no_new_privs, user={"uid": uid, "gid": uid})
    bundle.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{
            "names": ["prctl", "setresuid", "setresgid", "setgroups", "mount", "pivot_root",
                      "unshare", "chdir", "umask", "close_range", "seccomp", "mkdirat"],
            "action": "SCMP_ACT_ERRNO",
        }],
    }  # fmt: skip
    found = status_of(sh(bundle, "cat /proc/self/status"))
    assert found["Seccomp"] == "2"
    assert found["NoNewPrivs"] == str(int(no_new_privs))
    wanted = bundle.config["process"]["capabilities"]["bounding"]
    assert int(found["CapBnd"], 16) == capabilities.mask(wanted)
    assert int(found["CapPrm"], 16) == (capabilities.mask(wanted) if uid == 0 else 0)


def test_limits_of_the_cgroup_hold(bundle: Bundle):
    bundle.config["linux"]["resources"]["pids"] = {"limit": 7}
    bundle.config["linux"]["resources"]["memory"] = {"limit": 48 << 20}
    done = bundle.run("sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 2 & done; wait")
    assert "can't fork" in done.stderr
    done = bundle.run("sh", "-c", "head -c 100000000 /dev/zero | tail > /dev/null; exit $?")
    assert done.returncode == 137


def test_cgroups_disabled(bundle: Bundle):
    bundle.command += ["--cgroup-manager", "disabled"]
    done = bundle.run("cat", "/proc/self/cgroup")
    assert bundle.id not in done.stdout
    assert "linux.resources: no effect" in done.stderr


# --- rootless ----------------------------------------------------------------------------------


def test_as_an_ordinary_user(bundle: Bundle, ordinary_user):
    """With its own id alone; `spec --rootless` is what it starts from."""
    for path in (bundle.directory, bundle.root, *bundle.root.rglob("*")):
        os.chown(path, ORDINARY_UID, ORDINARY_UID, follow_symlinks=False)
    bundle.command = [*ordinary_user, *bundle.command]
    subprocess.run([*bundle.command, "spec", "--rootless"], cwd=bundle.directory, check=True)
    path = bundle.directory / "config.json"
    bundle.config = json.loads(path.read_text())
    bundle.config["process"].update(terminal=False, args=["sh", "-c", "id; exit 7"])
    bundle.config["root"]["readonly"] = False
    path.unlink()
    done = bundle.call("run", bundle.id, check=False)
    assert (done.stdout.split()[0], done.returncode) == ("uid=0", 7), done.stderr
    bundle.args(*FOREVER).create()
    bundle.call("start", bundle.id)
    done = bundle.call("exec", bundle.id, "sh", "-c", "id; cat /proc/1/comm")
    assert done.stdout.split()[0] == "uid=0"
    bundle.call("delete", "--force", bundle.id)
    assert bundle.left() == []


# --- the oracle --------------------------------------------------------------------------------

SHOWN = r"""
cat /proc/self/status | grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups|Umask|SigBlk|SigIgn)'
hostname; pwd; env | sort; id; ulimit -a
ls -l /dev /dev/pts | awk '{print $1, $3, $4, $5, $6, $NF}' | grep -v -E 'total|core|->'
for n in /proc/self/ns/*; do readlink $n | cut -d: -f1; done
cat /proc/self/oom_score_adj /proc/sys/kernel/domainname
"""


def runc(bundle: Bundle, *words: str) -> str:
    state = bundle.directory / "runc"
    bundle.write()
    done = subprocess.run(
        ["runc", "--root", state, "run", bundle.id], cwd=bundle.directory, capture_output=True,
        text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def mounts_of(text: str) -> dict[str, tuple]:
    """Mount point -> root below, options, propagation, kind, source and superblock options."""
    found = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if fields[4].startswith("/sys/fs/cgroup"):
            continue  # ours is read-only as a whole; what is in there is compared below
        found[fields[4]] = (sorted(fields[5].split(",")), fields[6:], kind[0])
    return found


@needs_runc
@pytest.mark.parametrize("uid", [0, 1000])
def test_runc_shows_the_same_from_inside(bundle: Bundle, uid):
    bundle.config["process"]["user"] = {"uid": uid, "gid": uid, "additionalGids": [5, 6]}
    bundle.config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 100}]
    bundle.args("sh", "-c", SHOWN)
    theirs = runc(bundle)
    ours = bundle.call("run", bundle.id, stdin=subprocess.DEVNULL).stdout
    assert ours.splitlines() == theirs.splitlines()


@needs_runc
def test_runc_mounts_the_same(bundle: Bundle):
    bundle.args("cat", "/proc/self/mountinfo")
    theirs, ours = mounts_of(runc(bundle)), mounts_of(bundle.call("run", bundle.id).stdout)
    assert sorted(ours) == sorted(theirs)
    for target, shown in theirs.items():
        if target in bundle.config["linux"]["maskedPaths"]:
            # runc covers a file with its /dev/null by path, we by descriptor: the same file
            assert ours[target][2] == shown[2]
            continue
        assert ours[target] == shown, target


@needs_runc
def test_runc_sets_the_same_limits(bundle: Bundle):
    # The fewest shares: runc has turned them into a weight by another formula since 1.3.2, and only
    # at the ends both give the same.
    bundle.config["linux"]["resources"].update(
        memory={"limit": 64 << 20, "reservation": 32 << 20},
        cpu={"shares": 2, "quota": 50000, "period": 100000, "cpus": "0"}, pids={"limit": 77},
    )  # fmt: skip
    bundle.args(
        "sh", "-c", "cd /sys/fs/cgroup; grep . memory/memory.limit_in_bytes pids/pids.max "
        "memory/memory.soft_limit_in_bytes cpu/cpu.shares cpu/cpu.cfs_quota_us cpuset/cpuset.cpus "
        "devices/devices.list memory.max memory.low pids.max cpu.max cpu.weight cpuset.cpus "
        "2>/dev/null; true",
    )  # fmt: skip
    # runc 1.1 still allows tun to everybody; 1.2 does not
    theirs = sorted(line for line in runc(bundle).splitlines() if " 10:200 " not in line)
    ours = sorted(bundle.call("run", bundle.id).stdout.splitlines())
    assert ours == theirs
    assert len(ours) > 5


@needs_runc
def test_runc_has_the_same_state(bundle: Bundle):
    bundle.config["annotations"] = {"a": "b"}
    bundle.args(*FOREVER).create()
    ours = bundle.state()
    bundle.call("delete", "--force", bundle.id)
    words = ["runc", "--root", str(bundle.directory / "runc")]
    subprocess.run([*words, "create", bundle.id], cwd=bundle.directory, check=True,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)  # fmt: skip
    try:
        done = subprocess.run([*words, "state", bundle.id], check=True, capture_output=True)
        theirs = json.loads(done.stdout)
    finally:
        subprocess.run([*words, "delete", "--force", bundle.id], check=True)
    assert set(ours) == set(theirs)
    same = ("id", "status", "bundle", "rootfs", "annotations", "owner")
    assert {key: ours[key] for key in same} == {key: theirs[key] for key in same}
