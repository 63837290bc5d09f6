"""The store: an OCI image layout on disk that many processes use at once.

    oci-layout, index.json   image-layout.md: the names and what they point to
    blobs/sha256/<hex>       everything, by the digest of its content; never changed, only added
    ingest/                  blobs that are being written, or were broken off (kept for resuming)
    layers/<hex>/            layers unpacked, by diffID (see `unpack`)
    cache/<hex>              which layer came of a step of a build before (see `build`)
    leases/                  what a running process, or a container, needs though no name says so
    lock                     flock(2)'d by whoever changes index.json or collects garbage

Each change is one rename(2) of a complete, synced file: a reader never waits and never sees a half,
and after kill -9 or a power cut the store is consistent. Other tools read it: `skopeo inspect
oci:ROOT:NAME`.
"""

from __future__ import annotations

import os

from ..paths import data_dir
from ..runtime import jsonfile
from . import descriptor as d
from .errors import ImageError
from .leases import Lease, Lock

CHUNK = 1 << 20
LAYOUT = '{"imageLayoutVersion":"1.0.0"}'
EMPTY_INDEX = {"schemaVersion": 2, "mediaType": d.OCI_INDEX, "manifests": []}
DIRECTORIES = ("blobs/sha256", "ingest", "layers", "leases")


class Image:
    """An image of the store, its documents checked.

    name           what it was asked for by
    descriptor     of its manifest
    manifest       the document; `layers` are its descriptors, from the lowest up
    config         the document; `diff_ids` are the digests of the layers' plain tars
    config_digest  docker's image id
    """

    def __init__(self, name: str, descriptor: dict, manifest: dict, config: dict) -> None:
        self.name = name
        self.descriptor = descriptor
        self.manifest = manifest
        self.config = config
        self.config_digest: str = manifest["config"]["digest"]
        self.layers: list[dict] = manifest["layers"]
        self.diff_ids: list[str] = config["rootfs"]["diff_ids"]


