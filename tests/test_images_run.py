"""`minicontainer run IMAGE` and the words for its containers, seen from the kernel's files."""

from __future__ import annotations

import glob
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import termios
import time
import uuid
from pathlib import Path

import pytest

import minicontainer
from minicontainer.engine import bundle
from minicontainer.images import bootstrap, overlay
from minicontainer.images.store import Store
from minicontainer.kernel import capabilities
from minicontainer.options import UsageError
from minicontainer.paths import runtime_dir
from tests.bundles import alive
from tests.image_layers import add_image, directory, entry, symlink, tar
from tests.registries import need
from tests.roots import COMMAND, ORDINARY_UID
from tests.test_runtime_docker import docker  # noqa: F401
from tests.test_runtime_podman import CONTAINER, podman  # noqa: F401
from tests.waiting import until

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: sudo ./workshop test")
pytestmark = needs_root
FOREVER = ["sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"]


class Host:
    """A data directory with images, and the command that uses it, as root or as somebody else."""

    def __init__(self, data: Path, prefix: list[str]) -> None:
        self.data = data
        own = [word for word in prefix if word.startswith("XDG_RUNTIME_DIR=")]
        self.states = Path(f"{own[0].partition('=')[2]}/minicontainer" if own else runtime_dir(),
                           "containers")  # fmt: skip
        self.words = [*(prefix or ["env"]), f"MINICONTAINER_DATA={data}", *COMMAND]
        self.mine = f"t{uuid.uuid4().hex[:8]}"  # a name that no other test has

    def __call__(self, *words: str, check: bool = True, **kwargs) -> subprocess.CompletedProcess:
        done = subprocess.run(
            [*self.words, *map(str, words)], text=True, timeout=60,
            **{"capture_output": True, "stdin": subprocess.DEVNULL, **kwargs},
        )  # fmt: skip
        assert "Traceback" not in (done.stderr or ""), done.stderr
        if check:
            assert done.returncode == 0, done.stderr
        return done

    def run(self, *words: str, check: bool = True, **kwargs) -> subprocess.CompletedProcess:
        return self("run", *words, check=check, **kwargs)

    def popen(self, *words: str, **kwargs) -> subprocess.Popen:
        return subprocess.Popen([*self.words, *words], text=True, **kwargs)

    def image(self, name: str, *extra: bytes, **config):
        """An image of busybox and these layers; as root."""
        store = Store(str(self.data / "images"))
        return add_image(store, f"docker.io/library/{name}:latest", [busybox(), *extra],
                         **{"Cmd": ["sh"], **config})  # fmt: skip

    def left(self) -> list[str]:
        """What there is of containers on this host: directories, mounts, pins, groups, states."""
        found = [f"container {name}" for name in names(self.data / "containers")]
        found += [name for name in names(self.data / "images/leases") if name.startswith("pin")]
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        found += [line for line in mounts if str(self.data) in line]
        found += glob.glob(f"/sys/fs/cgroup/**/*{self.mine}*", recursive=True)
        return found + [one for one in names(self.states) if self.mine in one]

    def emptied(self) -> None:
        """Removes the containers; raises AssertionError, with what `rm` said, when things stay."""
        said = [self("rm", "-f", name, check=False).stderr
                for name in names(self.data / "containers")]  # fmt: skip
        assert self.left() == [], said


def names(path: Path) -> list[str]:
    return sorted(os.listdir(path)) if path.exists() else []


_busybox: list[bytes] = []


def busybox() -> bytes:
    if not shutil.which("busybox"):
        pytest.skip("busybox is not installed: apt install busybox-static")
    _busybox[:] = _busybox or [bootstrap._busybox()]
    return _busybox[0]


@pytest.fixture
def host(tmp_path: Path):
    made = Host(tmp_path / "data", [])
    yield made
    made.emptied()


@pytest.fixture(params=["root", "rootless"])
def both(request, tmp_path: Path):
    """A host with the image busybox; the test runs as root, and as an ordinary user."""
    prefix = []
    data = tmp_path / "data"
    data.mkdir()
    if request.param == "rootless":
        prefix = request.getfixturevalue("ordinary_user")
        for path in (tmp_path, data):
            os.chown(path, ORDINARY_UID, ORDINARY_UID)
    made = Host(data, prefix)
    busybox()
    made("image", "bootstrap", "busybox")
    yield made
    made.emptied()


# --- whose word counts -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "entrypoint", "words", "command"),
    [
        ({"Cmd": ["a", "b"]}, None, [], ["a", "b"]),
        ({"Cmd": ["a", "b"]}, None, ["c"], ["c"]),
        ({"Entrypoint": ["e", "f"], "Cmd": ["a"]}, None, [], ["e", "f", "a"]),
        ({"Entrypoint": ["e", "f"], "Cmd": ["a"]}, None, ["c", "d"], ["e", "f", "c", "d"]),
        ({"Entrypoint": ["e"], "Cmd": ["a"]}, "x", [], ["x"]),
        ({"Entrypoint": ["e"], "Cmd": ["a"]}, "x", ["c"], ["x", "c"]),
        ({"Entrypoint": ["e"], "Cmd": ["a"]}, "", ["c"], ["c"]),
        ({"Entrypoint": ["/bin/sh", "-c", "x y"]}, None, ["c"], ["/bin/sh", "-c", "x y", "c"]),
    ],
)  # fmt: skip
def test_entrypoint_and_cmd(image, entrypoint, words, command) -> None:
    assert bundle.command(image, entrypoint, words) == command


@pytest.mark.parametrize(
    ("image", "entrypoint"), [({}, None), ({"Entrypoint": ["e"], "Cmd": ["a"]}, "")]
)
def test_no_command_at_all(image, entrypoint) -> None:
    with pytest.raises(UsageError, match="which command"):
        bundle.command(image, entrypoint, [])


