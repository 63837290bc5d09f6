"""Pseudo-terminals: in a container's root, also a hostile one; raw mode; the relay."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading

import pytest

from minicontainer.doctor import enter, in_child
from minicontainer.kernel import mountfd, mounts, pty, syscalls
from minicontainer.kernel.syscalls import MS_PRIVATE, MS_REC
from tests.roots import REPOSITORY


def say(condition: object, what: str) -> None:
    if not condition:
        raise OSError(0, what)


def in_root(tmp_path, function, options: str | None = "newinstance,ptmxmode=0666,mode=0620"):
    """Call `function(root_fd)` in a child with a root of its own, /dev/pts in it a new devpts."""

    def child() -> None:
        enter("user", "mount")
        mounts.set_propagation("/", MS_PRIVATE | MS_REC)
        root = str(tmp_path)
        syscalls.mount("tmpfs", root, "tmpfs", 0, None)
        os.makedirs(f"{root}/dev/pts")
        if options is not None:
            syscalls.mount("devpts", f"{root}/dev/pts", "devpts", 0, options)
        function(os.open(root, os.O_PATH))

    in_child(child)


@pytest.mark.rootless
def test_pty_is_the_containers(tmp_path):
    def use(root_fd: int) -> None:
        master, slave, name = pty.open_pty(root_fd)
        say(name == "/dev/pts/0", f"{name} is not the first of a new devpts")
        there = os.stat(f"{tmp_path}{name}")
        say(os.fstat(slave).st_rdev == there.st_rdev, "the slave is not the one of that name")
        say(os.fstat(slave).st_ino == there.st_ino, "the slave is not the one of that name")
        os.write(slave, b"out\n")
        say(os.read(master, 9) == b"out\r\n", "the master does not read what the slave printed")
        os.write(master, b"in\n")
        say(os.read(slave, 9) == b"in\n", "the slave does not read what was typed")
        for fd in (master, slave):
            say(not os.get_inheritable(fd), "would be inherited through exec")

    in_root(tmp_path, use)


@pytest.mark.rootless
def test_controlling_terminal_gets_ctrl_c(tmp_path):
    def use(root_fd: int) -> None:
        master, slave, _ = pty.open_pty(root_fd)
        read_fd, write_fd = os.pipe()
        pid = os.fork()
        if pid == 0:
            syscalls.setsid()
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            pty.become_terminal(slave, uid=0)
            os.write(write_fd, b"x" if os.ttyname(0) and os.tcgetpgrp(0) == os.getpid() else b"-")
            os._exit(42 if signal.sigwait([signal.SIGINT]) == signal.SIGINT else 1)
        os.close(slave)
        say(os.read(read_fd, 1) == b"x", "no controlling terminal")
        os.write(master, b"\x03")
        status = os.waitpid(pid, 0)[1]
        say(os.waitstatus_to_exitcode(status) == 42, "Ctrl-C was no SIGINT")

    # /dev/tty and the name of the terminal are looked up in /dev/pts
    in_root(tmp_path, lambda fd: (syscalls.mount(f"{tmp_path}/dev/pts", "/dev/pts", None,
                                                 syscalls.MS_BIND, None), use(fd)))  # fmt: skip


@pytest.mark.rootless
def test_console_is_bound_without_a_path(tmp_path):
    def use(root_fd: int) -> None:
        master, slave, _ = pty.open_pty(root_fd)
        os.symlink("/etc/passwd", f"{tmp_path}/dev/trap")
        mountfd.bind_in_root(root_fd, slave, "/dev/console", 0)
        console = os.open(f"{tmp_path}/dev/console", os.O_RDWR | os.O_NOCTTY)
        os.write(console, b"hello")
        say(os.read(master, 5) == b"hello", "/dev/console is not the slave")

    in_root(tmp_path, use)


@pytest.mark.rootless
@pytest.mark.parametrize("trap", ["no devpts", "symlink to the host's", "file", "pts symlink"])
def test_hostile_root_gets_no_pty(tmp_path, trap):
    def use(root_fd: int) -> None:
        dev = f"{tmp_path}/dev"
        if trap == "no devpts":
            os.mkfifo(f"{dev}/pts/ptmx")  # opening it would hang
        else:
            os.rmdir(f"{dev}/pts")
            if trap == "file":
                os.close(os.open(f"{dev}/pts", os.O_CREAT))
            else:
                os.symlink("/dev/pts" if "host" in trap else "../../../../dev/pts", f"{dev}/pts")
        try:
            pty.open_pty(root_fd)
        except OSError as error:
            say(error.errno in (errno.ENOTTY, errno.ELOOP, errno.ENOTDIR), f"{error}")
            return
        raise OSError(0, "made a pty of a stranger's choice")

    in_root(tmp_path, use, options=None)


@pytest.mark.rootless
def test_ptmx_without_permission_says_what_to_do(tmp_path):
    def use(root_fd: int) -> None:
        # CAP_DAC_OVERRIDE would open a ptmx of mode 0000 all the same
        from minicontainer.kernel import capabilities

        capabilities.set_all(0, 0, 0)
        try:
            pty.open_pty(root_fd)
        except PermissionError as error:
            say("ptmxmode=0666" in str(error), f"{error}")
            return
        raise OSError(0, "opened")

    in_root(tmp_path, use, options="newinstance")


def test_master_goes_to_the_console_socket(tmp_path):
    path = str(tmp_path / "console.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        connection = pty.connect_console(path)
        assert not os.get_inheritable(connection)
        master, slave = os.openpty()
        pty.send_console(connection, master, "/dev/pts/7")
        os.close(master)
        os.close(connection)
        manager, _ = listener.accept()
        with manager:
            message, (fd,), _, _ = socket.recv_fds(manager, 100, 1)
            assert manager.recv(1) == b""
    assert message == b"/dev/pts/7"
    pty.set_size(fd, 33, 77)
    assert os.get_terminal_size(slave) == (77, 33)
    os.close(fd)
    os.close(slave)


@pytest.mark.parametrize("name", ["missing", "x" * 120])
def test_console_socket_that_is_not_there(tmp_path, name):
    with pytest.raises(OSError, match="connect") as caught:
        pty.connect_console(str(tmp_path / name))
    assert caught.value.errno in (errno.ENOENT, errno.ENAMETOOLONG)


# --- raw mode and the relay -------------------------------------------------------------------


@pytest.fixture
def terminal():
    """(master, slave) that stand for the user's own terminal."""
    ends = os.openpty()
    yield ends
    for fd in ends:
        os.close(fd)


