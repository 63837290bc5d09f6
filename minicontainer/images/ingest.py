"""Writing one blob: hashed while it streams, in the store only when whole and as announced."""

from __future__ import annotations

import errno
import hashlib
import os

from .errors import ImageError
from .leases import lock_if_there
from .store import CHUNK, Store


def ingest(store: Store, source, digest: str | None, size: int | None, offset: int) -> str:
    """`Store.add`, for a blob that is not there; returns its digest.

    The file is locked while it is written: of two processes that fetch the same blob, the second
    waits, and then finds it done.
    """
    if digest:
        path, _ = store.partial(digest)
    else:
        path = f"{store.root}/ingest/new-{os.getpid()}-{os.urandom(4).hex()}"
    fd = _open_locked(path)
    try:
        if digest and os.path.exists(store.path(digest)):
            os.unlink(path)
            return digest
        try:
            found = _write(fd, source, digest, size, offset)
        except ImageError:
            os.unlink(path)
            raise
        except BaseException as error:
            full = getattr(error, "errno", 0) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            if full or not digest:
                os.unlink(path)
            raise
        os.fsync(fd)
        if store._lease:
            store._lease.add(found)
            store._lease.made.add(found)
        os.rename(path, store.path(found))
        store.sync_directory("blobs/sha256")
        return found
    finally:
        os.close(fd)


def _open_locked(path: str) -> int:
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if lock_if_there(fd, path):
            return fd


def _write(fd: int, source, digest: str | None, size: int | None, offset: int) -> str:
    name = digest or "blob"
    hasher = hashlib.sha256()
    if os.fstat(fd).st_size < offset:
        raise ImageError(f"{name}: what was there to resume is gone", "try again")
    done = 0
    while done < offset:
        part = os.pread(fd, min(CHUNK, offset - done), done)
        hasher.update(part)
        done += len(part)
    os.ftruncate(fd, offset)
    os.lseek(fd, offset, os.SEEK_SET)
    while part := source.read(CHUNK):
        done += len(part)
        if size is not None and done > size:
            raise ImageError(f"{name}: more than the {size} bytes that were announced")
        hasher.update(part)
        view = memoryview(part)
        while view:
            view = view[os.write(fd, view) :]
    if size is not None and done < size:
        raise EOFError(f"{name}: ended after {done} of {size} bytes")
    found = f"sha256:{hasher.hexdigest()}"
    if digest and found != digest:
        raise ImageError(f"{digest}: the content has another digest, {found}")
    return found