def test_the_image_says_what_the_command_line_does_not(host: Host, tmp_path: Path) -> None:
    users = tar(
        directory("etc"),
        entry("etc/passwd", b"root:x:0:0::/root:/bin/sh\nweb:x:33:34::/var/www:/bin/sh\n"),
        entry("etc/group", b"root:x:0:\nwww:x:34:\nmore:x:50:x,web\nother:x:60:root\n"),
    )
    host.image(
        "app", users, Env=["A=1", "B=2", "PATH=/bin"], Entrypoint=["sh", "-c"],
        Cmd=["id; pwd; echo $A $B $C $HOME $PATH $HOSTNAME"], User="web", WorkingDir="/srv/app",
    )  # fmt: skip
    lines = host.run("--hostname", "h", "app").stdout.splitlines()
    assert lines == ["uid=33(web) gid=34(www) groups=34(www),50(more)", "/srv/app",
                     "1 2 /var/www /bin h"]  # fmt: skip
    (tmp_path / "env").write_text("# no\n\nB=file\nC=c d\nGIVEN\nNOT_GIVEN\n")
    words = ["-u", "0:other", "-w", "/tmp", "--env-file", tmp_path / "env", "-e", "A=", "-e", "B"]
    words += ["--entrypoint", "sh", "app", "-c", "id; pwd; env"]
    done = host.run(*words, env={"GIVEN": "g"})
    lines = done.stdout.splitlines()
    assert lines[:2] == ["uid=0(root) gid=60(other) groups=60(other)", "/tmp"]
    assert {"A=", "C=c d", "GIVEN=g", "HOME=/root", "PATH=/bin"} <= set(lines)
    assert not {name.partition("=")[0] for name in lines} & {"B", "NOT_GIVEN", "TERM"}


@pytest.mark.parametrize(
    ("user", "says"),
    [("nobody2", "not in the image's /etc/passwd"), ("0:nogroup2", "image's /etc/group")],
)
def test_a_user_whom_the_image_does_not_know(host: Host, user: str, says: str) -> None:
    host.image("app")
    done = host.run("-u", user, "app", check=False)
    assert done.returncode == 125
    assert says in done.stderr


def test_accounts_are_found_as_the_layers_show_them(host: Host) -> None:
    """Through a link into another layer; and not where an upper layer has removed them."""
    host.image(
        "linked", tar(directory("usr/etc"), entry("usr/etc/passwd", b"a:x:7:8::/a:/bin/sh\n")),
        tar(directory("etc"), symlink("etc/passwd", "../usr/etc/../etc/passwd")),
    )  # fmt: skip
    assert "uid=7" in host.run("-u", "a", "linked", "id").stdout
    host.image("removed", tar(directory("etc"), entry("etc/.wh.passwd")))
    assert host.run("-u", "nobody", "removed", "id", check=False).returncode == 125
    host.image("opaque", tar(directory("etc"), entry("etc/.wh..wh..opq")))
    assert host.run("-u", "nobody", "opaque", "id", check=False).returncode == 125
    host.image("loop", tar(directory("etc"), symlink("etc/passwd", "passwd")))
    assert host.run("-u", "nobody", "loop", "id", check=False).returncode == 125
    host.image("outside", tar(directory("etc"), symlink("etc/passwd", "/../../../etc/hostname")))
    assert "uid=0" in host.run("outside", "id").stdout


def test_find_is_what_the_kernel_finds(tmp_path: Path) -> None:
    lower, upper = tmp_path / "1", tmp_path / "2"
    (lower / "a/b").mkdir(parents=True)
    (lower / "a/b/c").write_text("")
    (lower / "f").write_text("")
    upper.mkdir()
    (upper / "l").symlink_to("/a/./b")
    (upper / "m").symlink_to("l/../b/c")
    (upper / "up").symlink_to("../../a/b/c")
    layers = [str(lower), str(upper)]
    for path, found in (
        ("/l/c", "1/a/b/c"), ("m", "1/a/b/c"), ("up", "1/a/b/c"), ("/../f", "1/f"), ("f/x", ""),
        ("nope", ""), ("a/b", "1/a/b"), ("l/../../f", "1/f"), ("a/b/../../f", "1/f"),
    ):  # fmt: skip
        there = overlay.find(layers, path, "trusted.overlay.")
        assert there == (f"{tmp_path}/{found}" if found else ""), path


# --- the root file system ----------------------------------------------------------------------


def test_the_root_is_an_overlay_and_nothing_is_left(both: Host) -> None:
    script = "grep ' / / ' /proc/self/mountinfo; echo x > /new; rm /bin/ls; cat /new; id -u"
    lines = both.run("busybox", "sh", "-c", script).stdout.splitlines()
    assert " - overlay overlay " in lines[0]
    assert lines[1:] == ["x", "0"]
    assert both.left() == []
    assert both.run("busybox", "ls", "/new", check=False).returncode == 1  # ls is there, /new not


def test_read_only_tmpfs_and_volumes(both: Host, tmp_path: Path) -> None:
    shared = both.data / "shared"
    shared.mkdir()
    (shared / "file").write_text("outside\n")
    os.chown(shared, *([ORDINARY_UID] * 2 if both.words[0] != "env" else (0, 0)))
    script = (
        "touch /x /etc/x /ro/x; touch /rw/made /tmp/x && cat /ro/file; stat -f -c %T /tmp; "
        "grep ' /tmp ' /proc/self/mountinfo"
    )
    done = both.run(
        "--read-only", "--tmpfs", "/tmp:size=64k", "-v", f"{shared}:/rw", "-v", f"{shared}:/ro:ro",
        "busybox", "sh", "-c", script,
    )  # fmt: skip
    assert done.stderr.count("Read-only file system") == 3
    assert done.stdout.splitlines()[:2] == ["outside", "tmpfs"]
    for word in ("nosuid", "nodev", "noexec", "size=64k"):
        assert word in done.stdout.splitlines()[2]
    assert names(shared) == ["file", "made"]


