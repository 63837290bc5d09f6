"""Hostile bundles: what an image, its configuration or a process inside may try against the host.

Beside this file: the interpreter itself (test_sealed), targets of mounts (test_mounts), filters
(test_seccomp), /proc and fifos in the image (test_runtime_effects, test_runtime_exec).
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import stat
import subprocess
import threading
import time
from pathlib import Path

import pytest

from minicontainer.kernel import capabilities
from minicontainer.kernel.seccomp_default import default_profile
from tests.bundles import FOREVER, Bundle, bundle
from tests.roots import COMMAND

__all__ = ["bundle"]
pytestmark = pytest.mark.root

# https://github.com/moby/moby/blob/v26.0.0/oci/caps/defaults.go
DOCKERS = {
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW",
    "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}  # fmt: skip


class Victim:
    """A directory of the host's that no container was given; `check` finds what was done to it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self.file = directory / "file"
        self.file.write_text("the host's\n")
        self.file.chmod(0o640)
        (directory / "below").mkdir()
        self.before = self.look()

    def look(self) -> list[tuple]:
        found = []
        for path in sorted([self.directory, *self.directory.rglob("*")]):
            now = path.lstat()
            text = path.read_bytes() if path.is_file() else b""
            found.append((path, now.st_mode, now.st_uid, now.st_gid, now.st_ino, text))
        return found

    def check(self) -> None:
        assert self.look() == self.before
        table = Path("/proc/self/mountinfo").read_text().splitlines()
        assert not [line for line in table if str(self.directory) in line.split()[4]]


@pytest.fixture
def victim(tmp_path: Path) -> Victim:
    return Victim(tmp_path / "victim")


@pytest.fixture
def running(bundle: Bundle) -> Bundle:
    bundle.args(*FOREVER).create()
    bundle.call("start", bundle.id)
    return bundle


def grant(bundle: Bundle, *names: str) -> None:
    for kind in ("bounding", "effective", "permitted"):
        bundle.config["process"]["capabilities"][kind] = list(names)


# --- descriptors and working directories of the host (CVE-2024-21626) --------------------------


def leaked(victim: Victim) -> int:
    """A descriptor of a directory that whoever calls us forgot to close."""
    fd = os.open(victim.directory, os.O_RDONLY)
    free = fcntl.fcntl(fd, fcntl.F_DUPFD, 30)
    os.close(fd)
    return free


@pytest.mark.parametrize("number", [*range(3, 12), None])
def test_working_directory_in_a_descriptor_of_the_host(bundle: Bundle, victim, number):
    fd = leaked(victim)
    try:
        bundle.config["process"]["cwd"] = f"/proc/self/fd/{number or fd}"
        done = bundle.run("sh", "-c", "ls; pwd; touch x", pass_fds=[fd])
    finally:
        os.close(fd)
    assert done.returncode != 0
    assert done.stdout == ""
    assert "working directory" in done.stderr
    victim.check()


def test_working_directory_behind_a_link_of_the_image(running: Bundle, victim):
    fd = leaked(victim)
    (running.root / "work").symlink_to(f"/proc/self/fd/{fd}/below")
    (running.root / "up").symlink_to("../../../../../../../etc")
    try:
        done = running.call("exec", "--cwd", "/work", running.id, "ls", check=False, pass_fds=[fd])
        assert (done.returncode, done.stdout) == (1, "")
        assert "working directory" in done.stderr
        (running.root / "etc").mkdir()
        (running.root / "etc/inside").touch()
        done = running.call("exec", "--cwd", "/up", running.id, "ls", pass_fds=[fd])
        assert done.stdout == "inside\n"
    finally:
        os.close(fd)
    victim.check()


