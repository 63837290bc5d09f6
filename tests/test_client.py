"""`import minicontainer`: the library, from programs with threads as notebooks are."""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import minicontainer
from minicontainer import client
from minicontainer.kernel import syscalls
from minicontainer.runtime.helper import IDLE
from minicontainer.runtime.plan import build
from minicontainer.runtime.spec import default
from tests.bundles import alive
from tests.roots import ORDINARY_UID, REPOSITORY
from tests.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.rootless]


@pytest.fixture(autouse=True)
def no_helper_stays():
    yield
    minicontainer.helper_stop()


def test_output_is_printed_as_it_comes(root, capsys):
    result = minicontainer.run(root, ["sh", "-c", "echo out; echo err >&2; exit 3"])
    printed = capsys.readouterr()
    assert (printed.out, printed.err, result.returncode) == ("out\n", "err\n", 3)


def test_capture_and_input_of_any_size(root):
    text = "ünïcode\n" * 200_000
    result = minicontainer.run(root, ["cat"], input=text, capture_output=True)
    assert result.stdout == text


def test_a_character_split_between_reads_survives(root):
    script = r"printf '\303'; usleep 50000; printf '\274'"
    assert minicontainer.run(root, ["sh", "-c", script], capture_output=True).stdout == "ü"


def test_descriptor_goes_to_the_container_as_it_is(root):
    read_fd, write_fd = os.pipe()
    minicontainer.run(root, ["readlink", "/proc/self/fd/1"], stdout=write_fd)
    os.close(write_fd)
    with open(read_fd) as pipe:
        assert pipe.read() == f"pipe:[{os.stat(pipe.fileno()).st_ino}]\n"


def test_works_in_a_process_with_threads(root):
    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        assert minicontainer.run(root, ["true"]).returncode == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_many_at_once_do_not_mix(root):
    def echo(n: int) -> str:
        return minicontainer.run(root, ["echo", str(n)], capture_output=True).stdout

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(echo, range(40))) == [f"{n}\n" for n in range(40)]


def test_errors_name_command_and_code(root):
    with pytest.raises(minicontainer.ContainerError, match="not found in") as caught:
        minicontainer.run(root, ["nope"])
    assert caught.value.exit_code == 127
    with pytest.raises(minicontainer.ContainerError, match="no such file"):
        minicontainer.run(root / "nope", ["true"])
    with pytest.raises(minicontainer.ContainerError, match="list of at least one word"):
        minicontainer.run(root, "true")  # a string is a likely slip


def test_check_raises_with_the_result(root):
    with pytest.raises(minicontainer.CommandFailed, match="exit status 4") as caught:
        minicontainer.run(root, ["sh", "-c", "echo x; exit 4"], check=True, capture_output=True)
    assert caught.value.result.stdout == "x\n"


def children_of(helper: int) -> list[str]:
    """The children of a process, which has one thread, the oldest first."""
    with open(f"/proc/{helper}/task/{helper}/children") as children:
        return children.read().split()


def waiting(helper: int) -> list[tuple[int, int]]:
    """All that wait, once they are there: worker and init, that for the next call first."""

    def found() -> list[tuple[int, int]]:
        python = os.readlink(f"/proc/{helper}/exe")  # not its first one: see `sealed`
        pairs = []
        for worker in children_of(helper):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                inits = children_of(int(worker))
                if inits and os.readlink(f"/proc/{inits[0]}/exe") == python:
                    pairs.append((int(worker), int(inits[0])))
        return pairs if len(pairs) == IDLE else []

    return until(found, 10)


def assert_no_container(helper: int) -> None:
    """No worker has a child, and all end but those that are for the next calls."""
    idle = [worker for worker, _ in waiting(helper)]
    for worker in map(int, children_of(helper)):
        if worker in idle:
            continue
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            assert children_of(worker) == []
            pidfd = os.pidfd_open(worker)
            ended = select.select([pidfd], [], [], 20)[0]
            os.close(pidfd)
            assert ended, f"worker {worker} stays"