def test_volumes_of_the_image_begin_with_what_it_has_there(host: Host) -> None:
    data = tar(directory("data", mode=0o750, uid=5), entry("data/a", b"from the image", uid=6))
    host.image("app", data, Volumes={"/data": {}, "/other/new": {}})
    script = "cat /data/a; echo; stat -c '%u %a' /data; grep -c -E ' /(data|other/new) ' "
    script += "/proc/self/mountinfo; echo y > /data/new; sleep 60"
    host.run("-d", "--name", host.mine, "app", "sh", "-c", script)
    shown = until(lambda: (text := host("logs", host.mine).stdout).count("\n") == 3 and text)
    assert shown.splitlines() == ["from the image", "5 750", "2"]
    assert "/data/new" not in host("diff", host.mine).stdout  # no part of what it changed
    host("stop", "-t", "0", host.mine)
    host("start", host.mine)
    volume = host.data / "containers" / host.mine / "volumes/0"
    until(lambda: (volume / "new").read_text() == "y\n")  # being written again, it is empty
    host("rm", "-f", host.mine)
    assert not volume.exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-v", "name:/x"], "volumes with names are not supported"),
        (["-v", "/nope:/x"], "/nope: no such file or directory"),
        (["-v", "/etc:x"], "no absolute path"),
        (["-v", "/etc:/"], "no absolute path"),
        (["-v", "/etc:/x:rq"], "unknown option 'rq'"),
        (["--memory", "much"], "bytes, or a number"),
        (["--cpus", "0"], "0.01 or more"),
        (["--cpus", "1.x"], "0.01 or more"),
        (["--pids-limit", "x"], "a whole number"),
        (["--ulimit", "files=1"], "unknown"),
        (["--ulimit", "nofile=2:1"], "above the hard one"),
        (["--cap-add", "EVERYTHING"], "names are like NET_ADMIN"),
        (["--security-opt", "magic"], "what there is"),
        (["--security-opt", "seccomp=/nope"], "no such file"),
        (["--device", "/etc/passwd"], "of one device"),
        (["--device", "/dev/nope"], "no such file"),
        (["--env-file", "/nope"], "no such file"),
        (["-e", "=x"], "no valid NAME=VALUE"),
        (["--pull", "sometimes"], "missing, never or always"),
        (["--network", "moon"], "either none or host"),
        (["--name", "../x"], "letters, digits"),
        (["--stop-signal", "SIGNOPE"], "unknown signal"),
        (["--privileged"], "--cap-add NAME"),
        (["-w", "/x\n", "--hostname", "a_b"], "hostname"),
    ],
)
def test_wrong_options_say_what_is_right(host: Host, words: list[str], says: str) -> None:
    host.image("app")
    done = host.run(*words, "app", "true", check=False)
    assert done.returncode == 125
    assert says in done.stderr
    assert host.left() == []


def test_docker_s_own_seccomp_profile_is_refused_not_misread(host: Host, tmp_path: Path) -> None:
    host.image("app")
    (tmp_path / "p.json").write_text('{"defaultAction": "SCMP_ACT_ERRNO", "archMap": []}')
    done = host.run("--security-opt", f"seccomp={tmp_path}/p.json", "app", "true", check=False)
    assert (done.returncode, "conditions" in done.stderr) == (125, True)


def test_options_of_images_do_not_go_with_a_directory(host: Host, root: Path) -> None:
    done = host.run("--memory", "64m", "--rootfs", root, "true", check=False)
    assert done.returncode == 125
    assert "does not go with --rootfs" in done.stderr
    done = host.run(root, "true", check=False)
    assert "which root file system? --rootfs DIR" in done.stderr


def test_an_image_that_is_not_here(host: Host) -> None:
    done = host.run("--pull", "never", "nope", check=False)
    assert done.returncode == 125
    assert "no such image: nope" in done.stderr
    done = host.run("--pull", "missing", "127.0.0.1:1/nope", check=False)
    assert done.returncode == 125
    assert "127.0.0.1:1" in done.stderr


# --- privileges and limits ---------------------------------------------------------------------


def status(host: Host, *words: str) -> dict[str, str]:
    text = host.run(*words, "app", "cat", "/proc/self/status").stdout
    return dict(re.findall(r"^(\w+):\s+(.*)$", text, re.MULTILINE))


def test_capabilities_are_docker_s_and_change(host: Host) -> None:
    host.image("app")
    usual = capabilities.mask(capabilities.DOCKER_DEFAULT)
    for words, bits in (
        ([], usual),
        (["--cap-add", "sys_ptrace"], usual | capabilities.mask(["CAP_SYS_PTRACE"])),
        (["--cap-drop", "MKNOD"], usual & ~capabilities.mask(["CAP_MKNOD"])),
        (["--cap-drop", "ALL", "--cap-add", "CAP_KILL"], capabilities.mask(["CAP_KILL"])),
        (["--cap-drop", "all"], 0),
        (["--cap-add", "ALL", "--cap-drop", "CHOWN"],
         capabilities.bounding() & ~capabilities.mask(["CAP_CHOWN"])),
    ):  # fmt: skip
        told = status(host, *words)
        assert int(told["CapBnd"], 16) == bits, words
        assert int(told["CapEff"], 16) == bits, words
    assert int(status(host, "-u", "1000")["CapEff"], 16) == 0


