"""An image's layers as one file system, without copying: overlayfs, as docker and podman do it.

Layers of an image are the lower directories, read by any number of containers; what a container
changes goes to its own upper directory (https://docs.kernel.org/filesystems/overlayfs.html).
"""

from __future__ import annotations

import errno
import os
import stat

from ..kernel import syscalls
from ..runtime.steps import Step
from .rootless import overlay_prefix

PAGE = 4096  # mount(2) takes so many bytes of options: some 200 layers


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
    Linux 5.11), EINVAL for an upper directory on a file system that cannot have one, E2BIG.
    """
    # A layer is a stranger's: what it says about other places (redirects) is not to be followed.
    options = ["userxattr"] if user else ["redirect_dir=nofollow", "metacopy=off", "index=off"]
    if volatile:
        options.append("volatile")
    fds: list[int] = []

    def short(path: str) -> str:
        """A name without commas and colons; the kernel looks it up once, while it mounts."""
        fds.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        return f"/proc/self/fd/{fds[-1]}"

    try:
        options.append(f"lowerdir={':'.join(short(path) for path in reversed(layers))}")
        if upper:
            options += [f"upperdir={short(upper)}", f"workdir={short(work)}"]
        data = ",".join(options)
        if len(data) >= PAGE:
            raise OSError(errno.E2BIG, f"{len(layers)} layers are too many for one mount(2)")
        syscalls.mount("overlay", target, "overlay", 0, data)
    finally:
        for fd in fds:
            os.close(fd)


class Root(Step):
    """In a plan, in place of the step "bind root"; arguments as `mount` takes them."""

    name = "overlay root"
    why = "the image's layers as one tree; what the container changes goes to its own directory"
    clause = "config.md#root"
    lesson = "07"

    def __init__(self, layers: list[str], path: str, upper: str, work: str, volatile: bool) -> None:
        self.layers, self.path, self.upper, self.work = layers, path, upper, work
        self.user = overlay_prefix() == "user.overlay."
        self.volatile = volatile

    def calls(self):
        lower = ":".join(reversed(self.layers))
        data = f"lowerdir={lower},upperdir={self.upper},workdir={self.work}"
        return [syscalls.mount.text("overlay", self.path, "overlay", 0, data)]

    def apply(self, context):
        mount(self.layers, self.path, self.upper, self.work, self.user, self.volatile)
        context.root_fd = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def is_whiteout(now: os.stat_result) -> bool:
    """Whether overlayfs takes the file for a whiteout: a character device 0:0."""
    return stat.S_ISCHR(now.st_mode) and now.st_rdev == 0


def is_opaque(path: str | bytes, prefix: str) -> bool:
    """Whether a directory hides what layers below have at its place; prefix: `overlay_prefix`."""
    try:
        return os.getxattr(path, f"{prefix}opaque", follow_symlinks=False) == b"y"
    except OSError:
        return False


def find(layers: list[str], path: str, prefix: str) -> str:
    """Where the file is that the layers, the lowest first, show at `path`, without a mount; or "".

    Symbolic links lead to what they would lead to inside.
    """
    stack = [list(reversed(layers))]  # of "/" and of each directory below it: where it is made of
    names = path.split("/")[::-1]
    links = 0
    while names:
        name = names.pop()
        if name == "..":
            del stack[max(1, len(stack) - 1) :]
        if name in ("", ".", ".."):
            continue
        found = lookup(stack[-1], name, prefix)
        if not found:
            return ""
        if os.path.islink(found[0]):
            links += 1
            target = os.readlink(found[0])
            names += target.split("/")[::-1]
            if target.startswith("/"):
                del stack[1:]
            if links > 40:  # as many as path_resolution(7) follows
                return ""
        elif os.path.isdir(found[0]):
            stack.append(found)
        else:
            return "" if names else found[0]
    return stack[-1][0]


def lookup(directories: list[str], name: str, prefix: str) -> list[str]:
    """The files of a name that are shown as one: a file, or directories down to an opaque one.

    The topmost directory comes first, here and in the result; nothing when the name is not shown.
    """
    found: list[str] = []
    for directory in directories:
        file = f"{directory}/{name}"
        try:
            now = os.lstat(file)
        except OSError:
            continue
        if is_whiteout(now) or (found and not stat.S_ISDIR(now.st_mode)):
            break
        found.append(file)
        if not stat.S_ISDIR(now.st_mode) or is_opaque(file, prefix):
            break
    return found
