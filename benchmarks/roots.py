"""The probe and the root trees that `vm-images/build.py` makes: every arm of a run uses these and
no others.
"""

from __future__ import annotations

import os
import subprocess
import sys
from json import load
from typing import Any, TextIO

from benchmarks.arms.base import Skip
from minicontainer.paths import cache_dir

CLONE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(CLONE, "vm-images", "build.py")
FIX = "python -m benchmarks prepare"


def images() -> str:
    return os.path.join(cache_dir(), "vm-images")


def tree(name: str) -> str:
    """The unpacked root tree `busybox` or `debian`, with /probe in it."""
    return os.path.join(images(), "roots", name)


def missing(name: str) -> Skip | None:
    """Why no arm can use this tree yet."""
    if os.access(os.path.join(tree(name), "probe"), os.X_OK):
        return None
    return Skip(f"the {name} root tree with its probe is not built ({tree(name)})", FIX)


def manifest() -> dict[str, Any]:
    """What was built, with checksums of inputs and outputs; empty when nothing was."""
    try:
        with open(os.path.join(images(), "manifest.json"), encoding="utf-8") as file:
            return dict(load(file))
    except FileNotFoundError:
        return {}


def build(json: bool = False, output: TextIO | None = None) -> int:
    """Build what is missing; the recipe says what it does, on `output`. Returns its exit code."""
    command = [sys.executable, BUILD, "all", *(["--json"] if json else [])]
    return subprocess.run(command, check=False, stdout=output).returncode