def test_the_filter_and_no_new_privileges(host: Host, tmp_path: Path) -> None:
    host.image("app")
    assert (status(host)["Seccomp"], status(host)["NoNewPrivs"]) == ("2", "0")
    told = status(host, "--security-opt", "seccomp=unconfined", "--security-opt",
                  "no-new-privileges")  # fmt: skip
    assert (told["Seccomp"], told["NoNewPrivs"]) == ("0", "1")
    (tmp_path / "profile.json").write_text(json.dumps({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
    }))  # fmt: skip
    words = ["--security-opt", f"seccomp={tmp_path}/profile.json", "app", "mkdir", "/x"]
    done = host.run(*words, check=False)
    assert "Operation not permitted" in done.stderr
    # the usual one: no mount(2) for whoever lacks the capability
    assert host.run("app", "mount", "-t", "tmpfs", "x", "/tmp", check=False).returncode


def test_limits_are_in_the_kernel(host: Host) -> None:
    host.image("app")
    script = "cd /sys/fs/cgroup; cat memory*/memory.limit_in_bytes cpu/cpu.cfs_quota_us "
    script += "pids/pids.max cpuset/cpuset.cpus 2>/dev/null || "
    script += "cat memory.max cpu.max pids.max cpuset.cpus; ulimit -Sn; ulimit -Hn"
    done = host.run(
        "--memory", "64m", "--cpus", "0.5", "--pids-limit", "33", "--cpuset-cpus", "0",
        "--ulimit", "nofile=100:200", "app", "sh", "-c", script, check=False,
    )  # fmt: skip
    assert done.stdout.replace(" 100000", "").split() == ["67108864", "50000", "33", "0", "100",
                                                          "200"]  # fmt: skip
    assert host.left() == []


def test_who_takes_more_memory_than_allowed_is_killed(host: Host) -> None:
    host.image("app")
    words = [
        "--memory",
        "16m",
        "app",
        "sh",
        "-c",
        "head -c 200m /dev/zero | tail -c 190m >/dev/null",
    ]
    done = host.run(*words, check=False)
    assert done.returncode in (137, 1)
    assert done.returncode == 137 or "Killed" in done.stderr


def test_devices(host: Host) -> None:
    """Only those that were given can be opened, whatever node root makes."""
    host.image("app")
    script = "mknod /mem c 1 1 && head -c 1 /mem; ls -l /dev/given; head -c 1 /dev/given >&2; "
    script += "echo x > /dev/given"
    done = host.run("--device", "/dev/zero:/dev/given:r", "app", "sh", "-c", script, check=False)
    assert "1,   5" in done.stdout
    assert "/mem: Operation not permitted" in done.stderr
    assert "\0" in done.stderr
    usual = host.run("app", "ls", "/dev").stdout.split()
    assert set(usual) == {"fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr",
                          "stdin", "stdout", "tty", "urandom", "zero"}  # fmt: skip


