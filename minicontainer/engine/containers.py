"""The containers of this user: a directory for each, which any process can bring to nothing.

<data directory>/containers/NAME/
    container.json   the record: what it is made of, who stands by it, how it ended
    config.json      the OCI configuration
    rootfs           where the image is mounted, in the container's mount namespace alone
    upper, work      overlayfs' directories: what the container changed
    volumes/N        anonymous volumes
    log, log.1       of a detached one: see `logs`

One mkdir(2) takes the name. What lives no longer than a boot is in `runtime.state`: pid and cgroup,
as for every container: `minicontainer-runtime list` shows these, too.
"""

from __future__ import annotations

import _signal as signal
import fcntl
import os
import select
import stat
import time

from .. import paths
from ..images import descriptor, rootless
from ..images.errors import ImageError
from ..images.store import Store
from ..runtime import checks, jsonfile, lifecycle
from ..runtime import state as states
from ..runtime.errors import ContainerError, kernel_words
from ..runtime.state import State

RECORD, CONFIG, LOG = "container.json", "config.json", "log"
PATIENCE = 10.0  # seconds for whoever stands by a killed container to tidy up
HALF_MADE = 60.0  # seconds after which a directory without a record is one that its maker died in


class Container:
    """One container's directory and record. `create` makes it, `find` finds it.

    damage  why its record cannot be read, or ""; then `record` is empty
    """

    def __init__(self, name: str, record: dict, damage: str = "") -> None:
        self.name = name
        self.directory = f"{root()}/{name}"
        self.record = record
        self.damage = damage
        self._lock = -1

    @property
    def complete(self) -> bool:
        """Whether `run` came so far that it could be started; else nothing ever ran in it."""
        return "layers" in self.record

    def file(self, name: str) -> str:
        return f"{self.directory}/{name}"

    def save(self, **changes) -> None:
        """Change the record, whole."""
        self.record.update(changes)
        jsonfile.write_file(self.file(RECORD), jsonfile.dumps(self.record))

    def state(self) -> State | None:
        """What the runtime knows of it while it runs."""
        try:
            return states.load(state_root(), self.name)
        except ContainerError:
            return None

    def attended(self) -> bool:
        """Whether the process that stands by it is there."""
        pid, started = self.record.get("monitor") or (0, 0)
        return bool(pid) and states.start_time(pid) == started

    def status(self) -> str:
        """running, paused, created (nothing ran yet, or is about to), exited, or damaged."""
        if self.damage:
            return "damaged"
        state = self.state()
        if state and state.running():
            return state.status()
        return "created" if self.attended() or self.record.get("exit") is None else "exited"

    def layers(self) -> list[str]:
        """What its root is made of, the lowest first; the last one is its own."""
        return [*self.record["layers"], self.file("upper")]

    def stand_by(self) -> None:
        """Say that this process does, or a fork of it. Raises ContainerError when another does."""
        if self._lock < 0:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            lock = os.open(self.directory, flags)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                raise ContainerError(
                    f"container {self.name} is {self.status()}: another process stands by it"
                ) from None
            self._lock = lock
        me = os.getpid()
        self.save(monitor=[me, states.start_time(me)])

    def end(self, log) -> None:
        """Kill what runs of it, and undo what the runtime made."""
        state = self.state()
        if state:
            lifecycle.undo(state, log)

    def stop(self, number: int, seconds: int) -> None:
        """Ask it to end, and kill it when it has not after so many seconds."""
        state = self.state()
        pid, started = self.record.get("monitor") or (0, 0)
        if state and state.running():
            try:
                state.signal(number)
                _await(state.pid, state.record["startTime"], seconds)
                state.signal(signal.SIGKILL)
            except ProcessLookupError:
                pass  # it has ended
        if pid != os.getpid():
            _await(pid, started, PATIENCE)  # it notes how it ended

    def remove(self, log, force: bool = False) -> None:
        """Undo everything; may be called again, also for one that was half made or half removed.

        Raises ContainerError when another process stands by it, or that is not known, unless
        forced.
        """
        if self.damage and not force:
            raise damaged(self)
        pid, started = self.record.get("monitor") or (0, 0)
        other = pid != os.getpid() and self.attended()
        if other and not force:
            raise ContainerError(
                f"container {self.name} is {self.status()}", hint="stop it first, or rm --force"
            )
        self.end(log)
        # It finishes what it does at the end; one that does not is killed
        if other and not _await(pid, started, PATIENCE):
            lifecycle.kill_process(pid, started)
            _await(pid, started, PATIENCE)
        Store().unpin(self.name)
        while os.path.lexists(self.directory):
            try:
                remove_tree(self.directory)
            except FileNotFoundError:
                pass  # somebody else is at it, too
            except PermissionError:  # files of ids that are ours in a user namespace only
                rootless.inside(lambda: remove_tree(self.directory))


def root() -> str:
    return f"{paths.data_dir()}/containers"


def state_root() -> str:
    """`minicontainer-runtime`'s, too."""
    return f"{paths.runtime_dir()}/containers"


def create(name: str, record: dict) -> Container:
    """Take the name, or a new one for ""; the caller stands by it."""
    chosen = states.checked_id(name or os.urandom(6).hex())
    container = Container(chosen, {**record, "created": int(time.time())})
    os.makedirs(root(), mode=0o700, exist_ok=True)
    try:
        os.mkdir(container.directory, 0o700)
    except FileExistsError:
        raise ContainerError(
            f"the name {chosen} is in use by a container",
            hint=f"take another one, or: minicontainer rm {chosen}",
        ) from None
    container.stand_by()
    return container


