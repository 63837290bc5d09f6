"""What is known about a container, on disk: so that any process, at any time, can undo it.

A directory for each container below the root directory (`--root`), made by one mkdir(2): of two
that create the same id at once, one wins. In it

    state.json    the record: written before anything is made, and again when more is known
    config.json   the configuration as it was at create; later changes in the bundle do not matter
    exec-PID-TIME   a runtime that stands by a process of `exec`, see `State.stand_by`
    exec.fifo     on which the container's init waits for `start`, which removes it; until all is
                  ready its name is unready.fifo
    result.fifo   on which init tells `start` why it could not exec

The record names processes by pid *and* start time: a pid alone may be a stranger's by now.
"""

from __future__ import annotations

import _signal as signal
import os
import time

from . import jsonfile
from .errors import ContainerError, NoSuchContainer, kernel_words

TYPE_CHECKING = False  # as in typing, whose import would cost a start 3 ms
if TYPE_CHECKING:
    from ..kernel import cgroups

RECORD, CONFIG = "state.json", "config.json"
UNREADY_FIFO, EXEC_FIFO, RESULT_FIFO = "unready.fifo", "exec.fifo", "result.fifo"

_EXECS = "exec-"


def _is_id(name: str) -> bool:
    plain = "".join(c for c in name if c not in "_+-.")
    return plain.isalnum() and name.isascii() and name[0] not in "-." and len(name) <= 240


def checked_id(name: str) -> str:
    """A container's id. It becomes a directory's name, so it must not lead anywhere else."""
    if not _is_id(name):
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

    def config(self) -> dict:
        """The configuration as it was at create. Raises ContainerError when it is damaged."""
        from . import config

        path = self.file(CONFIG)
        try:
            found = jsonfile.loads(jsonfile.read_file(path))
            config.check(found)
        except ValueError as error:
            raise damaged(self.record["id"], path, error) from None
        except OSError as error:
            raise damaged(self.record["id"], path, kernel_words(error.errno or 0)) from None
        return found

    def save(self, **changes) -> None:
        """Change the record, on disk at once and whole."""
        self.record.update(changes)
        jsonfile.write_file(self.file(RECORD), jsonfile.dumps(self.record))

    def remove(self) -> None:
        """Remove the directory; may be called again. The record goes last: it leads to the rest.

        Raises ContainerError when it cannot be removed.
        """
        try:
            for name in sorted(os.listdir(self.directory), key=lambda name: name == RECORD):
                try:
                    os.unlink(self.file(name))
                except FileNotFoundError:
                    pass  # somebody else is at it, too
                except IsADirectoryError:  # nobody of ours made that
                    import shutil

                    shutil.rmtree(self.file(name))
            os.rmdir(self.directory)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise ContainerError(
                f"state directory {self.directory}: {kernel_words(error.errno or 0)}",
                hint="make it writable, then again: delete --force", errno=error.errno or 0,
            ) from None  # fmt: skip

    @property
    def pid(self) -> int:
        return self.record.get("pid") or 0

    def stand_by(self) -> None:
        """Note that this process runs an `exec`: a container is not gone before its parent outside
        has reaped each process, and a parent that is stopped (SIGSTOP, Ctrl-Z) has to be woken.
        """
        me = os.getpid()
        try:
            for pid, started in self.standing_by():
                if start_time(pid) != started:
                    os.unlink(self.file(f"{_EXECS}{pid}-{started}"))
            path = self.file(f"{_EXECS}{me}-{start_time(me)}")
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError:
            pass  # deleted meanwhile, or a full disk: the note is a comfort

    def standing_by(self) -> list[tuple[int, int]]:
        """(pid, start time) of those that have said so; some have ended."""
        try:
            names = os.listdir(self.directory)
        except OSError:
            return []
        notes = [name.split("-")[1:] for name in names if name.startswith(_EXECS)]
        return [(int(one[0]), int(one[1])) for one in notes if all(map(str.isdecimal, one))]

    def running(self) -> bool:
        """Whether the container's first process is there, and is that process still."""
        return bool(self.pid) and start_time(self.pid) == self.record.get("startTime")

    def group(self) -> cgroups.Group | None:
        from ..kernel import cgroups

        record = self.record.get("cgroup")
        try:
            return cgroups.load(record) if record else None
        except ValueError as error:
            raise damaged(self.record["id"], self.file(RECORD), error) from None

    def status(self) -> str:
        """creating, created, running, paused or stopped (runtime.md#state)."""
        if not self.running():
            maker = self.record.get("maker") or [0, 0]
            return "creating" if not self.pid and start_time(maker[0]) == maker[1] else "stopped"
        if os.path.lexists(self.file(UNREADY_FIFO)):
            return "creating"
        waits = "created" if os.path.lexists(self.file(EXEC_FIFO)) else ""
        if waits and not self._perhaps_frozen():
            return waits
        group = self.group()
        try:
            return "paused" if group and group.frozen() else waits or "running"
        except OSError:
            return waits or "running"  # no freezer here: nobody can have paused it

    def _perhaps_frozen(self) -> bool:
        """Whether a freezer of its group says anything but that all is thawed.

        (All of `cgroups` would cost a `start` 3 ms, nearly always for nothing.)
        """
        for one in (self.record.get("cgroup") or {}).get("directories") or ():
            for name, thawed in (("freezer.state", "THAWED\n"), ("cgroup.freeze", "0\n")):
                try:
                    if jsonfile.read_file(f"{one['path']}/{name}") != thawed:
                        return True
                except (OSError, ValueError, KeyError, TypeError):
                    pass  # not of this version, or no record to go by: `group` will say it
        return False

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
    while True:
        state = _take(root, name, record)
        try:
            me = os.getpid()
            state.save(maker=[me, start_time(me)], created=_now())
            return state
        except FileNotFoundError:
            continue  # `gc` took the bare directory for one that a killed `create` left
        except OSError as error:
            state.remove()
            raise ContainerError(
                f"state directory {root}: {kernel_words(error.errno or 0)}", errno=error.errno or 0
            ) from None


