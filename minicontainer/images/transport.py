"""HTTP for a registry that may be far, busy, broken or hostile.

urllib3 brings the connections: pooled, safe for threads, and without dependencies of its own. What
stands here is policy: where credentials may go, what is tried again, and how long we wait.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from http.client import responses
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError, SSLError

from .. import __version__
from ..runtime.errors import kernel_words
from .auth import Authorizer, Credentials
from .errors import ImageError

CONNECTIONS = 4
ATTEMPTS = 5
LONGEST_PAUSE = 60.0  # seconds; a Retry-After of a year is no reason to sleep for a year
AGAIN = (408, 429, 500, 502, 503, 504)
REDIRECTS = (301, 302, 303, 307, 308)
MOST_REDIRECTS = 5
SMALL = 1 << 20  # bytes: what an answer that is neither manifest nor blob may have
CHUNK = 1 << 17
# Bytes per second below which a transfer is a stall that happens to send something.
SLOWEST = 100


class Broken(Exception):
    """It does not work now, and may work later: a connection that ended or stalled, a busy server.

    Not an ImageError, because the store keeps what it has of a blob for resuming.
    """


class Answer(NamedTuple):
    """A whole response: its status, its headers, its body."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class Transport:
    """Requests to one registry, from several threads.

    host         "registry-1.docker.io", "localhost:5000"
    plain_http   speak plain HTTP, to any host; without it, only to a loopback host without TLS
    timeout      seconds without a byte after which a connection is given up
    """

    def __init__(
        self,
        host: str,
        *,
        credentials: Credentials | None = None,
        scope: str = "",
        plain_http: bool = False,
        timeout: float = 30.0,
    ) -> None:
        self.host = host
        self.timeout = timeout
        plain = plain_http or (is_loopback(host) and not _speaks_tls(host))
        self._base = f"{'http' if plain else 'https'}://{host}"
        self._home = _origin(self._base)
        self._plain_http = plain_http
        self._authorizer = Authorizer(credentials, scope, self._ask_token_server)
        self._pool = urllib3.PoolManager(maxsize=CONNECTIONS, blocksize=CHUNK)
        self._reached = False
        self._stopped = threading.Event()
        self._live: set[urllib3.BaseHTTPResponse] = set()

    def close(self) -> None:
        """End all that is under way, also in other threads, and the connections."""
        self._stopped.set()
        for response in list(self._live):
            with contextlib.suppress(ValueError, RuntimeError, OSError):  # it ended by itself
                response.shutdown()
        self._pool.clear()

    def call(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Callable[[], object] | None = None,
        expect: tuple[int, ...] = (200,),
        limit: int = SMALL,
        attempts: int = ATTEMPTS,
    ) -> Answer:
        """One request and its whole answer of at most `limit` bytes.

        target    a path of this registry, or an address that it gave us
        body      bytes, or what opens them afresh for each attempt
        Raises Broken when all attempts failed, and ImageError when no other attempt can do.
        """

        def attempt() -> Answer:
            return self._whole(self._follow(method, target, headers or {}, body), limit)

        return self._persist(attempt, expect, f"{method} {target}", attempts)

    def open(self, target: str, headers: Mapping[str, str], expect: tuple[int, ...]):
        """GET whose answer the caller reads, with read(), and releases, with release()."""

        def attempt() -> Answer | urllib3.BaseHTTPResponse:
            response = self._follow("GET", target, headers, None)
            return response if response.status in expect else self._whole(response, SMALL)

        return self._persist(attempt, expect, f"GET {target}")

    def read(self, response: urllib3.BaseHTTPResponse, size: int) -> bytes:
        """At most `size` bytes, as they arrive; b"" at the end. Raises Broken."""
        self.check()
        try:
            return response.read1(size) or b""
        except (HTTPError, OSError, ValueError) as error:  # ValueError: closed by close()
            self.check()
            raise Broken(_reason(error)) from error

    def release(self, response: urllib3.BaseHTTPResponse) -> None:
        """The response is done with; what it did not read is not waited for."""
        self._live.discard(response)
        if response.length_remaining == 0:
            response.drain_conn()  # of nothing: then the connection is good for another request
            response.release_conn()
        else:
            response.close()

    def join(self, base: str, url: str) -> str:
        """An address that a server gave, which may be relative. Raises ImageError."""
        try:
            _origin(joined := urljoin(base, url))
        except ValueError as error:
            raise ImageError(f"{self.host}: {_shown(url)}: {error}") from error
        return joined

    def check(self) -> None:
        """Raises Broken after close()."""
        if self._stopped.is_set():
            raise Broken(f"{self.host}: interrupted")

    def pause(self, attempt: int, least: float = 0.0) -> None:
        """Wait before an attempt (1, 2, …): twice as long each time, and not all at once."""
        seconds = max(min(2.0 ** (attempt - 2), 8.0) * random.uniform(0.5, 1.0), least)
        self._stopped.wait(min(seconds, LONGEST_PAUSE))
        self.check()

    def _persist(self, attempt, expect: tuple[int, ...], what: str, attempts: int = ATTEMPTS):
        what = f"{self.host}: {_shown(what)}"
        for number in range(1, attempts + 1):
            least = 0.0
            try:
                answer = attempt()
            except (HTTPError, Broken) as error:
                self.check()
                self._raise_if_final(error)
                reason = _reason(error)
            else:
                self._reached = True
                if answer.status in expect:
                    return answer
                reason = _explained(answer)
                if answer.status not in AGAIN:
                    login = f"--creds user:password, or: skopeo login {self.host}"
                    raise ImageError(f"{what}: {reason}", login if answer.status == 401 else "")
                least = _retry_after(answer)
            if number < attempts:
                self.pause(number, least)
        raise Broken(f"{what}: {reason}" + (f", {attempts} times" if attempts > 1 else ""))

    def _raise_if_final(self, error: Exception) -> None:
        """Some failures stay as they are, however often one tries."""
        cause = error.args[0] if error.args else None
        if isinstance(error, SSLError) and not isinstance(cause, ssl.SSLEOFError):
            hint = "--plain-http, if this registry has no TLS"
            if isinstance(cause, ssl.SSLCertVerificationError):
                hint = "SSL_CERT_FILE=FILE names the certificate of an authority of your own"
            raise ImageError(f"{self.host}: {cause}", hint=hint) from error
        if isinstance(error, NewConnectionError) and not self._reached:
            raise ImageError(f"{self.host}: {_reason(error)}") from error

    def _follow(self, method: str, url: str, headers: Mapping[str, str], body):
        """One request with its redirects and, once, the answer to a challenge."""
        url, challenged, redirects = self.join(self._base, url), False, 0
        while True:
            # Any other host, scheme or port is somebody else, to whom our credentials are unknown.
            at_home = _origin(url) == self._home
            authorization = self._authorizer.header() if at_home else ""
            sent = {**headers, "Authorization": authorization} if authorization else headers
            response = self._send(method, url, sent, body() if callable(body) else body)
            location = response.headers.get("Location")
            if response.status == 401 and at_home and not challenged:
                challenged = True
                self.release(response)
                self._authorizer.answer(authorization, response.headers.getlist("WWW-Authenticate"))
            elif response.status in REDIRECTS and location:
                redirects += 1
                self.release(response)
                # RFC 9110 15.4: only 307 and 308 keep a method other than these.
                if method not in ("GET", "HEAD") and response.status not in (307, 308):
                    raise ImageError(f"{self.host}: {method} {url}: redirected to another method")
                if redirects > MOST_REDIRECTS:
                    raise ImageError(f"{self.host}: redirected more than {MOST_REDIRECTS} times")
                url = self.join(url, location)
            else:
                return response

    def _ask_token_server(self, url: str, headers: dict[str, str]) -> bytes:
        def attempt() -> Answer:
            return self._whole(self._send("GET", url, headers, None), SMALL)

        # Once: the request that needs the token is tried again.
        return self._persist(attempt, (200,), f"token from {url.partition('?')[0]}", 1).data

    def _send(self, method: str, url: str, headers: Mapping[str, str], body):
        """One request, as it is; its answer's body is not read yet."""
        self.check()
        try:
            self._allow(url)
            response = self._pool.request(
                method, url, body=body,
                headers={
                    "User-Agent": f"minicontainer/{__version__}",
                    "Accept-Encoding": "identity",  # digests are of bytes as they are
                    **headers,
                },
                preload_content=False, decode_content=False, redirect=False, retries=False,
                timeout=urllib3.Timeout(connect=self.timeout, read=self.timeout),
            )  # fmt: skip
        except ValueError as error:  # an address or a header that no request can have
            raise ImageError(f"{self.host}: {_shown(url)}: {error}") from error
        self._live.add(response)
        return response

    def _allow(self, url: str) -> None:
        """An address that a server gave us may not lead from TLS to plain HTTP."""
        parts = urlsplit(url)
        plain_is_fine = self._plain_http or (self._home[0] == "http" and is_loopback(parts.netloc))
        if not (parts.scheme == "https" or (parts.scheme == "http" and plain_is_fine)):
            raise ImageError(
                f"{self.host}: refused to talk to {_shown(url)} without TLS",
                hint="--plain-http, where you trust the network",
            )

    def _whole(self, response: urllib3.BaseHTTPResponse, limit: int) -> Answer:
        data, give_up = bytearray(), time.monotonic() + 4 * self.timeout
        try:
            while part := self.read(response, CHUNK):
                data += part
                if len(data) > limit:
                    raise ImageError(f"{self.host}: refused an answer of more than {limit} bytes")
                if time.monotonic() > give_up:
                    raise Broken("an answer that does not end")
            if response.length_remaining:
                raise Broken("the connection ended too early")
        finally:
            self.release(response)
        return Answer(response.status, response.headers, bytes(data))


