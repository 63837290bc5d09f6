"""Steps for the file system of an OCI bundle; every path in it may be a stranger's."""

from __future__ import annotations

import errno
import os
import stat

from ..kernel import mountfd, mounts, proc, syscalls
from ..kernel.syscalls import MNT_DETACH, MS_BIND, MS_MOVE, MS_PRIVATE, MS_RDONLY, MS_REC, MS_SLAVE
from . import hooks
from .steps import Devices, MaskedPaths, Mount, ReadonlyPaths, Step


class ParentPrivate(Step):
    name = "private parent"
    why = "pivot_root refuses a root below a shared mount, and nothing shall show outside"
    clause = "config-linux.md#rootfs-mount-propagation"
    lesson = "03"

    def __init__(self, path: str) -> None:
        self.path = path

    def calls(self):
        return [syscalls.mount.text(None, self.path, None, MS_PRIVATE, None)]

    def apply(self, context):
        path = self.path
        while True:
            try:
                return mounts.set_propagation(path, MS_PRIVATE)
            except OSError as error:
                if error.errno != errno.EINVAL or path == "/":
                    raise
            path = path.rpartition("/")[0] or "/"  # EINVAL: no mount point; one is above


class BundleMount(Mount):
    """A mount of the configuration, with everything that the spec's options can say."""

    def __init__(self, mount: dict, bundle: str) -> None:
        if mount.get("type") == "bind":
            mount = {**mount, "options": ["bind", *mount.get("options", ())]}
        mount = {**mount, "destination": os.path.normpath("/" + mount["destination"].lstrip("/"))}
        super().__init__(mount)
        self.recursive = mounts.recursive_attributes(mount.get("options", ()))
        self.copy = "tmpcopyup" in mount.get("options", ())
        self.early_flags = self.flags
        self.mount_fd = -1  # see OpenSources
        if self.flags & MS_BIND:
            self.source = os.path.join(bundle, mount.get("source", ""))
        elif self.target == "/dev":
            self.early_flags &= ~MS_RDONLY  # `Devices` puts nodes into it first

    @property
    def bind(self) -> bool:
        return bool(self.flags & MS_BIND)

    def apply(self, context):
        root = context.root_fd
        if self.mount_fd >= 0:
            directory = stat.S_ISDIR(os.fstat(self.mount_fd).st_mode)
            target = mounts.make_in_root(root, self.target, directory)
            try:
                mountfd.place(self.mount_fd, target)
            finally:
                os.close(target)
        elif self.bind:
            flags = self.flags & ~(MS_RDONLY if self.target == "/dev" else 0)
            try:
                mountfd.bind_in_root(root, self.source, self.target, flags, self.recursive)
            except FileNotFoundError:
                context.hint = f"the source {self.source} must exist on the host"
                raise
        elif self.copy and self.fstype == "tmpfs":
            mountfd.tmpfs_with_copy(root, self.target, self.flags, self.data)
        else:
            if self.fstype in ("proc", "sysfs"):
                self._refuse_link(root)
            mounts.mount_in_root(
                root, self.source, self.target, self.fstype, self.early_flags, self.data
            )
        if self.propagation:
            fd = mounts.open_in_root(root, self.target)
            try:
                mountfd.set_propagation(fd, self.propagation)
            finally:
                os.close(fd)

    def open_outside(self) -> int:
        """The mount, ready to be placed by a process that could not open the source itself."""
        self.mount_fd = mountfd.clone(self.source, bool(self.flags & MS_REC))
        mountfd.set_propagation(self.mount_fd, MS_SLAVE | MS_REC)  # as everything in there
        mountfd.set_attributes(self.mount_fd, *mountfd.attributes(self.flags))
        if any(self.recursive):
            mountfd.set_attributes(self.mount_fd, *self.recursive, recursive=True)
        return self.mount_fd

    def _refuse_link(self, root: int) -> None:
        """A /proc that is a symlink would have us protect the wrong one, CVE-2019-19921."""
        try:
            path = self.target.lstrip("/") or "."
            resolve = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS
            os.close(syscalls.openat2(root, path, os.O_PATH, resolve))
        except FileNotFoundError:
            return
        except OSError as error:
            text = f"mount {self.target}: {self.fstype} belongs on a directory, not on a symlink"
            raise OSError(error.errno, text) from None


