"""What the notebooks use: a throwaway host, predictions, checks, hints, progress.

    from minicontainer.lab import check, finish, hint, predict, start
    bench = start("02")

Loaded at first use: the workbench's own processes import this package too, without any of it.
"""

from __future__ import annotations

__all__ = [
    "Workbench",
    "WorkbenchError",
    "check",
    "finish",
    "forget",
    "hint",
    "predict",
    "progress",
    "start",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .exercises import check, hint, predict
    from .lesson import finish, start
    from .progress_file import forget, progress
    from .workbench import Workbench, WorkbenchError


def __getattr__(name: str):
    if name in __all__:
        from . import exercises, lesson, progress_file, workbench

        for module in (exercises, lesson, progress_file, workbench):
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module 'minicontainer.lab' has no attribute {name!r}")
