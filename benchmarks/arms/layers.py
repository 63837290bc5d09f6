"""Copies of one root file system, and what a change to a copy costs: containers' layers on one
side, machines' disk images on the other. The same tree, the same bytes changed.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable

from benchmarks import roots
from benchmarks.arms.base import Arm, ArmFailed, Skip
from benchmarks.arms.docker import Docker
from benchmarks.arms.vm import VirtualMachine
from benchmarks.command import PATH, output_of
from benchmarks.version import first_line
from benchmarks.workdir import run_directory, storage_directory
from minicontainer.images import archive, layers, overlay
from minicontainer.images.commit import commit
from minicontainer.images.errors import ImageError
from minicontainer.images.store import Store
from minicontainer.kernel import syscalls

ROOT = "debian"
MIB = 1 << 20
CHANGED_MIB = 16
CHANGE = random.Random(CHANGED_MIB).randbytes(CHANGED_MIB * MIB)  # does not compress


class Copies(Arm):
    """An arm of the benchmark `images`: one life of a copy, in milliseconds and MiB."""

    root = ROOT

    def unavailable(self) -> Skip | None:
        return roots.missing(ROOT)

    def prepare(self) -> None:
        self.place = os.path.join(storage_directory(), self.name.replace(":", "-"))
        os.makedirs(self.place)
        self.change = os.path.join(self.place, "change")
        with open(self.change, "wb") as file:
            file.write(CHANGE)

    def life(self) -> dict[str, float]:
        """clone, commit, revert, snapshot (ms), unique, shared (MiB): those that this arm has.
        Leaves nothing behind. Raises ArmFailed.
        """
        raise NotImplementedError

    def close(self) -> None:
        if hasattr(self, "place") and os.path.lexists(self.place):
            layers.remove_tree(self.place)


class Layers(Copies):
    """This project's images: overlayfs over unpacked layers; a commit is one more layer."""

    kind = "container"
    runtime = "minicontainer"
    name = f"overlay:{ROOT}"

    def unavailable(self) -> Skip | None:
        if os.geteuid() != 0:
            return Skip("mounts in this process's own namespace need root", "use sudo")
        return super().unavailable()

    def prepare(self) -> None:
        super().prepare()
        self.params["how"] = "overlay mount; layer by commit, gzip; upper directory thrown away"
        self.store = Store(os.path.join(self.place, "store"))
        try:
            import_tree(self.store)
            self.image = self.store.image(ROOT)
            with self.store.lease():
                self.lower = layers.unpacked(self.store, self.image)
        except ImageError as error:
            raise ArmFailed(str(error)) from error

    def life(self) -> dict[str, float]:
        found = {}
        merged = os.path.join(self.place, "merged")
        try:
            found["clone"] = timed(self._mount)
            shutil.copyfile(self.change, os.path.join(merged, "change"))
            os.sync()
            found["unique"] = used_mib(os.path.join(self.place, "upper"))
            found["shared"] = sum(map(used_mib, self.lower))
            found["commit"] = timed(self._commit)
            found["revert"] = timed(self._revert)
        finally:
            self._unmount()
            self.store.gc()
        return found

    def _mount(self) -> None:
        for name in ("upper", "work", "merged"):
            os.mkdir(os.path.join(self.place, name))
        upper, work, merged = (
            os.path.join(self.place, name) for name in ("upper", "work", "merged")
        )
        overlay.mount(self.lower, merged, upper, work)

    def _commit(self) -> None:
        try:
            with self.store.lease():
                commit(self.store, self.image, os.path.join(self.place, "upper"))
        except ImageError as error:
            raise ArmFailed(str(error)) from error

    def _revert(self) -> None:
        self._unmount()
        self._mount()

    def _unmount(self) -> None:
        merged = os.path.join(self.place, "merged")
        if os.path.ismount(merged):
            syscalls.umount2(merged, syscalls.MNT_DETACH)
        for name in ("upper", "work", "merged"):
            path = os.path.join(self.place, name)
            if os.path.lexists(path):
                layers.remove_tree(path)

    def close(self) -> None:
        if hasattr(self, "place") and os.path.lexists(self.place):
            self._unmount()
        super().close()


class DockerLayers(Docker):
    """docker's layers, through its daemon: create, commit, and create again."""

    def __init__(self) -> None:
        super().__init__(ROOT)
        self.params["how"] = "docker create; docker commit; docker rm and create again"

    def prepare(self) -> None:
        super().prepare()
        self.change = os.path.join(run_directory(), "change")
        with open(self.change, "wb") as file:
            file.write(CHANGE)

    def life(self) -> dict[str, float]:
        name, image = self._name(), f"{self.image}-committed"
        remove = [*self.base, "rm", "--force", name]
        create = [*self.base, "create", "--name", name, "--network", "none", self.image, "/probe"]
        found = {}
        try:
            found["clone"] = timed_command(create)
            output_of([*self.base, "cp", self.change, f"{name}:/change"])
            sizes = "{{.SizeRw}} {{.SizeRootFs}}"
            said = output_of([*self.base, "inspect", "--size", "--format", sizes, name]).split()
            unique, whole = (int(number) / MIB for number in said)
            found.update(unique=unique, shared=whole - unique)
            found["commit"] = timed_command([*self.base, "commit", name, image])
            found["revert"] = timed_command(remove) + timed_command(create)
        finally:
            self._docker("rm", "--force", name)
            self._docker("rmi", "--force", image)
        return found


