"""The store: names, leases, garbage; kill -9, a full disk, and many processes at once."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minicontainer.images import descriptor as d
from minicontainer.images import layers
from minicontainer.images.archive import load, save
from minicontainer.images.errors import ImageError
from minicontainer.images.store import Store
from minicontainer.runtime import jsonfile
from tests.image_layers import add_image, config_of, digest, entry, tar
from tests.roots import REPOSITORY

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: sudo ./workshop test")
LAYER = tar(entry("f", b"x"))
DATA = os.urandom(3 << 20)
ENV = {**os.environ, "PYTHONPATH": str(REPOSITORY)}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


class Breaking:
    """A stream that ends with an error after some bytes, as a connection does."""

    def __init__(self, data: bytes, after: int) -> None:
        self.file = io.BytesIO(data[:after])

    def read(self, size: int) -> bytes:
        part = self.file.read(min(size, 100_000))
        if not part:
            raise ConnectionResetError(104, "reset")
        return part


# --- blobs ----------------------------------------------------------------------------------------


def test_nothing_is_made_by_looking(store: Store) -> None:
    assert (store.names(), store.fsck(), store.gc()["blobs"]) == ({}, [], 0)
    with pytest.raises(ImageError, match="no such image: x"):
        store.image("x")
    assert not os.path.exists(store.root)


def test_a_blob_is_what_it_was(store: Store) -> None:
    found = store.add(io.BytesIO(DATA), digest(DATA), len(DATA), d.OCI_LAYER)
    assert found == {"mediaType": d.OCI_LAYER, "digest": digest(DATA), "size": len(DATA)}
    assert Path(store.path(digest(DATA))).read_bytes() == DATA
    assert store.add(DATA)["digest"] == digest(DATA)
    with pytest.raises(ImageError, match="sha256: and 64 hexadecimal digits is expected"):
        store.add(DATA, f"sha512:{hashlib.sha512(DATA).hexdigest()}")
    assert store.fsck() == []
    assert stat_mode(store.root) == 0o700, "images have setuid files: nobody else looks in"
    assert os.listdir(f"{store.root}/ingest") == []


def stat_mode(path: str) -> int:
    return os.stat(path).st_mode & 0o777


def test_a_download_that_broke_off_is_resumed(store: Store) -> None:
    with store.lease():
        with pytest.raises(ConnectionResetError):
            store.add(Breaking(DATA, 1_234_567), digest(DATA), len(DATA))
        path, offset = store.partial(digest(DATA))
        assert offset == 1_234_567
        rest = io.BytesIO(DATA[offset:2_000_000])
        with pytest.raises(EOFError, match=f"ended after 2000000 of {len(DATA)} bytes"):
            store.add(rest, digest(DATA), len(DATA), offset=offset)
        store.gc()
        assert store.partial(digest(DATA)) == (path, 2_000_000), "it is leased"
        rest = io.BytesIO(DATA[1_999_999:])  # from before the end: the rest is written again
        store.add(rest, digest(DATA), len(DATA), offset=1_999_999)
    assert Path(store.path(digest(DATA))).read_bytes() == DATA
    assert store.partial(digest(DATA))[1] == 0
    assert store.gc()["blobs"] == 1, "no name has it"


@pytest.mark.parametrize(("data", "size", "words"), [
    (DATA[:-1] + bytes([DATA[-1] ^ 1]), len(DATA), "another digest"),
    (DATA + b"?", len(DATA), "more than the"),
    (DATA[:-1], None, "another digest"),
])  # fmt: skip
def test_what_lies_is_not_kept(store: Store, data: bytes, size, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        store.add(io.BytesIO(data), digest(DATA), size)
    assert not store.has(digest(DATA))
    assert store.partial(digest(DATA))[1] == 0


def test_a_resumed_lie_is_not_kept(store: Store) -> None:
    with pytest.raises(ConnectionResetError):
        store.add(Breaking(b"?" * 200_000, 200_000), digest(DATA), len(DATA))
    with pytest.raises(ImageError, match="another digest"):
        store.add(io.BytesIO(DATA[200_000:]), digest(DATA), len(DATA), offset=200_000)
    assert store.partial(digest(DATA))[1] == 0
    with pytest.raises(ImageError, match="what was there to resume is gone"):
        store.add(io.BytesIO(b""), digest(DATA), len(DATA), offset=5)


# --- names ----------------------------------------------------------------------------------------


def test_names_move_and_go(store: Store) -> None:
    one = add_image(store, "docker.io/library/one:latest", [LAYER])
    two = add_image(store, "quay.io/a/two:1", [LAYER], Env=["A=B"])
    assert list(store.names()) == ["docker.io/library/one:latest", "quay.io/a/two:1"]
    for name in ("one", "one:latest", "docker.io/library/one", one.config_digest,
                 one.descriptor["digest"][7:20], one.config_digest[7:11]):  # fmt: skip
        assert store.image(name).descriptor["digest"] == one.descriptor["digest"], name
    with pytest.raises(ImageError, match="no such image: two"):
        store.image("two")
    store.tag("docker.io/library/one:latest", two.descriptor)
    assert store.image("one").config["config"] == {"Env": ["A=B"]}
    store.untag("quay.io/a/two:1")
    with pytest.raises(ImageError, match="no such image"):
        store.untag("quay.io/a/two:1")
    for name in ("", "a b", "a\n", "x" * 600):
        with pytest.raises(ImageError, match="cannot be an image's name"):
            store.tag(name, two.descriptor)
    removed = store.gc()
    assert removed["blobs"] == 2, "one's config and manifest; the layer is two's as well"
    assert store.fsck() == []


def test_a_beginning_of_a_digest_that_two_images_have(store: Store) -> None:
    seen: dict[str, list[str]] = {}
    for n in itertools.count():  # some hundreds, until two configs begin with the same four digits
        variable = [f"N={n}"]
        beginning = digest(config_of([digest(LAYER)], Env=variable))[7:11]
        if beginning in seen:
            break
        seen[beginning] = variable
    add_image(store, "a", [LAYER], Env=seen[beginning])
    found = add_image(store, "b", [LAYER], Env=variable)
    with pytest.raises(ImageError, match="2 images begin so"):
        store.resolve(beginning)
    assert store.resolve(found.config_digest) == store.resolve("b")
    with pytest.raises(ImageError, match="no such image"):
        store.resolve(found.config_digest[7:10])  # too few to be meant as a digest


def test_an_index_offers_the_image_of_this_machine(store: Store) -> None:
    image = add_image(store, "a", [LAYER])
    here = d.host_platform()
    with store.lease():
        other = {**image.descriptor, "digest": "sha256:" + "0" * 64,
                 "platform": {"os": "linux", "architecture": "mips"}}  # fmt: skip
        attestation = {**other, "platform": {"os": "unknown", "architecture": "unknown"}}
        index = {"schemaVersion": 2, "manifests": [
            attestation, other, {**image.descriptor, "platform": here}]}  # fmt: skip
        pointer = store.add(jsonfile.dumps(index).encode(), media_type=d.OCI_INDEX)
        store.tag("many", pointer)
    store.untag("a")
    store.gc()
    assert store.image("many").descriptor["digest"] == image.descriptor["digest"]
    with pytest.raises(ImageError, match=r"no image for linux/s390x; there is: .*linux/mips"):
        store.image("many", {"os": "linux", "architecture": "s390x"})
    with pytest.raises(ImageError, match="is not in the store"):
        store.image("many", {"os": "linux", "architecture": "mips"})
    assert store.fsck() == [], "platforms that were not fetched are no damage"


@pytest.mark.parametrize(("offered", "wanted", "fits"), [
    ("arm/v6", "arm/v7", True), ("arm/v7", "arm/v6", False), ("arm64/v8", "arm64", True),
    ("arm64", "arm64/v8", True), ("amd64", "arm64", False), ("amd64/v3", "amd64/v2", False),
])  # fmt: skip
def test_variants_of_processors(offered: str, wanted: str, fits: bool) -> None:
    def platform(words: str) -> dict:
        architecture, _, variant = words.partition("/")
        return {"os": "linux", "architecture": architecture, "variant": variant}

    assert d.platform_matches(platform(offered), platform(wanted)) == fits


# --- garbage --------------------------------------------------------------------------------------


@needs_root
def test_pins_keep_an_image_that_has_no_name_any_more(store: Store) -> None:
    image = add_image(store, "a", [LAYER])
    paths = layers.unpacked(store, image)
    store.pin("container1", image.descriptor["digest"])
    store.untag("a")
    assert store.gc() == {"blobs": 0, "layers": 0, "bytes": 0}
    assert os.path.isdir(paths[0])
    store.unpin("container1")
    store.unpin("container1")
    removed = store.gc()
    assert (removed["blobs"], removed["layers"]) == (3, 1)
    assert os.listdir(f"{store.root}/layers") == []
    for owner in ("", "a/b", "../x"):
        with pytest.raises(ImageError, match="cannot own"):
            store.pin(owner, image.descriptor["digest"])


def test_leases_count_while_their_process_lives(store: Store) -> None:
    code = (
        "import sys; from minicontainer.images.store import Store\n"
        "s = Store(sys.argv[1])\n"
        "with s.lease():\n"
        "    print(s.add(b'leased')['digest'], flush=True)\n"
        "    sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, store.root], env=ENV, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout
    assert holder.stdin
    leased = holder.stdout.readline().strip()
    assert store.gc()["blobs"] == 0
    assert store.has(leased)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    holder.stdin.close()
    assert store.gc()["blobs"] == 1
    assert os.listdir(f"{store.root}/leases") == []


def test_gc_beside_what_takes_no_lock(store: Store) -> None:
    """A blob gets its name, a pin goes, between gc's look into a directory and its look at it."""
    image = add_image(store, "a", [LAYER])
    code = (
        "import sys, os; from minicontainer.images.store import Store\n"
        "s = Store(sys.argv[1])\n"
        "while os.getppid() == int(sys.argv[3]):\n"
        "    s.pin('box', sys.argv[2]); s.unpin('box')\n"
        "    with s.lease(): s.add(os.urandom(10))"
    )
    words = [sys.executable, "-c", code, store.root, image.descriptor["digest"], str(os.getpid())]
    others = [subprocess.Popen(words, env=ENV, stderr=subprocess.PIPE) for _ in range(2)]
    try:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            store.gc()
    finally:
        for other in others:
            other.kill()
            _, errors = other.communicate()
    assert (other.returncode, errors) == (-9, b"")
    assert store.fsck() == []
    assert store.image("a").descriptor == image.descriptor


