"""What of the suite runs again on cgroup v2, in which pass; what does not, and why.

The guest has one emulated core and some minutes: there a start of a container takes a second or
two. What asks the kernel for groups, mounts, ids and processes comes first.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
# The floors above kernel/, runtime/ and images/, machines, and an engine that needs a network. What
# test_lessons looks for is the same on any host; the lessons themselves run.
OTHERS = ("benchmarks", "doctor", "lab", "lessons", "startup", "v2", "vm", "runtime_docker")
FILES = sorted(
    f"tests/{path.name}"
    for path in TESTS.glob("test_*.py")
    if not path.name.startswith(tuple(f"test_{name}" for name in OTHERS))
)
# What an ordinary user is for; elsewhere most tests need root.
LEARNER = ("capabilities", "client", "images_layers", "images_run", "kernel", "mounts", "pty",
           "run", "runtime_rootless")  # fmt: skip

# Each of their cells is a test of nbval, strict: what it prints there is what is stored. What root
# has in a workbench and an ordinary user has not are control groups; all else is the same to both.
LESSONS = sorted(f"lessons/{path.name}" for path in TESTS.parent.glob("lessons/*.ipynb"))
LESSONS_OF_ROOT = ["lessons/06-cgroups.ipynb"]

# A test that hangs says where on the console, and the pass ends.
OPTIONS = (
    "--nbval --nbval-cell-timeout=100 "
    "-p tests.v2_rig.inside -p no:cacheprovider -q --color=no --no-summary --tb=short "
    "-o faulthandler_timeout=200 -o faulthandler_exit_on_timeout=true"
)

CASES = 2  # of a test with many: the others differ in our own code, seldom in the kernel's answer
ALL_CASES = ("tests/test_cgroup", "tests/test_runtime_rootless")

# What a test's id begins with -> why it does not run in the guest.
SLOW = "half a minute or more of emulation, and what it shows does not depend on the layout"
CRASHES = "kills at many moments: a minute or more of emulation"
OWN = "what our own code reads and writes: on any layout the same"
LEFT_OUT = {
    "lessons/08-images.ipynb": SLOW,
    "tests/test_images_archives.py": OWN,
    "tests/test_images_bootstrap.py": OWN,
    "tests/test_images_cli.py": OWN,
    "tests/test_images_hostile.py::test_a_bomb": SLOW,
    "tests/test_images_hostile.py::test_a_gzip_of_a_gigabyte": SLOW,
    "tests/test_images_hostile.py::test_too_many_files": SLOW,
    "tests/test_images_layers.py::test_our_tar": OWN,
    "tests/test_images_layers.py::test_the_cost_of_a_commit": SLOW,
    "tests/test_images_layers.py::test_unpacked_is_what_gnu_tar_unpacks": SLOW,
    "tests/test_images_layers.py::test_unpacking_keeps_up": SLOW,
    "tests/test_images_machine.py": SLOW,
    "tests/test_images_registry.py": OWN,
    "tests/test_images_store.py::test_a_full_disk": SLOW,
    "tests/test_images_store.py::test_kill_9": CRASHES,
    "tests/test_images_store.py::test_processes_add": CRASHES,
    "tests/test_images_store.py::test_two_processes": CRASHES,
    "tests/test_options.py": OWN,
    "tests/test_runtime_crash.py": CRASHES,
    "tests/test_runtime_effects.py::test_runc_has": OWN,
    "tests/test_runtime_effects.py::test_runc_mounts": SLOW,
    "tests/test_runtime_effects.py::test_runc_shows": SLOW,
    "tests/test_runtime_fuzz.py": "thousands of inputs: hours of emulation",
    "tests/test_runtime_reliability.py::test_disk_full": SLOW,
    "tests/test_runtime_reliability.py::test_state_directory": OWN,
    "tests/test_runtime_rootless.py::test_podman": "it needs benchmarks, not in the guest",
    "tests/test_seccomp.py::test_cost": "a budget of time, for a processor that is not emulated",
}
# Of these files only such tests run in which a group, an id, a mount or a device decides.
SOME = "of this file those run in which groups, ids, mounts or devices decide"
SOME_OF = {
    "tests/test_client.py": ("test_capture", "test_killed_worker", "test_timeout"),
    "tests/test_images_build.py": ("test_a_command_has", "test_run_leaves", "test_the_network"),
    "tests/test_images_run.py": (
        "test_an_ordinary_user", "test_devices", "test_limits", "test_root_of_a_user",
        "test_who_takes",
    ),
    "tests/test_run.py": (
        "test_all_eight", "test_command_is", "test_devices", "test_forbidden", "test_kill_9",
        "test_limit_of", "test_nothing_is_left", "test_root_of_a_user",
    ),
    "tests/test_runtime_diff.py": ("test_a_container_and_the_host", "test_user_namespaces"),
    "tests/test_runtime_exec.py": (
        "test_capabilities", "test_it_has", "test_its_group", "test_paused", "test_seccomp_holds",
        "test_update",
    ),
    "tests/test_runtime_explain.py": ("test_a_controller", "test_a_limit", "test_without_cgroups"),
    "tests/test_runtime_gc.py": ("test_a_create_in", "test_groups_without", "test_whole"),
    "tests/test_runtime_hooks.py": ("test_all_six", "test_create_runtime"),
    "tests/test_runtime_hostile.py": (
        "test_cgroup_path", "test_device_nodes", "test_devices_of", "test_ids_lead",
        "test_links_of", "test_owner_of", "test_release_agent", "test_sysctl",
        "test_writes_to_proc",
    ),
    "tests/test_runtime_lifecycle.py": (
        "test_created", "test_kill_all", "test_nothing_of_ours", "test_paused", "test_pid_that",
        "test_run_forwards", "test_run_gives", "test_runtime_killed", "test_states",
    ),
    "tests/test_runtime_podman.py": ("test_detached", "test_restart_and_limits"),
    "tests/test_runtime_trace.py": ("test_exec_tells", "test_run_tells"),
    "tests/test_runtime_words.py": (
        "test_exec_in", "test_groups_that", "test_one_controller", "test_the_containers_own",
    ),
    "tests/test_sealed.py": ("TestAsRoot::test_it_is_made_once", "TestAsRoot::test_ordinary"),
}  # fmt: skip


def passes() -> dict[str, str]:
    """Name -> words for the guest's pytest, in the order of the runs. V2_RIG_ONLY: only these, by
    hand, as "tests/test_cgroups.py -k freeze" or "lessons".
    """
    only = os.environ.get("V2_RIG_ONLY")
    root = [file for file in FILES + LESSONS_OF_ROOT if file not in LEFT_OUT]
    learner = [f"tests/test_{name}.py" for name in LEARNER]
    learner += [lesson for lesson in LESSONS if lesson not in LEFT_OUT]
    return {"root": only or " ".join(root), "learner": only or " ".join(learner)}


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
