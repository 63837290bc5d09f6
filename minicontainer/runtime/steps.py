"""The steps of which a container start is made; each can describe itself and apply itself.

A step's `calls()` are the system calls as one would write them by hand; `apply(context)` does them.
`why`, `clause` (of the OCI runtime spec, or a man page) and `lesson` are for readers and for
`minicontainer explain`.
"""

from __future__ import annotations

import os
import stat

from ..kernel import capabilities, mounts, namespaces, syscalls, userns
from ..kernel.syscalls import MS_BIND, MS_RDONLY, MS_REC


class Context:
    """What steps of one start share: descriptors that only exist once the start runs."""

    __slots__ = ("alive_fd", "root_fd")

    def __init__(self, alive_fd: int) -> None:
        self.alive_fd = alive_fd  # read end of a pipe; hung up when the parent is gone
        self.root_fd = -1  # the container's root, before it is our root


class Step:
    """Base of all steps. `where`: "parent" (before the fork) or "init" (the container's PID 1).

    `fields`: what of the configuration it carries out, with all below; a namespace by its type, as
    in "linux.namespaces[pid]", a mount by its number.
    """

    name = ""
    where = "init"
    fields: tuple[str, ...] = ()
    why = ""
    clause = ""
    lesson = ""

    def calls(self) -> list[str]:
        """The step as text: one string for each system call."""
        raise NotImplementedError

    def apply(self, context: Context) -> None:
        """Do it. Raises OSError whose text is the failing call."""
        raise NotImplementedError


class Unshare(Step):
    clause = "config-linux.md#namespaces"

    def __init__(self, kinds, where: str) -> None:
        self.kinds = list(kinds)
        self.where = where
        self.name = "unshare " + ",".join(self.kinds)
        self.fields = tuple(f"linux.namespaces[{kind}]" for kind in self.kinds)
        isolates = "; ".join(namespaces.NAMESPACES[kind][2] for kind in self.kinds)
        self.why = f"own {isolates}"
        self.lesson = "04"
        if where == "parent":
            self.why += ". These hold for children only, so a fork follows"
        if "user" in self.kinds:
            self.lesson = "05"

    def calls(self):
        return [syscalls.unshare.text(namespaces.flags(self.kinds))]

    def apply(self, context):
        namespaces.unshare(self.kinds)


class MapIds(Step):
    name = "map ids"
    fields = ("linux.uidMappings", "linux.gidMappings")
    where = "parent"
    why = "you, outside, are root inside; every other id is nobody"
    clause = "config-linux.md#user-namespace-mappings"
    lesson = "05"

    def __init__(self, uid: dict, gid: dict) -> None:
        self.ids = (uid["containerID"], uid["hostID"], gid["containerID"], gid["hostID"])

    def calls(self):
        uid, host_uid, gid, host_gid = self.ids
        return [
            "write('/proc/self/setgroups', 'deny')",
            f"write('/proc/self/uid_map', '{uid} {host_uid} 1')",
            f"write('/proc/self/gid_map', '{gid} {host_gid} 1')",
        ]

    def apply(self, context):
        userns.write_single_id_map(*self.ids)


class Fork(Step):
    name = "fork"
    where = "parent"
    why = "the child is the first process of the new pid namespace: PID 1, the container's init"
    clause = "pid_namespaces(7)"
    lesson = "04"

    def calls(self):
        return [syscalls.fork.text()]

    def apply(self, context):
        raise NotImplementedError("container.start forks")


class NewSession(Step):
    name = "new session"
    why = "no controlling terminal: nothing inside can type into yours, signals come through us"
    clause = "setsid(2)"
    lesson = "04"

    def calls(self):
        return [syscalls.setsid.text()]

    def apply(self, context):
        syscalls.setsid()


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
    clause = "config.md#mounts"
    lesson = "03"

    def __init__(self, mount: dict) -> None:
        self.target = mount["destination"]
        self.source = mount.get("source", mount.get("type", "none"))
        self.flags, self.propagation, self.data = mounts.parse_options(mount.get("options", ()))
        self.fstype = None if self.flags & MS_BIND else mount.get("type")
        self.name = f"mount {self.target}"
        self.why = _WHY_MOUNTED.get(self.fstype or "", f"a fresh {self.fstype}")
        if self.flags & MS_BIND:
            self.why = f"the host's {self.source}, at {self.target}"

    def calls(self):
        return [syscalls.mount.text(self.source, self.target, self.fstype, self.flags, self.data)]

    def apply(self, context):
        mounts.mount_in_root(
            context.root_fd, self.source, self.target, self.fstype, self.flags, self.data
        )
        if self.propagation:
            fd = mounts.open_in_root(context.root_fd, self.target)
            mounts.set_propagation(f"/proc/self/fd/{fd}", self.propagation)
            os.close(fd)


