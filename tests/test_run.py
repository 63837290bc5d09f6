"""`minicontainer run`, seen from outside and from the kernel's files inside."""

from __future__ import annotations

import json
import os
import select
import shlex
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

from minicontainer.kernel import capabilities, namespaces
from tests.bundles import Process
from tests.roots import COMMAND, ORDINARY_UID

pytestmark = [pytest.mark.root, pytest.mark.rootless]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: sudo ./workshop test")


def run(root: Path, *words: str, options=(), prefix=(), **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*prefix, *COMMAND, "run", *options, "--rootfs", str(root), *words],
        capture_output=True, text=True, timeout=60, **kwargs,
    )  # fmt: skip


@pytest.fixture(params=["root", "rootless"])
def prefix(request) -> list[str]:
    """Every test that asks for it runs twice: as root, and as an ordinary user."""
    if request.param == "root":
        if os.geteuid() != 0:
            pytest.skip("needs root: sudo ./workshop test")
        return []
    return request.getfixturevalue("ordinary_user")


@pytest.fixture
def root(root: Path, prefix: list[str]) -> Path:
    if prefix:
        for path in (root, *root.rglob("*")):
            os.chown(path, ORDINARY_UID, ORDINARY_UID, follow_symlinks=False)
    return root


def mount_table() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


# --- what it is inside -------------------------------------------------------------------------


def test_all_eight_namespaces_are_new(root, prefix):
    script = "for n in /proc/self/ns/*; do stat -Lc '%n %i' $n; done"
    done = run(root, "sh", "-c", script, prefix=prefix)
    inside = {Path(line.split()[0]).name: int(line.split()[1]) for line in done.stdout.splitlines()}
    outside = {namespaces.NAMESPACES[kind][0]: inode for kind, inode in namespaces.inodes().items()}
    shared = {name for name, inode in outside.items() if inside[name] == inode}
    assert shared == (set() if prefix or os.geteuid() else {"user"})


def test_command_is_pid_1_and_alone(root, prefix):
    done = run(root, "sh", "-c", "echo $$; ls -d /proc/[0-9]*", prefix=prefix)
    assert done.stdout.split() == ["1", "/proc/1"]


def test_root_is_the_directory_and_the_host_is_gone(root, prefix):
    (root / "marker").write_text("here")
    done = run(root, "sh", "-c", "cat /marker; ls /..; cat /proc/self/mountinfo", prefix=prefix)
    assert done.stdout.startswith("here")
    targets = [line.split()[4] for line in done.stdout.splitlines() if " - " in line]
    assert targets[0] == "/"
    assert all(t == "/" or t.startswith(("/proc", "/dev", "/sys")) for t in targets)


