"""The two ends of a lesson: a fresh workbench, and the proof that nothing is left of it."""

from __future__ import annotations

import sys

from . import leaks, workbench
from .recordings import LessonWorkbench
from .workbench_limits import CGROUP_PREFIX

_bench: LessonWorkbench | None = None
_before: leaks.Snapshot | None = None


def start(lesson: str) -> LessonWorkbench:
    """A fresh workbench for a lesson; what an earlier run of this cell started is thrown away."""
    global _bench, _before
    if _bench is not None:
        _bench.close()
    if _before is None:
        _before = leaks.snapshot()
    _bench = LessonWorkbench(lesson)
    _bench.reset()
    print(f"lesson {lesson}: a fresh workbench. You are root in it; nothing in it is your machine.")
    return _bench


def finish() -> None:
    """End the workbench, then look at the machine: print what is left over of the lesson."""
    if _bench is not None:
        _bench.close()
    if "minicontainer.client" in sys.modules:
        sys.modules["minicontainer.client"].helper_stop()
    if _before is None:
        print("nothing was started: run the lesson's first cells")
        return
    left = leaks.settled(_before, concerns=is_of_lessons)
    print("\n".join(["left over:", *left]) if left else "nothing is left over on your machine")


def is_of_lessons(words: str) -> bool:
    """Whether a leftover can come from a workbench, on a machine that others use meanwhile.

    What is surely ours by descent, and the cgroups of our keepers. Mounts, links and files of a
    workbench are in namespaces that its processes hold, so one on the machine is somebody else's.
    """
    if words.startswith(("process ", "namespace ")):
        return not words.endswith(leaks.ORPHAN)
    return any(words.endswith(f"{CGROUP_PREFIX}{pid}") for pid in workbench.started)
