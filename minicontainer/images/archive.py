"""Images in one file: `save` and `load`; a root file system in one: `import`.

An oci-archive is a tar of an OCI image layout. A docker-archive has a manifest.json that lists
configs and layers by their names in the tar. What we write is both at once, as docker's has been
since version 25, so that every tool reads it; what we read may be either.
"""

from __future__ import annotations

import posixpath
import sys
from collections.abc import Iterator

from ..runtime import checks, jsonfile
from . import commit, layers, reference, tar_read, tar_write
from . import descriptor as d
from .compression import SUFFIX, Chunks, Limits, Plain, kind
from .errors import ImageError
from .store import CHUNK, EMPTY_INDEX, LAYOUT, Store
from .tar_read import DIRECTORY, LINK, REGULAR, SYMLINK
from .upkeep import collect

_docker_manifest = checks.items(
    checks.fields(
        ("Config", "Layers"), Config=checks.nonempty, RepoTags=checks.items(checks.nonempty),
        Layers=checks.items(checks.nonempty),
    )
)  # fmt: skip


def save(store: Store, names: list[str]) -> Iterator[bytes]:
    """The named images as a tar, in pieces; the same images give the same bytes."""
    blobs: dict[str, dict] = {}
    entries, docker = [], []
    for name in names:
        image = store.image(name)
        entry = {**image.descriptor, "annotations": {d.REF_NAME: name}}
        entry.pop("platform", None)
        entries.append(entry)
        docker.append({
            "Config": _blob_name(image.config_digest),
            "RepoTags": [name],
            "Layers": [_blob_name(layer["digest"]) for layer in image.layers],
        })  # fmt: skip
        for one in (image.descriptor, image.manifest["config"], *image.layers):
            blobs[one["digest"]] = one
    index = jsonfile.dumps({**EMPTY_INDEX, "manifests": entries}).encode()
    yield from _file("oci-layout", LAYOUT.encode())
    yield from _file("index.json", index)
    yield from _file("manifest.json", jsonfile.dumps(docker).encode())
    for path in ("blobs", "blobs/sha256"):
        yield tar_write.header(path.encode(), DIRECTORY, 0o755)
    for digest in sorted(blobs):
        size = blobs[digest]["size"]
        yield tar_write.header(_blob_name(digest).encode(), REGULAR, 0o644, size=size)
        for part in _content(store, digest):
            size -= len(part)
            yield part
        if size:
            raise ImageError(f"blob {digest}: its size is wrong", "minicontainer fsck")
        yield tar_write.padding(blobs[digest]["size"])
    yield tar_write.END


def _content(store: Store, digest: str) -> Iterator[bytes]:
    try:
        with open(store.path(digest), "rb") as file:
            while part := file.read(CHUNK):
                yield part
    except FileNotFoundError:  # no lease keeps it, so that a full disk, too, can be saved from
        raise ImageError(f"blob {digest} is not in the store any more", "pull it again") from None


