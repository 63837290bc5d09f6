"""The cache directory that the artifacts live in: one writer at a time, whole files or none, and a
manifest of what each was made of.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import sys
from collections.abc import Iterator
from typing import Any

from kit import trees
from kit.recipe import Failed
from minicontainer.paths import cache_dir

SCHEMA = 1
ROOTS = "/var/cache/minicontainer/vm-images"  # root's own, which everyone may read
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # renameat2(2)

_libc = ctypes.CDLL(None, use_errno=True)


def directory() -> str:
    return os.path.join(cache_dir(), "vm-images")


def output(path: str) -> str:
    return os.path.join(directory(), path)


def read_manifest(where: str = "") -> dict[str, Any]:
    """What was built here (or in `where`); empty when nothing was, or an older recipe wrote it."""
    try:
        with open(os.path.join(where or directory(), "manifest.json"), encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, json.JSONDecodeError):
        found = {}
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        return {"schema": SCHEMA, "artifacts": {}, "command_lines": {}}
    return found


def write_manifest(manifest: dict[str, Any]) -> None:
    new = output(".building/manifest.json")
    with open(new, "w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.rename(new, output("manifest.json"))


def copied_from_root(path: str, inputs: dict[str, str], target: str) -> dict[str, str] | None:
    """Copy root's artifact to `target` if it was made of the same inputs; returns its versions."""
    entry = read_manifest(ROOTS).get("artifacts", {}).get(path)
    if os.geteuid() == 0 or entry is None or entry["inputs"] != inputs:
        return None
    try:
        shutil.copyfile(os.path.join(ROOTS, path), target)
    except PermissionError:
        return None
    if trees.checksum(target)[0] != entry["sha256"]:
        os.unlink(target)
        return None
    return {**entry["versions"], "copied from": ROOTS}


def install(new: str, path: str) -> None:
    """Put a finished file or tree in its place in one step: readers see the old one or the new.

    rename(2) replaces a file but not a tree with something in it; exchanging the two does.
    """
    trees.refuse_mounts(path)
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    if not os.path.isdir(path):
        os.rename(new, path)
        return
    names = os.fsencode(new), os.fsencode(path)
    if _libc.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), new, None, path)
    trees.remove(new)  # which now is the old one


@contextlib.contextmanager
def locked(waiting: str) -> Iterator[tuple[int, str]]:
    """(lock's descriptor, scratch directory); prints `waiting` when another build has it.

    Whatever the scratch directory holds at the start was left by a build that was killed.
    """
    top = directory()
    try:
        os.makedirs(top, mode=0o755, exist_ok=True)
        lock = os.open(os.path.join(top, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        fix = "set MINICONTAINER_CACHE to a directory of yours with some 1500 MB free"
        raise Failed(f"cannot write to {top}: {error.strerror}", fix) from error
    scratch = os.path.join(top, ".building")
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(waiting, file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        _empty(scratch)
        os.mkdir(scratch, 0o700)
        yield lock, scratch
    finally:
        _empty(scratch)
        os.close(lock)


def _empty(scratch: str) -> None:
    if os.path.lexists(scratch):
        trees.remove(scratch)
