"""The probe, the root trees and the guests: what they do when they run, and how they are built."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from minicontainer.paths import cache_dir
from tests.roots import REPOSITORY

BUILD = [sys.executable, str(REPOSITORY / "vm-images/build.py")]
SHARED = Path(cache_dir(), "vm-images")
QEMU = shutil.which("qemu-system-x86_64") or ""
CLOCK = re.compile(rb"p mono_ns=(\d+)\n")

# From the start of QEMU to the first byte, emulated, on a machine that does other things too.
NANO_LIMIT_S, KVM_LIMIT_S, LINUX_LIMIT_S = 10, 2, 40

x86 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="port 0xe9 is x86's")


def build(*arguments: str, cache: Path | None = None, before: Sequence[str] = (), **variables: str):
    """Run the command; `cache` is the value of MINICONTAINER_CACHE."""
    environment = {**os.environ, **variables}
    if cache:
        environment["MINICONTAINER_CACHE"] = str(cache)
    return subprocess.run(
        [*before, *BUILD, *arguments],
        capture_output=True, text=True, env=environment, timeout=300,
    )  # fmt: skip


def built(done: subprocess.CompletedProcess[str]) -> set[str]:
    """Which artifacts a run with --json built."""
    artifacts = json.loads(done.stdout)["artifacts"]
    return {item["path"] for item in artifacts if item["status"] == "built"}


def manifest(directory: Path) -> dict:
    return json.loads((directory / "manifest.json").read_text())


@pytest.fixture(scope="session")
def images() -> Path:
    """The shared cache, built if need be; only to be read."""
    began = time.monotonic()
    done = build()
    print(f"vm-images took {time.monotonic() - began:.1f} s: {done.stderr.splitlines()[-1]}")
    return SHARED


def needs(directory: Path, *paths: str) -> None:
    for path in paths:
        if not (directory / path).exists():
            pytest.skip(
                f"{directory / path} could not be built: python vm-images/build.py says why"
            )


@pytest.fixture
def probe(images: Path) -> Path:
    needs(images, "probe/probe")
    return images / "probe/probe"


@pytest.fixture
def private(images: Path, tmp_path: Path) -> Path:
    """A cache of the test's own that begins with everything built. Files are hard links where that
    is allowed: a build replaces files and never writes into them.
    """
    needs(images, "roots/busybox", "roots/debian", "kernel/vmlinuz")
    copy = tmp_path / "cache/vm-images"
    copy.parent.mkdir()
    if subprocess.run(["cp", "-al", images, copy], capture_output=True).returncode:
        shutil.rmtree(copy, ignore_errors=True)
        subprocess.run(["cp", "-a", images, copy], check=True)
    return copy


# --- the probe ---------------------------------------------------------------------------------


def test_probe_signals_with_its_clock(probe: Path):
    before = time.monotonic_ns()
    done = subprocess.run([probe], capture_output=True)
    after = time.monotonic_ns()
    found = CLOCK.fullmatch(done.stdout)
    assert found, done
    assert before <= int(found[1]) <= after
    assert (done.returncode, done.stderr) == (0, b"")


def test_probe_signals_on_a_fifo(probe: Path, tmp_path: Path):
    fifo = tmp_path / "signal"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        done = subprocess.run([probe, "fifo", fifo], capture_output=True)
        assert CLOCK.fullmatch(os.read(reader, 100))
    finally:
        os.close(reader)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_probe_says_which_path_it_cannot_open(probe: Path, tmp_path: Path):
    done = subprocess.run([probe, "fifo", tmp_path / "none"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert str(tmp_path / "none") in done.stderr


def test_probe_fails_when_nobody_hears_it(probe: Path):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([probe], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert b"write failed" in done.stderr


def test_probe_serves_on_all_addresses(probe: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen([probe, "serve", str(port)], stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout
            assert re.fullmatch(rb"r mono_ns=\d+\n", server.stdout.readline())
            for address in ("127.0.0.1", "::1"):
                if address == "::1" and not Path("/proc/net/if_inet6").exists():
                    continue
                for _ in range(2):
                    with socket.create_connection((address, port), timeout=10) as link:
                        assert link.recv(16) == b"r"
                        assert link.recv(16) == b""
            again = subprocess.run([probe, "serve", str(port)], capture_output=True, timeout=10)
            assert (again.returncode, again.stdout) == (1, b"")
            assert b"cannot be opened" in again.stderr
        finally:
            server.kill()


@x86
def test_probe_needs_the_privilege_for_its_port(probe: Path, ordinary_user: list[str]):
    done = subprocess.run([*ordinary_user, probe, "port"], capture_output=True)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"CAP_SYS_RAWIO" in done.stderr


@pytest.mark.parametrize(
    "words",
    ["hello", "fifo", "fifo a b", "debugcon x", "", "serve", "serve 0", "serve 65536", "serve 7x"],
)
def test_probe_usage(probe: Path, words: str):
    done = subprocess.run([probe, *words.split(" ")], capture_output=True)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"usage: ")


@x86
@pytest.mark.parametrize("mode", ["debugcon", "debugcon-reboot"])
def test_probe_does_nothing_to_a_host(probe: Path, mode: str):
    """Not the first process of a machine: neither a port nor reboot(2) is touched."""
    done = subprocess.run([probe, mode], capture_output=True)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"init of a virtual machine" in done.stderr


def program_headers(path: Path) -> list[int]:
    """Their types, of a little-endian 64-bit ELF file (elf(5))."""
    data = path.read_bytes()
    assert data[:6] == b"\x7fELF\x02\x01"
    table, size, count = (
        int.from_bytes(data[at : at + width], "little") for at, width in ((32, 8), (54, 2), (56, 2))
    )
    places = range(table, table + size * count, size)
    return [int.from_bytes(data[at : at + 4], "little") for at in places]


def test_probe_is_static_and_small(probe: Path):
    assert program_headers(probe).count(1) == 1  # PT_LOAD
    assert 3 not in program_headers(probe)  # PT_INTERP
    assert probe.stat().st_size < 4096


def test_probe_does_nothing_before_its_signal(probe: Path):
    strace = shutil.which("strace")
    if not strace:
        pytest.skip("strace is not installed: apt install strace")
    done = subprocess.run([strace, probe], capture_output=True, text=True)
    if "ptrace" in done.stderr and "Operation not permitted" in done.stderr:
        pytest.skip("this host does not allow ptrace")
    calls = re.findall(r"^(\w+)\(", done.stderr, re.MULTILINE)
    assert calls == ["execve", "clock_gettime", "write", "exit_group"]


# --- the guests --------------------------------------------------------------------------------


class Machine:
    """A QEMU whose debug console at port 0xe9 is a socket of ours."""

    def __init__(self, directory: Path, words: list[str]) -> None:
        path = directory / "console"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            server.listen(1)
            server.settimeout(20)
            self.began = time.monotonic()
            self.process = subprocess.Popen(
                [
                    QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                    "-m", "512", "-chardev", f"socket,id=console,path={path}",
                    "-device", "isa-debugcon,iobase=0xe9,chardev=console", *words,
                ],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )  # fmt: skip
            try:
                self.console, _ = server.accept()
            except TimeoutError:
                self.end()
                raise

    def line(self, limit_s: float) -> bytes:
        """What was heard up to a newline, the console's end, or the limit."""
        self.console.settimeout(limit_s)
        heard = b""
        with contextlib.suppress(TimeoutError):
            while b"\n" not in heard:
                more = self.console.recv(100)
                if not more:
                    break
                heard += more
        print(f"heard {heard!r} after {time.monotonic() - self.began:.2f} s")
        return heard

    def end(self) -> str:
        """Destroy it; returns what QEMU had to say."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        assert self.process.stderr
        if not self.process.stderr.closed:
            with self.process.stderr as words:
                self.words = words.read().decode(errors="replace")
        return self.words


@pytest.fixture
def machine(tmp_path: Path):
    if not QEMU:
        pytest.skip("qemu-system-x86_64 is not installed: sudo ./workshop setup")
    machines: list[Machine] = []

    def start(words: list[str]) -> Machine:
        machines.append(Machine(tmp_path, words))
        return machines[-1]

    yield start
    for each in machines:
        each.end()
        each.console.close()


def nano(images: Path) -> list[str]:
    needs(images, "nano/nano.img")
    image = images / "nano/nano.img"
    return ["-M", "pc", "-drive", f"if=floppy,format=raw,readonly=on,file={image}"]


@x86
def test_nano_is_a_boot_sector(images: Path):
    needs(images, "nano/nano.img")
    sector = (images / "nano/nano.img").read_bytes()
    assert len(sector) == 512
    assert sector[-2:] == b"\x55\xaa"


@x86
@pytest.mark.vm
def test_nano_signals(images: Path, machine):
    assert machine([*nano(images), "-accel", "tcg"]).line(NANO_LIMIT_S) == b"n\n"


@x86
@pytest.mark.vm
def test_nano_signals_under_kvm(images: Path, machine):
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("/dev/kvm is not there, or not for this user")
    started = machine([*nano(images), "-accel", "kvm"])
    heard = started.line(KVM_LIMIT_S)
    if heard != b"n\n" and os.path.isdir("/sys/module/kvm_pvm"):
        pytest.skip(
            f"this KVM is nested PVM, which only emulates firmware: {started.end().strip()}"
        )
    assert heard == b"n\n", started.end()


def linux(images: Path, tier: str, root: str, kernel: str = "kernel/vmlinux") -> list[str]:
    initramfs = f"initramfs/{root}.cpio"
    needs(images, kernel, initramfs)
    words = {"micro": "microvm,acpi=off", "direct": "q35,acpi=off"}[tier]
    return [
        "-M", words, "-accel", "tcg", "-kernel", str(images / kernel),
        "-initrd", str(images / initramfs),
        "-append", manifest(images)["command_lines"][tier],
    ]  # fmt: skip


@x86
@pytest.mark.vm
@pytest.mark.slow
@pytest.mark.parametrize(
    ("tier", "root", "kernel"),
    [
        ("micro", "busybox", "kernel/vmlinux"),
        ("micro", "debian", "kernel/vmlinux"),
        ("direct", "busybox", "kernel/vmlinuz"),
    ],
)
def test_linux_guest_signals(images: Path, machine, tier: str, root: str, kernel: str):
    """The probe is the guest's first process; its clock is the guest's, which began after ours."""
    started = machine(linux(images, tier, root, kernel))
    found = CLOCK.fullmatch(started.line(LINUX_LIMIT_S))
    assert found, started.end()
    assert 0 < int(found[1]) / 1e9 < time.monotonic() - started.began
    assert started.process.poll() is None, "it waits to be destroyed"


@x86
@pytest.mark.vm
@pytest.mark.slow
def test_linux_guest_can_end_its_machine(images: Path, machine):
    words = linux(images, "micro", "busybox")
    words[-1] = words[-1].replace("-- debugcon", "-- debugcon-reboot")
    started = machine(words)
    assert CLOCK.fullmatch(started.line(LINUX_LIMIT_S))
    assert started.process.wait(10) == 0


# --- the trees and their archives --------------------------------------------------------------


def tree_entries(top: Path) -> dict[str, tuple]:
    """path: (mode, uid, gid, link or content or None, the other names of the same file)."""
    found: dict[str, tuple] = {}
    names: dict[int, set[str]] = {}
    for path in top.rglob("*"):
        status = path.lstat()
        content = None
        if stat.S_ISLNK(status.st_mode):
            content = os.fsencode(os.readlink(path))
        elif stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        name = str(path.relative_to(top))
        names.setdefault(status.st_ino, set()).add(name)
        own = status.st_uid == os.geteuid(), status.st_gid == os.getegid()
        owner = 0 if own[0] else status.st_uid, 0 if own[1] else status.st_gid
        found[name] = (status.st_mode, *owner, content, names[status.st_ino])
    return found


def archive_entries(path: Path) -> dict[str, tuple]:
    """The same of a newc archive: a second reading of cpio(5), independent of the writer."""
    data = path.read_bytes()
    found: dict[str, tuple] = {}
    contents: dict[int, bytes] = {}
    names: dict[int, set[str]] = {}
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        inode, mode, uid, gid, links, _, size, *_, length, check = fields
        name = os.fsdecode(data[at + 110 : at + 110 + length - 1])
        at += -(-(110 + length) // 4) * 4
        content = data[at : at + size]
        at += -(-size // 4) * 4
        assert check == 0
        if name == "TRAILER!!!":
            assert at == len(data)
            assert list(found) == sorted(found, key=lambda path: path.split("/"))
            break
        names.setdefault(inode, set()).add(name)
        if size or not stat.S_ISREG(mode):
            contents[inode] = content
        found[name] = (mode, uid, gid, inode, links)
    entries = {}
    for name, (mode, uid, gid, inode, links) in found.items():
        content = contents.get(inode, b"")
        assert stat.S_ISDIR(mode) or links == len(names[inode])
        entries[name] = (mode, uid, gid, None if stat.S_ISDIR(mode) else content, names[inode])
    return entries


@pytest.mark.parametrize("root", ["busybox", "debian"])
def test_initramfs_is_the_tree(images: Path, root: str):
    needs(images, f"roots/{root}", f"initramfs/{root}.cpio")
    archived = archive_entries(images / f"initramfs/{root}.cpio")
    tree = tree_entries(images / "roots" / root)
    assert archived.keys() == tree.keys()
    assert not {name for name in tree if archived[name] != tree[name]}


@pytest.mark.parametrize("root", ["busybox", "debian"])
def test_cpio_reads_the_initramfs(images: Path, root: str):
    if not shutil.which("cpio"):
        pytest.skip("cpio is not installed: apt install cpio")
    needs(images, f"initramfs/{root}.cpio")
    with open(images / f"initramfs/{root}.cpio", "rb") as archive:
        done = subprocess.run(["cpio", "-it"], stdin=archive, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.splitlines()) == tree_entries(images / "roots" / root).keys()


@pytest.mark.parametrize("root", ["busybox", "debian"])
def test_tree_has_what_runtimes_expect(images: Path, root: str):
    needs(images, f"roots/{root}")
    tree = images / "roots" / root
    assert (tree / "probe").read_bytes() == (images / "probe/probe").read_bytes()
    for name in ("proc", "sys", "dev", "run", "tmp"):
        assert (tree / name).is_dir()
    assert not list((tree / "dev").iterdir())
    assert (tree / "etc/resolv.conf").read_text() == ""
    assert (tree / "etc/hostname").read_text() == f"{root}\n"
    assert os.readlink(tree / "bin/sh" if root == "busybox" else tree / "bin")
    assert "root:x:0:0:" in (tree / "etc/passwd").read_text()


def test_modules_come_behind_those_that_they_need(images: Path):
    needs(images, "kernel/modules.cpio")
    files = archive_entries(images / "kernel/modules.cpio")
    there: set[str] = set()
    for name in sorted(name for name in files if name.endswith(".ko")):
        content = files[name][3]
        assert content.startswith(b"\x7fELF")
        depends = re.search(rb"\0depends=([^\0]*)\0", content)
        assert depends, name
        assert set(filter(None, depends[1].decode().split(","))) <= there
        there.add(name.partition("-")[2].removesuffix(".ko"))
    assert "overlay" in there


def test_busybox_runs_in_its_tree(images: Path):
    needs(images, "roots/busybox")
    tree = images / "roots/busybox"
    user = [] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user"]
    script = "set -e; id -un; ls /usr/bin/env /sbin/init /bin/busybox; /probe"
    done = subprocess.run([*user, "chroot", tree, "/bin/sh", "-c", script], capture_output=True)
    assert done.stdout.startswith(b"root\n"), done
    assert CLOCK.search(done.stdout)


# --- the whole machine's disk ------------------------------------------------------------------

SECTOR, FIRST_SECTOR = 512, 2048


@pytest.fixture
def disk(images: Path) -> Path:
    needs(images, "full/debian.raw")
    return images / "full/debian.raw"


def test_disk_has_a_boot_loader_and_one_partition(disk: Path):
    with open(disk, "rb") as file:
        start = file.read(FIRST_SECTOR * SECTOR)
    assert start[510:512] == b"\x55\xaa"
    assert b"GRUB" in start[:440]
    status, kind = start[446], start[450]
    first, count = (int.from_bytes(start[at : at + 4], "little") for at in (454, 458))
    assert (status, kind, first) == (0x80, 0x83, FIRST_SECTOR)
    assert (first + count) * SECTOR == disk.stat().st_size
    assert start[462:510] == bytes(48), "no second partition"


def debugfs(disk: Path, request: str) -> str:
    done = subprocess.run(
        ["/sbin/debugfs", "-R", request, f"{disk}?offset={FIRST_SECTOR * SECTOR}"],
        capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout


def test_disk_has_the_tree_of_a_machine(disk: Path, images: Path, tmp_path: Path):
    debugfs(disk, f"dump /probe {tmp_path}/probe")
    assert (tmp_path / "probe").read_bytes() == (images / "probe/probe").read_bytes()
    assert "/probe port" in debugfs(disk, "cat /etc/systemd/system/probe.service")
    assert "Fast link dest" in debugfs(disk, "stat /vmlinuz")
    assert debugfs(disk, "cat /etc/machine-id") == "", "each machine makes its own"
    for path in ("/", "/probe", "/usr/bin/dpkg"):
        said = debugfs(disk, f"stat {path}")
        assert re.search(r"User: +0 +Group: +0", said)
        assert not re.search(r"time: .*-- .* (202[1-9]|20[3-9]\d)$", said, re.MULTILINE), said


def test_file_system_of_the_disk_is_sound(disk: Path, tmp_path: Path):
    partition = tmp_path / "partition"
    words = ["dd", f"if={disk}", f"of={partition}", "bs=1M", "skip=1", "conv=sparse", "status=none"]
    subprocess.run(words, check=True)
    done = subprocess.run(["/sbin/e2fsck", "-f", "-n", partition], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_same_tree_gives_the_same_disk(private: Path):
    needs(private, "full/debian.raw")
    entry = manifest(private)["artifacts"]["full/debian.raw"]
    (private / "full/debian.raw").unlink()
    done = build("full", "--json", cache=private.parent)
    assert built(done) == {"full/debian.raw"}, done.stderr
    assert manifest(private)["artifacts"]["full/debian.raw"]["sha256"] == entry["sha256"]


def test_workshop_is_built_only_when_it_is_named(private: Path):
    assert "workshop/workshop.qcow2" not in build("--json", cache=private.parent).stdout
    listed = build("list", cache=private.parent).stdout
    assert re.search(r"workshop/workshop\.qcow2 .*(not built yet|up to date|changed)", listed)


START = [sys.executable, str(REPOSITORY / "vm-images/start.py"), "workshop"]


def test_start_says_what_is_missing(tmp_path: Path):
    done = subprocess.run([*START, "--image", tmp_path / "none"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "build.py workshop builds it" in done.stderr


def test_start_ends_with_its_machine(tmp_path: Path, images: Path):
    """An image that boots into nothing: no accelerator brings it to life, and each is told."""
    if not QEMU:
        pytest.skip("qemu-system-x86_64 is not installed: sudo ./workshop setup")
    image = tmp_path / "image.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "1M"], check=True)
    words = [*START, "--image", image, "--accel", "tcg", "--memory", "64"]
    with subprocess.Popen(words, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 20
        while not (found := children(process.pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert found
    assert ends(found[0]), "QEMU ends with it"


def children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(word) for word in text.split()]
    return []


# --- building ----------------------------------------------------------------------------------


def states(directory: Path) -> dict[str, tuple]:
    """What would change if anything were written: inode, times, size of everything."""
    found = {}
    for path in [directory, *directory.rglob("*")]:
        status = path.lstat()
        found[str(path)] = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
    return found


def test_second_build_touches_nothing(private: Path):
    before = states(private)
    took = []
    for _ in range(3):
        began = time.monotonic()
        done = build(cache=private.parent)
        took.append(time.monotonic() - began)
        assert done.returncode == 0, done.stderr
        assert "up to date" in done.stderr
    assert states(private) == before
    assert min(took) < 1


def test_same_inputs_give_the_same_bytes(private: Path):
    before = {path: entry["sha256"] for path, entry in manifest(private)["artifacts"].items()}
    kernel = str(SHARED / "kernel/vmlinuz")  # no network
    for group in ("probe", "nano", "micro"):
        done = build(group, "--force", "--json", cache=private.parent, MINICONTAINER_KERNEL=kernel)
        assert done.returncode == 0, done.stderr
        assert built(done) <= before.keys()
    after = {path: entry["sha256"] for path, entry in manifest(private)["artifacts"].items()}
    assert after == before


def test_only_what_depends_on_a_change_is_built(private: Path):
    before = states(private)
    done = build("--json", cache=private.parent, CC="gcc -Wl,-z,stack-size=65536")
    assert done.returncode == 0, done.stderr
    assert built(done) == {
        "probe/probe", "roots/busybox", "roots/debian", "initramfs/busybox.cpio",
        "initramfs/debian.cpio", "full/debian.raw",
    }  # fmt: skip
    after = states(private)
    for path in ("nano/nano.img", "base/debian.tar", "kernel/vmlinuz", "kernel/vmlinux"):
        assert after[str(private / path)] == before[str(private / path)]
    new = (private / "probe/probe").read_bytes()
    assert new != (SHARED / "probe/probe").read_bytes()
    for root in ("busybox", "debian"):
        assert archive_entries(private / f"initramfs/{root}.cpio")["probe"][3] == new


def test_change_without_effect_ends_there(private: Path):
    done = build("--json", cache=private.parent, CC="gcc -DUNUSED")
    assert built(done) == {"probe/probe"}, done.stderr


def test_modified_tree_is_made_again(private: Path):
    (private / "roots/busybox/stray").write_text("a container wrote this")
    done = build("--json", cache=private.parent)
    assert built(done) == {"roots/busybox"}
    assert "modified since it was built" in done.stderr
    assert not (private / "roots/busybox/stray").exists()
    assert build(cache=private.parent).stderr.count("up to date") == 1


def test_manifest_says_what_was_built(private: Path):
    found = manifest(private)
    assert found["schema"] == 1
    assert found["command_lines"].keys() == {"micro", "direct", "full"}
    for path, entry in found["artifacts"].items():
        assert re.fullmatch("[0-9a-f]{64}", entry["sha256"]), path
        assert entry["bytes"] > 0
        assert entry["inputs"]
        time.strptime(entry["built_utc"], "%Y-%m-%dT%H:%M:%SZ")
    assert "gcc" in found["artifacts"]["probe/probe"]["versions"]["compiler"]


def test_list_and_help(private: Path):
    done = build("list", cache=private.parent)
    assert done.returncode == 0
    default = [path for path in manifest(private)["artifacts"] if "workshop" not in path]
    lines = [line for line in done.stdout.splitlines() if "workshop" not in line]
    assert sum("up to date" in line for line in lines) == len(default)
    listed = json.loads(build("list", "--json", cache=private.parent).stdout)
    assert listed["manifest"] == manifest(private)
    assert "examples:" in build("--help").stdout
    assert build("everything").returncode == 2


@pytest.mark.parametrize("compiler", ["false", "no-such-compiler", "cat"])
def test_broken_compiler(private: Path, compiler: str):
    for path in ("probe", "roots/busybox"):
        shutil.rmtree(private / path)
    done = build("roots", "--json", cache=private.parent, CC=compiler)
    assert done.returncode == 1
    assert "FAILED probe/probe: " in done.stderr
    assert compiler in done.stderr
    assert re.search("to mend it: .*workshop setup", done.stderr)
    assert "FAILED roots/busybox: it needs probe/probe" in done.stderr
    assert not (private / "probe").exists()
    done = build(cache=private.parent)
    assert done.returncode == 0, done.stderr


def test_others_are_built_with_the_old_one(private: Path):
    """A compiler that is broken now does not take away the probe of yesterday."""
    shutil.rmtree(private / "roots/busybox")
    done = build("roots", "--json", cache=private.parent, CC="false")
    assert done.returncode == 1
    assert built(done) == {"roots/busybox"}


def slow_compiler(directory: Path) -> dict[str, str]:
    """A compiler that writes half a program, says so on a FIFO, and waits for another one."""
    script = directory / "slow-cc"
    for fifo in ("begun", "go"):
        os.mkfifo(directory / fifo)
    script.write_text(
        '#!/bin/sh\n[ "$1" != --version ] || exec gcc --version\n'
        f'for word; do last=$out out=$word; case $last in -o) printf half >"$word" ;; esac; done\n'
        f"echo $$ >{directory}/begun\nread -r _ <{directory}/go\n"
        'exec gcc "$@"\n'
    )
    script.chmod(0o755)
    return {"CC": str(script)}


def started(cache: Path, variables: dict[str, str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "MINICONTAINER_CACHE": str(cache), **variables}
    return subprocess.Popen([*BUILD, "probe"], stderr=subprocess.PIPE, text=True, env=environment)


def ends(pid: int, limit_s: float = 10) -> bool:
    deadline = time.monotonic() + limit_s
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.01)
    return not os.path.exists(f"/proc/{pid}")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_interrupted_build_leaves_nothing_half_made(tmp_path: Path, number: signal.Signals):
    cache = tmp_path / "cache"
    first = started(cache, slow_compiler(tmp_path))
    compiler = int((tmp_path / "begun").read_text())
    first.send_signal(number)
    code = first.wait(30)
    assert code == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert ends(compiler), "the compiler ends with its builder"
    assert not (cache / "vm-images/probe").exists()
    assert (cache / "vm-images/.building").exists() == (number == signal.SIGKILL)
    done = build("probe", cache=cache)
    assert done.returncode == 0, done.stderr
    assert subprocess.run([cache / "vm-images/probe/probe"], capture_output=True).returncode == 0
    assert not (cache / "vm-images/.building").exists()


def test_interrupted_build_keeps_the_old_artifact(private: Path, tmp_path: Path):
    old = (private / "probe/probe").read_bytes()
    first = started(private.parent, slow_compiler(tmp_path))
    (tmp_path / "begun").read_text()
    first.kill()
    first.wait()
    assert (private / "probe/probe").read_bytes() == old
    done = build(cache=private.parent)
    assert "up to date" in done.stderr


def test_second_build_waits_for_the_first(tmp_path: Path):
    cache = tmp_path / "cache"
    variables = slow_compiler(tmp_path)
    first = started(cache, variables)
    (tmp_path / "begun").read_text()
    second = started(cache, variables)
    assert second.stderr
    assert "waiting for it" in second.stderr.readline()
    (tmp_path / "go").write_text("go\n")
    assert first.wait(30) == 0
    words = second.communicate(timeout=30)[1]
    assert second.returncode == 0
    assert "not built yet" not in words, "the first had built it"


@pytest.mark.root
def test_full_disk_is_said(tmp_path: Path):
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    inside = f'mount -t tmpfs -o size=1m none "{tmp_path}" && exec "$@"'
    before = ["unshare", "--mount", "sh", "-c", inside, "sh"]
    done = build("roots", cache=tmp_path, before=before)
    assert done.returncode == 1
    for path in ("roots/busybox", "base/debian.tar"):
        assert f"FAILED {path}: No space left on device" in done.stderr
    assert re.search(r"to mend it: \d+ MB are free .*MINICONTAINER_CACHE", done.stderr)


@pytest.mark.root
def test_tree_with_a_mount_in_it_is_never_deleted(private: Path, tmp_path: Path):
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("precious")
    (private / "roots/busybox/stray").write_text("so that it has to be made again")
    inside = f'mount --bind "{precious}" "{private}/roots/busybox/tmp" && exec "$@"'
    before = ["unshare", "--mount", "sh", "-c", inside, "sh"]
    done = build("roots", cache=private.parent, before=before)
    assert done.returncode == 1
    assert "is mounted there" in done.stderr
    assert (precious / "file").read_text() == "precious"


def test_unwritable_cache_is_said(tmp_path: Path):
    (tmp_path / "file").write_text("")
    done = build("probe", cache=tmp_path / "file")
    assert done.returncode == 1
    assert "cannot write to" in done.stderr
    assert "MINICONTAINER_CACHE" in done.stderr


@pytest.mark.rootless
def test_ordinary_user_builds_what_needs_no_root(tmp_path: Path, ordinary_user: list[str]):
    if not ordinary_user:
        pytest.skip("the whole file runs as an ordinary user")
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o777)
    cache.chmod(0o777)
    done = build("roots", cache=cache, before=ordinary_user)
    tree = cache / "vm-images/roots/busybox"
    assert (tree / "probe").stat().st_uid == (tree / "bin/busybox").stat().st_uid != 0
    debian = cache / "vm-images/roots/debian"
    if done.returncode:
        assert "a user without subordinate ids" in done.stderr
        assert "FAILED roots/debian" in done.stderr
        assert not debian.exists()
    else:  # root had made base/debian.tar of the same recipe
        assert (debian / "probe").stat().st_uid != 0
