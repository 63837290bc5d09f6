"""Garbage collection and the check of a store: what is needed, and whether it is whole."""

from __future__ import annotations

import fcntl
import hashlib
import os

from ..runtime import jsonfile
from . import descriptor as d
from .errors import ImageError
from .layers import chain_ids, remove_tree
from .store import Store


def collect(store: Store, only: set[str] | None = None) -> dict[str, int]:
    """Remove blobs, broken-off downloads and unpacked layers that nothing needs.

    Needed is what a name, the lease of a living process, or a pin leads to; marking and sweeping
    hold the lock, so nothing can become needed in between. `only`: of these blobs, and no layers.
    Returns how many `blobs`, `layers` and `bytes` of blobs went. Raises ImageError, and removes
    nothing, when a document that tells what is needed is damaged.
    """
    counts = {"blobs": 0, "layers": 0, "bytes": 0}
    if not os.path.exists(f"{store.root}/oci-layout"):
        return counts
    doomed = []
    with store.lock():
        needed: set[str] = set()
        leased = _leased(store)
        for pointer in store.index()["manifests"]:
            _mark(store, pointer, needed)
        for digest in leased:
            _mark(store, _guess(store, digest), needed)
        for digest in _blobs(store):
            if digest not in needed and (only is None or digest in only):
                path = store.path(digest)
                counts["bytes"] += os.stat(path).st_size
                counts["blobs"] += 1
                os.unlink(path)
        if only is None:
            _sweep_ingest(store, leased)
            _sweep_cache(store)
            doomed = _doom_layers(store, {digest.partition(":")[2] for digest in needed})
    for path in doomed:  # takes time: not while others wait for the lock
        remove_tree(path)
        counts["layers"] += 1
    return counts


def check(store: Store) -> list[str]:
    """What is wrong, in words: blobs that are not what their names say, names without images."""
    if not os.path.exists(f"{store.root}/oci-layout"):
        return []
    wrong = []
    for digest in _blobs(store):
        try:
            with open(store.path(digest), "rb") as file:
                found = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        except FileNotFoundError:
            continue  # `gc` took it
        if found != digest:
            wrong.append(f"blob {digest}: its content is {found}")
    try:
        names = store.names()
    except ImageError as error:
        return [*wrong, error.message]
    for name, pointer in names.items():
        wrong += _check_image(store, name, pointer)
    return wrong


def _check_image(store: Store, name: str, pointer: dict, depth: int = 0) -> list[str]:
    try:
        if pointer["mediaType"] in d.INDEXES and depth < d.MAX_NESTING:
            entries = store.read_json(pointer)["manifests"]
            present = [one for one in entries if os.path.exists(store.path(one["digest"]))]
            if not present:
                return [f"image {name}: none of its platforms is here"]
            return [words for one in present for words in _check_image(store, name, one, depth + 1)]
        image = store.open(name, pointer)
    except ImageError as error:
        return [f"image {name}: {error.message}"]
    wrong = []
    for n, layer in enumerate(image.layers, 1):
        try:
            size = os.stat(store.path(layer["digest"])).st_size
            if size != layer["size"]:
                wrong.append(f"image {name}: layer {n}: {size} bytes, not {layer['size']}")
        except FileNotFoundError:
            wrong.append(f"image {name}: layer {n}: blob {layer['digest']} is missing")
    return wrong


def _mark(store: Store, pointer: dict, needed: set[str], depth: int = 0) -> None:
    if depth > d.MAX_NESTING:
        return
    needed.add(pointer["digest"])
    if pointer["mediaType"] in d.INDEXES:
        for one in store.read_json(pointer)["manifests"]:
            if one["digest"] not in needed and os.path.exists(store.path(one["digest"])):
                _mark(store, one, needed, depth + 1)
    elif pointer["mediaType"] in d.MANIFESTS:
        manifest = store.read_json(pointer)
        needed.update(layer["digest"] for layer in manifest["layers"])
        _mark(store, manifest["config"], needed)
    elif pointer["mediaType"] in d.CONFIGS and os.path.exists(store.path(pointer["digest"])):
        diff_ids = store.read_json(pointer)["rootfs"]["diff_ids"]
        needed.update(diff_ids, chain_ids(diff_ids))


def _guess(store: Store, digest: str) -> dict:
    # A lease knows digests only, and what it names need not be there yet.
    try:
        size = os.stat(store.path(digest)).st_size
    except FileNotFoundError:
        size = d.MAX_DOCUMENT + 1
    pointer = {"digest": digest, "size": size}
    for media_type in (*d.MANIFESTS, *d.INDEXES, *d.CONFIGS) if size <= d.MAX_DOCUMENT else ():
        try:
            store.read_json({**pointer, "mediaType": media_type})
            return {**pointer, "mediaType": media_type}
        except ImageError:
            pass
    return {**pointer, "mediaType": "application/octet-stream"}


def _leased(store: Store) -> set[str]:
    """The digests of leases and pins; leases of dead processes are removed."""
    found: set[str] = set()
    for name in os.listdir(f"{store.root}/leases"):
        path = f"{store.root}/leases/{name}"
        try:
            with open(path, "rb") as file:
                if name.startswith("process-") and _unused(file.fileno()):
                    os.unlink(path)
                    continue
                lines = file.read().decode().split("\n")
        except FileNotFoundError:
            continue  # unpinned a moment ago, which takes no lock
        found.update(lines[:-1])  # a line without an end was not written wholly
    return found


def _unused(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sweep_ingest(store: Store, leased: set[str]) -> None:
    for name in os.listdir(f"{store.root}/ingest"):
        if name.replace("-", ":", 1) in leased:
            continue
        path = f"{store.root}/ingest/{name}"
        try:
            with open(path, "rb") as file:
                if _unused(file.fileno()):
                    os.unlink(path)
        except FileNotFoundError:
            pass  # it became a blob a moment ago, which takes no lock


def _sweep_cache(store: Store) -> None:
    """What `build` remembers of layers that are gone. Nobody else writes: that takes the lock."""
    directory = f"{store.root}/cache"
    for name in os.listdir(directory) if os.path.isdir(directory) else ():
        try:
            needs = jsonfile.loads(jsonfile.read_file(f"{directory}/{name}"))["needs"]
            whole = "." not in name and all(os.path.exists(store.path(one)) for one in needs)
        except ValueError:
            whole = False  # its writer was killed
        if not whole:
            os.unlink(f"{directory}/{name}")


def _doom_layers(store: Store, needed: set[str]) -> list[str]:
    """Rename what is to go, so that nobody finds it any more; returns the new paths."""
    directory = f"{store.root}/layers"
    doomed = []
    for name in os.listdir(directory):
        if name in needed:
            continue
        fd = -1
        try:
            if name.startswith("new-"):
                # Who unpacks has it locked, or waits for us and looks again (make_locked).
                fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                if not _unused(fd):
                    continue
            if not name.startswith("old-"):
                renamed = f"old-{os.urandom(4).hex()}-{name}"
                os.rename(f"{directory}/{name}", f"{directory}/{renamed}")
                name = renamed
            doomed.append(f"{directory}/{name}")
        except FileNotFoundError:
            pass  # it got its final name a moment ago
        finally:
            if fd >= 0:
                os.close(fd)
    return doomed


def _blobs(store: Store) -> list[str]:
    return [f"sha256:{name}" for name in sorted(os.listdir(f"{store.root}/blobs/sha256"))]