def test_timeout_kills_and_waits(root):
    helper = minicontainer.helper_start()
    with pytest.raises(TimeoutError, match="killed after"):
        minicontainer.run(root, ["sleep", "1000"], timeout=0.2)
    assert_no_container(helper)


def test_ctrl_c_kills_and_waits(root):
    helper = minicontainer.helper_start()
    read_fd, write_fd = os.pipe()

    def interrupt() -> None:
        select.select([read_fd], [], [], 20)  # the command is running: it has written
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        minicontainer.run(root, ["sh", "-c", "echo up; exec sleep 1000"], stdout=write_fd)
    thread.join()
    assert_no_container(helper)
    os.close(read_fd)
    os.close(write_fd)


def test_killed_command_is_128_plus_n(root):
    # PID 1 cannot kill itself with a signal it does not handle, but the kernel can: out of memory
    # aside, a fault does it.
    script = "kill -SEGV $$; exec sh -c 'kill -9 $$; exit 5'"
    assert minicontainer.run(root, ["sh", "-c", script]).returncode == 5


def test_killed_helper_is_replaced(root):
    first = minicontainer.helper_start()
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    assert minicontainer.run(root, ["true"]).returncode == 0
    assert minicontainer.helper_start() != first


def test_calls_of_many_threads_while_helpers_are_killed(root):
    """Each call either works, or is told that its helper was killed; nothing else, and no hang."""
    told: list[object] = []
    busy = True

    def call() -> None:
        while busy:
            try:
                told.append(minicontainer.run(root, ["true"]).returncode)
            except minicontainer.ContainerError as error:
                told.append(error.exit_code)
            except Exception as error:
                told.append(error)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(8):
        time.sleep(0.2)
        os.kill(minicontainer.helper_start(), signal.SIGKILL)
    time.sleep(0.3)
    busy = False
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert {0} < {*told} <= {0, 137}, {*told} - {0, 137}
    assert minicontainer.run(root, ["true"]).returncode == 0


@pytest.fixture
def stopped_helper(root, monkeypatch):
    """The helper's pid, after SIGSTOP for it and any worker that waits for work."""
    minicontainer.run(root, ["true"])
    helper = minicontainer.helper_start()
    os.kill(helper, signal.SIGSTOP)
    os.waitid(os.P_PID, helper, os.WSTOPPED | os.WNOWAIT)
    for worker in map(int, children_of(helper)):
        with contextlib.suppress(ProcessLookupError):  # that of the call above
            os.kill(worker, signal.SIGSTOP)
    monkeypatch.setattr(client, "_PATIENCE", 1.0)
    return helper


def test_stopped_helper_runs_into_the_timeout(root, stopped_helper):
    with pytest.raises(TimeoutError, match=r"killed after 0\.2 s") as caught:
        minicontainer.run(root, ["touch", "/ran"], timeout=0.2)
    assert f"process {stopped_helper}, was stopped" in caught.value.__notes__[0]
    # The request is gone with the helper, and the next one finds another.
    assert minicontainer.run(root, ["true"]).returncode == 0
    assert minicontainer.helper_start() != stopped_helper
    assert not (root / "ran").exists()


def test_ctrl_c_gets_out_while_the_helper_is_stopped(root, stopped_helper):
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        minicontainer.run(root, ["touch", "/ran"])
    timer.join()
    assert minicontainer.run(root, ["true"]).returncode == 0
    assert not (root / "ran").exists()


def test_stopped_helper_does_not_hold_up_the_end(root, stopped_helper):
    workers = [*map(int, children_of(stopped_helper))]
    began = time.monotonic()
    minicontainer.helper_stop()
    assert time.monotonic() - began < 10
    assert not os.path.exists(f"/proc/{stopped_helper}")
    deadline = time.monotonic() + 10
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.01)  # they were told to end, and do a moment later
    assert not any(map(alive, workers))


