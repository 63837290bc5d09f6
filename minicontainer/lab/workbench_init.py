"""The inside of the workbench: a host made of namespaces, and the process that is its PID 1.

`workbench.Workbench` runs `keep` in a `python -I -S`. Two processes come of it:

keeper  outside: lends the host's programs, starts init and maps its ids, cleans up after its end
init    inside: builds the host, then forks a child for each request on its socket

init is root in a user namespace of its own, and outside nobody: the ordinary user that started it,
or, for root, an id that owns nothing. So whatever a cell tries, the kernel asks for rights that it
does not have (user_namespaces(7)). Two more walls come with it: what the keeper lends read-only
cannot be made writable (mount_namespaces(7), "Restrictions"), nor can a group's limit be lifted.

When the notebook's process ends, however it ends, the socket closes and init exits; when init
ends, the kernel kills all that is in its pid namespace, and with the last process the namespaces
go, with every mount and link in them (namespaces(7)). So nothing has to be undone by name.

A request is one SOCK_SEQPACKET message with two descriptors, see `workbench_child.work`; its JSON
has a "timeout" in seconds. init answers {"status": exit status, "timed_out": bool} when the child
has ended. An empty JSON object kills whatever runs. {"failed": text} says why init gave up.
"""

from __future__ import annotations

import _signal as signal
import contextlib
import errno
import json
import os
import select
import socket
import time
import traceback

from ..kernel import cgroups, namespaces, syscalls, userns
from . import workbench_child, workbench_host, workbench_limits
from .workbench_limits import write

FIRST_PID = 2  # each request's process gets it, or the next one that is free


# Of no user on any host: beyond what distributions, systemd and /etc/subuid give away
# (systemd's UIDS-GIDS.md). A namespace that lacks it, as in LXC, has a last one to spare.
NOBODYS_ID = 2_000_000_000

# --- the keeper ---------------------------------------------------------------------------------


def keep(fd: int, package: str, busybox: str) -> None:
    """Start init and wait for its end. `fd`: the socket that init serves."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the caller's business
    connection = socket.socket(fileno=fd)
    group = cgroups.Group([])
    try:
        rootless = os.geteuid() != 0
        if not rootless:
            must_be_readable(package)
        group, limited = workbench_limits.make_group()
        enter_to_mount(rootless)
        workbench_host.lend(package)
        owner = 0 if rootless else unused_id()
        pid, mapped = start_init(connection, busybox, group, limited)
        # A Jupyter kernel that ends sends this to its children. The group must go all the same.
        signal.signal(signal.SIGTERM, lambda *_: end(pid, group))
        connection.close()
        if owner:
            workbench_limits.hand_over(group, owner)
        ids = [{"containerID": 0, "hostID": owner, "size": 1}]
        userns.write_maps(pid, ids, ids)
        os.close(mapped)
        os.waitpid(pid, 0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except OSError as error:
        tell(connection, failed=failure(error))
    finally:
        workbench_limits.remove(group)
        os._exit(0)


def end(pid: int, group: cgroups.Group) -> None:
    os.kill(pid, signal.SIGKILL)
    workbench_limits.thaw_group(group)


def must_be_readable(package: str) -> None:
    """Root may read its own clone under any umask; the workbench's root is nobody out here."""
    if not os.stat(os.path.join(package, "__init__.py")).st_mode & 0o004:
        fix = f"chmod -R go+rX {package}"
        raise OSError(errno.EACCES, f"others than root cannot read {package}\n  fix: {fix}")


def enter_to_mount(rootless: bool) -> None:
    """A mount namespace for what we lend; a user namespace before it, where we are not root."""
    uid, gid = os.geteuid(), os.getegid()
    namespaces.unshare(["user", "mount"] if rootless else ["mount"])
    if rootless:
        userns.write_single_id_map(0, uid, 0, gid)


def unused_id() -> int:
    """An id of this user namespace that owns nothing: `NOBODYS_ID`, else the last one."""
    with open("/proc/self/uid_map") as uids, open("/proc/self/gid_map") as gids:
        maps = [[line.split() for line in file] for file in (uids, gids)]
    return min(NOBODYS_ID, *(max(int(row[0]) + int(row[2]) for row in rows) - 1 for rows in maps))


def start_init(
    connection: socket.socket, busybox: str, group: cgroups.Group, limited: bool
) -> tuple[int, int]:
    """init's pid, and the descriptor that it waits for: closed when its ids are mapped.

    Returns when init is in the group, by the right of the one who made it.
    """
    entered, say_entered = os.pipe()
    mapped, say_mapped = os.pipe()
    pid = group.fork(namespaces.flags(["user", "pid"]))
    if pid == 0:
        try:
            group.enter()
            for fd in (entered, say_entered, say_mapped):
                os.close(fd)
            os.read(mapped, 1)
            os.close(mapped)
            become_root()
        except OSError as error:
            tell(connection, failed=failure(error))
            os._exit(1)
        init(connection, busybox, group, limited)
    for fd in (mapped, say_entered):
        os.close(fd)
    os.read(entered, 1)
    os.close(entered)
    return pid, say_mapped


def become_root() -> None:
    """Take the ids of the new user namespace; the keys and groups of outside are not for inside."""
    with contextlib.suppress(OSError):  # a kernel without keys, or an outer container forbids it
        syscalls.keyctl(syscalls.KEYCTL_JOIN_SESSION_KEYRING, None)
    if os.getuid() != 0:
        os.setgroups([])
        syscalls.setresgid(0, 0, 0)
        syscalls.setresuid(0, 0, 0)
        # For the kernel a change of ids makes a secret of the process: /proc/1/root would be closed
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)


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


def init(connection: socket.socket, busybox: str, group: cgroups.Group, limited: bool) -> None:
    """PID 1 of the workbench. Never returns."""
    try:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        workbench_limits.limit_processes_of_user()
        namespaces.unshare(["mount", "network", "ipc", "uts", "cgroup"])
        workbench_host.build(busybox, group)
        workbench_host.import_from_inside()
        workbench_limits.be_leaf_of_v2()
        syscalls.sethostname(workbench_host.HOSTNAME)
        syscalls.set_interface_up("lo")
        tell(connection, ready=True, limit="cgroup" if limited else "rlimit")
        serve(connection)
    except OSError as error:
        tell(connection, failed=failure(error))
    except BaseException:  # a bug of ours: the notebook shows it instead of waiting for ever
        tell(connection, failed=f"internal error: {traceback.format_exc()}")
    finally:
        kill_all()
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
    """Kill every process of the workbench but PID 1, frozen ones too; kill(2) misses no fork."""
    try:
        os.kill(-1, signal.SIGKILL)
    except ProcessLookupError:
        pass
    workbench_limits.thaw("/sys/fs/cgroup/freezer")
