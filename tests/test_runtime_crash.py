"""kill -9 of the runtime at every system call: `delete --force` brings what is left to nothing.

The trace point of `kernel.syscalls` counts the calls of all processes of one command in shared
memory, and at the N-th the command's own process is killed, wherever the call is made.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.bundles import FOREVER, Bundle, bundle
from tests.roots import REPOSITORY

__all__ = ["bundle"]
pytestmark = [pytest.mark.root, pytest.mark.slow]

DRIVER = """
import mmap, os, signal, sys
sys.path.insert(0, sys.argv[1])
point, words = int(sys.argv[2]), sys.argv[3:]
from minicontainer import runtime_cli
from minicontainer.kernel import syscalls
from minicontainer.runtime import steps
counter, me = mmap.mmap(-1, 8), os.getpid()
ask_read, ask_write = os.pipe()
done_read, done_write = os.pipe()
if os.fork() == 0:  # the killer: in the container's pid namespace we have no number
    os.close(ask_write)
    if os.read(ask_read, 1):
        os.kill(me, signal.SIGKILL)
        os.write(done_write, b"x")
    os._exit(0)
def count(*_):
    n = int.from_bytes(counter[:8], "little") + 1
    counter[:8] = n.to_bytes(8, "little")
    if n == point:
        os.write(ask_write, b"x")
        os.read(done_read, 1)  # then the others go on, as after a real one
syscalls.trace = count
close = steps.CloseDescriptors.close  # all but its own, and now ours: until exec
steps.CloseDescriptors.close = lambda step, first, kept: close(
    step, first, [*kept, ask_write, done_read])
code = runtime_cli.main(words)
print(int.from_bytes(counter[:8], "little"), file=sys.stderr, flush=True)
os._exit(code)
"""


def killed_at(bundle: Bundle, point: int, *words: str) -> int | None:
    """Run a command that is killed at that call, or else return how many it made."""
    bundle.write()
    # No pipe: the container has it too, and would hold it open
    with open(bundle.directory / "stderr", "w+") as stderr:
        code = subprocess.run(
            [sys.executable, "-I", "-S", "-c", DRIVER, REPOSITORY, str(point), "--root",
             bundle.states, *words], cwd=bundle.directory, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=stderr, timeout=60,
        ).returncode  # fmt: skip
        stderr.seek(0)
        said = stderr.read()
    if code == -signal.SIGKILL:
        return None
    assert code == 0, said
    return int(said.splitlines()[-1])


def strangers(bundle: Bundle) -> list[str]:
    """Processes that still have to do with the bundle."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes()
            root = os.readlink(path / "root")
        except OSError:
            continue
        if bundle.id.encode() in words or str(bundle.directory).encode() in words or (
            str(bundle.directory) in root
        ):  # fmt: skip
            found.append(f"{path.name}: {words!r}")
    return found


def nothing_is_left(bundle: Bundle, point: int) -> None:
    bundle.call("delete", "--force", bundle.id)
    assert bundle.left() == [], point
    until = time.monotonic() + 10
    while left := strangers(bundle):  # one that was told to end may take a moment
        assert time.monotonic() < until, (point, left)
        time.sleep(0.01)


@pytest.fixture
def full(bundle: Bundle) -> Bundle:
    """A configuration that has something of everything."""
    linux = bundle.config["linux"]
    linux["namespaces"] = [
        {"type": kind} for kind in ("user", "pid", "network", "ipc", "uts", "mount", "cgroup")
    ]
    for field in ("uidMappings", "gidMappings"):
        linux[field] = [{"containerID": 0, "hostID": 0, "size": 70000}]
    linux["resources"] = {"pids": {"limit": 50}}
    linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    bundle.config["mounts"].append(
        {"destination": "/data", "type": "bind", "source": "/etc", "options": ["ro"]}
    )
    return bundle.args("sh", "-c", f"while :; do sleep 0.01; done; {bundle.id}")


@pytest.mark.parametrize("words", [["create"], ["run", "--detach"]], ids=["create", "run"])
def test_killed_while_it_makes_a_container(full: Bundle, words):
    points = killed_at(full, -1, *words, full.id)
    nothing_is_left(full, -1)
    assert points is not None
    assert points > 80
    for point in range(1, points + 1):
        killed_at(full, point, *words, full.id)
        nothing_is_left(full, point)
    print(f"{words[0]}: killed at {points} points")


def test_killed_while_it_starts_and_deletes(full: Bundle):
    for words in (["start"], ["delete", "--force"], ["exec", "--detach"]):
        tail = ["sleep", "1000"] if words[0] == "exec" else []
        point = 1
        while point:
            full.create()
            if words[0] == "exec":
                full.call("start", full.id)
            if killed_at(full, point, *words, full.id, *tail) is not None:
                print(f"{words[0]}: killed at {point - 1} points")
                point = -1
            nothing_is_left(full, point)
            point += 1


@pytest.mark.parametrize("count", [int(os.environ.get("MINICONTAINER_TEST_MANY", "40"))])
def test_many_at_once(bundle: Bundle, count):
    """Eight at a time; MINICONTAINER_TEST_MANY=500 for the long version."""
    bundle.config["linux"].pop("cgroupsPath")
    bundle.args(*FOREVER).write()
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "timeout": 120}

    def live(n: int) -> list[int]:
        name = f"{bundle.id}-{n}"
        verbs = (["create", name], ["start", name], ["kill", name, "KILL"],
                 ["delete", "--force", name])  # fmt: skip
        return [
            subprocess.run([*bundle.command, *words], cwd=bundle.directory, **quiet).returncode
            for words in verbs
        ]

    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(live, range(count)))
    assert codes == [[0, 0, 0, 0]] * count
    assert bundle.left() == []
    assert strangers(bundle) == []