def test_killed_worker_takes_its_container_along(root):
    helper = minicontainer.helper_start()
    result = []

    def run() -> None:
        with pytest.raises(minicontainer.ContainerError, match="was killed") as caught:
            minicontainer.run(root, ["sleep", "1000"])
        result.append(caught.value)

    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + 20
    worker = container = 0
    while not container and time.monotonic() < deadline:
        for worker in map(int, children_of(helper)):
            with contextlib.suppress(FileNotFoundError):
                for one in children_of(worker):
                    if os.readlink(f"/proc/{one}/exe").endswith("busybox"):
                        container = int(one)
            if container:
                break
    pidfd = os.pidfd_open(container)
    os.kill(worker, signal.SIGKILL)
    assert select.select([pidfd], [], [], 20)[0]
    os.close(pidfd)
    thread.join(20)
    assert result[0].exit_code == 128 + signal.SIGKILL
    assert "run it again" in result[0].hint


def test_killed_idle_worker_is_replaced(root):
    helper = minicontainer.helper_start()
    minicontainer.run(root, ["true"])
    idle, _ = waiting(helper)[0]
    pidfd = os.pidfd_open(idle)
    os.kill(idle, signal.SIGKILL)
    assert select.select([pidfd], [], [], 20)[0]  # dying, it could still take the request along
    os.close(pidfd)
    assert minicontainer.run(root, ["true"]).returncode == 0
    assert minicontainer.helper_start() == helper


