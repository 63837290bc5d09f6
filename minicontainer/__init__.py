"""minicontainer: a container you can read.

    import minicontainer
    minicontainer.run("rootfs", ["echo", "hello"])

The library's face is loaded at first use: the command line must not pay for it.
"""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = [
    "CommandFailed",
    "ContainerError",
    "Result",
    "explain",
    "helper_start",
    "helper_stop",
    "run",
]

TYPE_CHECKING = False  # as in typing, which costs a start 3 ms
if TYPE_CHECKING:
    from .client import CommandFailed, Result, explain, helper_start, helper_stop, run
    from .runtime.errors import ContainerError


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module 'minicontainer' has no attribute {name!r}")
    from . import client

    return getattr(client, name)


def __dir__() -> list[str]:
    return __all__