class Disks(Copies):
    """A machine's disk as qcow2 with a backing file; reverted by throwing the overlay away, or
    (`internal`) by a snapshot inside it.
    """

    kind = "vm"
    runtime = "qemu-img"
    disk_format = "qcow2"

    def __init__(self, internal: bool) -> None:
        super().__init__()
        self.internal = internal
        self.name = f"qcow2-{'snapshot' if internal else 'backing'}:{ROOT}"
        self.tool = shutil.which("qemu-img", path=PATH) or ""
        self.mkfs = shutil.which("mke2fs", path=PATH) or ""
        self.runtime_version = first_line(self.tool) if self.tool else ""
        self.params["how"] = (
            "qemu-img create -b; convert -B; "
            f"{'snapshot -c and -a' if internal else 'create -b again'}"
        )

    def unavailable(self) -> Skip | None:
        if not self.tool:
            return Skip("qemu-img is not installed", "apt-get install qemu-utils")
        if not self.mkfs:
            return Skip("mke2fs is not installed", "apt-get install e2fsprogs")
        return super().unavailable()

    def prepare(self) -> None:
        super().prepare()
        raw, self.base = (os.path.join(self.place, name) for name in ("base.raw", "base.qcow2"))
        self.disk = os.path.join(self.place, "disk.qcow2")
        # A fifth and the change more than its content: tables, a journal, and room.
        size = int(used_mib(roots.tree(ROOT)) * 1.2) + 2 * CHANGED_MIB
        fill = ["-q", "-F", "-t", "ext4", "-m", "0", "-d", roots.tree(ROOT), raw, f"{size}M"]
        output_of([self.mkfs, *fill])
        self.at = size - CHANGED_MIB - 1
        output_of([self.tool, "convert", "-O", "qcow2", raw, self.base])
        os.unlink(raw)
        self.create = [self.tool, "create", "-q", "-f", "qcow2", "-b", self.base, "-F", "qcow2"]

    def life(self) -> dict[str, float]:
        committed = os.path.join(self.place, "committed.qcow2")
        convert = [self.tool, "convert", "-O", "qcow2", "-B", self.base, "-F", "qcow2"]
        found = {}
        try:
            found["clone"] = timed_command([*self.create, self.disk])
            if self.internal:
                found["snapshot"] = timed_command([self.tool, "snapshot", "-c", "one", self.disk])
            writes = f"write -q -s {self.change} {self.at}M {CHANGED_MIB}M"
            output_of([self.tool.replace("qemu-img", "qemu-io"), "-c", writes, self.disk])
            os.sync()
            found["unique"] = used_mib(self.disk)
            found["shared"] = used_mib(self.base)
            found["commit"] = timed_command([*convert, self.disk, committed])
            revert = [self.tool, "snapshot", "-a", "one"] if self.internal else self.create
            found["revert"] = timed_command([*revert, self.disk])
        finally:
            for path in (self.disk, committed):
                if os.path.exists(path):
                    os.unlink(path)
        return found


class Snapshots(Copies):
    """A running machine of the full tier: libvirt keeps its memory, its devices and its disk, and
    brings it back to them.
    """

    kind = "vm"
    tier = "full"
    runtime = "libvirt/qemu"
    name = f"libvirt-snapshot:{ROOT}"

    def __init__(self) -> None:
        super().__init__()
        self.vm = VirtualMachine(self.tier, ROOT)
        self.tool = self.vm.tool
        self.params["how"] = "virDomainSnapshotCreateXML of a running machine, memory included"

    def unavailable(self) -> Skip | None:
        return self.vm.unavailable()

    def prepare(self) -> None:
        self.vm.prepare()
        self.accel, self.runtime_version = self.vm.accel, self.vm.runtime_version

    def life(self) -> dict[str, float]:
        with self.vm.machine(kept=True) as machine:
            machine.start(self.vm.timeout_s)
            before = used_mib(machine.disk.path)
            found = {"snapshot": timed(lambda: machine.snapshot("one"))}
            found["unique"] = used_mib(machine.disk.path) - before
            found["shared"] = used_mib(roots.disk(ROOT))
            found["revert"] = timed(lambda: machine.revert("one"))
        return found

    def fix_for(self, failure: str) -> str:
        return self.vm.fix_for(failure)


def import_tree(store: Store) -> None:
    """The root tree as an image of one layer."""
    words = ["tar", "--directory", roots.tree(ROOT), "--create", "--one-file-system", "."]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as tar:
        archive.import_tar(store, tar.stdout, ROOT)


def used_mib(path: str) -> float:
    """Blocks on the disk, of a file or of everything below a directory."""
    blocks = os.lstat(path).st_blocks
    for where, directories, files in os.walk(path):
        blocks += sum(os.lstat(os.path.join(where, name)).st_blocks for name in directories + files)
    return blocks * 512 / MIB


def timed(work: Callable[[], None]) -> float:
    """Milliseconds of one call of this process."""
    began = time.monotonic_ns()
    work()
    return (time.monotonic_ns() - began) / 1e6


def timed_command(words: list[str]) -> float:
    """Milliseconds of one command to its end. Raises ArmFailed."""
    from benchmarks.held import over

    asked, ended = over(words)
    return (ended - asked) / 1e6


def layer_arms() -> list[Arm]:
    return [Layers(), DockerLayers(), Disks(internal=False), Disks(internal=True), Snapshots()]