def test_an_init_waits_in_namespaces_of_its_own_and_becomes_the_container(root):
    helper = minicontainer.helper_start()
    minicontainer.run(root, ["true"])
    _, init = waiting(helper)[0]
    for kind in ("uts", "ipc", "pid", "net"):
        assert os.readlink(f"/proc/{init}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
    own = os.readlink(f"/proc/{init}/ns/net")
    words = ["readlink", "/proc/self/ns/net"]
    assert minicontainer.run(root, words, capture_output=True).stdout.strip() == own
    assert not alive(init)


def test_signals_have_their_default_actions_in_there(root):
    """The helper ignores Ctrl-C for itself; an init that waits is its child, too."""
    for _ in range(2):
        waiting(minicontainer.helper_start())
        words = ["grep", "-E", "Sig(Ign|Blk|Cgt)", "/proc/self/status"]
        said = minicontainer.run(root, words, capture_output=True).stdout
        assert [int(line.split()[1], 16) for line in said.splitlines()] == [0, 0, 0]


def test_a_long_call_gets_a_successor_while_it_runs(root):
    helper = minicontainer.helper_start()
    inits = {init for _, init in waiting(helper)}
    thread = threading.Thread(target=minicontainer.run, args=(root, ["sleep", "1"]))
    thread.start()
    until(lambda: {init for _, init in waiting(helper)} - inits, 10)
    assert thread.is_alive()
    thread.join()


def test_without_the_init_that_waited_another_is_made(root):
    helper = minicontainer.helper_start()
    minicontainer.run(root, ["true"])
    _, init = waiting(helper)[0]
    pidfd = os.pidfd_open(init)
    os.kill(init, signal.SIGKILL)
    assert select.select([pidfd], [], [], 20)[0]
    os.close(pidfd)
    assert minicontainer.run(root, ["true"]).returncode == 0
    assert minicontainer.helper_start() == helper


def test_an_init_that_does_not_fit_is_sent_away(root):
    helper = minicontainer.helper_start()
    minicontainer.run(root, ["true"])
    _, init = waiting(helper)[0]
    ours = os.readlink("/proc/self/ns/net")
    words = ["sh", "-c", "readlink /proc/self/ns/net"]
    done = minicontainer.run(root, words, network="host", capture_output=True)
    assert done.stdout.strip() == ours
    assert not alive(init)
    assert_no_container(helper)


def test_what_an_init_that_waits_stumbles_over_is_said(root):
    """Here a plan that cannot be made: its worker says it."""
    helper = minicontainer.helper_start()
    waiting(helper)
    ours, theirs = socket.socketpair()
    with ours, theirs, open(os.devnull) as null:
        assert client._helper
        request = {"trace": False, "spec": {"process": {}}}
        client._send(request, [null.fileno()] * 3 + [theirs.fileno()])
        theirs.close()
        ours.settimeout(20)
        assert json.loads(ours.recv(65536))["error"] == "internal error: KeyError('linux')"
    assert_no_container(helper)


def test_mounts_that_cannot_be_copied_are_an_error(root):
    """In a user namespace, whose root may set limits for it (namespaces(7))."""
    script = f"""
import sys, time
sys.path.insert(0, {str(REPOSITORY)!r})
import minicontainer
from tests.test_client import waiting
waiting(minicontainer.helper_start())
with open("/proc/sys/user/max_mnt_namespaces", "w") as limit:
    limit.write("0")
try:
    minicontainer.run({str(root)!r}, ["true"])
except minicontainer.ContainerError as error:
    print(error)
"""
    words = ["unshare", "--user", "--map-root-user", sys.executable, "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=REPOSITORY)
    assert "clone" in done.stdout, done.stdout + done.stderr
    assert "No space left" in done.stdout or "limit" in done.stdout, done.stdout


@pytest.mark.root
def test_what_is_mounted_while_an_init_waits_is_seen(root):
    minicontainer.run(root, ["true"])
    waiting(minicontainer.helper_start())
    (root / "mnt").mkdir(exist_ok=True)
    syscalls.mount("tmpfs", str(root / "mnt"), "tmpfs", 0, None)
    try:
        (root / "mnt" / "new").touch()
        done = minicontainer.run(root, ["ls", "/mnt"], capture_output=True)
        assert done.stdout == "new\n"
    finally:
        syscalls.umount2(str(root / "mnt"), 0)


def test_the_trace_tells_what_was_there_before_the_request(root):
    minicontainer.run(root, ["true"])
    waiting(minicontainer.helper_start())
    steps = minicontainer.run(root, ["true"], trace=True).steps
    early = [step["name"] for step in steps if "before the request" in str(step["calls"])]
    assert early[0] == "clone"
    assert ("loopback up" in early) == (os.geteuid() == 0)


@pytest.mark.root
def test_an_ordinary_users_init_has_the_plan_that_its_worker_has(root, ordinary_user, tmp_path):
    """It builds it in a user namespace, where it may be root by then."""
    os.chown(root, ORDINARY_UID, ORDINARY_UID)
    script = (
        f"import sys, time; sys.path.insert(0, {str(REPOSITORY)!r}); import minicontainer;"
        "from minicontainer.runtime import plan, spec;"
        f"wanted = [s.name for s in plan.build(spec.default({str(root)!r}, ['true']))]\n"
        "for _ in range(8):\n"
        f"    made = minicontainer.run({str(root)!r}, ['true'], trace=True).steps\n"
        "    assert [s['name'] for s in made] == wanted, made\n"
        "    time.sleep(0.05)\n"
    )
    done = subprocess.run(
        [*ordinary_user, sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_fork_of_the_caller_gets_a_helper_of_its_own(root):
    parent = minicontainer.helper_start()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            ok = minicontainer.helper_start() != parent
            status = 0 if ok and minicontainer.run(root, ["true"]).returncode == 0 else 2
            minicontainer.helper_stop()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert minicontainer.run(root, ["true"]).returncode == 0


def test_the_helper_ends_with_its_owner(root):
    script = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); import minicontainer, os, signal;"
        "print(minicontainer.helper_start(), flush=True); sys.stdin.read(1);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    pidfd = os.pidfd_open(int(owner.stdout.readline()))
    owner.communicate("x")
    assert select.select([pidfd], [], [], 20)[0], "the helper outlived a killed owner"
    os.close(pidfd)


def test_traced_steps_are_those_of_the_plan(root):
    result = minicontainer.run(root, ["true"], trace=True)
    names = [step["name"] for step in result.steps]
    assert names == [step.name for step in build(default(root, ["true"]))]
    assert names == [step["name"] for step in minicontainer.explain(root, ["true"])]
    assert any("pivot_root" in call["call"] for step in result.steps for call in step["calls"])
    assert minicontainer.run(root, ["true"]).steps == []


def test_printing_to_a_closed_stdout_leaves_no_container(root):
    helper = minicontainer.helper_start()

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with contextlib.redirect_stdout(Closed()), pytest.raises(BrokenPipeError):
        minicontainer.run(root, ["sh", "-c", "echo x; exec sleep 1000"])
    assert_no_container(helper)