def test_raw_is_cfmakeraw_and_restored(terminal):
    _, slave = terminal
    before = pty.raw(slave)
    iflag, oflag, _, lflag, *_ = termios.tcgetattr(slave)
    assert not lflag & (termios.ICANON | termios.ECHO | termios.ISIG)
    assert not oflag & termios.OPOST
    assert not iflag & termios.ICRNL
    done = subprocess.run(["stty", "-a"], stdin=slave, capture_output=True, text=True)
    assert {"-icanon", "-echo", "-isig", "-opost", "cs8"} <= set(
        done.stdout.replace(";", "").split()
    )
    pty.restore(slave, before)
    assert termios.tcgetattr(slave) == before


class Relay(threading.Thread):
    """A relay between a stand-in for the user's terminal and a stand-in for a container's."""

    def __init__(self, stdin: int, stdout: int, **more) -> None:
        super().__init__(daemon=True)
        self.master, self.slave = os.openpty()
        attributes = termios.tcgetattr(self.slave)
        attributes[1] &= ~termios.OPOST
        attributes[3] &= ~(termios.ECHO | termios.ICANON | termios.ISIG)
        termios.tcsetattr(self.slave, termios.TCSANOW, attributes)
        self._arguments = (self.master, stdin, stdout), more
        self.start()

    def run(self) -> None:
        arguments, more = self._arguments
        pty.relay(*arguments, **more)

    def end(self) -> None:
        os.close(self.slave)
        self.join(20)
        assert not self.is_alive()
        os.close(self.master)