@pytest.mark.parametrize("kind", ["path", "link", "script"])
@pytest.mark.parametrize("command", ["run", "exec", "minicontainer"])
def test_program_in_a_descriptor_of_the_host(bundle: Bundle, victim, kind, command):
    """Closed at exec is too late: the kernel looks for the program, and its #!, before that."""
    shutil.copy(bundle.root / "bin/busybox", victim.directory / "below/sh")
    victim.before = victim.look()
    fd = leaked(victim)
    program = f"/proc/self/fd/{fd}/below/sh"
    (bundle.root / "link").symlink_to(program)
    (bundle.root / "script").write_text(f"#!{program}\necho it is")
    (bundle.root / "script").chmod(0o755)
    words = {"path": [program, "-c", "echo it is"], "link": ["/link", "-c", "echo it is"],
             "script": ["/script"]}[kind]  # fmt: skip
    try:
        if command == "run":
            done = bundle.run(*words, pass_fds=[fd])
        elif command == "minicontainer":
            done = subprocess.run([*COMMAND, "run", "--rootfs", bundle.root, *words],
                                  capture_output=True, text=True, pass_fds=[fd])  # fmt: skip
        else:
            bundle.args(*FOREVER).create()
            bundle.call("start", bundle.id)
            done = bundle.call("exec", bundle.id, *words, check=False, pass_fds=[fd])
    finally:
        os.close(fd)
    assert (done.returncode, done.stdout) == (127, ""), done


# --- links in the image ------------------------------------------------------------------------


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize(
    "name", ["dev", "dev/pts", "dev/shm", "dev/null", "dev/mine", "data", "proc/sys", "masked"]
)
def test_links_of_the_image_lead_nowhere_outside(bundle: Bundle, victim, name, up):
    """Where a mount, a device, a mask or a read-only path belongs there is a link to the host."""
    linux = bundle.config["linux"]
    if name.startswith("dev/"):  # else the fresh /dev of the configuration hides it
        bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["destination"] != "/dev"]
    if name == "proc/sys":
        bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] != "proc"]
    for target in ("data", "data/below/new"):
        bundle.config["mounts"].append(
            {"destination": f"/{target}", "type": "tmpfs", "source": "t", "options": ["mode=700"]}
        )
    linux["devices"] = [{"path": "/dev/mine/x", "type": "c", "major": 1, "minor": 5}]
    linux["maskedPaths"] += ["/masked", "/masked/file", "/masked/below"]
    linux["readonlyPaths"] += ["/masked/below", "/masked/file"]
    link = bundle.root / name
    link.parent.mkdir(exist_ok=True)
    to = victim.file if name == "dev/null" else victim.directory
    link.symlink_to(f"{'../' * 30}{to}" if up else to)
    done = bundle.run("sh", "-c", f"echo lost > /{name}; echo lost > /{name}/file; true")
    assert "Traceback" not in done.stderr
    victim.check()


def test_false_dev_null_masks_nothing(bundle: Bundle, victim):
    """A mask is made of it: a link of the image's would show any file (CVE-2025-31133)."""
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["destination"] != "/dev"]
    (bundle.root / "dev").mkdir()
    (bundle.root / "dev/null").symlink_to("/proc/sysrq-trigger")
    done = bundle.run("true")
    assert done.returncode != 0
    assert "/dev/null" in done.stderr


@pytest.mark.parametrize("name", ["dev/null", "etc/passwd", "proc", "data", "dev/zero"])
def test_hard_links_to_files_of_the_host(bundle: Bundle, victim, name):
    """Whoever unpacked the image made them: nothing of ours may write, chmod or chown them."""
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["destination"] != "/dev"]
    bundle.config["mounts"].append({"destination": "/data", "source": "/dev/null",
                                    "options": ["bind", "ro"]})  # fmt: skip
    (bundle.root / name).parent.mkdir(exist_ok=True)
    (bundle.root / name).hardlink_to(victim.file)
    bundle.config["process"]["user"] = {"uid": 1000, "gid": 1000}
    done = bundle.run("true")
    assert "Traceback" not in done.stderr
    victim.check()


RENAME_EXCHANGE = 2


class Swapper:
    """Exchanges two names in a root file system, all the time: a container that shares it."""

    def __init__(self, one: Path, other: Path) -> None:
        self.names = [os.fsencode(one), os.fsencode(other)]
        self.count = 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
        while not self.stop.is_set():
            assert renameat2(-100, self.names[0], -100, self.names[1], RENAME_EXCHANGE) == 0
            self.count += 1
            time.sleep(0.0002)

    def __enter__(self) -> Swapper:
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop.set()
        self.thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["data", "dev", "proc", "dev/null"])
