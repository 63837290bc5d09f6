"""An image's layers as one file system, without copying: overlayfs, as docker and podman do it.

Layers of an image are the lower directories, read by any number of containers; what a container
changes goes to its own upper directory (https://docs.kernel.org/filesystems/overlayfs.html).
"""

from __future__ import annotations

import errno
import os
import stat

from ..kernel import mountfd, syscalls
from ..kernel.syscalls import FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING
from ..runtime.errors import kernel_words
from ..runtime.steps import Step
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
        options = [("lowerdir+", path) for path in reversed(self.layers)]
        options += [("upperdir", self.upper), ("workdir", self.work)]
        return [
            syscalls.fsopen.text("overlay", syscalls.FSOPEN_CLOEXEC),
            *(syscalls.fsconfig.text("FS", FSCONFIG_SET_STRING, *option, 0) for option in options),
            syscalls.fsconfig.text("FS", syscalls.FSCONFIG_CMD_CREATE, None, None, 0),
            syscalls.fsmount.text("FS", syscalls.FSMOUNT_CLOEXEC, 0),
            syscalls.move_mount.text("MOUNT", "", self.path, "", syscalls.MOVE_MOUNT_F_EMPTY_PATH),
        ]

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
