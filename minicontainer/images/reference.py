"""The name of an image: `[registry[:port]/]repository[:tag][@digest]`, by docker's rules.

The grammar is that of distribution/reference, which docker, podman and the registries share; what
it leaves out is added as docker does: `busybox` is `docker.io/library/busybox:latest`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .errors import ImageError

DOCKER_HUB = "docker.io"

# distribution/reference, regexp.go. fullmatch() everywhere: `$` would let a final newline pass.
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?")
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}")
_LONGEST_NAME = 255  # bytes of registry and path, reference.go: RepositoryNameTotalLengthMax


class Reference(NamedTuple):
    """An image's name in full; str() gives the form that names it in the store.

    registry    "docker.io", "localhost:5000", "[::1]:5000"
    repository  "library/busybox"
    tag         "latest", or "" where a digest alone was given
    digest      "sha256:…", or ""
    """

    registry: str
    repository: str
    tag: str
    digest: str

    def __str__(self) -> str:
        tag, digest = self.tag and f":{self.tag}", self.digest and f"@{self.digest}"
        return f"{self.registry}/{self.repository}{tag}{digest}"

    @property
    def host(self) -> str:
        """Where the registry's API answers: Docker Hub's is not the host of its name."""
        return "registry-1.docker.io" if self.registry == DOCKER_HUB else self.registry

    @property
    def wanted(self) -> str:
        """What a registry is asked for: the digest, which cannot be moved, before the tag."""
        return self.digest or self.tag


def parse(text: str) -> Reference:
    """Read a name as people type it; ImageError says what is wrong with it."""
    name, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise _refused(text, "after @ comes sha256: and 64 hexadecimal digits")
    name, tag = _split_tag(name)
    if tag is not None and not _TAG.fullmatch(tag):
        raise _refused(text, "a tag is at most 128 letters, digits, _ . and -")
    if re.fullmatch("[a-f0-9]{64}", text):
        raise _refused(text, "64 hexadecimal digits alone are an image's id, not a name")
    registry, repository = _split_registry(name)
    port = int(registry[registry.rindex(":") + 1 :]) if re.search(r":[0-9]+$", registry) else 443
    if not _DOMAIN.fullmatch(registry) or not 0 < port < 65536:
        raise _refused(text, f"{_shown(registry)} is not a host with an optional :port")
    if not _PATH.fullmatch(repository):
        lower = repository.lower()
        hint = f": {lower}?" if lower != repository and _PATH.fullmatch(lower) else ""
        raise _refused(text, f"a repository has lower-case letters and digits, / . _ and -{hint}")
    if len(registry) + 1 + len(repository) > _LONGEST_NAME:
        raise _refused(text, f"a name has at most {_LONGEST_NAME} characters")
    if tag is None:
        tag = "" if digest else "latest"
    return Reference(registry, repository, tag, digest)


def _split_tag(name: str) -> tuple[str, str | None]:
    """The tag begins at a colon after the last slash: one before it is a registry's port."""
    colon = name.rfind(":")
    if colon <= name.rfind("/"):
        return name, None
    return name[:colon], name[colon + 1 :]


def _split_registry(name: str) -> tuple[str, str]:
    """docker's rule: the first part is a registry if it could not be a user's name on the Hub."""
    first, slash, rest = name.partition("/")
    host_like = set(first) & set(".:") or first == "localhost" or first.lower() != first
    registry, repository = (first, rest) if slash and host_like else (DOCKER_HUB, name)
    if registry in (DOCKER_HUB, "index.docker.io"):
        registry = DOCKER_HUB
        if "/" not in repository:
            repository = f"library/{repository}"
    return registry, repository


def _refused(text: str, why: str) -> ImageError:
    return ImageError(f"image name {_shown(text)}: {why}")


def _shown(text: str) -> str:
    """Hostile input is shown short and without control characters."""
    return ascii(text if len(text) <= 80 else f"{text[:80]}…")
