"""Pull and push: against Debian's docker-registry with skopeo on the other side, and against
servers that break, lie and spy.
"""

from __future__ import annotations

import base64
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.images import auth
from minicontainer.images import descriptor as d
from minicontainer.images.auth import Credentials
from minicontainer.images.errors import ImageError
from minicontainer.images.reference import parse
from minicontainer.images.registry import pull, push
from minicontainer.images.store import Store
from minicontainer.images.transport import _origin
from tests.registries import (
    HTPASSWD,
    PASSWORD,
    USER,
    FakeRegistry,
    Image,
    TokenServer,
    certificate,
    digest_of,
    layer,
    need,
    real_registry,
    skopeo,
)

REPOSITORY = Path(__file__).resolve().parent.parent
CREDS = Credentials(USER, PASSWORD)


@pytest.fixture(autouse=True)
def no_credentials_of_this_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Points all places where credentials are kept into an empty directory."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(home))
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "MINICONTAINER_CREDS"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture(scope="module")
def open_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Host and port of a docker-registry that asks for nothing."""
    with real_registry(tmp_path_factory.mktemp("registry") / "open") as host:
        yield host


@pytest.fixture(scope="module")
def locked_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Host and port of a docker-registry that asks for a password."""
    directory = tmp_path_factory.mktemp("registry")
    (directory / "htpasswd").write_text(HTPASSWD)
    basic = {"htpasswd": {"realm": "tests", "path": str(directory / "htpasswd")}}
    with real_registry(directory / "locked", auth=basic) as host:
        yield host


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with FakeRegistry() as server:
        yield server


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other at once: for tests that are not about the pause."""
    monkeypatch.setattr("minicontainer.images.transport.LONGEST_PAUSE", 0.05)


def noise(size: int, seed: int = 0) -> bytes:
    """A layer that gzip cannot make smaller."""
    return layer({"noise": random.Random(seed).randbytes(size)})


def assert_whole(store: Store, name: str, image: Image) -> None:
    """The store has the image, by name and to the last byte, and is consistent."""
    assert store.resolve(name)["digest"] == image.digest
    for digest, data in image.blobs.items():
        assert Path(store.path(digest)).read_bytes() == data
    assert store.fsck() == []
    assert os.listdir(f"{store.root}/ingest") == []


# --- docker-registry and skopeo -------------------------------------------------------------------


@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_what_skopeo_pushed_is_pulled(
    open_registry: str, store: Store, tmp_path: Path, form: str
) -> None:
    source = Store(str(tmp_path / "source"))
    image = Image(noise(100_000), noise(10), layer({"a": b"1"}))
    image.put(source, "image")
    name = f"{open_registry}/pulled/{form}:v1"
    skopeo("copy", "--format", form, "--dest-tls-verify=false", f"oci:{source.root}:image",
           f"docker://{name}")  # fmt: skip
    found = pull(store, name)
    inspected = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{name}"))
    assert found["digest"] == inspected["Digest"]
    assert [one["digest"] for one in store.image(name).layers] == inspected["Layers"]
    assert found["mediaType"] == (d.OCI_MANIFEST if form == "oci" else d.DOCKER_MANIFEST)
    assert store.fsck() == []
    if form == "oci":
        assert_whole(store, name, image)


def test_what_we_push_is_pulled_by_skopeo(open_registry: str, store: Store, tmp_path: Path) -> None:
    image = Image(noise(3_000_000), layer({"a": b"1"}), layer({"a": b"1"}))  # one layer, twice
    image.put(store, "mine")
    name = f"{open_registry}/pushed/one:v1"
    reports: dict[str, str] = {}

    def progress(digest: str, done: int, size: int, note: str) -> None:
        reports[digest] = note

    assert push(store, "mine", name, progress)["digest"] == image.digest
    assert reports == dict.fromkeys(image.blobs, "pushed")
    skopeo("copy", "--src-tls-verify=false", f"docker://{name}", f"oci:{tmp_path}/copy:image")
    copied = Store(str(tmp_path / "copy"))
    assert copied.resolve("image")["digest"] == image.digest
    for digest, data in image.blobs.items():
        assert Path(copied.path(digest)).read_bytes() == data
    # Again: nothing is sent.
    push(store, "mine", name, progress)
    assert reports == dict.fromkeys(image.blobs, "already there")


def test_one_of_several_platforms(open_registry: str, store: Store, tmp_path: Path) -> None:
    source = Store(str(tmp_path / "source"))
    images = [Image(noise(1000, n), architecture=arch) for n, arch in enumerate(("arm64", "amd64"))]
    index = Image(index_of=tuple(images))
    index.put(source, "all")
    name = f"{open_registry}/platforms/skopeo:v1"
    skopeo("copy", "--all", "--dest-tls-verify=false", f"oci:{source.root}:all", f"docker://{name}")
    for image in images:
        assert pull(store, name, image.platform)["digest"] == image.digest
        assert store.image(name).config["architecture"] == image.platform["architecture"]
    with pytest.raises(ImageError, match=r"no image for linux/s390x; there is: linux/amd64, linux"):
        pull(store, name, {"os": "linux", "architecture": "s390x"})
    assert store.resolve(name)["digest"] == images[-1].digest, "a failed pull moved the name"
    # All of it from us, to be taken by skopeo.
    again = f"{open_registry}/platforms/ours:v1"
    push(source, "all", again)
    raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{again}")
    assert digest_of(raw.encode()) == index.digest
    skopeo("copy", "--all", "--src-tls-verify=false", f"docker://{again}", f"oci:{tmp_path}/c:all")
    copied = Store(str(tmp_path / "c"))
    assert copied.resolve("all")["digest"] == index.digest
    assert all(copied.has(digest) for digest in (*index.blobs, *index.manifests))


def test_an_image_for_another_platform_only(open_registry: str, store: Store) -> None:
    Image(noise(10), architecture="mips").put(store, "mips")
    push(store, "mips", f"{open_registry}/mips")
    with pytest.raises(ImageError, match="is for linux/mips only"):
        pull(store, f"{open_registry}/mips", {"os": "linux", "architecture": "amd64"})


def test_by_digest(open_registry: str, store: Store, tmp_path: Path) -> None:
    images = [Image(noise(100, n)) for n in range(2)]
    for image in images:
        image.put(store, "mine")
        push(store, "mine", f"{open_registry}/digest")
    other = Store(str(tmp_path / "other"))
    name = f"{open_registry}/digest:latest@{images[0].digest}"
    pull(other, name)  # the tag has moved since; the digest counts
    assert other.resolve(name)["digest"] == images[0].digest
    with pytest.raises(ImageError, match="the image to push is"):
        push(store, "mine", f"{open_registry}/digest@{images[0].digest}")
    push(store, "mine", f"{open_registry}/digest@{images[1].digest}")


def test_what_is_not_there(open_registry: str, store: Store) -> None:
    with pytest.raises(ImageError, match=f"no such image in the registry: {open_registry}/none:v1"):
        pull(store, f"{open_registry}/none:v1")
    with pytest.raises(ImageError, match="no such image"):
        push(store, "none")
    with pytest.raises(ImageError, match="connection refused"):
        pull(store, "127.0.0.1:1/none")
    began = time.monotonic()
    with pytest.raises(ImageError, match=r"(?i)name|resol"):
        pull(store, "nowhere.invalid/none")
    assert time.monotonic() - began < 20
    assert store.names() == {}


# --- passwords, tokens, TLS -----------------------------------------------------------------------


def test_a_password(locked_registry: str, store: Store, tmp_path: Path) -> None:
    image = Image(noise(1000))
    image.put(store, "mine")
    name = f"{locked_registry}/secret:v1"
    with pytest.raises(ImageError, match=r"status 401 Unauthorized\n  fix: --creds"):
        push(store, "mine", name)
    with pytest.raises(ImageError, match="status 401"):
        push(store, "mine", name, creds=Credentials(USER, "guess"))
    push(store, "mine", name, creds=CREDS)
    inspected = skopeo("inspect", "--tls-verify=false", f"--creds={USER}:{PASSWORD}",
                       f"docker://{name}")  # fmt: skip
    assert json.loads(inspected)["Digest"] == image.digest
    pull(other := Store(str(tmp_path / "other")), name, creds=CREDS)
    assert_whole(other, name, image)


def test_skopeo_logs_in_and_we_are(
    locked_registry: str, store: Store, no_credentials_of_this_host: Path
) -> None:
    skopeo("login", "--tls-verify=false", "-u", USER, "-p", PASSWORD, locked_registry)
    assert (no_credentials_of_this_host / "containers/auth.json").exists()
    Image().put(store, "mine")
    push(store, "mine", f"{locked_registry}/login:v1")
    skopeo("logout", locked_registry)
    with pytest.raises(ImageError, match="status 401 Unauthorized: UNAUTHORIZED: "):
        pull(store, f"{locked_registry}/login:v1")


def test_tokens(store: Store, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    with TokenServer(cert, key) as tokens:
        settings = {
            "realm": f"http://{tokens.host}/token", "service": "tests", "issuer": "tests",
            "rootcertbundle": str(cert),
        }  # fmt: skip
        with real_registry(tmp_path / "registry", auth={"token": settings}) as host:
            image = Image(*(noise(10_000, n) for n in range(6)))
            image.put(store, "mine")
            with pytest.raises(ImageError, match="status 401 Unauthorized"):
                push(store, "mine", f"{host}/app")
            push(store, "mine", f"{host}/app", creds=CREDS)
            seen = len(tokens.seen)
            pull(other := Store(str(tmp_path / "other")), f"{host}/app")
            assert_whole(other, f"{host}/app:latest", image)
            assert len(tokens.seen) == seen + 1, "one token is enough for all blobs"
            assert tokens.scopes[-1] == ["repository:app:pull"]
            assert "Authorization" not in tokens.seen[-1][2]


def test_tls(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, key = certificate(tmp_path)
    http = {"tls": {"certificate": str(cert), "key": str(key)}}
    Image().put(store, "mine")
    with real_registry(tmp_path / "tls", http=http) as host:
        with pytest.raises(ImageError, match=r"(?s)certificate verify failed.*SSL_CERT_FILE"):
            push(store, "mine", f"{host}/app")
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        push(store, "mine", f"localhost:{host.partition(':')[2]}/app")
        skopeo("inspect", "--tls-verify=false", f"docker://{host}/app")
        with pytest.raises(ImageError, match=r"not valid for '127\.0\.0\.1'"):
            pull(store, f"{host}/app")


# --- servers that break ---------------------------------------------------------------------------


def ranges(fake: FakeRegistry, digest: str) -> list[str]:
    """The Range of each request for a blob, "" for those without."""
    return [headers.get("Range", "") for _, path, headers in fake.seen if digest in path]


@pytest.mark.usefixtures("impatient")
def test_a_dropped_connection_is_resumed(fake: FakeRegistry, store: Store) -> None:
    fake.image = Image(noise(300_000))
    blob = fake.image.layers[0]
    cuts = [100_000, 0, 50_000]

    def misbehave(handler) -> bool:
        if blob["digest"] not in handler.path or not cuts:
            return False
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        data = fake.image.blobs[blob["digest"]]
        after = cuts.pop(0)
        if start:
            handler.send_response(206)
            span = f"bytes {start}-{len(data) - 1}/{len(data)}"
            handler.send_header("Content-Range", span)
            handler.send_header("Content-Length", str(len(data) - start))
            handler.end_headers()
            handler.wfile.write(data[start : start + after])
            handler.close_connection = True
        else:
            handler.cut(data, after)
        return True

    fake.misbehave = misbehave
    pull(store, fake.name)
    assert_whole(store, f"{fake.name}:latest", fake.image)
    expected = ["", "bytes=100000-", "bytes=100000-", "bytes=150000-"]
    assert ranges(fake, blob["digest"]) == expected


@pytest.mark.usefixtures("impatient")
def test_a_server_without_ranges_starts_again(fake: FakeRegistry, store: Store) -> None:
    fake.image = Image(noise(300_000))
    blob = fake.image.layers[0]
    cuts = [100_000]

    def misbehave(handler) -> bool:
        if blob["digest"] not in handler.path:
            return False
        data = fake.image.blobs[blob["digest"]]
        handler.cut(data, cuts.pop()) if cuts else handler.answer(200, data)
        return True

    fake.misbehave = misbehave
    pull(store, fake.name)
    assert_whole(store, f"{fake.name}:latest", fake.image)


@pytest.mark.usefixtures("impatient")
def test_what_a_broken_pull_got_is_kept(fake: FakeRegistry, store: Store) -> None:
    fake.image = Image(noise(300_000), noise(50_000, 1))
    blob = fake.image.layers[0]
    data = fake.image.blobs[blob["digest"]]

    def misbehave(handler) -> bool:
        if blob["digest"] not in handler.path:
            return False
        if "Range" in handler.headers:
            handler.close_connection = True
        else:
            handler.cut(data, 100_000)
        return True

    fake.misbehave = misbehave
    with pytest.raises(ImageError, match=r"\n  fix: try again: what has arrived is kept"):
        pull(store, fake.name)
    assert store.names() == {}
    assert store.partial(blob["digest"])[1] == 100_000
    fake.misbehave = lambda handler: False
    fake.seen.clear()
    pull(store, fake.name)
    assert_whole(store, f"{fake.name}:latest", fake.image)
    assert ranges(fake, blob["digest"]) == ["bytes=100000-"]


def test_a_damaged_part_is_fetched_again(fake: FakeRegistry, store: Store) -> None:
    fake.image = Image(noise(300_000))
    blob = fake.image.layers[0]
    store.make()
    Path(store.partial(blob["digest"])[0]).write_bytes(bytes(200_000))  # after a power cut
    pull(store, fake.name)
    assert_whole(store, f"{fake.name}:latest", fake.image)
    assert ranges(fake, blob["digest"]) == ["bytes=200000-", ""]


@pytest.mark.parametrize("where", ["manifests", "blobs"])
@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again(
    fake: FakeRegistry, store: Store, where: str, status: int
) -> None:
    times: list[float] = []

    def misbehave(handler) -> bool:
        if where not in handler.path or len(times) == 2:
            return False
        times.append(time.monotonic())
        handler.answer(status, headers={"Retry-After": "1"})
        return True

    fake.misbehave = misbehave
    pull(store, fake.name)
    assert_whole(store, f"{fake.name}:latest", fake.image)
    assert where == "blobs" or times[1] - times[0] >= 1, "it did not wait for as long as was asked"


@pytest.mark.usefixtures("impatient")
def test_a_server_that_is_always_busy(fake: FakeRegistry, store: Store) -> None:
    fake.misbehave = lambda handler: handler.answer(500) or True
    with pytest.raises(
        ImageError, match=r"manifests/latest: status 500 Internal Server Error, 5 times"
    ):
        pull(store, fake.name)
    assert len(fake.seen) == 5


@pytest.mark.usefixtures("impatient")
def test_retry_after_a_year(fake: FakeRegistry, store: Store) -> None:
    busy = ["31536000", "Fri, 01 Jan 2100 00:00:00 GMT", "9" * 5000, "soon"]

    def misbehave(handler) -> bool:
        if busy:
            handler.answer(429, headers={"Retry-After": busy.pop()})
            return True
        return False

    fake.misbehave = misbehave
    pull(store, fake.name)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("where", ["manifests", "blobs"])
@pytest.mark.parametrize("drip", [False, True])
def test_a_stall_ends(fake: FakeRegistry, store: Store, where: str, drip: bool) -> None:
    fake.image = Image(noise(300_000))

    def misbehave(handler) -> bool:
        if f"/{where}/" not in handler.path:
            return False
        handler.send_response(200)
        if where == "manifests":
            handler.send_header("Content-Type", d.OCI_MANIFEST)
            handler.send_header("Content-Length", "1000")
        handler.end_headers()
        while not fake.released.wait(0.1):
            if drip:
                handler.wfile.write(b" ")
        return True

    fake.misbehave = misbehave
    began = time.monotonic()
    with pytest.raises(ImageError, match=r"no answer in time|only \d+ bytes in|does not end"):
        pull(store, fake.name, timeout=0.3)
    assert time.monotonic() - began < 30


# --- servers that lie -----------------------------------------------------------------------------


def refused(fake: FakeRegistry, store: Store, match: str) -> None:
    """Pulling fails with this message, soon, and leaves nothing."""
    began = time.monotonic()
    with pytest.raises(ImageError, match=match):
        pull(store, fake.name)
    assert time.monotonic() - began < 5, "a lie is no reason to try again"
    assert store.names() == {}
    assert store.fsck() == []
    assert os.listdir(f"{store.root}/ingest") == []


def serve_blob(fake: FakeRegistry, answer) -> str:
    """Let `answer(handler, data)` serve the layer; returns its digest."""
    digest = fake.image.layers[0]["digest"]

    def misbehave(handler) -> bool:
        if digest not in handler.path:
            return False
        answer(handler, fake.image.blobs[digest])
        return True

    fake.misbehave = misbehave
    return digest


def test_wrong_content(fake: FakeRegistry, store: Store) -> None:
    digest = serve_blob(fake, lambda handler, data: handler.answer(200, data[:-1] + b"x"))
    refused(fake, store, f"{digest}: the content has another digest")


@pytest.mark.parametrize("change", [-1, 1, 10**15])
def test_a_wrong_length_is_refused_before_the_content(
    fake: FakeRegistry, store: Store, change: int
) -> None:
    def answer(handler, data: bytes) -> None:
        handler.answer(200, data, {"Content-Length": str(len(data) + change)})
        handler.close_connection = True

    serve_blob(fake, answer)
    refused(fake, store, r"bytes by the manifest, the registry sends others: Content-Length '\d+'")
    assert fake.count("GET", "/blobs/") == 2


def test_endless_content_without_a_length(fake: FakeRegistry, store: Store) -> None:
    def answer(handler, data: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for part in (data, *[bytes(1000)] * 1000):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))

    serve_blob(fake, answer)
    refused(fake, store, r"more than the manifest's \d+ bytes")


def test_another_range_than_was_asked(fake: FakeRegistry, store: Store) -> None:
    digest = fake.image.layers[0]["digest"]
    data = fake.image.blobs[digest]
    store.make()
    path = store.partial(digest)[0]

    def answer(handler, data: bytes) -> None:
        handler.answer(206, data[5:], {"Content-Range": f"bytes 5-{len(data) - 1}/{len(data)}"})

    serve_blob(fake, answer)
    Path(path).write_bytes(data[:10])
    with pytest.raises(ImageError, match="status 206"):
        pull(store, fake.name)
    assert store.names() == {}


def serve_manifest(fake: FakeRegistry, body: bytes, media_type: str = d.OCI_MANIFEST, **headers):
    def misbehave(handler) -> bool:
        if "/manifests/" not in handler.path:
            return False
        handler.answer(200, body, {"Content-Type": media_type, **headers})
        return True

    fake.misbehave = misbehave


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (b" " * (5 << 20), "an answer of more than 4194304 bytes"),
        (b"[" * 100_000, "nested more than|not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"{}", "schemaVersion|config"),
        (b"[]", "manifest|object|sha256"),
        (b'{"schemaVersion":2,"config":{},"layers":7}', "config|layers"),
    ],
)
def test_hostile_manifests(fake: FakeRegistry, store: Store, body: bytes, match: str) -> None:
    serve_manifest(fake, body)
    refused(fake, store, match)


def test_a_manifest_with_another_digest(fake: FakeRegistry, store: Store) -> None:
    _, body = fake.image.manifests[fake.image.digest]
    serve_manifest(fake, body, **{"Docker-Content-Digest": "sha256:" + "0" * 64})
    refused(fake, store, "has another digest")
    serve_manifest(fake, body, **{"Docker-Content-Digest": "sha256:../../../etc"})
    refused(fake, store, "digest: not sha256:|digest")


def test_old_and_unknown_media_types(fake: FakeRegistry, store: Store) -> None:
    _, body = fake.image.manifests[fake.image.digest]
    old = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    for media_type in (old, "text/html", d.OCI_INDEX, ""):
        serve_manifest(fake, body, media_type)
        refused(fake, store, "media type|index|manifest")


def test_an_index_that_names_itself(fake: FakeRegistry, store: Store) -> None:
    """Only a false digest can close the loop; the index is then not what its own entry says."""
    loop = Image(index_of=(fake.image,))
    loop.document["manifests"][0] |= {
        "mediaType": d.OCI_INDEX, "digest": "sha256:" + "1" * 64, "size": 100,
    }  # fmt: skip
    loop.seal()
    serve_manifest(fake, loop.manifests[loop.digest][1], d.OCI_INDEX)
    refused(fake, store, "its index says otherwise")
    loop.document["manifests"][0]["size"] = len(loop.manifests[loop.digest][1])
    loop.seal()
    serve_manifest(fake, loop.manifests[loop.digest][1], d.OCI_INDEX)
    refused(fake, store, "has another digest")


def test_indexes_in_indexes(fake: FakeRegistry, store: Store) -> None:
    chain = [fake.image]
    for _ in range(d.MAX_NESTING + 1):
        chain.append(Image(index_of=(chain[-1],)))
        chain[-1].descriptor["platform"] = d.host_platform()
    fake.image = chain[-3]
    pull(store, fake.name)
    assert store.image(f"{fake.name}:latest").descriptor["digest"] == chain[0].digest
    fake.image = chain[-1]
    with pytest.raises(ImageError, match="more than 4 indexes in one another"):
        pull(store, fake.name)


def test_what_no_disk_holds_is_refused_before(fake: FakeRegistry, store: Store) -> None:
    fake.image.layers[0]["size"] = 2**60
    fake.image.seal()
    refused(fake, store, "the image needs 1099511627776 MiB more, the disk has")
    assert fake.count("GET", fake.image.layers[0]["digest"]) == 0


def test_a_huge_config_is_refused_before(fake: FakeRegistry, store: Store) -> None:
    fake.image.document["config"]["size"] = 5 << 20
    fake.image.seal()
    refused(fake, store, "a config of 5242880 bytes is refused")


def test_an_unknown_layer_is_refused_before_any_is_fetched(
    fake: FakeRegistry, store: Store
) -> None:
    fake.image.layers[0]["mediaType"] = "application/x-unknown"
    fake.image.seal()
    refused(fake, store, "layer 1: unknown media type")
    assert fake.count("GET", fake.image.layers[0]["digest"]) == 0


def test_a_hostile_message_does_not_reach_the_terminal(fake: FakeRegistry, store: Store) -> None:
    words = json.dumps({"errors": [{"code": "DENIED", "message": "\x1b[2J" + "x" * 10_000}]})
    fake.misbehave = lambda handler: handler.answer(403, words.encode()) or True
    with pytest.raises(ImageError, match="status 403 Forbidden: DENIED: ") as caught:
        pull(store, fake.name)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 500


# --- who may see a password -----------------------------------------------------------------------


def ask_password(handler) -> bool:
    """Basic authentication, as a server of its own."""
    if handler.headers.get("Authorization") == CREDS.header():
        return False
    handler.answer(401, headers={"WWW-Authenticate": 'Basic realm="tests"'})
    return True


def test_a_redirect_takes_no_credentials_along(fake: FakeRegistry, store: Store) -> None:
    with FakeRegistry(fake.image) as elsewhere:

        def misbehave(handler) -> bool:
            if ask_password(handler):
                return True
            if "/blobs/" in handler.path:
                to = f"http://{elsewhere.host}{handler.path}"
                handler.answer(307, headers={"Location": to})
                return True
            return False

        fake.misbehave = misbehave
        pull(store, fake.name, creds=CREDS)
        assert_whole(store, f"{fake.name}:latest", fake.image)
        assert elsewhere.count("GET", "/blobs/") == 2
        for _, _, headers in elsewhere.seen:
            assert "Authorization" not in headers
        assert any("Authorization" in headers for _, _, headers in fake.seen)


def test_nobody_else_may_ask_for_the_password(fake: FakeRegistry, store: Store) -> None:
    """CVE-2020-15157: whom a redirect leads to must not be answered with credentials."""
    with FakeRegistry(fake.image) as elsewhere:
        elsewhere.misbehave = ask_password
        fake.misbehave = lambda handler: (
            ask_password(handler)
            or (
                "/blobs/" in handler.path
                and (
                    handler.answer(302, headers={"Location": f"http://{elsewhere.host}/x"}) or True
                )
            )
        )
        with pytest.raises(ImageError, match="status 401"):
            pull(store, fake.name, creds=CREDS)
        assert elsewhere.seen
        assert all("Authorization" not in headers for _, _, headers in elsewhere.seen)


def test_an_upload_elsewhere_takes_no_credentials_along(fake: FakeRegistry, store: Store) -> None:
    fake.image.put(store, "mine")
    with FakeRegistry(fake.image) as elsewhere:
        fake.misbehave = lambda handler: (
            ask_password(handler)
            or (
                handler.command == "POST"
                and (
                    handler.answer(202, headers={"Location": f"http://{elsewhere.host}/up"}) or True
                )
            )
        )
        fake.image = Image(noise(3))  # so that it has nothing of what is pushed
        push(store, "mine", fake.name, creds=CREDS)
        assert elsewhere.count("PUT", "/up?digest=sha256") == 2
        assert all("Authorization" not in headers for _, _, headers in elsewhere.seen)


def test_redirects_without_end(fake: FakeRegistry, store: Store) -> None:
    fake.misbehave = lambda handler: handler.answer(302, headers={"Location": "/v2/x"}) or True
    with pytest.raises(ImageError, match="redirected more than 5 times"):
        pull(store, fake.name)
    assert len(fake.seen) == 6


@pytest.mark.parametrize(
    "location",
    ["http://registry.invalid/x", "file:///etc/passwd", "ftp://localhost/x", "http://[/x"],
)
def test_redirects_that_are_not_followed(fake: FakeRegistry, store: Store, location: str) -> None:
    fake.misbehave = lambda handler: handler.answer(302, headers={"Location": location}) or True
    with pytest.raises(ImageError, match=r"refused to talk to .* without TLS|Invalid IPv6"):
        pull(store, fake.name)
    assert len(fake.seen) == 1


def test_tls_does_not_lead_to_plain_http(
    fake: FakeRegistry, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ssl

    cert, key = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    with FakeRegistry(fake.image) as safe:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        safe.socket = context.wrap_socket(safe.socket, server_side=True)
        name = f"localhost:{safe.server_port}/app"
        pull(store, name)
        challenge = f'Bearer realm="http://{fake.host}/token"'
        for answer in (
            (302, {"Location": f"http://{fake.host}/v2/app/manifests/latest"}),
            (401, {"WWW-Authenticate": challenge}),
        ):
            safe.misbehave = lambda handler, answer=answer: (
                handler.answer(answer[0], headers=answer[1]) or True
            )
            with pytest.raises(ImageError, match=r"refused to talk to .* without TLS"):
                pull(store, name, creds=CREDS)
    assert fake.seen == []


def test_plain_http_is_for_loopback_or_by_flag(store: Store, monkeypatch) -> None:
    hosts = []

    def connect(address, *args, **kwargs):
        hosts.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr("urllib3.util.connection.create_connection", connect)
    for plain_http in (False, True):
        with pytest.raises(ImageError):
            pull(store, "registry.invalid/app", plain_http=plain_http)
    assert hosts == [("registry.invalid", 443), ("registry.invalid", 80)]


def test_a_token_is_renewed(fake: FakeRegistry, store: Store) -> None:
    """The registry no longer accepts the first token when the blobs' turn has come."""
    tokens: list[str] = []

    def misbehave(handler) -> bool:
        if handler.path.startswith("/token"):
            tokens.append(f"token-{len(tokens)}")
            answer = {"access_token": tokens[-1], "expires_in": 300}
            handler.answer(200, json.dumps(answer).encode())
            return True
        token = handler.headers.get("Authorization", "").removeprefix("Bearer ")
        if token == "token-1" or (token == "token-0" and "/manifests/" in handler.path):
            return False
        realm = f'Bearer realm="http://{fake.host}/token",service="a,b",scope="repository:x:pull"'
        handler.answer(401, headers={"WWW-Authenticate": realm})
        return True

    fake.image = Image(*(noise(10, n) for n in range(8)))
    fake.misbehave = misbehave
    pull(store, fake.name)
    assert_whole(store, f"{fake.name}:latest", fake.image)
    asked = [path for _, path, _ in fake.seen if path.startswith("/token")]
    scopes = "scope=repository%3Aapp%3Apull&scope=repository%3Ax%3Apull"
    assert asked == [f"/token?service=a%2Cb&{scopes}"] * 2, "one renewal is for all threads"


