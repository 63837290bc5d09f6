"""COPY: files of a build context, or of another image, found, hashed, and copied into an image.

Both sides are strangers'. A source is resolved beneath the context (openat2(2), RESOLVE_BENEATH;
in another image RESOLVE_IN_ROOT), what is below it is never followed. It becomes a tar, and that is
unpacked over the image as `unpack` does it: each directory of the target is resolved as a process
in the image would.
"""

from __future__ import annotations

import errno
import os
import posixpath
import re
import stat
import time
from collections.abc import Iterable, Iterator
from hashlib import sha256

from ..kernel import mounts
from ..kernel.syscalls import RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from ..runtime.errors import kernel_words
from . import rootless, tar_write
from .errors import ImageError
from .ignore import Ignore, translate
from .tar_read import DIRECTORY as DIRECTORY_ENTRY
from .tar_read import SYMLINK

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Source:
    """The directory that files come from; raises OSError.

    fd       a descriptor of it, closed with the object
    in_root  absolute symlinks are the image's own; else none may lead out
    ignored  what is not there for us
    """

    fd = -1

    def __init__(self, path: str, in_root: bool = False) -> None:
        self.fd = os.open(path, DIRECTORY)
        self.ignored = Ignore()
        self._resolve = RESOLVE_NO_MAGICLINKS | (RESOLVE_IN_ROOT if in_root else RESOLVE_BENEATH)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)

    def open(self, path: str, flags: int = os.O_PATH) -> int:
        """A descriptor of a file; symlinks are followed. Raises ImageError."""
        try:
            return openat2(self.fd, path, flags | os.O_CLOEXEC, self._resolve)
        except OSError as error:
            number = error.errno or 0
            what = "leads out of the context" if number == errno.EXDEV else kernel_words(number)
            raise ImageError(f"{path!a}: {what}") from error

    def read(self, path: str) -> bytes | None:
        """A regular file's content, or None when there is none. Raises ImageError."""
        try:
            fd = self.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except ImageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise
        with open(fd, "rb") as file:
            return file.read() if stat.S_ISREG(os.fstat(fd).st_mode) else None

    def find(self, pattern: str) -> list[tuple[Source, str]]:
        """This, and each path in it that a source of COPY means. Raises ImageError."""
        path = posixpath.normpath(f"/{pattern}").lstrip("/") or "."
        if not any(char in path for char in "*?["):
            return [(self, path)]
        while "**" in path:  # only .dockerignore knows it
            path = path.replace("**", "*")
        try:
            rule = re.compile(translate(path), re.DOTALL)
        except re.error as error:
            raise ImageError(f"{pattern!a}: {error}") from None
        top = f"/proc/self/fd/{self.fd}"
        found = []
        for base, directories, files in os.walk(top):
            inside = base[len(top) + 1 :]
            paths = [posixpath.join(inside, name) for name in (*directories, *files)]
            found += [one for one in paths if rule.fullmatch(one) and not self.ignored(one)]
            if inside.count("/") + bool(inside) >= path.count("/"):
                directories.clear()
        if not found:
            raise ImageError(f"{pattern!a}: nothing in the context fits, or all is ignored")
        return [(self, one) for one in sorted(found, key=os.fsencode)]


def pack(
    jobs: list[tuple[Source, str]], packer: Packer, to: str, into: bool, archives: str = "",
    extracted: Packer | None = None,
) -> Iterator[bytes]:  # fmt: skip
    """Files, each found in a source, and what is in directories, as a tar, by COPY's rules.

    into      `to` is a directory that files come into
    archives  an empty directory: ADD unpacks tars there, and `extracted` packs that
    """
    for source, path in jobs:
        fd = source.open(path)
        try:
            is_file = not stat.S_ISDIR(os.fstat(fd).st_mode)
            if is_file and source.ignored(path):
                raise ImageError(f"{path!a}: it is ignored")
            if is_file and extracted and is_tar(fd):
                unpacked = f"{archives}/{path.replace('/', '_')}"
                os.mkdir(unpacked)
                extract(fd, unpacked, path, rootless.has_other_ids())
                yield from extracted.add(Source(unpacked).open("."), "", to)
                continue
            name = posixpath.basename(path)
            inside = "" if path == "." else path
            yield from packer.add(fd, inside, posixpath.join(to, name) if into and is_file else to)
        finally:
            os.close(fd)
    yield tar_write.END


def put(root: str, tar: Iterable[bytes]) -> None:
    """Unpack what `pack` gives over what there is of an image. Raises ImageError, OSError."""
    from .compression import Chunks, Plain
    from .unpack import unpack

    with Plain(Chunks(tar), "into the image") as stream:
        unpack(stream, root, rootless.overlay_prefix(), onto=True)