# --- stdin, terminal, signals, exit codes ------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["true"], 0, ""),
        (["sh", "-c", "exit 7"], 7, ""),
        (["nope"], 127, "executable file not found in $PATH"),
        (["/etc/passwd"], 126, "permission denied"),
        (["sh", "-c", "kill -9 $$"], 137, None),
        (["sh", "-c", "trap - TERM; kill -TERM $$; exit 3"], 3, ""),
    ],
)
def test_exit_codes_are_docker_s(both: Host, words: list[str], code: int, says: str) -> None:
    if says is None:
        words, code = ["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137
    done = both.run("busybox", *words, check=False)
    assert done.returncode == code
    assert (says or "") in done.stderr
    assert both.left() == []


def test_stdin_is_passed_on_only_when_asked(host: Host) -> None:
    host.image("app")
    for words, out in ((["app", "cat"], ""), (["-i", "app", "cat"], "typed")):
        done = host.run(*words, stdin=None, input="typed")
        assert done.stdout == out


def test_a_terminal(both: Host) -> None:
    master, slave = pty.openpty()
    script = "test -t 0 && tty && stty size && echo $TERM && read line && echo got $line"
    termios.tcsetwinsize(slave, (33, 77))
    process = both.popen("run", "-it", "busybox", "sh", "-c", script, stdin=slave, stdout=slave,
                         stderr=slave)  # fmt: skip
    shown = b""
    while b"xterm" not in shown:
        assert select.select([master], [], [], 20)[0], shown
        shown += os.read(master, 1000)
    os.write(master, b"hello\n")
    assert process.wait(20) == 0
    while select.select([master], [], [], 0.1)[0]:
        shown += os.read(master, 1000)
    os.close(slave)
    os.close(master)
    assert b"/dev/pts/0" in shown
    assert b"33 77" in shown
    assert b"got hello" in shown


def test_ctrl_c_ends_it_and_leaves_nothing(both: Host) -> None:
    process = both.popen("run", "busybox", *FOREVER, stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    process.stdout.close()
    assert both.left() == []


def test_the_stop_signal_reaches_the_command(host: Host) -> None:
    host.image("app", StopSignal="SIGUSR1")
    script = "trap 'echo stopped; exit 4' USR1; echo ready; while :; do sleep 0.05; done"
    host.run("-d", "--name", host.mine, "app", "sh", "-c", script)
    until(lambda: "ready" in host("logs", host.mine).stdout)
    host("stop", host.mine)
    assert "stopped" in host("logs", host.mine).stdout
    assert "exited (4)" in host("ps", "-a").stdout


# --- containers that are kept ------------------------------------------------------------------


def test_the_life_of_a_detached_container(both: Host) -> None:
    name = both.mine
    script = "echo out; echo err >&2; printf part; echo x > /new; rm /etc/group; exec "
    done = both.run("-d", "--name", name, "busybox", "sh", "-c", script + " sleep 1000")
    assert done.stdout == f"{name}\n"
    assert "running" in both("ps").stdout
    until(lambda: "err" in (logs := both("logs", name)).stderr and "out" in logs.stdout)
    until(lambda: both("exec", name, "cat", "/proc/1/comm").stdout == "sleep\n")
    inside = both("exec", "-e", "A=1", "-w", "/tmp", name, "sh", "-c", "pwd; echo $A; cat /new")
    assert inside.stdout.splitlines() == ["/tmp", "1", "x"]
    assert both("exec", name, "nope", check=False).returncode == 127
    assert both("diff", name).stdout == "C /etc\nD /etc/group\nA /new\n"
    both("commit", name, "changed:2")
    assert both.run("changed:2", "cat", "/new").stdout == "x\n"
    assert both.run("changed:2", "ls", "/etc/group", check=False).returncode == 1
    done = both("rm", name, check=False)
    assert (done.returncode, "is running" in done.stderr) == (125, True)
    both("kill", "-s", "KILL", name)
    until(lambda: "exited (137)" in both("ps", "-a").stdout)
    assert name not in both("ps").stdout
    both("start", name)
    assert both("exec", name, "cat", "/new").stdout == "x\n"  # what it changed is still there
    both("rm", "-f", name)
    assert both.left() == []


def test_a_name_is_taken_once(host: Host) -> None:
    host.image("app")
    processes = [host.popen("run", "-d", "--name", host.mine, "app", "sleep", "100",
                            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
                 for _ in range(3)]  # fmt: skip
    errors = [process.communicate(timeout=30)[1] for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 125, 125], errors
    assert sum("is in use by a container" in text for text in errors) == 2


def test_rm_at_the_end_of_a_detached_one(host: Host) -> None:
    host.image("app")
    host.run("-d", "--rm", "--name", host.mine, "app", "true")
    until(lambda: host.left() == [])


def test_logs_follow_and_keep_both_streams_apart(host: Host) -> None:
    host.image("app")
    script = "echo one; sleep 0.3; echo two >&2; head -c 40000 /dev/zero | tr '\\0' x; echo"
    host.run("-d", "--name", host.mine, "app", "sh", "-c", script)
    done = host("logs", "-f", host.mine)
    assert done.stdout == "one\n" + "x" * 40000 + "\n"
    assert done.stderr == "two\n"
    assert re.match(r"20\d\d-\d\d-\d\dT[\d:.]+Z one\n", host("logs", "-t", host.mine).stdout)


def test_a_log_keeps_what_came_last_within_its_limit(host: Host) -> None:
    """Followed from the first line on, across the change of files, nothing is missing."""
    host.image("app")
    # Each part fills one file at most: a follower looks ten times a second
    script = "read go < /go; for n in 1 2 3; do seq ${n}001 ${n}999; sleep 0.5; done"
    host.run("-d", "--name", host.mine, "--log-opt", "max-size=50k", "app", "sh", "-c",
             f"mkfifo /go; echo made; {script}")  # fmt: skip
    follower = host.popen("logs", "-f", host.mine, stdout=subprocess.PIPE)
    until(lambda: "made" in host("logs", host.mine).stdout)
    attached = host.popen("attach", host.mine, stdout=subprocess.PIPE)
    until(lambda: glob.glob(f"/proc/{attached.pid}/fd/*") and any(
        os.path.realpath(fd).endswith("/log") for fd in glob.glob(f"/proc/{attached.pid}/fd/*")
    ))  # fmt: skip
    host("exec", host.mine, "sh", "-c", "echo > /go")
    everything = [str(n) for part in (1, 2, 3) for n in range(part * 1000 + 1, part * 1000 + 1000)]
    assert follower.communicate(timeout=30)[0].split() == ["made", *everything]
    assert attached.communicate(timeout=30)[0].split() == everything
    assert attached.returncode == 0
    directory = host.data / "containers" / host.mine
    sizes = [os.path.getsize(directory / name) for name in ("log", "log.1")]
    assert all(0 < size <= 50 << 10 for size in sizes), sizes
    shown = host("logs", host.mine).stdout.split()
    assert shown == everything[-len(shown) :]
    assert 1000 < len(shown) < 2500
    done = host.run("-d", "--log-opt", "mode=x", "app", check=False)
    assert "max-size=SIZE is what there is" in done.stderr


def test_attach_gives_the_exit_status_and_restart_a_new_process(host: Host) -> None:
    host.image("app")
    host.run("-d", "--name", host.mine, "app", *FOREVER)
    until(lambda: "ready" in host("logs", host.mine).stdout)
    assert host("restart", host.mine).stdout == f"{host.mine}\n"
    until(lambda: host("logs", host.mine).stdout == "ready\n" * 2)
    attached = host.popen("attach", host.mine, stdout=subprocess.PIPE)
    time.sleep(0.2)
    attached.send_signal(signal.SIGINT)
    assert attached.wait(10) == 130
    assert "running" in host("ps").stdout, "Ctrl-C is for us"
    attached = host.popen("attach", host.mine, stdout=subprocess.PIPE)
    until(lambda: any(os.path.realpath(fd).endswith("/log")
                      for fd in glob.glob(f"/proc/{attached.pid}/fd/*")))  # fmt: skip
    host("stop", host.mine)
    assert attached.wait(10) == 9
    assert "is not running" in host("attach", host.mine, check=False).stderr


def test_fsck_misses_the_layers_of_a_container(host: Host) -> None:
    host.image("app")
    host.run("--name", host.mine, "app", "true")
    assert host("fsck").stdout.endswith(": consistent\n")
    for path in (host.data / "images/layers").iterdir():
        shutil.rmtree(path)
    done = host("fsck", check=False)
    assert done.returncode == 1
    assert f"container {host.mine}: layer " in done.stdout


def test_detached_with_a_terminal(host: Host) -> None:
    host.image("app")
    host.run("-dt", "--name", host.mine, "app", "sh", "-c", "test -t 1 && tty")
    assert "/dev/pts/0" in host("logs", "-f", host.mine).stdout
    until(lambda: "exited (0)" in host("ps", "-a").stdout)


def test_an_error_of_a_detached_start_comes_back(host: Host) -> None:
    host.image("app")
    done = host.run("-d", "--rm", "app", "nope", check=False)
    assert done.returncode == 127
    assert "executable file not found" in done.stderr
    assert host.left() == []


def test_exec_as_a_user_and_with_a_terminal(host: Host) -> None:
    host.image("app")
    host.run("-d", "--name", host.mine, "app", "sleep", "100")
    done = host("exec", "-u", "nobody", host.mine, "sh", "-c", "id -un; echo $HOME")
    assert done.stdout.split() == ["nobody", "/nonexistent"]
    assert host("exec", "-t", host.mine, "tty").stdout.strip() == "/dev/pts/0"
    done = host("exec", "-u", "nope", host.mine, "id", check=False)
    assert (done.returncode, "/etc/passwd" in done.stderr) == (125, True)


def test_an_image_without_a_name_stays_while_a_container_has_it(host: Host) -> None:
    host.image("app")
    host.run("-d", "--name", host.mine, "app", "sleep", "100")
    host("rmi", "app")
    host("gc")
    assert host("exec", host.mine, "ls", "/bin/sh").stdout == "/bin/sh\n"
    host("stop", "-t", "0", host.mine)
    host("start", host.mine)
    host("commit", host.mine, "again")
    assert host.run("again", "echo", "x").stdout == "x\n"


def test_of_two_that_start_it_one_does(host: Host) -> None:
    host.image("app")
    host.run("-d", "--name", host.mine, "app", "sh", "-c", "echo run; sleep 100")
    host("stop", "-t", "0", host.mine)
    processes = [host.popen("start", host.mine, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
                 for _ in range(4)]  # fmt: skip
    errors = [process.communicate(timeout=30)[1] for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 125, 125, 125], errors
    assert "running" in host("ps").stdout
    until(lambda: host("logs", host.mine).stdout == "run\n" * 2)
    many = [host.popen("rm", "-f", host.mine, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
            for _ in range(4)]  # fmt: skip
    errors = [process.communicate(timeout=30)[1] for process in many]
    assert 0 in [process.returncode for process in many]
    assert not [text for text in errors if "Traceback" in text]


def test_files_that_every_user_may_read_whatever_our_umask(host: Host) -> None:
    host.image("app")
    words = ["sh", "-c", 'umask 077 && exec "$@"', "sh", *host.words, "run", "-u", "nobody"]
    done = subprocess.run([*words, "app", "cat", "/etc/hosts", "/etc/hostname"],
                          capture_output=True, text=True)  # fmt: skip
    assert "localhost" in done.stdout
    assert done.returncode == 0, done.stderr


@pytest.mark.rootless
def test_root_of_a_user_namespace_runs_images(ordinary_user: list[str], tmp_path: Path) -> None:
    """As in a container without root: it hands on the one id that it has, and needs no cgroup."""
    busybox()
    data = tmp_path / "data"
    data.mkdir()
    os.chown(data, ORDINARY_UID, ORDINARY_UID)
    host = Host(data, [*ordinary_user, "unshare", "--user", "--map-root-user", "--mount", "env"])
    host("image", "bootstrap", "busybox")
    done = host.run(
        "--name", host.mine, "busybox", "sh", "-c", "cat /proc/self/uid_map; rm /etc/group"
    )
    assert done.stdout.split() == ["0", "0", "1"]
    assert host("diff", host.mine).stdout.splitlines() == ["C /etc", "D /etc/group"]
    host("rm", host.mine)
    assert host.left() == []


@pytest.mark.rootless
def test_an_ordinary_user_with_ranges_of_ids_has_the_images_users(
    ordinary_user: list[str], tmp_path: Path
) -> None:
    """Ids of /etc/subuid, by newuidmap(1): files of the image keep their owners."""
    need("newuidmap", "uidmap")
    busybox()
    data = tmp_path / "data"
    data.mkdir()
    for path in (tmp_path, data):
        os.chown(path, ORDINARY_UID, ORDINARY_UID)
    (tmp_path / "sub").write_text("somebody:400000:65536\n")
    user = f"somebody:x:{ORDINARY_UID}:{ORDINARY_UID}::/:/bin/sh\n"
    (tmp_path / "passwd").write_text(Path("/etc/passwd").read_text() + user)
    binds = {"sub": ("/etc/subuid", "/etc/subgid"), "passwd": ("/etc/passwd",)}
    script = "; ".join(f"mount --bind {tmp_path}/{name} {target}"
                       for name, targets in binds.items() for target in targets)  # fmt: skip
    before = ["unshare", "--mount", "sh", "-c", f'{script}; exec "$@"', "sh", *ordinary_user]
    host = Host(data, before)
    host("image", "bootstrap", "busybox")
    script = "touch /tmp/mine && stat -c '%u %g' /tmp/mine && mkdir -m 0 /tmp/closed"
    host.run("-d", "--name", host.mine, "-u", "nobody", "busybox", "sh", "-c", f"{script}; sleep 9")
    until(lambda: host("logs", host.mine).stdout == "65534 65534\n")
    mine = data / "containers" / host.mine / "upper/tmp/mine"
    assert mine.stat().st_uid == 400000 + 65533
    assert host("diff", host.mine).stdout.splitlines() == ["C /tmp", "A /tmp/closed", "A /tmp/mine"]
    host("commit", host.mine, "changed")
    done = host.run("changed", "stat", "-c", "%u", "/tmp/mine")
    assert done.stdout == "65534\n"
    host("rm", "-f", host.mine)
    assert host.left() == []


# --- killed ------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["run", "busybox"], ["run", "-d", "--rm", "busybox"]])
def test_after_kill_9_gc_leaves_nothing(both: Host, words: list[str]) -> None:
    """The container dies with whoever stands by it; its directory and groups go with gc."""
    words = [words[0], "--name", both.mine, "--rm", *words[1:]]
    process = both.popen(*words, *FOREVER, stdout=subprocess.DEVNULL)
    record = both.data / "containers" / both.mine / "container.json"
    until(lambda: record.exists() and json.loads(record.read_text()).get("started"))
    pid = json.loads(record.read_text())["monitor"][0]
    (state,) = [path for path in both.states.glob("*/state.json") if both.mine in str(path)]
    init = json.loads(state.read_text())["pid"]
    os.kill(pid, signal.SIGKILL)
    process.wait(20)
    until(lambda: not alive(init))
    assert both.left()
    both("gc")
    assert both.left() == []


def test_killed_at_any_time_nothing_is_left_after_gc(host: Host) -> None:
    host.image("app")
    for n in range(12):
        process = host.popen("run", "--rm", "--name", f"{host.mine}{n}", "app", "sleep", "100")
        time.sleep(0.02 * n)
        process.kill()
        process.wait()
    for name in names(host.data / "containers"):
        host("rm", "-f", name)  # also without a record, which gc gives a minute
    host("gc")
    assert host.left() == []


ON_ONE = (["start"], ["restart"], ["stop"], ["kill"], ["logs"], ["attach"], ["exec", "true"],
          ["diff"], ["commit", "new"])  # fmt: skip


def refused(host: Host, words: list[str], why: str) -> None:
    done = host(words[0], host.mine, *words[1:], check=False)
    assert (done.returncode, why in done.stderr) == (125, True), (words, done)
    assert f"rm --force {host.mine}" in done.stderr


def test_a_damaged_record_is_told_and_costs_nobody_his_files(host: Host) -> None:
    host.image("app")
    host.run("--name", host.mine, "app", "sh", "-c", "[ -e /precious ] || echo mine > /precious")
    path = host.data / "containers" / host.mine / "container.json"
    whole = json.loads(path.read_text())
    damages: list[object] = [
        "{", "5", "{}", {"monitor": 5}, {"monitor": [1 << 40, 1]}, {"exit": "0"}, {"layers": 5},
        {"layers": [5]}, {"created": "now"}, {"descriptor": {}}, {"volumes": {"/": 5}},
        {"command": None}, {"stop_signal": 15},
    ]  # fmt: skip
    for n, damage in enumerate(damages):
        path.write_text(damage if isinstance(damage, str) else json.dumps({**whole, **damage}))
        assert "damaged" in host("ps", "-a").stdout
        for words in ON_ONE if n == 0 else ON_ONE[n % len(ON_ONE) :][:1]:
            refused(host, words, "container.json is damaged: ")
        assert "is damaged: " in host("fsck", check=False).stdout
    os.utime(path.parent, (1, 1))
    assert "is damaged: " in host("gc").stderr
    refused(host, ["rm"], "container.json is damaged: ")
    path.write_text(json.dumps(whole))
    host("start", host.mine)
    assert (path.parent / "upper/precious").read_text() == "mine\n"
    path.unlink()
    path.mkdir()
    refused(host, ["diff"], "is a directory")
    host("rm", "-f", host.mine)
    assert host.left() == []


def test_a_half_made_container_is_told_and_goes_with_gc(host: Host) -> None:
    """`run` was killed while it made it: nothing ever ran in it."""
    host.image("app")
    host.run("--name", host.mine, "app", "true")
    path = host.data / "containers" / host.mine / "container.json"
    ended = subprocess.Popen(["true"])
    ended.wait()
    first = ("image", "descriptor", "remove", "labels", "stop_signal", "created")
    record = {key: json.loads(path.read_text())[key] for key in first}
    path.write_text(json.dumps({**record, "monitor": [ended.pid, 1]}))
    for words in ON_ONE:
        refused(host, words, "is half made")
    assert "removed 1 container" in host("gc").stdout
    assert host.left() == []


def test_a_directory_tree_of_any_depth_is_removed(host: Host) -> None:
    host.image("app")
    script = "i=0; while [ $i -lt 1200 ]; do mkdir d && cd d || exit 1; i=$((i+1)); done"
    host.run("app", "sh", "-c", script)
    assert host.left() == []


# --- where overlayfs cannot be used ------------------------------------------------------------


def test_without_overlayfs_the_image_is_copied(host: Host, tmp_path: Path) -> None:
    """An overlay mount cannot have its upper directory on another one."""
    host.image("app", Volumes={"/etc": {}})
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    script = f"mount -t overlay o -o lowerdir={host.data},upperdir={tmp_path}/upper,"
    script += f'workdir={tmp_path}/work {host.data} && exec "$@"'
    words = ["unshare", "-m", "sh", "-c", script, "sh", *host.words]
    done = subprocess.run(
        [*words, "run", "app", "sh", "-c", "grep ' / overlay ' /proc/mounts; cat /etc/passwd"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "the image is copied, since overlayfs cannot be used" in done.stderr
    assert "root:x:0:0" in done.stdout
    assert done.returncode == 0, done.stderr


# --- the library, and what it costs ------------------------------------------------------------


def test_the_library_runs_images(host: Host, monkeypatch) -> None:
    host.image("app", Env=["A=1"], Cmd=["sh", "-c", "echo $A $B; pwd"], WorkingDir="/srv")
    minicontainer.helper_stop()  # the helper has the environment that it was started with
    monkeypatch.setenv("MINICONTAINER_DATA", str(host.data))
    try:
        done = minicontainer.run(image="app", env={"B": "2"}, capture_output=True)
        assert done.stdout == "1 2\n/srv\n"
        done = minicontainer.run(image="app", args=["cat"], input="x", capture_output=True,
                                 options=["--memory", "64m"], trace=True)  # fmt: skip
        assert done.stdout == "x"
        assert "overlay root" in [step["name"] for step in done.steps]
        with pytest.raises(minicontainer.ContainerError, match="no such image"):
            minicontainer.run(image="nope", options=["--pull", "never"])
        with pytest.raises(minicontainer.ContainerError, match="bytes"):
            minicontainer.run(image="app", options=["--memory", "x"])
        with pytest.raises(TimeoutError):
            minicontainer.run(image="app", args=["sleep", "100"], timeout=0.5)
        with pytest.raises(TypeError):
            minicontainer.run("/", ["true"], image="app")
    finally:
        minicontainer.helper_stop()
    assert host.left() == []


def test_the_plan_of_an_image(host: Host) -> None:
    host.image("app", Volumes={"/data": {}})
    text = host("explain", "app").stdout
    for words in ("overlay root", "lowerdir=", "upperdir", "copy('/data'", "lesson 07"):
        assert words in text
    assert json.loads(host("explain", "--json", "app").stdout)[0]["n"] == 1
    assert "step to exec" in host.run("--trace", "app", "true").stderr
    assert host.left() == []


@pytest.mark.slow
def test_64_layers_start_like_one(host: Host) -> None:
    """Medians of whole processes, in turn; once more when the machine was busy."""
    host.image("one")
    host.image("many", *(tar(entry(f"f{n}", b"x")) for n in range(63)))
    for name in ("one", "many"):
        host.run(name, "true")

    def ratio() -> float:
        taken: dict[str, list[float]] = {"one": [], "many": []}
        for _ in range(15):
            for name, times in taken.items():
                begin = time.perf_counter()
                host.run(name, "true")
                times.append(time.perf_counter() - begin)
        return sorted(taken["many"])[4] / sorted(taken["one"])[4]

    found = [ratio()]
    while found[-1] > 1.2 and len(found) < 4:
        found.append(ratio())
    assert found[-1] <= 1.2, found


# --- other tools' images, and ours for other tools ----------------------------------------------


def test_an_image_that_umoci_made_runs(host: Host, tmp_path: Path) -> None:
    umoci = need("umoci", "umoci")
    skopeo = need("skopeo", "skopeo")

    def call(*words: str | Path) -> None:
        subprocess.run(list(map(str, words)), check=True, capture_output=True)

    layout = tmp_path / "layout"
    call(umoci, "init", "--layout", layout)
    call(umoci, "new", "--image", f"{layout}:made")
    root = tmp_path / "root"
    root.mkdir()
    subprocess.run(["tar", "-x", "-C", root], input=busybox(), check=True)
    call(umoci, "insert", "--image", f"{layout}:made", root, "/")
    call(umoci, "config", "--image", f"{layout}:made", "--config.entrypoint", "echo",
         "--config.cmd", "from umoci", "--config.user", "nobody")  # fmt: skip
    call(skopeo, "copy", f"oci:{layout}:made", f"oci-archive:{tmp_path}/made.tar:made")
    host("load", "-i", tmp_path / "made.tar")
    assert host.run("made").stdout == "from umoci\n"
    assert host.run("--entrypoint", "id", "made", "-un").stdout == "nobody\n"


@pytest.mark.slow
def test_podman_runs_ours_and_we_run_podman_s(host: Host, podman, tmp_path: Path) -> None:  # noqa: F811
    config = {"Env": ["A=1"], "User": "nobody", "WorkingDir": "/srv", "Entrypoint": ["sh", "-c"]}
    data = tar(directory("srv"), entry("srv/x", b"1\n"))
    host.image("ours", data, **config, Cmd=["id -un; pwd; cat x; echo $A"])
    host("save", "-o", tmp_path / "ours.tar", "ours")
    loaded = podman("load", "-i", tmp_path / "ours.tar")
    assert loaded.returncode == 0, loaded.stderr
    theirs = podman("run", "--name", "made", *CONTAINER, "docker.io/library/ours")
    ours = host.run("ours")
    assert theirs.stdout == ours.stdout == "nobody\n/srv\n1\n1\n", theirs.stderr
    made = podman("commit", "--format", "oci", "--change", "ENV=B=2", "made", "theirs")
    assert made.returncode == 0, made.stderr
    podman("save", "--format", "oci-archive", "-o", tmp_path / "theirs.tar", "localhost/theirs")
    host("load", "-i", tmp_path / "theirs.tar")
    assert host.run("localhost/theirs").stdout == ours.stdout


@pytest.mark.docker
@pytest.mark.slow
def test_docker_runs_ours_by_the_same_rules(host: Host, docker, tmp_path: Path) -> None:  # noqa: F811
    users = tar(directory("etc"), entry("etc/passwd", b"root:x:0:0::/root:/bin/sh\nw:x:7:8::/w:\n"))
    host.image("ours", users, Env=["A=1", "B=2"], User="w", WorkingDir="/srv/new",
               Entrypoint=["sh", "-c"], Cmd=["id; pwd; echo $A $B $HOME $PATH"],
               Volumes={"/etc": {}})  # fmt: skip
    host("save", "-o", tmp_path / "ours.tar", "ours")
    loaded = docker("load", "-i", str(tmp_path / "ours.tar"))
    assert loaded.returncode == 0, loaded.stderr
    status = "grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status; ulimit -n; ls /dev; cat /etc/pass*"
    common = ["--network", "none", "--ulimit", "nofile=100:200"]
    for words in (
        ["ours"],
        ["-e", "B=3", "-w", "/x", "-u", "0", "ours"],
        ["--entrypoint", "sh", "ours", "-c", status],
        ["-u", "0", "--entrypoint", "sh", "ours", "-c", status],
        ["--cap-drop", "ALL", "--cap-add", "CHOWN", "-u", "0", "ours", status],
        ["--read-only", "--tmpfs", "/t", "ours", "touch /t/x /x; ls /t"],
        ["--entrypoint", "pwd", "ours"],
        ["ours", "exit 3"],
        ["ours", "/nope"],
    ):
        theirs = docker("run", "--rm", *common, *words)
        own = host.run(*common, *words, check=False)
        assert (own.returncode, own.stdout) == (theirs.returncode, theirs.stdout), (words, theirs)