def test_a_token_that_expires_is_renewed_before(fake: FakeRegistry, store: Store) -> None:
    tokens = []

    def misbehave(handler) -> bool:
        if handler.path.startswith("/token"):
            tokens.append(f"token-{len(tokens)}")
            handler.answer(200, json.dumps({"token": tokens[-1], "expires_in": 0.0001}).encode())
            return True
        if handler.headers.get("Authorization") == f"Bearer {tokens[-1] if tokens else None}":
            return False
        handler.answer(401, headers={"WWW-Authenticate": f"Bearer realm=http://{fake.host}/token"})
        return True

    fake.misbehave = misbehave
    pull(store, fake.name)
    # One 401 in all: each request had a token that was new.
    assert fake.count("GET", "/manifests/latest") == 2
    assert len(fake.seen) - len(tokens) == 4


@pytest.mark.parametrize(
    "answer",
    [b'{"token":"good"}', b"{}", b"[]", b"\xff", b'{"token":7}', b'{"token":"a\\r\\nX: y"}'],
)
def test_a_token_loop_ends(fake: FakeRegistry, store: Store, answer: bytes) -> None:
    def misbehave(handler) -> bool:
        if handler.path.startswith("/token"):
            handler.answer(200, answer)
        else:
            realm = f'Bearer realm="http://{fake.host}/token"'
            handler.answer(401, headers={"WWW-Authenticate": realm})
        return True

    fake.misbehave = misbehave
    with pytest.raises(ImageError, match=r"status 401|token server sent"):
        pull(store, fake.name)
    assert len(fake.seen) <= 3


