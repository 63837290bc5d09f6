"""What of the suite runs again on cgroup v2, in which pass; what does not, and why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CASES = 2  # of a test with many: the others differ in our own code, seldom in the kernel's answer
HERE = Path(__file__).parent.parent

# Of the floors above, and of machines: other tests than those of kernel/, runtime/ and images/.
OTHERS = ("benchmarks", "lab", "lessons", "vm", "v2", "startup", "doctor", "docker")
FILES = sorted(
    f"tests/{path.name}"
    for path in HERE.glob("test_*.py")
    if path.stem.split("_")[1] not in OTHERS and path.stem != "test_runtime_docker"
)
# A test that hangs says where on the console, and the pass ends.
OPTIONS = (
    "-p tests.v2_rig.inside -p no:cacheprovider -q --color=no --no-summary --tb=short "
    "-o faulthandler_timeout=200 -o faulthandler_exit_on_timeout=true"
)
ALL_CASES = ("tests/test_cgroup", "tests/test_runtime_rootless")
# What a test's id begins with -> why it does not run in the guest.
SLOW = "takes a minute or more of emulation, and what it shows does not depend on the layout"
CRASHES = "kills at many moments: a minute or more of emulation"
LEFT_OUT = {
    "tests/test_images_build.py::test_an_ordinary_user_builds": SLOW,
    "tests/test_images_build.py::test_arguments": SLOW,
    "tests/test_images_build.py::test_command_line": SLOW,
    "tests/test_images_build.py::test_failures_name_the_line": SLOW,
    "tests/test_images_build.py::test_gc_keeps_what_is_named": SLOW,
    "tests/test_images_build.py::test_interrupted": CRASHES,
    "tests/test_images_build.py::test_killed": CRASHES,
    "tests/test_images_build.py::test_nothing_is_done_again": SLOW,
    "tests/test_images_build.py::test_standard_input": SLOW,
    "tests/test_images_build.py::test_the_same_digest": SLOW,
    "tests/test_images_build.py::test_two_builds_and_gc_at_once": CRASHES,
    "tests/test_images_build.py::test_what_changes_a_layer": SLOW,
    "tests/test_images_archives.py::test_import_of_a_root_file_system": SLOW,
    "tests/test_images_cli.py": SLOW,
    "tests/test_images_hostile.py::test_a_bomb": SLOW,
    "tests/test_images_hostile.py::test_a_gzip_of_a_gigabyte": SLOW,
    "tests/test_images_hostile.py::test_too_many_files": SLOW,
    "tests/test_images_layers.py::test_unpacked_is_what_gnu_tar_unpacks": SLOW,
    "tests/test_images_layers.py::test_the_cost_of_a_commit": SLOW,
    "tests/test_images_run.py::test_wrong_options": SLOW,
    "tests/test_run.py::test_wrong_usage": SLOW,
    "tests/test_images_registry.py": "registries: connections and digests, on any layout the same",
    "tests/test_runtime_crash.py": CRASHES,
    "tests/test_runtime_fuzz.py": "thousands of inputs: hours of emulation",
}


def passes() -> dict[str, str]:
    """Name -> words for the guest's pytest, in the order of the runs. V2_RIG_ONLY: only these, by
    hand, as "tests/test_cgroups.py -k freeze".
    """
    only = os.environ.get("V2_RIG_ONLY")
    if only:
        return {"root": only, "learner": only}
    return {"root": " ".join(FILES), "learner": f"-m rootless {' '.join(FILES)}"}


def left_out(item: pytest.Item, number: int) -> str:
    """Why this test does not run in the guest; "" when it does. number: of the case, from 0 on."""
    if getattr(getattr(item, "function", None), "is_hypothesis_test", False):
        return "many random inputs: what they try does not depend on the host"
    if number >= CASES and not item.nodeid.startswith(ALL_CASES):
        return f"of a test with many cases the first {CASES} run"
    return next((why for start, why in LEFT_OUT.items() if item.nodeid.startswith(start)), "")
