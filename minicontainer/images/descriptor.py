"""What registries and archives say about an image: JSON of strangers, until it passed these checks.

The OCI image spec (https://github.com/opencontainers/image-spec/blob/v1.1.0): descriptor.md,
image-index.md, manifest.md, config.md; docker's older media types mean the same. All checks raise
`ImageError` that names the field, and return what they were given: null members are taken out.
"""

from __future__ import annotations

import os

from ..runtime import checks, jsonfile
from .errors import ImageError

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = OCI_LAYER + "+gzip"
OCI_LAYER_ZSTD = OCI_LAYER + "+zstd"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = DOCKER_LAYER + ".gzip"
DOCKER_LAYER_ZSTD = DOCKER_LAYER + ".zstd"

INDEXES = (OCI_INDEX, DOCKER_INDEX)
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
CONFIGS = (OCI_CONFIG, DOCKER_CONFIG)
LAYERS = (
    OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, DOCKER_LAYER, DOCKER_LAYER_GZIP, DOCKER_LAYER_ZSTD,
)  # fmt: skip

# Which image of several an index entry is, and its name in a layout (annotations.md).
REF_NAME = "org.opencontainers.image.ref.name"

MAX_DOCUMENT = 4 << 20  # bytes; what registries accept of a manifest at most (distribution spec)
MAX_LAYERS = 500  # overlayfs takes no more (OVL_MAX_STACK in fs/overlayfs/params.h)
MAX_MANIFESTS = 1000
MAX_NESTING = 4  # of indexes in indexes


def parse(data: bytes, check, name: str) -> dict:
    """A document of at most MAX_DOCUMENT bytes that passes `check`, one of the above."""
    if len(data) > MAX_DOCUMENT:
        raise ImageError(f"{name}: {len(data)} bytes; no more than {MAX_DOCUMENT} are accepted")
    try:
        value = jsonfile.loads(data.decode())
    except ValueError as error:  # no UTF-8 either
        raise ImageError(f"{name}: not JSON: {error}") from None
    return check(value, name)


def host_platform() -> dict[str, str]:
    """This machine, in the words of the spec (they are Go's: GOOS, GOARCH)."""
    machine = os.uname().machine
    known = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm", "armv6l": "arm"}
    platform = {"os": "linux", "architecture": known.get(machine, machine)}
    variant = {"aarch64": "v8", "armv7l": "v7", "armv6l": "v6"}.get(machine)
    return {**platform, "variant": variant} if variant else platform


def platform_matches(offered: dict, wanted: dict) -> bool:
    """Whether an image for one platform runs on another: arm's variants run lower ones."""
    if any(offered.get(key) != wanted[key] for key in ("os", "architecture")):
        return False
    have, want = offered.get("variant", ""), wanted.get("variant", "")
    return not have or not want or have == want or (wanted["architecture"] == "arm" and have < want)


def choose(index: dict, platform: dict | None = None, name: str = "index") -> dict:
    """The descriptor of a checked index that is for `platform`, this machine's by default.

    An index without platforms offers its only entry. Raises ImageError that lists what there is.
    """
    wanted = platform or host_platform()
    offers = index["manifests"]
    fits = [one for one in offers if platform_matches(one.get("platform") or {}, wanted)]
    if fits:
        return max(fits, key=lambda one: one["platform"].get("variant", ""))
    if len(offers) == 1 and "platform" not in offers[0]:
        return offers[0]
    there = ", ".join(sorted({platform_words(one.get("platform") or {}) for one in offers}))
    raise ImageError(
        f"{name}: no image for {platform_words(wanted)}; there is: {there or 'none'}",
        hint="--platform OS/ARCHITECTURE chooses one of those",
    )


def platform_words(platform: dict) -> str:
    """linux/arm/v7"""
    parts = (platform.get("os"), platform.get("architecture"), platform.get("variant"))
    return "/".join(part for part in parts if part) or "unknown"


def _raising(check, called: str):
    """The same check, raising ImageError, and returning the value."""

    def checked(value, name: str = called):
        try:
            check(value, name)
        except ValueError as error:
            raise ImageError(str(error)) from None
        return value

    return checked


def _digest(value, name: str) -> None:
    checks.text(value, name)
    digits = value.removeprefix("sha256:")
    if len(value) != 71 or len(digits) != 64 or digits.strip("0123456789abcdef"):
        raise checks.wrong(name, "sha256: and 64 hexadecimal digits", value)


def _anything(value, name: str) -> None:
    pass


def _at_most(limit: int, check_one):
    check = checks.items(check_one)

    def check_some(value, name: str) -> None:
        if isinstance(value, list) and len(value) > limit:
            raise ValueError(f"{name}: {len(value)} entries; no more than {limit} are accepted")
        check(value, name)

    return check_some


def _without(others: tuple[str, ...], check):
    # A document that is a manifest to one reader and an index to another (CVE-2021-41190).
    def check_unambiguous(value, name: str) -> None:
        check(value, name)
        for other in others:
            if other in value:
                raise ValueError(f"{name}: manifest and index at once: it has {other!r}")

    return check_unambiguous


_platform = checks.fields(
    ("os", "architecture"), os=checks.text, architecture=checks.text, variant=checks.text
)
_pointer = {
    "mediaType": checks.nonempty,
    "digest": _digest,
    "size": checks.number(0, 2**63 - 1),
    "annotations": checks.mapping(checks.text),
    "platform": _platform,
}
_descriptor = checks.fields(("mediaType", "digest", "size"), **_pointer)
_version = checks.number(2, 2)
_manifest = _without(("manifests",), checks.fields(
    ("schemaVersion", "config", "layers"),
    schemaVersion=_version,
    mediaType=checks.one_of(*MANIFESTS),
    config=_descriptor,
    layers=_at_most(MAX_LAYERS, _descriptor),
    annotations=checks.mapping(checks.text),
))  # fmt: skip
_index = _without(("config", "layers", "fsLayers"), checks.fields(
    ("schemaVersion", "manifests"),
    schemaVersion=_version,
    mediaType=checks.one_of(*INDEXES),
    manifests=_at_most(MAX_MANIFESTS, _descriptor),
    annotations=checks.mapping(checks.text),
))  # fmt: skip
_config = checks.fields(
    ("architecture", "os", "rootfs"),
    architecture=checks.text,
    os=checks.text,
    variant=checks.text,
    created=checks.text,
    author=checks.text,
    config=checks.fields(
        User=checks.text,
        Env=checks.items(checks.text),
        Entrypoint=checks.items(checks.text),
        Cmd=checks.items(checks.text),
        Shell=checks.items(checks.text),
        WorkingDir=checks.text,
        StopSignal=checks.text,
        ExposedPorts=checks.mapping(_anything),
        Volumes=checks.mapping(_anything),
        Labels=checks.mapping(checks.text),
    ),
    rootfs=checks.fields(
        ("type", "diff_ids"), type=checks.one_of("layers"), diff_ids=_at_most(MAX_LAYERS, _digest)
    ),
    history=checks.items(
        checks.fields(
            created=checks.text, created_by=checks.text, author=checks.text, comment=checks.text,
            empty_layer=checks.boolean,
        )
    ),
)  # fmt: skip

check_digest = _raising(_digest, "digest")  # it becomes a path
check_descriptor = _raising(_descriptor, "descriptor")  # a pointer to a blob
check_manifest = _raising(_manifest, "manifest")  # one config, some layers
check_index = _raising(_index, "index")  # manifests, or more indexes
check_config = _raising(_config, "config")  # platform, diffIDs, how to run it, history