class OpenSources(Step):
    name = "open mount sources"
    where = "parent"
    why = "root of a user namespace is nobody on the host, and may not enter their directories"
    clause = "config-linux.md#user-namespace-mappings"
    lesson = "05"

    def __init__(self, bundle_mounts: list[BundleMount]) -> None:
        self.mounts = bundle_mounts

    def calls(self):
        flags = syscalls.OPEN_TREE_CLONE | syscalls.OPEN_TREE_CLOEXEC
        return [syscalls.open_tree.text("AT_FDCWD", one.source, flags) for one in self.mounts]

    def apply(self, context):
        for one in self.mounts:
            context.hint = f"the source {one.source} must exist on the host"
            context.opened.append(one.open_outside())


class Links(Step):
    name = "cgroup links"
    why = "controllers that are mounted together are found by each name"
    clause = "config-linux.md#default-filesystems"
    lesson = "06"

    def __init__(self, links: list[tuple[str, str]]) -> None:
        self.links = links

    def calls(self):
        return [syscalls.symlinkat.text(target, "ROOT", path) for target, path in self.links]

    def apply(self, context):
        for target, path in self.links:
            above, _, name = path.rpartition("/")
            fd = mounts.open_in_root(context.root_fd, above, os.O_PATH | os.O_DIRECTORY)
            try:
                syscalls.symlinkat(target, fd, name)
            finally:
                os.close(fd)


_DEFAULT = {
    "/dev/null": (1, 3), "/dev/zero": (1, 5), "/dev/full": (1, 7), "/dev/random": (1, 8),
    "/dev/urandom": (1, 9), "/dev/tty": (5, 0),
}  # fmt: skip
_LINKS = {
    "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx",
}  # fmt: skip
_KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


class BundleDevices(Devices):
    """The default devices and those of the configuration, and the links beside them."""

    def __init__(self, devices: list[dict], bind: bool, read_only: bool) -> None:
        super().__init__(bind)
        self.devices = [
            {"path": path, "type": "c", "major": number[0], "minor": number[1]}
            for path, number in _DEFAULT.items() if path not in {d["path"] for d in devices}
        ] + devices  # fmt: skip
        self.read_only = read_only

    def calls(self):
        verb = "mount --bind" if self.bind else "mknodat"
        return [f"{verb}({d['path']!r})" for d in self.devices] + [
            syscalls.symlinkat.text(target, "DEV", name) for name, target in _LINKS.items()
        ]

    def apply(self, context):
        mask = os.umask(0)
        try:
            for device in self.devices:
                self._make(context.root_fd, device)
            dev = mounts.make_in_root(context.root_fd, "/dev", directory=True)
            try:
                for name, target in _LINKS.items():
                    try:
                        syscalls.symlinkat(target, dev, name)
                    except FileExistsError:
                        pass  # the image's own
            finally:
                os.close(dev)
        finally:
            os.umask(mask)
        if self.read_only:
            mounts.remount_bind_in_root(context.root_fd, "/dev", MS_RDONLY)

    def _make(self, root: int, device: dict) -> None:
        path = os.path.normpath(device["path"])
        if self.bind and device["type"] != "p":
            return mountfd.bind_in_root(root, path, path, MS_BIND)
        above, _, name = path.rpartition("/")
        directory = mounts.make_in_root(root, above or "/", directory=True)
        try:
            kind = _KINDS[device["type"]]
            number = os.makedev(device.get("major", 0), device.get("minor", 0))
            mode = device.get("fileMode", 0o666) & 0o7777
            try:
                syscalls.mknodat(directory, name, kind | mode, number)
            except PermissionError:
                if device["type"] == "p":
                    raise
                # Root in a user namespace that was there before us, as podman makes one
                return mountfd.bind_in_root(root, path, path, MS_BIND)
            except FileExistsError:
                now = os.stat(name, dir_fd=directory, follow_symlinks=False)
                if stat.S_IFMT(now.st_mode) == kind and now.st_rdev == number:
                    return None
                raise FileExistsError(
                    17, f"device {path}: the root file system has another file there"
                ) from None
            os.chown(name, device.get("uid", 0), device.get("gid", 0), dir_fd=directory,
                     follow_symlinks=False)  # fmt: skip
        finally:
            os.close(directory)
        return None