# --- uploads that break ---------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
def test_an_upload_that_broke_off_begins_again(fake: FakeRegistry, store: Store) -> None:
    image = Image(noise(1_000_000))
    image.put(store, "mine")
    blob = image.layers[0]["digest"]
    broken: list[str] = []

    def misbehave(handler) -> bool:
        if handler.command != "PUT" or blob not in handler.path.replace("%3A", ":") or broken:
            return False
        broken.append(handler.path)
        handler.rfile.read(1000)
        handler.close_connection = True
        return True

    fake.misbehave = misbehave
    push(store, "mine", fake.name)
    assert fake.image.blobs[blob] == image.blobs[blob]
    assert fake.image.manifests[image.digest][0] == d.OCI_MANIFEST
    assert fake.sessions == 3, "a broken session was used again"
    order = [path for method, path, _ in fake.seen if method == "PUT"]
    assert "/manifests/" in order[-1]
    assert not any("/manifests/" in path for path in order[:-1])


@pytest.mark.usefixtures("impatient")
def test_an_upload_that_nobody_reads(fake: FakeRegistry, store: Store) -> None:
    Image(noise(8_000_000)).put(store, "mine")

    def misbehave(handler) -> bool:
        if handler.command == "PUT":
            fake.released.wait()
        return handler.command == "PUT"

    fake.misbehave = misbehave
    began = time.monotonic()
    with pytest.raises(ImageError, match="no answer in time"):
        push(store, "mine", fake.name, timeout=0.3)
    assert time.monotonic() - began < 20
    assert not any("/manifests/" in path for method, path, _ in fake.seen if method == "PUT")