def is_loopback(host: str) -> bool:
    """Whether `host[:port]` is this machine: "localhost", 127.0.0.0/8, [::1]."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"


def _speaks_tls(host: str) -> bool:
    """Tried only on loopback: a registry there may well have no certificate."""
    parts = urlsplit(f"//{host}")
    context = ssl.create_default_context()
    # Only the question whether; the connection that is used checks the certificate.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((parts.hostname, parts.port or 443), timeout=1) as tcp,
            context.wrap_socket(tcp, server_hostname=parts.hostname),
        ):
            return True
    except OSError:
        return False


def _origin(url: str) -> tuple[str, str, int]:
    """RFC 6454: scheme, host and port. Raises ValueError."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return parts.scheme, parts.hostname or "", port


def _reason(error: Exception) -> str:
    """urllib3 repeats addresses and object names; the innermost error says what happened."""
    inner: BaseException = error
    while cause := inner.__cause__ or inner.__context__:
        inner = cause
    if isinstance(inner, TimeoutError):
        return "no answer in time"
    if isinstance(inner, OSError) and inner.errno and inner.errno > 0 and inner.strerror:
        return kernel_words(inner.errno)
    return str(inner) or type(inner).__name__


def _explained(answer: Answer) -> str:
    """The registry's own words (distribution spec, "Error Codes"), fit for a terminal."""
    words = ""
    try:
        first = json.loads(answer.data)["errors"][0]
        words = f": {first['code']}: {first.get('message', '')}"
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    return _shown(f"status {answer.status} {responses.get(answer.status, '')}{words}")


def _shown(text: str) -> str:
    """A server's words or address, fit for a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text[:300])


def _retry_after(answer: Answer) -> float:
    value = answer.headers.get("Retry-After")
    try:
        return urllib3.Retry().parse_retry_after(value) if value else 0.0
    except (HTTPError, ValueError, OverflowError):
        return 0.0
