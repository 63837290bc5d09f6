"""One repository of a registry, by the OCI distribution spec, version 1.1
(https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md).

A registry knows two things: manifests, by tag or digest, and blobs, by digest.
"""

from __future__ import annotations

import errno
import re
from urllib.parse import quote, urlencode

from ..runtime.errors import kernel_words
from . import auth
from . import descriptor as d
from .errors import ImageError
from .reference import Reference
from .store import Store
from .transfer import Download, Progress, Upload, silent
from .transport import ATTEMPTS, Broken, Transport

_ACCEPT = ", ".join((*d.MANIFESTS, *d.INDEXES))
_MOST_PAGES = 1000
_MOUNT = (201, 202, 400, 401, 403, 404, 405)


class Client:
    """One repository of a registry; `with Client(name) as client:` closes the connections.

    push  ask for the right to write; `also` are repositories of the registry to read from, too
    """

    def __init__(
        self, name: Reference, *, push: bool = False, also=(), plain_http: bool = False,
        creds: auth.Credentials | None = None, timeout: float = 30.0,
    ) -> None:  # fmt: skip
        self.name = name
        self._fetched = 0
        self._base = f"/v2/{name.repository}"
        actions = "pull,push" if push else "pull"
        scopes = [f"repository:{name.repository}:{actions}"]
        scopes += [f"repository:{other}:pull" for other in sorted(set(also))]
        self._http = Transport(
            name.host, credentials=creds or auth.stored(name), scopes=scopes,
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
        _, offset = store.partial(digest)
        try:
            with Download(self._http, path, blob, min(offset, size), report) as source:
                store.add(source, digest, size, blob["mediaType"], source.position)
        except ImageError:
            if not offset:
                raise
            # What was there to resume was damaged, by a power cut for example.
            with Download(self._http, path, blob, 0, report) as source:
                store.add(source, digest, size, blob["mediaType"])
        report(digest, size, size, "pulled")

    def upload(
        self, store: Store, blob: dict, source: str | None, progress: Progress | None = None
    ) -> None:
        """Bring a blob to the registry, unless it is there.

        source  another repository of the registry that is known to have it, or None
        """
        digest, size = blob["digest"], blob["size"]
        report = progress or silent
        head = self._http.call("HEAD", f"{self._base}/blobs/{digest}", expect=(200, 404))
        if head.status == 200:
            report(digest, size, size, "already there")
            return
        uploads = f"{self._base}/blobs/uploads/"
        mount = f"?{urlencode({'mount': digest, 'from': source})}" if source else ""
        for number in range(1, ATTEMPTS + 1):
            if mount:
                # Optional for a registry, and forbidden where we may not read the other repository.
                begun = self._http.call("POST", uploads + mount, body=b"", expect=_MOUNT)
                if begun.status == 201:
                    report(digest, size, size, "mounted")
                    return
            if not mount or begun.status != 202:
                begun = self._http.call("POST", uploads, body=b"", expect=(202,))
            mount = ""
            to = self._http.join(uploads, begun.headers.get("Location", ""))
            to += ("&" if "?" in to else "?") + f"digest={quote(digest)}"
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
            try:
                with Upload(self._http, store.path(digest), digest, report) as body:
                    self._http.call(
                        "PUT", to, headers=headers, body=body.rewound, expect=(201,), attempts=1
                    )
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

    def tags(self) -> list[str]:
        """All tags of the repository (spec, "Listing Tags"), through as many pages as it takes."""
        found: dict[str, None] = {}
        page = f"{self._base}/tags/list"
        for _ in range(_MOST_PAGES):
            answer = self._http.call("GET", page, expect=(200, 404), limit=d.MAX_DOCUMENT)
            if answer.status == 404:
                raise ImageError(f"no such repository in the registry: {self.name}")
            document = d.parse(answer.data, lambda value, _: value, "list of tags")
            tags = (document.get("tags") if isinstance(document, dict) else None) or []
            if not isinstance(tags, list) or not all(map(_is_tag, tags)):
                raise ImageError(f"{self.name}: the list of tags has what is no tag")
            found |= dict.fromkeys(tags)
            following = re.search(r'<([^>]*)>\s*;[^,]*rel="?next', answer.headers.get("Link", ""))
            if not following:
                return list(found)
            page = self._http.join(page, following[1])
        raise ImageError(f"{self.name}: the list of tags does not end")


def _is_tag(tag) -> bool:
    return isinstance(tag, str) and tag.isprintable()
