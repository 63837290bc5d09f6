"""What a failed step becomes: an error with the step's name, docker's exit code, and a fix."""

from __future__ import annotations

import errno
import os

from ..kernel import userns
from .errors import NOT_EXECUTABLE, NOT_FOUND, RUNTIME_FAILED, ContainerError, kernel_words
from .steps_process import Exec


def failure(plan, number: int, code: int, text: str, advice: str) -> ContainerError:
    """The error for step `number` (from 1) of the plan; code 0 stands for one without a number."""
    step = plan[number - 1]
    if isinstance(step, Exec):
        return exec_failure(step, code, advice)
    reason = f"{kernel_words(code)}: " if code else ""
    return ContainerError(
        f"step {number} of {len(plan)}, {step.name}: {reason}{text}",
        hint=advice, step=step.name, errno=code,
    )  # fmt: skip


def exec_failure(step: Exec, code: int, advice: str) -> ContainerError:
    """In docker's words, by which podman and docker tell 126 from 127."""
    missing = code in (errno.ENOENT, errno.ENOTDIR)
    reason = kernel_words(code) if code else "internal error"
    if missing and "/" not in step.args[0] and "interpreter" not in advice:
        reason = "executable file not found in $PATH"
    return ContainerError(
        f'exec: "{step.args[0]}": {reason}', hint=advice, step=step.name, errno=code,
        exit_code=NOT_FOUND if missing else NOT_EXECUTABLE if code else RUNTIME_FAILED,
    )  # fmt: skip


def hint(step, error: OSError) -> str:
    """What to do about a failed step: the kernel's errno alone often misleads."""
    number = error.errno or 0
    if isinstance(step, Exec):
        return _exec_hint(step, number)
    if step.name.startswith(("unshare", "clone", "map ids")):
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
