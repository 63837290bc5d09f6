"""Debian's docker drives it: a dockerd of the test's own, with ours as an added runtime."""

from __future__ import annotations

import os
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
    pytest.mark.docker,
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("dockerd"), reason="apt install docker.io"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: sudo ./workshop test"),
]
DAEMON = [
    "dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs",
    "--exec-opt=native.cgroupdriver=cgroupfs", "--cgroup-parent=/minicontainer-test-docker",
    "--default-ulimit=nofile=1024:1024",
]  # fmt: skip


class Docker:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.host = f"unix://{directory}/socket"
        self.log = os.open(directory / "log", os.O_WRONLY | os.O_CREAT)
        self.daemon = subprocess.Popen(
            [*DAEMON, "--host", self.host, "--data-root", directory / "data", "--exec-root",
             directory / "exec", "--pidfile", directory / "pid", "--add-runtime",
             f"ours={RUNTIME}"], stdout=self.log, stderr=self.log,
        )  # fmt: skip

    def __call__(self, *words: str, **kwargs) -> subprocess.CompletedProcess:
        return subprocess.run(["docker", "--host", self.host, *words], capture_output=True,
                              text=True, timeout=90, **kwargs)  # fmt: skip

    def run(self, *words: str, options=()) -> subprocess.CompletedProcess:
        return self("run", "--runtime", "ours", "--network", "none", *options, "box", *words)

    def ready(self) -> bool:
        """Wait until it answers; False when it cannot live here."""
        until = time.monotonic() + 40
        while self("info").returncode:
            if self.daemon.poll() is not None or time.monotonic() > until:
                return False
            time.sleep(0.1)
        return True

    def end(self) -> None:
        names = self("ps", "-aq").stdout.split()
        if names:
            self("rm", "--force", *names)
        self.daemon.terminate()
        self.daemon.wait(60)
        os.close(self.log)
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            if line.split()[4].startswith(f"{self.directory}/"):
                subprocess.run(["umount", line.split()[4]], check=True)
        shutil.rmtree(self.directory)
        for path in Path("/sys/fs/cgroup").glob("**/minicontainer-test-docker"):
            path.rmdir()


@pytest.fixture(scope="module")
def docker():
    made = Docker(Path(tempfile.mkdtemp(prefix="mcd-", dir="/tmp")))
    try:
        if not made.ready():
            said = (made.directory / "log").read_text()[-300:]
            pytest.skip(f"dockerd does not start here: {said}")
        root = make_busybox_root(made.directory / "rootfs")
        archive = subprocess.run(["tar", "-C", root, "-c", "."], capture_output=True, check=True)
        words = ["docker", "--host", made.host, "import", "-", "box"]
        subprocess.run(words, input=archive.stdout, capture_output=True, check=True)
        yield made
    finally:
        made.end()


@pytest.mark.parametrize(
    ("words", "code"),
    [(["true"], 0), (["sh", "-c", "exit 7"], 7), (["/bin"], 126), (["nope"], 127),
     (["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137)],
)  # fmt: skip
def test_exit_codes(docker: Docker, words, code):
    done = docker.run(*words, options=["--rm"])
    assert done.returncode == code, done.stderr


def test_life_of_a_container(docker: Docker):
    script = "trap 'echo bye; exit 5' TERM; echo started; while :; do sleep 0.05; done"
    options = ["-d", "--name", "web", "--memory", "64m", "--pids-limit", "40", "-e", "A=b"]
    assert docker.run("sh", "-c", script, options=options).returncode == 0
    done = docker("exec", "web", "sh", "-c", "echo $A; exit 3")
    assert (done.returncode, done.stdout) == (3, "b\n")
    done = docker("exec", "web", "nope")  # 126 with runc, too: docker takes all of these for one
    assert (done.returncode, "executable file not found" in done.stdout) == (126, True)
    script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null"
    assert docker("exec", "web", "sh", "-c", script).stdout.split() == [str(64 << 20)]
    done = docker("update", "--memory", "80m", "--memory-swap", "160m", "web")
    assert done.returncode == 0, done.stderr
    assert docker("exec", "web", "sh", "-c", script).stdout.split() == [str(80 << 20)]
    for words in (["pause"], ["unpause"], ["stop", "--time", "20"]):
        assert docker(*words, "web").returncode == 0, words
    assert docker("inspect", "-f", "{{.State.ExitCode}}", "web").stdout == "5\n"
    assert docker("logs", "web").stdout == "started\nbye\n"
    assert docker("restart", "web").returncode == 0
    assert docker("rm", "--force", "web").returncode == 0


def test_terminal_and_user(docker: Docker):
    docker.run("sleep", "1000", options=["-d", "--name", "tty", "-t", "-u", "1000:1000"])
    done = docker("exec", "-t", "tty", "sh", "-c", "id -u; test -t 0 && echo it is")
    assert done.stdout.split() == ["1000", "it", "is"], done.stderr
