"""The tests of kernel/, runtime/ and images/ and the lessons on pure cgroup v2, in a guest that
runs beside this suite (see tests/v2_rig). Its results come as tests of their own, "v2:PASS:ID";
those here wait for them. What the rig does when the guest fails is tested here, too.

One file in the guest: V2_RIG_ONLY="tests/test_cgroups.py -k freeze" pytest tests/test_v2_rig.py
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.roots import REPOSITORY
from tests.v2_rig import compare, guest, plugin, selection
from tests.v2_rig.beside import Beside, GuestFailed


@pytest.mark.vm
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, tests in selection.passes().items() if tests])
def test_pass_in_the_guest(name, v2_guest, request):
    status, missing = plugin.merge(request, v2_guest, name)
    assert missing == set(), f"nothing was heard of these; {v2_guest.words()}"
    assert status in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED), v2_guest.words()


def qemu_that_boots_nothing() -> list[str]:
    if guest.missing():
        pytest.skip(guest.missing())
    return ["sh", "-c", f'{guest.QEMU} -display none -S -nic none & echo $! >"$1/qemu"; wait', "sh"]


@pytest.mark.vm
def test_guest_that_hangs_is_ended_with_its_last_words():
    beside = Beside(qemu_that_boots_nothing())
    try:
        (beside.directory / "console").write_text("Kernel panic - not syncing\r\n")
        with pytest.raises(GuestFailed, match=r"said nothing for 1 s.*console:\nKernel panic"):
            list(beside.follow("root", quiet_s=1))
        assert beside.process.returncode == -signal.SIGKILL
        assert gone(int((beside.directory / "qemu").read_text()))
    finally:
        beside.stop()
    assert not beside.directory.exists()


def test_guest_that_ends_early_says_why():
    beside = Beside(["sh", "-c", "echo no space left; exit 3"])
    try:
        with pytest.raises(GuestFailed, match=r"ended before the pass 'root'.*log:\nno space left"):
            list(beside.follow("root"))
    finally:
        beside.stop()


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.02)
    return False


@pytest.mark.vm
def test_guest_ends_with_the_suite_however_that_ends(tmp_path):
    """A suite that is killed by SIGKILL cannot clean up."""
    qemu_that_boots_nothing()
    (tmp_path / "initramfs").write_bytes(b"")
    code = f"""
import subprocess, sys
code = "import pathlib, tests.v2_rig.guest as guest; guest.end_with_parent(); "
code += "guest.boot(pathlib.Path({str(tmp_path)!r}))"
subprocess.run([sys.executable, "-c", code])
"""
    suite = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY)
    found: list[int] = []
    while not found:
        time.sleep(0.05)
        assert suite.poll() is None
        found = [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc")))
                 if f"file:{tmp_path}/console" in command_line(pid)]  # fmt: skip
    suite.kill()
    suite.wait()
    assert gone(found[0])


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_comparison_names_what_passes_on_one_layout_only():
    here = {
        "tests/test_a.py::test_both": ("passed", ""),
        "tests/test_a.py::test_v1[0]": ("passed", ""),
        "tests/test_a.py::test_v1[1]": ("passed", ""),
        "tests/test_a.py::test_v2": ("skipped", "no memory here"),
        "tests/test_b.py::test_not_there": ("passed", ""),
        "tests/test_b.py::test_broken": ("passed", ""),
    }
    there = {
        "tests/test_a.py::test_both": ("passed", ""),
        "tests/test_a.py::test_v1[0]": ("skipped", "no v1"),
        "tests/test_a.py::test_v1[1]": ("skipped", "no v1"),
        "tests/test_a.py::test_v2": ("passed", ""),
        "tests/test_b.py::test_broken": ("failed", ""),
    }
    assert compare.lines("only here", compare.only(here, there)) == [
        "only here: 3",
        "  2 × no v1",
        "      test_a.py: test_v1 (2)",
        "  1 × failed",
        "      test_b.py: test_broken",
    ]
    assert compare.only(there, here) == {"no memory here": ["tests/test_a.py::test_v2"]}


def test_what_is_chosen_exists():
    """A name that changes must not bring a test back, or leave one out, unnoticed."""
    some = [f"{file}::{name}" for file, names in selection.SOME_OF.items() for name in names]
    for chosen in (*selection.LEFT_OUT, *some):
        file, _, name = chosen.partition("::")
        assert f"def {name.rpartition('::')[2]}" in (REPOSITORY / file).read_text(), chosen
    chosen = " ".join(selection.passes().values()).split()
    assert not [file for file in chosen if not (REPOSITORY / file).exists()]
