"""What a container sees at /sys/fs/cgroup: the mounts for it, in the words of OCI's `mounts`."""

from __future__ import annotations

from .group import Group

_OPTIONS = ["nosuid", "noexec", "nodev", "relatime"]


def container_mounts(
    group: Group | None, own_namespace: bool, destination: str = "/sys/fs/cgroup",
    read_only: bool = True,
) -> tuple[list[dict], list[tuple[str, str]]]:  # fmt: skip
    """(mounts, in their order; symlinks as (target, path)) for an OCI mount of type "cgroup".

    own_namespace  a new mount shows the container's group as the topmost (cgroup_namespaces(7));
                   without, the host's directories of the group are bound, which looks the same
    A container without a group, or with one that this user may not make and that is therefore not
    there to be bound, sees all of the host's, read-only.
    v1 is a directory for each hierarchy on a tmpfs, and a link for each of several controllers that
    are mounted together: cpu -> cpu,cpuacct.
    """
    if not group or not group.directories or not (own_namespace or group.can_create()):
        options = ["rbind", "nosuid", "noexec", "nodev", "ro", "rro"]
        whole = {"destination": destination, "type": "bind", "source": "/sys/fs/cgroup"}
        return [{**whole, "options": options}], []
    options = [*_OPTIONS, "ro" if read_only else "rw"]
    if [d.version for d in group.directories] == [2]:
        path = group.directories[0].path
        return [_mount(destination, "cgroup2", path, options, own_namespace)], []
    tmpfs = ["nosuid", "noexec", "nodev", "mode=755", "size=64k"]
    mounts = [{"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": tmpfs}]
    links = []
    for d in group.directories:
        if d.version == 2:
            place = f"{destination}/unified"
            mounts.append(_mount(place, "cgroup2", d.path, options, own_namespace))
            continue
        names = [name.removeprefix("name=") for name in d.controllers]
        # Says which hierarchy; one without controllers is "none,name=systemd".
        which = ",".join(d.controllers)
        which = f"none,{which}" if which.startswith("name=") else which
        place = f"{destination}/{','.join(names)}"
        mounts.append(_mount(place, "cgroup", d.path, options, own_namespace, [which]))
        links += [(",".join(names), f"{destination}/{name}") for name in names if len(names) > 1]
    return mounts, links


def _mount(destination, kind, source, options, own_namespace, which=()) -> dict:
    if own_namespace:
        options, source = [*options, *which], kind
    else:
        options, kind = ["bind", *options], "bind"
    return {"destination": destination, "type": kind, "source": source, "options": options}
