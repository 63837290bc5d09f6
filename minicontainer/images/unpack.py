"""A layer's tar becomes a directory in overlayfs' form; the tar is a stranger's.

Every path is resolved by the kernel within the directory (openat2(2), RESOLVE_IN_ROOT) and its last
part is never followed, so nothing is written, linked or removed outside, whatever symlinks the tar
makes first. layer.md's whiteouts become overlayfs' own
(https://docs.kernel.org/filesystems/overlayfs.html#whiteouts-and-opaque-directories).
"""

from __future__ import annotations

import errno
import os
import shutil
import stat

from ..kernel.syscalls import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from . import tar_read
from .compression import Limits, Plain
from .errors import ImageError
from .overlay import is_whiteout
from .rootless import OVERLAY_XATTR
from .tar_read import CHAR, DIRECTORY, FIFO, LINK, REGULAR, SYMLINK, Entry, show

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
META = b".wh..wh."  # of aufs, once docker's only storage: means nothing to others
XATTRS = (b"user.", b"security.capability", b"system.posix_acl_")
OPEN_DIRECTORIES = 128
ZEROS = bytes(1 << 16)
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def unpack(
    stream: Plain, directory: str, overlay: str = "trusted.overlay.", devices: bool = True,
    owners: bool = True, limits: Limits | None = None, onto: bool = False,
) -> list[bytes]:  # fmt: skip
    """Unpack a tar into an empty directory.

    overlay  prefix of the extended attributes of overlayfs: user.overlay. in a user namespace
    devices  whether device nodes are made; else an image with some is refused
    owners   whether files get the owners of the tar; else all are the caller's
    onto     the directory has files: directories that are there stay as they are, and nothing that
             is not one comes in their place; no name means a whiteout

    Returns the directories that had to be made because the tar has no entry for them. Raises
    ImageError that names layer and entry; the directory is then to be thrown away.
    """
    root = os.open(directory, DIRECTORY_FLAGS)
    tree = _Tree(root, overlay.encode(), devices, owners, onto)
    maximum = (limits or Limits()).entries
    try:
        for count, entry in enumerate(tar_read.entries(stream)):
            if count == maximum:
                raise ImageError(f"{stream.name}: more than {maximum} files")
            try:
                tree.add(entry, stream)
            except (_Refused, OSError) as error:
                raise tree.named(stream, entry.name, error) from None
        for path, entry in reversed(tree.directories.items()):  # children first
            try:
                tree.finish_directory(path, entry)
            except OSError as error:
                raise tree.named(stream, path, error) from None
        if not onto:
            tree.finish_implicit()
    finally:
        tree.close()
    return tree.implicit


class _Refused(Exception):
    pass


