"""Who we are to a registry: credentials from where docker and podman keep them, and the answer to
`WWW-Authenticate` (RFC 9110 11; the token protocol is distribution/docs/spec/auth/token.md).

Credentials go to the registry that they belong to, and to the token server that it names; the
transport never forwards them.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple
from urllib.parse import urlencode

from .errors import ImageError
from .reference import DOCKER_HUB, Reference

# What a credential helper, and docker's files, give as the user of an OAuth2 refresh token.
_TOKEN_USER = "<token>"
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
    path = f"{name.registry}/{name.repository}"
    # containers-auth.json(5): the longest key that is a prefix of the name, in whole parts.
    keys = [path]
    while "/" in path:
        path = path.rpartition("/")[0]
        keys.append(path)
    for file in _files():
        config = _read(file)
        auths = {_normal(key): entry for key, entry in config.get("auths", {}).items()}
        for key in keys:
            if found := _decode(auths.get(key, {}), file):
                return found
        helper = config.get("credHelpers", {}).get(name.registry) or config.get("credsStore")
        if helper and (found := _ask_helper(helper, name.registry)):
            return found
    return None


def _files() -> Iterator[str]:
    env = os.environ.get
    if "REGISTRY_AUTH_FILE" in os.environ:
        yield os.environ["REGISTRY_AUTH_FILE"]
        return
    if runtime := env("XDG_RUNTIME_DIR"):
        yield os.path.join(runtime, "containers/auth.json")
    else:  # root without a session: containers/image, pkg/docker/config
        yield f"/run/containers/{os.geteuid()}/auth.json"
    yield os.path.join(
        env("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"), "containers/auth.json"
    )
    yield os.path.join(env("DOCKER_CONFIG") or os.path.expanduser("~/.docker"), "config.json")


def _read(file: str) -> dict:
    try:
        with open(file, encoding="utf-8") as stream:
            config = json.load(stream)
        if isinstance(config, dict) and isinstance(config.get("auths", {}), dict):
            return config
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ImageError(f"credentials in {file}: {error}") from error
    raise ImageError(f"credentials in {file}: not as containers-auth.json(5) says")


def _normal(key: str) -> str:
    """docker writes some keys as addresses: "https://index.docker.io/v1/"."""
    key = re.sub(r"^https?://|/(v[12]/?)?$", "", key)
    return DOCKER_HUB if key in ("index.docker.io", "registry-1.docker.io") else key


def _decode(entry: dict, file: str) -> Credentials | None:
    if entry.get("identitytoken"):
        return Credentials(_TOKEN_USER, entry["identitytoken"])
    if not entry.get("auth"):
        return None
    try:
        return given(base64.b64decode(entry["auth"], validate=True).decode().rstrip("\0"))
    except (binascii.Error, UnicodeDecodeError, ImageError) as error:
        raise ImageError(
            f"credentials in {file}: an `auth` is no base64 of user:password"
        ) from error


def _ask_helper(helper: str, registry: str) -> Credentials | None:
    """The protocol of docker-credential-helpers: the registry on stdin, JSON on stdout."""
    command = [f"docker-credential-{helper}", "get"]
    server = "https://index.docker.io/v1/" if registry == DOCKER_HUB else registry
    try:
        done = subprocess.run(command, check=False, input=server, capture_output=True, text=True)
        if done.returncode:
            return None  # it has none for this registry
        answer = json.loads(done.stdout)
        return Credentials(answer["Username"], answer["Secret"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ImageError(f"{command[0]}, which docker's config.json names: {error}") from error


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

    scopes  what the token shall allow: "repository:library/busybox:pull"
    fetch   (method, url, headers, body) -> the token server's answer
    """

    def __init__(
        self,
        credentials: Credentials | None,
        scopes: list[str],
        fetch: Callable[[str, str, dict[str, str], bytes | None], bytes],
    ) -> None:
        self._credentials = credentials
        self._scopes = scopes
        self._fetch = fetch
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
        scopes = dict.fromkeys([*self._scopes, *self._token_server.get("scope", "").split()])
        query = [("service", service)] if service else []
        headers, body = {}, None
        if self._credentials and self._credentials.user == _TOKEN_USER:
            # distribution/docs/spec/auth/oauth.md
            query += [("grant_type", "refresh_token"), ("client_id", "minicontainer")]
            query += [("refresh_token", self._credentials.password), ("scope", " ".join(scopes))]
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            method, url, body = "POST", realm, urlencode(query).encode()
        else:
            query += [("scope", scope) for scope in scopes]
            method, url = "GET", f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
            if self._credentials:
                headers["Authorization"] = self._credentials.header()
        try:
            answer = json.loads(self._fetch(method, url, headers, body))
            token = answer.get("token") or answer["access_token"]
            seconds = float(answer.get("expires_in") or _TOKEN_SECONDS)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ImageError("the registry's token server sent no token") from error
        if not (isinstance(token, str) and re.fullmatch(r"[\x21-\x7e]+", token)):
            raise ImageError("the registry's token server sent a token that no header can hold")
        self._header = f"Bearer {token}"
        self._renew_at = time.monotonic() + 0.8 * seconds
