"""The inside of the workbench: a host made of namespaces, and the process that is its PID 1.

`workbench.Workbench` runs `keep` in a `python -I -S`. Two processes come of it:

keeper  outside: makes the user and pid namespaces, waits for init, removes the cgroup after it
init    inside: builds the host, then forks a child for each request on its socket

When the notebook's process ends, however it ends, the socket closes and init exits; when init
ends, the kernel kills all that is in its pid namespace, and with the last process the namespaces
go, with every mount and link in them (namespaces(7)). So nothing has to be undone by name.

A request is one SOCK_SEQPACKET message with two descriptors, see `workbench_child.work`; its JSON
has a "timeout" in seconds. init answers {"status": exit status, "timed_out": bool} when the child
has ended. An empty JSON object kills whatever runs. {"failed": text} says why init gave up.
"""

from __future__ import annotations

import _signal as signal
import errno
import json
import os
import select
import socket
import time
import traceback

from ..kernel import namespaces, syscalls, userns
from . import workbench_child, workbench_host, workbench_limits
from .workbench_limits import write

FIRST_PID = 2  # each request's process gets it, or the next one that is free


# --- the keeper ---------------------------------------------------------------------------------


def keep(fd: int, package: str, busybox: str) -> None:
    """Start init and wait for its end. `fd`: the socket that init serves."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the caller's business
    connection = socket.socket(fileno=fd)
    cgroup = workbench_limits.make_cgroup()
    try:
        rootless = os.geteuid() != 0
        workbench_limits.limit_processes_of_user(rootless)
        enter_for_children(rootless)
        pid = os.fork()
        if pid == 0:
            init(connection, package, busybox, cgroup)
        # A Jupyter kernel that ends sends this to its children. The cgroup must go all the same.
        signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGKILL))
        connection.close()
        os.waitpid(pid, 0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except OSError as error:
        tell(connection, failed=failure(error))
    finally:
        if cgroup:
            workbench_limits.remove_cgroup(cgroup)
        os._exit(0)


def enter_for_children(rootless: bool) -> None:
    """Unshare what takes effect for children: user (root inside, yourself outside) and pid."""
    uid, gid = os.geteuid(), os.getegid()
    namespaces.unshare(["user", "pid"] if rootless else ["pid"])
    if rootless:
        userns.write_single_id_map(0, uid, 0, gid)


def failure(error: OSError) -> str:
    """What could not be done, and what to do about it."""
    text = f"the workbench cannot be built: {os.strerror(error.errno or 0)}: {error.strerror}"
    if error.errno in (errno.EPERM, errno.EACCES):
        fix = userns.why_denied() or "run as root, or `minicontainer doctor` for the reason"
        return f"{text}\n  fix: {fix}"
    if error.errno == errno.ENOSPC:
        return f"{text}\n  fix: a limit of /proc/sys/user/max_*_namespaces is reached; raise it"
    return text


def tell(connection: socket.socket, **answer) -> None:
    try:
        connection.send(json.dumps(answer).encode())
    except OSError:
        os._exit(0)  # nobody listens any more


# --- init ---------------------------------------------------------------------------------------


def init(connection: socket.socket, package: str, busybox: str, cgroup: str) -> None:
    """PID 1 of the workbench. Never returns."""
    try:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        if cgroup:
            write(f"{cgroup}/cgroup.procs", "0")
        namespaces.unshare(["mount", "network", "ipc", "uts", "cgroup"])
        workbench_host.build(package, busybox)
        workbench_host.import_from_inside()
        syscalls.sethostname(workbench_host.HOSTNAME)
        syscalls.set_interface_up("lo")
        workbench_host.drop_capabilities()
        tell(connection, ready=True, limit="cgroup" if cgroup else "rlimit")
        serve(connection)
    except OSError as error:
        tell(connection, failed=failure(error))
    except BaseException:  # a bug of ours: the notebook shows it instead of waiting for ever
        tell(connection, failed=f"internal error: {traceback.format_exc()}")
    finally:
        os._exit(0)


def serve(connection: socket.socket) -> None:
    """Fork a child for each request, reap, keep time; until the notebook's end closes."""
    wakeup = catch_sigchld()
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    poll.register(wakeup, select.POLLIN)
    child, deadline, timed_out = 0, 0.0, False
    while True:
        left = max(0, deadline - time.monotonic()) * 1000 if child and not timed_out else None
        ready = {fd for fd, _ in poll.poll(left)}
        if wakeup in ready:
            os.read(wakeup, 4096)
        if connection.fileno() in ready:
            message, fds, _, _ = socket.recv_fds(connection, workbench_child.MAX_REQUEST, 2)
            if not message:
                return
            request = json.loads(message)
            if not request:
                kill_all()
            else:
                child, timed_out = start(connection, request, fds), False
                deadline = time.monotonic() + request["timeout"]
        if child and not timed_out and time.monotonic() >= deadline:
            timed_out = True
            kill_all()
        for pid, status in reap():
            if pid == child:
                child = 0
                if timed_out:
                    clear_out()
                tell(connection, status=os.waitstatus_to_exitcode(status), timed_out=timed_out)


def catch_sigchld() -> int:
    """Have each SIGCHLD written to a pipe; returns its read end."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return read_fd


def start(connection: socket.socket, request: dict, fds: list[int]) -> int:
    """Fork the child of a request; returns its pid, 0 when there is none."""
    pid = 0
    try:
        pid = fork()
        if pid == 0:
            try:
                connection.close()
                workbench_child.work(request, *fds)
            finally:
                os._exit(125)
    except OSError as error:
        tell(connection, refused=f"no process could be started: {os.strerror(error.errno or 0)}")
    for fd in fds:
        os.close(fd)
    return pid


def fork() -> int:
    """fork(2); where earlier cells left no room for a process, theirs are killed first."""
    try:
        # So that a cell prints the same pid each time; needs CONFIG_CHECKPOINT_RESTORE.
        write("/proc/sys/kernel/ns_last_pid", str(FIRST_PID - 1))
    except OSError:
        pass
    try:
        return os.fork()
    except BlockingIOError:  # EAGAIN: the limit of processes
        clear_out()
        return os.fork()


def reap():
    """(pid, wait status) of each child that has ended; orphans are PID 1's children too."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status


def clear_out() -> None:
    """Kill everything but PID 1, and wait until the last process is buried (or for 2 s)."""
    for _ in range(200):
        kill_all()
        list(reap())
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        time.sleep(0.01)


def kill_all() -> None:
    """Kill every process of the workbench but PID 1; kill(2) with -1 misses no fork."""
    try:
        os.kill(-1, signal.SIGKILL)
    except ProcessLookupError:
        pass
