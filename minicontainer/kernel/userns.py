"""User namespaces: being root inside without being anybody outside (user_namespaces(7))."""

from __future__ import annotations

import os


def write_single_id_map(inside_uid: int, outside_uid: int, inside_gid: int, outside_gid: int):
    """Map one user and one group of the parent namespace into the caller's new user namespace.

    This is what an unprivileged process may do by itself; a range of ids needs newuidmap(1).
    setgroups(2) has to be switched off first: otherwise a user could drop a group that an
    administrator uses to *deny* access (CVE-2014-8989).

    Raises OSError, EPERM where the host forbids unprivileged user namespaces.
    """
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{inside_uid} {outside_uid} 1")
    _write("/proc/self/gid_map", f"{inside_gid} {outside_gid} 1")


def _write(path: str, text: str) -> None:
    # One write(2), and the descriptor closed at once: the kernel takes a map only whole.
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, f"write({path!r}, {text!r})") from None
    finally:
        os.close(fd)


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
