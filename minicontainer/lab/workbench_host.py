"""The workbench's own root file system and its mounts: a small host, built by its PID 1.

In memory; of the machine only programs and libraries are bound into it, read-only.
"""

from __future__ import annotations

import os
import sys

from ..kernel import cgroups, mounts, syscalls
from ..kernel.syscalls import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
)
from ..runtime import steps, steps_files
from . import elf
from .workbench_limits import write

HOSTNAME = "workbench"
# Where the package is inside; the notebook's functions import from it.
PACKAGE = "/opt/minicontainer"
DYNAMIC_PROGRAM = "/opt/dynamic/ls"


def lend(package: str) -> None:
    """Put what is needed of the host together at /tmp, read-only, in a mount namespace of ours.

    The keeper's work: it may go where the workbench's root may not, as into a clone below /root.
    And what it sets read-only here is locked for the workbench, whose user namespace is another.
    """
    mounts.set_propagation("/", MS_REC | MS_PRIVATE)
    # /tmp is covered in the end; what is below it is open by now.
    parts = {target: os.open(path, os.O_PATH) for target, path in host_parts(package)}
    syscalls.mount("lent", "/tmp", "tmpfs", MS_NODEV, "size=1m,mode=755")
    root = os.open("/tmp", os.O_PATH | os.O_DIRECTORY)
    for target, fd in parts.items():
        read_only = MS_BIND | MS_REC | MS_RDONLY
        mounts.mount_in_root(root, f"/proc/self/fd/{fd}", target, None, read_only, None)
        os.close(fd)
    for point in mounts_on("/tmp"):  # a bind sets the flags of its topmost mount alone
        mounts.remount_bind_in_root(root, point, MS_RDONLY)
    os.close(root)


def build(busybox: str, group: cgroups.Group) -> None:
    """A root of our own, in memory; of the host only what the keeper lends."""
    mounts.set_propagation("/", MS_REC | MS_PRIVATE)
    parts = {path: os.open(f"/tmp{path}", os.O_PATH) for path in mounts_on("/tmp", nested=False)}
    program = os.open(busybox, os.O_RDONLY)
    # The new root covers /tmp until it is the root; what is below /tmp is open by now.
    syscalls.mount("workbench", "/tmp", "tmpfs", MS_NODEV, "size=128m,mode=755")
    root = os.open("/tmp", os.O_PATH | os.O_DIRECTORY)
    for target, fd in parts.items():
        source = f"/proc/self/fd/{fd}"
        mounts.mount_in_root(root, source, target, None, MS_BIND | MS_REC, None)
    system_mounts(root)
    cgroup_mounts(root, group)
    furnish("/tmp", program)
    for name in ("lib", "lib32", "lib64", "sbin"):
        if os.path.islink(f"/{name}"):  # merged /usr: /lib64 -> usr/lib64
            os.symlink(os.readlink(f"/{name}"), f"/tmp/{name}")
    mounts.pivot_root("/tmp")
    for fd in (root, *parts.values()):
        os.close(fd)  # each is a way back: openat(fd, "..")
    for applet in output_of(["/bin/busybox", "--list"]).split():
        if applet != "busybox":
            os.symlink("busybox", f"/bin/{applet}")
    copy_dynamic_program()


def host_parts(package: str) -> list[tuple[str, str]]:
    """(path inside, path on the host) of the directories and files that programs need."""
    wanted = ["/usr", "/etc/ld.so.cache"]
    # Not merged into /usr: directories of their own.
    wanted += [d for d in ("/lib", "/lib32", "/lib64", "/sbin") if not os.path.islink(d)]
    if not sys.base_prefix.startswith("/usr"):
        wanted.append(sys.base_prefix)
    parts = [(path, path) for path in wanted]
    # What compresses images and speaks to registries: where `libraries.find` looks for it.
    site = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    environment = os.path.dirname(os.path.dirname(sys.executable))
    parts.append((f"{PACKAGE}/.venv/{site}", f"{environment}/{site}"))
    found = [(inside, path) for inside, path in parts if os.path.exists(path)]
    return [*found, (f"{PACKAGE}/minicontainer", package)]


