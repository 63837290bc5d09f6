"""`minicontainer-runtime` of an ordinary user: with a range of subordinate ids, and with none.

The user exists only in the mount namespace that each command gets for itself: there /etc/passwd,
/etc/subuid and /etc/subgid are the test's own, so that nothing on this host is changed.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from minicontainer.kernel import cgroups
from tests.bundles import FOREVER, Bundle, alive, end
from tests.roots import ORDINARY_UID, make_busybox_root

pytestmark = [pytest.mark.root, pytest.mark.rootless]

USER = "mct-user"
# Root plays an ordinary user; who is one is himself.
UID, GID = os.geteuid() or ORDINARY_UID, os.getegid() or ORDINARY_UID
FIRST, COUNT = 3_000_000, 65536  # where no distribution begins
MAPPING = [
    {"containerID": 0, "hostID": UID, "size": 1},
    {"containerID": 1, "hostID": FIRST, "size": COUNT},
]


@pytest.fixture
def bundle(tmp_path: Path):
    made = Bundle(tmp_path)
    yield made
    made.clean()


class Account:
    """The words before a command: somebody with a name, and files of /etc to go with it."""

    def __init__(self, directory: Path, words: list[str], ranges: str | None) -> None:
        self.directory, self.words = directory, words
        passwd = Path("/etc/passwd").read_text()
        self.hidden = {
            "/etc/passwd": f"{passwd}{USER}:x:{ORDINARY_UID}:{ORDINARY_UID}::{directory}:/bin/sh\n",
            "/etc/subuid": ranges, "/etc/subgid": ranges,
        }  # fmt: skip

    def command(self, missing: str = "") -> list[str]:
        """missing: a program that is not installed."""
        script = ["set -e"]
        for path, text in self.hidden.items():
            ours = self.directory / path.replace("/", "-")
            ours.write_text(text or "")
            ours.chmod(0o644)
            script.append(f"[ -e {path} ] || : > {path}")
            script.append(f"mount --bind {shlex.quote(str(ours))} {path}")
        if missing:
            script.append(f"mount --bind /dev/null {missing}")
        script.append('exec "$@"')
        return ["unshare", "--mount", "sh", "-c", "\n".join(script), "sh", *self.words]


@pytest.fixture
def account(tmp_path: Path, ordinary_user: list[str]):
    """A function: the account with these lines for USER in /etc/subuid and /etc/subgid."""
    if os.geteuid() != 0:
        pytest.skip("only root can put files of /etc out of an ordinary user's sight")
    for path in ("/etc/subuid", "/etc/subgid"):
        if not os.path.exists(path):
            pytest.skip(f"{path} is missing, and a mount needs it: apt install uidmap")
    directory = tmp_path / "account"
    directory.mkdir()
    return lambda ranges: Account(directory, ordinary_user, ranges)


def owned(bundle: Bundle) -> None:
    for path in (bundle.directory, bundle.root, *bundle.root.rglob("*")):
        os.chown(path, UID, GID, follow_symlinks=False)


def configure(bundle: Bundle, maps: list[dict]) -> None:
    """The runtime's own rootless template, with these ids."""
    command = [*bundle.command, "spec", "--rootless"]
    subprocess.run(command, cwd=bundle.directory, check=True)
    path = bundle.directory / "config.json"
    bundle.config = json.loads(path.read_text())
    path.unlink()
    bundle.config["process"]["terminal"] = False
    bundle.config["root"]["readonly"] = False
    groups = [{**one, "hostID": GID if one["hostID"] == UID else one["hostID"]} for one in maps]
    bundle.config["linux"].update(uidMappings=maps, gidMappings=groups)


@pytest.fixture
def ranged(bundle: Bundle, account) -> Bundle:
    """A bundle that its user may start with a whole range of ids."""
    if not shutil.which("newuidmap"):
        pytest.skip("newuidmap is not installed: apt install uidmap")
    owned(bundle)
    bundle.command = [*account(f"{USER}:{FIRST}:{COUNT}\n").command(), *bundle.command]
    configure(bundle, MAPPING)
    return bundle


# --- with subordinate ids ----------------------------------------------------------------------


def test_ids_inside_are_subordinate_ids_outside(ranged: Bundle):
    (ranged.root / "data").mkdir()
    (ranged.root / "data").chmod(0o777)
    ranged.config["process"]["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [5]}
    done = ranged.run("sh", "-c", "id; touch /data/file; cat /proc/self/uid_map")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].split() == ["uid=1000", "gid=1001", "groups=5"]
    maps = [list(map(int, line.split())) for line in done.stdout.splitlines()[1:]]
    assert maps == [[0, ORDINARY_UID, 1], [1, FIRST, COUNT]]
    file = (ranged.root / "data/file").stat()
    assert (file.st_uid, file.st_gid) == (FIRST + 999, FIRST + 1000)
    assert ranged.left() == []


