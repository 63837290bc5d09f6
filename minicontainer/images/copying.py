"""COPY: files of a build context, or of another image, found, hashed, and copied into an image.

Both sides are strangers'. A source is resolved beneath the context (openat2(2), RESOLVE_BENEATH;
in another image RESOLVE_IN_ROOT), what is below it is never followed; each directory of the target
is resolved as a process in the image would (RESOLVE_IN_ROOT).
"""

from __future__ import annotations

import errno
import os
import posixpath
import re
import stat
from hashlib import sha256

from ..kernel import mounts
from ..kernel.syscalls import RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from ..runtime.errors import kernel_words
from . import rootless
from .errors import ImageError
from .ignore import Ignore, translate
from .tar_write import xattrs_of

CHUNK = 1 << 20
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


def make_directory(root: str, path: str) -> None:
    """Make a directory, root's own, in a root file system, and what is missing above it."""
    target = Source(root)
    os.close(Copier(Ignore(), None, None, target.fd).make(path))


def copy(
    jobs: list[tuple[Source, str]], copier: Copier, to: str, into: bool, archives: str = "",
    extracted: Copier | None = None,
) -> None:  # fmt: skip
    """Copy files, each found in a source, and what is in directories, by COPY's rules.

    into      `to` is a directory that files come into
    archives  an empty directory: ADD unpacks tars there, and `extracted` copies that
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
                inner = Source(unpacked)
                extracted.add(inner.fd, "", to)
                continue
            name = posixpath.basename(path)
            inside = "" if path == "." else path
            copier.add(fd, inside, posixpath.join(to, name) if into and is_file else to)
        finally:
            os.close(fd)


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


class Copier:
    """Copies files, or only looks at them; `digest` is that of all that it has seen.

    owner  (uid, gid) of all; None: as they are
    mode   of all but symlinks; None: as they are
    root   a descriptor of the root file system to copy into; -1 only looks
    """

    def __init__(
        self, ignored: Ignore, owner: tuple[int, int] | None, mode: int | None, root: int = -1
    ) -> None:
        self._ignored, self._owner, self._mode, self._root = ignored, owner, mode, root
        self._hasher = sha256()
        self._linked: dict[tuple[int, int], tuple[str, str]] = {}

    @property
    def digest(self) -> str:
        return self._hasher.hexdigest()

    def add(self, fd: int, inside: str, to: str) -> None:
        """Copy what an O_PATH descriptor is of, and what is in it.

        inside  its path in the source, "" for the source itself
        to      its absolute path in the target

        Raises ImageError.
        """
        try:
            self._add(fd, inside, to)
        except (OSError, RecursionError) as error:
            number = getattr(error, "errno", 0)
            hint = "more ids in /etc/subuid and /etc/subgid" if number == errno.EINVAL else ""
            what = kernel_words(number) if number else "nested too deep"
            raise ImageError(f"{inside or '.'!a} to {to!a}: {what}", hint) from None

    def is_directory(self, path: str) -> bool:
        """Whether there is a directory, or a symlink to one, at a path of the target."""
        try:
            os.close(mounts.open_in_root(self._root, path, os.O_PATH | os.O_DIRECTORY))
            return True
        except (FileNotFoundError, NotADirectoryError):
            return False

    def make(self, path: str) -> int:
        """Open a directory of the target; what is missing of its path is made. Raises OSError."""
        try:
            return mounts.open_in_root(self._root, path, os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            parent, name = self._parent(path)
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
            self._own(parent, name, (0, 0))
        finally:
            os.close(parent)
        return mounts.open_in_root(self._root, path, os.O_PATH | os.O_DIRECTORY)

    def _parent(self, path: str) -> tuple[int, str]:
        directory, _, name = path.rstrip("/").rpartition("/")
        return self.make(directory or "/"), name

    def _own(self, parent: int, name: str, owner: tuple[int, int]) -> None:
        if self._owner or owner != (0, 0):
            os.chown(name, *(self._owner or owner), dir_fd=parent, follow_symlinks=False)

    def _add(self, fd: int, inside: str, to: str) -> None:
        now = os.fstat(fd)
        kind = stat.S_IFMT(now.st_mode)
        ignored = bool(inside) and self._ignored(inside)
        if kind == stat.S_IFDIR:
            if not ignored or self._ignored.has_exceptions:
                self._directory(fd, now, inside, to, ignored)
            return
        if ignored or kind == stat.S_IFSOCK:
            return
        first = self._linked.get((now.st_dev, now.st_ino)) if now.st_nlink > 1 else None
        self._linked.setdefault((now.st_dev, now.st_ino), (inside, to))
        link = os.readlink("", dir_fd=fd) if kind == stat.S_IFLNK else ""
        xattrs = self._describe(fd, now, inside, first[0] if first else link)
        if self._root < 0:
            if kind == stat.S_IFREG and not first:
                self._content(fd, -1)
            return
        parent, name = self._parent(to)
        try:
            if not self.is_directory(to) or kind == stat.S_IFLNK:
                try:
                    os.unlink(name, dir_fd=parent)
                except FileNotFoundError:
                    pass
            if first:
                target, linked = self._parent(first[1])
                try:
                    os.link(linked, name, src_dir_fd=target, dst_dir_fd=parent)
                finally:
                    os.close(target)
                return
            if kind == stat.S_IFLNK:
                os.symlink(link, name, dir_fd=parent)
            elif kind == stat.S_IFREG:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                made = os.open(name, flags, 0o600, dir_fd=parent)
                try:
                    self._content(fd, made)
                finally:
                    os.close(made)
            else:
                os.mknod(name, kind | 0o600, now.st_rdev, dir_fd=parent)
            self._finish(parent, name, now, xattrs)
        finally:
            os.close(parent)

    def _directory(self, fd: int, now: os.stat_result, inside: str, to: str, ignored: bool) -> None:
        new = False
        if not ignored:  # else it is made when something in it is not
            xattrs = self._describe(fd, now, inside, "")
            new = self._root >= 0 and not self.is_directory(to)
        if new:
            parent, name = self._parent(to)
            os.mkdir(name, 0o700, dir_fd=parent)
        try:
            opened = os.open(".", DIRECTORY, dir_fd=fd)
            try:
                for child in sorted(os.listdir(opened), key=os.fsencode):
                    inner = os.open(child, PATH, dir_fd=opened)
                    try:
                        self._add(inner, posixpath.join(inside, child), posixpath.join(to, child))
                    finally:
                        os.close(inner)
            finally:
                os.close(opened)
            if new:
                self._finish(parent, name, now, xattrs)
        finally:
            if new:
                os.close(parent)

    def _describe(self, fd: int, now: os.stat_result, inside: str, link: str) -> dict:
        """Hash what a file is, but for its content and time; returns its extended attributes."""
        xattrs = (
            {} if stat.S_ISLNK(now.st_mode) else xattrs_of(b"/proc/self/fd/%d" % fd, follow=True)
        )
        owner = None if self._owner else (now.st_uid, now.st_gid)
        told = (inside, now.st_mode, owner, now.st_rdev, link, sorted(xattrs.items()))
        self._hasher.update(ascii(told).encode())
        return xattrs

    def _content(self, fd: int, to: int) -> None:
        hasher = sha256()
        source = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            while part := os.read(source, CHUNK):
                hasher.update(part)
                while to >= 0 and part:
                    part = part[os.write(to, part) :]
        finally:
            os.close(source)
        self._hasher.update(hasher.digest())

    def _finish(self, parent: int, name: str, now: os.stat_result, xattrs: dict) -> None:
        self._own(parent, name, (now.st_uid, now.st_gid))
        if not stat.S_ISLNK(now.st_mode):
            mode = stat.S_IMODE(now.st_mode) if self._mode is None else self._mode
            os.chmod(name, mode, dir_fd=parent)
        for key, value in xattrs.items():  # after chown(2), which takes capabilities away
            os.setxattr(os.fsencode(f"/proc/self/fd/{parent}/{name}"), key, value)
        times = (now.st_mtime_ns, now.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)
