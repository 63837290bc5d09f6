"""Control groups: what a set of processes may use, how much it used, and all of it at once.

Two versions of the interface exist, often side by side ("hybrid"): v1 has a tree of directories for
each controller (cgroups(7), Documentation/admin-guide/cgroup-v1/), v2 has a single tree for all
(Documentation/admin-guide/cgroup-v2.rst). `place` finds where a container's group belongs on this
host; the `Group` that it returns is the same for both.

    group = place("web", resources)     # nothing is made yet
    save(group.record())                # so that anybody can undo it: load(record).delete()
    warnings = group.create() + group.set(resources)
    group.enter()                       # this process is in it, and so are its children

Whatever the kernel refuses is a CgroupError, an OSError with a `hint`; what is wrong with an OCI
`linux.resources` object or with a path is a ValueError that names the field.
"""

from . import detect
from .files import CgroupError
from .group import Group
from .location import load, look, ours, place
from .view import container_mounts

__all__ = ["CgroupError", "Group", "container_mounts", "detect", "load", "look", "ours", "place"]
