"""What is left over? Two snapshots of the host, and their difference in words.

    before = leaks.snapshot()
    ...
    assert leaks.settled(before) == []

Mounts, control groups, network links, processes, the namespaces that they hold, and files in the
places for temporary ones. Everything is read from /proc, /sys and directories; nothing is changed,
but for one variable of the environment (see `MARK`). Standard library only.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

# Children inherit the environment, so a process that lost its parent still says whose it is.
MARK = "MINICONTAINER_LEAKS"

# How the words end for a process that lost its parent and is probably, not surely, ours.
ORPHAN = " (an orphan in a mount namespace of its own)"

# Where programs put what does not outlive them; looked at two levels deep.
PLACES = ("/dev/shm", "/run", "/tmp", "/var/lib")


@dataclass(frozen=True)
class Snapshot:
    """What the host had at one moment.

    things  identity -> words; "" for what is somebody else's (never reported, but known)
    ignore  prefixes of paths that are not looked at
    """

    things: dict[tuple, str] = field(repr=False)
    ignore: tuple[str, ...] = ()


def snapshot(ignore: Iterable[str | os.PathLike[str]] = ()) -> Snapshot:
    """Look at the host now. `ignore`: path prefixes to leave out, as a test's own directory."""
    _mark_children()
    prefixes = tuple(os.fspath(path) for path in ignore)
    things: dict[tuple, str] = {}
    for look in (_mounts, _cgroups, _links, _files):
        things.update((key, words) for key, words in look() if not str(key[1]).startswith(prefixes))
    things.update(_processes())
    return Snapshot(things, prefixes)


def difference(before: Snapshot, after: Snapshot) -> list[str]:
    """What `after` has and `before` has not, one leftover thing a string."""
    new = {key: words for key, words in after.things.items() if words and key not in before.things}
    # Of a new directory or cgroup, not also what is in it.
    return sorted(
        words for key, words in new.items() if (key[0], os.path.dirname(str(key[1]))) not in new
    )


def settled(
    before: Snapshot, seconds: float = 5, concerns: Callable[[str], bool] = bool
) -> list[str]:
    """`difference` to now; while there is one, look again for so many seconds.

    A killed process, a released cgroup and an unmounted file system go away a moment later.
    concerns: which of the words count; all, without it.
    """
    deadline = time.monotonic() + seconds
    while True:
        left = list(filter(concerns, difference(before, snapshot(before.ignore))))
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


def _mark_children() -> str:
    """Put our pid into the environment: "100/250" says that 100 started 250 and 250 is us."""
    mark = os.environ.get(MARK, "")
    if mark.rpartition("/")[2] != str(os.getpid()):
        mark = os.environ[MARK] = f"{mark}/{os.getpid()}".lstrip("/")
    return mark


# --- each `look` yields (identity, words); the identity's second field is the path or name ------


def _mounts() -> Iterator[tuple[tuple, str]]:
    seen: Counter[str] = Counter()  # one mount may lie on another
    for point, fstype in _mount_table():
        seen[point] += 1
        yield ("mount", point, fstype, seen[point]), f"mount {point} ({fstype})"


def _mount_table() -> list[tuple[str, str]]:
    """(mount point, type) of all mounts in our namespace, proc_pid_mountinfo(5)."""
    table = []
    with open("/proc/self/mountinfo") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            # space, tab, newline and backslash are written in octal
            point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), left.split()[4])
            table.append((point, right.split()[0]))
    return table


def _cgroups() -> Iterator[tuple[tuple, str]]:
    for point, fstype in _mount_table():
        if fstype in ("cgroup", "cgroup2"):
            for directory, _, _ in os.walk(point):
                yield ("cgroup", directory), f"cgroup {directory}"


def _links() -> Iterator[tuple[tuple, str]]:
    for name in os.listdir("/sys/class/net"):
        yield ("link", name), f"network link {name}"


def _files() -> Iterator[tuple[tuple, str]]:
    for place in {*PLACES, tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR") or "/run"}:
        for path in _entries(place):
            yield ("file", path), f"file {path}"
            if os.path.isdir(path) and not os.path.islink(path):
                for below in _entries(path):
                    yield ("file", below), f"file {below}"


def _entries(directory: str) -> list[str]:
    try:
        return [os.path.join(directory, name) for name in os.listdir(directory)]
    except OSError:  # not ours to read, or gone in the meantime
        return []


def _processes() -> Iterator[tuple[tuple, str]]:
    """All living processes and the namespaces they are in; words only for what is ours."""
    table = _process_table()
    us = os.getpid()
    ancestors = _ancestors(us, table)
    relations = {pid: _relation(pid, us, ancestors, table) for pid in table}
    suffixes = {pid: ORPHAN if relations[pid] == "orphan" else "" for pid in table}
    for pid, (_, start) in table.items():
        words = f"process {pid} {_command(pid)}{suffixes[pid]}" if relations[pid] else ""
        yield ("process", pid, start), words
    # A namespace that somebody else is in too is no leftover of ours: theirs come last and win.
    for pid in sorted(table, key=lambda pid: not relations[pid]):
        for name in _namespaces(pid):
            words = f"namespace {name} kept by pid {pid}{suffixes[pid]}" if relations[pid] else ""
            yield ("namespace", name), words


def _process_table() -> dict[int, tuple[int, str]]:
    """pid -> (its parent, its start time); without zombies, which hold nothing."""
    table = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    # proc_pid_stat(5); the command, field 2, may hold spaces and parentheses
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue  # it ended meanwhile
            if fields[0] not in b"ZX":
                table[int(name)] = (int(fields[1]), fields[19].decode())
    return table


def _ancestors(pid: int, table: dict[int, tuple[int, str]]) -> set[int]:
    """The process itself, its parent, and so on up to PID 1."""
    found = {1}
    while pid in table:
        found.add(pid)
        pid = table[pid][0]
    return found


def _relation(pid: int, us: int, ancestors: set[int], table: dict[int, tuple[int, str]]) -> str:
    """What makes a process ours: "own" or "orphan"; "" for somebody else's, us and our ancestors.

    It descends from us, or it has lost the parent that did. Then its parent is PID 1 or a subreaper
    above us, and the mark in its environment says whose it is. A container's init and a virtual
    machine have an environment of their own: there a mount namespace that is not ours has to do.
    """
    if pid in ancestors:
        return ""
    if us in _ancestors(pid, table):
        return "own"
    mark = f"{MARK}={_mark_children()}/".encode()
    environment = _read(f"/proc/{pid}/environ").split(b"\0")
    if any((variable + b"/").startswith(mark) for variable in environment):
        return "own"
    mounts = _link(f"/proc/{pid}/ns/mnt")
    orphan = table[pid][0] in ancestors
    return "orphan" if orphan and mounts not in ("", _link("/proc/self/ns/mnt")) else ""


def _command(pid: int) -> str:
    words = _read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode(errors="replace").strip()
    return words[:100] or _read(f"/proc/{pid}/comm").decode(errors="replace").strip()


def _namespaces(pid: int) -> set[str]:
    """What it is in and what its children will be in, as "mnt:[4026531841]"."""
    directory = f"/proc/{pid}/ns"
    try:
        return {_link(f"{directory}/{name}") for name in os.listdir(directory)} - {""}
    except OSError:
        return set()


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
