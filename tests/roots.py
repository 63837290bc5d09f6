"""Root file systems and users that the tests run containers with."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
COMMAND = [str(REPOSITORY / "minicontainer" / "minicontainer")]

# Nobody's uid: no account, no files, no privilege.
ORDINARY_UID = 54321


def make_busybox_root(directory: Path) -> Path:
    """A root file system of one static program; skips where there is none."""
    busybox = shutil.which("busybox")
    if not busybox:
        pytest.skip("busybox is not installed: apt install busybox-static")
    (directory / "bin").mkdir(parents=True)
    shutil.copy(busybox, directory / "bin/busybox")
    for name in _applets(busybox):
        os.symlink("busybox", f"{directory}/bin/{name}")
    if complaint := _complaint(busybox):
        pytest.skip(f"busybox is not static: apt install busybox-static ({complaint})")
    return directory


@functools.cache
def _applets(busybox: str) -> list[str]:
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split() if name != "busybox"]


@functools.cache
def _complaint(busybox: str) -> str:
    """Why it does not run in a root of its own; "" when it does."""
    with tempfile.TemporaryDirectory() as root:
        shutil.copy(busybox, f"{root}/true")
        words = ["chroot", root, "/true"] if os.geteuid() == 0 else [busybox, "true"]
        done = subprocess.run(words, capture_output=True)
    return repr(done.stderr) if done.returncode else ""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A fresh busybox root, world readable, that the test may spoil."""
    return make_busybox_root(tmp_path / "root")


@pytest.fixture
def ordinary_user(tmp_path: Path) -> list[str]:
    """Words to put before a command so that it runs as somebody without privilege."""
    if os.geteuid() != 0:
        return []
    runtime = tmp_path / "xdg"
    runtime.mkdir(mode=0o700, exist_ok=True)
    os.chown(runtime, ORDINARY_UID, ORDINARY_UID)
    words = [
        "setpriv", f"--reuid={ORDINARY_UID}", f"--regid={ORDINARY_UID}", "--clear-groups",
        "--inh-caps=-all", "env", f"HOME={tmp_path}", f"XDG_RUNTIME_DIR={runtime}",
    ]  # fmt: skip
    able = subprocess.run([*words, *COMMAND, "--version"], capture_output=True, text=True)
    if able.returncode:
        pytest.skip(f"an ordinary user cannot read this clone: {able.stderr.strip()[-200:]}")
    for directory in (tmp_path, *tmp_path.parents):
        if directory.owner() == "root" and directory.name.startswith(("pytest", "test_")):
            directory.chmod(directory.stat().st_mode | 0o055)
    return words