def _take(root: str, name: str, record: dict) -> State:
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
    return State(root, name, {"id": name, **record})


def load(root: str, name: str, force: bool = False) -> State:
    """The container's state. Raises NoSuchContainer, or ContainerError for a damaged record.

    A directory without a record is one that its maker died in, or just makes: it has neither a pid
    nor a maker, which every record names.
    force: of a damaged record take what is sound, to delete it.
    """
    path = f"{root}/{checked_id(name)}"
    record = {}
    try:
        record = jsonfile.loads(jsonfile.read_file(f"{path}/{RECORD}"))
        check_record(record, name)
    except FileNotFoundError:
        if not os.path.isdir(path):
            raise NoSuchContainer(f"container {name!r} does not exist") from None
        record = {"id": name}
    except (ValueError, IsADirectoryError) as error:
        if not force:
            raise damaged(name, f"{path}/{RECORD}", error) from None
        record = _sound(record, name)
    except OSError as error:
        raise ContainerError(
            f"container {name!r}: {path}: {kernel_words(error.errno or 0)}", errno=error.errno or 0
        ) from None
    state = State(root, name, record)
    if force:
        try:
            state.group()
        except ContainerError:
            state.record = _sound(record, name)
    return state


_FIELDS = {
    "id": str, "ociVersion": str, "bundle": str, "rootfs": str, "created": str, "owner": str,
    "pid": int, "startTime": int, "maker": list, "annotations": dict, "hooks": dict,
    "options": dict, "cgroup": dict,
}  # fmt: skip


def check_record(record, name: str) -> None:
    """Raise ValueError for what `State.save` cannot have written."""
    if not isinstance(record, dict):
        raise ValueError("it is no object")
    if record.get("id") != name:
        raise ValueError(f"id: it is {record.get('id')!r}'s")
    for key, kind in _FIELDS.items():
        value = record.get(key)
        if value is not None and type(value) is not kind:
            raise ValueError(f"{key}: {value!r} is no {kind.__name__}"[:200])
    if not 0 <= (record.get("pid") or 0) < 1 << 31:
        raise ValueError(f"pid: {record['pid']} is none")
    maker = record.get("maker") or []
    if [type(one) for one in maker] != [int, int] or not 0 <= maker[0] < 1 << 31:
        raise ValueError("maker: a pid and its start time are expected")
    if record.get("hooks"):
        from . import config

        config.HOOK_LISTS(record["hooks"], "hooks")


def _sound(record, name: str) -> dict:
    """What of a damaged record is enough to find the container."""
    found: dict = {"id": name}
    for keys in (("pid", "startTime"), ("maker",), ("cgroup",)):
        some = {key: record.get(key) for key in keys} if isinstance(record, dict) else {}
        try:
            check_record({"maker": [0, 0], **some, "id": name}, name)
            State("", name, {**some, "id": name}).group()
            found.update(some)
        except (ValueError, ContainerError):
            pass
    return found


def damaged(name: str, path: str, why) -> ContainerError:
    return ContainerError(
        f"container {name!r}: {path} is damaged: {why}",
        hint=f"minicontainer-runtime delete --force {name}",
    )


def write_pid_file(path: str, pid: int) -> None:
    """Whole or not at all: somebody watches for it."""
    try:
        jsonfile.write_file(os.path.abspath(path), str(pid), 0o644)
    except OSError as error:
        raise ContainerError(
            f"--pid-file {path}: {kernel_words(error.errno or 0)}", errno=error.errno or 0
        ) from None


def names(root: str) -> list[str]:
    """The ids below the root directory, sorted. Raises ContainerError when it cannot be read."""
    try:
        with os.scandir(root) as entries:
            found = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ContainerError(
            f"--root {root}: {kernel_words(error.errno or 0)}", errno=error.errno or 0
        ) from None
    return [name for name in found if _is_id(name)]


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
