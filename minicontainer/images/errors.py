"""The exception of everything that concerns images."""

from __future__ import annotations

from ..runtime.errors import RUNTIME_FAILED, ContainerError


class ImageError(ContainerError):
    """An image is missing, damaged, hostile, or cannot be had.

    message    what failed: the image, layer and entry, and why
    hint       how to fix it, or ""
    exit_code  docker's: 125, unless something else is said

    Strangers' names and texts are in it: what is not printable is shown escaped.
    """

    def __init__(self, message: str, hint: str = "", exit_code: int = RUNTIME_FAILED) -> None:
        shown = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in message)
        super().__init__(shown, hint=hint, exit_code=exit_code)
