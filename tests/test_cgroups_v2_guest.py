"""Where all controllers are in v2, in a small emulated guest: the tests of kernel/cgroups, and some
of the runtime on which the hierarchy has a bearing. Each of them is a subtest here.

The guest's initramfs is made of this host's python, the repository and busybox; the kernel is that
of the virtual machines of the comparison. Takes a minute or two, most of it Python's.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sysconfig
import time
from pathlib import Path

import pytest

from minicontainer import paths
from tests.roots import REPOSITORY, make_busybox_root

INIT = """\
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t cgroup2 none /sys/fs/cgroup
cd /course
export LOGNAME=root HOME=/tmp PYTHONPATH={packages} PYTHONDONTWRITEBYTECODE=1
{python} -m pytest -q --color=no -p no:cacheprovider --tb=short -rpsfE {tests}
echo "EXIT $?"
poweroff -f
"""
TESTS = """
tests/test_cgroups.py
tests/test_runtime_lifecycle.py::test_states_follow_each_other
tests/test_runtime_lifecycle.py::test_nothing_of_ours_stays_but_the_command
tests/test_runtime_lifecycle.py::test_kill_all_reaches_every_process
tests/test_runtime_lifecycle.py::test_paused_container_is_killed
tests/test_runtime_lifecycle.py::test_run_gives_the_exit_status
tests/test_runtime_effects.py::test_devices_are_those_and_no_others_open
tests/test_runtime_effects.py::test_cgroup_view_is_the_containers_and_read_only
tests/test_runtime_effects.py::test_limits_of_the_cgroup_hold
tests/test_runtime_exec.py::test_it_has_everything_that_the_container_has
tests/test_runtime_exec.py::test_its_group_is_the_containers
tests/test_runtime_exec.py::test_paused_and_stopped_containers
tests/test_runtime_exec.py::test_update_changes_limits_of_a_running_container
tests/test_runtime_exec.py::test_update_from_a_file_and_from_stdin
tests/test_runtime_reliability.py::test_frozen_container_is_deleted
tests/test_runtime_reliability.py::test_stopped_container_is_deleted
tests/test_runtime_rootless.py::test_life_with_a_single_id
tests/test_runtime_rootless.py::test_limits_in_a_delegated_group
"""
# What the ordinary user of the tests is made with; busybox's own knows too little.
PROGRAMS = ("/usr/bin/setpriv",)
PACKAGES = ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments", "py")


def initramfs(directory: Path) -> Path:
    root = make_busybox_root(directory / "root")
    for name in ("proc", "sys", "dev", "tmp"):
        (root / name).mkdir()
    python = Path(sysconfig.get_config_var("BINDIR"), f"python{sysconfig.get_python_version()}")
    needed = [python, *Path(sysconfig.get_path("stdlib"), "lib-dynload").glob("*.so"), *PROGRAMS]
    libraries = subprocess.run(["ldd", *needed], capture_output=True, text=True).stdout
    for path in {str(python), *PROGRAMS, *re.findall(r"(/\S+\.so\S*) \(", libraries)}:
        (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / path[1:])
    for program in PROGRAMS:
        (root / "bin" / Path(program).name).unlink(missing_ok=True)
    (root / "usr/bin/python3").symlink_to(python)
    unused = shutil.ignore_patterns("test", "idlelib", "dist-packages", "site-packages", "config-*",
                                    "__pycache__", "lib2to3", "ensurepip", ".git")  # fmt: skip
    stdlib = sysconfig.get_path("stdlib")
    shutil.copytree(stdlib, root / stdlib[1:], ignore=unused)
    # At a place of their own: the guest's /tmp, for one, covers a clone that lies there.
    for tree in ("minicontainer", "tests"):
        shutil.copytree(REPOSITORY / tree, root / "course" / tree, ignore=unused)
    shutil.copy(REPOSITORY / "pyproject.toml", root / "course")
    for package in PACKAGES:
        found = importlib.util.find_spec(package)
        assert found
        assert found.origin
        origin = Path(found.origin)
        if origin.name == "__init__.py":
            shutil.copytree(origin.parent, root / "packages" / package, ignore=unused)
        else:
            shutil.copy(origin, root / "packages")
    # Emulated, Python compiles slower than it runs these tests
    compiler = [python, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode=unchecked-hash"]
    for tree in (stdlib[1:], "course", "packages"):
        subprocess.run([*compiler, "-s", root, "-p", "/", root / tree], stdout=subprocess.DEVNULL)
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text("root:x:0:0:root:/tmp:/bin/sh\n")
    (root / "init").write_text(
        INIT.format(packages="/packages", python=python, tests=" ".join(TESTS.split()))
    )
    (root / "init").chmod(0o755)
    image = directory / "initramfs"
    names = "".join(f"{path.relative_to(root)}\n" for path in sorted(root.rglob("*")))
    with image.open("wb") as file:
        subprocess.run(["cpio", "--quiet", "-o", "-H", "newc"], cwd=root, check=True, stdout=file,
                       input=names.encode())  # fmt: skip
    return image


@pytest.mark.vm
@pytest.mark.slow
def test_all_of_it_on_a_pure_v2_host(tmp_path, subtests):
    kernel = Path(paths.cache_dir(), "vm-images/kernel/vmlinuz")
    qemu = shutil.which(f"qemu-system-{os.uname().machine}")
    if not kernel.exists() or not qemu or not shutil.which("cpio"):
        pytest.skip(f"{kernel}, qemu or cpio is missing: sudo ./workshop setup")
    console = {"x86_64": "ttyS0"}.get(os.uname().machine, "ttyAMA0")
    command = [
        qemu, "-accel", "tcg", "-m", "2048", "-nographic", "-no-reboot", "-nic", "none",
        "-kernel", kernel, "-initrd", initramfs(tmp_path),
        "-append", f"console={console} panic=-1 quiet",
    ]  # fmt: skip
    if os.uname().machine == "aarch64":
        command += ["-machine", "virt", "-cpu", "max"]
    began = time.monotonic()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=400)
    output = done.stdout.decode(errors="replace").replace("\r", "")
    # "PASSED tests/x.py::name", "FAILED tests/x.py::name - why", "SKIPPED [2] tests/x.py:41: why"
    found = re.findall(r"^(PASSED|FAILED|ERROR|SKIPPED) (.+)", output, re.MULTILINE)
    print(f"{len(found)} results in {time.monotonic() - began:.0f} s on cgroup v2:")
    for outcome, name in found:
        print(f"{outcome:8}{name}")
        with subtests.test(name):
            assert outcome in ("PASSED", "SKIPPED"), output[-6000:]
    assert "EXIT 0" in output, output[-6000:]
    for selected in TESTS.split():
        assert any(name.startswith(selected) for _, name in found), f"{selected} did not run"
    passed = sum(outcome == "PASSED" for outcome, _ in found)
    assert passed > 60, output[-3000:]