class Store:
    """The images below a directory, which is made when something is first written.

    Whoever adds blobs does it within `with store.lease():` until a name points to them; else `gc`
    of another process may take them as garbage. One object may be used by several threads.
    """

    def __init__(self, root: str | None = None) -> None:
        self.root = root or os.path.join(data_dir(), "images")
        self._lock = Lock(self.root)
        self._lease: Lease | None = None

    # --- blobs --------------------------------------------------------------------------------

    def path(self, digest: str) -> str:
        """Where the blob is, or would be."""
        return f"{self.root}/blobs/{d.check_digest(digest).replace(':', '/')}"

    def has(self, digest: str) -> bool:
        """Whether the blob is there, whole; within a lease it will also stay there."""
        if self._lease:
            self._lease.add(digest)
        return os.path.exists(self.path(digest))

    def add(
        self, source, digest: str | None = None, size: int | None = None,
        media_type: str = "application/octet-stream", offset: int = 0,
    ) -> dict:  # fmt: skip
        """Write a blob; returns its descriptor. A blob that is there already is not read again.

        source  bytes, or an object with read(n)
        digest  what it must have; without it sha256 is computed
        size    what it must have, in bytes
        offset  at which byte of the blob `source` begins, the bytes before being in `partial`

        Raises ImageError when the digest is wrong or the content too long: then nothing is kept.
        EOFError when it is too short, and what `source.read` or the disk raises, come through; then
        a blob with a digest is kept for resuming, unless the disk is full.
        """
        if isinstance(source, bytes | bytearray):
            from io import BytesIO

            size = len(source) if size is None else size
            source = BytesIO(source)
        if digest and self.has(digest):
            return self._described(digest, media_type, size)
        from .ingest import ingest

        self.make()
        digest = ingest(self, source, digest, size, offset)
        return self._described(digest, media_type, size)

    def partial(self, digest: str) -> tuple[str, int]:
        """Where a blob that was broken off is, and how many bytes of it there are; 0 for none."""
        if self._lease:
            self._lease.add(digest)
        path = f"{self.root}/ingest/{d.check_digest(digest).replace(':', '-')}"
        try:
            return path, os.stat(path).st_size
        except FileNotFoundError:
            return path, 0

    def read(self, descriptor: dict) -> bytes:
        """A small blob's content. Raises ImageError when it is missing, too big, or cut short."""
        digest, size = descriptor["digest"], descriptor["size"]
        if size > d.MAX_DOCUMENT:
            raise ImageError(f"{digest}: {size} bytes are too many for a document")
        try:
            with open(self.path(digest), "rb") as file:
                data = file.read(size + 1)
        except FileNotFoundError:
            raise ImageError(
                f"blob {digest} is not in the store", "pull or load the image again"
            ) from None
        if len(data) != size:
            raise ImageError(f"blob {digest}: its size is not {size}", "minicontainer fsck")
        return data

    def read_json(self, descriptor: dict) -> dict:
        """A document of the store, checked according to its media type."""
        media_type = descriptor["mediaType"]
        for types, check in (
            (d.INDEXES, d.check_index),
            (d.MANIFESTS, d.check_manifest),
            (d.CONFIGS, d.check_config),
        ):
            if media_type in types:
                document = d.parse(self.read(descriptor), check, descriptor["digest"])
                if document.get("mediaType", media_type) != media_type:
                    raise ImageError(
                        f"{descriptor['digest']}: it says it is {document['mediaType']}, "
                        f"what points to it says {media_type}"
                    )
                return document
        raise ImageError(f"{descriptor['digest']}: unknown media type {media_type!r}")

    # --- names --------------------------------------------------------------------------------

    def index(self) -> dict:
        """index.json, checked; empty before anything was written."""
        try:
            data = jsonfile.read_file(f"{self.root}/index.json").encode()
        except FileNotFoundError:
            return {**EMPTY_INDEX, "manifests": []}
        return d.parse(data, d.check_index, f"{self.root}/index.json")

    def names(self) -> dict[str, dict]:
        """Name -> descriptor of a manifest or an index, sorted by name."""
        found = {}
        for one in self.index()["manifests"]:
            if name := one.get("annotations", {}).get(d.REF_NAME):
                found[name] = one
        return dict(sorted(found.items()))

    def tag(self, name: str, descriptor: dict) -> None:
        """Let `name` mean this manifest or index, and no other any more."""
        if not name or len(name) > 512 or not name.isprintable() or " " in name:
            raise ImageError(f"{name!r} cannot be an image's name")
        d.check_descriptor(descriptor)
        entry = {key: descriptor[key] for key in ("mediaType", "digest", "size")}
        entry["annotations"] = {d.REF_NAME: name}
        self.make()
        with self.lock():
            self._write_index([*self._others(name), entry])

    def untag(self, name: str) -> None:
        """Forget a full name. Its blobs stay until `gc`. Raises ImageError when there is none."""
        self.make()
        with self.lock():
            if name not in self.names():
                raise self._unknown(name)
            self._write_index(self._others(name))

    def full_name(self, name: str) -> str:
        """The name that this one is short for, by docker's rules: see `reference`; "" for none."""
        names = self.names()
        full = name if "/" in name else f"library/{name}"
        for repository in (name, f"docker.io/{full}"):
            for candidate in (repository, f"{repository}:latest"):
                if candidate in names:
                    return candidate
        return ""

    def resolve(self, name: str) -> dict:
        """The descriptor that a name, or the beginning of a digest, means; raises ImageError.

        A digest is a manifest's, or a config's as docker shows it: with `sha256:` or without, at
        least four of its digits.
        """
        names = self.names()
        if full := self.full_name(name):
            return names[full]
        digits = name.removeprefix("sha256:")
        if len(digits) < 4 or digits.strip("0123456789abcdef"):
            raise self._unknown(name)
        found = {}
        for one in names.values():
            ids = [one["digest"]]
            if one["mediaType"] in d.MANIFESTS:
                ids.append(self.read_json(one)["config"]["digest"])
            if any(digest.partition(":")[2].startswith(digits) for digest in ids):
                found[one["digest"]] = one
        if not found:
            raise self._unknown(name)
        if len(found) > 1:
            raise ImageError(f"{name}: {len(found)} images begin so", "give more of the digest")
        return next(iter(found.values()))

    def image(self, name: str, platform: dict | None = None) -> Image:
        """The image of a name or digest, for this machine unless another platform is given."""
        pointer = self.resolve(name)
        for _ in range(d.MAX_NESTING):
            if pointer["mediaType"] not in d.INDEXES:
                break
            pointer = d.choose(self.read_json(pointer), platform, name)
        else:
            raise ImageError(f"{name}: more than {d.MAX_NESTING} indexes in one another")
        return self.open(name, pointer)

    def open(self, name: str, descriptor: dict) -> Image:
        """The image of a manifest; `name` is for messages."""
        if descriptor["mediaType"] not in d.MANIFESTS:
            raise ImageError(f"{name}: {descriptor['mediaType']} is no image manifest")
        manifest = self.read_json(descriptor)
        if manifest["config"]["mediaType"] not in d.CONFIGS:
            raise ImageError(
                f"{name}: not an image for containers, but {manifest['config']['mediaType']}"
            )
        config = self.read_json(manifest["config"])
        layers, diff_ids = manifest["layers"], config["rootfs"]["diff_ids"]
        if len(layers) != len(diff_ids):
            raise ImageError(
                f"{name}: the manifest has {len(layers)} layers, the config {len(diff_ids)}"
            )
        for n, layer in enumerate(layers, 1):
            if layer["mediaType"] not in d.LAYERS:
                raise ImageError(f"{name}: layer {n}: unknown media type {layer['mediaType']!r}")
        return Image(name, descriptor, manifest, config)

    # --- many processes -----------------------------------------------------------------------

    def lock(self) -> Lock:
        """`with store.lock():` one process and thread changes index.json at a time; may nest."""
        return self._lock

    def lease(self) -> Lease:
        """`with store.lease():` what is added, or found by `has`, stays until the end of it."""
        self.make()
        return Lease(self)

    def pin(self, owner: str, digest: str) -> None:
        """Keep an image (its manifest's digest) for a container until `unpin`, named or not."""
        self.make()
        with self.lock():
            # Not durable, as the owner's record is not: an fsync(2) costs a start milliseconds
            self.write_file(self._pin(owner), d.check_digest(digest) + "\n", durable=False)

    def unpin(self, owner: str) -> None:
        """Undo `pin`; may be called again."""
        try:
            os.unlink(f"{self.root}/{self._pin(owner)}")
        except FileNotFoundError:
            pass

    def gc(self) -> dict[str, int]:
        """Remove what no name, lease or pin needs; returns counts, and bytes freed."""
        from .upkeep import collect

        return collect(self)

    def fsck(self) -> list[str]:
        """What is wrong with the store, in words; reads every blob. Empty when it is consistent."""
        from .upkeep import check

        return check(self)

    def make(self) -> None:
        """Make the store's directories, once. Nobody else may look in: images have setuid files."""
        if os.path.exists(f"{self.root}/oci-layout"):
            return
        os.makedirs(self.root, 0o700, exist_ok=True)
        for name in DIRECTORIES:
            os.makedirs(f"{self.root}/{name}", exist_ok=True)
        with self.lock():
            if not os.path.exists(f"{self.root}/index.json"):
                self._write_index([])
            self.write_file("oci-layout", LAYOUT)  # last: it says that the others are there

    def write_file(self, name: str, text: str, durable: bool = True) -> None:
        """Replace a file of the store whole, by the lock's holder. durable: on disk at once."""
        beside = f"{self.root}/ingest/new-{os.getpid()}-{os.urandom(4).hex()}"
        try:
            with open(beside, "w") as file:
                file.write(text)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            os.rename(beside, f"{self.root}/{name}")
        except OSError:
            os.unlink(beside)
            raise
        if durable:
            self.sync_directory(os.path.dirname(name))

    def sync_directory(self, name: str) -> None:
        """fsync(2) a directory of the store: a rename in it is then on disk."""
        fd = os.open(f"{self.root}/{name}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _described(self, digest: str, media_type: str, size: int | None) -> dict:
        actual = os.stat(self.path(digest)).st_size
        if size not in (None, actual):
            raise ImageError(f"{digest}: {size} bytes were announced, it has {actual}")
        return {"mediaType": media_type, "digest": digest, "size": actual}

    def _others(self, name: str) -> list[dict]:
        return [
            one
            for one in self.index()["manifests"]
            if one.get("annotations", {}).get(d.REF_NAME) != name
        ]

    def _write_index(self, manifests: list[dict]) -> None:
        self.write_file("index.json", jsonfile.dumps({**EMPTY_INDEX, "manifests": manifests}))

    def _pin(self, owner: str) -> str:
        if not owner or "/" in owner or owner.startswith("."):
            raise ImageError(f"{owner!r} cannot own an image")
        return f"leases/pin-{owner}"

    def _unknown(self, name: str) -> ImageError:
        return ImageError(
            f"no such image: {name}", "minicontainer images lists them; minicontainer pull NAME"
        )