def test_links_that_come_while_the_container_is_made(bundle: Bundle, victim, name):
    """A directory at one moment, at the next a link to the host's."""
    bundle.config["mounts"] += [
        {"destination": "/data/below", "type": "tmpfs", "source": "t"},
        {"destination": "/data/file", "source": "/dev/null", "options": ["bind", "ro"]},
        {"destination": "/data", "type": "tmpfs", "source": "t", "options": ["tmpcopyup"]},
    ]
    bundle.config["linux"]["maskedPaths"] += ["/data/below", "/data/file"]
    bundle.config["linux"]["readonlyPaths"] += ["/data/below", "/data/file"]
    if name == "dev/null":
        bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["destination"] != "/dev"]
        (bundle.root / "dev").mkdir()
        os.mknod(bundle.root / name, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    else:
        (bundle.root / name).mkdir()
    to = victim.file if name == "dev/null" else victim.directory
    (bundle.root / "other").symlink_to(to)
    results = []
    with Swapper(bundle.root / name, bundle.root / "other") as swapper:
        until = time.monotonic() + 2
        while time.monotonic() < until:
            script = f"echo lost > /{name}/file; echo lost > /{name}; true"
            results.append(bundle.run("sh", "-c", script).returncode)
            victim.check()
    assert swapper.count > 500
    assert len(results) > 3
    assert bundle.left() == []


# --- writes to /proc ---------------------------------------------------------------------------


def test_sysctl_is_written_to_no_file_of_the_image(bundle: Bundle):
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] != "proc"]
    bundle.config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
    fake = bundle.root / "proc/sys/net/ipv4/ip_forward"
    fake.parent.mkdir(parents=True)
    fake.write_text("untouched")
    done = bundle.run("true")
    assert (done.returncode, "sysctl" in done.stderr) == (1, True), done.stderr
    assert fake.read_text() == "untouched"


@pytest.mark.parametrize("over", ["/proc/sys/net/ipv4/ip_forward", "/proc/sys", "/proc/self/attr"])
def test_writes_to_proc_go_to_no_mount_over_it(bundle: Bundle, victim, over):
    """As the image could have it with a volume (CVE-2019-16884, CVE-2025-52881)."""
    source = victim.file
    if over == "/proc/sys":
        source = victim.directory
        (source / "net/ipv4").mkdir(parents=True)
        (source / "net/ipv4/ip_forward").write_text("untouched")
        victim.before = victim.look()
    if over.endswith("attr"):
        source = victim.directory
        for name in ("exec", "current", "keycreate", "sockcreate"):
            (source / name).touch()
        victim.before = victim.look()
    bundle.config["mounts"].append({"destination": over, "source": str(source),
                                    "options": ["bind"]})  # fmt: skip
    bundle.config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
    bundle.config["linux"]["readonlyPaths"] = []
    done = bundle.run("true")
    if not over.endswith("attr"):
        assert (done.returncode, "sysctl" in done.stderr) == (1, True), done.stderr
    victim.check()


# --- cgroups -----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [["ro"], []])
def test_release_agent_is_out_of_reach(bundle: Bundle, options):
    """Version 1 starts that program on the host, with all privileges, when a group is empty."""
    for mount in bundle.config["mounts"]:
        if mount["type"] == "cgroup":
            mount["options"] = ["nosuid", "noexec", "nodev", *options]
    grant(bundle, *DOCKERS)
    agents = {path: path.read_text() for path in Path("/sys/fs/cgroup").glob("*/release_agent")}
    done = bundle.run(
        "sh", "-c",
        "for f in $(find /sys/fs/cgroup -name release_agent); do echo /x > $f && echo written; "
        "done 2>/dev/null; mkdir /m; for o in pids memory none,name=x; do "
        "mount -t cgroup -o $o cgroup /m && echo mounted; done; true",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert {path: path.read_text() for path in agents} == agents


@pytest.mark.parametrize(
    "path", ["..", "/..", "../x", "/../x", "a/../../x", "/a/../..", "a/./x/..", "a\n/../x"]
)
def test_cgroup_path_does_not_climb(bundle: Bundle, path):
    before = {group for group, _, _ in os.walk("/sys/fs/cgroup")}
    bundle.config["linux"]["cgroupsPath"] = path.replace("x", bundle.id)
    done = bundle.args("true").create(check=False)
    assert (done.returncode, "linux.cgroupsPath" in done.stderr) == (1, True), done.stderr
    assert bundle.left() == []
    after = {group for group, _, _ in os.walk("/sys/fs/cgroup")}
    assert not [group for group in after - before if bundle.id in group]


# --- ids and users -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [["state"], ["start"], ["kill", "KILL"], ["delete", "--force"], ["exec", "true"], ["pause"],
     ["ps"], ["update", "--pids-limit", "5"]],
)  # fmt: skip
@pytest.mark.parametrize(
    "name", ["../victim", "..", ".", "a/../../victim", "/etc", "١", "．．", ""]
)
def test_ids_lead_nowhere(bundle: Bundle, victim, words, name):
    command, *rest = words
    options = [word for word in rest if word.startswith("-") or word == "5"]
    rest = [word for word in rest if word not in options]
    done = bundle.call(command, *options, "--", name, *rest, check=False)
    assert (done.returncode, "container id" in done.stderr) == (1, True), done.stderr
    victim.check()


