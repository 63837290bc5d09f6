"""Where a container's group belongs on this host, and how to get at one that a record names."""

from __future__ import annotations

import errno
import os

from . import resources
from .detect import Hierarchy, Layout, detect
from .directory import IN_USE, missing
from .files import CgroupError
from .group import Group
from .v1 import V1Directory
from .v2 import V2Directory

PREFIX = "minicontainer-"  # of a relative path: a group above for all would cost twice the mkdirs
_KINDS = {1: V1Directory, 2: V2Directory}


def place(path: str, limits: dict | None = None, layout: Layout | None = None) -> Group:
    """Find where the group of OCI's `cgroupsPath` belongs on this host; makes nothing yet.

    path    absolute: from the topmost group that we see; relative: with PREFIX, from the topmost
            group that we may write to
    limits  the OCI `linux.resources` that it will get, if they are known
    Raises ValueError for a path that is none, CgroupError (EEXIST) when the group is in use.
    """
    group = look(path, limits, layout)
    for one in group.directories:
        # It may be there, but what is in it would be killed with the container.
        if one.path not in one.made and (one.processes() or len(one.groups()) > 1):
            raise CgroupError(errno.EEXIST, f"the group {one.path} is in use", IN_USE)
    return group


def look(path: str, limits: dict | None = None, layout: Layout | None = None) -> Group:
    """As `place`, but does not care whether somebody uses it: to be read, not to be made."""
    layout = layout or detect()
    below = "/".join(checked_path(path))
    group = Group([], layout)
    for hierarchy in _wanted(layout, resources.controllers(limits or {})):
        point = hierarchy.mount_point
        above = f"{point}/" if path.startswith("/") else f"{_writable_group(hierarchy)}/{PREFIX}"
        made = missing(above + below, point)
        one = _KINDS[hierarchy.version](point, above + below, hierarchy.controllers, made)
        group.directories.append(one)
    return group


def checked_path(path: str) -> list[str]:
    """The names in a cgroupsPath. Raises ValueError: it may come from a stranger."""
    names = path.strip("/").split("/") if isinstance(path, str) and len(path) < 2000 else [""]
    for name in names:
        if not name.isprintable() or name in ("", ".", "..") or len(os.fsencode(name)) > 240:
            raise ValueError(
                f"linux.cgroupsPath: {path!r} is no path of a group, like /web/1 or web-1: names "
                "between single slashes, without `..`"
            )
    return names


def _wanted(layout: Layout, controllers: set[str]) -> list[Hierarchy]:
    """The hierarchies to have a directory in.

    On a hybrid host the v2 tree has what v1 has not. A process that moves to a v2 group waits for
    an RCU grace period, some 10 ms, so it is left out where v1 has all that is asked for.
    """
    v1 = [h for h in layout.hierarchies if h.version == 1]
    v2 = [h for h in layout.hierarchies if h.version == 2]
    lacking = (controllers | {"freezer"}) - {name for h in v1 for name in h.controllers}
    offered = {"freezer", "devices", "cgroup"}.union(*(h.controllers for h in v2))
    if "io" in offered:
        offered.add("blkio")
    return v1 + v2 if lacking & offered or not v1 else v1


def ours(layout: Layout | None = None) -> dict[str, Group]:
    """Name -> group, for the groups of relative paths that are there, whoever made them.

    Not those of workbenches (`lab`), which look after their own.
    """
    found: dict[str, Group] = {}
    for hierarchy in (layout or detect()).hierarchies:
        above = _writable_group(hierarchy)
        try:
            names = sorted(os.listdir(above))
        except OSError:
            continue  # not ours to read
        for name in names:
            path = f"{above}/{name}"
            if name.startswith(PREFIX) and not name.startswith(f"{PREFIX}workbench-"):
                one = _KINDS[hierarchy.version](
                    hierarchy.mount_point, path, hierarchy.controllers, [path]
                )
                found.setdefault(name, Group([])).directories.append(one)
    return found


def _writable_group(hierarchy: Hierarchy) -> str:
    """The group where we may make groups: the topmost; else next to our own, else below it.

    Our own v2 group has a process in it, us, so it cannot hand controllers on: the one above is
    tried first, which is also systemd's when it delegates.
    """
    own = (hierarchy.own or "").rstrip("/")
    for path in ("", own.rpartition("/")[0], own):
        if os.access(hierarchy.mount_point + path, os.W_OK):
            return hierarchy.mount_point + path
    return hierarchy.mount_point


def load(record: dict) -> Group:
    """The group of a record: to look at it, to change it, or to undo it, by anybody at any time.

    Raises ValueError for what is no record: everything in the group that it names may be killed.
    """
    directories: list = []
    try:
        for item in record["directories"]:
            point, path, made = item["mount_point"], item["path"], list(item["made"])
            for one in (path, *made):
                if not one.startswith(f"{point}/") or ".." in one.split("/") or one[-1] == "/":
                    raise ValueError(f"cgroup: {one!r} is no group below {point!r}")
            kind = _KINDS[item["version"]]
            directories.append(kind(point, path, tuple(item["controllers"]), made))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"cgroup: no record of a group: {error!r}") from None
    return Group(directories)
