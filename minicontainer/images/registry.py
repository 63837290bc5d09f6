"""Images from and to a registry: to pull is to walk from a manifest to all that it names, and to
check each digest on the way; to push is the way back.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed

from . import auth
from . import descriptor as d
from .client import Client
from .errors import ImageError
from .reference import Reference, parse
from .store import Store
from .transfer import Progress
from .transport import CONNECTIONS


def pull(
    store: Store,
    reference: str,
    platform: dict | None = None,
    progress: Progress | None = None,
    *,
    all_platforms: bool = False,
    plain_http: bool = False,
    creds: auth.Credentials | None = None,
    timeout: float = 30.0,
) -> dict:
    """Fetch an image into the store, under the full form of its name; returns its descriptor.

    platform       which one of several: {"os": …, "architecture": …}; this machine's by default
    all_platforms  all of them; then the name means their index
    plain_http     without TLS; a loopback registry may lack it anyway
    creds          in place of those that docker and podman keep
    timeout        seconds without a byte after which a connection is given up

    What is there already is not fetched again, and a blob that was broken off is resumed. Raises
    ImageError; the store has the whole image then, or its name is as it was.
    """
    name = parse(reference)

    def choose(index: dict) -> list[dict]:
        return index["manifests"] if all_platforms else [d.choose(index, platform, str(name))]

    with Client(name, plain_http=plain_http, creds=creds, timeout=timeout) as client, store.lease():
        found = client.manifest(store, name.wanted)
        manifests = list(_manifests(client, store, found, choose))
        blobs: dict[str, dict] = {}
        for manifest in manifests:
            blobs |= _pull_config(client, store, str(name), manifest, platform, progress)
        _check_space(store, blobs.values())
        _concurrently(client, lambda blob: client.blob(store, blob, progress), blobs.values())
        image = found if all_platforms else manifests[0]
        store.tag(str(name), image)
    return image


def push(
    store: Store,
    name: str,
    reference: str | None = None,
    progress: Progress | None = None,
    *,
    plain_http: bool = False,
    creds: auth.Credentials | None = None,
    timeout: float = 30.0,
) -> dict:
    """Bring an image of the store to a registry; returns its descriptor.

    reference  where to, and as what; by default as it is named here
    The others are as for `pull`. What the registry has is not sent again, and what another
    repository of it has is mounted. The manifest goes last: nobody sees half an image.
    """
    target = parse(reference or name)
    found = _resolve(store, name)
    if target.digest not in ("", found["digest"]):
        raise ImageError(f"{target}: the image to push is {found['digest']}")
    sources = _elsewhere(store, target)
    with (
        store.lease(),
        Client(
            target, also=sources.values(), push=True,
            plain_http=plain_http, creds=creds, timeout=timeout,
        ) as client,
    ):  # fmt: skip
        documents = list(_documents(store, found))
        blobs = {blob["digest"]: blob for _, document in documents for blob in _blobs(document)}
        for digest in (*blobs, *(one["digest"] for one, _ in documents)):
            if not store.has(digest):
                raise ImageError(f"{name}: blob {digest} is not in the store", "pull it again")

        def upload(blob: dict) -> None:
            client.upload(store, blob, sources.get(blob["digest"]), progress)

        _concurrently(client, upload, blobs.values())
        for one, _ in documents[:-1]:
            client.put_manifest(store, one, one["digest"])
        client.put_manifest(store, found, target.tag or target.digest)
    return found


def list_tags(
    reference: str, *, plain_http: bool = False, creds: auth.Credentials | None = None
) -> list[str]:
    """The tags of a repository, as the registry lists them."""
    with Client(parse(reference), plain_http=plain_http, creds=creds) as client:
        return client.tags()


def _resolve(store: Store, name: str) -> dict:
    """By the name as it is, by its full form, or by a digest."""
    with contextlib.suppress(ImageError):
        full = str(parse(name))
        if name not in store.names() and full in store.names():
            return store.resolve(full)
    return store.resolve(name)


def _manifests(
    client: Client, store: Store, found: dict, choose: Callable[[dict], list[dict]],
    depth: int = d.MAX_NESTING,
) -> Iterator[dict]:  # fmt: skip
    """The image manifests that a descriptor means; `choose` says which of an index to fetch."""
    if found["mediaType"] in d.MANIFESTS:
        yield found
        return
    if not depth:
        raise ImageError(f"{client.name}: more than {d.MAX_NESTING} indexes in one another")
    for one in choose(store.read_json(found)):
        inner = client.manifest(store, one["digest"], one)
        yield from _manifests(client, store, inner, choose, depth - 1)


def _pull_config(
    client: Client, store: Store, name: str, manifest: dict, platform: dict | None,
    progress: Progress | None,
) -> dict[str, dict]:  # fmt: skip
    """Fetch a manifest's config and judge both before any layer is fetched; returns the layers."""
    config = store.read_json(manifest)["config"]
    if config["size"] > d.MAX_DOCUMENT:
        raise ImageError(f"{name}: a config of {config['size']} bytes is refused")
    client.blob(store, config, progress)
    image = store.open(name, manifest)
    if platform and not d.platform_matches(image.config, platform):
        raise ImageError(f"{name} is for {d.platform_words(image.config)} only")
    return {layer["digest"]: layer for layer in image.layers}


def _check_space(store: Store, blobs) -> None:
    """A manifest that announces more than the disk has is refused before, not after filling it."""
    needed = sum(
        blob["size"] - store.partial(blob["digest"])[1]
        for blob in blobs
        if not store.has(blob["digest"])
    )
    disk = os.statvfs(store.root)
    if needed > disk.f_bavail * disk.f_frsize:
        raise ImageError(
            f"{store.root}: the image needs {needed >> 20} MiB more, the disk has "
            f"{disk.f_bavail * disk.f_frsize >> 20} MiB"
        )


def _concurrently(client: Client, work: Callable[[dict], None], blobs) -> None:
    """Some at once; the first failure, or Ctrl-C, ends the others, too."""
    pool = ThreadPoolExecutor(CONNECTIONS)
    try:
        for future in as_completed([pool.submit(work, blob) for blob in blobs]):
            future.result()
    except BaseException:
        client.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _documents(
    store: Store, found: dict, depth: int = d.MAX_NESTING
) -> Iterator[tuple[dict, dict]]:
    """An image's or index's documents with their descriptors; what others point to comes first."""
    if depth < 0:
        raise ImageError(f"{found['digest']}: more than {d.MAX_NESTING} indexes in one another")
    document = store.read_json(found)
    for inner in document.get("manifests", ()):
        yield from _documents(store, inner, depth - 1)
    yield found, document


def _blobs(document: dict) -> list[dict]:
    return [document["config"], *document["layers"]] if "config" in document else []


def _elsewhere(store: Store, target: Reference) -> dict[str, str]:
    """Blobs that other repositories of the registry have, by what the store knows of it."""
    found: dict[str, str] = {}
    for name, pointer in store.names().items():
        with contextlib.suppress(ImageError):  # a name that is no reference, a blob that is gone
            other = parse(name)
            if other.registry == target.registry and other.repository != target.repository:
                for _, document in _documents(store, pointer):
                    found |= {blob["digest"]: other.repository for blob in _blobs(document)}
    return found
