"""HOME of a user in a root file system, as runc has it: images expect it, and nobody else sets it.

/etc/passwd is a stranger's file, so it is only read: from outside, resolved within its root, and
opened only when it is a regular file. To open a fifo waits, and to open a device does something:
/dev/watchdog resets the host.
"""

from __future__ import annotations

import os
import stat

from ..kernel import mounts

_LIMIT = 1 << 20


def add(env: list[str], root: str, uid: int) -> list[str]:
    """env with HOME, unless it has one; root is a directory, /proc/PID/root too."""
    if any(entry.startswith("HOME=") for entry in env):
        return env
    return [*env, f"HOME={_look_up(root, uid)}"]


def _look_up(root: str, uid: int) -> str:
    root_fd = -1
    file_fd = -1
    try:
        root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        file_fd = mounts.open_in_root(root_fd, "/etc/passwd")
        if not stat.S_ISREG(os.fstat(file_fd).st_mode):
            return "/"
        with open(f"/proc/self/fd/{file_fd}", "rb", buffering=0) as file:
            text = file.read(_LIMIT)
        for line in text.decode(errors="replace").splitlines():
            fields = line.split(":")
            if len(fields) == 7 and fields[2] == str(uid) and fields[5].startswith("/"):
                return fields[5]
    except OSError:
        pass  # no such file, or a link to nowhere
    finally:
        for fd in (root_fd, file_fd):
            if fd >= 0:
                os.close(fd)
    return "/"
