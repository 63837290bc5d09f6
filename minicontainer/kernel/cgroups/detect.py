"""Which cgroup hierarchies this process sees, where they are mounted, and where it is in them.

Read from /proc/self/mountinfo and /proc/self/cgroup (cgroups(7)), never assumed from a path:
controllers can be mounted together (cpu,cpuacct), a v1 hierarchy can have a name and no controller
(name=systemd), and inside a container the mount shows a part of the tree only.
"""

from __future__ import annotations

from . import files

_ESCAPES = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\"}  # proc_pid_mountinfo(5)


class Hierarchy:
    """One mounted tree of groups.

    version      1 or 2
    controllers  names; a v1 hierarchy with a name has that, too: ("name=systemd",)
    mount_point  directory of the topmost group that we see
    own          path of this process's group below it, "" for that one; None when it is elsewhere
    """

    __slots__ = ("controllers", "mount_point", "own", "version")

    def __init__(
        self, version: int, controllers: tuple[str, ...], mount_point: str, own: str | None
    ) -> None:
        self.version = version
        self.controllers = controllers
        self.mount_point = mount_point
        self.own = own


class Layout:
    """All hierarchies of a host; `kind` is "v1", "v2", "hybrid" or "none"."""

    __slots__ = ("hierarchies", "kind")

    def __init__(self, hierarchies: list[Hierarchy]) -> None:
        self.hierarchies = hierarchies
        versions = {h.version for h in hierarchies}
        self.kind = "hybrid" if len(versions) == 2 else f"v{versions.pop()}" if versions else "none"

    def versions(self) -> dict[str, int]:
        """Controller -> the version of the hierarchy that has it on this host.

        v2 has no files of a controller for these two: every v2 group can be frozen, and devices
        are filtered by a BPF program. A controller can be in one hierarchy only.
        """
        found = {}
        for h in self.hierarchies:
            found.update(dict.fromkeys(h.controllers, h.version))
        if self.kind in ("v2", "hybrid"):
            found.setdefault("freezer", 2)
            found.setdefault("devices", 2)
        return found


_known: Layout | None = None


def detect(fresh: bool = False) -> Layout:
    """The layout that this process sees. Read once; `fresh` reads again, after mount or move."""
    global _known
    if _known is None or fresh:
        with open("/proc/self/mountinfo") as mountinfo, open("/proc/self/cgroup") as cgroup:
            _known = parse(mountinfo, cgroup)
    return _known


def parse(mountinfo, cgroup) -> Layout:
    """A layout from the lines of the two files; reads `cgroup.controllers` of a v2 mount."""
    mounts = []
    for line in mountinfo:
        if " - cgroup" in line:  # a host with many containers has thousands of other mounts
            before, _, after = line.partition(" - ")
            root, mount_point = before.split()[3:5]
            kind, _, options = after.split()[:3]
            mounts.append((kind, set(options.split(",")), _unescape(root), _unescape(mount_point)))
    hierarchies = []
    for line in cgroup:
        _, names, own = line.rstrip("\n").split(":", 2)
        kind, wanted = ("cgroup", set(names.split(","))) if names else ("cgroup2", set())
        # Mounted more than once? The one that shows our own group, else any.
        shown = [(_below(root, own), point) for k, options, root, point in mounts
                 if k == kind and wanted <= options]  # fmt: skip
        shown.sort(key=lambda mount: mount[0] is None)
        if shown:
            below, point = shown[0]
            controllers = names.split(",") if names else _controllers(point)
            hierarchies.append(Hierarchy(1 if names else 2, tuple(controllers), point, below))
    return Layout(hierarchies)


def _controllers(mount_point: str) -> list[str]:
    return " ".join(files.lines(f"{mount_point}/cgroup.controllers")).split()


def _below(root: str, own: str) -> str | None:
    """`own` below `root`, the part of the tree that a mount shows (cgroup_namespaces(7))."""
    if own.startswith("/..") or root.startswith("/.."):
        return None  # in, or from, another cgroup namespace
    root = root.rstrip("/")
    if own == root or own.startswith(f"{root}/"):
        return own[len(root) :].rstrip("/")
    return None


def _unescape(path: str) -> str:
    for code, character in _ESCAPES.items():
        path = path.replace(code, character)
    return path


def why_missing(controller: str, layout: Layout) -> tuple[str, str]:
    """Why no hierarchy has this controller, and what to do about it."""
    if controller in ("net_cls", "net_prio") and layout.kind == "v2":
        return (
            f"cgroup v2 has no {controller}",
            'match the container\'s group in nftables: `socket cgroupv2 level N "PATH"`',
        )
    for line in files.lines("/proc/cgroups"):
        name, hierarchy, _, enabled = line.split("\t")
        if name != {"io": "blkio"}.get(controller, controller):  # v1's names, there
            continue
        if enabled == "0":
            return (
                f"the {controller} controller is switched off",
                f"boot without cgroup_disable={controller}; memory: with cgroup_enable=memory",
            )
        if layout.kind == "v2":
            return f"the {controller} controller is not handed down to this group", files.DELEGATION
        if hierarchy == "0":
            where = f"/sys/fs/cgroup/{controller}"
            return (
                f"the {controller} controller is in this kernel, but in no mounted hierarchy",
                f"sudo mkdir {where}; sudo mount -t cgroup -o {controller} {controller} {where}",
            )
    return (
        f"this kernel has no {controller} controller",
        f"leave that limit out, or use a kernel that has it (grep {controller} /proc/cgroups)",
    )
