"""`exec`: in everything that the container has, and safe against what is in there; `update`."""

from __future__ import annotations

import array
import json
import os
import shlex
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from minicontainer.kernel import capabilities, namespaces
from tests.bundles import FOREVER, Bundle, bundle, end

__all__ = ["bundle"]
pytestmark = pytest.mark.root


@pytest.fixture
def running(bundle: Bundle) -> Bundle:
    bundle.args(*FOREVER).create()
    bundle.call("start", bundle.id)
    return bundle


def execute(bundle: Bundle, *words: str, options=(), check=False, **kwargs):
    return bundle.call("exec", *options, bundle.id, *words, check=check, **kwargs)


def status_of(text: str) -> dict[str, str]:
    return {line.split(":")[0]: line.split(":")[1].strip() for line in text.splitlines()}


def test_it_has_everything_that_the_container_has(running: Bundle):
    script = "for n in /proc/self/ns/*; do stat -Lc '%n %i' $n; done; cat /proc/self/cgroup"
    done = execute(running, "sh", "-c", script)
    pid = running.state()["pid"]
    inside = dict(line.split() for line in done.stdout.splitlines() if line.startswith("/proc"))
    for kind, inode in namespaces.inodes(pid).items():
        assert int(inside[f"/proc/self/ns/{namespaces.NAMESPACES[kind][0]}"]) == inode, kind
    # With a cgroup namespace of its own the container's group is the topmost
    paths = {line.split(":", 2)[2] for line in done.stdout.splitlines() if ":" in line}
    assert paths == {"/"}


def command_line(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""  # ended meanwhile


def test_its_group_is_the_containers(running: Bundle):
    with running.popen("exec", running.id, "sleep", "1000") as process:
        group = Path(running.groups()[0], "cgroup.procs")
        until = time.monotonic() + 20
        while "sleep\0001000\0" not in map(command_line, group.read_text().split()):
            assert time.monotonic() < until
        running.call("kill", running.id, "KILL")
        assert process.wait(20) == 137  # the end of PID 1 ends all


@pytest.mark.parametrize(
    ("words", "code"),
    [(["true"], 0), (["sh", "-c", "exit 7"], 7), (["/bin"], 126), (["nope"], 127),
     (["sh", "-c", "kill -9 $$"], 137)],
)  # fmt: skip
def test_exit_codes(running: Bundle, words, code):
    assert execute(running, *words).returncode == code


def test_input_output_and_descriptors(running: Bundle):
    with open("/etc/passwd") as secret:
        os.set_inheritable(secret.fileno(), True)
        done = execute(running, "sh", "-c", "cat; ls -l /proc/$$/fd >&2", input="in",
                       pass_fds=[secret.fileno()])  # fmt: skip
    assert done.stdout == "in"
    numbers = [int(line.split()[-3]) for line in done.stderr.splitlines() if "->" in line]
    assert numbers == [0, 1, 2]


def test_options_change_the_process(running: Bundle):
    done = execute(
        running, "sh", "-c", "id; pwd; echo $A; cat /proc/self/status",
        options=["-u", "1000:2000", "-g", "7", "--cwd", "/bin", "-e", "A=b=c", "--no-new-privs"],
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines[:3] == ["uid=1000 gid=2000 groups=7", "/bin", "b=c"]
    assert status_of("\n".join(lines[3:]))["NoNewPrivs"] == "1"


def test_capabilities_are_the_containers_and_cap_adds_one(running: Bundle):
    kept = running.config["process"]["capabilities"]["bounding"]
    for options, names in ((), kept), (["--cap", "CAP_SYS_TIME"], [*kept, "CAP_SYS_TIME"]):
        done = execute(running, "cat", "/proc/self/status", options=options)
        sets = status_of(done.stdout)
        for kind in ("CapBnd", "CapPrm", "CapEff"):
            assert int(sets[kind], 16) == capabilities.mask(names), (kind, options)


def test_process_object_is_taken_whole(running: Bundle):
    process = {
        "args": ["sh", "-c", "id; ulimit -n; env; umask"], "cwd": "/", "env": ["PATH=/bin", "X=y"],
        "user": {"uid": 5, "gid": 6, "umask": 0o077},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}],
    }  # fmt: skip
    (running.directory / "process.json").write_text(json.dumps(process))
    done = execute(running, options=["--process", "process.json"], check=True)
    assert "uid=5 gid=6" in done.stdout
    assert "\n77\n" in done.stdout
    assert "X=y" in done.stdout
    assert "0077" in done.stdout


