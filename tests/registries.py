"""Registries for the tests: Debian's docker-registry as it is, and servers that misbehave."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from minicontainer.images import descriptor as d
from minicontainer.images.store import Store

USER, PASSWORD = "puller", "pass:wörd"
# bcrypt of PASSWORD, cost 5 (the least work that docker-registry accepts)
HTPASSWD = "puller:$2b$05$abcdefghijklmnopqrstuufCq7KSx/yTY1N2WBDUpQoHYqabOcAn2\n"


def need(program: str, package: str) -> str:
    """The program's path; skips where it is not installed."""
    path = shutil.which(program)
    if not path:
        pytest.skip(f"{program} is not installed: apt install {package}")
    return path


def skopeo(*words: str | Path) -> str:
    """Run skopeo, which must succeed; returns its output."""
    program = need("skopeo", "skopeo")
    done = subprocess.run(
        [program, "--insecure-policy", *map(str, words)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def real_registry(directory: Path, **config: dict) -> Iterator[str]:
    """docker-registry on a free loopback port; yields host:port.

    config  parts of its configuration: auth={…}, http={…}
    """
    program = need("docker-registry", "docker-registry")
    directory.mkdir()
    settings = {
        "version": "0.1",
        "log": {"accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "storage")}},
        **config,
        "http": {"addr": "127.0.0.1:0", **config.get("http", {})},
    }
    (directory / "config.yml").write_text(json.dumps(settings))  # YAML includes JSON
    with (
        open(directory / "log", "w") as log,
        subprocess.Popen(
            [program, "serve", directory / "config.yml"], stdout=log, stderr=log
        ) as process,
    ):
        try:
            yield _address(directory / "log", process)
        finally:
            process.kill()


def _address(log: Path, process: subprocess.Popen) -> str:
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up and process.poll() is None:
        if found := re.search(r"listening on (127\.0\.0\.1:\d+)", log.read_text()):
            return found[1]
        time.sleep(0.02)
    pytest.fail(f"docker-registry does not listen:\n{log.read_text()}")


def certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for localhost that signs itself, and its key."""
    program = need("openssl", "openssl")
    cert, key = directory / "cert.pem", directory / "key.pem"
    subprocess.run(
        [
            program, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert,
            "-days", "2", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def layer(files: dict[str, bytes]) -> bytes:
    """A layer's plain tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def described(data: bytes, media_type: str, **more: Any) -> dict:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data), **more}


class Image:
    """An image made here: `blobs` by digest, `manifest` and its descriptor."""

    def __init__(self, *layers: bytes, architecture: str = "", index_of: tuple = ()) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        if index_of:
            for one in index_of:
                self.blobs |= one.blobs
                self.manifests |= one.manifests
            pointers = [one.descriptor for one in index_of]
            document: dict = {"schemaVersion": 2, "mediaType": d.OCI_INDEX, "manifests": pointers}
            self.platform = None
        else:
            tars = layers or (layer({"etc/hello": b"hello\n"}),)
            self.platform = {**d.host_platform()}
            if architecture:
                self.platform = {"os": "linux", "architecture": architecture}
            config = json.dumps({
                **self.platform,
                "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]},
                "config": {"Cmd": ["/bin/sh"]},
            }).encode()  # fmt: skip
            packed = [gzip.compress(tar, 1, mtime=0) for tar in tars]
            self.blobs = {digest_of(data): data for data in (config, *packed)}
            document = {
                "schemaVersion": 2, "mediaType": d.OCI_MANIFEST,
                "config": described(config, d.OCI_CONFIG),
                "layers": [described(data, d.OCI_LAYER_GZIP) for data in packed],
            }  # fmt: skip
        self.document = document
        self.seal()

    def seal(self) -> None:
        """Make the manifest's bytes and descriptor from `document`, after a change to it."""
        data = json.dumps(self.document).encode()
        self.descriptor = described(data, self.document["mediaType"])
        if self.platform:
            self.descriptor["platform"] = self.platform
        self.digest = self.descriptor["digest"]
        self.manifests[self.digest] = (self.document["mediaType"], data)

    @property
    def layers(self) -> list[dict]:
        return self.document["layers"]

    def put(self, store: Store, name: str) -> None:
        """Into a store, without pulling it."""
        for data in (*self.blobs.values(), *(data for _, data in self.manifests.values())):
            store.add(data)
        store.tag(name, {key: self.descriptor[key] for key in ("mediaType", "digest", "size")})


class FakeRegistry(ThreadingHTTPServer):
    """Serves one image as `app:latest`, until `misbehave` answers a request in its own way.

    misbehave  gets the handler; True when it has answered
    seen       (method, path, headers) of each request
    """

    daemon_threads = True

    def __init__(self, image: Image | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.image = image or Image()
        self.misbehave: Callable[[Any], bool] = lambda handler: False
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.host = f"127.0.0.1:{self.server_port}"
        self.name = f"{self.host}/app"
        self.sessions = 0  # uploads begun
        self.released = threading.Event()  # ends what a handler stalls for

    def count(self, method: str, part: str) -> int:
        return sum(method == m and part in path for m, path, _ in self.seen)

    def __enter__(self) -> FakeRegistry:
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.released.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request, client_address) -> None:
        """A client that goes away is part of the game."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeRegistry

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        server = self.server
        server.seen.append((self.command, self.path, dict(self.headers)))
        if server.misbehave(self):
            return
        image, wanted = server.image, self.path.rpartition("/")[2]
        if "/manifests/" in self.path:
            digest = image.digest if wanted == "latest" else wanted
            if digest not in image.manifests:
                self.answer(404)
                return
            media_type, data = image.manifests[digest]
            self.answer(200, data, {"Content-Type": media_type, "Docker-Content-Digest": digest})
        elif "/blobs/" in self.path and wanted in image.blobs:
            self.serve_range(image.blobs[wanted])
        else:
            self.answer(404)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        server = self.server
        server.seen.append((self.command, self.path, dict(self.headers)))
        if not server.misbehave(self):
            server.sessions += 1
            self.answer(202, headers={"Location": f"/v2/app/blobs/uploads/{server.sessions}"})

    def do_PUT(self) -> None:
        server = self.server
        server.seen.append((self.command, self.path, dict(self.headers)))
        if server.misbehave(self):
            return
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if "/manifests/" in self.path:
            server.image.manifests[digest_of(data)] = (self.headers["Content-Type"], data)
        else:
            server.image.blobs[digest_of(data)] = data
        self.answer(201)

    def serve_range(self, data: bytes) -> None:
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not found:
            self.answer(200, data)
            return
        start = int(found[1])
        span = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.answer(206, data[start:], {"Content-Range": span})

    def cut(self, data: bytes, after: int) -> None:
        """Announce all of it, send some of it, then drop the connection."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:after])
        self.close_connection = True

    def log_message(self, format: str, *args) -> None:
        """Nothing on stderr."""


class TokenServer(FakeRegistry):
    """Signs tokens as docker-registry wants them (distribution/docs/spec/auth/jwt.md)."""

    def __init__(self, cert: Path, key: Path) -> None:
        super().__init__()
        self.misbehave = self.give_token
        self.key = key
        der = "".join(cert.read_text().split("-----")[2].split())
        self.header = {"typ": "JWT", "alg": "RS256", "x5c": [der]}
        self.scopes: list[list[str]] = []

    def give_token(self, handler: _Handler) -> bool:
        from urllib.parse import parse_qs, urlsplit

        query = parse_qs(urlsplit(handler.path).query)
        expected = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        known = handler.headers.get("Authorization") == f"Basic {expected}"
        access = []
        self.scopes.append(query.get("scope", []))
        for scope in query.get("scope", []):
            kind, name, actions = scope.split(":")
            allowed = [one for one in actions.split(",") if known or one == "pull"]
            access.append({"type": kind, "name": name, "actions": allowed})
        now = int(time.time())
        claims = {
            "iss": "tests", "aud": query["service"][0], "sub": USER if known else "",
            "iat": now, "nbf": now - 5, "exp": now + 300, "jti": str(len(self.seen)),
            "access": access,
        }  # fmt: skip
        text = ".".join(_url64(json.dumps(part).encode()) for part in (self.header, claims))
        signed = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", self.key],
            input=text.encode(), capture_output=True, check=True,
        )  # fmt: skip
        handler.answer(200, json.dumps({"token": f"{text}.{_url64(signed.stdout)}"}).encode())
        return True


def _url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