@pytest.mark.parametrize(
    "user",
    ["root", "-1", "4294967295", "4294967296", "9" * 30, "0x0", "1e3", "+0", " 0", "0 ", "0_0",
     "٠", "0:", ":0", "0:-1", "0:4294967295", "0:root", ""],
)  # fmt: skip
def test_users_of_exec_are_numbers_below_minus_one(running: Bundle, user):
    """runc took a number for a name, and the image's passwd said who that is (CVE-2016-3697)."""
    (running.root / "etc").mkdir()
    lines = [f"{name}:x:0:0::/:/bin/sh\n" for name in ("1000", user, "root")]
    (running.root / "etc/passwd").write_text("".join(lines))
    done = running.call("exec", f"--user={user}", running.id, "id", "-u", check=False)
    if user == "":
        return  # as if not given
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert "user" in done.stderr


def test_users_that_are_names_of_numbers(running: Bundle):
    (running.root / "etc").mkdir()
    (running.root / "etc/passwd").write_text("1000:x:0:0::/:/bin/sh\n")
    done = running.call("exec", "--user", "1000:1000", running.id, "id", "-u")
    assert done.stdout == "1000\n"
    process = {"args": ["id", "-u"], "cwd": "/", "env": ["PATH=/bin"]}
    for uid, code in ((1000, 0), (4294967294, 0), (4294967295, 1), (-1, 1), (2**64, 1), (1.5, 1)):
        text = json.dumps({**process, "user": {"uid": uid, "gid": 1000}})
        (running.directory / "process.json").write_text(text)
        done = running.call("exec", "--process", "process.json", running.id, check=False)
        assert (done.returncode, done.stdout) == (code, "" if code else f"{uid}\n"), uid


# --- files that are read for the user's sake ---------------------------------------------------