def test_gc_refuses_to_guess_when_a_document_is_damaged(store: Store) -> None:
    image = add_image(store, "a", [LAYER])
    Path(store.path(image.descriptor["digest"])).write_bytes(b"{" * image.descriptor["size"])
    with pytest.raises(ImageError, match="not JSON"):
        store.gc()
    assert store.has(image.layers[0]["digest"])
    assert any("image a: " in line for line in store.fsck())
    store.untag("a")
    store.gc()
    assert store.fsck() == []


@needs_root
def test_what_other_processes_left_is_swept(store: Store) -> None:
    add_image(store, "a", [LAYER])
    layers.unpacked(store, store.image("a"))
    for name in ("ingest/new-1-ff", "ingest/sha256-" + "1" * 64, "leases/process-1-ff"):
        Path(store.root, name).write_text("left")
    for name in ("layers/new-" + "2" * 64, "layers/old-" + "3" * 64):
        (Path(store.root, name) / "deep/er").mkdir(parents=True)
    store.gc()
    for name in ("ingest", "leases"):
        assert os.listdir(f"{store.root}/{name}") == []
    assert len(os.listdir(f"{store.root}/layers")) == 1


# --- kill -9, a full disk, many at once -----------------------------------------------------------

WORK = """
import os, sys
from minicontainer.images import commit, layers
from minicontainer.images.archive import load
from minicontainer.images.store import Store
store = Store(sys.argv[2])
def do_load():
    with open(sys.argv[3], "rb") as file:
        load(store, file)
def do_unpack():
    layers.unpacked(store, store.image("small"))
def do_commit():
    with store.lease():
        store.tag("new:1", commit.commit(store, store.image("small"), sys.argv[3] + ".upper"))
def do_pin():
    store.pin("box", store.image("small").descriptor["digest"])
    store.unpin("box")
def do_gc():
    if "small:1" in store.names():
        store.untag("small:1")
    store.gc()
globals()["do_" + sys.argv[1]]()
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of an image of three layers, and an upper directory beside it."""
    place = tmp_path_factory.mktemp("archive")
    store = Store(str(place / "store"))
    contents = [tar(*[entry(f"d{n}/f{m}", os.urandom(90_000)) for m in range(9)]) for n in range(3)]
    add_image(store, "docker.io/library/loaded:latest", contents)
    path = place / "image.tar"
    path.write_bytes(b"".join(save(store, ["docker.io/library/loaded:latest"])))
    upper = place / "image.tar.upper"
    upper.mkdir()
    for n in range(20):
        (upper / str(n)).write_bytes(os.urandom(40_000))
    return path