@pytest.mark.parametrize(
    ("process", "says"),
    [("{", "process.json"), ('{"args": []}', "process.cwd: is required"),
     ('{"args": ["x"], "cwd": "x"}', "process.cwd: an absolute path"),
     ('{"args": ["x"], "cwd": "/", "user": {"uid": "0"}}', "process.user.uid")],
)  # fmt: skip
def test_wrong_process_objects_are_named(running: Bundle, process, says):
    (running.directory / "process.json").write_text(process)
    done = execute(running, options=["--process", "process.json"])
    assert (done.returncode, says in done.stderr) == (1, True), done.stderr


def test_users_are_numbers_since_names_are_in_the_containers_files(running: Bundle):
    done = execute(running, "true", options=["-u", "root"])
    assert "numbers only" in done.stderr


def test_detached_with_pid_file(running: Bundle):
    done = running.call("exec", "-d", "--pid-file", "pid", running.id, "sleep", "1000",
                        capture_output=False, stdout=subprocess.DEVNULL)  # fmt: skip
    assert done.returncode == 0
    pid = int((running.directory / "pid").read_text())
    assert "sleep" in Path(f"/proc/{pid}/cmdline").read_text()
    assert str(pid) in Path(running.groups()[0], "cgroup.procs").read_text().split()
    end(pid)


def test_paused_and_stopped_containers(running: Bundle):
    running.call("pause", running.id)
    assert "that is paused" in execute(running, "true").stderr
    running.call("resume", running.id)
    running.call("delete", "--force", running.id)
    assert "does not exist" in execute(running, "true").stderr


def test_seccomp_holds_for_it_too(bundle: Bundle):
    bundle.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
    }
    bundle.args(*FOREVER).create()
    bundle.call("start", bundle.id)
    done = execute(bundle, "sh", "-c", "grep Seccomp: /proc/self/status; mkdir /tmp/x")
    assert done.stdout.split() == ["Seccomp:", "2"]
    assert "Operation not permitted" in done.stderr


# --- terminals ---------------------------------------------------------------------------------


@pytest.fixture
def console(tmp_path: Path):
    """A socket that waits for terminals, as conmon has it; `receive` gives the master."""

    class Console:
        path = str(tmp_path / "console")
        socket = socket.socket(socket.AF_UNIX)

        def receive(self) -> int:
            connection, _ = self.socket.accept()
            with connection:
                fds = array.array("i")
                _, rights, _, _ = connection.recvmsg(256, socket.CMSG_LEN(4))
                fds.frombytes(rights[0][2])
                return fds[0]

    made = Console()
    made.socket.bind(made.path)
    made.socket.listen()
    made.socket.settimeout(20)
    yield made
    made.socket.close()


def read_until(master: int, wanted: bytes) -> bytes:
    data = b""
    while wanted not in data:
        data += os.read(master, 4096)
    return data


def test_terminal_of_a_container(bundle: Bundle, console):
    bundle.config["process"]["terminal"] = True
    bundle.config["process"]["consoleSize"] = {"height": 33, "width": 77}
    bundle.args("sh", "-c", "stty size; stat -c %t:%T /dev/console; read x; echo got $x").create(
        "--console-socket", console.path
    )
    master = console.receive()
    bundle.call("start", bundle.id)
    said = read_until(master, b":")
    assert b"33 77" in said
    os.write(master, b"typed\n")
    assert b"got typed" in read_until(master, b"got typed")
    os.close(master)


def test_terminal_of_an_exec(running: Bundle, console):
    running.call("exec", "-d", "-t", "--console-socket", console.path, running.id,
                 "sh", "-c", "test -t 0 && test -t 1 && echo it is; read x",
                 capture_output=False, stdout=subprocess.DEVNULL)  # fmt: skip
    master = console.receive()
    assert b"it is" in read_until(master, b"it is")
    os.close(master)


def test_terminal_in_the_foreground(running: Bundle):
    done = execute(running, "sh", "-c", "test -t 1 && echo it is", options=["-t"],
                   stdin=subprocess.DEVNULL)  # fmt: skip
    assert done.stdout == "it is\n"  # as text; the terminal sent \\r\\n


