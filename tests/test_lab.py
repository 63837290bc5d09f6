"""The workbench, the checks around it, and the search for leftovers: effects in the kernel."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

import minicontainer
from minicontainer.kernel import namespaces, syscalls
from minicontainer.lab import (
    elf,
    exercises,
    leaks,
    progress_file,
    recordings,
    workbench,
    workbench_child,
    workbench_limits,
)
from minicontainer.lab.lesson import is_of_lessons
from minicontainer.lab.recordings import LessonWorkbench
from minicontainer.lab.workbench import Workbench, WorkbenchError
from tests.roots import REPOSITORY

pytestmark = [pytest.mark.root, pytest.mark.rootless]


@pytest.fixture
def bench():
    try:
        workbench.find_busybox()
    except WorkbenchError as reason:
        pytest.skip(str(reason))
    with Workbench() as bench:
        yield bench


@pytest.fixture
def main_names(monkeypatch):
    """Stands for the notebook: `define(source)` runs a cell that defines functions."""
    import linecache
    import types

    notebook = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", notebook)
    count = 0

    def define(source: str) -> dict:
        nonlocal count
        count += 1
        name = f"<cell {count}>"
        linecache.cache[name] = (len(source), None, source.splitlines(True), name)
        exec(compile(source, name, "exec"), vars(notebook))
        return vars(notebook)

    return define


def host_state() -> tuple:
    with open("/proc/self/mountinfo") as file:
        mounts = sorted(line.split()[4] for line in file)
    return mounts, socket.gethostname(), sorted(os.listdir("/sys/class/net")), os.listdir("/")


# --- a host of its own --------------------------------------------------------------------------


def test_has_namespaces_of_its_own(bench):
    def inodes():
        return namespaces.inodes()

    inside, outside = bench.call(namespaces.inodes).value, namespaces.inodes()
    own = {kind for kind in outside if inside[kind] != outside[kind]}
    assert own == {"user", "pid", "mount", "network", "uts", "ipc", "cgroup"}
    assert inodes() == outside


def test_looks_the_same_everywhere(bench):
    script = (
        "hostname; id -u; id -un; pwd; echo $$; ls /sys/class/net; cat /proc/1/comm | cut -c 1-6"
    )
    assert bench.shell(script).output == "workbench\n0\nroot\n/\n2\nlo\npython\n"


def test_what_it_does_stays_inside(bench):
    before = host_state()
    bench.shell("mount -t tmpfs none /mnt; hostname other; ip link add v0 type veth; rm -rf /etc")
    bench.shell("rm -rf /usr/bin/env /bin/busybox /opt; touch /usr/x /usr/share/x")
    assert host_state() == before
    assert os.path.exists("/usr/bin/env")
    assert not os.path.exists("/usr/x")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts on this host: root only")
def test_mounts_of_the_host_do_not_disturb_it(tmp_path):
    """Below /tmp, where the workbench is built; and below what is bound into it, read-only."""
    for place in (tmp_path, "/usr/local/share"):
        script = (
            f"import subprocess, sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
            "from minicontainer.lab.workbench import Workbench\n"
            "outcome = Workbench().shell('touch /usr/local/share/x')\n"
            "sys.exit(outcome.output != 'touch: /usr/local/share/x: Read-only file system\\n')\n"
        )
        mount = 'mount -t tmpfs none "$0" && exec "$@"'
        words = ["unshare", "--mount", "sh", "-c", mount, place, sys.executable, "-c", script]
        assert subprocess.run(words).returncode == 0


def test_state_stays_between_calls_and_goes_with_reset(bench):
    bench.shell("echo kept > /srv/file; mount -t tmpfs none /mnt; touch /mnt/x")
    assert bench.shell("cat /srv/file; ls /mnt").output == "kept\nx\n"
    bench.reset()
    assert bench.shell("ls /srv /mnt").output == "/mnt:\n\n/srv:\n"


def test_host_files_and_processes_are_out_of_reach(bench):
    def look(path, pid):
        reached = [name for name in ("/etc/shadow", "/home", path) if os.path.lexists(name)]
        fds = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
        links = [os.readlink(fd) for fd in fds if os.path.lexists(fd)]
        return reached, os.path.exists(f"/proc/{pid}/stat"), links

    reached, process, links = bench.call(look, str(REPOSITORY), os.getpid()).value
    assert reached == ["/home"]  # its own, empty one
    assert not process or os.getpid() < 10
    assert [link for link in links if link.startswith("/")] == ["/dev/null"]


def test_chroot_escape_ends_at_the_workbench(bench):
    def escape():
        os.makedirs("/a")
        os.chroot("/a")
        for _ in range(50):
            os.chdir("..")
        os.chroot(".")
        return os.path.samestat(os.stat("/"), os.stat("/proc/1/root")), sorted(os.listdir("/"))

    same, names = bench.call(escape).value
    assert same
    assert "a" in names
    assert "workbench" in bench.shell("cat /etc/hostname").output


def test_namespaces_of_the_host_cannot_be_joined(bench):
    script = "for n in /proc/[0-9]*/ns/mnt; do readlink $n; done | sort -u | wc -l"
    assert bench.shell(script).output == "1\n"


def test_static_busybox_and_a_dynamic_program(bench):
    assert bench.call(elf.interpreter, "/bin/busybox").value is None
    loader = bench.call(elf.interpreter, "/opt/dynamic/ls").value
    assert loader.startswith("/")
    assert bench.shell("/opt/dynamic/ls /opt").output == "dynamic\nminicontainer\n"
    libraries = bench.call(elf.libraries, "/opt/dynamic/ls").value
    assert all(bench.shell(f"test -e {path}").status == 0 for path in libraries)


# --- calls --------------------------------------------------------------------------------------


def test_sh_prints_output_and_status(bench, capsys):
    bench.sh("echo out; echo err >&2; exit 3")
    assert capsys.readouterr().out == "out\nerr\nexit status 3\n"


def test_run_returns_plain_data_and_prints(bench, capsys):
    def work(a, b):
        print("pid", os.getpid())
        return {"sum": a + b, "raw": b"\0", "pair": (1, None)}

    assert bench.run(work, 1, 2) == {"sum": 3, "raw": b"\0", "pair": (1, None)}
    assert capsys.readouterr().out == "pid 2\n"


def test_functions_of_the_notebook_travel_with_what_they_use(bench, main_names):
    names = main_names(
        "import os\n"
        "from minicontainer.kernel import syscalls\n"
        "from minicontainer.kernel.syscalls import chdir as go\n"
        "LIMIT = 3\n"
        "def twice(x): return 2 * x\n"
        "def count(n): return 0 if n == 0 else 1 + count(n - 1)\n"
        "def use():\n"
        "    go('/srv')\n"
        "    return [twice(x) for x in range(LIMIT)], os.getcwd(), count(4), syscalls.__name__\n"
    )
    outcome = bench.call(names["use"])
    assert outcome.value == ([0, 2, 4], "/srv", 4, "minicontainer.kernel.syscalls"), outcome.error


def test_a_builtin_that_ipython_wraps_is_the_builtin(bench, main_names):
    names = main_names("def use():\n    with open('/etc/hostname') as file: return file.read()\n")

    @functools.wraps(open)
    def modified_open(*args):
        return open(*args)

    names["open"] = modified_open
    outcome = bench.call(names["use"])
    assert outcome.value == "workbench\n", outcome.error


def test_what_cannot_travel_is_named(bench, main_names):
    names = main_names(
        "import threading, pytest\nlock = threading.Lock()\ndef use(): return lock\n"
        "anonymous = lambda: 1\ndef foreign(): return pytest.__name__\n"
    )
    assert "pytest is not installed in the workbench" in bench.call(names["foreign"]).error
    assert "lock, a lock, cannot be sent" in bench.call(names["use"]).error
    assert "def" in bench.call(names["anonymous"]).error


def test_an_exception_is_one_line_with_its_place(bench, capsys):
    def fail():
        syscalls.chroot("/missing")

    assert bench.run(fail) is None
    assert capsys.readouterr().out == (
        "ENOENT (No such file or directory): chroot(path='/missing')\n"
        '  in: syscalls.chroot("/missing")\n'
    )
    assert bench.call(fail).errno == 2


def test_a_value_that_is_no_data_is_refused(bench):
    def give():
        return open("/etc/hosts")

    assert "returned a TextIOWrapper" in bench.call(give).error


def test_exec_exit_and_signal_end_a_call(bench):
    def become():
        os.execv("/bin/busybox", ["sh", "-c", "echo new program; exit 5"])

    def leave():
        sys.exit(4)

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    outcome = bench.call(become)
    assert (outcome.output, outcome.status) == ("new program\n", 5)
    assert bench.call(leave).status == 4
    assert bench.call(die).status == -signal.SIGKILL


def test_only_the_first_process_of_a_call_reports(bench):
    def forget(fail):
        pid = os.fork()
        if pid == 0 and fail:
            os.execv("/missing", ["missing"])
        if pid:
            os.waitpid(pid, 0)
        return pid > 0

    def leave():
        if os.fork() == 0:
            sys.exit(3)
        return os.waitstatus_to_exitcode(os.wait()[1])

    outcome = bench.call(forget, False)
    assert (outcome.value, outcome.error) == (True, "")
    assert outcome.output == f"forget returned {workbench_child.ESCAPED}\n"
    outcome = bench.call(forget, True)
    assert (outcome.value, outcome.error) == (True, "")
    assert outcome.output.startswith("ENOENT (No such file or directory)")
    outcome = bench.call(leave)
    assert (outcome.value, outcome.output) == (3, "")


def test_containers_run_in_it(bench):
    """From the shell and from Python; the workbench of an ordinary user has one id and no tty."""
    bench.shell(
        "mkdir -p /srv/root/bin; cp /bin/busybox /srv/root/bin; ln -s busybox /srv/root/bin/sh"
    )

    def contain():
        result = minicontainer.run("/srv/root", ["/bin/sh", "-c", "echo $$"], capture_output=True)
        return result.stdout

    assert bench.shell("minicontainer run --rootfs /srv/root sh -c 'echo $$; exit 5'").output == (
        "1\n"
    )
    outcome = bench.call(contain)
    assert outcome.value == "1\n", outcome.error


def test_a_call_does_not_change_the_next(bench):
    def spoil():
        os.chroot("/srv")
        os.environ["X"] = "1"
        sys.path.clear()
        os.close(0)

    bench.call(spoil)
    assert bench.shell("echo $X; ls -d /usr").output == "\n/usr\n"


def test_works_in_a_process_with_threads(bench):
    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        assert bench.shell("echo ok").output == "ok\n"
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_background_program_does_not_hold_the_cell(bench):
    start = time.monotonic()
    assert bench.shell("sleep 100 & echo started", timeout=50).output == "started\n"
    assert time.monotonic() - start < 10
    assert "sleep 100" in bench.shell("ps").output


# --- bad input ----------------------------------------------------------------------------------


def test_an_endless_loop_is_killed(bench, capsys):
    def loop():
        while True:
            pass

    bench.run(loop, timeout=0.3)
    assert capsys.readouterr().out == "killed after 0.3 s, with all that ran in the workbench\n"
    assert bench.shell("echo on").output == "on\n"


def test_an_endless_script_is_killed(bench, capsys):
    bench.sh("while :; do :; done", timeout=0.3)
    assert capsys.readouterr().out == "killed after 0.3 s, with all that ran in the workbench\n"


def test_a_host_without_a_shell_says_so(bench, capsys):
    bench.sh("rm -rf /bin")
    bench.sh("echo hello")
    assert capsys.readouterr().out == (
        "ENOENT (No such file or directory): '/bin/sh'\nexit status 127\n"
    )
    bench.reset()
    assert bench.shell("echo hello").output == "hello\n"


def test_endless_output_is_cut(bench):
    outcome = bench.shell("yes", timeout=0.5)
    assert outcome.timed_out
    assert len(outcome.output) < workbench.MAX_OUTPUT + 100
    assert "left out" in outcome.output


def test_a_fork_bomb_is_limited_and_cleared(bench):
    def bomb():
        while True:
            try:
                os.fork()
            except OSError:
                pass

    def count():
        return len([name for name in os.listdir("/proc") if name.isdecimal()])

    assert bench.call(bomb, timeout=1).timed_out
    assert bench.call(count).value == 2  # PID 1 and the one that counts


def test_a_fork_bomb_in_the_background_leaves_room_for_the_next_cell(bench):
    def start_bomb():
        if os.fork() == 0:
            while True:
                try:
                    os.fork()
                except OSError:
                    pass

    bench.call(start_bomb)
    deadline = time.monotonic() + 10
    while _processes_below(bench.pid) < 200 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert 200 <= _processes_below(bench.pid) <= 600
    assert bench.shell("echo on").output == "on\n"


def _processes_below(pid: int) -> int:
    """How many processes are in the keeper's child's pid namespace."""
    children = f"/proc/{pid}/task/{pid}/children"
    with open(children) as file:
        init = file.read().split()[0]
    namespace = os.readlink(f"/proc/{init}/ns/pid")
    count = 0
    for name in os.listdir("/proc"):
        try:
            count += name.isdecimal() and os.readlink(f"/proc/{name}/ns/pid") == namespace
        except OSError:
            pass
    return count


def test_a_memory_hog_ends_in_a_memory_error(bench):
    def hog():
        return len(bytearray(1 << 40))

    assert "MemoryError" in bench.call(hog).error


def test_a_full_disk_is_the_cells_trouble_alone(bench):
    outcome = bench.shell("dd if=/dev/zero of=/srv/big bs=1M count=1000; echo more > /srv/more")
    assert "No space left on device" in outcome.output
    assert bench.shell("rm /srv/big; echo on").output == "on\n"


def test_signals_to_pid_1_from_inside_are_harmless(bench):
    bench.shell("kill -9 1; kill -INT 1; kill -TERM 1; kill -CHLD 1; kill -9 -1")
    assert bench.shell("echo on").output == "on\n"


def test_a_killed_keeper_is_told_and_replaced(bench, capsys):
    bench.shell("echo x > /srv/x")
    os.kill(bench.pid, signal.SIGKILL)
    bench._process.wait()
    bench.sh("ls /srv")
    assert capsys.readouterr().out == (
        "the workbench had ended; this is a fresh one: run the lesson from its reset on\n"
    )


def test_the_end_of_a_jupyter_kernel_leaves_no_cgroup(bench):
    """It sends SIGTERM to its children, again and again until they have ended."""
    before = leaks.snapshot()
    keeper = bench.pid
    while bench._process.poll() is None:
        os.kill(keeper, signal.SIGTERM)
        time.sleep(0.01)
    assert leaks.settled(before, concerns=is_of_lessons) == []


def test_a_keeper_killed_in_the_middle_is_told(bench, capsys):
    threading.Timer(0.3, os.kill, (bench.pid, signal.SIGKILL)).start()
    bench.sh("sleep 100")
    assert "the workbench has ended" in capsys.readouterr().out
    bench.sh("echo on")
    assert capsys.readouterr().out.endswith("fresh one: run the lesson from its reset on\non\n")


def test_a_killed_init_is_told_and_replaced(bench, capsys):
    with open(f"/proc/{bench.pid}/task/{bench.pid}/children") as file:
        (init,) = file.read().split()
    threading.Timer(0.3, os.kill, (int(init), signal.SIGKILL)).start()
    bench.sh("sleep 100")
    bench.sh("echo on")
    assert capsys.readouterr().out == (
        "the workbench has ended (was its process killed?)\n"
        "the workbench had ended; this is a fresh one: run the lesson from its reset on\non\n"
    )


def test_ctrl_c_kills_what_runs_and_keeps_the_host(bench):
    bench.shell("echo x > /srv/x")
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        bench.shell("sleep 100")
    assert bench.shell("cat /srv/x; ps | grep -c '[s]leep 100'").output == "x\n0\n"


def test_everything_goes_when_the_notebook_is_killed():
    before = leaks.snapshot()
    program = (
        "from minicontainer.lab.workbench import Workbench\n"
        "bench = Workbench()\n"
        "bench.shell('mount -t tmpfs none /mnt; sleep 1000 &')\n"
        "print('ready', flush=True)\n"
        "import time; time.sleep(1000)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as notebook:
        if notebook.stdout.readline() != "ready\n":
            pytest.skip("no workbench on this host")
        assert leaks.difference(before, leaks.snapshot())
        notebook.kill()
    assert leaks.settled(before, concerns=is_of_lessons) == []


def test_close_twice_and_use_again(bench):
    bench.close()
    bench.close()
    assert bench.shell("echo again").output == "again\n"


def test_closing_leaves_nothing(bench):
    bench.close()
    before = leaks.snapshot()
    bench.shell("mount -t tmpfs none /mnt; ip link add d0 type bridge; sleep 1000 &")
    assert any(
        words.startswith("namespace ") for words in leaks.difference(before, leaks.snapshot())
    )
    bench.close()
    assert leaks.settled(before, concerns=is_of_lessons) == []


def test_missing_busybox_is_said_with_the_fix(monkeypatch, tmp_path):
    monkeypatch.setattr(workbench.shutil, "which", lambda *_, **__: None)
    with pytest.raises(WorkbenchError, match="busybox-static"):
        Workbench().shell("true")
    monkeypatch.setattr(workbench.shutil, "which", lambda *_, **__: "/usr/bin/env")
    with pytest.raises(WorkbenchError, match="not static"):
        Workbench().shell("true")


# --- recorded runs ------------------------------------------------------------------------------


def test_what_is_live_is_recorded_and_then_shown_in_its_place(tmp_path, monkeypatch, capsys):
    def fail(number):
        print("told before it")
        return [number, 1 // (number - 1)]

    monkeypatch.setattr(recordings, "DIRECTORY", str(tmp_path / "recorded"))
    monkeypatch.setenv("MINICONTAINER_RUNS", "record")
    with LessonWorkbench("99") as bench:
        bench.sh("echo not kept")
        values = [bench.run(fail, number, live=True) for number in (1, 2)]
        bench.sh("echo hello; exit 3", live=True, name="greet")
    live = capsys.readouterr().out.removeprefix("not kept\n")
    assert values == [None, [2, 1]]
    assert "ZeroDivisionError" in live
    assert live.endswith("hello\nexit status 3\n")
    kept = json.loads((tmp_path / "recorded" / "99.json").read_text())
    assert sorted(kept) == ["fail 1", "fail 2", "greet"]

    monkeypatch.delenv("MINICONTAINER_RUNS")
    with LessonWorkbench("99") as bench:
        assert [bench.run(fail, number, live=None) for number in (1, 2)] == values
        bench.sh("echo something else", live=False, name="greet")
        assert capsys.readouterr().out == live
        assert bench._process is None
        with pytest.raises(WorkbenchError, match="no recorded run of 'fail 3'"):
            bench.run(fail, 3, live=False)


# --- predict, check, hint, progress -------------------------------------------------------------


@pytest.fixture
def state(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(progress_file, "_unkept", None)
    return tmp_path / "state" / "minicontainer" / "progress.json"


def test_predictions_are_noted_and_nothing_else_is(state, capsys):
    exercises.predict("02.a", None)
    exercises.predict("02.a", "z")
    assert not state.exists()
    exercises.predict("02.a", "b")
    assert json.loads(state.read_text())["02"]["predictions"] == {"02.a": "b"}
    progress_file.progress("02")
    assert "1 of 4 predictions made, 0 right" in capsys.readouterr().out


def test_hints_grow_and_stop(state, capsys):
    for _ in range(4):
        exercises.hint("02.1")
    printed = capsys.readouterr().out
    assert [printed.count(f"hint {n} of 3") for n in (1, 2, 3)] == [1, 1, 2]
    assert "solution is folded" in printed


def test_unknown_numbers_are_named(state):
    with pytest.raises(ValueError, match=r"no exercise '02\.9'; there are: 02\.1"):
        exercises.check("02.9")
    with pytest.raises(ValueError, match="no lesson '99'"):
        exercises.predict("99.a", "a")


def test_forget_one_and_all(state, capsys):
    state.parent.mkdir(parents=True)
    state.write_text('{"02": {"passed": ["02.1"]}, "03": {}}')
    progress_file.forget("02")
    assert json.loads(state.read_text()) == {"03": {}}
    progress_file.forget()
    assert json.loads(state.read_text()) == {}


def test_a_broken_file_is_put_aside(state, capsys):
    state.parent.mkdir(parents=True)
    state.write_text("{ not json")
    exercises.predict("02.a", "c")
    assert json.loads(state.read_text())["02"]["predictions"] == {"02.a": "c"}
    assert state.with_name("progress.json.broken").read_text() == "{ not json"


def test_an_unwritable_home_does_not_stop_a_lesson(state, monkeypatch, capsys):
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nowhere")
    exercises.predict("02.a", "c")
    exercises.hint("02.1")
    exercises.hint("02.1")
    progress_file.progress("02")
    printed = capsys.readouterr().out
    assert "hint 2 of 3" in printed
    assert "1 right" in printed
    assert "cannot be written" in printed


def test_a_full_disk_does_not_stop_a_lesson(tmp_path):
    """Progress cannot be written: it is kept until the notebook ends, and no half of it stays."""
    tmp_path.chmod(0o777)
    script = (
        "import os\n"
        "from minicontainer.lab import hint, predict, progress\n"
        "with open(os.environ['XDG_STATE_HOME'] + '/full', 'wb', 0) as file:\n"
        "    try:\n"
        "        while True: file.write(bytes(4096))\n"
        "    except OSError: pass\n"
        "predict('02.a', 'c')\n"
        "hint('02.1')\n"
        "progress('02')\n"
        "print(os.listdir(os.environ['XDG_STATE_HOME'] + '/minicontainer'))\n"
    )
    words = ["unshare", "--map-root-user", "--mount", "sh", "-c",
             'mount -t tmpfs -o size=64k none "$0" && mkdir "$0/minicontainer" && exec "$@"',
             tmp_path, sys.executable, "-c", script]  # fmt: skip
    done = subprocess.run(
        words, cwd=REPOSITORY, capture_output=True, text=True,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
    )  # fmt: skip
    if "unshare" in done.stderr:
        pytest.skip(done.stderr)
    assert "02.a: c, noted" in done.stdout, done.stderr
    assert "1 of 4 predictions made, 1 right" in done.stdout
    assert "cannot be written" in done.stdout
    assert done.stdout.endswith("\n[]\n"), done.stdout


RIGHT = """
import os
def jailed():
    pids = [name for name in os.listdir("/proc") if name.isdecimal()]
    return [int(pid) for pid in pids if os.readlink(f"/proc/{pid}/root") != "/"]
