"""Who a name is in an image: its own /etc/passwd and /etc/group say so, by docker's rules.

They are a stranger's files, so they are only read: resolved within the image's root, and only
when they are regular files of reasonable size.
"""

from __future__ import annotations

import os
import stat

from ..kernel import mounts
from .errors import ImageError

LIMIT = 1 << 20  # bytes
HIGHEST = 2**32 - 2  # (uid_t) -1 means "leave as it is" to setresuid(2)


def look_up(root: str, text: str) -> tuple[int, int, list[int]]:
    """uid, gid and all groups of USER[:GROUP], names or numbers, in the directory `root`.

    "" is root. Without GROUP the gid is that of /etc/passwd, 0 for a user who is not in there, and
    the groups are those that list the user, too. The gid is always one of them: a setgid program
    would drop it else, and with it what files deny to that group (CVE-2022-36109).
    Raises ImageError.
    """
    user, colon, group = text.partition(":")
    uid, gid, name = _number(user or "0"), 0, ""
    for entry in _entries(root, "/etc/passwd", 7):
        if user == entry[0] or (uid is not None and entry[2] == str(uid)):
            name, uid, gid = entry[0], int(entry[2]), int(entry[3])
            break
    if uid is None:
        raise ImageError(f"user {user!a} is not in the image's /etc/passwd", "or give its number")
    if not colon and not name:
        return uid, gid, [gid]
    groups = _entries(root, "/etc/group", 4)
    if not colon:
        listing = [int(one[2]) for one in groups if name in one[3].split(",")]
        return uid, gid, sorted({gid, *listing})
    found = [int(one[2]) for one in groups if one[0] == group]
    number = found[0] if found else _number(group)
    if number is None:
        raise ImageError(f"group {group!a} is not in the image's /etc/group", "or give its number")
    return uid, number, [number]


def owner_of(root: str, text: str) -> tuple[int, int]:
    """uid and gid of a --chown: docker's rules differ in that a number alone is also the gid's."""
    uid, gid, _ = look_up(root, text)
    return uid, uid if _number(text) is not None else gid


def _number(text: str) -> int | None:
    plain = text.isascii() and text.isdecimal() and len(text) <= 10
    return int(text) if plain and int(text) <= HIGHEST else None


def _entries(root: str, path: str, fields: int) -> list[list[str]]:
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    file_fd = -1
    try:
        file_fd = mounts.open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(file_fd).st_mode):
            return []
        lines = os.read(file_fd, LIMIT).decode(errors="replace").split("\n")
    except OSError:
        return []  # no such file, or a link to nowhere
    finally:
        for fd in (root_fd, file_fd):
            if fd >= 0:
                os.close(fd)
    found = [line.split(":") for line in lines]
    numbers = slice(2, 4 if fields == 7 else 3)
    return [
        one for one in found
        if len(one) == fields and all(_number(text) is not None for text in one[numbers])
    ]  # fmt: skip
