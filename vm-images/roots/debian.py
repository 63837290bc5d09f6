"""roots/debian: base/debian.tar (see debian_base.py) unpacked, with the probe in it."""

from __future__ import annotations

import os

from kit import tools
from kit.recipe import Recipe, Work

from roots import skeleton

FIX = "python vm-images/build.py roots --force makes the archive anew"


def make(work: Work) -> dict[str, str]:
    """Without /dev/*: an ordinary user cannot make device nodes, and who runs the tree mounts its
    own there.
    """
    os.mkdir(work.target)
    tar = tools.find("tar", "tar")
    argv = [tar, "-x", "-p", "-f", work.output["base/debian.tar"], "-C", work.target]
    work.tools.run([*argv, "--exclude=./dev/*"], FIX)
    skeleton.complete(work.target, "debian", work.output["probe/probe"])
    with open(os.path.join(work.target, "etc/debian_version"), encoding="utf-8") as file:
        return {"debian": file.read().strip()}


SOURCES = (__file__, skeleton.__file__)
RECIPES = [
    Recipe("roots/debian", "roots", make, SOURCES, ("base/debian.tar", "probe/probe")),
]
