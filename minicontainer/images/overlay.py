"""An image's layers as one file system, without copying: overlayfs, as docker and podman do it.

Layers of an image are the lower directories, read by any number of containers; what a container
changes goes to its own upper directory (https://docs.kernel.org/filesystems/overlayfs.html).
"""

from __future__ import annotations

import errno
import os

from ..kernel import mountfd, syscalls
from ..kernel.syscalls import FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING
from ..runtime.errors import kernel_words
from .layers import remove_tree
from .rootless import inside, overlay_prefix

PAGE = 4096  # mount(2) takes so many bytes of options
LONGEST = 255  # fsconfig(2) takes so many of one


def mount(
    layers: list[str], target: str, upper: str = "", work: str = "", user: bool = False,
    volatile: bool = False,
) -> None:  # fmt: skip
    """Mount layers, the lowest first, at `target`, in the caller's mount namespace.

    upper, work  the container's directories, both empty at first and on one file system; without
                 them the mount is read-only, and needs two layers at least (an empty one counts)
    user         in a user namespace: notes are in user.overlay.*, as `unpack` put them there
    volatile     never wait for the disk: after a crash the upper directory is to be thrown away

    Raises OSError: ENODEV without overlayfs, EPERM where user namespaces may not mount it (before
    Linux 5.11), EINVAL for an upper directory on a file system that cannot have one.
    """
    # A layer is a stranger's: what it says about other places (redirects) is not to be followed.
    options = ["userxattr"] if user else ["redirect_dir=nofollow", "metacopy=off", "index=off"]
    if volatile:
        options.append("volatile")
    fds: list[int] = []
    try:
        lowers = [_short(path, fds) for path in reversed(layers)]
        if upper:
            options += [f"upperdir={_short(upper, fds)}", f"workdir={_short(work, fds)}"]
        try:
            _mount(lowers, options, target)
        except OSError as error:
            # lowerdir+ came with Linux 6.7; before, all have to fit in one page
            if error.errno not in (errno.EINVAL, errno.ENOSYS):
                raise
            lowers = [_by_descriptor(path, fds) for path in reversed(layers)]
            data = ",".join([f"lowerdir={':'.join(lowers)}", *options])
            if len(data) >= PAGE:
                raise OSError(
                    errno.E2BIG, f"{len(layers)} layers: this kernel takes fewer"
                ) from None
            syscalls.mount("overlay", target, "overlay", 0, data)
    finally:
        for fd in fds:
            os.close(fd)


def _mount(lowers: list[str], options: list[str], target: str) -> None:
    fs = syscalls.fsopen("overlay", syscalls.FSOPEN_CLOEXEC)
    try:
        syscalls.fsconfig(fs, FSCONFIG_SET_STRING, "source", "overlay", 0)
        for path in lowers:
            syscalls.fsconfig(fs, FSCONFIG_SET_STRING, "lowerdir+", path, 0)
        for option in options:
            key, equals, value = option.partition("=")
            kind = FSCONFIG_SET_STRING if equals else FSCONFIG_SET_FLAG
            syscalls.fsconfig(fs, kind, key, value if equals else None, 0)
        syscalls.fsconfig(fs, syscalls.FSCONFIG_CMD_CREATE, None, None, 0)
        made = syscalls.fsmount(fs, syscalls.FSMOUNT_CLOEXEC, 0)
    finally:
        os.close(fs)
    place = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mountfd.place(made, place)
    finally:
        os.close(place)
        os.close(made)


def _short(path: str, fds: list[int]) -> str:
    plain = len(os.fsencode(path)) <= LONGEST and not any(c in path for c in ",:\\")
    return path if plain else _by_descriptor(path, fds)


def _by_descriptor(path: str, fds: list[int]) -> str:
    """A short name for a path; the kernel looks it up once, while the file system is made."""
    fds.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    return f"/proc/self/fd/{fds[-1]}"


def why_not(directory: str) -> str:
    """Why overlayfs cannot have upper directories in `directory`; "" when it can.

    Found by doing it, in a process that has mounts of its own.
    """
    place = f"{directory}/probe-{os.getpid()}"
    for name in ("", "/lower", "/upper", "/work", "/merged"):
        os.mkdir(place + name)

    def attempt() -> str:
        user = overlay_prefix() == "user.overlay."
        try:
            mount([f"{place}/lower"], f"{place}/merged", f"{place}/upper", f"{place}/work", user)
        except OSError as error:
            return f"overlayfs: {kernel_words(error.errno or 0)}"
        return ""

    try:
        return inside(attempt, apart=True)
    finally:
        remove_tree(place)  # overlayfs made a directory of mode 0 in work
