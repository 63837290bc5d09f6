"""`minicontainer-runtime gc`: bring to nothing what killed runtimes left behind.

    half-made containers   whose `create` was killed: their record leads to all that there is
    state directories      without a record: `create` was killed just after its mkdir(2)
    temporary files        of a record that was being written
    groups                 with our prefix, empty, of which no container here knows

What a living `create` works on is not touched, whoever else is at it: a record names its maker, and
when a directory that is still without one goes, that `create` makes it again. Groups with a
cgroupsPath of their own are found by their record only, since anybody may have made them.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time

from .kernel import cgroups, seccomp, syscalls
from .runtime import lifecycle, state
from .runtime.errors import ContainerError, NoSuchContainer, kernel_words
from .runtime.state import State


class Collector:
    """One run. `found`: what there was to remove, dicts of kind, name, why, and error or ""."""

    def __init__(self, root: str, stopped: bool, grace: float, dry_run: bool, log) -> None:
        self.root, self.stopped, self.grace = root, stopped, grace
        self.dry_run, self.log = dry_run, log
        self.found: list[dict] = []
        self.all_read = True  # else a group may be that of a damaged record

    def run(self) -> None:
        # Before the records: each group that a living `create` makes has one by then
        groups = cgroups.ours()
        for name in state.names(self.root):
            try:
                state.checked_id(name)
            except ContainerError:
                continue  # somebody else's
            self._container(name)
        known = self._known_groups()
        for name, group in groups.items() if self.all_read else ():
            self._group(name, group, known)
        self._files(seccomp.run_directory())

    def _remove(self, kind: str, name: str, why: str, action) -> None:
        error = ""
        if not self.dry_run:
            try:
                if action() is False:
                    return  # somebody has it again, or was faster
            except (BlockingIOError, FileNotFoundError, NoSuchContainer):
                return  # another gc is at it, or it is gone
            except ContainerError as problem:
                error = str(problem)
            except OSError as problem:
                error = f"{problem.strerror}: {kernel_words(problem.errno or 0)}"
        self.found.append({"kind": kind, "name": name, "why": why, "error": error})

    # --- containers ------------------------------------------------------------------------------

    def _container(self, name: str) -> None:
        try:
            one = state.load(self.root, name)
        except NoSuchContainer:
            return  # deleted meanwhile
        except ContainerError as error:
            self.all_read = False
            self.log(str(error))
            return
        if "maker" not in one.record:  # it had no record when we looked
            why = "a state directory without a record, its maker is dead"
            if all(dead(path) for path in _temporary(one.directory)):
                self._remove("directory", name, why, lambda: _alone(one, _remove_bare))
            return
        if why := self._why(one):
            self._remove("container", name, why, lambda: _alone(one, self._undo))
            return
        self._files(one.directory)

    def _files(self, directory: str) -> None:
        for path in filter(dead, _temporary(directory)):
            why = "half written, its writer is dead"
            self._remove("file", path, why, lambda path=path: os.unlink(path))

    def _why(self, one: State) -> str:
        """Why that container goes, or ""."""
        maker, started = one.record["maker"]
        half = not one.pid or os.path.lexists(one.file(state.UNREADY_FIFO))
        if half:
            alive = state.start_time(maker) == started
            return "" if alive else f"half made, its maker {maker} is dead"
        return "stopped" if self.stopped and one.status() == "stopped" else ""

    def _undo(self, one: State) -> bool:
        """Delete it, unless it is another one by now."""
        now = state.load(self.root, one.record["id"])
        if now.record != one.record or not self._why(now):
            return False
        lifecycle.delete(now, self.log, force=True)
        return True

    # --- groups ----------------------------------------------------------------------------------

    def _known_groups(self) -> set[str]:
        paths: set[str] = set()
        for name in state.names(self.root):
            try:
                record = state.load(self.root, name).record.get("cgroup") or {}
            except ContainerError:
                continue
            for directory in record.get("directories", ()):
                paths |= {directory["path"], *directory["made"]}
        return paths

    def _group(self, name: str, group: cgroups.Group, known: set[str]) -> None:
        paths = [directory.path for directory in group.directories]
        if known & set(paths) or group.processes():
            return
        try:
            youngest = max(os.stat(path).st_mtime for path in paths)
        except FileNotFoundError:
            return
        if time.time() - youngest >= self.grace:
            why = f"empty, and no container of {self.root} has it"
            self._remove("cgroup", name, why, lambda: _remove_empty(group))


def _alone(one: State, action) -> bool:
    """Do it to a container's directory, or return False because it is another one by now.

    Raises BlockingIOError when another gc is at it.
    """
    fd = os.open(one.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(fd), os.stat(one.directory)):
            return False
        return action(one)
    finally:
        os.close(fd)


def _temporary(directory: str) -> list[str]:
    """Files of ours that wait there to be renamed: NAME.json.PID, HASH.bpf.PID."""
    try:
        found = os.listdir(directory)
    except OSError:
        return []
    return [f"{directory}/{file}" for file in found
            if file.rpartition(".")[0].endswith((".json", ".bpf"))
            and file.rpartition(".")[2].isdecimal()]  # fmt: skip


def dead(path: str) -> bool:
    """Whether the process that a temporary file's name ends with has ended, or is a later one."""
    pid = path.rpartition(".")[2]
    started = state.start_time(int(pid))
    if started is None:
        return True
    try:
        age = time.time() - os.stat(path).st_mtime
    except FileNotFoundError:
        return False
    # In clock ticks since boot; a file is not older than its writer
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    return now - started / os.sysconf("SC_CLK_TCK") < age - 1


def _remove_bare(one: State) -> bool:
    for path in filter(dead, _temporary(one.directory)):
        os.unlink(path)
    try:
        os.rmdir(one.directory)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            return False  # its maker goes on
        raise
    return True


def _remove_empty(group: cgroups.Group) -> bool:
    """Without a kill: what is not empty any more is not ours to end."""
    gone = True
    for directory in group.directories:
        for path in directory.groups():
            try:
                syscalls.rmdir(path)
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                    raise
                gone = False
    return gone


def report(collector: Collector, as_json: bool) -> int:
    """Run it and print what it did; 1 when something could not be removed."""
    collector.run()
    failed = [one for one in collector.found if one["error"]]
    if as_json:
        print(json.dumps({"dry_run": collector.dry_run, "removed": collector.found}, indent=1))
        return 1 if failed else 0
    for one in collector.found:
        if one["error"]:
            collector.log(f"{one['kind']} {one['name']}: {one['error']}", "error")
        else:
            verb = "would remove" if collector.dry_run else "removed"
            print(f"{verb} {one['kind']} {one['name']}: {one['why']}")
    if not collector.found:
        print("nothing to remove")
    return 1 if failed else 0
