"""What the workbench may use: a control group of its own, or RLIMIT_NPROC where there is none.

The group holds back a fork bomb and a memory hog, and it is the attendee's: what is below it may be
made, limited, frozen and removed from inside, and ends with the workbench. Its own limits stay out
of reach.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource

from ..kernel import cgroups
from ..kernel.cgroups import CgroupError, Group, files, location
from ..kernel.cgroups.devices import ANY, Rule, writes_v1

PROCESSES = 256
CGROUP_PREFIX = f"{location.PREFIX}workbench-"  # then the pid of the keeper
# What delegation hands over beside the directory itself (/sys/kernel/cgroup/delegate; v1: tasks).
DELEGATED = ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads", "tasks")


def group_of(keeper: int) -> Group:
    """The group of a keeper's workbench, whether it is there or not."""
    # On a hybrid host v2 has hugetlb: asked for by name, or v1 would be thought to do.
    return cgroups.look(f"workbench-{keeper}", {"hugepageLimits": []})


def make_group() -> tuple[Group, bool]:
    """A group in each hierarchy where this user may make one; whether it limits processes."""
    group = group_of(os.getpid())
    sweep(group)
    limited = False
    with contextlib.suppress(OSError):
        group.create()
        half = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
        with contextlib.suppress(OSError):  # what is in memory alone, as the root, counts too
            group.set({"memory": {"limit": half}})
        group.set({"pids": {"limit": PROCESSES}})
        limited = True
    return group, limited


def hand_over(group: Group, owner: int) -> None:
    """Make the group, but not its limits, the property of a user; cgroups(7), "Delegation"."""
    for directory in group.directories:
        for path in (directory.path, *(f"{directory.path}/{name}" for name in DELEGATED)):
            with contextlib.suppress(FileNotFoundError):
                os.chown(path, owner, owner)


def be_leaf_of_v2() -> None:
    """Inside: go one group down, so that the controllers of ours can be handed on to others.

    Only groups without processes of their own may do that (cgroups(7), "no internal processes").
    """
    for hierarchy in cgroups.detect.detect(fresh=True).hierarchies:
        if hierarchy.version == 2 and hierarchy.own == "":
            os.mkdir(f"{hierarchy.mount_point}/init")
            write(f"{hierarchy.mount_point}/init/cgroup.procs", "0")
            for name in hierarchy.controllers:
                with contextlib.suppress(OSError):
                    write(f"{hierarchy.mount_point}/cgroup.subtree_control", f"+{name}")
    cgroups.detect.detect(fresh=True)


def thaw(path: str) -> None:
    """Thaw every group from this one down: in v1 a frozen process does not even die of SIGKILL."""
    for directory, _, _ in os.walk(path):
        with contextlib.suppress(OSError):
            files.write(f"{directory}/freezer.state", "THAWED")


def thaw_group(group: Group) -> None:
    for directory in group.directories:
        if "freezer" in directory.controllers and directory.version == 1:
            thaw(directory.path)


def remove(group: Group) -> None:
    """End and remove what is in the group, at the workbench's end."""
    thaw_group(group)
    with contextlib.suppress(
        OSError
    ):  # EBUSY: a process that even SIGKILL does not end: swept later
        group.delete()


def sweep(group: Group) -> None:
    """Remove the groups of keepers that were killed before they could."""
    for directory in group.directories:
        above = os.path.dirname(directory.path)
        for name in os.listdir(above):
            pid = name.removeprefix(CGROUP_PREFIX)
            if pid != name and not os.path.exists(f"/proc/{pid}"):
                thaw(f"{above}/{name}")
                for path, _, _ in os.walk(f"{above}/{name}", topdown=False):
                    with contextlib.suppress(OSError):  # still in use, or another host's
                        os.rmdir(path)


def deny_devices(keeper: int, path: str, names: tuple[str, ...]) -> None:
    """Take devices, each as "c 1:3 rwm", from a group and give it all others.

    The one thing of groups that takes the host's root (v1: devcgroup_update_access; v2: bpf(2)).
    path: of the group as the workbench sees it. Raises OSError, ValueError.
    """
    rules = []
    for name in names:
        found = re.fullmatch(r"([bc]) (\d+|\*):(\d+|\*) ([rwm]+)", name)
        if not found:
            raise ValueError(f'{name!r}: a device is named as "c 1:3 rwm"')
        major, minor = (ANY if number == "*" else int(number) for number in found.group(2, 3))
        rules.append(Rule(False, found[1], major, minor, found[4]))
    own = group_of(keeper)
    missing = OSError(errno.ENOENT, f"{path}: no group of this workbench for devices")
    try:
        group = own.below(path).having("devices")
    except CgroupError:
        raise missing from None
    if group.path == own.having("devices").path:
        raise missing
    if group.version == 1:
        for write in writes_v1(True, rules):
            group.write(write)
    else:
        from ..kernel.cgroups.devices_v2 import Filter

        group.write(Filter(True, rules))


def limit_processes_of_user() -> None:
    """RLIMIT_NPROC: what holds back a fork bomb where no group can be made.

    It counts the tasks of a user; since Linux 5.14 those in this user namespace alone.
    """
    limit = PROCESSES + tasks_of_user(os.geteuid())
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))


def tasks_of_user(uid: int) -> int:
    count = 0
    for name in os.listdir("/proc"):
        try:
            if name.isdecimal() and os.stat(f"/proc/{name}").st_uid == uid:
                count += len(os.listdir(f"/proc/{name}/task"))
        except OSError:
            pass  # it ended meanwhile
    return count


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