def mounts_on(place: str, nested: bool = True) -> list[str]:
    """The mount points on the topmost mount at `place`, without its name.

    nested: those on these, too.
    By mount ids, not by paths: below `place` may be mounts of the host too, which it covers now
    (proc_pid_mountinfo(5)).
    """
    top, tree = "", {}  # mount id -> path below `place`
    with open("/proc/self/mountinfo") as file:
        for line in file:
            number, parent, _, _, point = line.split()[:5]
            path = point.encode().decode("unicode_escape")  # a space is \040
            if path == place:
                top, tree = number, {number: ""}
            elif parent == top or (nested and parent in tree):
                tree[number] = path.removeprefix(place)
    return list(filter(None, tree.values()))


def system_mounts(root: int) -> None:
    """/proc, /sys and /dev as a host has them, of our own namespaces."""
    nothing = MS_NOSUID | MS_NODEV | MS_NOEXEC
    mounts.mount_in_root(root, "proc", "/proc", "proc", nothing, None)
    try:
        mounts.mount_in_root(root, "sysfs", "/sys", "sysfs", nothing | MS_RDONLY, None)
    except PermissionError:  # parts of the host's are covered: inside docker or podman
        mounts.mount_in_root(root, "/sys", "/sys", None, nothing | MS_BIND | MS_REC, None)
    # In memory like the root: the device nodes are the host's, bound.
    context = steps.Context()
    context.root_fd = root
    for path, fstype, data in (
        ("/dev", "tmpfs", "mode=755,size=64k"),
        ("/dev/pts", "devpts", "newinstance,ptmxmode=0666,mode=0620"),
        ("/dev/shm", "tmpfs", "mode=1777,size=16m"),
    ):
        mounts.mount_in_root(root, fstype, path, fstype, MS_NOSUID | MS_NOEXEC, data)
    steps_files.Devices([], bind=True).apply(context)


def cgroup_mounts(root: int, group: cgroups.Group) -> None:
    """/sys/fs/cgroup, as this host has it, with the workbench's own group as the topmost."""
    context = steps.Context()
    context.root_fd = root
    if group.directories:
        wanted, links = cgroups.container_mounts(group, own_namespace=True, read_only=False)
        for mount in wanted:
            steps_files.Mount(mount, "").apply(context)
        for target, path in links:
            os.symlink(target, f"/tmp{path}")


def furnish(root: str, program: int) -> None:
    """The plain files of a small host."""
    for name in ("bin", "home", "mnt", "root", "run", "srv", "tmp", "var"):
        os.makedirs(f"{root}/{name}")
    os.chmod(f"{root}/tmp", 0o1777)
    os.makedirs(f"{root}/etc", exist_ok=True)
    write(f"{root}/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    write(f"{root}/etc/group", "root:x:0:\n")
    write(f"{root}/etc/hostname", f"{HOSTNAME}\n")
    write(f"{root}/etc/hosts", f"127.0.0.1 localhost {HOSTNAME}\n")
    copy(program, f"{root}/bin/busybox")
    # The launcher of the package would take the host's python3, which may be older than ours.
    command = f"exec {python()} -I -S {PACKAGE}/minicontainer/__main__.py"
    write(f"{root}/bin/minicontainer", f'#!/bin/sh\n{command} "$@"\n')
    os.chmod(f"{root}/bin/minicontainer", 0o755)


def copy_dynamic_program() -> None:
    """A program of the host that needs a loader, under a name that is the same everywhere.

    `ls` may be a script or a link to one program for all (coreutils, busybox on Alpine), which
    looks at the name that it is called by.
    """
    for path in ("/usr/bin/ls", "/usr/bin/coreutils", "/usr/bin/env"):
        if os.path.exists(path) and elf.interpreter(path):
            os.makedirs(os.path.dirname(DYNAMIC_PROGRAM))
            copy(os.open(path, os.O_RDONLY), DYNAMIC_PROGRAM)
            return


def python() -> str:
    """The interpreter of the virtual environment, if we are in one: `sys.base_prefix` is bound."""
    return getattr(sys, "_base_executable", "") or sys.executable


def import_from_inside() -> None:
    """Have this package's modules, and Python itself, found where they lie now."""
    sys.path[0] = PACKAGE
    sys.executable = python()
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "minicontainer" and hasattr(module, "__path__"):
            module.__path__ = [f"{PACKAGE}/{name.replace('.', '/')}"]


def copy(source: int, target: str) -> None:
    """Copy an open file into a new program; closes it."""
    with open(source, "rb") as file, open(target, "wb") as new:
        new.write(file.read())
        os.fchmod(new.fileno(), 0o755)


def output_of(args: list[str]) -> str:
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(write_fd, 1)
        os.execv(args[0], args)
    os.close(write_fd)
    with open(read_fd) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return text