def prepared(store: Store) -> None:
    """A store to work on: an image that must survive, and one that may go."""
    add_image(store, "small", [tar(*[entry(f"d/f{n}", b"y" * 5000) for n in range(40)])])
    add_image(store, "small:1", [tar(*[entry(f"e/f{n}", b"z" * 5000) for n in range(40)])])


def consistent(store: Store) -> None:
    """After anything: no damage, nothing lost, and all can be done again."""
    assert store.fsck() == []
    assert "small" in store.names()
    store.gc()
    for name in ("ingest", "leases"):
        assert os.listdir(f"{store.root}/{name}") == [], name
    left = [one for one in os.listdir(f"{store.root}/layers") if one.startswith(("new", "old"))]
    assert left == []
    if os.geteuid() == 0:
        for name in store.names():
            for path in layers.unpacked(store, store.image(name)):
                assert os.listdir(path)


@needs_root
@pytest.mark.slow
@pytest.mark.parametrize("work", ["load", "unpack", "commit", "pin", "gc"])
@pytest.mark.parametrize("call", ["rename", "unlink,unlinkat", "fsync,syncfs", "openat", "write"])
def test_kill_9_at_system_calls(tmp_path: Path, archive: Path, work: str, call: str) -> None:
    """strace kills the process as it enters its nth call of a kind; n grows until it lives."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed: apt install strace")
    template = Store(str(tmp_path / "template"))
    prepared(template)
    if work == "gc":
        layers.unpacked(template, template.image("small:1"))
    n, survived, killed = 1, False, 0
    while not survived and killed < 25:
        store = Store(str(tmp_path / f"store{n}"))
        shutil.copytree(template.root, store.root, symlinks=True)
        done = subprocess.run(
            ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}",
             "-e", f"inject={call}:signal=KILL:when={n}", sys.executable, "-I", "-S", "-c",
             f"import sys; sys.path[:0] = {[str(REPOSITORY), *site()]!r}\n" + WORK, work,
             store.root, str(archive)],
            capture_output=True, text=True,
        )  # fmt: skip
        survived = done.returncode == 0
        assert survived or done.returncode in (-9, 137), done.stderr
        killed += not survived
        store.unpin("box")  # its owner's, who is there as long as the pin
        consistent(store)
        again = subprocess.run(
            [sys.executable, "-c", WORK, work, store.root, archive], env=ENV, capture_output=True,
            text=True,
        )  # fmt: skip
        assert again.returncode == 0, again.stderr
        consistent(store)
        shutil.rmtree(store.root)
        n = n + 1 if call in ("rename", "fsync,syncfs", "unlink,unlinkat") else n * 2 + 3
    none = [("unpack", "unlink,unlinkat"), ("pin", "fsync,syncfs")]
    assert killed or (work, call) in none, "nothing was tried"


def site() -> list[str]:
    return [path for path in sys.path if path.endswith("site-packages")]


@needs_root
@pytest.mark.slow
def test_kill_9_at_random_moments(tmp_path: Path, archive: Path) -> None:
    store = Store(str(tmp_path / "store"))
    prepared(store)
    seed = random.randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", WORK, "load", store.root, archive], env=ENV, check=True)
    longest = time.monotonic() - start
    for _ in range(40):
        work = chance.choice(["load", "unpack", "commit", "gc"])
        child = subprocess.Popen(
            [sys.executable, "-c", WORK, work, store.root, archive], env=ENV,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            child.wait(chance.uniform(0.03, longest))
        except subprocess.TimeoutExpired:
            child.kill()
        _, errors = child.communicate()
        assert child.returncode in (0, -9), errors.decode()
        assert store.fsck() == [], work
    consistent(store)


FULL = """
set -e
mount -t tmpfs -o size=$1 tmpfs "$2"
cp -a "$3" "$2/store"
shift 3
"$@" && echo worked || echo "failed $?"
mount -o remount,size=64m "$STORE/.."
"$PYTHON" -c "$CHECK" "$STORE"
if [ -e "$STORE/ingest/full" ]; then rm "$STORE/ingest/full"; fi
"$@"
"$PYTHON" -c "$CHECK" "$STORE"
"""
CHECK = """
import sys; from minicontainer.images.store import Store
store = Store(sys.argv[1])
assert store.fsck() == [], store.fsck()
assert "small" in store.names()
"""


@needs_root
@pytest.mark.slow
@pytest.mark.parametrize("work", ["load", "unpack", "commit"])
def test_a_full_disk(tmp_path: Path, archive: Path, work: str) -> None:
    """A tmpfs, in a mount namespace of its own, with room for less and less of the work."""
    template = Store(str(tmp_path / "template"))
    prepared(template)
    base = sum(path.lstat().st_size + 4096 for path in Path(template.root).rglob("*")) >> 10
    seen = set()
    for extra in range(0, 3200, 170):
        place = tmp_path / f"full{extra}"
        place.mkdir()
        env = {**ENV, "STORE": f"{place}/store", "PYTHON": sys.executable, "CHECK": CHECK}
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", FULL, "sh", f"{base + extra}k", place, template.root,
             sys.executable, "-c", WORK, work, f"{place}/store", archive],
            env=env, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, (extra, done.stdout, done.stderr)
        outcome = done.stdout.split()[0]
        seen.add(outcome)
        if outcome == "failed":
            assert "no space left on device" in done.stderr.lower(), done.stderr
    assert "failed" in seen, "the disk was never full: make it smaller"


def test_processes_add_the_same_and_different_things_while_others_collect(
    tmp_path: Path, archive: Path
) -> None:
    store = Store(str(tmp_path / "store"))
    prepared(store)
    loads = (
        "import sys; from minicontainer.images.store import Store\n"
        "from minicontainer.images.archive import load\n"
        "s = Store(sys.argv[1])\n"
        "for n in range(12):\n"
        "    load(s, open(sys.argv[2], 'rb'))\n"
        "    s.tag(f'mine{sys.argv[3]}:{n}', s.image('loaded').descriptor)\n"
        "    if n % 2: s.untag('docker.io/library/loaded:latest') if "
        "'docker.io/library/loaded:latest' in s.names() and sys.argv[3] == '9' else None\n"
    )
    collects = (
        "import sys; from minicontainer.images.store import Store\n"
        "for _ in range(60): Store(sys.argv[1]).gc()"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", loads, store.root, archive, str(n)], env=ENV,
                         stderr=subprocess.PIPE, text=True) for n in range(2)
    ] + [
        subprocess.Popen([sys.executable, "-c", collects, store.root], env=ENV,
                         stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]  # fmt: skip
    for child in children:
        _, errors = child.communicate()
        assert child.returncode == 0, errors
    expected = {f"mine{n}:{m}" for n in range(2) for m in range(12)}
    assert expected <= set(store.names())
    consistent(store)


@needs_root
def test_two_processes_unpack_the_same_layer(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    add_image(store, "small", [tar(*[entry(f"d{n % 40}/f{n}", b"y" * 500) for n in range(4000)])])
    children = [
        subprocess.Popen([sys.executable, "-c", WORK, "unpack", store.root, "-"], env=ENV,
                         stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]  # fmt: skip
    for child in children:
        _, errors = child.communicate()
        assert child.returncode == 0, errors
    assert len(os.listdir(f"{store.root}/layers")) == 1
    consistent(store)


def test_readers_do_not_wait_for_a_writer(store: Store) -> None:
    add_image(store, "a", [LAYER])
    with store.lock():
        code = (
            "import sys; from minicontainer.images.store import Store\n"
            "print(len(Store(sys.argv[1]).image('a').layers))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, store.root], env=ENV, capture_output=True, text=True,
            timeout=60,
        )  # fmt: skip
    assert done.stdout == "1\n", done.stderr


def test_looking_up_an_image_imports_little(store: Store) -> None:
    """A start waits for it: the modules that cost most stay out."""
    add_image(store, "a", [LAYER])
    code = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from minicontainer.images.store import Store; from minicontainer.images import overlay\n"
        f"Store({store.root!r}).image('a'); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    heavy = {"json", "re", "hashlib", "dataclasses", "typing", "pathlib", "subprocess", "threading",
             "contextlib", "tempfile", "shutil", "zstandard"}  # fmt: skip
    assert heavy.isdisjoint(done.stdout.split())


def test_an_archive_may_come_through_a_pipe(store: Store, archive: Path) -> None:
    read_fd, write_fd = os.pipe()
    feeder = subprocess.Popen(["cat", archive], stdout=write_fd)
    os.close(write_fd)
    with open(read_fd, "rb", buffering=0) as pipe:
        assert load(store, pipe) == ["docker.io/library/loaded:latest"]
    feeder.wait()
    assert store.fsck() == []