"""


@pytest.mark.parametrize(
    ("cell", "verdict"),
    [
        ("", "not attempted yet"),
        ("def jailed():\n    'says'\n", "not attempted yet"),
        ("def jailed():\n    ...\n", "not attempted yet"),
        ("jailed = 4", "must be a function"),
        ("def jailed():\n    return 1 / 0\n", "ZeroDivisionError"),
        ("def jailed(a):\n    return a\n", "TypeError"),
        ("def jailed():\n    while True: pass\n", "did not end"),
        ("import os\ndef jailed():\n    os._exit(0)\n", "returned None"),
        ("import os\ndef jailed():\n    os.kill(-1, 9)\n    return []\n", "lacks a process"),
        ("def jailed():\n    return 'x' * 10**6\n", "a list of process numbers is wanted"),
        ("def jailed():\n    return jailed()\n", "RecursionError"),
        ("def jailed():\n    return input()\n", "EOFError"),
        ("def jailed():\n    return bytearray(1 << 40)\n", "MemoryError"),
        ("import os\ndef jailed():\n    while True: os.fork()\n", "EAGAIN|did not end"),
        (
            "def jailed():\n    open('/x', 'w').write('x' * 2**28)\n",
            "No space left|did not end",
        ),
        ("import os\ndef jailed():\n    os.chroot('/srv'); os.chroot('..')\n", "returned None"),
        ("import os\ndef jailed():\n    os.kill(1, 9); return []\n", "lacks a process"),
        ("import os\ndef jailed():\n    os.chroot('/srv/nowhere')\n", "No such file"),
    ],
    ids=lambda value: value[:30],
)
def test_answers_of_any_kind_get_a_verdict(bench, state, main_names, capsys, cell, verdict):
    main_names(cell)
    exercises.check("02.2")
    printed = capsys.readouterr().out
    assert re.search(verdict, printed), printed
    assert "passed" not in printed
    main_names(RIGHT)
    exercises.check("02.2")
    assert "02.2: passed" in capsys.readouterr().out


# --- leftovers ----------------------------------------------------------------------------------


def test_a_process_a_namespace_and_a_file_are_reported(tmp_path, monkeypatch):
    before = leaks.snapshot()
    flag = "--net" if os.geteuid() == 0 else "--user"
    process = subprocess.Popen(["unshare", flag, "sleep", "1000"])
    directory = f"/tmp/minicontainer-leak-{os.getpid()}"
    os.makedirs(f"{directory}/below")
    try:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            found = leaks.difference(before, leaks.snapshot())
            if any(words.startswith("namespace") for words in found):
                break
        assert f"process {process.pid} sleep 1000" in found
        assert f"file {directory}" in found
        assert not any("below" in words for words in found)
    finally:
        process.kill()
        process.wait()
        os.removedirs(f"{directory}/below")
    assert (
        leaks.settled(before, 2, lambda words: str(process.pid) in words or directory in words)
        == []
    )


def test_an_orphan_with_its_mark_is_ours():
    before = leaks.snapshot()
    script = "sleep 1000 >/dev/null 2>&1 & echo $!"
    orphan = subprocess.run(["setsid", "sh", "-c", script], capture_output=True, text=True).stdout
    try:
        assert any(
            f"process {orphan.strip()} " in w for w in leaks.difference(before, leaks.snapshot())
        )
    finally:
        os.kill(int(orphan), signal.SIGKILL)


def test_what_is_ignored_is_not_looked_at():
    directory = f"/tmp/minicontainer-ignored-{os.getpid()}"
    before = leaks.snapshot(ignore=[directory])
    os.mkdir(directory)
    try:
        assert not any(
            directory in w for w in leaks.difference(before, leaks.snapshot(before.ignore))
        )
    finally:
        os.rmdir(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts and makes a cgroup on this host: root only")
def test_a_mount_and_a_cgroup_are_reported(tmp_path):
    before = leaks.snapshot()
    groups = workbench_limits.group_of(os.getpid()).directories
    pids = next((os.path.dirname(d.path) for d in groups if "pids" in d.controllers), None)
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path], check=True)
    try:
        if pids:
            os.mkdir(f"{pids}/minicontainer-leak")
        found = leaks.difference(before, leaks.snapshot())
        assert f"mount {tmp_path} (tmpfs)" in found
        assert not pids or f"cgroup {pids}/minicontainer-leak" in found
    finally:
        subprocess.run(["umount", tmp_path], check=True)
        if pids:
            os.rmdir(f"{pids}/minicontainer-leak")