class _Tree:
    def __init__(self, root: int, overlay: bytes, devices: bool, owners: bool, onto: bool) -> None:
        self.root = root
        self.opaque = overlay + b"opaque"
        self.devices = devices
        self.owners = owners
        self.onto = onto
        self.me = (os.geteuid(), os.getegid())
        self.directories: dict[bytes, Entry] = {}
        self.implicit: list[bytes] = []
        self._open: dict[bytes, int] = {}

    def close(self) -> None:
        for fd in (self.root, *self._open.values()):
            os.close(fd)

    def named(self, stream: Plain, name: bytes, error: Exception) -> ImageError:
        what, hint = str(error), ""
        if isinstance(error, OSError):
            what = os.strerror(error.errno or 0).lower()
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                hint = "minicontainer gc"
            elif error.errno == errno.EINVAL and self.opaque.startswith(b"user."):
                hint = "an owner that the user namespace has not: more ids in /etc/sub[ug]id"
        return ImageError(f"{stream.name}: {show(name)}: {what}", hint)

    def add(self, entry: Entry, stream: Plain) -> None:
        path = _clean(entry.name)
        if not path:
            if entry.kind != DIRECTORY:
                raise _Refused("the root must be a directory")
            if not self.onto:
                self.directories[path] = entry
            return None
        directory, _, name = path.rpartition(b"/")
        parent = self.parent(directory)
        if name.startswith(WHITEOUT) and not self.onto:
            return self.whiteout(parent, name)
        if entry.kind == REGULAR:
            self.regular(parent, name, entry, stream)
        elif entry.kind == DIRECTORY:
            if self.onto and self.is_directory(path):
                return None
            self.make_directory(parent, name, instead_of_others=not self.onto)
            self.directories[path] = entry
        else:
            if entry.kind == LINK:
                return self.make(parent, name, lambda: self.link(entry.link, parent, name))
            if entry.kind == SYMLINK:
                self.make(parent, name, lambda: os.symlink(entry.link, name, dir_fd=parent))
            else:
                mode, device = self.special(entry)
                self.make(parent, name, lambda: os.mknod(name, mode, device, dir_fd=parent))
            self.set_metadata(parent, name, entry)
        return None

    def link(self, link: bytes, parent: int, name: bytes) -> None:
        directory, _, target = _clean(link).rpartition(b"/")
        try:
            from_ = self.parent(directory, make=False)
            os.link(target, name, src_dir_fd=from_, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            raise _Refused(f"a hard link to {show(link)}, which this layer has not") from None

    def parent(self, path: bytes, make: bool = True) -> int:
        """A descriptor of a directory, which stays open for a while; made when it is missing."""
        if not path:
            return self.root
        fd = self._open.pop(path, -1)
        if fd >= 0:
            self._open[path] = fd  # the last to be closed
            return fd
        flags = os.O_PATH | os.O_DIRECTORY
        try:
            fd = openat2(self.root, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
        except OSError as error:
            missing = error.errno == errno.ENOENT or error.errno == errno.ENOTDIR
            if not make or not missing:
                raise
            upper, _, name = path.rpartition(b"/")
            above = self.parent(upper)
            if self.make_directory(above, name, instead_of_others=False):
                self.implicit.append(path)
            fd = openat2(self.root, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
        if len(self._open) >= OPEN_DIRECTORIES:
            oldest = next(iter(self._open))
            os.close(self._open.pop(oldest))
        self._open[path] = fd
        return fd

    def is_directory(self, path: bytes) -> bool:
        """Or a symlink to one."""
        try:
            self.parent(path, make=False)
            return True
        except (FileNotFoundError, NotADirectoryError):
            return False

    def make(self, parent: int, name: bytes, make) -> None:
        """Call `make`; when the tar has had this name already, the later entry wins."""
        try:
            make()
        except FileExistsError:
            self.remove(parent, name)
            make()

    def remove(self, parent: int, name: bytes) -> None:
        mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode) and self.onto:
            raise _Refused("there is a directory at its place")
        if stat.S_ISDIR(mode):
            shutil.rmtree(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)
        if stat.S_ISDIR(mode) or stat.S_ISLNK(mode):  # paths through it mean something else now
            for path in [path for path, fd in self._open.items() if fd != parent]:
                os.close(self._open.pop(path))

    def make_directory(self, parent: int, name: bytes, instead_of_others: bool = True) -> bool:
        """False when it is there already. In place of a whiteout it hides what is below it."""
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
            return True
        except FileExistsError:
            now = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(now.st_mode):
            return False
        if not instead_of_others and not is_whiteout(now):
            raise _Refused(f"{show(name)} in its path is not a directory")
        self.remove(parent, name)
        os.mkdir(name, 0o755, dir_fd=parent)
        if is_whiteout(now):
            self.set_opaque(parent, name)
        return True

    def whiteout(self, parent: int, name: bytes) -> None:
        if name == OPAQUE:
            return self.set_opaque(parent, b".")
        if name.startswith(META):
            return None
        hidden = name[len(WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise _Refused("a whiteout of no file")
        try:
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=parent)
        except FileExistsError:  # whiteouts hide what is below the layer, not what is in it
            now = os.stat(hidden, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(now.st_mode):
                self.set_opaque(parent, hidden)

    def set_opaque(self, parent: int, name: bytes) -> None:
        fd = os.open(name, DIRECTORY_FLAGS, dir_fd=parent)
        try:
            os.setxattr(fd, self.opaque, b"y")
        finally:
            os.close(fd)

    def regular(self, parent: int, name: bytes, entry: Entry, stream: Plain) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, 0o600, dir_fd=parent)
        except FileExistsError:
            self.remove(parent, name)
            fd = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            if entry.extents is None:
                _write(fd, stream, entry.stored)
            else:
                os.ftruncate(fd, entry.size)
                for offset, length in entry.extents:
                    os.lseek(fd, offset, os.SEEK_SET)
                    _write(fd, stream, length)
            self.describe(fd, entry)
        finally:
            os.close(fd)

    def describe(self, fd: int, entry: Entry) -> None:
        """Owner before mode, which a change of owner would take setuid from; the time last."""
        if self.owners and (entry.uid, entry.gid) != self.me:
            os.fchown(fd, entry.uid, entry.gid)
        os.fchmod(fd, entry.mode)
        _set_xattrs(fd, entry)
        os.utime(fd, ns=(entry.mtime, entry.mtime))

    def set_metadata(self, parent: int, name: bytes, entry: Entry) -> None:
        if self.owners and (entry.uid, entry.gid) != self.me:
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if entry.kind != SYMLINK:  # it was made a moment ago, and is no symlink
            os.chmod(name, entry.mode, dir_fd=parent)
        _set_xattrs(b"/proc/self/fd/%d/%s" % (parent, name), entry, follow_symlinks=False)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)

    def finish_directory(self, path: bytes, entry: Entry) -> None:
        """At the end: writing into a directory changes its time, and its mode may forbid it."""
        directory, _, name = path.rpartition(b"/")
        try:
            fd = os.open(name or b".", DIRECTORY_FLAGS, dir_fd=self.parent(directory, make=False))
        except (FileNotFoundError, NotADirectoryError):
            return  # a later entry replaced it
        except OSError as error:
            if error.errno == errno.ELOOP:
                return
            raise
        try:
            self.describe(fd, entry)
        finally:
            os.close(fd)

    def finish_implicit(self) -> None:
        """Directories of which the tar tells nothing, "/" too (see layers.root_layer).

        They have no time, and a mode that does not depend on the caller's umask.
        """
        for path in [*self.implicit, b""]:
            try:
                fd = self.parent(path, make=False)
            except OSError:
                self.implicit.remove(path)  # a later entry replaced it
                continue
            if path not in self.directories:
                named = b"/proc/self/fd/%d" % fd  # O_PATH alone cannot do it
                os.chmod(named, 0o755)
                os.utime(named, ns=(0, 0))

    def special(self, entry: Entry) -> tuple[int, int]:
        if entry.kind == FIFO:
            return stat.S_IFIFO | 0o600, 0
        if not self.devices:
            raise _Refused("a device node, which only root can make")
        device = os.makedev(entry.major, entry.minor)
        if device == 0 and entry.kind == CHAR:
            raise _Refused("character device 0:0, overlayfs' own whiteout")
        return (stat.S_IFCHR if entry.kind == CHAR else stat.S_IFBLK) | 0o600, device


def _clean(name: bytes) -> bytes:
    """A name relative to the root, without empty parts and "."; ".." is refused."""
    if b".." not in name and b"//" not in name and b"./" not in name and name[:1] not in b"/.":
        return name
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise _Refused('".." in its name')
    return b"/".join(parts)


def _write(fd: int, stream: Plain, size: int) -> None:
    hole = False
    for piece in stream.pieces(size):
        size -= len(piece)
        while piece:
            part = piece[: len(ZEROS)]
            hole = part == ZEROS  # files with holes keep them: only GNU's tar tells where they are
            if hole:
                os.lseek(fd, len(part), os.SEEK_CUR)
            piece = piece[len(part) if hole else os.write(fd, part) :]
    if hole:
        os.ftruncate(fd, os.lseek(fd, 0, os.SEEK_CUR))
    if size:
        raise _Refused("cut short")


def _set_xattrs(file: int | bytes, entry: Entry, follow_symlinks: bool = True) -> None:
    for name, value in entry.xattrs.items():
        if not name.startswith(XATTRS) or name.startswith(OVERLAY_XATTR):
            continue
        try:
            os.setxattr(file, name, value, follow_symlinks=follow_symlinks)
        except OSError as error:
            # Not every file system, and no symlink, has user.*
            if error.errno not in (errno.EOPNOTSUPP, errno.EPERM) or name.startswith(b"security."):
                raise