@pytest.mark.parametrize("location", ["http://[/x", "", "http://host:port/"])
def test_a_broken_address_to_upload_to(fake: FakeRegistry, store: Store, location: str) -> None:
    Image(noise(5)).put(store, "mine")

    def misbehave(handler) -> bool:
        if handler.command == "PUT" and "/uploads/" in handler.path:
            handler.answer(404)
            return True
        if handler.command == "POST":
            handler.answer(202, headers={"Location": location})
        return handler.command == "POST"

    fake.misbehave = misbehave
    with pytest.raises(ImageError, match=r"Invalid IPv6|Port could not|status 404"):
        push(store, "mine", fake.name)


def test_an_address_with_the_usual_port_is_home() -> None:
    assert _origin("https://Host/a") == _origin("https://host:443/b") != _origin("http://host/")


def test_a_registry_that_changes_the_manifest(fake: FakeRegistry, store: Store) -> None:
    Image(noise(5)).put(store, "mine")
    other = "sha256:" + "0" * 64
    fake.misbehave = lambda handler: (
        handler.command == "PUT"
        and "/manifests/" in handler.path
        and (handler.answer(201, headers={"Docker-Content-Digest": other}) or True)
    )
    with pytest.raises(ImageError, match=f"the registry made '{other}' of the manifest"):
        push(store, "mine", fake.name)


