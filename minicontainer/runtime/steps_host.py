"""Steps for what the container is in: its cgroup and limits, its namespaces, new or joined."""

from __future__ import annotations

import os

from ..kernel import namespaces, syscalls, userns
from .config import RLIMITS
from .steps import Step


class CreateCgroup(Step):
    name = "create cgroup"
    where = "parent"
    why = "what the container uses is counted and limited here, and all of it is found here"
    clause = "config-linux.md#cgroups-path"
    lesson = "06"

    def __init__(self, group) -> None:
        self.group = group

    def calls(self):
        made = [path for directory in self.group.directories for path in directory.made]
        return [syscalls.mkdir.text(path, 0o755) for path in made] or ["(it is there)"]

    def apply(self, context):
        for text in self.group.create():
            context.warn(text)


class EnterCgroup(Step):
    name = "enter cgroup"
    why = "first of all: what it is and starts is in the group from the beginning"
    clause = "config-linux.md#cgroups-path"
    lesson = "06"

    def __init__(self, group, where: str) -> None:
        self.group = group
        self.where = where

    def calls(self):
        return [
            syscalls.write_file.text(f"{directory.path}/{directory.enter_file}", "0")
            for directory in self.group.directories
        ]

    def apply(self, context):
        self.group.enter()


class LimitCgroup(Step):
    name = "cgroup limits"
    where = "outside"
    why = "set before init does anything"
    clause = "config-linux.md#control-groups"
    lesson = "06"

    def __init__(self, group, resources: dict) -> None:
        self.group = group
        self.resources = resources

    def calls(self):
        return self.group.calls(self.resources) or ["(none)"]

    def apply(self, context):
        for text in self.group.set(self.resources):
            context.warn(text)


class ResourceLimits(Step):
    name = "resource limits"
    where = "outside"
    why = "limits of each process, set from outside: there we may still raise them"
    clause = "config.md#posix-process"
    lesson = "10"

    def __init__(self, rlimits: list[dict]) -> None:
        self.limits = [(RLIMITS[r["type"]], r["soft"], r["hard"]) for r in rlimits]
        self.names = [r["type"] for r in rlimits]

    def calls(self):
        return [syscalls.prlimit.text("INIT", *limit) for limit in self.limits]

    def apply(self, context):
        for (number, soft, hard), name in zip(self.limits, self.names, strict=True):
            try:
                syscalls.prlimit(context.pid, number, soft, hard)
            except PermissionError as error:
                # To raise a hard limit takes CAP_SYS_RESOURCE, often missing on CI hosts
                context.hint = (
                    f"this host does not let us raise the hard limit of {name} (no "
                    f"CAP_SYS_RESOURCE): take less, as with --ulimit {name[7:].lower()}=1024:1024"
                )
                raise PermissionError(1, f"process.rlimits {name}: {error.strerror}") from None


class OomScore(Step):
    name = "oom_score_adj"
    where = "outside"
    why = "whom the kernel kills first when memory runs out"
    clause = "config.md#linux-process"
    lesson = "06"

    def __init__(self, value: int) -> None:
        self.value = value

    def calls(self):
        return [syscalls.write_file.text("/proc/INIT/oom_score_adj", str(self.value))]

    def apply(self, context):
        context.hint = (
            "lowering the value takes CAP_SYS_RESOURCE: leave it out, or take a higher one"
        )
        syscalls.write_file(f"/proc/{context.pid}/oom_score_adj", str(self.value))


class OpenNamespaces(Step):
    name = "open namespaces"
    where = "parent"
    why = "while we still see the host's /proc: a descriptor of each one that is joined"
    clause = "config-linux.md#namespaces"
    lesson = "04"

    def __init__(self, joined: dict[str, str]) -> None:
        self.joined = joined

    def calls(self):
        return [f"open({path!r}, O_RDONLY|O_CLOEXEC)" for path in self.joined.values()]

    def apply(self, context):
        for kind, path in self.joined.items():
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise OSError(error.errno, f"linux.namespaces {kind}: open({path!r})") from None
            context.namespaces[kind] = fd
            context.opened.append(fd)


class Join(Step):
    clause = "config-linux.md#namespaces"
    lesson = "04"

    def __init__(self, kinds, where: str) -> None:
        self.kinds = list(kinds)
        self.where = where
        self.name = "join " + ",".join(self.kinds)
        self.why = "namespaces that are there already, of another container or made by hand"

    def calls(self):
        return [syscalls.setns.text("FD", namespaces.flags([kind])) for kind in self.kinds]

    def apply(self, context):
        for kind in self.kinds:
            fd = context.namespaces.pop(kind)
            own = os.stat(f"/proc/self/ns/{namespaces.NAMESPACES[kind][0]}")
            if kind == "user" and os.fstat(fd).st_ino == own.st_ino:
                continue  # setns(2): joining one's own is EINVAL, for this kind alone
            syscalls.setns(fd, namespaces.flags([kind]))
            os.close(fd)
            if kind == "user":
                BecomeRoot("stage").apply(context)


