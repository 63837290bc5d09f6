"""One layer of a build: work on what the layers below show, in a process with mounts of its own.

Where overlayfs cannot be used the layers are copied, and what is as it was is taken out afterwards.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from ..kernel import capabilities, mounts
from ..kernel.seccomp_default import default_profile
from ..runtime import foreground, plan, spec
from . import diff, layers, merge, overlay, rootless, users
from .commit import add_layer
from .store import Store

HOSTS = "127.0.0.1 localhost\n::1 localhost\n"
SCRIPT = "/dev/script"  # on the container's own tmpfs
# Where a RUN has mounts; what the image lacks of that is not left in the layer.
MOUNTED = ("proc", "dev", "sys", "etc/resolv.conf", "etc/hosts", "etc")


class Scratch:
    """Directories that are gone afterwards; those of a killed build are garbage for `gc`."""

    def __init__(self, store: Store) -> None:
        self.path = f"{store.root}/layers/new-build-{os.getpid()}-{os.urandom(4).hex()}"
        self._fd = -1

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *_) -> None:
        if self._fd >= 0:
            layers.remove_tree(self.path)
            os.close(self._fd)

    def directory(self) -> str:
        """A new one."""
        if self._fd < 0:
            self._fd = layers.make_locked(self.path)
        path = f"{self.path}/{os.urandom(4).hex()}"
        os.mkdir(path)
        return path


def make(
    store: Store, scratch: Scratch, lowers: list[str], newest: int | None,
    work: Callable[[str], int],
) -> dict:  # fmt: skip
    """The layer that `work`, called with the root directory, makes by changing what is there.

    Returns `layer` and `diff_id` as `commit.add_layer` does, both None when nothing changed;
    `status`, what work returned: when that is not 0 there is no layer; and `notice`, a text or "".
    Raises ImageError.
    """

    def apart() -> dict:
        os.umask(0o022)
        root, changes, notice = mount(lowers, scratch.directory())
        status = work(root)
        layer = diff_id = None
        if status == 0:
            upper = changes()
            if os.listdir(upper):
                tar = diff.tar(upper, newest, rootless.overlay_prefix())
                layer, diff_id = add_layer(store, tar)
        return {"layer": layer, "diff_id": diff_id, "status": status, "notice": notice}

    scratch.directory()  # by us: the process below may have other ids
    return rootless.inside(apart, apart=True)


def mount(lowers: list[str], place: str) -> tuple[str, Callable[[], str], str]:
    """Show layers in an empty directory, in the caller's mount namespace.

    Returns the root; what gives the directory of changes, as overlayfs has it; a notice, or "".
    Raises OSError.
    """
    empty, upper, work, root = (f"{place}/{name}" for name in ("empty", "upper", "work", "root"))
    for path in (empty, upper, work, root):
        os.mkdir(path)
    prefix = rootless.overlay_prefix()
    lowers = lowers or [empty]
    layers.copy_root_metadata(lowers, upper)
    try:
        overlay.mount(lowers, root, upper, work, prefix.startswith("user."), volatile=True)
        return root, lambda: upper, ""
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
    merge.copy(lowers, prefix, root)
    before = _seen(root)
    notice = f"the layers are copied, since overlayfs cannot be used: {why}"
    return root, lambda: _only_changes(root, before), notice


def _seen(root: str) -> dict[bytes, os.stat_result]:
    """What is below a directory, what is in directories before these."""
    found = {}
    for base, directories, files in os.walk(os.fsencode(root), topdown=False):
        for name in (*files, *directories):
            found[base + b"/" + name] = os.lstat(base + b"/" + name)
    return found


def _only_changes(root: str, before: dict[bytes, os.stat_result]) -> str:
    after = _seen(root)
    for path in before:
        above = after.get(os.path.dirname(path))
        if path not in after and (os.path.dirname(path) == os.fsencode(root) or (
            above and stat.S_ISDIR(above.st_mode)
        )):  # fmt: skip
            os.mknod(path, stat.S_IFCHR, 0)  # a whiteout
    for path, now in after.items():
        old = before.get(path)
        same = old and (old.st_ino, old.st_ctime_ns) == (now.st_ino, now.st_ctime_ns)
        if not stat.S_ISDIR(now.st_mode):
            if same:
                os.unlink(path)
            continue
        try:
            if same:
                os.rmdir(path)
                continue
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
        os.utime(path, ns=(now.st_atime_ns, now.st_mtime_ns))
    return root


def run(
    root: str, args: list[str], env: list[str], cwd: str, user: str, network: str, output: int,
    place: str, script: str = "",
) -> int:  # fmt: skip
    """Run a command in a container whose root is a directory; returns docker's exit status.

    user    USER[:GROUP] of the image
    output  descriptor for what it prints
    place   an empty directory for what is bound into the container
    script  content of an executable file at SCRIPT

    Raises ContainerError.
    """
    config = spec.default(root, args, cwd=cwd, network=network)
    uid, gid, groups = users.look_up(root, user)
    if not rootless.has_other_ids():
        groups = []  # setgroups(2) is denied there
    ids = {"uid": uid, "gid": gid, "additionalGids": groups}
    config["process"].update(env=env, noNewPrivileges=False, user=ids)
    linux = config["linux"]
    linux["seccomp"] = default_profile(capabilities.DOCKER_DEFAULT)
    if rootless.overlay_prefix().startswith("user."):
        # In the user namespace we are root, but not the host's: the container has one in it
        if {"type": "user"} not in linux["namespaces"]:
            linux["namespaces"].append({"type": "user"})
        linux["uidMappings"], linux["gidMappings"] = rootless.own_maps()
        config["mounts"] = spec.mounts(True, network)
    with open(f"{place}/hosts", "w") as hosts:
        hosts.write(HOSTS)
    binds = {"/etc/hosts": f"{place}/hosts"}
    if network == "host":
        binds["/etc/resolv.conf"] = "/etc/resolv.conf"
    if script:
        with open(f"{place}/script", "w") as file:
            file.write(script)
        os.chmod(f"{place}/script", 0o755)
        binds[SCRIPT] = f"{place}/script"
    for target, source in binds.items():
        dangling = os.path.islink(root + target) and _lacks(root, target)
        if os.path.exists(source) and not dangling:
            options = ["rbind", "ro", "nosuid", "nodev"]
            config["mounts"].append(
                {"destination": target, "type": "bind", "source": source, "options": options}
            )
    lacking = [path for path in MOUNTED if _lacks(root, path)]
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    status = foreground.attend(plan.build(config), stdio=(null, output, output)).wait()
    os.close(null)
    for path in lacking:
        _remove_if_empty(root, path)
    return status


def _lacks(root: str, path: str) -> bool:
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(mounts.open_in_root(top, path))
        return False
    except OSError:
        return True
    finally:
        os.close(top)


def _remove_if_empty(root: str, path: str) -> None:
    """The command may have put anything there, symlinks to the host's files too."""
    directory, _, name = path.rpartition("/")
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    parent = -1
    try:
        parent = mounts.open_in_root(top, directory or "/", os.O_PATH | os.O_DIRECTORY)
        now = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(now.st_mode):
            os.rmdir(name, dir_fd=parent)
        elif stat.S_ISREG(now.st_mode) and not now.st_size:
            os.unlink(name, dir_fd=parent)
    except OSError:
        pass  # not empty, or not there any more
    finally:
        for fd in (top, parent):
            if fd >= 0:
                os.close(fd)
