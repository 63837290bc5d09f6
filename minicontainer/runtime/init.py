"""The container's side of a start: PID 1 from the fork to the exec. It never returns.

After pivot_root every file is the stranger's, Python's library included, so nothing may be imported
from here on: the import system is emptied first.
"""

from __future__ import annotations

import errno
import os
import sys
from time import monotonic_ns

from ..kernel import syscalls, userns
from . import report
from .steps import Context, Exec


def run(plan, report_fd: int, alive_fd: int, stdio, trace: bool) -> None:
    """Apply the plan's steps that belong to init, then become the command.

    plan       the whole plan; steps with `where` "parent" are done already
    report_fd  write end of the pipe of `report`, close-on-exec
    alive_fd   read end of a pipe that the parent holds open while it lives
    stdio      the three descriptors that become 0, 1 and 2
    trace      report each step and each system call with its times
    """
    number = 0
    try:
        sys.path.clear()
        sys.meta_path.clear()
        _place_stdio(stdio)
        context = Context(alive_fd)
        context.report_fd = report_fd
        calls: list[bytes] = []
        if trace:
            syscalls.trace = lambda text, result, start, end: calls.append(
                report.encode("call", number, text, result, start, end)
            )
        for number, step in enumerate(plan, 1):
            if step.where != "init":
                continue
            start = monotonic_ns()
            if trace and isinstance(step, Exec):  # no word comes back from a successful exec
                os.write(report_fd, report.encode("step", number, start, start))
            step.apply(context)
            if trace:
                calls.append(report.encode("step", number, start, monotonic_ns()))
                os.write(report_fd, b"".join(calls))
                calls.clear()
    except OSError as error:
        call = error.strerror or ""
        os.write(
            report_fd,
            report.encode("error", number, error.errno, call, hint(plan[number - 1], error)),
        )
    except BaseException as error:  # a bug of ours: the parent prints it, whatever it is
        os.write(report_fd, report.encode("error", number, 0, f"internal error: {error!r}", ""))
    finally:
        os._exit(125)


def _place_stdio(stdio) -> None:
    # Out of the way first: a source may have a number that is the target of another one.
    high = [os.dup(fd) if fd < 3 else fd for fd in stdio]
    for target, fd in enumerate(high):
        os.dup2(fd, target, inheritable=True)


def hint(step, error: OSError) -> str:
    """What to do about a failed step: the kernel's errno alone often misleads."""
    number = error.errno or 0
    if isinstance(step, Exec):
        return _exec_hint(step, number)
    if step.name.startswith(("unshare", "map ids")):
        if number in (errno.EPERM, errno.EACCES):
            return userns.why_denied() or (
                "namespaces are forbidden here (inside another container?): "
                "run as root, or `minicontainer doctor` for details"
            )
        if number == errno.ENOSPC:
            return "a limit of namespaces is reached: raise /proc/sys/user/max_*_namespaces"
        if number == errno.EINVAL:
            return "this kernel has not all of these namespaces: `minicontainer doctor` lists them"
    if step.name == "mount /proc" and number == errno.EPERM:
        return (
            "the kernel gives a fresh /proc only to those who see all of one: this host covers "
            "parts of /proc, as docker and podman do (they need --security-opt unmask=ALL)"
        )
    if number == errno.EROFS:
        return "the root file system is read-only and lacks that directory: make it there first"
    if number == errno.ENOSPC:
        return "the disk is full (or a limit of mounts: /proc/sys/fs/mount-max)"
    if step.name == "working directory":
        return "the directory must exist in the root file system: --workdir names it"
    if number in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP) and step.name.startswith("mount"):
        return "the root file system has something else there (a file, or a link to nowhere)"
    return ""


def _exec_hint(step: Exec, number: int) -> str:
    if number == errno.ENOENT and any(os.path.lexists(path) for path in step.candidates()):
        return (
            "the file is there; what is missing in the root is its interpreter: the #! line's, "
            "or the dynamic loader (see `file`, `ldd`; lesson 02)"
        )
    if number == errno.ENOENT:
        return "the command is looked for in the container's root file system, not on the host"
    if number == errno.EACCES:
        return "it must be a regular file with execute permission (chmod +x), on no noexec mount"
    if number == errno.ENOEXEC:
        return "it is neither a program for this machine nor a script with a #! line"
    return ""
