"""Steps for the root file system; every path in it and in a configuration may be a stranger's."""

from __future__ import annotations

import errno
import os
import stat

from ..kernel import mountfd, mounts, proc, syscalls
from ..kernel.syscalls import (
    MNT_DETACH,
    MS_BIND,
    MS_MOVE,
    MS_NODEV,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    MS_SLAVE,
)  # fmt: skip
from .steps import Step


class Propagation(Step):
    name = "private mounts"
    fields = ("linux.rootfsPropagation",)
    why = "a new mount namespace is a copy; without this, mounts made in it still reach the host"
    clause = "config-linux.md#rootfs-mount-propagation"
    lesson = "03"

    def __init__(self, flags: int) -> None:
        self.flags = flags

    def calls(self):
        return [syscalls.mount.text(None, "/", None, self.flags, None)]

    def apply(self, context):
        mounts.set_propagation("/", self.flags)


class ParentPrivate(Step):
    name = "private parent"
    fields = ("root.path",)
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


class BindRoot(Step):
    name = "bind root"
    fields = ("root.path",)
    why = "pivot_root wants a mount point: bind the directory onto itself"
    clause = "config.md#root"
    lesson = "03"

    def __init__(self, path: str) -> None:
        self.path = path

    def calls(self):
        return [syscalls.mount.text(self.path, self.path, None, MS_BIND | MS_REC, None)]

    def apply(self, context):
        syscalls.mount(self.path, self.path, None, MS_BIND | MS_REC, None)
        context.root_fd = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


_WHY_MOUNTED = {
    "proc": "the processes of the new pid namespace, and no others",
    "sysfs": "the devices of the new network namespace; read-only",
    "devpts": "pseudo-terminals of its own",
    "mqueue": "the message queues of the new ipc namespace",
}


class Mount(Step):
    """A mount of the configuration, with everything that the spec's options can say."""

    clause = "config.md#mounts"
    lesson = "03"

    def __init__(self, mount: dict, bundle: str) -> None:
        words = list(mount.get("options", ()))
        if mount.get("type") == "bind":
            words.insert(0, "bind")
        self.target = os.path.normpath("/" + mount["destination"].lstrip("/"))
        self.source = mount.get("source", mount.get("type", "none"))
        self.flags, self.propagation, self.data = mounts.parse_options(words)
        self.recursive = mounts.recursive_attributes(words)
        self.copy = "tmpcopyup" in words
        self.mount_fd = -1  # see OpenSources
        self.fstype = None if self.bind else mount.get("type")
        self.name = f"mount {self.target}"
        self.why = _WHY_MOUNTED.get(self.fstype or "", f"a fresh {self.fstype}")
        if self.bind:
            self.source = os.path.join(bundle, mount.get("source", ""))
            self.why = f"the host's {self.source}, at {self.target}"
        # `Devices` puts nodes into /dev first
        self.early_flags = self.flags & ~(MS_RDONLY if self.target == "/dev" else 0)

    @property
    def bind(self) -> bool:
        return bool(self.flags & MS_BIND)

    def calls(self):
        return [syscalls.mount.text(self.source, self.target, self.fstype, self.flags, self.data)]

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
            try:
                mountfd.bind_in_root(
                    root, self.source, self.target, self.early_flags, self.recursive
                )
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

    def __init__(self, bundle_mounts: list[Mount]) -> None:
        self.mounts = bundle_mounts
        self.fields = tuple(field for one in bundle_mounts for field in one.fields)

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


_DEFAULT_DEVICES = {
    "/dev/null": (1, 3), "/dev/zero": (1, 5), "/dev/full": (1, 7), "/dev/random": (1, 8),
    "/dev/urandom": (1, 9), "/dev/tty": (5, 0),
}  # fmt: skip
_DEVICE_LINKS = {
    "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx",
}  # fmt: skip
_KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


