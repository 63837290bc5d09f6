"""kill -9 of the runtime at every system call: `delete --force` brings what is left to nothing.

The trace point of `kernel.syscalls`, and the functions of `os` that change something or wait, count
the calls of all processes of one command in the offset of a file that they share; at the N-th the
command's own process is killed, wherever the call is made.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

from minicontainer.kernel import syscalls
from tests.bundles import FOREVER, Bundle, bundle
from tests.roots import REPOSITORY

__all__ = ["bundle"]
pytestmark = [pytest.mark.root, pytest.mark.slow]

# What leaves a trace, or waits for somebody, when the runtime dies before it or after it.
CALLS = (
    "open read write rename unlink mkdir makedirs mkfifo rmdir pipe fork _exit execve kill waitpid "
    "pidfd_open chown fchown symlink mknod chmod fchmod setxattr sendfile set_blocking"
)
# The killer is a process of its own: in the container's pid namespace we have no number, but the
# kernel tells it who asks (SCM_CREDENTIALS). lseek(2) counts, since it locks the offset: both sides
# return from one clone at once, and were both the N-th, the killer would answer one of them only.
DRIVER = """
import _signal, os, signal, socket, sys
sys.path.insert(0, sys.argv[1])
point, what, whom, told = int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])
words = sys.argv[6:]
from minicontainer import runtime_cli
from minicontainer.kernel import syscalls
from minicontainer.runtime import steps_process
counter, me = os.memfd_create("counter"), os.getpid()
ask_read, ask_write = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
ask_read.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
done_read, done_write = os.pipe()
if os.fork() == 0:
    ask_write.close()
    word, rights, _, _ = ask_read.recvmsg(1, 64)
    if word:
        asking = int.from_bytes(rights[0][2][:4], "little")
        os.kill(me if whom == "runtime" else asking, getattr(signal, "SIG" + what))
        os.write(done_write, b"x")
        if told >= 0:
            os.write(told, b"x")
    os._exit(0)
ask_read.close()
os.close(done_write)
if told >= 0:
    os.set_inheritable(told, False)
read, write, ask = os.read, os.write, os.dup(ask_write.fileno())
def count(*_):
    if os.lseek(counter, 1, os.SEEK_CUR) == point:
        write(ask, b"x")
        read(done_read, 1)  # then the others go on, as after a real one
def counted(function):
    def call(*args, **kwargs):
        count()
        return function(*args, **kwargs)
    return call
syscalls.trace = count
close = steps_process.CloseDescriptors.close  # all but its own, and now ours: until exec
ours = [ask, done_read, told, counter]
steps_process.CloseDescriptors.close = lambda step, first, kept: close(step, first, kept + ours)
for name in {CALLS!r}.split():
    setattr(os, name, counted(getattr(os, name)))
