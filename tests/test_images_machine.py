"""One root, two ways: what a machine boots is, entry by entry, what a container sees."""

from __future__ import annotations

import gzip
import os
import stat
import subprocess
from pathlib import Path

import pytest

from minicontainer.images import layers, machine, merge
from minicontainer.images.errors import ImageError
from minicontainer.images.store import Store
from minicontainer.paths import cache_dir
from tests.image_layers import add_image, directory, entry, hardlink, listing, symlink, tar
from tests.registries import need
from tests.roots import COMMAND, ORDINARY_UID

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: sudo ./workshop test")
LOWER = [
    directory(".", mode=0o750, uid=3, gid=4),
    directory("bin"), entry("bin/prog", b"\x7fELF" * 3000, mode=0o4755, uid=1, gid=2),
    directory("d", mode=0o1777), entry("d/hidden", b"x"), entry("gone", b"x"), entry("empty"),
    hardlink("bin/second", "bin/prog"), hardlink("third", "bin/prog"), symlink("l", "bin/prog"),
    entry("dev", type=b"5", mode=0o755), entry("dev/console", type=b"3", devmajor=5, devminor=1),
    entry("fifo", type=b"6"), entry("n\xe4me with \n".encode("latin-1"), b"123"),
]  # fmt: skip
UPPER = [entry(".wh.gone"), directory("d", mode=0o700), entry("d/.wh..wh..opq"),
         entry("d/new", b"y" * 70000), entry("d/" + "x" * 200, b"long")]  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(str(tmp_path / "data/images"))
    add_image(made, "docker.io/library/image:latest", [tar(*LOWER), tar(*UPPER)])
    return made


def seen(store: Store, place: Path) -> dict:
    place.mkdir()
    merge.copy(layers.unpacked(store, store.image("image")), "trusted.overlay.", str(place))
    return listing(place, directory_times=False)


def same(found: dict, wanted: dict) -> None:
    """But for extended attributes, and times that cpio(1) does not set: of links, directories."""
    assert found.keys() == wanted.keys()
    for name in wanted:
        count = 4 if stat.S_ISLNK(int(wanted[name][0], 8)) else 6
        assert found[name][:count] == wanted[name][:count], name


@needs_root
@pytest.mark.parametrize("name", ["root.cpio", "root.cpio.gz"])
def test_an_initramfs_unpacks_to_the_same_tree(store: Store, tmp_path: Path, name: str) -> None:
    wanted = seen(store, tmp_path / "wanted")
    machine.initramfs(store, "image", str(tmp_path / name))
    data = (tmp_path / name).read_bytes()
    place = tmp_path / "found"
    place.mkdir()
    command = [need("cpio", "cpio"), "--extract", "--quiet", "-m", "-d"]
    plain = gzip.decompress(data) if name.endswith(".gz") else data
    subprocess.run(command, input=plain, cwd=place, check=True, capture_output=True)
    found = listing(place, directory_times=False)
    found[b""] = wanted[b""]  # cpio(1) leaves "." as it was; a kernel does not: see below
    same(found, wanted)
    machine.initramfs(store, "image", str(tmp_path / f"again-{name}"))
    assert (tmp_path / f"again-{name}").read_bytes() == data


@needs_root
def test_a_disk_has_the_same_tree(store: Store, tmp_path: Path) -> None:
    need("mke2fs", "e2fsprogs")
    wanted = seen(store, tmp_path / "wanted")
    disk, place = tmp_path / "disk", tmp_path / "found"
    machine.disk(store, "image", str(disk))
    assert sorted(os.listdir(tmp_path)) == ["data", "disk", "wanted"]
    subprocess.run([need("e2fsck", "e2fsprogs"), "-fn", disk], check=True, capture_output=True)
    (tmp_path / "mount").mkdir()
    script = f"mount -o loop,ro {disk} {tmp_path}/mount && cp -a {tmp_path}/mount {place}"
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no loop device here: {done.stderr}")
    found = listing(place, directory_times=False)
    del found[b"lost+found"]  # ext4's own
    same(found, wanted)