# --- several at once, and an end in the middle ----------------------------------------------------

PULL = """
import sys
from minicontainer.images.reference import parse
from minicontainer.images.registry import pull
from minicontainer.images.store import Store
from minicontainer.images.transport import _origin
pull(Store(sys.argv[1]), sys.argv[2])
"""


def start_pull(store: Store, name: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", PULL, store.root, name], cwd=REPOSITORY, stderr=subprocess.PIPE
    )


def slowly(fake: FakeRegistry) -> None:
    """Serve layers in pieces, with a pause after each."""

    def misbehave(handler) -> bool:
        digest = handler.path.rpartition("/")[2]
        if digest not in {one["digest"] for one in fake.image.layers}:
            return False
        data = fake.image.blobs[digest]
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        handler.send_response(206 if start else 200)
        span = f"bytes {start}-{len(data) - 1}/{len(data)}"
        handler.send_header("Content-Range", span)
        handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        for at in range(start, len(data), 50_000):
            handler.wfile.write(data[at : at + 50_000])
            fake.released.wait(0.02)
        return True

    fake.misbehave = misbehave


def arrived(store: Store, image: Image) -> int:
    """Bytes of the layers that are in the store, whole or not."""
    return sum(
        os.path.getsize(store.path(one["digest"]))
        if os.path.exists(store.path(one["digest"]))
        else store.partial(one["digest"])[1]
        for one in image.layers
    )