def _blob_name(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _file(name: str, content: bytes) -> Iterator[bytes]:
    yield tar_write.header(name.encode(), REGULAR, 0o644, size=len(content))
    yield content + tar_write.padding(len(content))


def load(store: Store, file, name: str = "", limits: Limits | None = None) -> list[str]:
    """Add the images of an archive, compressed or not, in one pass; returns their names.

    file  an object with read(n): a pipe will do
    name  for images that have none in the archive

    Raises ImageError; then the store is as it was.
    """
    lease = store.lease()
    try:
        with lease:
            return _load(store, file, name, limits)
    finally:  # what no image needs: the archive's own lists; all of it, if it failed
        collect(store, only=lease.made)


def _load(store: Store, file, name: str, limits: Limits | None) -> list[str]:
    members: dict[str, dict] = {}  # name in the archive -> descriptor of its content
    links: dict[str, str] = {}
    with Plain(file, "archive", limits) as stream:
        for entry in tar_read.entries(stream):
            member = posixpath.normpath(entry.name.decode("utf-8", "surrogateescape"))
            if entry.kind == REGULAR:
                members[member] = _add(store, stream, member, entry.stored)
            elif entry.kind in (SYMLINK, LINK):  # layers that are there twice, in old archives
                link = entry.link.decode("utf-8", "surrogateescape")
                base = posixpath.dirname(member) if entry.kind == SYMLINK else ""
                links[member] = posixpath.normpath(posixpath.join(base, link))
        stream.finish()
    for member, link in links.items():
        if link in members:
            members[member] = members[link]
    if "index.json" in members and "oci-layout" in members:
        found = _oci_images(store, members)
    elif "manifest.json" in members:
        found = _docker_images(store, members)
    else:
        raise ImageError(
            "archive: neither index.json nor manifest.json is in it",
            "a tar of a root file system: minicontainer import FILE NAME",
        )
    names = []
    for found_name, pointer in list(found):
        if not found_name and not name:
            raise ImageError("archive: an image without a name", "load --name NAME gives it one")
        names.append(str(reference.parse(found_name or name)))
        store.tag(names[-1], pointer)
    return names


def _add(store: Store, stream: Plain, member: str, size: int) -> dict:
    parts = member.split("/")
    digest = None
    if len(parts) == 3 and parts[0] == "blobs":
        digest = d.check_digest(f"{parts[1]}:{parts[2]}", member)
    try:
        return store.add(Chunks(stream.pieces(size)), digest, size)
    except EOFError as error:
        raise ImageError(f"archive: {member}: {error}") from None


def _oci_images(store: Store, members: dict[str, dict]) -> Iterator[tuple[str, dict]]:
    index = d.parse(store.read(members["index.json"]), d.check_index, "index.json")
    for entry in index["manifests"]:
        name = entry.get("annotations", {}).get(d.REF_NAME, "")
        pointer = {key: entry[key] for key in ("mediaType", "digest", "size")}
        if pointer["mediaType"] in d.MANIFESTS:
            _check_whole(store, name or pointer["digest"], pointer)
        else:
            store.read_json(pointer)
        yield name, pointer


def _docker_images(store: Store, members: dict[str, dict]) -> Iterator[tuple[str, dict]]:
    def listed(value, name: str):
        try:
            _docker_manifest(value, name)
        except ValueError as error:
            raise ImageError(f"archive: {error}") from None
        return value

    def member(name: str) -> dict:
        try:
            return members[posixpath.normpath(name)]
        except KeyError:
            raise ImageError(f"archive: manifest.json names {name!r}, which is not there") from None

    for entry in d.parse(store.read(members["manifest.json"]), listed, "manifest.json"):
        layers = []
        for one in map(member, entry["Layers"]):
            with open(store.path(one["digest"]), "rb") as file:
                compression = kind(file.read(512))
            if compression not in SUFFIX:
                raise ImageError(f"archive: a layer compressed with {compression}")
            layers.append({**one, "mediaType": d.OCI_LAYER + SUFFIX[compression]})
        manifest = {
            "schemaVersion": 2,
            "mediaType": d.OCI_MANIFEST,
            "config": {**member(entry["Config"]), "mediaType": d.OCI_CONFIG},
            "layers": layers,
        }
        pointer = store.add(jsonfile.dumps(manifest).encode(), media_type=d.OCI_MANIFEST)
        names = entry.get("RepoTags") or [""]
        _check_whole(store, names[0] or entry["Config"], pointer)
        for name in names:
            yield name, pointer


def _check_whole(store: Store, name: str, pointer: dict) -> None:
    """All blobs are there; a layer that is plain tar must be what the config says it is."""
    image = store.open(name, pointer)
    for n, (layer, diff_id) in enumerate(zip(image.layers, image.diff_ids, strict=True), 1):
        if not store.has(layer["digest"]):
            raise ImageError(f"{name}: layer {n}: {layer['digest']} is not in the archive")
        if layer["mediaType"] in (d.OCI_LAYER, d.DOCKER_LAYER) and layer["digest"] != diff_id:
            raise ImageError(f"{name}: layer {n}: its diffID is {layer['digest']}, not {diff_id}")


def import_tar(
    store: Store, file, name: str, config: dict | None = None, created_by: str = "import",
    limits: Limits | None = None,
) -> str:  # fmt: skip
    """An image of one layer from a tar of a root file system, compressed in any way or not.

    It is unpacked at once: so it is a tar that can be. Returns the name in full; raises ImageError,
    then the store is as it was.
    """
    full = str(reference.parse(name))
    lease = store.lease()
    try:
        with lease:
            with Plain(file, "archive", limits) as stream:
                layer = commit.add_layer(store, stream.pieces(sys.maxsize))
            pointer = commit.add_image(
                store, None, [layer], created_by, config, created=commit.epoch()
            )
            layers.unpacked(store, store.open(full, pointer), limits)
            store.tag(full, pointer)
    finally:
        collect(store, only=lease.made)
    return full
