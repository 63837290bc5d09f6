"""One repository of a registry, by the OCI distribution spec, version 1.1
(https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md).

A registry knows two things: manifests, by tag or digest, and blobs, by digest.
"""

from __future__ import annotations

import errno
from urllib.parse import quote

from ..runtime.errors import kernel_words
from . import auth
from . import descriptor as d
from .errors import ImageError
from .reference import Reference
from .store import Store
from .transfer import Download, Progress, silent, upload
from .transport import ATTEMPTS, Broken, Transport

_ACCEPT = ", ".join((*d.MANIFESTS, *d.INDEXES))


_ENOUGH = 1 << 20  # bytes after which a broken connection counts as the first one again


class Client:
    """One repository of a registry; `with Client(name) as client:` closes the connections.

    push  ask for the right to write, too
    """

    def __init__(
        self, name: Reference, *, push: bool = False, plain_http: bool = False,
        creds: auth.Credentials | None = None, timeout: float = 30.0,
    ) -> None:  # fmt: skip
        self.name = name
        self._fetched = 0
        self._base = f"/v2/{name.repository}"
        self._http = Transport(
            name.host, credentials=creds or auth.stored(name),
            scope=f"repository:{name.repository}:{'pull,push' if push else 'pull'}",
            plain_http=plain_http, timeout=timeout,
        )  # fmt: skip

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self.close()
        if isinstance(error, Broken):
            raise ImageError(str(error), "try again: what has arrived is kept") from error
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ImageError(f"{self.name}: {kernel_words(error.errno)}") from error

    def close(self) -> None:
        """Also ends what other threads are doing with this client."""
        self._http.close()

    def manifest(self, store: Store, wanted: str, announced: dict | None = None) -> dict:
        """Fetch a manifest or an index into the store; returns its descriptor.

        wanted     a tag or a digest
        announced  the descriptor that an index has for it
        """
        if announced and store.has(wanted):
            return {key: announced[key] for key in ("mediaType", "digest", "size")}
        self._fetched += 1
        if self._fetched > d.MAX_MANIFESTS:
            raise ImageError(f"{self.name}: more than {d.MAX_MANIFESTS} manifests")
        answer = self._http.call(
            "GET", f"{self._base}/manifests/{wanted}",
            headers={"Accept": _ACCEPT}, expect=(200, 404), limit=d.MAX_DOCUMENT,
        )  # fmt: skip
        if answer.status == 404:
            raise ImageError(f"no such image in the registry: {self.name}")
        media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        is_there = {"mediaType": media_type, "size": len(answer.data)}
        if announced and any(announced[key] != value for key, value in is_there.items()):
            raise ImageError(f"{wanted}: the registry has {is_there}, its index says otherwise")
        # Without a digest in the name, the registry's word; the store holds it to that.
        digest = wanted if ":" in wanted else answer.headers.get("Docker-Content-Digest")
        found = store.add(answer.data, digest and d.check_digest(digest), media_type=media_type)
        store.read_json(found)  # checked: media type, members, digests
        return found

    def blob(self, store: Store, blob: dict, progress: Progress | None = None) -> None:
        """Fetch a blob into the store, from where an earlier attempt was broken off."""
        digest, size = blob["digest"], blob["size"]
        report = progress or silent
        if store.has(digest):
            report(digest, size, size, "already there")
            return
        path = f"{self._base}/blobs/{digest}"
        failures = arrived = 0
        damaged = False
        while True:
            offset = 0 if damaged else min(store.partial(digest)[1], size)
            try:
                with Download(self._http, path, blob, offset, report) as source:
                    store.add(source, digest, size, blob["mediaType"], offset)
                break
            except ImageError:
                if not offset:
                    raise
                damaged = True  # what was there to resume, by a power cut for example
            except Broken as error:
                before, arrived = arrived, store.partial(digest)[1]
                failures = 1 if arrived - before >= _ENOUGH else failures + 1
                if failures == ATTEMPTS:
                    raise Broken(f"{self.name.host}: {digest}: {error}") from error
                self._http.pause(failures)
        report(digest, size, size, "pulled")

    def upload(self, store: Store, blob: dict, progress: Progress | None = None) -> None:
        """Bring a blob to the registry, unless it is there."""
        digest, size = blob["digest"], blob["size"]
        report = progress or silent
        head = self._http.call("HEAD", f"{self._base}/blobs/{digest}", expect=(200, 404))
        if head.status == 200:
            report(digest, size, size, "already there")
            return
        uploads = f"{self._base}/blobs/uploads/"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        for number in range(1, ATTEMPTS + 1):
            begun = self._http.call("POST", uploads, body=b"", expect=(202,))
            to = self._http.join(uploads, begun.headers.get("Location", ""))
            to += ("&" if "?" in to else "?") + f"digest={quote(digest)}"
            try:
                self._http.call(
                    "PUT", to, headers=headers, expect=(201,), attempts=1,
                    body=lambda: upload(self._http, store.path(digest), digest, size, report),
                )  # fmt: skip
            except Broken:
                # A session that was broken off cannot be relied upon: begin another one.
                if number == ATTEMPTS:
                    raise
                self._http.pause(number)
            else:
                report(digest, size, size, "pushed")
                return

    def put_manifest(self, store: Store, descriptor: dict, wanted: str) -> None:
        """Bring a manifest or an index, whose blobs or manifests are there, to the registry."""
        answer = self._http.call(
            "PUT", f"{self._base}/manifests/{wanted}",
            headers={"Content-Type": descriptor["mediaType"]},
            body=store.read(descriptor), expect=(201,),
        )  # fmt: skip
        digest = answer.headers.get("Docker-Content-Digest", descriptor["digest"])
        if digest != descriptor["digest"] and digest.startswith("sha256:"):
            raise ImageError(f"{self.name}: the registry made {digest!r} of the manifest")