def test_kill_9_in_the_middle(fake: FakeRegistry, store: Store) -> None:
    fake.image = Image(noise(1_000_000), noise(800_000, 1))
    slowly(fake)
    have = 0
    for _ in range(3):
        with start_pull(store, fake.name) as process:
            give_up = time.monotonic() + 20
            while arrived(store, fake.image) < have + 200_000 and time.monotonic() < give_up:
                time.sleep(0.005)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        have, before = arrived(store, fake.image), have
        assert have >= before + 200_000, "it did not go on from where it was"
        assert store.names() == {}
        assert store.fsck() == []
    fake.seen.clear()
    pull(store, fake.name)
    assert_whole(store, f"{fake.name}:latest", fake.image)
    assert any("Range" in headers for _, _, headers in fake.seen)


def test_two_pulls_of_the_same_image(fake: FakeRegistry, store: Store) -> None:
    fake.image = Image(noise(500_000), noise(400_000, 1), noise(300_000, 2))
    slowly(fake)
    with start_pull(store, fake.name) as one, start_pull(store, fake.name) as other:
        errors = [process.communicate()[1] for process in (one, other)]
    assert errors == [b"", b""]
    assert_whole(store, f"{fake.name}:latest", fake.image)
    for blob in fake.image.layers:
        assert fake.count("GET", blob["digest"]) == 1, "fetched twice"


