"""base/workshop.tar: a machine's packages, and what the lessons use."""

from __future__ import annotations

from kit.recipe import Recipe, Work
from machine import base
from roots import debian_base

PACKAGES = [
    "python3", "busybox-static", "iproute2", "procps", "sudo", "uidmap", "strace", "bubblewrap",
    "runc", "less", "nano", "ca-certificates",
]  # fmt: skip
SPACE_MB = 1500
USER = 'chroot "$1" useradd --create-home --uid 1000 --shell /bin/bash learner'


def make(work: Work) -> dict[str, str]:
    return base.bootstrap(work, PACKAGES, SPACE_MB, [f"--customize-hook={USER}"])


SOURCES = (__file__, base.__file__, debian_base.__file__)
RECIPES = [
    Recipe("base/workshop.tar", "workshop", make, SOURCES, facts=debian_base.facts, shared=True,
           opt_in=True),
]  # fmt: skip