_DEVICES = {
    "null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9),
    "tty": (5, 0),
}  # fmt: skip
_DEVICE_LINKS = {
    "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx",
}  # fmt: skip


class Devices(Step):
    name = "devices"
    fields = ("linux.devices",)
    why = "the few that every program expects; no disk is among them"
    clause = "config-linux.md#default-devices"
    lesson = "03"

    def __init__(self, bind: bool) -> None:
        # In a user namespace mknod(2) of a device is EPERM whoever asks, so the host's is bound.
        self.bind = bind
        if bind:
            self.why += " (bound from the host: a user namespace may not mknod)"

    def calls(self):
        if self.bind:
            nodes = [
                syscalls.mount.text(f"/dev/{name}", f"/dev/{name}", None, MS_BIND, None)
                for name in _DEVICES
            ]
        else:
            nodes = [
                f"mknod('/dev/{name}', S_IFCHR|0666, makedev{number})"
                for name, number in _DEVICES.items()
            ]
        return nodes + [
            f"symlink({target!r}, '/dev/{name}')" for name, target in _DEVICE_LINKS.items()
        ]

    def apply(self, context):
        for name in _DEVICES:
            if self.bind:
                mounts.mount_in_root(
                    context.root_fd, f"/dev/{name}", f"/dev/{name}", None, MS_BIND, None
                )
        dev = mounts.open_in_root(context.root_fd, "/dev", os.O_PATH | os.O_DIRECTORY)
        mask = os.umask(0)
        try:
            if not self.bind:
                for name, number in _DEVICES.items():
                    device = os.makedev(*number)
                    syscalls.mknodat(dev, name, stat.S_IFCHR | 0o666, device)
            for name, target in _DEVICE_LINKS.items():
                syscalls.symlinkat(target, dev, name)
        finally:
            os.umask(mask)
            os.close(dev)


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


class ReadonlyPaths(Step):
    clause = "config-linux.md#readonly-paths"
    lesson = "10"

    def __init__(self, paths, name: str, why: str) -> None:
        self.paths = list(paths)
        self.fields = ("root.readonly" if self.paths == ["/"] else "linux.readonlyPaths",)
        self.name = name
        self.why = why

    def calls(self):
        flags = syscalls.MS_REMOUNT | MS_BIND | MS_RDONLY
        return [syscalls.mount.text(None, path, None, flags, None) for path in self.paths]

    def apply(self, context):
        for path in self.paths:
            try:
                if path != "/":
                    syscalls.mount(path, path, None, MS_BIND | MS_REC, None)
                mounts.remount_bind_in_root(context.root_fd, path, MS_RDONLY)
            except FileNotFoundError:
                continue  # this kernel does not have that file: nothing to protect


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
        for path in self.paths:
            try:
                if os.path.isdir(path):
                    syscalls.mount("tmpfs", path, "tmpfs", MS_RDONLY, "size=0k")
                else:
                    syscalls.mount("/dev/null", path, None, MS_BIND, None)
            except FileNotFoundError:
                continue


class Hostname(Step):
    name = "hostname"
    fields = ("hostname",)
    why = "a name of its own, in the new uts namespace"
    clause = "config.md#hostname"
    lesson = "04"

    def __init__(self, hostname: str) -> None:
        self.hostname = hostname

    def calls(self):
        return [syscalls.sethostname.text(self.hostname)]

    def apply(self, context):
        syscalls.sethostname(self.hostname)


class Loopback(Step):
    name = "loopback up"
    fields = ("linux.namespaces[network]",)
    why = "127.0.0.1 is all the network that a new network namespace has, and it starts down"
    clause = "network_namespaces(7)"
    lesson = "09"

    def calls(self):
        return [syscalls.set_interface_up.text("lo")]

    def apply(self, context):
        syscalls.set_interface_up("lo")


class Identity(Step):
    name = "identity"
    fields = ("process.user",)
    clause = "config.md#posix-platform-user"
    lesson = "05"

    def __init__(self, user: dict, setgroups: bool) -> None:
        self.uid, self.gid = user["uid"], user["gid"]
        self.groups = list(user.get("additionalGids", ())) if setgroups else None
        self.umask = user.get("umask", 0o022)
        self.why = f"become uid {self.uid}, gid {self.gid}, and drop the caller's groups"
        if self.groups is None:
            self.why = f"become uid {self.uid}, gid {self.gid} (setgroups is denied: see map ids)"

    def calls(self):
        groups = [] if self.groups is None else [syscalls.setgroups.text(self.groups)]
        return [
            *groups,
            syscalls.setresgid.text(self.gid, self.gid, self.gid),
            syscalls.setresuid.text(self.uid, self.uid, self.uid),
            syscalls.umask.text(self.umask),
        ]

    def apply(self, context):
        if self.groups is not None:
            syscalls.setgroups(self.groups)
        syscalls.setresgid(self.gid, self.gid, self.gid)
        syscalls.setresuid(self.uid, self.uid, self.uid)
        syscalls.umask(self.umask)


