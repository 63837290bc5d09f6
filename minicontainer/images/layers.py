"""Layers, unpacked once, for every image and container that has them.

layers/<hex of the diffID>/ holds a layer in overlayfs' form. A few layers change files without
having entries for the directories above these (umoci makes such); what those directories are, the
layers below decide. Such a layer is kept by its chain id, which names the layers below it, too
(config.md#layer-chainid).
"""

from __future__ import annotations

import os
import stat

from ..kernel import syscalls
from . import rootless
from .errors import ImageError
from .leases import lock_if_there
from .rootless import OVERLAY_XATTR
from .store import Image, Store

TYPE_CHECKING = False  # as in typing, whose import would cost a start 3 ms
if TYPE_CHECKING:
    from .compression import Limits


def chain_ids(diff_ids: list[str]) -> list[str]:
    """For each layer, the digest of it and of all below it."""
    from hashlib import sha256

    chain = diff_ids[:1]
    for diff_id in diff_ids[1:]:
        chain.append(f"sha256:{sha256(f'{chain[-1]} {diff_id}'.encode()).hexdigest()}")
    return chain


def unpacked(store: Store, image: Image, limits: Limits | None = None) -> list[str]:
    """The directories of an image's layers, the lowest first; what is missing is unpacked.

    Raises ImageError; then the store has no half of a layer. Call it within a lease or a pin of
    the image.
    """
    found: list[str] = []
    made = False
    for n in range(len(image.diff_ids)):
        path = _existing(store, image, n)
        if not path:
            store.make()
            name = f"{image.name}: layer {n + 1} of {len(image.layers)}"
            path = rootless.inside(lambda: _unpack(store, image, n, name, found, limits))  # noqa: B023
            made = True
        found.append(path)
    if made:
        store.sync_directory("layers")
    return found


def _existing(store: Store, image: Image, n: int) -> str:
    path = f"{store.root}/layers/{image.diff_ids[n].partition(':')[2]}"
    if os.path.isdir(path):
        return path
    path = f"{store.root}/layers/{chain_ids(image.diff_ids[: n + 1])[-1].partition(':')[2]}"
    return path if os.path.isdir(path) else ""


def remove_tree(path: str) -> None:
    """Remove a directory, whoever its files belong to; somebody else may be at it, too."""
    import shutil

    def go_on(_, __, raised) -> None:
        if not isinstance(raised[1], FileNotFoundError):
            raise raised[1]

    rootless.inside(lambda: shutil.rmtree(path, onerror=go_on))


def _unpack(
    store: Store, image: Image, n: int, name: str, below: list[str], limits: Limits | None
) -> str:
    from .compression import Plain
    from .unpack import unpack

    diff_id, blob = image.diff_ids[n], image.layers[n]["digest"]
    prefix = rootless.overlay_prefix()
    directory = f"{store.root}/layers/new-{diff_id.partition(':')[2]}"
    fd = make_locked(directory)
    try:
        if path := _existing(store, image, n):
            remove_tree(directory)
            return path
        for entry in os.scandir(directory):  # of somebody who died here
            remove_tree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry)
        if not os.path.exists(store.path(blob)):
            raise ImageError(f"{name}: blob {blob} is not in the store", "pull it again")
        with (
            open(store.path(blob), "rb", buffering=0) as file,
            Plain(file, name, limits) as stream,
        ):
            implicit = unpack(
                stream, directory, prefix, prefix.startswith("trusted"), rootless.has_other_ids(),
                limits,
            )  # fmt: skip
            found = stream.finish()
        for kind, wanted, got in zip(("digest", "diffID"), (blob, diff_id), found, strict=True):
            if wanted != got:
                raise ImageError(f"{name}: its {kind} is {got}, not {wanted}")
        key = diff_id
        if implicit and n:
            key = chain_ids(image.diff_ids[: n + 1])[-1]
            for path_inside in implicit:
                _take_metadata(directory, path_inside, below)
        syscalls.syncfs(fd)  # or a power cut might leave a layer of empty files
        target = f"{store.root}/layers/{key.partition(':')[2]}"
        os.rename(directory, target)
        return target
    except BaseException:
        remove_tree(directory)
        raise
    finally:
        os.close(fd)


def make_locked(directory: str) -> int:
    """Make and open a directory that one process at a time works in; what it is for may be done."""
    while True:
        try:
            os.mkdir(directory, 0o755)
        except FileExistsError:
            pass
        try:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        if lock_if_there(fd, directory):
            return fd


def _take_metadata(directory: str, path: bytes, below: list[str]) -> None:
    """Give a directory that the layer does not describe the mode, owner, … of the one below it.

    Both trees are a stranger's: in the new one, too, the path may go through a symlink.
    """
    try:
        for layer in reversed(below):
            if (source := _open_directory(layer, path, syscalls.RESOLVE_NO_SYMLINKS)) >= 0:
                break
        else:
            return
    except OSError:
        return  # a file, a symlink or a whiteout: the directory is new
    target = _open_directory(directory, path, syscalls.RESOLVE_IN_ROOT)
    try:
        copy_metadata(source, target)
    finally:
        os.close(source)
        os.close(target)


def _open_directory(root: str, path: bytes, resolve: int) -> int:
    """A descriptor of a directory below another, or -1 when it is not there."""
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = os.O_RDONLY | os.O_DIRECTORY
        return syscalls.openat2(fd, path, flags, resolve | syscalls.RESOLVE_NO_MAGICLINKS)
    except FileNotFoundError:
        return -1
    finally:
        os.close(fd)


def root_layer(layers: list[str]) -> str:
    """The highest of these layers that has an entry for "/", else the lowest."""
    told = [path for path in layers if os.stat(path).st_mtime_ns]
    return (told or layers[:1])[-1]


def copy_root_metadata(layers: list[str], upper: str) -> None:
    """Give a container's upper directory, which will be its "/", what the image says of that."""
    copy_metadata(os.fsencode(root_layer(layers)), os.fsencode(upper))


def copy_metadata(source: int | bytes, target: int | bytes) -> None:
    """Owner, mode, extended attributes but overlayfs' own, and time; links are not followed."""

    def of(file: int | bytes) -> dict:
        return {} if isinstance(file, int) else {"follow_symlinks": False}

    now = os.stat(source, **of(source))
    os.chown(target, now.st_uid, now.st_gid, **of(target))
    if not stat.S_ISLNK(now.st_mode):
        os.chmod(target, stat.S_IMODE(now.st_mode))
    for name in os.listxattr(source, **of(source)):
        if not os.fsencode(name).startswith((OVERLAY_XATTR, b"trusted.overlay.")):
            os.setxattr(target, name, os.getxattr(source, name, **of(source)), **of(target))
    os.utime(target, ns=(now.st_atime_ns, now.st_mtime_ns), **of(target))
