"""probe/probe: the static program that every arm runs. See probe.c."""

from __future__ import annotations

import os
import shlex

from kit import tools
from kit.recipe import Recipe, Work

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.join(HERE, "probe.c")
FIX = "sudo ./workshop setup; or name a C compiler that works, CC=gcc-12"

# No libc, no interpreter, one segment: execve(2) maps a single page of file, and the first
# instruction is ours.
FLAGS = [
    "-Os", "-std=gnu11", "-Wall", "-Wextra", "-Werror",
    "-ffreestanding", "-nostdlib", "-static", "-fno-pie", "-no-pie",
    "-fno-stack-protector", "-fno-asynchronous-unwind-tables",
    "-s", "-Wl,--build-id=none", "-Wl,-z,norelro", "-Wl,-z,noseparate-code",
]  # fmt: skip


def compiler() -> list[str]:
    return shlex.split(os.environ.get("CC", "")) or ["gcc"]


def facts() -> dict[str, str]:
    words = compiler()
    return {
        "compiler": " ".join([*words, *FLAGS]),
        "compiler version": tools.version(words[0], "gcc"),
        "machine": os.uname().machine,
    }


def make(work: Work) -> dict[str, str]:
    words = compiler()
    path = tools.find(words[0], "gcc")
    work.tools.run([path, *words[1:], *FLAGS, "-o", work.target, SOURCE], FIX)
    # The linker's own idea of it: that it runs, and says what is expected, is what counts.
    work.tools.run([work.target], f"{FIX}; this compiler makes programs that do not run here")
    return {"compiler": tools.version(words[0], "gcc")}


RECIPES = [Recipe("probe/probe", "probe", make, (SOURCE, __file__), facts=facts)]