def test_hostname_environment_directory_and_umask(root, prefix):
    done = run(
        root, "sh", "-c", "hostname; echo $A; pwd; umask; env | sort", prefix=prefix,
        options=["--hostname", "box", "-e", "A=1=2", "-w", "/bin"],
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines[:4] == ["box", "1=2", "/bin", "0022"]
    names = {line.split("=")[0] for line in lines[4:]}
    assert names == {"A", "HOME", "HOSTNAME", "PATH", "PWD", "SHLVL"}


def test_env_without_value_is_taken_from_the_caller(root, prefix):
    wanted = ["env", *prefix[-1:], "GIVEN=yes"] if prefix else ["env", "GIVEN=yes"]
    done = run(
        root, "sh", "-c", "echo $GIVEN $NOT", options=["-e", "GIVEN", "-e", "NOT"],
        prefix=[*prefix, *wanted],
    )  # fmt: skip
    assert done.stdout == "yes\n"


def test_devices_are_the_few_and_work(root, prefix):
    done = run(
        root, "sh", "-c", "ls /dev; echo x > /dev/null; head -c 3 /dev/zero | wc -c", prefix=prefix
    )  # fmt: skip
    assert done.stdout.split() == [
        "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
        "stdout", "tty", "urandom", "zero", "3",
    ]  # fmt: skip


def test_loopback_is_the_only_interface_and_up(root, prefix):
    done = run(root, "ip", "-o", "link", prefix=prefix)
    assert done.stdout.count("\n") == 1
    assert "lo:" in done.stdout
    assert "UP" in done.stdout


def test_kernel_facts_are_masked_and_switches_read_only(root, prefix):
    done = run(
        root, "sh", "-c",
        "cat /proc/keys /proc/timer_list | wc -c; ls /sys/firmware | wc -l;"
        "echo 1 > /proc/sys/kernel/panic || echo refused; touch /sys/x || echo refused",
        prefix=prefix,
    )  # fmt: skip
    assert done.stdout.split() == ["0", "0", "refused", "refused"]


def test_no_new_privileges_and_docker_capabilities(root, prefix):
    done = run(root, "cat", "/proc/self/status", prefix=prefix)
    status = dict(line.split(":", 1) for line in done.stdout.splitlines())
    wanted = capabilities.mask(capabilities.DOCKER_DEFAULT)
    sets = {name: int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")}
    assert sets == dict.fromkeys(sets, wanted)
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    assert status["NoNewPrivs"].strip() == "1"


def test_signals_are_those_of_a_fresh_process(root, prefix):
    # Python ignores SIGPIPE and SIGXFSZ for itself; a command must not inherit that.
    done = run(root, "cat", "/proc/self/status", prefix=prefix)
    status = dict(line.split(":", 1) for line in done.stdout.splitlines())
    assert int(status["SigIgn"], 16) == int(status["SigBlk"], 16) == 0


def test_no_descriptor_leaks(root, prefix):
    with open("/etc/passwd") as secret:
        os.set_inheritable(secret.fileno(), True)
        done = run(root, "sh", "-c", "ls -l /proc/$$/fd", prefix=prefix, pass_fds=[secret.fileno()])
    numbers = [int(line.split()[-3]) for line in done.stdout.splitlines() if "->" in line]
    assert numbers == [0, 1, 2]


def test_read_only_root(root, prefix):
    done = run(root, "touch", "/x", options=["--read-only"], prefix=prefix)
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr
    assert not (root / "x").exists()


def test_network_host_shares_the_namespace(root, prefix):
    done = run(root, "stat", "-Lc", "%i", "/proc/self/ns/net", options=["--network", "host"],
               prefix=prefix)  # fmt: skip
    assert int(done.stdout) == namespaces.inodes()["network"]


@needs_root
def test_user_has_no_capability_and_no_groups(tmp_path):
    from tests.roots import make_busybox_root

    root = make_busybox_root(tmp_path / "root")
    done = run(root, "sh", "-c", "id; grep CapEff /proc/self/status", options=["-u", "1000:2000"])
    assert done.stdout.split() == ["uid=1000", "gid=2000", "CapEff:", "0" * 16]


# --- what the caller gets ----------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 7, 255])
def test_exit_status_is_the_commands(root, prefix, code):
    assert run(root, "sh", "-c", f"exit {code}", prefix=prefix).returncode == code


def test_output_and_input_pass_through(root, prefix):
    done = run(root, "sh", "-c", "cat; echo error >&2", prefix=prefix, input="in\n")
    assert (done.stdout, done.stderr) == ("in\n", "error\n")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["nope"], 127, 'exec: "nope": executable file not found in $PATH'),
        (["/nope"], 127, 'exec: "/nope": no such file or directory'),
        (["/bin"], 126, 'exec: "/bin": permission denied'),
        (["/plain"], 126, 'exec: "/plain": permission denied'),
        (["/garbage"], 126, 'exec: "/garbage": exec format error'),
        (["/script"], 127, "the file is there; what is missing in the root is its interpreter"),
    ],
)
def test_commands_that_cannot_start(root, prefix, words, code, says):
    (root / "plain").write_text("x")
    for name, text in (("garbage", "\0\1\2\3"), ("script", "#!/no/such/interpreter\n")):
        (root / name).write_text(text)
        (root / name).chmod(0o755)
    done = run(root, *words, prefix=prefix)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "words", "says"),
    [
        (["--hostname", "a/b"], ["true"], "hostname 'a/b'"),
        (["--hostname", "x" * 65], ["true"], "64"),
        (["-w", "relative"], ["true"], "must be an absolute path"),
        (["-w", "/nope"], ["true"], "working directory: no such file or directory"),
        (["-e", "=x"], ["true"], "environment"),
        (["--network", "moon"], ["true"], "either none or host"),
        (["--user", "root"], ["true"], "numbers only"),
        (["--user", str(2**32 - 1)], ["true"], "ids are below"),
        (["--trace=yaml"], ["true"], "either text or json"),
        (["--hostnam", "x"], ["true"], "did you mean --hostname?"),
        (["--hostname"], [], "which root file system?"),
        ([], [], "which command?"),
    ],
)
def test_wrong_usage_is_125_and_says_what_to_do(root, prefix, options, words, says):
    done = run(root, *words, options=options, prefix=prefix)
    assert done.returncode == 125
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_rootfs_missing_empty_or_a_file(tmp_path, prefix):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name, says in (
        ("nope", "no such file or directory"),
        ("empty", "the directory is empty"),
        ("file", "not a directory"),
    ):
        done = run(tmp_path / name, "true", prefix=prefix)
        assert done.returncode == 125
        assert says in done.stderr
        assert "fix:" in done.stderr
    assert os.listdir(tmp_path / "empty") == []


