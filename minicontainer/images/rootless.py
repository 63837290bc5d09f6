"""Work on files that have the owners of a container, for somebody who is not root.

In a user namespace an ordinary user is root, over itself and over the ids that /etc/subuid and
/etc/subgid grant to it. Layers are unpacked, changed and removed there; containers get the same ids
(`id_maps`), so that a file that the image gives to uid 33 is uid 33's inside.
"""

from __future__ import annotations

import _signal as signal
import os

from ..kernel import syscalls, userns
from ..runtime import jsonfile
from ..runtime.errors import ContainerError
from .errors import ImageError

OVERLAY_XATTR = b"user.overlay."  # would speak to overlayfs, not to the container
WHOLE = ["0", "0", "4294967295"]  # the map of the initial user namespace


def overlay_prefix() -> str:
    """Where overlayfs keeps its notes: trusted.* is for root of the initial user namespace only."""
    inside = os.geteuid() != 0 or _map() != WHOLE
    return "user.overlay." if inside else "trusted.overlay."


def has_other_ids() -> bool:
    """Whether more ids than one exist here, to which files can be given."""
    return os.geteuid() == 0 and _map()[2:] != ["1"]


def _map() -> list[str]:
    with open("/proc/self/uid_map") as file:
        return file.read().split()


def own_maps() -> tuple[list[dict], list[dict]]:
    """All ids that there are here, each as itself, for a user namespace within this one."""
    maps = []
    for kind in ("uid", "gid"):
        with open(f"/proc/self/{kind}_map") as file:
            lines = [[int(number) for number in line.split()] for line in file]
        maps.append([{"containerID": n, "hostID": n, "size": size} for n, _, size in lines])
    return maps[0], maps[1]


def container_maps() -> tuple[list[dict], list[dict]]:
    """The ids of our containers, as the OCI's uidMappings and gidMappings.

    The host's root needs no map; root of another user namespace hands on the ids of that.
    """
    if os.geteuid():
        return id_maps()
    return ([], []) if userns.is_initial() else own_maps()


def id_maps() -> tuple[list[dict], list[dict]]:
    """An ordinary user's ids in its containers: itself, and what is granted to it."""
    import pwd

    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        name = ""
    maps = []
    for own, file in ((os.geteuid(), "/etc/subuid"), (os.getegid(), "/etc/subgid")):
        maps.append([{"containerID": 0, "hostID": own, "size": 1}])
        start, size = _range(file, (name, str(os.geteuid())))
        if size:
            maps[-1].append({"containerID": 1, "hostID": start, "size": size})
    if len(maps[0]) != len(maps[1]) or not os.access("/usr/bin/newuidmap", os.X_OK):
        return maps[0][:1], maps[1][:1]
    return maps[0], maps[1]


def _range(file: str, names: tuple[str, str]) -> tuple[int, int]:
    """The first range that a file as subuid(5) has for a user: (first id, count)."""
    try:
        with open(file) as lines:
            for line in lines:
                name, _, numbers = line.strip().partition(":")
                start, _, count = numbers.partition(":")
                if name in names and name and start.isdecimal() and count.isdecimal():
                    return int(start), int(count)
    except OSError:
        pass
    return 0, 0


def inside(work, apart: bool = False):
    """Call `work`, as root of a user namespace when this is not root; returns its result.

    The result must be of JSON's kinds. What `work` raises is an ImageError here.

    apart  root, too, does it in a process of its own; either has mounts of its own, which are gone
           with the process, however it ends
    """
    root = os.geteuid() == 0
    if root and not apart:
        return work()
    maps = ([], []) if root else id_maps()
    answers, answer = os.pipe2(os.O_CLOEXEC)
    waits, go = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.close(go)
            if not root:
                _become_root(waits, answer)
            syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
            if apart:
                syscalls.unshare(syscalls.CLONE_NEWNS)
                private = syscalls.MS_REC | syscalls.MS_PRIVATE
                syscalls.mount(None, "/", None, private, None)
            reply = {"result": work()}
        except ContainerError as error:
            reply = {"error": error.message, "hint": error.hint}
        except BaseException as error:
            reply = {"error": f"{type(error).__name__}: {error}", "hint": ""}
        finally:
            os.write(answer, jsonfile.dumps(reply).encode())
            os._exit(0)
    os.close(answer)
    os.close(waits)
    try:
        told = os.read(answers, 1)  # "+": it has its namespace; "{": that failed
        if told == b"+":
            try:
                userns.write_maps(pid, *maps)
            except OSError as error:
                os.kill(pid, signal.SIGKILL)
                raise ImageError(f"user namespace: {error.strerror}", userns.why_denied()) from None
            os.write(go, b"+")
            told = b""
        while part := os.read(answers, 1 << 16):
            told += part
    except BaseException:  # Ctrl-C: who attends a container passes it on
        os.kill(pid, signal.SIGTERM)
        raise
    finally:
        os.close(go)
        os.close(answers)
        os.waitpid(pid, 0)
    if not told:
        raise ImageError("the process that did the work in a user namespace was killed")
    reply = jsonfile.loads(told.decode())
    if "error" in reply:
        raise ImageError(reply["error"], reply["hint"])
    return reply["result"]


def _become_root(waits: int, answer: int) -> None:
    try:
        syscalls.unshare(syscalls.CLONE_NEWUSER)
    except OSError as error:
        raise ImageError(f"user namespace: {error.strerror}", userns.why_denied()) from None
    os.write(answer, b"+")
    if not os.read(waits, 1):
        os._exit(1)  # the parent could not map ids, or died
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