class BoundingSet(Step):
    name = "bounding set"
    fields = ("process.capabilities.bounding",)
    why = "what is taken out here, no program can ever get back, setuid or not"
    clause = "config.md#linux-process"
    lesson = "10"

    def __init__(self, names) -> None:
        self.names = list(names)

    def calls(self):
        return [
            syscalls.prctl.text(syscalls.PR_CAPBSET_DROP, name)
            for name in capabilities.NAMES
            if name not in self.names
        ]

    def apply(self, context):
        capabilities.drop_bounding(capabilities.mask(self.names))


class Capabilities(Step):
    name = "capabilities"
    fields = tuple(f"process.capabilities.{kind}" for kind in capabilities.SETS[1:])
    clause = "config.md#linux-process"
    lesson = "10"

    def __init__(self, sets: dict, uid: int) -> None:
        self.effective = capabilities.mask(sets.get("effective", ()))
        self.permitted = capabilities.mask(sets.get("permitted", ()))
        self.inheritable = capabilities.mask(sets.get("inheritable", ()))
        count = self.permitted.bit_count() if uid == 0 else 0
        self.why = f"root keeps {count} of {len(capabilities.NAMES)}" if count else "keeps none"

    def calls(self):
        return [syscalls.capset.text(self.effective, self.permitted, self.inheritable)]

    def apply(self, context):
        capabilities.set_all(self.effective, self.permitted, self.inheritable)


class NoNewPrivileges(Step):
    name = "no_new_privs"
    fields = ("process.noNewPrivileges",)
    why = "exec of a setuid program gives nothing any more"
    clause = "config.md#linux-process"
    lesson = "10"

    def calls(self):
        return [syscalls.prctl.text(syscalls.PR_SET_NO_NEW_PRIVS, 1)]

    def apply(self, context):
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)


class DieWithParent(Step):
    name = "die with parent"
    why = "when we are killed, even by SIGKILL, nothing stays behind; must follow setresuid"
    clause = "PR_SET_PDEATHSIG(2const)"
    lesson = "11"

    def calls(self):
        return [syscalls.prctl.text(syscalls.PR_SET_PDEATHSIG, 9)]

    def apply(self, context):
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 9)
        # Had the parent died before that line, no signal would come: its pipe tells.
        os.set_blocking(context.alive_fd, False)
        try:
            os.read(context.alive_fd, 1)
        except BlockingIOError:
            return  # still held open
        os._exit(125)


class WorkingDirectory(Step):
    name = "working directory"
    fields = ("process.cwd",)
    clause = "config.md#process"
    lesson = "02"

    def __init__(self, cwd: str) -> None:
        self.cwd = cwd
        self.why = "entered as the user that the command runs as"

    def calls(self):
        return [syscalls.chdir.text(self.cwd)]

    def apply(self, context):
        syscalls.chdir(self.cwd)


class CloseDescriptors(Step):
    name = "close descriptors"
    why = "an open directory of the host would be a way out: all but stdin, stdout, stderr close"
    clause = "close_range(2)"
    lesson = "10"

    def calls(self):
        return [syscalls.close_range.text(3, 0xFFFFFFFF, syscalls.CLOSE_RANGE_CLOEXEC)]

    def apply(self, context):
        syscalls.close_range(3, 0xFFFFFFFF, syscalls.CLOSE_RANGE_CLOEXEC)


class Exec(Step):
    name = "exec"
    fields = ("process.args", "process.env")
    why = "init becomes the command: same process, PID 1 in there"
    clause = "runtime.md#start"
    lesson = "01"

    def __init__(self, args, env) -> None:
        self.args = list(args)
        self.env = dict(entry.split("=", 1) for entry in env)

    def calls(self):
        return [syscalls.execve.text(self.args[0], self.args, self.env)]

    def candidates(self) -> list[str]:
        """The paths that are tried, as execvp(3) does."""
        command = self.args[0]
        if "/" in command:
            return [command]
        return [f"{d or '.'}/{command}" for d in self.env.get("PATH", "").split(":")]

    def apply(self, context):
        failure: OSError = FileNotFoundError(2, self.calls()[0])
        for path in self.candidates():
            try:
                syscalls.execve(path, self.args, self.env)
            except (FileNotFoundError, NotADirectoryError) as error:
                if os.path.lexists(path):
                    raise error  # the file is there: its interpreter is not
            except PermissionError as error:
                failure = error  # as a shell does, go on looking
        raise failure