_signal.pidfd_send_signal = counted(_signal.pidfd_send_signal)
code = runtime_cli.main(words)
print(os.lseek(counter, 0, os.SEEK_CUR), file=sys.stderr, flush=True)
os._exit(code)
""".replace("{CALLS!r}", repr(CALLS))


def driver(bundle: Bundle, point: int, what: str, whom: str, told: int, *words: str) -> list[str]:
    """The command line that sends signal `what` to `whom` ("runtime" or "caller") at that call, and
    says so on the descriptor `told`, or on none.
    """
    bundle.write()
    start = [sys.executable, "-I", "-S", "-c", DRIVER, str(REPOSITORY)]
    return [*start, str(point), what, whom, str(told), "--root", str(bundle.states), *words]


def killing(bundle: Bundle, point: int, whom: str, *words: str) -> tuple[int, str]:
    """(exit status, stderr) of a command of which one process is killed at that call."""
    # No pipe: the container has it too, and would hold it open
    with open(bundle.directory / "stderr", "w+") as stderr:
        code = subprocess.run(
            driver(bundle, point, "KILL", whom, -1, *words), cwd=bundle.directory,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr, timeout=60,
        ).returncode  # fmt: skip
        stderr.seek(0)
        return code, stderr.read()


def killed_at(bundle: Bundle, point: int, *words: str) -> int | None:
    """Run a command that is killed at that call, or else return how many it made."""
    code, said = killing(bundle, point, "runtime", *words)
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


def stopped_at(bundle: Bundle, point: int, whom: str, *words: str) -> subprocess.Popen | None:
    """Start a command of which one process is stopped at that call; None when it ends before."""
    told_read, told_write = os.pipe()
    with open(bundle.directory / "stderr", "w") as stderr:
        process = subprocess.Popen(
            driver(bundle, point, "STOP", whom, told_write, *words), cwd=bundle.directory,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
            pass_fds=[told_write],
        )  # fmt: skip
    pidfd = os.pidfd_open(process.pid)
    os.close(told_write)
    ready = select.select([told_read, pidfd], [], [], 60)[0]
    assert ready, "it neither stops nor ends"
    stopped = told_read in ready and os.read(told_read, 1) != b""
    os.close(told_read)
    os.close(pidfd)
    if not stopped:
        process.wait(60)
        return None
    return process


def deleted(bundle: Bundle, point: int) -> None:
    """`delete --force`; meanwhile the orphans that come to us are reaped."""
    words = [*bundle.command, "delete", "--force", bundle.id]
    delete = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    while (one := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)) and one.si_pid != delete.pid:
        os.waitpid(one.si_pid, 0)
    said = delete.communicate()[1]
    assert (delete.returncode, said) == (0, ""), point


def nothing_is_left(bundle: Bundle, point: int) -> None:
    deleted(bundle, point)
    assert bundle.left() == [], point
    until = time.monotonic() + 10
    while left := strangers(bundle):  # one that was told to end may take a moment
        assert time.monotonic() < until, (point, left)
        time.sleep(0.01)


def full(bundle: Bundle) -> Bundle:
    """With a configuration that has something of everything."""
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


WORKERS = 2  # each waits half of the time: for what it killed to be gone


def at_every_point(directory: Path, task: Callable[..., int | None], *args) -> int:
    """The sum of `task(bundle, n, *args)` for n = 0, 1, 2 …, until it is None: there is no such
    point. Each of some processes does its share of them, with a bundle of its own.
    """
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(WORKERS, fork) as pool:
        shares = [pool.submit(_share, directory / str(n), n, task, *args) for n in range(WORKERS)]
        return sum(share.result() for share in shares)


def _share(directory: Path, first: int, task: Callable[..., int | None], *args) -> int:
    # Orphans become our children: `delete` waits until the last process of a container is reaped,
    # which the first process of some hosts does only once a second.
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    bundle = full(Bundle(directory))
    try:
        results = (task(bundle, n, *args) for n in itertools.count(first, WORKERS))
        return sum(itertools.takewhile(lambda result: result is not None, results))
    finally:
        bundle.clean()


# What is done before; the command; what follows its id; the fewest points that can be all.
VERBS = {
    "create": ([], ["create"], [], 250),
    "run": ([], ["run", "--detach"], [], 250),
    "start": (["create"], ["start"], [], 8),
    "exec": (["create", "start"], ["exec", "--detach"], ["sleep", "1000"], 80),
    "delete": (["create"], ["delete", "--force"], [], 20),
    "delete of a running one": (["create", "start"], ["delete", "--force"], [], 20),
    "kill": (["create", "start"], ["kill"], ["KILL"], 5),
    "pause": (["create", "start"], ["pause"], [], 5),
}


def prepare(bundle: Bundle, verbs: list[str]) -> None:
    for verb in verbs:
        if verb == "create":
            bundle.create()
        else:
            bundle.call(verb, bundle.id)


def kill_there(bundle: Bundle, n: int, verb: str) -> int | None:
    before, words, tail, _ = VERBS[verb]
    prepare(bundle, before)
    points = killed_at(bundle, n + 1, *words, bundle.id, *tail)
    nothing_is_left(bundle, n + 1)
    return 1 if points is None else None


@pytest.mark.parametrize("verb", VERBS)
def test_killed_at_every_point(tmp_path, verb):
    points = at_every_point(tmp_path, kill_there, verb)
    print(f"{verb}: killed at {points} points")
    assert points >= VERBS[verb][-1]


# Of the points at which a process is stopped: MINICONTAINER_TEST_EVERY=1 for the long version.
EVERY = int(os.environ.get("MINICONTAINER_TEST_EVERY", "7"))


def stop_there(bundle: Bundle, n: int, verb: str, whom: str) -> int | None:
    before, words, tail, _ = VERBS[verb]
    prepare(bundle, before)
    process = stopped_at(bundle, 1 + EVERY * n, whom, *words, bundle.id, *tail)
    if process is None:
        nothing_is_left(bundle, -1)
        return None
    deleted(bundle, n)
    try:  # and should it go on, it does no harm
        process.send_signal(signal.SIGCONT)
        process.wait(20)
    finally:
        process.kill()
    nothing_is_left(bundle, n)
    return 1


@pytest.mark.parametrize("whom", ["runtime", "caller"])
@pytest.mark.parametrize("verb", ["create", "start", "exec", "delete"])
def test_deleted_while_a_process_of_the_runtime_is_stopped(tmp_path, verb, whom):
    """Every EVERY-th point. The runtime itself, or the stage or init that makes the call."""
    points = at_every_point(tmp_path, stop_there, verb, whom)
    print(f"{verb}, {whom}: stopped at {points} points")
    assert points > 1


def kill_its_child_there(bundle: Bundle, n: int, verb: str, every: int) -> int | None:
    before, words, tail, _ = VERBS[verb]
    point = 1 + n * every
    prepare(bundle, before)
    code, said = killing(bundle, point, "caller", *words, bundle.id, *tail)
    if code > 0:
        assert "was killed" in said, point
        assert "Traceback" not in said
        assert "internal error" not in said
        assert verb == "exec" or bundle.left() == [], point
    nothing_is_left(bundle, point)
    if code == 0 and int(said.split()[-1]) < point:
        return None
    return 1 if code > 0 else 0  # else it was the runtime itself


@pytest.mark.parametrize(("verb", "every"), [("create", 3), ("exec", 1)])
def test_stage_or_init_killed(tmp_path, verb, every):
    """At every point, or every third. The runtime says so, and `create` undoes by itself."""
    points = at_every_point(tmp_path, kill_its_child_there, verb, every)
    print(f"{verb}: stage or init killed at {points} points")
    assert points > 20


@pytest.mark.parametrize("count", [int(os.environ.get("MINICONTAINER_TEST_MANY", "500"))])
def test_many_at_once(bundle: Bundle, count):
    """Eight at a time; MINICONTAINER_TEST_MANY=40 for the short version."""
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