# --- signals and the end -----------------------------------------------------------------------


def start(root: Path, *words: str, prefix=()) -> Process:
    """Start a container whose command prints a line once it is ready."""
    process = Process(
        [*prefix, *COMMAND, "run", "--rootfs", str(root), *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.stderr
    return process


def child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_ends_a_command_that_does_not_handle_it(root, prefix, number):
    # As PID 1 it would be deaf: the kernel drops signals that a PID 1 does not handle.
    with start(root, "sh", "-c", "echo ready; exec sleep 1000", prefix=prefix) as process:
        # The shell handles SIGINT, by raising it again: as PID 1 it would not hear that.
        comm = Path(f"/proc/{child_of(process.pid)}/comm")
        deadline = time.monotonic() + 20
        while comm.read_text() != "sleep\n" and time.monotonic() < deadline:
            pass
        process.send_signal(number)
        assert process.wait(20) == 128 + number


def test_signal_reaches_a_handler(root, prefix):
    script = "trap 'echo got it; exit 9' TERM; echo ready; while :; do sleep 1 & wait; done"
    with start(root, "sh", "-c", script, prefix=prefix) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 9
        assert process.stdout.read() == "got it\n"


def test_kill_9_of_the_runtime_takes_the_container_along(root, prefix):
    with start(root, "sh", "-c", "echo ready; exec sleep 1000", prefix=prefix) as process:
        pidfd = os.pidfd_open(child_of(process.pid))
        process.kill()
        assert select.select([pidfd], [], [], 20)[0], "the container outlived its runtime"
        os.close(pidfd)


def test_nothing_is_left_on_the_host(root, prefix):
    before = mount_table()
    run(root, "true", prefix=prefix)
    run(root, "nope", prefix=prefix)
    assert mount_table() == before


# --- hostile roots and hosts -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["proc", "dev", "sys"])
def test_symlinks_in_the_root_lead_nowhere_outside(root, prefix, tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o777)
    (root / name).symlink_to(outside)
    before = mount_table()
    done = run(root, "true", prefix=prefix)
    assert os.listdir(outside) == []
    assert mount_table() == before
    assert done.returncode in (0, 125)
    if done.returncode:
        assert f"mount /{name}" in done.stderr


@needs_root
def test_full_disk_names_the_step_and_the_fix(tmp_path):
    script = (
        f"mount -t tmpfs -o size=8m,nr_inodes=6 none {tmp_path} && cd {tmp_path} && mkdir -p r/bin"
        " && cp $(command -v busybox) r/bin/true && touch r/a; touch r/b; "
        f"exec {shlex.join(COMMAND)} run --rootfs r true"
    )
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True)
    assert done.returncode == 125
    assert "mount /proc: no space left on device: mkdirat" in done.stderr
    assert "fix: the disk is full" in done.stderr


def test_root_of_a_user_namespace_runs_containers(root, prefix):
    """Its power is over nothing of the host: no device can be made, no group 5 is there."""
    inner = [*COMMAND, "run", "--rootfs", str(root), "sh", "-c", "id -u; ls /dev/null"]
    done = subprocess.run([*prefix, "unshare", "-r", *inner], capture_output=True, text=True)
    if "unshare:" in done.stderr:
        pytest.skip(f"this host forbids user namespaces: {done.stderr.strip()}")
    assert (done.stdout, done.stderr) == ("0\n/dev/null\n", "")


@needs_root
def test_forbidden_user_namespace_is_explained(root, ordinary_user):
    # A process in a chroot may not make a user namespace (unshare(2), EPERM).
    inner = [*ordinary_user, *COMMAND, "run", "--rootfs", str(root), "true"]
    script = 'mount --rbind / /mnt && exec chroot /mnt "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *inner], capture_output=True, text=True
    )
    assert done.returncode == 125
    assert "clone: operation not permitted: clone3(flags=CLONE_NEWTIME" in done.stderr
    assert "fix:" in done.stderr


