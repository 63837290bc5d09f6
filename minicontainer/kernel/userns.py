"""User namespaces: being root inside without being anybody outside (user_namespaces(7))."""

from __future__ import annotations

import os

from . import syscalls

_INITIAL = 0xEFFFFFFD  # its inode on every host: PROC_USER_INIT_INO of linux/proc_ns.h


def write_single_id_map(inside_uid: int, outside_uid: int, inside_gid: int, outside_gid: int):
    """Map one user and one group of the parent namespace into the caller's new user namespace.

    This is what an unprivileged process may do by itself; a range of ids needs newuidmap(1).
    setgroups(2) has to be switched off first: otherwise a user could drop a group that an
    administrator uses to *deny* access (CVE-2014-8989).

    Raises OSError, EPERM where the host forbids unprivileged user namespaces.
    """
    syscalls.write_file("/proc/self/setgroups", "deny")
    syscalls.write_file("/proc/self/uid_map", f"{inside_uid} {outside_uid} 1")
    syscalls.write_file("/proc/self/gid_map", f"{inside_gid} {outside_gid} 1")


def is_initial() -> bool:
    """Whether our user namespace is the host's own, the one that has every id.

    Root of any other has no power over the host: mknod(2) of a device is EPERM
    (user_namespaces(7)).
    """
    try:
        if os.stat("/proc/self/ns/user").st_ino == _INITIAL:
            return True
    except FileNotFoundError:
        pass  # a kernel without user namespaces
    with open("/proc/self/uid_map") as file:
        return file.read().split() == ["0", "0", "4294967295"]


def map_text(maps: list[dict]) -> str:
    """What /proc/PID/uid_map takes, from OCI's containerID, hostID, size."""
    return "\n".join(f"{one['containerID']} {one['hostID']} {one['size']}" for one in maps)


def write_maps(pid: int, uid_maps: list[dict], gid_maps: list[dict]) -> None:
    """Map ids into the new user namespace of process `pid`, a child of ours; see `map_text`.

    root writes them itself; an ordinary user may map nothing but itself (`needs_helper`), and for
    more has newuidmap(1) and newgidmap(1) do it, from the ranges of /etc/subuid and /etc/subgid.
    Raises OSError.
    """
    for name, maps, own in (("gid", gid_maps, os.getegid()), ("uid", uid_maps, os.geteuid())):
        if needs_helper(maps, own):
            _map_by_helper(f"new{name}map", pid, map_text(maps).split())
            continue
        if name == "gid" and os.geteuid() != 0:
            syscalls.write_file(f"/proc/{pid}/setgroups", "deny")
        syscalls.write_file(f"/proc/{pid}/{name}_map", map_text(maps))


def needs_helper(maps: list[dict], own: int) -> bool:
    """Whether these ids are more than this user may map by itself (user_namespaces(7))."""
    alone = len(maps) == 1 and (maps[0]["hostID"], maps[0]["size"]) == (own, 1)
    return os.geteuid() != 0 and not alone


def _map_by_helper(name: str, pid: int, numbers: list[str]) -> None:
    # Setuid programs: taken from where the system has them, whatever the caller's PATH says.
    for directory in ("/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin"):
        path = f"{directory}/{name}"
        if os.access(path, os.X_OK):
            break
    else:
        raise syscalls.Refused(
            2, f"linux.{name[3:6]}Mappings needs {name}: no such file or directory",
            "apt install uidmap (Fedora: shadow-utils)",
        )  # fmt: skip
    child = os.posix_spawn(path, [name, str(pid), *numbers], {})
    if os.waitpid(child, 0)[1]:
        kind = name[3:6]
        raise syscalls.Refused(
            1, f"linux.{kind}Mappings: {name} {pid} {' '.join(numbers)}: not all of these ids are "
            f"this user's in /etc/sub{kind}",
            f"as root: usermod --add-sub{kind}s 100000-165535 USER, then map ids of that range; "
            "or map the own id alone, with size 1",
        )  # fmt: skip


# Switches that distributions have for unprivileged user namespaces: file, value that forbids, fix.
_SWITCHES = (
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "AppArmor forbids unprivileged user namespaces (Ubuntu 23.10 and newer): "
        "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    (
        "/proc/sys/kernel/unprivileged_userns_clone",
        "0",
        "this kernel has unprivileged user namespaces switched off: "
        "sudo sysctl -w kernel.unprivileged_userns_clone=1",
    ),
    (
        "/proc/sys/user/max_user_namespaces",
        "0",
        "the limit of user namespaces is 0: sudo sysctl -w user.max_user_namespaces=15000",
    ),
)


def why_denied() -> str:
    """What forbids unprivileged user namespaces on this host and how to allow them, or ""."""
    for path, value, fix in _SWITCHES:
        try:
            with open(path) as switch:
                if switch.read().strip() == value:
                    return fix
        except OSError:
            continue  # another distribution's switch
    return ""
