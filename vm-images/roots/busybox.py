"""roots/busybox: the smallest root file system that is a pleasure to use. One static program under
some 270 names, /etc with the two files that `id` and `ls -l` read, and the probe.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from kit import tools
from kit.recipe import Failed, Recipe, Work
from kit.trees import file_sha256

from roots import skeleton

FIX = "apt install busybox-static (dnf: busybox), or put one first in PATH"
PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
GROUP = "root:x:0:\nnogroup:x:65534:\n"


def facts() -> dict[str, str]:
    return {"busybox sha256": file_sha256(tools.find("busybox", "busybox-static"))}


def make(work: Work) -> dict[str, str]:
    program = tools.find("busybox", "busybox-static")
    for path in ("bin", "sbin", "usr/bin", "usr/sbin", "root", "etc"):
        os.makedirs(os.path.join(work.target, path))
    shutil.copyfile(program, os.path.join(work.target, "bin/busybox"))
    os.chmod(os.path.join(work.target, "bin/busybox"), 0o755)
    for applet in applets(program):
        link = os.path.join(work.target, applet)
        if not os.path.lexists(link):
            os.symlink(os.path.relpath("bin/busybox", os.path.dirname(applet)), link)
    os.chmod(os.path.join(work.target, "root"), 0o700)
    skeleton.write(work.target, "etc/passwd", PASSWD)
    skeleton.write(work.target, "etc/group", GROUP)
    skeleton.complete(work.target, "busybox", work.output["probe/probe"])
    return {"busybox": _output([program]).splitlines()[0]}


def applets(program: str) -> list[str]:
    """Paths such as bin/ls. Raises Failed for a busybox that needs shared libraries: the tree has
    none.
    """
    if is_dynamic(program):
        raise Failed(f"{program} is not static", FIX)
    names = _output([program, "--list-full"]).split()
    if not names:  # built without FEATURE_INSTALLER
        names = [f"bin/{name}" for name in _output([program, "--list"]).split()]
    return names


def is_dynamic(program: str) -> bool:
    """Whether it names an interpreter: a program header of type PT_INTERP, 3 (elf(5))."""
    with open(program, "rb") as file:
        header = file.read(64)
        if header[:5] != b"\x7fELF\x02":
            raise Failed(f"{program} is not a 64-bit program", FIX)
        table = int.from_bytes(header[32:40], "little")
        size, count = (int.from_bytes(header[at : at + 2], "little") for at in (54, 56))
        file.seek(table)
        kinds = [int.from_bytes(file.read(size)[:4], "little") for _ in range(count)]
    return 3 in kinds


def _output(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False)
    return done.stdout


SOURCES = (__file__, skeleton.__file__)
RECIPES = [Recipe("roots/busybox", "roots", make, SOURCES, ("probe/probe",), facts)]