class Unshare(Step):
    clause = "config-linux.md#namespaces"
    lesson = "04"

    def __init__(self, kinds, where: str) -> None:
        self.kinds = list(kinds)
        self.where = where
        self.name = "unshare " + ",".join(self.kinds)
        isolates = "; ".join(namespaces.NAMESPACES[kind][2] for kind in self.kinds)
        self.why = f"own {isolates}"
        if where == "stage":
            self.why += ". These hold for children only, so a fork follows"

    def calls(self):
        return [syscalls.unshare.text(namespaces.flags(self.kinds))]

    def apply(self, context):
        namespaces.unshare(self.kinds)


class MapIds(Step):
    name = "map ids"
    why = "which ids there are inside, and whose they are outside"
    clause = "config-linux.md#user-namespace-mappings"
    lesson = "05"

    def __init__(self, uids: list[dict], gids: list[dict], where: str) -> None:
        self.uids, self.gids = uids, gids
        self.where = where
        if where == "stage":
            self.why += "; our parent writes it"

    def calls(self):
        return [
            syscalls.write_file.text(f"/proc/PID/{name}_map", userns.map_text(maps))
            for name, maps in (("gid", self.gids), ("uid", self.uids))
        ]

    def apply(self, context):
        if self.where == "stage":
            context.ask("maps")
        else:
            self.write(context, context.pid)

    def write(self, context, pid: int) -> None:
        """The parent's part."""
        try:
            userns.write_maps(pid, self.uids, self.gids)
        except OSError:
            context.hint = userns.why_denied()
            raise


class BecomeRoot(Step):
    name = "become root"
    why = "take root's ids of the new user namespace, where it has them"
    clause = "user_namespaces(7)"
    lesson = "05"

    def __init__(self, where: str) -> None:
        self.where = where

    def calls(self):
        return [syscalls.setresgid.text(0, 0, 0), syscalls.setresuid.text(0, 0, 0)]

    def apply(self, context):
        context.setgroups = may_setgroups()
        # A change of ids makes a process non-dumpable, and the files in its /proc/self the host
        # root's; time offsets are written there.
        try:
            syscalls.setresgid(0, 0, 0)
            syscalls.setresuid(0, 0, 0)
        except OSError:
            return  # no root in there: the container's own user will be set later
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)


class Clone(Step):
    name = "clone"
    where = "parent"
    clause = "config-linux.md#namespaces"
    lesson = "04"

    def __init__(self, kinds, group) -> None:
        self.kinds = list(kinds)
        self.group = group
        isolates = "; ".join(namespaces.NAMESPACES[kind][2] for kind in self.kinds)
        self.why = f"a child with its own {isolates}. It is the container's init, PID 1 in there"

    def calls(self):
        return [syscalls.clone.text(namespaces.flags(self.kinds))]

    def apply(self, context):
        raise NotImplementedError("launch forks")

    def fork(self) -> int:
        """0 in the child."""
        flags = namespaces.flags(self.kinds)
        return self.group.fork(flags) if self.group else syscalls.clone(flags, -1)


def may_setgroups(pid: int | str = "self") -> bool:
    """Whether setgroups(2) is allowed in that process's user namespace (user_namespaces(7))."""
    try:
        with open(f"/proc/{pid}/setgroups") as file:
            return file.read().strip() != "deny"
    except FileNotFoundError:
        return True  # a kernel without user namespaces


class TimeOffsets(Step):
    name = "time offsets"
    where = "stage"
    why = "before the first process is in the time namespace: later they are fixed"
    clause = "config-linux.md#offset-for-time-namespace"
    lesson = "04"

    def __init__(self, offsets: dict) -> None:
        self.text = "\n".join(
            f"{clock} {value.get('secs', 0)} {value.get('nanosecs', 0)}"
            for clock, value in offsets.items() if clock in ("monotonic", "boottime")
        )  # fmt: skip

    def calls(self):
        return [syscalls.write_file.text("/proc/self/timens_offsets", self.text)]

    def apply(self, context):
        syscalls.write_file("/proc/self/timens_offsets", self.text)


class ForkSibling(Step):
    name = "fork"
    where = "stage"
    why = "PID 1 of the container, as a child of our parent, which waits for it; this process ends"
    clause = "pid_namespaces(7)"
    lesson = "04"

    def calls(self):
        return [syscalls.fork_sibling.text()]

    def apply(self, context):
        raise NotImplementedError("launch forks")


class JoinContainer(Step):
    where = "stage"
    clause = "runtime.md#query-state"
    lesson = "04"

    def __init__(self, kinds) -> None:
        self.kinds = list(kinds)
        self.name = "join " + ",".join(self.kinds)
        self.why = "everything that the container has, in one call, by a descriptor of its process"

    def calls(self):
        return [
            syscalls.prctl.text(syscalls.PR_SET_DUMPABLE, 0),
            syscalls.setns.text("PIDFD", namespaces.flags(self.kinds)),
        ]

    def apply(self, context):
        # Nobody in there may look into, or trace, a process that still has the host's memory and
        # descriptors (CVE-2016-9962); exec of the command ends this.
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        syscalls.setns(context.pidfd, namespaces.flags(self.kinds))
        if "user" in self.kinds:
            try:
                syscalls.setresgid(0, 0, 0)
                syscalls.setresuid(0, 0, 0)
            except OSError:
                return  # no root in there
