"""OCI bundles for the tests of `minicontainer-runtime`, and a way to call it."""

from __future__ import annotations

import copy
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from minicontainer.runtime import features
from tests.roots import REPOSITORY, make_busybox_root

RUNTIME = str(REPOSITORY / "minicontainer" / "minicontainer-runtime")
FOREVER = ["sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"]


class Process(subprocess.Popen):
    """As a context: a test that fails meanwhile kills it, instead of waiting for ever."""

    def __exit__(self, kind, *rest) -> None:
        if kind:
            self.kill()
        super().__exit__(kind, *rest)


class Bundle:
    """A directory with config.json and a busybox root; ids are its own, so that tests can overlap.

    config  the configuration, written anew before each call
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = make_busybox_root(directory / "rootfs")
        self.states = directory / "states"
        self.config = copy.deepcopy(features.template(rootless=False))
        self.config["process"]["terminal"] = False
        self.config["root"]["readonly"] = False
        self.config["process"]["rlimits"] = []
        self.id = f"t{uuid.uuid4().hex[:12]}"
        self.config["linux"]["cgroupsPath"] = f"/minicontainer-test-{self.id}"
        self.command = [RUNTIME, "--root", str(self.states)]

    def args(self, *words: str) -> Bundle:
        self.config["process"]["args"] = list(words)
        return self

    def python(self, code: str) -> list[str]:
        """Words that run this Python inside, whose library is then mounted there, read-only."""
        there = {mount["destination"] for mount in self.config["mounts"]}
        for path in {os.path.realpath(sys.base_prefix), "/usr", "/lib", "/lib64"} - there:
            if os.path.isdir(path):
                self.config["mounts"].append({"destination": path, "type": "bind", "source": path,
                                              "options": ["rbind", "ro"]})  # fmt: skip
        interpreter = os.path.realpath(sys._base_executable)  # type: ignore[attr-defined]
        return [interpreter, "-I", "-S", "-c", code]

    def write(self) -> None:
        (self.directory / "config.json").write_text(json.dumps(self.config))

    def popen(self, *words: str, **kwargs) -> Process:
        self.write()
        return Process([*self.command, *words], cwd=self.directory, **kwargs)

    def call(self, *words: str, check: bool = True, **kwargs) -> subprocess.CompletedProcess:
        """Run the runtime with these words; its output must not be a pipe for `create`."""
        self.write()
        done = subprocess.run(
            [*self.command, *words], cwd=self.directory, text=True, timeout=60,
            **{"capture_output": True, **kwargs},
        )  # fmt: skip
        assert "Traceback" not in (done.stderr or ""), done.stderr
        if check:
            assert done.returncode == 0, done.stderr
        return done

    def run(self, *words: str, check: bool = False, **kwargs) -> subprocess.CompletedProcess:
        return self.args(*words).call("run", self.id, check=check, **kwargs)

    def create(self, *options: str, check: bool = True, out=subprocess.DEVNULL, **kwargs):
        """`create`; the container inherits stdout, so that goes to a file, or nowhere."""
        with open(self.directory / "stderr", "w+") as stderr:
            streams = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": stderr}
            kwargs = {"capture_output": False, **streams, **kwargs}
            done = self.call("create", *options, self.id, check=False, **kwargs)
            stderr.seek(0)
            done.stderr = stderr.read()
        assert "Traceback" not in done.stderr
        if check:
            assert done.returncode == 0, done.stderr
        return done

    def state(self) -> dict:
        return json.loads(self.call("state", self.id).stdout)

    def groups(self) -> list[str]:
        return glob.glob(f"/sys/fs/cgroup/**/*{self.id}*", recursive=True)

    def left(self) -> list[str]:
        """What there still is of the container on this host."""
        states = os.listdir(self.states) if self.states.exists() else []
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        return states + self.groups() + [line for line in mounts if str(self.directory) in line]

    def clean(self) -> None:
        for name in os.listdir(self.states) if self.states.exists() else []:
            subprocess.run([*self.command, "delete", "--force", name], timeout=60)
        shutil.rmtree(self.directory, ignore_errors=True)


@pytest.fixture
def bundle(tmp_path: Path):
    if os.geteuid() != 0:
        pytest.skip("needs root: sudo ./workshop test")
    made = Bundle(tmp_path)
    yield made
    made.clean()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def end(pid: int) -> None:
    """Kill a process of a test's own, by pid."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