@needs_root
def test_a_disk_that_is_too_small_is_said_and_not_kept(store: Store, tmp_path: Path) -> None:
    need("mke2fs", "e2fsprogs")
    with pytest.raises(ImageError, match="mke2fs"):
        machine.disk(store, "image", str(tmp_path / "disk"), 64 << 10)
    assert os.listdir(tmp_path) == ["data"]


@pytest.mark.rootless
def test_both_without_root(ordinary_user: list[str], tmp_path: Path) -> None:
    """Everything belongs to root in there, as in the container."""
    need("busybox", "busybox-static")
    need("mke2fs", "e2fsprogs")
    if ordinary_user:
        os.chown(tmp_path, ORDINARY_UID, ORDINARY_UID)
    words = [*(ordinary_user or ["env"]), f"MINICONTAINER_DATA={tmp_path}/data", *COMMAND, "image"]
    subprocess.run([*words, "bootstrap", "busybox"], check=True, capture_output=True)
    for form in ("initramfs", "disk"):
        done = subprocess.run([*words, f"export-{form}", "busybox", tmp_path / form],
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 0, done.stderr
    listed = subprocess.run(["cpio", "-tvn"], stdin=open(tmp_path / "initramfs", "rb"),  # noqa: SIM115
                            capture_output=True, text=True)  # fmt: skip
    assert {tuple(line.split()[2:4]) for line in listed.stdout.splitlines()} == {("0", "0")}
    words = ["debugfs", "-R", "ls -l /bin", tmp_path / "disk"]
    lines = subprocess.run(words, capture_output=True, text=True).stdout.splitlines()
    assert {tuple(line.split()[3:5]) for line in lines if line.strip()} == {("0", "0")}


# What both run: each file of the root file system, but for what is mounted over.
SCRIPT = b"""#!/bin/sh
[ -e /proc/self ] || mount -t proc proc /proc
echo BEGIN
find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path '/etc/*' \\) -prune \\
    -o -type d -exec stat -c '%n %F %a %u %g' {} + \\
    -o -exec stat -c '%n %F %a %u %g %s %Y' {} + | sort
find / -xdev -type f \\( -path /proc -o -path /sys -o -path /dev -o -path '/etc/*' \\) -prune \\
    -o -type f -exec sha256sum {} + | sort
echo END
[ $$ != 1 ] || [ -n "$IN_CONTAINER" ] || reboot -f
"""


@pytest.mark.vm
@pytest.mark.slow
@needs_root
def test_container_and_machine_run_the_identical_tree(tmp_path: Path) -> None:
    qemu = need("qemu-system-x86_64", "qemu-system-x86")
    kernel = Path(cache_dir(), "vm-images/kernel/vmlinux")
    if not kernel.exists() or os.uname().machine != "x86_64":
        pytest.skip("no kernel for guests: python vm-images/build.py")
    from minicontainer.images import bootstrap

    need("busybox", "busybox-static")
    made = Store(str(tmp_path / "data/images"))
    script = tar(
        directory(".", mode=0o711),
        entry("boot.sh", SCRIPT, mode=0o755),
        entry("owned", b"x", uid=7, gid=8),
    )
    add_image(made, "docker.io/library/both:latest", [bootstrap._busybox(), script])
    command = ["env", f"MINICONTAINER_DATA={tmp_path}/data", *COMMAND]
    done = subprocess.run([*command, "run", "-e", "IN_CONTAINER=1", "both", "/boot.sh"],
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    image = tmp_path / "root.cpio.gz"
    subprocess.run([*command, "image", "export-initramfs", "both", image], check=True)
    booted = subprocess.run(
        [qemu, "-M", "microvm,acpi=off", "-accel", "tcg", "-m", "512", "-nodefaults", "-nographic",
         "-no-reboot", "-kernel", kernel, "-initrd", image, "-serial", "stdio", "-append",
         "console=ttyS0 quiet reboot=t panic=-1 rdinit=/boot.sh"],
        capture_output=True, text=True, timeout=200, errors="replace",
    )  # fmt: skip

    def between(text: str) -> list[str]:
        return text.replace("\r", "").partition("BEGIN\n")[2].partition("END\n")[0].splitlines()

    inside = between(done.stdout)
    assert len(inside) > 200, done.stderr
    assert any(line.startswith("/owned regular file 644 7 8 1 ") for line in inside)
    assert between(booted.stdout) == inside, booted.stdout[-1000:]