def find(name: str, whole: bool = True) -> Container:
    """By its name, or the beginning of it. Raises ContainerError when there is none, or several.

    whole: one that is damaged or half made will not do, and raises it, too.
    """
    there = names()
    found = [name] if name in there else [one for one in there if name and one.startswith(name)]
    if len(found) > 1:
        raise ContainerError(f"{name}: {len(found)} containers begin so: {', '.join(found)}")
    if not found:
        raise ContainerError(f"no such container: {name}", hint="minicontainer ps --all lists them")
    container = _load(found[0])
    if whole and container.damage:
        raise damaged(container)
    if whole and not container.complete:
        raise ContainerError(
            f"container {container.name} is half made: somebody is at it, or was killed",
            hint=f"minicontainer rm --force {container.name}",
        )
    return container


def damaged(container: Container) -> ContainerError:
    return ContainerError(
        f"container {container.name}: {container.file(RECORD)} is damaged: {container.damage}",
        hint=f"what it changed is in {container.file('upper')}; "
        f"minicontainer rm --force {container.name} removes it all",
    )


def names() -> list[str]:
    return states.names(root())


def all_() -> list[Container]:
    """The latest first."""
    found = [_load(name) for name in names()]
    return sorted(found, key=lambda one: -one.record.get("created", 0))


def check() -> list[str]:
    """What is wrong, in words: damaged records, and layers that are not there any more."""
    there = all_()
    return [damaged(one).message for one in there if one.damage] + [
        f"container {one.name}: layer {path} is not there"
        for one in there for path in one.record.get("layers", ()) if not os.path.isdir(path)
    ]  # fmt: skip


def sweep(log) -> int:
    """Remove what nobody will: containers of `run --rm` that were killed, and half-made ones.

    A damaged one stays: what it changed may be dear to somebody.
    """
    count = 0
    for container in all_():
        if container.damage:
            log(str(damaged(container)))
            continue
        if container.record:
            unwanted = container.record["remove"] or not container.complete
            dead = unwanted and not container.attended()
        else:
            try:
                dead = time.time() - os.stat(container.directory).st_mtime > HALF_MADE
            except FileNotFoundError:
                continue
        if dead:
            container.remove(log)
            count += 1
    return count


def _process(value, name: str) -> None:
    checks.items(_NUMBER)(value, name)
    if len(value) != 2 or value[0] >= 1 << 31:
        raise checks.wrong(name, "a pid and its start time", value)


_NUMBER = checks.number(0, 2**63 - 1)
# What `create` saves; the rest comes later, and then is of these kinds
_RECORD = checks.fields(
    ("image", "descriptor", "remove", "stop_signal", "created"),
    image=checks.text, descriptor=descriptor.check_descriptor, remove=checks.boolean,
    labels=checks.mapping(checks.text), stop_signal=checks.text, created=_NUMBER, monitor=_process,
    layers=checks.items(checks.absolute), volumes=checks.mapping(checks.absolute),
    command=checks.items(checks.text), detached=checks.boolean, interactive=checks.boolean,
    log_size=_NUMBER, copied=checks.boolean, started=_NUMBER, finished=_NUMBER,
    exit=checks.number(0, 255),
)  # fmt: skip
_WHOLE = checks.fields(("layers", "volumes", "command", "detached", "interactive", "log_size"))


def _load(name: str) -> Container:
    """With an empty record where there is none: it is half made, or half removed."""
    try:
        record = jsonfile.loads(jsonfile.read_file(f"{root()}/{name}/{RECORD}"))
        _RECORD(record, "")
        if "layers" in record:
            _WHOLE(record, "")
    except FileNotFoundError:
        return Container(name, {})
    except OSError as error:
        return Container(name, {}, kernel_words(error.errno or 0))
    except (ValueError, ImageError) as error:
        return Container(name, {}, str(error))
    return Container(name, record)


def _await(pid: int, started: int, seconds: float) -> bool:
    """Whether that process has ended, waiting for it so long."""
    if not pid:
        return True
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return states.start_time(pid) != started or bool(poll.poll(seconds * 1000))
    finally:
        os.close(fd)


def remove_tree(path: str) -> None:
    """Remove a directory, whose files are a stranger's: no link is followed, and any depth will do.

    (shutil takes 10 ms to be imported, and a descriptor for each level.)
    """
    fd = _enter(path)
    try:
        entered: list[str] = []
        left = [_unlink_files(fd)]  # directories, of each level
        while left[-1] or entered:
            if left[-1]:
                entered.append(left[-1].pop())
                inner = _enter(entered[-1], fd)
                left.append(_unlink_files(inner))
            else:
                inner = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
                left.pop()
                os.rmdir(entered.pop(), dir_fd=inner)
            os.close(fd)
            fd = inner
    finally:
        os.close(fd)
    os.rmdir(path)


def _enter(name: str, directory: int | None = None) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=directory)
    except PermissionError:  # overlayfs leaves one of mode 0
        os.chmod(name, 0o700, dir_fd=directory)
        return os.open(name, flags, dir_fd=directory)


def _unlink_files(fd: int) -> list[str]:
    """Empty a directory of all but directories; returns their names."""
    directories = []
    for name in os.listdir(fd):
        if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
            directories.append(name)
        else:
            os.unlink(name, dir_fd=fd)
    return directories
