"""workshop/workshop.qcow2: a ready-made machine for those without Linux, or without root on it:
JupyterLab, this repository, pure cgroup v2. start.py starts it.

Nothing is run inside it while it is built: packages of requirements.lock are put in their place by
the host's pip, for the guest's Python.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys

from kit import tools
from kit.recipe import Recipe, Work
from kit.trees import file_sha256
from machine import disk, tree
from micro.command_line import FULL
from roots import skeleton

HERE = os.path.dirname(os.path.abspath(__file__))
FILES = os.path.join(HERE, "files")
CLONE = os.path.dirname(os.path.dirname(HERE))
LOCK = os.path.join(CLONE, "requirements.lock")
HOME = "home/learner/minicontainer"
VENV = "opt/venv"
MEGABYTES = 4096  # what is free in it costs nothing: the image is sparse
# Linters and builders; and what would have to be compiled for a libvirt that is not there.
LEFT_OUT = {"ruff", "mypy", "mypy-extensions", "librt", "ast-serialize", "setuptools"}
LEFT_OUT |= {"libvirt-python"}
PYTHON = "3.11"  # Debian 12's
# JupyterLab would ask each attendee whether it may fetch news of Jupyter.
NO_ANNOUNCEMENTS = (
    '{"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": true}}\n'
)
FIX = "pip's own configuration must reach what requirements.lock names: python -m pip download -h"


def make(work: Work) -> dict[str, str]:
    top = tree.unpack(work, work.output["base/workshop.tar"], "workshop")
    tree.add_files(top, FILES)
    tree.enable(top, "jupyter.service", "multi-user.target")
    tree.enable(top, "alive.service", "sysinit.target")
    tree.use_networkd(top)
    for name in repository():
        where = os.path.join(top, HOME, name)
        os.makedirs(os.path.dirname(where), exist_ok=True)
        shutil.copy2(os.path.join(CLONE, name), where, follow_symlinks=False)
    _environment(work, top)
    os.symlink(f"/{VENV}", os.path.join(top, HOME, ".venv"))
    raw = Work(os.path.join(work.scratch, "raw"), work.scratch, work.output, work.tools)
    disk.write(raw, top, MEGABYTES, FULL)
    # -c: a download is a third of the size; in order, so that the same disk gives the same bytes.
    convert = ["convert", "-c", "-m", "1", "-O", "qcow2", raw.target, work.target]
    work.tools.run([tools.find("qemu-img", "qemu-utils"), *convert], "sudo ./workshop setup")
    os.unlink(raw.target)
    return {"qemu-img": tools.version("qemu-img", "qemu-utils")}


@functools.cache
def repository() -> list[str]:
    """The files of this clone that git knows, at their present content; all, outside a clone."""
    listed = ["git", "-C", CLONE, "ls-files", "-z", "--cached", "--exclude-standard"]
    done = subprocess.run(listed, capture_output=True, text=True, check=False)
    names = done.stdout.split("\0")[:-1]
    if not names:
        for top, directories, files in os.walk(CLONE):
            directories[:] = sorted(d for d in directories if d not in (".venv", "results", ".git"))
            names += [os.path.relpath(os.path.join(top, name), CLONE) for name in sorted(files)]
    return [name for name in names if os.path.lexists(os.path.join(CLONE, name))]


def _environment(work: Work, top: str) -> None:
    """What `python -m venv` and pip would make of it inside: https://docs.python.org/3/library/venv.html"""
    venv = os.path.join(top, VENV)
    packages = os.path.join(venv, "lib", f"python{PYTHON}", "site-packages")
    os.makedirs(os.path.join(venv, "bin"))
    wanted = os.path.join(work.scratch, "requirements.lock")
    with open(wanted, "w", encoding="utf-8") as file:
        file.write(requirements())
    work.tools.run(
        [sys.executable, "-m", "pip", "install", "--require-hashes", "-r", wanted, "--target",
         packages, "--python-version", PYTHON, "--only-binary=:all:", "--no-deps", "--no-compile",
         "--progress-bar", "off", "--disable-pip-version-check", *platforms()],
        FIX,
    )  # fmt: skip
    for name in ("share", "etc"):  # jupyter looks for them beside lib
        if os.path.isdir(os.path.join(packages, name)):
            os.rename(os.path.join(packages, name), os.path.join(venv, name))
    skeleton.write(venv, "pyvenv.cfg", "home = /usr/bin\ninclude-system-site-packages = false\n")
    skeleton.write(venv, "etc/jupyter/labconfig/page_config.json", NO_ANNOUNCEMENTS)
    for name in ("python", "python3"):
        os.symlink("/usr/bin/python3", os.path.join(venv, "bin", name))
    _scripts(os.path.join(packages, "bin"), os.path.join(venv, "bin"))
    skeleton.write(packages, "minicontainer.pth", f"/{HOME}\n")
    for name in ("minicontainer", "minicontainer-runtime"):
        launcher = f'#!/bin/sh\nexec /{HOME}/minicontainer/{name} "$@"\n'
        skeleton.write(venv, f"bin/{name}", launcher, 0o755)
    if sys.version_info[:2] == tuple(map(int, PYTHON.split("."))):
        # An emulated machine starts in half the time with these. By content, not by time.
        compiled = ["compileall", "-q", "-s", top, "-p", "/", "--invalidation-mode"]
        words = [sys.executable, "-m", *compiled, "unchecked-hash", packages]
        work.tools.run(["sh", "-c", '"$@" || :', "sh", *words], FIX)  # templates are no Python


def requirements() -> str:
    """requirements.lock without LEFT_OUT: an entry is a line and those indented below it."""
    with open(LOCK, encoding="utf-8") as file:
        entries = re.split(r"(?m)^(?=[^\s#])", file.read())
    return "".join(entry for entry in entries if entry.partition("==")[0] not in LEFT_OUT)


def platforms() -> list[str]:
    """The wheels that Debian 12's glibc, 2.36, can load."""
    tags = ["linux_x86_64", "manylinux1_x86_64", "manylinux2010_x86_64", "manylinux2014_x86_64"]
    tags += [f"manylinux_2_{minor}_x86_64" for minor in range(5, 37)]
    return [word for tag in tags for word in ("--platform", tag)]


def _scripts(found: str, target: str) -> None:
    """pip's entry points, whose first line names the Python that installed them."""
    for name in sorted(os.listdir(found)):
        with open(os.path.join(found, name), encoding="utf-8", errors="replace") as file:
            first, _, rest = file.read().partition("\n")
        if first.startswith("#!") and "python" in first:
            skeleton.write(target, name, f"#!/{VENV}/bin/python\n{rest}", 0o755)
    shutil.rmtree(found)


def facts() -> dict[str, str]:
    names = repository()
    digests = "".join(
        file_sha256(path) for name in names if os.path.isfile(path := os.path.join(CLONE, name))
    )
    return {"repository": str(hash_of(digests + "\n".join(names))), "command line": FULL}


def hash_of(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


SOURCES = (__file__, disk.__file__, tree.__file__, skeleton.__file__)
RECIPES = [
    Recipe("workshop/workshop.qcow2", "workshop", make, SOURCES,
           ("base/workshop.tar", "probe/probe"), facts, opt_in=True),
]  # fmt: skip
