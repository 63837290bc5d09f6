"""The tests of kernel/cgroups once more where all controllers are in v2: in a small emulated guest.

Its initramfs is made of this host's python, the repository and busybox; the kernel is that of the
virtual machines of the comparison. Takes half a minute.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sysconfig
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
{python} -m pytest -q --color=no -p no:cacheprovider tests/test_cgroups.py
echo "EXIT $?"
poweroff -f
"""
PACKAGES = ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments", "py")


def initramfs(directory: Path) -> Path:
    root = make_busybox_root(directory / "root")
    for name in ("proc", "sys", "dev", "tmp"):
        (root / name).mkdir()
    python = Path(sysconfig.get_config_var("BINDIR"), f"python{sysconfig.get_python_version()}")
    needed = [python, *Path(sysconfig.get_path("stdlib"), "lib-dynload").glob("*.so")]
    libraries = subprocess.run(["ldd", *needed], capture_output=True, text=True).stdout
    for path in {str(python), *re.findall(r"(/\S+\.so\S*) \(", libraries)}:
        (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / path[1:])
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
    (root / "init").write_text(INIT.format(packages="/packages", python=python))
    (root / "init").chmod(0o755)
    image = directory / "initramfs"
    names = "".join(f"{path.relative_to(root)}\n" for path in sorted(root.rglob("*")))
    with image.open("wb") as file:
        subprocess.run(["cpio", "--quiet", "-o", "-H", "newc"], cwd=root, check=True, stdout=file,
                       input=names.encode())  # fmt: skip
    return image


@pytest.mark.vm
@pytest.mark.slow
def test_all_of_it_on_a_pure_v2_host(tmp_path):
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
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=400)
    output = done.stdout.decode(errors="replace")
    assert "EXIT 0" in output, output[-6000:]
    assert int(re.findall(r"(\d+) passed", output)[0]) > 40, output[-3000:]
