"""Debian's podman drives it: `podman --runtime`, with everything of podman's in a place of its own.

What this host needs: no systemd, so cgroupfs; no CAP_SYS_RESOURCE, so limits that it has already.
"""

from __future__ import annotations

import glob
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.bundles import RUNTIME
from tests.roots import make_busybox_root

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("podman"), reason="podman is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: sudo ./workshop test"),
]
PARENT = "minicontainer-test-podman"
CONTAINER = ["--cgroup-parent", f"/{PARENT}", "--network", "none"]
CONTAINER += ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]


class Podman:
    def __init__(self, directory: Path) -> None:
        self.root = make_busybox_root(directory / "rootfs")
        self.command = [
            "podman", "--runtime", RUNTIME, "--cgroup-manager=cgroupfs", "--storage-driver=vfs",
            "--events-backend=file", "--root", directory / "root", "--runroot", directory / "run",
            "--tmpdir", directory / "tmp",
        ]  # fmt: skip

    def __call__(self, *words: str, **kwargs) -> subprocess.CompletedProcess:
        return subprocess.run([*self.command, *words], capture_output=True, text=True, timeout=90,
                              **kwargs)  # fmt: skip

    def run(self, *words: str, options=()) -> subprocess.CompletedProcess:
        return self("run", *CONTAINER, *options, "--rootfs", str(self.root), *words)


def patiently(action, *args) -> None:
    """conmon, and what it calls, end a moment after the container."""
    until = time.monotonic() + 20
    while True:
        try:
            return action(*args)
        except OSError:
            assert time.monotonic() < until, args
            time.sleep(0.05)


@pytest.fixture
def podman():
    # podman refuses a runroot of more than 50 characters
    directory = Path(tempfile.mkdtemp(prefix="mcp-", dir="/tmp"))
    directory.chmod(0o755)
    made = Podman(directory)
    yield made
    made("rm", "--all", "--force", "--time", "0")
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        if line.split()[4].startswith(f"{directory}/"):
            subprocess.run(["umount", line.split()[4]], check=True)
    patiently(shutil.rmtree, directory)
    for group in glob.glob(f"/sys/fs/cgroup/**/{PARENT}", recursive=True):
        for below in [*Path(group).iterdir(), Path(group)]:
            if below.is_dir():
                patiently(os.rmdir, below)


@pytest.mark.parametrize(
    ("words", "code"),
    [(["true"], 0), (["sh", "-c", "exit 7"], 7), (["/bin"], 126), (["nope"], 127),
     (["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137)],
)  # fmt: skip
def test_exit_codes(podman: Podman, words, code):
    done = podman.run(*words, options=["--rm"])
    assert done.returncode == code, done.stderr


def test_output_environment_and_user(podman: Podman):
    options = ["--rm", "-e", "A=b", "-u", "1000:1000", "--hostname", "box", "--workdir", "/bin"]
    done = podman.run("sh", "-c", "echo $A; id -u; hostname; echo err >&2; pwd", options=options)
    assert done.stdout.split() == ["b", "1000", "box", "/bin"]
    assert done.stderr == "err\n"


def test_detached_exec_logs_pause_stop(podman: Podman):
    script = "trap 'echo bye; exit 3' TERM; echo started; while :; do sleep 0.05; done"
    assert podman.run("sh", "-c", script, options=["-d", "--name", "web"]).returncode == 0
    until = time.monotonic() + 20
    while podman("logs", "web").stdout != "started\n":
        assert time.monotonic() < until
    assert podman("exec", "web", "sh", "-c", "echo in $$; exit 7").returncode == 7
    assert podman("exec", "web", "nope").returncode == 127
    assert podman("exec", "web", "/bin").returncode == 126
    done = podman("exec", "-i", "web", "cat", input="through\n")
    assert (done.returncode, done.stdout) == (0, "through\n")
    assert podman("pause", "web").returncode == 0
    assert podman("inspect", "-f", "{{.State.Status}}", "web").stdout == "paused\n"
    assert podman("unpause", "web").returncode == 0
    assert podman("stop", "--time", "20", "web").returncode == 0
    assert podman("wait", "web").stdout == "3\n"
    assert podman("logs", "web").stdout == "started\nbye\n"
    assert podman("rm", "web").returncode == 0


def test_stop_kills_what_does_not_listen(podman: Podman):
    podman.run("sleep", "1000", options=["-d", "--name", "deaf"])
    assert podman("stop", "--time", "1", "deaf").returncode == 0
    assert podman("wait", "deaf").stdout == "137\n"


def test_restart_and_limits(podman: Podman):
    options = ["-d", "--name", "again", "--memory", "64m", "--pids-limit", "50", "--cap-add",
               "SYS_TIME", "--read-only", "--security-opt", "no-new-privileges"]  # fmt: skip
    podman.run("sleep", "1000", options=options)
    for _ in range(2):
        script = (
            "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory.max 2>/dev/null; "
            "grep NoNewPrivs /proc/self/status; touch /x || echo no"
        )
        done = podman("exec", "again", "sh", "-c", script)
        assert done.stdout.split() == [str(64 << 20), "NoNewPrivs:", "1", "no"]
        assert podman("restart", "--time", "0", "again").returncode == 0


def test_terminal(podman: Podman):
    script = shutil.which("script")
    if not script:
        pytest.skip("script(1) is not installed")
    words = [*map(str, podman.command), "run", "--rm", "-t", *CONTAINER, "--rootfs",
             str(podman.root), "sh", "-c", "test -t 0 && stty size && echo it is"]  # fmt: skip
    done = subprocess.run(
        [script, "-qec", f"stty rows 33 cols 77; {shlex.join(words)}", "/dev/null"],
        capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert "it is" in done.stdout, done


def test_volumes_and_pods_share_namespaces(podman: Podman, tmp_path: Path):
    (tmp_path / "volume").mkdir()
    done = podman.run("touch", "/data/x", options=["--rm", "-v", f"{tmp_path}/volume:/data"])
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path / "volume") == ["x"]
    podman.run("sleep", "1000", options=["-d", "--name", "first"])
    options = ["--rm", "--pid", "container:first", "--ipc", "container:first"]
    done = podman.run("cat", "/proc/1/cmdline", options=options)
    assert "sleep" in done.stdout, done.stderr


def test_user_namespace(podman: Podman):
    for name in ("etc", "run", "proc", "dev", "sys"):
        (podman.root / name).mkdir(exist_ok=True)
    for path in (podman.root, *podman.root.rglob("*")):
        os.chown(path, 100000, 100000, follow_symlinks=False)
    for above in (podman.root, *podman.root.parents):
        if above.name.startswith(("pytest", "test_")):
            above.chmod(0o755)
    done = podman.run("cat", "/proc/self/uid_map", options=[
        "--rm", "--uidmap", "0:100000:5000", "--gidmap", "0:100000:5000"])  # fmt: skip
    assert done.stdout.split() == ["0", "100000", "5000"], done.stderr