class Devices(Step):
    """The default devices and those of the configuration, and the links beside them."""

    name = "devices"
    fields = ("linux.devices",)
    why = "the few that every program expects; no disk is among them"
    clause = "config-linux.md#default-devices"
    lesson = "03"

    def __init__(self, devices: list[dict], bind: bool, read_only: bool = False) -> None:
        self.devices = [
            {"path": path, "type": "c", "major": number[0], "minor": number[1]}
            for path, number in _DEFAULT_DEVICES.items()
            if path not in {d["path"] for d in devices}
        ] + devices
        self.read_only = read_only
        # In a user namespace mknod(2) of a device is EPERM whoever asks, so the host's is bound.
        self.bind = bind
        if bind:
            self.why += " (bound from the host: a user namespace may not mknod)"

    def calls(self):
        nodes = [
            syscalls.mount.text(d["path"], d["path"], None, MS_BIND, None) if self.bind else
            f"mknod({d['path']!r}, makedev({d.get('major', 0)}, {d.get('minor', 0)}))"
            for d in self.devices
        ]  # fmt: skip
        return nodes + [
            f"symlink({target!r}, '/dev/{name}')" for name, target in _DEVICE_LINKS.items()
        ]

    def apply(self, context):
        mask = os.umask(0)
        try:
            dev = mounts.make_in_root(context.root_fd, "/dev", directory=True)
            try:
                for device in self.devices:
                    self._make(context.root_fd, dev, device)
                for name, target in _DEVICE_LINKS.items():
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

    def _make(self, root: int, dev: int, device: dict) -> None:
        path = os.path.normpath(device["path"])
        if self.bind and device["type"] != "p":
            return mountfd.bind_in_root(root, path, path, MS_BIND)
        above, _, name = path.rpartition("/")
        if above == "/dev":
            directory = os.dup(dev)
        else:
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


class NoOtherDevices(Step):
    name = "no other devices"
    why = "root may mknod a disk, or the image has one: without a cgroup only nodev keeps it closed"
    clause = "mount(2)"
    lesson = "03"

    def __init__(self, devices: Devices) -> None:
        self.paths = [device["path"] for device in devices.devices]

    def calls(self):
        binds = [syscalls.mount.text(path, path, None, MS_BIND, None) for path in self.paths]
        flags = MS_REMOUNT | MS_BIND | MS_NODEV
        return binds + [
            syscalls.mount.text(None, path, None, flags, None) for path in ("/dev", "/")
        ]

    def apply(self, context):
        for path in self.paths:  # each a mount of its own, which the flag does not reach
            syscalls.mount(path, path, None, MS_BIND, None)
        for path in ("/dev", "/"):
            mounts.remount_bind_in_root(context.root_fd, path, MS_NODEV)


class PivotRoot(Step):
    name = "pivot_root"
    fields = ("root.path",)
    why = "the root file system changes for good: the host's is unmounted from this namespace"
    clause = "config.md#root"
    lesson = "03"

    def __init__(self, path: str) -> None:
        self.path = path

    def calls(self):
        return [
            syscalls.chdir.text(self.path),
            syscalls.pivot_root.text(".", "."),
            syscalls.umount2.text(".", syscalls.MNT_DETACH),
            syscalls.chdir.text("/"),
        ]

    def apply(self, context):
        os.close(context.root_fd)
        mounts.pivot_root(self.path)
        context.root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


class MoveRoot(Step):
    name = "move root"
    fields = ("root.path",)
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
    fields = ("linux.rootfsPropagation",)
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
    fields = ("linux.sysctl",)
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


class ReadonlyPaths(Step):
    name = "read-only paths"
    fields = ("linux.readonlyPaths",)
    why = "switches of the kernel, not the container's"
    clause = "config-linux.md#readonly-paths"
    lesson = "10"

    def __init__(self, paths) -> None:
        self.paths = list(paths)

    def calls(self):
        flags = MS_REMOUNT | MS_BIND | MS_RDONLY
        return [syscalls.mount.text(None, path, None, flags, None) for path in self.paths]

    def apply(self, context):
        for path in self.paths:
            mountfd.readonly_in_root(context.root_fd, path)


class ReadonlyMount(ReadonlyPaths):
    """What is a mount point already."""

    clause = "config.md#root"
    lesson = "03"

    def __init__(self, path: str, name: str, why: str) -> None:
        super().__init__([path])
        self.name, self.why = name, why
        self.fields = ("root.readonly",)

    def apply(self, context):
        mounts.remount_bind_in_root(context.root_fd, self.paths[0], MS_RDONLY)


class MaskedPaths(Step):
    name = "mask paths"
    fields = ("linux.maskedPaths",)
    why = "files of /proc and /sys that tell about the host are covered"
    clause = "config-linux.md#masked-paths"
    lesson = "10"

    def __init__(self, paths) -> None:
        self.paths = list(paths)

    def calls(self):
        return [syscalls.mount.text("/dev/null", path, None, MS_BIND, None) for path in self.paths]

    def apply(self, context):
        mountfd.mask_in_root(context.root_fd, self.paths)
