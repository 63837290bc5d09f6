"""What of the suite runs again on cgroup v2, in which pass; what does not, and why.

The guest has one emulated core and some minutes: there a start of a container takes a second or
two. What asks the kernel for groups, mounts, ids and processes comes first.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
# The floors above kernel/, runtime/ and images/, machines, and an engine that needs a network.
OTHERS = ("benchmarks", "doctor", "lab", "lessons", "startup", "v2", "vm", "runtime_docker")
FILES = sorted(
    f"tests/{path.name}"
    for path in TESTS.glob("test_*.py")
    if not path.name.startswith(tuple(f"test_{name}" for name in OTHERS))
)
# What an ordinary user is for; elsewhere most tests need root.
LEARNER = ("capabilities", "client", "images_layers", "images_run", "kernel", "mounts", "pty",
           "run", "runtime_rootless")  # fmt: skip

# A test that hangs says where on the console, and the pass ends.
OPTIONS = (
    "-p tests.v2_rig.inside -p no:cacheprovider -q --color=no --no-summary --tb=short "
    "-o faulthandler_timeout=200 -o faulthandler_exit_on_timeout=true"
)

CASES = 2  # of a test with many: the others differ in our own code, seldom in the kernel's answer
ALL_CASES = ("tests/test_cgroup", "tests/test_runtime_rootless")

# What a test's id begins with -> why it does not run in the guest.
SLOW = "half a minute or more of emulation, and what it shows does not depend on the layout"
CRASHES = "kills at many moments: a minute or more of emulation"
LEFT_OUT = {
    "tests/test_images_archives.py::test_import_of_a_root_file_system": SLOW,
    "tests/test_images_archives.py::test_layers_of_umoci": SLOW,
    "tests/test_images_cli.py": SLOW,
    "tests/test_images_hostile.py::test_a_bomb": SLOW,
    "tests/test_images_hostile.py::test_a_gzip_of_a_gigabyte": SLOW,
    "tests/test_images_hostile.py::test_too_many_files": SLOW,
    "tests/test_images_layers.py::test_unpacked_is_what_gnu_tar_unpacks": SLOW,
    "tests/test_images_layers.py::test_the_cost_of_a_commit": SLOW,
    "tests/test_images_machine.py": SLOW,
    "tests/test_images_registry.py": "registries: connections and digests, on any layout the same",
    "tests/test_images_store.py::test_kill_9": CRASHES,
    "tests/test_images_store.py::test_processes_add": CRASHES,
    "tests/test_images_store.py::test_two_processes": CRASHES,
    "tests/test_runtime_crash.py": CRASHES,
    "tests/test_runtime_fuzz.py": "thousands of inputs: hours of emulation",
}
# Of these files only such tests run in which a group, an id, a mount or a device decides.
SOME = "of the command line's tests those run in which groups, ids, mounts or devices decide"
SOME_OF = {
    "tests/test_client.py": (
        "test_capture", "test_killed", "test_the_helper_ends", "test_timeout", "test_traced",
    ),
    "tests/test_images_build.py": (
        "test_a_command_has", "test_run_leaves", "test_the_network",
    ),
    "tests/test_images_run.py": (
        "test_after_kill_9", "test_an_ordinary_user", "test_devices", "test_exec",
        "test_limits", "test_root_of_a_user", "test_the_root_is", "test_who_takes",
    ),
    "tests/test_run.py": (
        "test_all_eight", "test_command_is", "test_devices", "test_forbidden", "test_full_disk",
        "test_kill_9", "test_limit_of", "test_nothing_is_left", "test_root_of_a_user",
    ),
}  # fmt: skip


def passes() -> dict[str, str]:
    """Name -> words for the guest's pytest, in the order of the runs. V2_RIG_ONLY: only these, by
    hand, as "tests/test_cgroups.py -k freeze".
    """
    only = os.environ.get("V2_RIG_ONLY")
    learner = only or " ".join(f"tests/test_{name}.py" for name in LEARNER)
    return {"root": only or " ".join(FILES), "learner": learner}


def left_out(item: pytest.Item, number: int) -> str:
    """Why this test does not run in the guest; "" when it does. number: of the case, from 0 on."""
    if getattr(getattr(item, "function", None), "is_hypothesis_test", False):
        return "many random inputs: what they try does not depend on the host"
    file, _, name = item.nodeid.partition("::")
    if not name.startswith(SOME_OF.get(file, ("",))):
        return SOME
    if number >= CASES and not item.nodeid.startswith(ALL_CASES):
        return f"of a test with many cases the first {CASES} run"
    return next((why for start, why in LEFT_OUT.items() if item.nodeid.startswith(start)), "")
