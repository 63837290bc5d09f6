"""A group's directory in one hierarchy: what v1 and v2 have in common. `v1` and `v2` extend it."""

from __future__ import annotations

import _signal as signal
import errno
import os
from time import monotonic, sleep

from .. import syscalls
from . import files
from .files import CgroupError

PATIENCE = 10.0  # seconds for what the kernel finishes later: an exit, a freeze, an rmdir
IN_USE = "give the container a cgroupsPath of its own"


def patiently():
    """Yields whether time is up, with longer and longer pauses: for loops that try again."""
    end, pause = monotonic() + PATIENCE, 0.0005
    while True:
        yield monotonic() > end
        sleep(pause)
        pause = min(2 * pause, 0.05)


class Directory:
    """One directory of a group.

    mount_point  where the hierarchy is mounted; path is below it
    controllers  as in `Hierarchy`
    made         the directories that this group has to make, or has made; topmost first
    """

    version = 0
    enter_file = "cgroup.procs"  # for a process that moves itself
    # Controller, section and name in `stats`, file, key in it or "", unit to divide by
    counters: tuple[tuple[str, str, str, str, str, int], ...] = ()

    def __init__(
        self, mount_point: str, path: str, controllers: tuple[str, ...], made: list[str]
    ) -> None:
        self.mount_point = mount_point
        self.path = path
        self.controllers = controllers
        self.made = made

    def make(self) -> None:
        """mkdir what is missing. Raises CgroupError when it cannot, or somebody else was faster."""
        for directory in self.made:
            try:
                syscalls.mkdir(directory, 0o755)
            except OSError as error:
                number, text = error.errno or 0, error.strerror or ""
                if number != errno.EEXIST:
                    raise CgroupError(number, text, files.why(number, directory)) from None
                if directory == self.path:
                    self.made.remove(directory)  # so that undoing leaves it alone
                    raise CgroupError(number, f"{text}: somebody else made it", IN_USE) from None

    def enter(self, pid: int) -> None:
        """Move a process into the group; 0 is the caller, a process without threads."""
        files.write(f"{self.path}/{'cgroup.procs' if pid else self.enter_file}", str(pid))

    def write(self, write) -> None:
        """Do a `resources.Write`. Raises CgroupError."""
        write.apply(self.path)

    def groups(self) -> list[str]:
        """The directory and all below it, the deepest first; none when it is gone."""
        try:
            # A link for each directory below, one for itself, one for its name: no need to list.
            if os.stat(self.path).st_nlink == 2:
                return [self.path]
        except FileNotFoundError:
            return []
        return [directory for directory, _, _ in os.walk(self.path, topdown=False)]

    def processes(self) -> list[int]:
        """The processes in this group and those below; not those that our /proc cannot show."""
        pids = [int(pid) for group in self.groups() for pid in files.lines(f"{group}/cgroup.procs")]
        # A process of another pid namespace is shown as 0: to kill(2) that is ourselves!
        return [pid for pid in pids if pid]

    def freeze(self, frozen: bool) -> None:
        """Ask for the state, without waiting for it."""
        raise NotImplementedError

    def frozen(self) -> bool:
        """Whether each process has stopped."""
        raise NotImplementedError

    def kill(self, done: set[int]) -> set[int]:
        """Send SIGKILL to each process but those that got it; returns those that have it now."""
        pids = {*self.processes()}
        for pid in pids - done:
            try:
                syscalls.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        return pids | done

    def stats(self) -> dict[str, dict[str, int | None]]:
        """What the controllers of this hierarchy count."""
        found: dict[str, dict[str, int | None]] = {}
        for controller, section, name, file, key, unit in self.counters:
            if controller in self.controllers:
                path = f"{self.path}/{file}"
                value = files.keyed(path).get(key) if key else files.number(path)
                found.setdefault(section, {})[name] = None if value is None else value // unit
        return found

    def remove(self) -> None:
        """rmdir what we made, and what the container made below it; again and again until gone.

        rmdir of a group can be EBUSY for a while after its last process has exited. A directory
        above the group that others use by now stays. Raises CgroupError when time is up.
        """
        for directory in reversed(self.made):
            if directory == self.path:
                self._remove_group()
            else:
                _rmdir(directory)

    def _remove_group(self) -> None:
        for late in patiently():
            failures = [failure for failure in map(_rmdir, self.groups()) if failure]
            if not failures:
                return
            if late:
                raise CgroupError(errno.EBUSY, failures[-1], f"cat {self.path}/cgroup.procs")
            self.kill(set())


def _rmdir(directory: str) -> str:
    """Returns the failing call when it is in use, else ""."""
    try:
        syscalls.rmdir(directory)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
        return error.strerror or ""
    return ""


def missing(path: str, mount_point: str) -> list[str]:
    """The directories on the way from `mount_point` to `path` that are not there, topmost first."""
    found: list[str] = []
    while path != mount_point and not os.path.isdir(path):
        found.insert(0, path)
        path = path.rpartition("/")[0]
    return found