FULL = """
import os, sys
from minicontainer.images import registry
from minicontainer.images.errors import ImageError
from minicontainer.images.store import Store
root, name = sys.argv[1:]
store = Store(root)
registry._check_space = lambda store, blobs: None  # another process fills the disk meanwhile
try:
    registry.pull(store, name)
except ImageError as error:
    print(error)
assert store.names() == {} and store.fsck() == []
os.unlink(f"{root}/ballast")
registry.pull(store, name)
assert list(store.names()) == [f"{name}:latest"] and store.fsck() == []
assert os.listdir(f"{root}/ingest") == []
"""


def test_a_disk_that_becomes_full(fake: FakeRegistry, store: Store) -> None:
    fake.image = Image(noise(1_000_000), noise(1_000_000, 1))
    os.mkdir(store.root)
    shell = (
        'mount -t tmpfs -o size=4m none "$1" && '
        'dd if=/dev/zero of="$1/ballast" bs=1M count=3 2>&1 && exec "$3" -c "$4" "$1" "$2"'
    )
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces here: minicontainer doctor says why")
    done = subprocess.run(
        [*unshare, "sh", "-ec", shell, "sh", store.root, fake.name, sys.executable, FULL],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{fake.name}:latest: no space left on device"


def test_pulls_in_threads(fake: FakeRegistry, store: Store) -> None:
    fake.image = Image(*(noise(50_000, n) for n in range(5)))
    errors: list[Exception] = []

    def work() -> None:
        try:
            pull(Store(store.root), fake.name)
        except ImageError as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert_whole(store, f"{fake.name}:latest", fake.image)


def test_ctrl_c_ends_at_once_and_keeps_what_came(fake: FakeRegistry, store: Store) -> None:
    fake.image = Image(noise(300_000), noise(300_000, 1))

    def misbehave(handler) -> bool:
        digest = handler.path.rpartition("/")[2]
        if digest not in {one["digest"] for one in fake.image.layers}:
            return False
        data = fake.image.blobs[digest]
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:100_000])
        handler.wfile.flush()
        fake.released.wait()
        return True

    fake.misbehave = misbehave
    with start_pull(store, fake.name) as process:
        give_up = time.monotonic() + 20
        while arrived(store, fake.image) < 200_000 and time.monotonic() < give_up:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        error = process.communicate()[1]
    assert time.monotonic() - began < 5, "it waited for the server"
    assert process.returncode == -signal.SIGINT
    assert b"KeyboardInterrupt" in error
    assert arrived(store, fake.image) == 200_000
    assert os.listdir(f"{store.root}/leases") == []


def test_the_first_failure_ends_the_other_layers(fake: FakeRegistry, store: Store) -> None:
    fake.image = Image(noise(300_000), noise(300_000, 1))
    good, bad = (one["digest"] for one in fake.image.layers)

    def misbehave(handler) -> bool:
        if good in handler.path:
            handler.cut(fake.image.blobs[good], 100_000)
            handler.wfile.flush()
            fake.released.wait()
        elif bad in handler.path:
            handler.answer(403)
        return good in handler.path or bad in handler.path

    fake.misbehave = misbehave
    began = time.monotonic()
    with pytest.raises(ImageError, match=f"{bad}: status 403"):
        pull(store, fake.name)
    assert time.monotonic() - began < 5


# --- where credentials are kept -------------------------------------------------------------------


