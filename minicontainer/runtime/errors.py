"""The one exception that a user of a container sees, and docker's exit codes for it."""

from __future__ import annotations

import os

# docker run --help, "Exit status": 125 the runtime itself failed, 126 the command could not be
# invoked, 127 it was not found, 128+n it died of signal n.
RUNTIME_FAILED, NOT_EXECUTABLE, NOT_FOUND, SIGNALLED = 125, 126, 127, 128


class ContainerError(Exception):
    """A container could not be built or its command not be started.

    message    what failed, where, with the kernel's own words for the errno
    hint       how to fix it, or ""
    step       name of the plan's step that failed, or "" before the plan began
    errno      the kernel's number, or 0
    exit_code  125, 126 or 127
    """

    def __init__(
        self, message: str, *, hint: str = "", step: str = "", errno: int = 0,
        exit_code: int = RUNTIME_FAILED,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.step = step
        self.errno = errno
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.message}\n  fix: {self.hint}" if self.hint else self.message


class NoSuchContainer(ContainerError):
    """The id is nobody's; perhaps the container was deleted just now."""


def kernel_words(number: int) -> str:
    """strerror(3) in lower case: podman and docker recognise errors by these words."""
    return os.strerror(number).lower()