def read_exactly(fd: int, count: int) -> bytes:
    data = b""
    while len(data) < count and (chunk := os.read(fd, count - len(data))):
        data += chunk
    return data


def test_relay_carries_both_ways_and_restores(terminal):
    ours, tty = terminal
    pty.set_size(ours, 40, 100)
    before = termios.tcgetattr(tty)
    relay = Relay(tty, tty)
    os.write(relay.slave, b"from inside\n")
    assert read_exactly(ours, 12) == b"from inside\n"  # raw: no carriage return added twice
    assert os.get_terminal_size(relay.slave) == (100, 40)
    os.write(ours, b"typed\x03")
    assert read_exactly(relay.slave, 6)[:5] == b"typed"
    relay.end()
    assert termios.tcgetattr(tty) == before


def test_relay_follows_the_window_and_forwards_signals(terminal):
    ours, tty = terminal
    read_fd, write_fd = os.pipe()
    forwarded: list[int] = []
    relay = Relay(tty, tty, signals_fd=read_fd, forward=forwarded.append)
    pty.set_size(ours, 11, 22)
    os.write(write_fd, bytes([signal.SIGWINCH, signal.SIGTERM]))
    os.write(relay.slave, b"x")
    assert os.read(ours, 1) == b"x"
    relay.end()
    assert os.get_terminal_size(tty) == (22, 11)
    assert forwarded == [signal.SIGTERM]
    os.close(read_fd)
    os.close(write_fd)


def test_neither_direction_holds_up_the_other():
    """A program that does not read, and is typed at, still prints; all arrives in order."""
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    relay = Relay(in_read, out_write)
    typing = threading.Thread(target=lambda: os.write(in_write, b"k" * 200_000), daemon=True)
    typing.start()
    printed = os.urandom(300_000)
    printing = threading.Thread(target=lambda: [
        os.write(relay.slave, printed[i : i + 1000]) for i in range(0, len(printed), 1000)
    ], daemon=True)  # fmt: skip
    printing.start()
    assert read_exactly(out_read, len(printed)) == printed
    assert read_exactly(relay.slave, 200_000) == b"k" * 200_000
    typing.join(20)
    os.close(in_write)  # end of input does not end the relay
    os.write(relay.slave, b"still here")
    assert read_exactly(out_read, 10) == b"still here"
    relay.end()
    for fd in (in_read, out_read, out_write):
        os.close(fd)


def test_relay_restores_after_an_exception(terminal):
    _, tty = terminal
    before = termios.tcgetattr(tty)
    read_fd, write_fd = os.pipe()
    os.write(write_fd, bytes([signal.SIGTERM]))
    master, slave = os.openpty()

    def fail(number: int) -> None:
        raise KeyboardInterrupt(number)

    with pytest.raises(KeyboardInterrupt):
        pty.relay(master, tty, tty, read_fd, fail)
    assert termios.tcgetattr(tty) == before
    for fd in (read_fd, write_fd, master, slave):
        os.close(fd)


def test_modules_that_it_loads_are_few():
    script = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); import minicontainer.cli\n"
        "before = set(sys.modules); import minicontainer.kernel.pty\n"
        "print(*set(sys.modules) - before)"
    )
    command = [sys.executable, "-I", "-S", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {
        "minicontainer.kernel.pty", "minicontainer.kernel.rights", "_socket", "termios", "select",
    }  # fmt: skip


def test_ioctl_numbers_are_pythons_own():
    assert syscalls.TIOCSCTTY == termios.TIOCSCTTY
    master, slave = os.openpty()
    number = struct.unpack("i", fcntl.ioctl(master, syscalls.TIOCGPTN, b"\0" * 4))[0]
    assert os.ttyname(slave) == f"/dev/pts/{number}"
    assert syscalls.ioctl_int(master, syscalls.TIOCGPTN, 0) == number
    os.close(master)
    os.close(slave)