def encoded(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_credentials_of_docker_and_podman(
    no_credentials_of_this_host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = no_credentials_of_this_host

    def stored(name: str) -> str | None:
        found = auth.stored(parse(name))
        return found and found.user

    assert stored("busybox") is None
    (home / ".docker").mkdir()
    (home / ".docker/config.json").write_text(json.dumps({"auths": {
        "https://index.docker.io/v1/": encoded("hub", "x"),
        "https://old.example": encoded("old", "x"),
        "quay.example": encoded("docker", "x"),
        "empty.example": {},
        "token.example": {**encoded("<token>", ""), "identitytoken": "refresh"},
    }}))  # fmt: skip
    assert stored("busybox") == stored("docker.io/user/app") == "hub"
    assert stored("old.example/app") == "old"
    assert stored("empty.example/app") is None
    assert stored("quay.example.evil/app") is None
    assert stored("token.example/app") is None, "an identity token is no password"
    (home / "containers").mkdir()
    (home / "containers/auth.json").write_text(json.dumps({"auths": {
        "quay.example": encoded("podman", "x"),
        "quay.example/team": encoded("team", "x"),
        "quay.example/team/app": encoded("app", "x"),
    }}))  # fmt: skip
    assert stored("quay.example/other") == stored("quay.example/teamwork/app") == "podman"
    assert stored("quay.example/team/other") == "team"
    assert stored("quay.example/team/app:v1") == "app"
    file = home / "mine.json"
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(file))
    assert stored("quay.example/team/app") is None
    for wrong in ("{", "[]", '{"auths": 7}', '{"auths": {"quay.example": {"auth": "%%"}}}',
                  '{"auths": {"quay.example": {"auth": "Zm9v"}}}'):  # fmt: skip
        file.write_text(wrong)
        with pytest.raises(ImageError, match=f"credentials in {file}: "):
            stored("quay.example/app")


def test_a_password_is_not_shown() -> None:
    assert PASSWORD not in repr(CREDS)
    assert auth.given("user:with:colons") == Credentials("user", "with:colons")
    for wrong in ("user", ":password", ""):
        with pytest.raises(ImageError, match="user:password"):
            auth.given(wrong)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (['Bearer realm="https://a/t",service="s",scope="repository:a/b:pull,push"'],
         {"bearer": {"realm": "https://a/t", "service": "s", "scope": "repository:a/b:pull,push"}}),
        (['Basic realm="x"', "Bearer realm=https://a/t , service=s"],
         {"basic": {"realm": "x"}, "bearer": {"realm": "https://a/t", "service": "s"}}),
        (['Basic realm="a \\"b\\", c", charset="UTF-8", Negotiate, BEARER Realm="r"'],
         {"basic": {"realm": 'a "b", c', "charset": "UTF-8"}, "negotiate": {},
          "bearer": {"realm": "r"}}),
        (['Bearer realm=""'], {"bearer": {"realm": ""}}),
        ([], {}), ([""], {}), (["="], {}), (['"'], {}),
    ],
)  # fmt: skip
def test_challenges(headers: list[str], expected: dict) -> None:
    assert auth.challenges(headers) == expected


@given(st.lists(st.text('aB ,="\\/', max_size=60)))
def test_any_challenge_is_read(headers: list[str]) -> None:
    assert isinstance(auth.challenges(headers), dict)


# --- the command line -----------------------------------------------------------------------------

COMMAND = """
import sys
sys.path.insert(0, sys.argv[1])
from minicontainer import cli, registry_cli
cli.COMMANDS.update(registry_cli.COMMANDS)
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs the command as its launcher does; returns what became of it."""
    monkeypatch.setenv("MINICONTAINER_DATA", str(tmp_path / "data"))

    def run(*words: str, terminal: bool = False) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-I", "-S", "-c", COMMAND, str(REPOSITORY), *words]
        if terminal:
            argv = ["script", "-qec", f"stty rows 24 cols 100; {shlex.join(argv)}", "/dev/null"]
        return subprocess.run(argv, capture_output=True, text=True)

    return run


def test_the_words_of_the_command(
    open_registry: str, locked_registry: str, command, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image(noise(100_000))
    image.put(Store(), "mine")
    name = f"{open_registry}/cli:v1"
    pushed = command("push", "mine", name)
    assert pushed.stdout == f"{name}@{image.digest}\n"
    assert len(pushed.stderr.splitlines()) == 2
    assert f"{image.layers[0]['digest'][7:19]}  {image.layers[0]['size']:>12} bytes  pushed\n" in (
        pushed.stderr
    )
    quiet = command("pull", "-q", name)
    assert (quiet.stdout, quiet.stderr) == (f"{name}@{image.digest}\n", "")
    assert Store().resolve(name)["digest"] == image.digest

    locked = f"{locked_registry}/cli:v1"
    refused = command("push", "mine", locked)
    assert refused.returncode == 125
    assert refused.stderr.startswith(
        f"minicontainer: {locked_registry}: HEAD /v2/cli/blobs/sha256:"
    )
    assert "\n  fix: --creds user:password, or: skopeo login" in refused.stderr
    assert command("push", "-q", "--creds", f"{USER}:{PASSWORD}", "mine", locked).returncode == 0
    monkeypatch.setenv("MINICONTAINER_CREDS", f"{USER}:{PASSWORD}")
    assert command("pull", "-q", locked).stdout == f"{locked}@{image.digest}\n"


def test_bars_on_a_terminal(open_registry: str, command) -> None:
    need("script", "bsdutils")
    image = Image(noise(3_000_000))
    image.put(Store(), "mine")
    shown = command("push", "mine", f"{open_registry}/bars", terminal=True).stdout
    *_, config, blob, result = re.sub(r"\x1b\[\dF", "", shown).splitlines()
    if image.layers[0]["digest"][7:19] in config:
        config, blob = blob, config
    assert blob == f"{image.layers[0]['digest'][7:19]} [{'=' * 20}]       3.0/3.0 MB  pushed\x1b[K"
    assert config.endswith("0.0/0.0 MB  pushed\x1b[K")
    assert result == f"{open_registry}/bars:latest@{image.digest}"
    assert re.search(r"\x1b\[\dF", shown), "drawn only once"


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["pull"], "pull takes one NAME"),
        (["pull", "a", "b"], "pull takes one NAME"),
        (["push"], "push takes a NAME"),
        (["pull", "--platform", "arm", "a"], "as in linux/arm64"),
        (["pull", "--creds", "me", "a"], "user:password"),
        (["pull", "A"], "lower-case"),
        (["pull", "--plain", "a"], "did you mean --plain-http"),
    ],
)
def test_wrong_words(command, words: list[str], match: str) -> None:
    done = command(*words)
    assert done.returncode == 125
    assert match in done.stderr
    assert "Traceback" not in done.stderr


def test_help(command) -> None:
    for word in ("pull", "push"):
        done = command(word, "--help")
        assert done.returncode == 0
        assert done.stdout.startswith(f"usage: minicontainer {word} [OPTIONS] NAME")
        assert max(map(len, done.stdout.splitlines())) <= 100
