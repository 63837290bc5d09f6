"""A root file system, written straight into the archive that the kernel unpacks."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import BinaryIO

from tests.roots import REPOSITORY

sys.path.append(str(REPOSITORY / "vm-images"))

from kit import cpio


class Tree:
    """Everything lies below /system, which becomes a mount and the root in the guest: pivot_root(2)
    refuses to leave the initramfs itself.
    """

    TOP = "system"

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.there: set[str] = set()
        self.real: dict[str, str] = {}
        self.sources: set[str] = set()  # of Python, whose compiled form is looked for

    def add(self, path: Path, name: str = "") -> None:
        """A file of the host, under its path or another one; a link with what it points to."""
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(path)
            self.link(str(path), target)
            self.add(Path(os.path.dirname(path), target))
        elif stat.S_ISREG(status.st_mode):
            name = self._real(name or str(path))
            self._entry(name, status.st_mode, path.read_bytes(), int(status.st_mtime))
            if name.endswith(".py"):
                self.sources.add(name)

    def write(self, name: str, content: bytes, mode: int = 0o644) -> None:
        self._entry(self._real(name), stat.S_IFREG | mode, content)

    def link(self, name: str, target: str) -> None:
        self._entry(self._real(name), stat.S_IFLNK | 0o777, target.encode())

    def directory(self, path: str) -> str:
        """Makes it, and returns its real path: where the host's /bin is a link to usr/bin, the
        guest's is one, too.
        """
        if path not in self.real:
            here = self._real(path) if path != "/" else "/"
            if os.path.islink(here):
                self.link(here, os.readlink(here))
                here = self.directory(os.path.join(os.path.dirname(here), os.readlink(here)))
            else:
                self._entry(here, stat.S_IFDIR | 0o755, b"")
            self.real[path] = here
        return self.real[path]

    def begin(self, init: Path, busybox: Path) -> None:
        """What the kernel starts, and the shell for it."""
        self._put("bin", stat.S_IFDIR | 0o755, b"")
        self._put("bin/busybox", stat.S_IFREG | 0o755, busybox.read_bytes())
        self._put("bin/sh", stat.S_IFLNK | 0o777, b"busybox")
        self._put("init", stat.S_IFREG | 0o755, init.read_bytes())

    def end(self) -> None:
        self.file.write(cpio.END)

    def _real(self, path: str) -> str:
        directory, name = os.path.split(os.path.normpath(path))
        return os.path.join(self.directory(directory), name)

    def _entry(self, name: str, mode: int, content: bytes, mtime: int = 0) -> None:
        if name not in self.there:
            self.there.add(name)
            self._put(self.TOP + name.rstrip("/"), mode, content, mtime)

    def _put(self, name: str, mode: int, content: bytes, mtime: int = 0) -> None:
        self.file.write(cpio.header(name.encode(), mode=mode, mtime=mtime, size=len(content)))
        self.file.write(content + cpio.padding(len(content)))