def test_terminal_without_a_socket_is_refused_at_create(bundle: Bundle):
    bundle.config["process"]["terminal"] = True
    assert "--console-socket" in bundle.create(check=False).stderr


# --- hostile containers ------------------------------------------------------------------------


def test_fifos_in_the_image_hold_nobody_up(running: Bundle):
    (running.root / "etc").mkdir()
    for name in ("passwd", "group", "ld.so.cache", "ld.so.preload", "localtime"):
        os.mkfifo(running.root / "etc" / name)
    assert execute(running, "true", options=["-u", "1000"]).returncode == 0


def test_dev_pts_of_the_containers_making_is_refused(bundle: Bundle):
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["destination"] != "/dev/pts"]
    bundle.args(*FOREVER).create()
    bundle.call("start", bundle.id)
    done = execute(bundle, "true", options=["-t"], stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "terminal" in done.stderr


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_no_file_of_the_container_is_opened_before_exec(running: Bundle):
    """The oracle: what the kernel saw between setns(2) and execve(2)."""
    log = running.directory / "strace"
    running.write()
    subprocess.run(
        ["strace", "-f", "-o", log, "-e", "trace=setns,open,openat,openat2,execve",
         *running.command, "exec", running.id, "true"],
        cwd=running.directory, check=True, capture_output=True,
    )  # fmt: skip
    lines = log.read_text().splitlines()
    joined = next(n for n, line in enumerate(lines) if "setns(" in line)
    stage = lines[joined].split()[0]
    pids = {line.split()[0] for line in lines[joined:] if 'execve("/bin/true"' in line} | {stage}
    before = []
    for line in lines[joined:]:
        if line.split()[0] in pids and "execve(" in line:
            break
        if line.split()[0] in pids and "open" in line and "O_PATH" not in line:
            before.append(line)
    assert before == []


def test_nobody_inside_may_look_into_the_joining_process(running: Bundle):
    """The process that still is Python, with the host's descriptors, cannot be dumped."""
    watch = (
        "while :; do for p in /proc/[0-9]*; do "
        "readlink $p/exe | grep -q python && ls $p/fd 2>/dev/null && readlink $p/exe; "
        "done; done"
    )
    with running.popen("exec", running.id, "sh", "-c", watch, stdout=subprocess.PIPE) as process:
        for _ in range(10):
            execute(running, "true", check=True)
        running.call("kill", running.id, "KILL")
        assert process.stdout is not None
        assert process.stdout.read() == b""


def test_init_of_a_created_container_hides_its_interpreter(bundle: Bundle):
    bundle.args(*FOREVER).create()
    script = "for f in exe cwd fd/3 fd/4; do readlink /proc/1/$f || echo hidden; done"
    assert execute(bundle, "sh", "-c", script).stdout.split() == ["hidden"] * 4


# --- update ------------------------------------------------------------------------------------


def test_update_changes_limits_of_a_running_container(running: Bundle):
    running.call("update", "--memory", str(64 << 20), "--pids-limit", "55", running.id)
    found = {path: Path(path).read_text().strip() for group in running.groups()
             for path in (f"{group}/memory.limit_in_bytes", f"{group}/memory.max",
                          f"{group}/pids.max") if os.path.exists(path)}  # fmt: skip
    assert sorted(found.values()) == ["55", str(64 << 20)]


def test_update_from_a_file_and_from_stdin(running: Bundle):
    limits = json.dumps({"pids": {"limit": 66}})
    (running.directory / "limits.json").write_text(limits)
    running.call("update", "--resources", "limits.json", running.id)
    # From a pipe that its writer takes some time for
    command = shlex.join([*running.command, "update", "-r", "-", running.id])
    slowly = f"(sleep 0.5; sed s/66/67/ limits.json) | {command}"
    done = subprocess.run(["sh", "-c", slowly], cwd=running.directory, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "67" in [Path(group, "pids.max").read_text().strip() for group in running.groups()
                    if Path(group, "pids.max").exists()]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "says"),
    [(["--memory", "1G"], "--memory 1G: a whole number"), ([], "update what?"),
     (["-r", "nowhere"], "no such file"), (["--cpuset-cpus", "9999"], "cpuset")],
)  # fmt: skip
def test_wrong_updates(running: Bundle, words, says):
    done = running.call("update", *words, running.id, check=False)
    assert (done.returncode, says in done.stderr) == (1, True), done.stderr