def test_life_with_subordinate_ids(ranged: Bundle):
    """Users, chown and setgroups work inside; nothing is left."""
    kinds = ("bounding", "effective", "permitted")
    ranged.config["process"]["capabilities"] = {
        kind: ["CAP_CHOWN", "CAP_SETUID", "CAP_SETGID"] for kind in kinds
    }
    ranged.args(*FOREVER).create()
    pid = ranged.state()["pid"]
    ranged.call("start", ranged.id)
    done = ranged.call("exec", "--user", "33:44", ranged.id, "sh", "-c", "id -u; id -g")
    assert done.stdout.split() == ["33", "44"]
    assert ranged.call("exec", ranged.id, "cat", "/proc/self/setgroups").stdout == "allow\n"
    ranged.call("exec", ranged.id, "sh", "-c", "touch /file; chown 7:8 /file")
    assert (ranged.root / "file").stat().st_uid == FIRST + 6
    ranged.call("kill", ranged.id, "KILL")
    ranged.call("delete", "--force", ranged.id)
    assert not alive(pid)
    assert ranged.left() == []


@pytest.mark.parametrize("ranges", ["", f"{USER}:{FIRST}:100\n", f"somebody:{FIRST}:{COUNT}\n"])
def test_range_that_is_not_the_users(bundle: Bundle, account, ranges):
    if not shutil.which("newuidmap"):
        pytest.skip("newuidmap is not installed: apt install uidmap")
    owned(bundle)
    bundle.command = [*account(ranges).command(), *bundle.command]
    configure(bundle, MAPPING)
    done = bundle.create(check=False)
    assert done.returncode == 1
    for words in ("linux.uidMappings", "linux.gidMappings"):
        if words in done.stderr:
            break
    else:
        pytest.fail(done.stderr)
    assert "/etc/sub" in done.stderr
    assert "fix: " in done.stderr
    assert "usermod --add-sub" in done.stderr
    assert bundle.left() == []


@pytest.mark.parametrize("program", ["newuidmap", "newgidmap"])
def test_helper_that_is_not_installed(bundle: Bundle, account, program):
    path = shutil.which(program)
    if not path:
        pytest.skip(f"{program} is not installed: apt install uidmap")
    owned(bundle)
    words = account(f"{USER}:{FIRST}:{COUNT}\n").command(missing=path)
    bundle.command = [*words, *bundle.command]
    configure(bundle, MAPPING)
    done = bundle.create(check=False)
    assert done.returncode == 1
    assert f"{program}: no such file or directory" in done.stderr
    assert "fix: apt install uidmap" in done.stderr
    assert bundle.left() == []


# --- without -----------------------------------------------------------------------------------


def test_life_with_a_single_id(bundle: Bundle, ordinary_user):
    owned(bundle)
    bundle.command = [*ordinary_user, *bundle.command]
    configure(bundle, [{"containerID": 0, "hostID": UID, "size": 1}])
    bundle.args(*FOREVER).create()
    pid = bundle.state()["pid"]
    assert bundle.state()["status"] == "created"
    bundle.call("start", bundle.id)
    done = bundle.call("exec", bundle.id, "cat", "/proc/self/setgroups", "/proc/self/gid_map")
    assert done.stdout.split() == ["deny", "0", str(GID), "1"]
    assert "groups" not in bundle.call("exec", bundle.id, "sh", "-c", "touch /mine").stdout
    assert (bundle.root / "mine").stat().st_uid == UID
    done = bundle.call("exec", "--user", "5:5", bundle.id, "true", check=False)
    assert done.returncode == 1
    assert "fix: " in done.stderr
    assert json.loads(bundle.call("list", "--format", "json").stdout)[0]["status"] == "running"
    bundle.call("kill", bundle.id, "KILL")
    bundle.call("delete", "--force", bundle.id)
    assert not alive(pid)
    assert bundle.left() == []


def test_additional_groups_need_more_than_a_single_id(bundle: Bundle, ordinary_user):
    owned(bundle)
    bundle.command = [*ordinary_user, *bundle.command]
    configure(bundle, [{"containerID": 0, "hostID": UID, "size": 1}])
    bundle.config["process"]["user"] = {"uid": 0, "gid": 0, "additionalGids": [4]}
    done = bundle.run("true")
    assert done.returncode == 1
    assert "setgroups" in done.stderr
    assert "fix: " in done.stderr
    assert bundle.left() == []


def top() -> Path:
    return Path(cgroups.detect.detect().hierarchies[0].mount_point)