def test_limit_of_namespaces_is_explained(root, ordinary_user):
    script = 'echo 0 > /proc/sys/user/max_net_namespaces; exec "$@"'
    done = subprocess.run(
        [*ordinary_user, "unshare", "-r", "sh", "-c", script, "sh",
         *COMMAND, "run", "--rootfs", str(root), "true"], capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 125
    assert "no space left on device: clone3(" in done.stderr
    assert "/proc/sys/user/max_*_namespaces" in done.stderr


# --- the plan, shown ---------------------------------------------------------------------------


def test_trace_text_shows_every_step_and_leaves_stdout_alone(root, prefix):
    done = run(root, "echo", "hi", options=["--trace"], prefix=prefix)
    assert done.stdout == "hi\n"
    assert "pivot_root" in done.stderr
    assert "first step to exec" in done.stderr


def test_trace_json_agrees_with_the_plan_and_the_clock(root, prefix):
    traced = run(root, "true", options=["--trace=json"], prefix=prefix)
    steps = [json.loads(line) for line in traced.stderr.splitlines()]
    explained = subprocess.run(
        [*prefix, *COMMAND, "explain", "--json", "--rootfs", str(root), "true"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert [step["name"] for step in steps] == [s["name"] for s in json.loads(explained.stdout)]
    starts = [step["start_ns"] for step in steps]
    assert starts == sorted(starts)
    assert all(step["start_ns"] <= step["end_ns"] for step in steps)


def test_dry_run_does_nothing(root, prefix):
    done = run(root, "touch", "/x", options=["--dry-run"], prefix=prefix)
    assert done.returncode == 0
    assert "pivot_root(new_root='.', put_old='.')" in done.stdout
    assert sorted(os.listdir(root)) == ["bin"]


@needs_root
@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_trace_agrees_with_strace(tmp_path):
    """The oracle: the kernel saw the calls that the trace shows, in that order."""
    from tests.roots import make_busybox_root

    root = make_busybox_root(tmp_path / "root")
    log = tmp_path / "strace"
    calls = "unshare,mount,pivot_root,umount2,sethostname,setresuid,setresgid,capset"
    done = run(root, "true", options=["--trace=json"],
               prefix=["strace", "-f", "-o", str(log), "-e", f"trace={calls}"])  # fmt: skip
    ours = [
        call["call"].split("(")[0]
        for line in done.stderr.splitlines()
        for call in json.loads(line)["calls"]
    ]
    seen = [
        line.split(maxsplit=1)[1].split("(")[0]
        for line in log.read_text().splitlines()
        if "(" in line and not line.split(maxsplit=1)[1].startswith(("+++", "---"))
    ]
    assert [name for name in ours if name in calls.split(",")] == seen


def test_mount_points_that_were_missing_are_directories(root, prefix):
    run(root, "true", prefix=prefix)
    for name in ("proc", "dev", "sys"):
        assert stat.S_ISDIR((root / name).stat().st_mode)
        assert os.listdir(root / name) == []
