"""The two directories a run works in, and how a later run finds what a killed one left.

Sockets and pid files lie in the runtime directory; daemon storage (image layers, overlay upper
directories) lies in the cache directory, on the same file system as the root trees that the other
arms use, so that no arm has a faster disk. Both are named after the harness's pid, so two runs at
once do not meet and `clean` knows whose they were.
"""

from __future__ import annotations

import contextlib
import os
import shutil

from minicontainer.paths import cache_dir, runtime_dir

PREFIX = "bench-"


def _make(base: str) -> str:
    path = os.path.join(base, f"{PREFIX}{os.getpid()}")
    os.makedirs(base, exist_ok=True)
    # Others may pass through, not look around: libvirt runs QEMU as a user of its own.
    os.makedirs(path, mode=0o711, exist_ok=True)
    return path


def run_directory() -> str:
    """Sockets, pid files, FIFOs, bundles of this process; made when first asked for."""
    return _make(runtime_dir())


def storage_directory() -> str:
    """Daemon storage of this process; made when first asked for."""
    return _make(cache_dir())


def remove_own() -> None:
    """Remove both directories of this process; an arm that still holds a mount there has already
    reported it.
    """
    for base in (runtime_dir(), cache_dir()):
        shutil.rmtree(os.path.join(base, f"{PREFIX}{os.getpid()}"), ignore_errors=True)
    with contextlib.suppress(OSError):  # not empty: another run, or a container
        os.rmdir(runtime_dir())


def abandoned() -> list[str]:
    """Directories of harness processes that are no longer alive."""
    found = []
    for base in (runtime_dir(), cache_dir()):
        for name in sorted(os.listdir(base)) if os.path.isdir(base) else []:
            pid = name.removeprefix(PREFIX)
            if name.startswith(PREFIX) and pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
                found.append(os.path.join(base, name))
    return found