@pytest.fixture
def delegated(bundle: Bundle):
    """A group of cgroup v2 that belongs to the ordinary user, as systemd's user@.service does."""
    layout = cgroups.detect.detect()
    if layout.kind != "v2" or "pids" not in layout.versions():
        pytest.skip("cgroup v1 cannot be delegated to an ordinary user safely")
    above = top() if os.geteuid() == 0 else Path(f"{top()}{layout.hierarchies[0].own}").parent
    if not os.access(above / "cgroup.procs", os.W_OK):
        pytest.skip(
            "no group is delegated to this user: systemd-run --user --scope -p Delegate=yes"
        )
    group = above / f"minicontainer-test-delegated-{bundle.id}"
    (above / "cgroup.subtree_control").write_text("+memory +pids +cpu")
    group.mkdir()
    for path in (group, group / "cgroup.procs", group / "cgroup.subtree_control"):
        os.chown(path, UID, GID)
    yield group
    bundle.clean()
    for path in (*group.rglob("*/"), group):
        path.rmdir()


def test_limits_in_a_delegated_group(bundle: Bundle, ordinary_user, delegated: Path):
    """The caller is in the group that is his (the kernel lets him move processes only below a
    common one that is his, too), so he may limit, freeze and kill what he starts below.
    """
    owned(bundle)
    inner = delegated / "caller"
    inner.mkdir()
    os.chown(inner, UID, GID)
    os.chown(inner / "cgroup.procs", UID, GID)
    enter = ["sh", "-c", f'echo 0 > {inner}/cgroup.procs; exec "$@"', "sh"]
    # By its path: busybox's shell takes its own, which knows less
    ordinary_user[:1] = [shutil.which(word) or word for word in ordinary_user[:1]]
    bundle.command = [*enter, *ordinary_user, *bundle.command]
    configure(bundle, [{"containerID": 0, "hostID": UID, "size": 1}])
    bundle.config["linux"]["cgroupsPath"] = f"/{delegated.relative_to(top())}/{bundle.id}"
    bundle.config["linux"]["resources"] = {"pids": {"limit": 5}, "memory": {"limit": 48 << 20}}
    done = bundle.run("sh", "-c", "for i in 1 2 3 4 5 6 7; do sleep 2 & done; wait")
    assert "can't fork" in done.stderr
    bundle.args(*FOREVER).create()
    bundle.call("start", bundle.id)
    group = delegated / bundle.id
    assert (group / "memory.max").read_text() == f"{48 << 20}\n"
    bundle.call("update", "--pids-limit", "9", bundle.id)
    assert (group / "pids.max").read_text() == "9\n"
    bundle.call("pause", bundle.id)
    assert bundle.state()["status"] == "paused"
    bundle.call("delete", "--force", bundle.id)
    assert not group.exists()


# --- podman ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("ranges", ["", f"{USER}:{FIRST}:{COUNT}\n"], ids=["one id", "range"])
def test_podman(bundle: Bundle, account, ranges):
    """podman makes the user namespace itself, and calls us in it."""
    from tests.bench_fakes import processes_with  # not there in the guest of test_cgroups_v2_guest

    if not shutil.which("podman"):
        pytest.skip("podman is not installed")
    # podman refuses a runroot of more than 50 characters
    directory = Path(tempfile.mkdtemp(prefix="mcp-", dir="/tmp"))
    try:
        root = make_busybox_root(directory / "rootfs")
        launcher = directory / "runtime"
        runtime = shlex.join(bundle.command[: bundle.command.index("--root")])
        launcher.write_text(f'#!/bin/sh\nexec {runtime} "$@"\n')
        launcher.chmod(0o755)
        for path in (directory, *directory.rglob("*")):
            os.chown(path, ORDINARY_UID, ORDINARY_UID, follow_symlinks=False)
        command = [
            *account(ranges).command(), "env", f"HOME={directory}", f"XDG_RUNTIME_DIR={directory}",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "podman", "--runtime", str(launcher),
            "--cgroup-manager=cgroupfs", "--storage-driver=vfs", "--events-backend=file",
        ]  # fmt: skip

        def podman(*words: str) -> subprocess.CompletedProcess:
            return subprocess.run([*command, *words], capture_output=True, text=True, timeout=120,
                                  cwd=directory, stdin=subprocess.DEVNULL)  # fmt: skip

        able = podman("info", "--format", "{{.Host.Security.Rootless}}")
        if able.returncode or able.stdout.strip() != "true":
            pytest.skip(f"podman does not run without root here: {able.stderr.strip()[-300:]}")
        options = ["run", "--rm", "--network", "none"]
        options += ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
        done = podman(*options, "--rootfs", str(root), "sh", "-c", "id -u; exit 7")
        assert (done.returncode, done.stdout) == (7, "0\n"), done.stderr
        assert podman(*options, "--rootfs", str(root), "nope").returncode == 127
    finally:
        until = time.monotonic() + 20  # conmon calls podman once more when the container has ended
        while processes_with(str(directory)) and time.monotonic() < until:
            time.sleep(0.05)
        pause = directory / "libpod/tmp/pause.pid"  # its process keeps podman's user namespace
        if pause.exists():
            end(int(pause.read_text()))
        shutil.rmtree(directory, ignore_errors=True)
        lock = Path(f"/dev/shm/libpod_rootless_lock_{ORDINARY_UID}")
        lock.unlink(missing_ok=True)
