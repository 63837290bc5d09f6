"""What is known about a container, on disk: so that any process, at any time, can undo it.

A directory for each container below the root directory (`--root`), made by one mkdir(2): of two
that create the same id at once, one wins. In it

    state.json    the record: written before anything is made, and again when more is known
    config.json   the configuration as it was at create; later changes in the bundle do not matter
    exec.fifo     on which the container's init waits for `start`, which removes it; until all is
                  ready its name is unready.fifo
    result.fifo   on which init tells `start` why it could not exec

The record names processes by pid *and* start time: a pid alone may be a stranger's by now.
"""

from __future__ import annotations

import _signal as signal
import os
import stat
import time

from . import jsonfile
from .errors import ContainerError, kernel_words

TYPE_CHECKING = False  # as in typing, whose import would cost a start 3 ms
if TYPE_CHECKING:
    from ..kernel import cgroups

RECORD, CONFIG = "state.json", "config.json"
UNREADY_FIFO, EXEC_FIFO, RESULT_FIFO = "unready.fifo", "exec.fifo", "result.fifo"


def checked_id(name: str) -> str:
    """A container's id. It becomes a directory's name, so it must not lead anywhere else."""
    plain = "".join(c for c in name if c not in "_+-.")
    if not plain.isalnum() or not name.isascii() or name[0] in "-." or len(name) > 240:
        raise ContainerError(
            f"container id {name!r}: letters, digits and _ + - . only, beginning with none of - .",
            hint="invalid ids are refused because the id becomes the name of a directory",
        )
    return name


class State:
    """One container's directory and record. `create` makes it, `load` finds it."""

    def __init__(self, root: str, name: str, record: dict) -> None:
        self.directory = f"{root}/{name}"
        self.record = record

    def file(self, name: str) -> str:
        return f"{self.directory}/{name}"

    def save(self, **changes) -> None:
        """Change the record, on disk at once and whole."""
        self.record.update(changes)
        jsonfile.write_file(self.file(RECORD), jsonfile.dumps(self.record))

    def remove(self) -> None:
        """Remove the directory; may be called again. The record goes last: it leads to the rest."""
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:
            return
        for name in sorted(names, key=lambda name: name == RECORD):
            try:
                os.unlink(self.file(name))
            except FileNotFoundError:
                pass
        try:
            os.rmdir(self.directory)
        except FileNotFoundError:
            pass

    @property
    def pid(self) -> int:
        return self.record.get("pid") or 0

    def running(self) -> bool:
        """Whether the container's first process is there, and is that process still."""
        return bool(self.pid) and start_time(self.pid) == self.record.get("startTime")

    def group(self) -> cgroups.Group | None:
        from ..kernel import cgroups

        record = self.record.get("cgroup")
        return cgroups.load(record) if record else None

    def status(self) -> str:
        """creating, created, running, paused or stopped (runtime.md#state)."""
        if not self.running():
            maker = self.record.get("maker") or [0, 0]
            return "creating" if not self.pid and start_time(maker[0]) == maker[1] else "stopped"
        if os.path.lexists(self.file(UNREADY_FIFO)):
            return "creating"
        if os.path.lexists(self.file(EXEC_FIFO)):
            return "created"
        group = self.group()
        try:
            return "paused" if group and group.frozen() else "running"
        except OSError:
            return "running"  # no freezer here: nobody can have paused it

    def public(self) -> dict:
        """The state as the spec defines it, with runc's three fields that its callers know."""
        status = self.status()
        alive = status not in ("stopped", "creating")
        known = {key: self.record.get(key) for key in ("ociVersion", "id")}
        known.update(status=status, pid=self.pid if alive else 0)
        for key in ("bundle", "rootfs", "created", "annotations", "owner"):
            known[key] = self.record.get(key) or ({} if key == "annotations" else "")
        return known

    def signal(self, number: int) -> None:
        """Send a signal to the container's first process and to nobody else.

        The descriptor pins a process; only then its start time is compared, so that neither a pid
        that was taken over before, nor one that is taken over now, is hit. Raises
        ProcessLookupError.
        """
        fd = os.pidfd_open(self.pid) if self.pid else -1
        try:
            if not self.running():
                raise ProcessLookupError(3, "container not running")
            signal.pidfd_send_signal(fd, number)
        finally:
            if fd >= 0:
                os.close(fd)


def check_free(root: str, name: str) -> None:
    """Raise ContainerError when the id is taken already, or none."""
    if os.path.lexists(f"{root}/{checked_id(name)}"):
        raise ContainerError(
            f"container with id exists: {name}",
            hint=f"take another id, or: minicontainer-runtime delete --force {name}",
        )


def create(root: str, name: str, record: dict) -> State:
    """Take the id, or raise ContainerError because somebody has it."""
    try:
        os.makedirs(root, mode=0o700, exist_ok=True)
        os.mkdir(f"{root}/{name}", 0o700)
    except FileExistsError:
        check_free(root, name)
        raise
    except OSError as error:
        raise ContainerError(
            f"state directory {root}: {kernel_words(error.errno or 0)}",
            hint="--root DIR names a directory that can be written", errno=error.errno or 0,
        ) from None  # fmt: skip
    state = State(root, name, {"id": name, **record})
    me = os.getpid()
    try:
        state.save(maker=[me, start_time(me)], created=_now())
    except OSError as error:
        state.remove()
        raise ContainerError(
            f"state directory {root}: {kernel_words(error.errno or 0)}", errno=error.errno or 0
        ) from None
    return state


def load(root: str, name: str) -> State:
    """The container's state. Raises ContainerError when there is none.

    A directory without a record is one that its maker died in, or just makes: it has no pid.
    """
    path = f"{root}/{checked_id(name)}"
    try:
        record = jsonfile.loads(jsonfile.read_file(f"{path}/{RECORD}"))
        return State(root, name, record if isinstance(record, dict) else {"id": name})
    except FileNotFoundError:
        if os.path.isdir(path):
            return State(root, name, {"id": name})
        raise ContainerError(f"container {name!r} does not exist") from None
    except ValueError:
        return State(root, name, {"id": name})
    except OSError as error:
        raise ContainerError(
            f"container {name!r}: {path}: {kernel_words(error.errno or 0)}", errno=error.errno or 0
        ) from None


def write_pid_file(path: str, pid: int) -> None:
    """Whole or not at all: somebody watches for it."""
    try:
        jsonfile.write_file(os.path.abspath(path), str(pid), 0o644)
    except OSError as error:
        raise ContainerError(
            f"--pid-file {path}: {kernel_words(error.errno or 0)}", errno=error.errno or 0
        ) from None


def names(root: str) -> list[str]:
    """The ids below the root directory, sorted."""
    try:
        entries = sorted(os.listdir(root))
    except FileNotFoundError:
        return []
    return [name for name in entries if stat.S_ISDIR(os.lstat(f"{root}/{name}").st_mode)]


def start_time(pid: int) -> int | None:
    """When a process was started, in clock ticks since boot; None when it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # proc_pid_stat(5): the second field, the name in parentheses, may contain anything
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def _now() -> str:
    """RFC 3339, in UTC, with nanoseconds."""
    seconds, rest = divmod(time.time_ns(), 10**9)
    return time.strftime(f"%Y-%m-%dT%H:%M:%S.{rest:09}Z", time.gmtime(seconds))
