"""What a cell must not be able to do to the machine, each tried.

    python -m tests.workbench_attacks PID

Run by test_lab_walls.py, as root and as an ordinary user. PID: of a process of the host. Prints, as
JSON, what each attack came to: its error, or "" for one that worked. An attack that works does no
harm: it writes what is there already, or an empty file, or ends that process.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import json
import os
import signal
import sys
import time

from minicontainer.kernel import namespaces, syscalls, userns
from minicontainer.lab.workbench import Workbench

TRACE = "by-the-workbench"  # the name of each file that an attack may leave
LENT = ("/usr", "/opt/minicontainer/minicontainer")  # of the host, bound into the workbench


def call(number: int, *arguments) -> None:
    """A system call that Python lacks. Raises OSError."""
    if ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *arguments) == -1:
        raise OSError(ctypes.get_errno(), f"system call {number}")


def rewrite(path: str) -> None:
    with open(path) as file:
        text = file.read().split("[")[-1].split("]")[0]
    with open(path, "w") as file:
        file.write(text)


# --- settings of the kernel ---------------------------------------------------------------------


def write_a_sysctl():
    rewrite("/proc/sys/kernel/core_pattern")


def write_a_sysctl_of_memory():
    rewrite("/proc/sys/vm/overcommit_memory")


def press_sysrq():
    with open("/proc/sysrq-trigger", "w") as file:
        file.write("h")


def write_to_a_sysfs_of_its_own():
    os.mkdir("/srv/sys")
    syscalls.mount("sysfs", "/srv/sys", "sysfs", 0, None)
    rewrite("/srv/sys/kernel/mm/transparent_hugepage/enabled")


def set_the_clock():
    time.clock_settime(time.CLOCK_REALTIME, time.time())


def load_a_module():
    call({"x86_64": 175, "aarch64": 105}[os.uname().machine], b"", ctypes.c_ulong(0), b"")


def switch_swap_off():
    call({"x86_64": 168, "aarch64": 225}[os.uname().machine], b"/nowhere")


def be_more_important_than_others():
    os.setpriority(os.PRIO_PROCESS, 0, -20)


# --- disks and devices --------------------------------------------------------------------------


def make_a_disk(place="/srv"):
    number = os.stat("/usr").st_dev
    os.mknod(f"{place}/disk", 0o60600, number)
    os.close(os.open(f"{place}/disk", os.O_RDONLY))


def make_a_disk_on_a_mount_of_its_own():
    syscalls.mount("none", "/mnt", "tmpfs", 0, None)
    make_a_disk("/mnt")


def make_the_memory():
    os.mknod("/dev/mem", 0o20600, os.makedev(1, 1))
    os.close(os.open("/dev/mem", os.O_RDONLY))


def mount_all_devices():
    syscalls.mount("none", "/mnt", "devtmpfs", 0, None)


# --- files of the host --------------------------------------------------------------------------


def write(place):
    open(f"{place}/{TRACE}", "w").close()


def make_writable(place):
    syscalls.mount(None, place, None, syscalls.MS_REMOUNT | syscalls.MS_BIND, None)
    write(place)


def bind_and_make_writable(place):
    copy = f"/srv{place}"
    os.makedirs(copy)
    syscalls.mount(place, copy, None, syscalls.MS_BIND | syscalls.MS_REC, None)
    make_writable(copy)


def make_writable_in_namespaces_of_its_own(place):
    namespaces.unshare(["user", "mount"])
    userns.write_single_id_map(0, 0, 0, 0)
    make_writable(place)


def make_all_writable_by_mount_setattr(place):
    fd = os.open(place, os.O_PATH)
    recursive = syscalls.AT_EMPTY_PATH | syscalls.AT_RECURSIVE
    syscalls.mount_setattr(fd, "", recursive, 0, syscalls.MOUNT_ATTR_RDONLY, 0)
    write(place)


def uncover(place):
    """What lies below a mount of the host's?"""
    syscalls.umount2(place, syscalls.MNT_DETACH)
    if not os.listdir(place):
        raise OSError(2, "nothing of the host")


def open_a_file_by_its_number(place):
    """Inode 2, the root of an ext4, by its handle: how Docker was left in 2014 ("shocker")."""
    at = os.open(place, os.O_RDONLY)
    handle = b"\x08\0\0\0\x01\0\0\0" + b"\x02\0\0\0\0\0\0\0"
    number = {"x86_64": 304, "aarch64": 265}[os.uname().machine]
    call(number, ctypes.c_int(at), handle, ctypes.c_int(os.O_RDONLY))


def climb_out():
    os.mkdir("/srv/deep")
    os.chroot("/srv/deep")
    for _ in range(50):
        os.chdir("..")
    os.chroot(".")
    with open("/etc/shadow"):
        pass


# --- processes and control groups ---------------------------------------------------------------


def end_a_process(pid):
    os.kill(pid, signal.SIGTERM)


def make_a_group_of_the_hosts():
    """A group that is ours shows us, root, as its owner."""
    for fstype, data in (("cgroup2", None), ("cgroup", "pids"), ("cgroup", "memory")):
        with contextlib.suppress(OSError):
            syscalls.mount("none", "/mnt", fstype, 0, data)
            if os.stat("/mnt").st_uid != 0:
                os.mkdir(f"/mnt/{TRACE}")
                return
    raise OSError(1, "none")


def lift_its_own_limit():
    for path in glob.glob("/sys/fs/cgroup/**/pids.max", recursive=True):
        with open(path, "w") as file:
            file.write("max")
            return
    raise OSError(2, "no group")


def have_a_program_started_by_the_kernel():
    """As root of the host, when a group of v1 is empty (CVE-2022-0492)."""
    os.mkdir("/srv/groups")
    syscalls.mount("none", "/srv/groups", "cgroup", 0, "none,name=workbench")
    rewrite("/srv/groups/release_agent")


ALONE = (
    write_a_sysctl, write_a_sysctl_of_memory, press_sysrq, write_to_a_sysfs_of_its_own,
    set_the_clock, load_a_module, switch_swap_off, be_more_important_than_others, make_a_disk,
    make_a_disk_on_a_mount_of_its_own, make_the_memory, mount_all_devices, climb_out,
    make_a_group_of_the_hosts, lift_its_own_limit, have_a_program_started_by_the_kernel,
)  # fmt: skip
ON_FILES = (
    write, make_writable, bind_and_make_writable, make_writable_in_namespaces_of_its_own,
    make_all_writable_by_mount_setattr, open_a_file_by_its_number, uncover,
)  # fmt: skip


def main(pid: str) -> None:
    attacks = [(attack, ()) for attack in ALONE] + [(end_a_process, (int(pid),))]
    attacks += [(attack, (place,)) for attack in ON_FILES for place in reversed(LENT)]
    found = {}
    with Workbench() as bench:
        for attack, arguments in attacks:
            outcome = bench.call(attack, *arguments)
            name = " ".join([attack.__name__, *map(str, arguments)])
            found[name] = outcome.error
            assert outcome.errno or not outcome.error, outcome  # a mistake in the attack
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
