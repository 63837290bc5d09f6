"""What a container changed of its image: as a list, and as a new image."""

from __future__ import annotations

import os

from ..images import overlay, rootless
from ..images.commit import commit
from ..images.reference import parse
from ..images.store import Store
from ..runtime.errors import ContainerError
from .containers import Container


def listed(container: Container) -> list[tuple[str, str]]:
    """(A added, C changed or D deleted; path), sorted; where its files' owners exist."""
    upper = _upper(container)
    found: list[tuple[str, str]] = []
    prefix, lowers = rootless.overlay_prefix(), container.record["layers"]
    for base, directories, files in os.walk(upper):
        for name in (*directories, *files):
            path = f"{base}/{name}"[len(upper) :]
            there = bool(overlay.find(lowers, path, prefix)) or _is_link(lowers, path, prefix)
            if overlay.is_whiteout(os.lstat(upper + path)):
                found.append(("D", path))
            else:
                found.append(("C" if there else "A", path))
    return sorted(found, key=lambda one: one[1])


def _is_link(lowers: list[str], path: str, prefix: str) -> bool:
    """Whether the layers have a link there, which may lead to nowhere."""
    above, _, name = path.rpartition("/")
    directory = overlay.find(lowers, above, prefix)
    return bool(directory) and os.path.islink(f"{directory}/{name}")


def committed(store: Store, container: Container, name: str, message: str) -> str:
    """Make an image of it, with that name; returns the digest. It may go on running meanwhile."""
    reference = str(parse(name))
    upper = _upper(container)
    with store.lease() as lease:
        descriptor = container.record["descriptor"]
        lease.add(descriptor["digest"])
        base = store.open(container.record["image"], descriptor)
        words = " ".join(container.record["command"])
        pointer = commit(store, base, upper, created_by=words, comment=message)
        store.tag(reference, pointer)
    return pointer["digest"]


def _upper(container: Container) -> str:
    if container.record.get("copied"):
        raise ContainerError(
            f"what {container.name} changed is not known: its image was copied, since overlayfs "
            "could not be used"
        )
    return container.file("upper")
