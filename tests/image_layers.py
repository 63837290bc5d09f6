"""Layers and images for the tests: made by Python's tarfile and by GNU tar, never by our own."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import tarfile
from pathlib import Path

from minicontainer.images import descriptor as d
from minicontainer.images.compression import Limits, Plain
from minicontainer.images.store import Image, Store
from minicontainer.images.unpack import unpack


def entry(name: str | bytes, data: bytes = b"", **fields) -> tuple[tarfile.TarInfo, bytes]:
    """One member: a file with `data`, or what the TarInfo attributes in `fields` make of it."""
    info = tarfile.TarInfo(os.fsdecode(name))
    info.mode = 0o644
    info.mtime = 1_600_000_000
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def directory(name: str | bytes, mode: int = 0o755, **fields):
    return entry(name, type=tarfile.DIRTYPE, mode=mode, **fields)


def symlink(name: str | bytes, target: str, **fields):
    return entry(name, type=tarfile.SYMTYPE, linkname=target, **fields)


def hardlink(name: str | bytes, target: str):
    return entry(name, type=tarfile.LNKTYPE, linkname=target)


def tar(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of these members, in this order."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format, errors="surrogateescape") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def config_of(diff_ids: list[str], **config) -> bytes:
    """An image's config document, `config` being what a container gets."""
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    return json.dumps({**d.host_platform(), "config": config, "rootfs": rootfs}).encode()


def add_image(
    store: Store, name: str, layers: list[bytes], *, stored: list[bytes] | None = None,
    diff_ids: list[str] | None = None, media_types: list[str] | None = None, **config,
) -> Image:  # fmt: skip
    """Put an image of plain tars into the store, with a name.

    stored       what the blobs are; the plain tars by default
    diff_ids     what the config says of them; the truth by default
    media_types  what the manifest says of them
    """
    stored = stored or layers
    types = media_types or [d.OCI_LAYER] * len(stored)
    with store.lease():
        blobs = [store.add(blob, media_type=kind) for blob, kind in zip(stored, types, strict=True)]
        document = config_of(diff_ids or [digest(one) for one in layers], **config)
        pointer = store.add(document, media_type=d.OCI_CONFIG)
        manifest = {"schemaVersion": 2, "config": pointer, "layers": blobs}
        store.tag(name, store.add(json.dumps(manifest).encode(), media_type=d.OCI_MANIFEST))
    return store.image(name)


def unpack_bytes(data: bytes, target: Path, limits: Limits | None = None, **words) -> list[bytes]:
    """Unpack a tar, compressed or not, into a new directory."""
    target.mkdir()
    with Plain(io.BytesIO(data), "layer 1 of 1", limits) as stream:
        implicit = unpack(stream, str(target), limits=limits, **words)
        stream.finish()
    return implicit


def listing(root: Path | str, times: bool = True, directory_times: bool = True) -> dict:
    """All that can be seen of a tree: name -> type, mode, owner, content, time, links, …"""
    found: dict[bytes, tuple] = {}
    inodes: dict[tuple, bytes] = {}
    top = os.fsencode(root)
    paths = [b""]
    for base, directories, files in os.walk(top):
        inside = base[len(top) :].lstrip(b"/")
        paths += [os.path.join(inside, name) for name in (*directories, *files)]
    for path in sorted(paths):
        full = os.path.join(top, path)
        now = os.lstat(full)
        kind = stat.S_IFMT(now.st_mode)
        content: object = None
        if kind == stat.S_IFREG:
            with open(full, "rb") as file:
                content = hashlib.sha256(file.read()).hexdigest()
        elif kind == stat.S_IFLNK:
            content = os.readlink(full)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            content = now.st_rdev
        first = inodes.setdefault((now.st_dev, now.st_ino), path) if kind != stat.S_IFDIR else path
        xattrs = {
            name: os.getxattr(full, name, follow_symlinks=False)
            for name in os.listxattr(full, follow_symlinks=False)
            if not name.startswith(("trusted.overlay.", "user.overlay."))
        }
        shown = times and (directory_times or kind != stat.S_IFDIR)
        found[path] = (
            oct(now.st_mode), now.st_uid, now.st_gid, content, now.st_mtime_ns if shown else 0,
            first, xattrs,
        )  # fmt: skip
    return found