def make_directory(root: str, path: str) -> None:
    """Make a directory, root's own, in a root file system, and what is missing above it."""
    put(root, [*Packer(Ignore(), (0, 0), None).parents(f"{path}/."), tar_write.END])


def is_directory(root: str, path: str) -> bool:
    """Whether there is a directory, or a symlink to one, at a path of a root file system."""
    top = os.open(root, DIRECTORY)
    try:
        os.close(mounts.open_in_root(top, path, os.O_PATH | os.O_DIRECTORY))
        return True
    except (FileNotFoundError, NotADirectoryError):
        return False
    finally:
        os.close(top)


def is_tar(fd: int) -> bool:
    """Whether a file is a tar, compressed or not, as ADD unpacks it."""
    from . import tar_read
    from .compression import Plain

    try:
        with _reopened(fd) as file, Plain(file, "archive") as stream:
            return next(tar_read.entries(stream), None) is not None
    except Exception:  # decompressors have their own
        return False


def extract(fd: int, target: str, name: str, owners: bool) -> None:
    """Unpack a tar into an empty directory; raises ImageError."""
    from .compression import Plain
    from .unpack import unpack

    with _reopened(fd) as file, Plain(file, name) as stream:
        unpack(stream, target, devices=False, owners=owners)


def _reopened(fd: int):
    return open(f"/proc/self/fd/{fd}", "rb", buffering=0)


class Packer(tar_write.Files):
    """Files as a tar; `digest` is that of all that was packed, whatever owner and mode they get.

    owner  (uid, gid) of all; None: as they are
    mode   of all but symlinks; None: as they are
    """

    def __init__(self, ignored: Ignore, owner: tuple[int, int] | None, mode: int | None) -> None:
        super().__init__()
        self._ignored, self._owner, self._mode = ignored, owner, mode
        self._hasher = sha256()
        self._inside = ""
        self._first: dict[tuple[int, int], str] = {}

    @property
    def digest(self) -> str:
        return self._hasher.hexdigest()

    def add(self, fd: int, inside: str, to: str) -> Iterator[bytes]:
        """What an O_PATH descriptor is of, and what is in it.

        inside  its path in the source, "" for the source itself
        to      its absolute path in the target
        """
        yield from self.parents(to)
        yield from self._add(fd, inside, to)

    def parents(self, path: str) -> Iterator[bytes]:
        """Directories above a path, for where they are missing."""
        parts = path.strip("/").split("/")
        for count in range(1, len(parts)):
            name = os.fsencode("/".join(parts[:count]))
            uid, gid = self._owner or (0, 0)
            yield tar_write.header(name, DIRECTORY_ENTRY, 0o755, uid, gid, mtime=int(time.time()))

    def _add(self, fd: int, inside: str, to: str) -> Iterator[bytes]:
        is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
        ignored = bool(inside) and self._ignored(inside)
        if not ignored:
            self._inside = inside
            yield from self.entry(os.fsencode(to).strip(b"/") or b".", fd)
        elif is_directory and self._ignored.has_exceptions:
            below = self._directory(fd, inside, to)
            if first := next(below, b""):  # something in it is not ignored: it is made for that
                yield from self.parents(f"{to}/.")
                yield first
                yield from below
            return
        if is_directory and not ignored:
            yield from self._directory(fd, inside, to)

    def _directory(self, fd: int, inside: str, to: str) -> Iterator[bytes]:
        opened = os.open(".", DIRECTORY, dir_fd=fd)
        try:
            for child in sorted(os.listdir(opened), key=os.fsencode):
                inner = os.open(child, PATH, dir_fd=opened)
                try:
                    names = (posixpath.join(inside, child), posixpath.join(to, child))
                    yield from self._add(inner, *names)
                finally:
                    os.close(inner)
        finally:
            os.close(opened)

    def head(self, name, kind, now: os.stat_result, link, size, xattrs) -> bytes:
        first = self._first.setdefault((now.st_dev, now.st_ino), self._inside)
        owner = None if self._owner else (now.st_uid, now.st_gid)
        what = (now.st_mode, owner, now.st_rdev, link if kind == SYMLINK else b"")
        told = (self._inside, first, *what, sorted(xattrs.items()))
        self._hasher.update(ascii(told).encode())
        mode = stat.S_IMODE(now.st_mode)
        if self._mode is not None and kind != SYMLINK:
            mode = self._mode
        return tar_write.header(
            name, kind, mode, *(self._owner or (now.st_uid, now.st_gid)), size,
            now.st_mtime_ns // 10**9, link, now.st_rdev, xattrs,
        )  # fmt: skip

    def content(self, fd: int, size: int, name: bytes) -> Iterator[bytes]:
        for part in super().content(fd, size, name):
            self._hasher.update(part)
            yield part
