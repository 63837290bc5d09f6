"""A container's group: one name, and a directory in each hierarchy that matters."""

from __future__ import annotations

import errno
import os

from .. import syscalls
from . import devices, resources
from .detect import Layout, detect, why_missing
from .directory import Directory, patiently
from .files import CgroupError

TYPE_CHECKING = False  # as in typing, whose import would cost a start 3 ms
if TYPE_CHECKING:
    from collections.abc import Iterable


class Group:
    """See the package's text. `directories`: one for each hierarchy; `denied`: not ours to make."""

    def __init__(self, directories: list[Directory], layout: Layout | None = None) -> None:
        self.directories = directories
        self.denied: list[tuple[Directory, CgroupError]] = []
        self._born_in_v2 = False
        self._layout = layout

    def record(self) -> dict:
        """What undoing needs, for JSON. Save it before `create`: it says what will be made."""
        keys = ("version", "mount_point", "path", "controllers", "made")
        return {"directories": [{key: getattr(d, key) for key in keys} for d in self.directories]}

    def can_create(self) -> bool:
        """Whether this user may make all the directories, as far as that can be told before."""
        return all(
            os.access(d.made[0].rpartition("/")[0] if d.made else d.path, os.W_OK)
            for d in self.directories
        )

    def create(self) -> list[str]:
        """Make the directories; returns warnings.

        Where this user may not, `set` fails when a limit needs it, and without limits it is only a
        warning: a container works without a group. After any other error nothing is left, and
        nothing is recorded: an earlier record is void, since what it names may be another's.
        """
        placed, self.directories = self.directories, []
        for directory in placed:
            try:
                directory.make()
                self.directories.append(directory)
            except CgroupError as error:
                directory.remove()
                if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                    self.delete()
                    self.directories = []
                    raise
                self.denied.append((directory, error))
        return [f"no group for {','.join(d.controllers)}: {error.strerror} ({error.hint})"
                for d, error in self.denied]  # fmt: skip

    def below(self, path: str, controllers: Iterable[str] = ()) -> Group:
        """The group at that relative path, where it is there: else, as here, this one.

        controllers  those that it is for; all, without any
        Raises ValueError for a path that leads out, CgroupError when no hierarchy has it.
        """
        names = [name for name in path.split("/") if name]
        if ".." in names or "." in names:
            raise ValueError(f"{path!r} is no path of a group below the container's: without `..`")
        found, wanted = [], set(controllers)
        missing = set(names and self.directories)
        for d in self.directories:
            there = "/".join([d.path, *names])
            if (not wanted or wanted & {*d.controllers}) and os.path.isdir(there):
                found.append(type(d)(d.mount_point, there, d.controllers, []))
                missing = set()
            else:
                found.append(d)
        if missing:
            text = f"{path} is below none of {' '.join(d.path for d in self.directories)}"
            raise CgroupError(errno.ENOENT, text, "mkdir it there first, in each hierarchy")
        return Group(found, self._layout)

    def fork(self, flags: int = 0) -> int:
        """clone3(2) with a child born in the group's v2 directory; it has yet to `enter` the rest.

        flags are CLONE_NEW*. Seccomp filters of outer containers often deny clone3; without flags
        it is a fork then.
        """
        for directory in self.directories:
            if directory.version == 2:
                fd = os.open(directory.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    pid = syscalls.clone(flags, fd)
                except OSError as error:
                    if flags or error.errno not in (errno.ENOSYS, errno.EPERM):
                        raise
                else:
                    self._born_in_v2 = pid == 0
                    return pid
                finally:
                    os.close(fd)
        return syscalls.clone(flags, -1) if flags else syscalls.fork()

    def enter(self, pid: int = 0) -> None:
        """Move a process, and what it forks later, into the group.

        0 is the caller itself, which must have no other thread, and a lot faster: 10 ms on v1.
        """
        for directory in self.directories:
            if pid or not (directory.version == 2 and self._born_in_v2):
                directory.enter(pid)

    def set(self, limits: dict) -> list[str]:
        """Set, or change, the limits of an OCI `linux.resources`; returns warnings.

        Nothing is written when something in it is wrong (ValueError), or cannot be had on this host
        or by this user (CgroupError). When the kernel refuses a value, earlier ones are set.
        """
        planned, warnings = self._plan(limits)
        again = []
        for directory, write in planned:
            try:
                directory.write(write)
            except CgroupError as error:
                # Pairs such as memory and memory+swap, or quota and period, bound each other: which
                # one goes first depends on the present values.
                if error.errno != errno.EINVAL:
                    raise
                again.append((directory, write))
        for directory, write in again:
            directory.write(write)
        return warnings

    def calls(self, limits: dict) -> list[str]:
        """What `set` would do, as text: one string for each write."""
        return [write.text(directory.path) for directory, write in self._plan(limits)[0]]

    def _plan(self, limits: dict) -> tuple[list, list[str]]:
        versions = (self._layout or detect()).versions()
        found = list(resources.writes(limits, versions))
        warnings = [item for _, _, item in found if isinstance(item, str)]
        planned = [(self.having(controller), item) for controller, _, item in found
                   if not isinstance(item, str)]  # fmt: skip
        memory = limits.get("memory") or {}
        if memory.get("checkBeforeUpdate"):  # v1 refuses by itself, v2 would rather kill
            limit, now = memory.get("limit") or 0, self.stats().get("memory", {}).get("current")
            if 0 < limit < (now or 0):
                text = f"linux.resources.memory.limit: {limit} is less than the {now} in use"
                raise CgroupError(errno.EBUSY, text, "or leave checkBeforeUpdate out")
        if "devices" in limits:
            directory = self.having("devices")
            rules = devices.rules(limits)
            if directory.version == 1:
                planned += [(directory, write) for write in devices.writes_v1(*rules)]
            else:
                from . import devices_v2

                planned.append((directory, devices_v2.Filter(*rules)))
        return planned, warnings

    def having(self, controller: str) -> Directory:
        """The directory of a controller. Raises CgroupError that says why there is none."""
        # Every v2 group can be frozen, killed, and given a device filter.
        core = controller in ("freezer", "devices", "cgroup")
        for directory in self.directories:
            if controller in directory.controllers or (core and directory.version == 2):
                return directory
        for directory, error in self.denied:
            if controller in directory.controllers or directory.version == 2:
                text = f"no group for {controller}: {error.strerror}"
                raise CgroupError(error.errno or 0, text, error.hint)
        raise CgroupError(errno.EOPNOTSUPP, *why_missing(controller, self._layout or detect()))

    def stats(self) -> dict[str, dict[str, int | None]]:
        """memory (bytes; oom_kills), cpu (µs), pids: those that are there; see `counters`.

        A number is None where the kernel does not tell, and for "no limit".
        """
        found: dict[str, dict[str, int | None]] = {}
        for directory in self.directories:
            for section, numbers in directory.stats().items():
                found.setdefault(section, {}).update(numbers)
        return found

    def processes(self) -> list[int]:
        """All processes in the group and below, sorted."""
        return sorted({pid for directory in self.directories for pid in directory.processes()})

    def freeze(self) -> None:
        """Stop all processes where they are; returns when the last one has stopped."""
        freezer = self.having("freezer")
        freezer.freeze(True)
        for late in patiently():
            if freezer.frozen():
                return
            if late:
                freezer.freeze(False)
                pids = ",".join(map(str, freezer.processes()))
                text = f"{freezer.path}: not all processes stop"
                raise CgroupError(errno.EBUSY, text, f"see ps -o pid,stat,wchan -p {pids}")

    def thaw(self) -> None:
        """Let all processes go on."""
        self.having("freezer").freeze(False)

    def frozen(self) -> bool:
        """Whether the group is frozen as a whole."""
        return self.having("freezer").frozen()

    def kill(self) -> None:
        """SIGKILL for all processes, also for frozen ones; returns when the last one is gone.

        Frozen first, so that none forks away while we go through the list. On v1 a frozen process
        does not even die: it stays in uninterruptible sleep until it is thawed.
        """
        freezers = [d for d in self.directories if d.version == 2 or "freezer" in d.controllers]
        for late in patiently():
            left = self.processes()
            if not left:
                return
            if os.getpid() in left:
                raise CgroupError(errno.EBUSY, "this process itself is in the group", "leave first")
            if late:
                hint = "they wait for a device or a file server: cat /proc/PID/stack"
                raise CgroupError(errno.EBUSY, f"processes survive SIGKILL: {left}", hint)
            _ask(freezers, True)
            killed: set[int] = set()
            for directory in self.directories:
                killed = directory.kill(killed)
            _ask(freezers, False)

    def delete(self) -> None:
        """Kill what is in the group and remove what was made for it; may be called again."""
        self.kill()
        for directory in self.directories:
            directory.remove()


def _ask(freezers: list[Directory], frozen: bool) -> None:
    """Freeze or thaw what is still there: somebody else may be removing the group, too."""
    for directory in freezers:
        try:
            directory.freeze(frozen)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise
