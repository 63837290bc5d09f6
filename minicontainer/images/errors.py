"""The exception of everything that concerns images."""

from __future__ import annotations

from ..runtime.errors import RUNTIME_FAILED, ContainerError


class ImageError(ContainerError):
    """An image is missing, damaged, hostile, or cannot be had.

    message    what failed: the image, layer and entry, and why
    hint       how to fix it, or ""
    exit_code  docker's: 125, unless something else is said
    """

    def __init__(self, message: str, hint: str = "", exit_code: int = RUNTIME_FAILED) -> None:
        super().__init__(message, hint=hint, exit_code=exit_code)
