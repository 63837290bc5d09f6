"""Who we are to a registry: credentials from where docker and podman keep them, and the answer to
`WWW-Authenticate` (RFC 9110 11; the token protocol is distribution/docs/spec/auth/token.md).

Credentials go to the registry that they belong to, and to the token server that it names; the
transport never forwards them.
"""

from __future__ import annotations

import base64
import json
import os
import re
import threading
import time
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlencode

from .errors import ImageError
from .reference import DOCKER_HUB, Reference

# token.md: "If omitted, this defaults to 60 seconds."
_TOKEN_SECONDS = 60.0


class Credentials(NamedTuple):
    """A user's name and password."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials({self.user!r}, …)"  # a password has no place in a traceback

    def header(self) -> str:
        """The value of Authorization (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def given(text: str) -> Credentials:
    """`user:password`, as on a command line."""
    user, colon, password = text.partition(":")
    if not (user and colon):
        raise ImageError("credentials are given as user:password")
    return Credentials(user, password)


def stored(name: Reference) -> Credentials | None:
    """What `docker login`, `podman login` or `skopeo login` kept for this image's registry."""
    parts = f"{name.registry}/{name.repository}".split("/")
    for file in _files():
        auths = _read(file)
        # containers-auth.json(5): the longest key that is a prefix of the name, in whole parts
        for count in range(len(parts), 0, -1):
            entry = auths.get("/".join(parts[:count])) or {}
            if entry.get("auth") and not entry.get("identitytoken"):
                return _decode(entry["auth"], file)
    return None


def _files() -> list[str]:
    env = os.environ.get
    if chosen := env("REGISTRY_AUTH_FILE"):
        return [chosen]
    # root without a session: containers/image, pkg/docker/config
    runtime = env("XDG_RUNTIME_DIR") or f"/run/containers/{os.geteuid()}"
    inner = "containers/auth.json" if env("XDG_RUNTIME_DIR") else "auth.json"
    config = env("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    docker = env("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    return [f"{runtime}/{inner}", f"{config}/containers/auth.json", f"{docker}/config.json"]


def _read(file: str) -> dict[str, dict]:
    """Its `auths`; docker writes some keys as addresses: "https://index.docker.io/v1/"."""
    try:
        with open(file, encoding="utf-8") as stream:
            auths = json.load(stream).get("auths", {})
        plain = {re.sub(r"^https?://|/(v[12]/?)?$", "", key): dict(auths[key]) for key in auths}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ImageError(f"credentials in {file}: {error}") from error
    hub = plain.get("index.docker.io")
    return {DOCKER_HUB: hub, **plain} if hub else plain


def _decode(auth: str, file: str) -> Credentials:
    try:
        return given(base64.b64decode(auth, validate=True).decode().rstrip("\0"))
    except (ValueError, TypeError, ImageError) as error:
        raise ImageError(
            f"credentials in {file}: an `auth` is no base64 of user:password"
        ) from error


_CHALLENGE_PART = re.compile(
    r"""[\s,]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+)))?"""
)


def challenges(headers: list[str]) -> dict[str, dict[str, str]]:
    """Parse WWW-Authenticate headers: scheme in lower case -> its parameters.

    One header may hold several challenges, each with parameters; a word that has no value begins
    the next one (RFC 9110 11.6.1).
    """
    found: dict[str, dict[str, str]] = {}
    for header in headers:
        parameters: dict[str, str] = {}
        for part in _CHALLENGE_PART.finditer(header):
            name, quoted, plain = part.groups()
            if quoted is None and plain is None:
                parameters = found.setdefault(name.lower(), {})
            else:
                parameters.setdefault(name.lower(), plain or re.sub(r"\\(.)", r"\1", quoted))
    return found


class Authorizer:
    """The Authorization header for one registry, shared by the threads that talk to it.

    scope   what the token shall allow: "repository:library/busybox:pull"
    fetch   (url, headers) -> the token server's answer
    """

    def __init__(
        self, credentials: Credentials | None, scope: str,
        fetch: Callable[[str, dict[str, str]], bytes],
    ) -> None:  # fmt: skip
        self._credentials, self._scope, self._fetch = credentials, scope, fetch
        self._lock = threading.Lock()
        self._header = ""
        self._token_server: dict[str, str] | None = None
        self._renew_at = 0.0

    def header(self) -> str:
        """The header's value; "" before a registry has asked for one."""
        with self._lock:
            if self._token_server and time.monotonic() >= self._renew_at:
                self._renew()
            return self._header

    def answer(self, refused: str, headers: list[str]) -> None:
        """A request with the header `refused` was answered 401: have a better one, if we can."""
        with self._lock:
            if self._header != refused:
                return  # another thread has it already
            offered = challenges(headers)
            if "bearer" in offered:
                self._token_server = offered["bearer"]
                self._renew()
            elif "basic" in offered and self._credentials:
                self._header = self._credentials.header()

    def _renew(self) -> None:
        assert self._token_server is not None
        realm, service = self._token_server.get("realm", ""), self._token_server.get("service")
        scopes = dict.fromkeys([self._scope, *self._token_server.get("scope", "").split()])
        query = [("service", service)] if service else []
        query += [("scope", scope) for scope in scopes]
        headers = {"Authorization": self._credentials.header()} if self._credentials else {}
        try:
            url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
            answer = json.loads(self._fetch(url, headers))
            token = answer.get("token") or answer["access_token"]
            seconds = float(answer.get("expires_in") or _TOKEN_SECONDS)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ImageError("the registry's token server sent no token") from error
        if not (isinstance(token, str) and re.fullmatch(r"[\x21-\x7e]+", token)):
            raise ImageError("the registry's token server sent a token that no header can hold")
        self._header = f"Bearer {token}"
        self._renew_at = time.monotonic() + 0.8 * seconds
