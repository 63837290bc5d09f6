"""Images from and to a registry: to pull is to walk from a manifest to all that it names, and to
check each digest on the way; to push is the way back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed

from . import auth
from . import descriptor as d
from .client import Client
from .errors import ImageError
from .reference import parse
from .store import Store
from .transfer import Progress
from .transport import CONNECTIONS


def pull(
    store: Store, reference: str, platform: dict | None = None, progress: Progress | None = None, *,
    plain_http: bool = False, creds: auth.Credentials | None = None, timeout: float = 30.0,
) -> dict:  # fmt: skip
    """Fetch an image into the store, under the full form of its name; returns its descriptor.

    platform    which one of several: {"os": …, "architecture": …}; this machine's by default
    plain_http  without TLS; a loopback registry may lack it anyway
    creds       in place of those that docker and podman keep
    timeout     seconds without a byte after which a connection is given up

    What is there already is not fetched again, and a blob that was broken off is resumed. Raises
    ImageError; the store has the whole image then, or its name is as it was.
    """
    name = parse(reference)
    with Client(name, plain_http=plain_http, creds=creds, timeout=timeout) as client, store.lease():
        found = client.manifest(store, name.wanted)
        depth = 0
        while found["mediaType"] not in d.MANIFESTS:
            depth += 1
            if depth > d.MAX_NESTING:
                raise ImageError(f"{name}: more than {d.MAX_NESTING} indexes in one another")
            one = d.choose(store.read_json(found), platform, str(name))
            found = client.manifest(store, one["digest"], one)
        blobs = _pull_config(client, store, str(name), found, platform, progress)
        _check_space(store, blobs)
        _concurrently(client, lambda blob: client.blob(store, blob, progress), blobs)
        store.tag(str(name), found)
    return found


def push(
    store: Store, name: str, reference: str | None = None, progress: Progress | None = None, *,
    plain_http: bool = False, creds: auth.Credentials | None = None, timeout: float = 30.0,
) -> dict:  # fmt: skip
    """Bring an image of the store to a registry; returns its descriptor.

    reference  where to, and as what; by default as it is named here
    The others are as for `pull`. What the registry has is not sent again. The manifest goes last:
    nobody sees half an image.
    """
    target = parse(reference or name)
    found = store.resolve(name)
    if target.digest not in ("", found["digest"]):
        raise ImageError(f"{target}: the image to push is {found['digest']}")
    connection: dict = {"plain_http": plain_http, "creds": creds, "timeout": timeout}
    with store.lease(), Client(target, push=True, **connection) as client:
        documents = list(_documents(store, found))
        blobs = {
            blob["digest"]: blob for _, one in documents if "config" in one
            for blob in (one["config"], *one["layers"])
        }  # fmt: skip
        for digest in (*blobs, *(one["digest"] for one, _ in documents)):
            if not store.has(digest):
                raise ImageError(f"{name}: blob {digest} is not in the store", "pull it again")
        _concurrently(client, lambda blob: client.upload(store, blob, progress), blobs.values())
        for one, _ in documents[:-1]:
            client.put_manifest(store, one, one["digest"])
        client.put_manifest(store, found, target.tag or target.digest)
    return found


def _pull_config(
    client: Client, store: Store, name: str, manifest: dict, platform: dict | None,
    progress: Progress | None,
) -> list[dict]:  # fmt: skip
    """Fetch a manifest's config and judge both before any layer is fetched; returns the layers."""
    config = store.read_json(manifest)["config"]
    if config["size"] > d.MAX_DOCUMENT:
        raise ImageError(f"{name}: a config of {config['size']} bytes is refused")
    client.blob(store, config, progress)
    image = store.open(name, manifest)
    if platform and not d.platform_matches(image.config, platform):
        raise ImageError(f"{name} is for {d.platform_words(image.config)} only")
    return list({layer["digest"]: layer for layer in image.layers}.values())


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