class CreateContainerHooks(Step):
    name = "hooks before pivot_root"
    why = "prestart and createRuntime outside, then createContainer in here"
    clause = "config.md#posix-platform-hooks"
    lesson = "12"

    def __init__(self, configured: dict) -> None:
        self.hooks = configured

    def calls(self):
        kinds = ("prestart", "createRuntime", "createContainer")
        paths = [f"{kind}: {hook['path']}" for kind in kinds for hook in self.hooks.get(kind) or ()]
        return [f"execve({path!r})" for path in paths]

    def apply(self, context):
        context.ask("hooks")
        hooks.run(self.hooks, "createContainer", context.state)


class MoveRoot(Step):
    name = "move root"
    why = "--no-pivot, for a root in an initramfs: the host's root is covered, not unmounted"
    clause = "config.md#root"
    lesson = "03"

    def __init__(self, path: str) -> None:
        self.path = path

    def calls(self):
        return [syscalls.mount.text(self.path, "/", None, MS_MOVE, None), syscalls.chroot.text(".")]

    def apply(self, context):
        os.close(context.root_fd)
        syscalls.chdir(self.path)
        # With /proc and /sys of the host still mounted below, a chroot escape would find them.
        for path in ("/proc", "/sys"):
            try:
                syscalls.umount2(path, MNT_DETACH)
            except OSError:
                pass  # no mount point there
        syscalls.mount(self.path, "/", None, MS_MOVE, None)
        mounts.change_root(".")
        context.root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


class RootPropagation(Step):
    name = "root propagation"
    why = "whether mounts made inside later are seen outside, and the other way round"
    clause = "config-linux.md#rootfs-mount-propagation"
    lesson = "03"

    def __init__(self, word: str) -> None:
        self.flags = mounts.PROPAGATION_OPTIONS[word]

    def calls(self):
        return [syscalls.mount.text(None, "/", None, self.flags, None)]

    def apply(self, context):
        mounts.set_propagation("/", self.flags)


class Sysctl(Step):
    name = "sysctl"
    why = "switches of the kernel that each namespace has for itself"
    clause = "config-linux.md#sysctl"
    lesson = "09"

    def __init__(self, values: dict[str, str]) -> None:
        # sysctl(8): with a slash first, dots are part of a name, as in net/ipv4/conf/eth0.1
        self.values = {
            "sys/" + (name if "/" in name else name.replace(".", "/")): value
            for name, value in values.items()
        }

    def calls(self):
        return [syscalls.write_file.text("/proc/" + path, v) for path, v in self.values.items()]

    def apply(self, context):
        for path, value in self.values.items():
            context.hint = "the container needs a proc mount at /proc, and this kernel that switch"
            proc.write_proc(path, value)


class BundleMaskedPaths(MaskedPaths):
    """By descriptor, and only with the real /dev/null."""

    def apply(self, context):
        for path in self.paths:
            if _exists(context.root_fd, path):
                mountfd.mask_in_root(context.root_fd, path)


class BundleReadonlyPaths(ReadonlyPaths):
    def apply(self, context):
        for path in self.paths:
            if _exists(context.root_fd, path):
                mountfd.readonly_in_root(context.root_fd, path)


def _exists(root: int, path: str) -> bool:
    try:
        os.close(mounts.open_in_root(root, path))
    except (FileNotFoundError, NotADirectoryError):
        return False  # this kernel does not have that file: nothing to protect
    return True
