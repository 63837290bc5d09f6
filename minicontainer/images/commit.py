"""New images: a base and one more layer, or none."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from ..runtime import jsonfile
from . import descriptor as d
from .compression import Chunks, Compressed
from .errors import ImageError
from .store import Image, Store


def epoch() -> int | None:
    """SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch/), or None."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    if not text.isdecimal() or len(text) > 11:
        raise ImageError(f"SOURCE_DATE_EPOCH={text}: whole seconds since 1970 are expected")
    return int(text)


def timestamp(seconds: int | None) -> str:
    """RFC 3339, in UTC; now for None."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def add_layer(store: Store, chunks: Iterable[bytes | memoryview]) -> tuple[dict, str]:
    """Store a tar, given in pieces, as a layer; returns its descriptor and diffID.

    Call it within a lease.
    """
    packed = Compressed(chunks)
    pointer = store.add(Chunks(packed), media_type=d.OCI_LAYER_GZIP)
    return pointer, packed.diff_id


def add_image(
    store: Store, base: Image | None, layers: list[tuple[dict, str]], created_by: str,
    config: dict | None = None, comment: str = "", created: int | None = None,
) -> dict:  # fmt: skip
    """Store the config and manifest of `base` (None: an empty image) with these layers on top.

    layers      as `add_layer` returns them; none makes an empty step of the history
    created_by  the command, for the history
    config      members to set in the config's `config`; None keeps the base's
    created     seconds since 1970; now for None

    Returns the manifest's descriptor. Call it within a lease.
    """
    when = timestamp(created)
    new: dict = dict(base.config if base else d.host_platform())
    new["created"] = when
    new["config"] = dict(new.get("config") or {}) if config is None else config
    old_layers = base.layers if base else []
    old_ids = base.diff_ids if base else []
    new["rootfs"] = {"type": "layers", "diff_ids": old_ids}
    step: dict = {"created": when, "created_by": created_by}
    if comment:
        step["comment"] = comment
    new["history"] = history(new) + ([step] * len(layers) or [{**step, "empty_layer": True}])
    new["rootfs"]["diff_ids"] = old_ids + [diff_id for _, diff_id in layers]
    return write_image(store, new, [*old_layers, *(layer for layer, _ in layers)])


def history(config: dict) -> list[dict]:
    """The steps of a config, and one for each layer that has none: some builders write none."""
    steps = list(config.get("history") or [])
    full = sum(not one.get("empty_layer") for one in steps)
    return steps + [{"created_by": "unknown"}] * (len(config["rootfs"]["diff_ids"]) - full)


def write_image(store: Store, config: dict, layers: list[dict]) -> dict:
    """Store an image of a config and descriptors of layers; returns the manifest's descriptor."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": d.OCI_MANIFEST,
        "config": add_document(store, config, d.OCI_CONFIG),
        "layers": [oci_layer(layer) for layer in layers],
    }
    return add_document(store, manifest, d.OCI_MANIFEST)


def add_document(store: Store, document: dict, media_type: str) -> dict:
    """Store a JSON document; returns its descriptor."""
    return store.add(jsonfile.dumps(document).encode(), media_type=media_type)


def oci_layer(layer: dict) -> dict:
    """The descriptor of a layer for an OCI manifest."""
    # Also when the base is docker's: the content is the same.
    names = {
        d.DOCKER_LAYER: d.OCI_LAYER,
        d.DOCKER_LAYER_GZIP: d.OCI_LAYER_GZIP,
        d.DOCKER_LAYER_ZSTD: d.OCI_LAYER_ZSTD,
    }
    kept = {key: layer[key] for key in ("mediaType", "digest", "size")}
    return {**kept, "mediaType": names.get(layer["mediaType"], layer["mediaType"])}


def commit(
    store: Store, base: Image | None, upper: str, *, created_by: str = "", comment: str = "",
    config: dict | None = None,
) -> dict:  # fmt: skip
    """The image that `base` became by what is in a container's upper directory.

    Its cost is that of the change. Returns the manifest's descriptor, which no name has yet.
    """
    from . import diff, rootless

    newest = epoch()

    def work() -> dict:
        changes = diff.tar(upper, newest, rootless.overlay_prefix())
        layers = [add_layer(store, changes)] if os.listdir(upper) else []
        return add_image(store, base, layers, created_by, config, comment, newest)

    return rootless.inside(work)
