"""`minicontainer doctor`: answers that were found by doing, and a fix for each that is no."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from minicontainer import doctor
from tests.roots import COMMAND


def test_every_probe_answers():
    for name in doctor.names():
        finding = doctor.check(name)
        assert finding.detail, name
        if not finding.ok and finding.required:
            assert finding.fix, f"{name} is required, failed, and has no advice"


def test_probes_leave_this_process_as_it_was():
    def state() -> tuple:
        with open("/proc/self/mountinfo") as mountinfo:
            namespaces = sorted(
                os.readlink(f"/proc/self/ns/{n}") for n in os.listdir("/proc/self/ns")
            )
            return mountinfo.read(), namespaces, os.getcwd()

    before = state()
    for name in doctor.names():
        doctor.check(name)
    assert state() == before


def test_a_failure_carries_the_kernels_words_and_a_fix(ordinary_user):
    if not ordinary_user:
        pytest.skip("needs root, to forbid namespaces to somebody else")
    script = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
    done = subprocess.run(
        [*ordinary_user, "unshare", "-r", "sh", "-c", script, "sh",
         "unshare", "-U", *COMMAND, "doctor", "--json"], capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode != 1 or not done.stdout:
        # the outer unshare is refused as well: that is the same answer, one level up
        assert "No space left on device" in done.stderr
        return
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert not findings["user namespace"]["ok"]
    assert findings["user namespace"]["fix"]


def test_json_and_exit_status(ordinary_user):
    for prefix in ([], ordinary_user):
        done = subprocess.run(
            [*prefix, *COMMAND, "doctor", "--json"], capture_output=True, text=True
        )
        findings = json.loads(done.stdout)
        able = all(finding["ok"] for finding in findings if finding["required"])
        assert done.returncode == (0 if able else 1)
        assert {"name", "ok", "detail", "fix", "required"} == set(findings[0])


def test_a_crashing_child_is_an_error():
    with pytest.raises(OSError, match=r"ended with status 3$"):
        doctor.in_child(lambda: os._exit(3))
    with pytest.raises(OSError, match=r"ended with status -9$"):
        doctor.in_child(lambda: os.kill(os.getpid(), 9))
