"""What a failed step becomes: an error with the step's name, docker's exit code, and a fix."""

from __future__ import annotations

from .errors import NOT_EXECUTABLE, NOT_FOUND, RUNTIME_FAILED, ContainerError, kernel_words
from .steps import Exec


def failure(plan, number: int, errno: int, text: str, advice: str) -> ContainerError:
    """The error for step `number` (from 1) of the plan; errno 0 stands for one without a number."""
    step = plan[number - 1]
    if isinstance(step, Exec):
        return exec_failure(step, errno, advice)
    reason = f"{kernel_words(errno)}: " if errno else ""
    return ContainerError(
        f"step {number} of {len(plan)}, {step.name}: {reason}{text}",
        hint=advice, step=step.name, errno=errno,
    )  # fmt: skip


def exec_failure(step: Exec, errno: int, advice: str) -> ContainerError:
    """In docker's words, by which podman and docker tell 126 from 127."""
    missing = errno in (2, 20)  # ENOENT, ENOTDIR
    reason = kernel_words(errno) if errno else "internal error"
    if missing and "/" not in step.args[0] and "interpreter" not in advice:
        reason = "executable file not found in $PATH"
    return ContainerError(
        f'exec: "{step.args[0]}": {reason}', hint=advice, step=step.name, errno=errno,
        exit_code=NOT_FOUND if missing else NOT_EXECUTABLE if errno else RUNTIME_FAILED,
    )  # fmt: skip