@pytest.mark.parametrize("kind", ["huge", "endless line", "fifo", "device", "directory", "loop"])
def test_passwd_of_the_image_holds_nobody_up(bundle: Bundle, kind):
    (bundle.root / "etc").mkdir()
    passwd = bundle.root / "etc/passwd"
    if kind == "huge":
        passwd.touch()
        os.truncate(passwd, 1 << 40)
    if kind == "endless line":
        passwd.write_bytes(b":" * (64 << 20))
    if kind == "fifo":
        os.mkfifo(passwd)
    if kind == "device":
        os.mknod(passwd, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    if kind == "directory":
        passwd.mkdir()
    if kind == "loop":
        passwd.symlink_to("passwd")
    bundle.args(*FOREVER).create()
    bundle.call("start", bundle.id)
    for options in ([], ["--user", "1000:1000"]):
        began = time.monotonic()
        done = bundle.call("exec", *options, bundle.id, "sh", "-c", "echo $HOME")
        assert done.stdout == "/\n"
        assert time.monotonic() - began < 10


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_devices_of_the_image_are_not_opened(bundle: Bundle):
    """To open one can do something: /dev/watchdog starts it. This one is looked at, no more."""
    (bundle.root / "etc").mkdir()
    os.mknod(bundle.root / "etc/passwd", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    log = bundle.directory / "strace"
    words = ["strace", "-f", "-y", "-e", "trace=open,openat,openat2", "-o", log, *bundle.command]
    bundle.args("true").write()
    done = subprocess.run([*words, "run", bundle.id], cwd=bundle.directory, capture_output=True)
    assert done.returncode == 0, done.stderr
    opened = [line for line in log.read_text().splitlines() if "passwd" in line]
    assert opened
    assert [line for line in opened if "O_PATH" not in line] == []


# --- from inside -------------------------------------------------------------------------------

ESCAPE = r"""
import os
outside = os.open("/", os.O_RDONLY)
os.mkdir("/jail")
os.chroot("/jail")
os.fchdir(outside)  # a working directory above the root: from here ".." has no end
for _ in range(64):
    os.chdir("..")
os.chroot(".")
print(sorted(os.listdir("/")))
"""


@pytest.mark.parametrize("options", [[], ["--no-pivot"]])
def test_chroot_escape_ends_in_the_containers_root(bundle: Bundle, options):
    grant(bundle, "CAP_SYS_CHROOT", "CAP_DAC_OVERRIDE")
    (bundle.root / "of the container").touch()
    done = bundle.args(*bundle.python(ESCAPE)).call("run", *options, bundle.id)
    assert "'of the container'" in done.stdout
    assert "'jail'" in done.stdout


NAMESPACES = r"""
import ctypes, os, struct
libc = ctypes.CDLL(None, use_errno=True)
def attempt(*args):
    ctypes.set_errno(0)
    result = libc.syscall(*[ctypes.c_ulong(a) if isinstance(a, int) else a for a in args])
    if result == 0 and args[0] in (CLONE, CLONE3):
        os._exit(0)
    return ctypes.get_errno()
UNSHARE, CLONE, SETNS = {"x86_64": (272, 56, 308), "aarch64": (97, 220, 268)}[os.uname().machine]
CLONE3 = 435
arguments = ctypes.create_string_buffer(struct.pack("<11Q", 0x10000000, 0, 0, 0, 17, *[0] * 6))
flags = [0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000]
print([attempt(UNSHARE, flag) for flag in flags])
print([attempt(CLONE, flag | 17, 0, 0, 0, 0) for flag in flags[1:]])
print([attempt(CLONE, 0x10000000 | 17 | 1 << 40, 0, 0, 0, 0)])
print([attempt(CLONE3, arguments, 88)])
print([attempt(SETNS, os.open("/proc/self/ns/uts", os.O_RDONLY), 0)])
"""


def test_new_namespaces_from_inside_are_refused_by_the_default_profile(bundle: Bundle):
    """A user namespace of its own would give a process all capabilities, for bugs in the kernel."""
    bundle.config["process"]["noNewPrivileges"] = False
    bundle.args(*bundle.python("import os; os.unshare(os.CLONE_NEWUSER)"
                               if hasattr(os, "unshare") else NAMESPACES))  # fmt: skip
    without = bundle.call("run", bundle.id, check=False).stdout.splitlines()
    if without:
        assert "0" in without[0]  # so the test can fail: nothing else forbids them
    grant(bundle, *DOCKERS)
    bundle.config["linux"]["seccomp"] = default_profile(capabilities.DOCKER_DEFAULT)
    done = bundle.args(*bundle.python(NAMESPACES)).call("run", bundle.id)
    eperm, enosys = 1, 38
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        [eperm] * 8, [eperm] * 7, [eperm], [enosys], [eperm],
    ]  # fmt: skip


def test_docker_has_these_fourteen():
    assert set(capabilities.DOCKER_DEFAULT) == DOCKERS
    assert len(capabilities.DOCKER_DEFAULT) == len(DOCKERS) == 14


@pytest.mark.parametrize("command", ["run", "exec", "minicontainer"])
def test_callers_ambient_and_inheritable_capabilities_stay_outside(bundle: Bundle, command):
    """Through them a file with inheritable capabilities gave some to a user (CVE-2022-29162)."""
    names = "+kill,+net_raw,+chown"
    words = ["setpriv", f"--inh-caps={names}", f"--ambient-caps={names}"]
    able = subprocess.run([*words, "cat", "/proc/self/status"], capture_output=True, text=True)
    if able.returncode:
        pytest.skip(f"setpriv: {able.stderr}")
    assert "CapAmb:\t0000000000000000" not in able.stdout
    show = ["grep", "-E", "Cap(Inh|Amb)", "/proc/self/status"]
    if command == "minicontainer":
        done = subprocess.run([*words, *COMMAND, "run", "--rootfs", bundle.root, *show],
                              capture_output=True, text=True)  # fmt: skip
    else:
        bundle.args(*FOREVER).create()
        bundle.call("start", bundle.id)
        bundle.command = [*words, *bundle.command]
        done = bundle.call("exec", bundle.id, *show) if command == "exec" else None
    if done is None:
        bundle.call("delete", "--force", bundle.id)
        done = bundle.run(*show)
    assert done.stdout.split() == ["CapInh:", "0" * 16, "CapAmb:", "0" * 16], done


@pytest.mark.parametrize("no_new_privs", [False, True])
def test_setuid_programs_give_nothing_under_no_new_privs(bundle: Bundle, no_new_privs):
    words = bundle.python("import os; print(os.geteuid())")
    shutil.copy(words[0], bundle.root / "setuid")
    (bundle.root / "setuid").chmod(0o4755)
    bundle.config["process"].update(
        noNewPrivileges=no_new_privs, user={"uid": 1000, "gid": 1000}, args=["/setuid", *words[1:]]
    )
    if os.statvfs(bundle.root).f_flag & os.ST_NOSUID:
        pytest.skip("the tests' temporary directory is mounted nosuid")
    done = bundle.call("run", bundle.id)
    assert done.stdout == ("1000\n" if no_new_privs else "0\n")


# --- what is the host's ------------------------------------------------------------------------


def test_owner_of_inherited_devices_stays(bundle: Bundle):
    """runc gave the container's user the host's /dev/null, or the terminal it was started on."""
    bundle.config["process"]["user"] = {"uid": 1000, "gid": 1000}
    master, slave = os.openpty()
    null = os.open("/dev/null", os.O_RDWR)
    before = [os.fstat(fd) for fd in (null, slave)]
    try:
        for fd in (null, slave):
            done = bundle.args("true").call("run", bundle.id, capture_output=False, stdin=fd,
                                            stdout=fd, stderr=fd)  # fmt: skip
            assert done.returncode == 0
        after = [os.fstat(fd) for fd in (null, slave)]
    finally:
        for fd in (master, slave, null):
            os.close(fd)
    for one, other in zip(before, after, strict=True):
        assert (one.st_uid, one.st_gid, one.st_mode) == (other.st_uid, other.st_gid, other.st_mode)


@pytest.fixture
def device(tmp_path: Path) -> tuple[int, int]:
    """One that no container has, and whose driver lets everybody open it."""
    for number in ((10, 229), (10, 200), (10, 235)):  # fuse, tun, autofs
        path = tmp_path / "device"
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(*number))
        try:
            os.close(os.open(path, os.O_RDWR))
            return number
        except OSError:
            continue
        finally:
            path.unlink()
    pytest.skip("this kernel has neither fuse nor tun nor autofs")


def open_devices(root: Path, number: tuple[int, int]) -> list[str]:
    """Words that open the image's node and two that they make, and say which they could."""
    os.mknod(root / "there", stat.S_IFCHR | 0o666, os.makedev(*number))
    made = f"mknod $f c {number[0]} {number[1]}"
    script = f"for f in /there /made /dev/made; do [ -e $f ] || {made}; (: <> $f) && echo $f; done"
    return ["sh", "-c", f"{script}; true"]


@pytest.mark.parametrize("allowed", [False, True])
def test_device_nodes_do_not_open(bundle: Bundle, device, allowed):
    grant(bundle, *DOCKERS)
    if allowed:  # so that the test can fail
        bundle.config["linux"]["resources"]["devices"] = [{"allow": True, "access": "rwm"}]
    done = bundle.run(*open_devices(bundle.root, device))
    assert done.stdout.split() == (["/there", "/made", "/dev/made"] if allowed else [])
    if not allowed:
        assert "Operation not permitted" in done.stderr


def test_device_nodes_do_not_open_without_a_cgroup(bundle: Bundle, device):
    words = ["run", "--rootfs", str(bundle.root), *open_devices(bundle.root, device)]
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True)
    assert done.stdout == ""
    assert done.returncode == 0, done.stderr
