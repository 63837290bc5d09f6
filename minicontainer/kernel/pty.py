"""Pseudo-terminals (pty(7)): a terminal for a program that has no screen.

Two ends: what is written to the master appears as typed at the slave, which the container has as
its terminal; what it prints is read from the master. Loaded only for `run -t` and `terminal: true`;
Python's own `pty` and `tty` would not be slow, but open by path, as no container's path deserves.
"""

from __future__ import annotations

import _signal as signal
import _socket
import errno
import os
import select
import termios

from . import rights, syscalls
from .mounts import open_in_root
from .syscalls import DEVPTS_SUPER_MAGIC, TIOCGPTN, TIOCGPTPEER, TIOCSCTTY, TIOCSPTLCK


def open_pty(root_fd: int) -> tuple[int, int, str]:
    """A new pty of the container whose root is `root_fd`: (master, slave, the slave's path inside).

    In a stranger's root /dev/ptmx may be any file. So the directory is opened inside the root and
    has to be a devpts; in there the kernel alone makes names. The slave is not opened by its name
    at all, but asked from the master (TIOCGPTPEER, ioctl_tty(2)).
    """
    directory = open_in_root(root_fd, "/dev/pts", os.O_PATH | os.O_DIRECTORY)
    try:
        if syscalls.fstatfs(directory) != DEVPTS_SUPER_MAGIC:
            raise OSError(errno.ENOTTY, "/dev/pts in the container is no devpts: mount one there")
        master = os.open("ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=directory)
    except PermissionError:
        text = "open('/dev/pts/ptmx'): mount the devpts with ptmxmode=0666"
        raise PermissionError(errno.EACCES, text) from None
    finally:
        os.close(directory)
    try:
        syscalls.ioctl_int(master, TIOCSPTLCK, 0)
        number = syscalls.ioctl_int(master, TIOCGPTN, 0)
        slave = syscalls.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        os.close(master)
        raise
    return master, slave, f"/dev/pts/{number}"


def become_terminal(slave: int, uid: int = -1) -> None:
    """Make the slave the controlling terminal of this session and 0, 1 and 2 of this process.

    Call setsid(2) first. `uid` is to own it, so that the command can open it again by its name.
    """
    syscalls.ioctl(slave, TIOCSCTTY, 0)
    if uid >= 0:
        os.fchown(slave, uid, -1)
    for fd in (0, 1, 2):
        os.dup2(slave, fd, inheritable=True)
    if slave > 2:
        os.close(slave)


def set_size(fd: int, rows: int, columns: int) -> None:
    """Tell the programs on the terminal its size; the foreground ones get a SIGWINCH."""
    termios.tcsetwinsize(fd, (rows, columns))


def connect_console(path: str) -> int:
    """Connect to `--console-socket`, on which a container's manager waits for the master."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        connection.connect(path)
    except OSError as error:
        # A path longer than 107 bytes has no errno of its own.
        raise OSError(error.errno or errno.ENAMETOOLONG, f"connect({path!r}): {error}") from None
    return connection.detach()


def send_console(connection: int, master: int, name: str) -> None:
    """Give the master away as runc does: one message, the pty's name with the descriptor."""
    end = _socket.socket(fileno=connection)
    try:
        rights.send(end, name.encode(), [master])
    finally:
        end.detach()


def raw(fd: int) -> list:
    """Pass every key on as it is, Ctrl-C too (cfmakeraw(3)); returns what `restore` wants."""
    before = termios.tcgetattr(fd)
    iflag, oflag, cflag, lflag, ispeed, ospeed, cc = before
    iflag &= ~(termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR
               | termios.IGNCR | termios.ICRNL | termios.IXON)  # fmt: skip
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    cc = [*cc]
    cc[termios.VMIN], cc[termios.VTIME] = 1, 0
    termios.tcsetattr(
        fd, termios.TCSADRAIN, [iflag, oflag & ~termios.OPOST, cflag, lflag, ispeed, ospeed, cc]
    )
    return before


def restore(fd: int, before: list) -> None:
    """Undo `raw`."""
    try:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
    except termios.error:
        return  # the terminal is gone: nobody misses it


def relay(master: int, stdin: int, stdout: int, signals_fd: int = -1, forward=None) -> None:
    """Carry bytes between our terminal and the container's until the container's side closes.

    signals_fd  the pipe of signal.set_wakeup_fd; SIGWINCH is answered here, every other number goes
                to `forward(number)`
    When stdin is a terminal it is raw meanwhile and restored at the end, also after an exception.
    Neither direction can hold up the other one: a program that does not read may still print.
    """
    terminal = os.isatty(stdin)
    before = raw(stdin) if terminal else []
    try:
        if terminal:
            set_size(master, *termios.tcgetwinsize(stdin))
        os.set_blocking(master, False)
        _relay(master, stdin, stdout, signals_fd, forward, terminal)
    finally:
        if terminal:
            restore(stdin, before)


def _relay(master: int, stdin: int, stdout: int, signals_fd: int, forward, terminal: bool) -> None:
    typed, printed = b"", b""  # read, and not yet written
    reading = True  # stdin
    while True:
        wanted: dict[int, int] = {}  # stdin and stdout may be one descriptor
        for fd, event, when in (
            (stdin, select.POLLIN, reading and not typed),
            (stdout, select.POLLOUT, printed),
            (master, select.POLLIN, not printed),
            (master, select.POLLOUT, typed),
            (signals_fd, select.POLLIN, signals_fd >= 0),
        ):
            if when:
                wanted[fd] = wanted.get(fd, 0) | event
        poll = select.poll()
        for fd, events in wanted.items():
            poll.register(fd, events)
        ready = dict(poll.poll())
        if signals_fd in ready:
            for number in os.read(signals_fd, 64):
                if number == signal.SIGWINCH and terminal:
                    set_size(master, *termios.tcgetwinsize(stdin))
                elif forward:
                    forward(number)
        if ready.get(master, 0) & select.POLLHUP:
            typed, reading = b"", False  # nobody is left to read it
        if reading and not typed and ready.get(stdin, 0) & ~select.POLLOUT:
            typed = _read(stdin)
            reading = bool(typed)
        if printed and ready.get(stdout, 0) & ~select.POLLIN:
            printed = printed[_write(stdout, printed) :]
        elif not printed and ready.get(master, 0) & (select.POLLIN | select.POLLHUP):
            printed = _read(master)
            if not printed:
                return
        if typed and ready.get(master, 0) & select.POLLOUT:
            typed = typed[_write(master, typed) :]


def _read(fd: int) -> bytes:
    """What is there; b"" at the end, which a master reports as EIO: no slave is open any more."""
    try:
        return os.read(fd, 65536)
    except OSError as error:
        if error.errno == errno.EIO:
            return b""
        raise


def _write(fd: int, data: bytes) -> int:
    try:
        # A pipe that poll says can be written takes this much at once, pipe(7).
        return os.write(fd, data[: select.PIPE_BUF])
    except BlockingIOError:
        return 0
