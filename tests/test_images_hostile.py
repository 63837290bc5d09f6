"""Layers and documents that mean harm: each is refused by name, and nothing changes outside."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import tempfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minicontainer.images import descriptor as d
from minicontainer.images import layers, merge
from minicontainer.images.archive import load
from minicontainer.images.compression import Limits, Plain
from minicontainer.images.errors import ImageError
from minicontainer.images.store import Store
from minicontainer.images.tar_read import entries
from tests.image_layers import (
    add_image,
    digest,
    directory,
    entry,
    hardlink,
    listing,
    symlink,
    tar,
    unpack_bytes,
)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="tried as the user who could do harm")
SMALL = Limits(total=8 << 20, free=1 << 20, ratio=20, entries=1000)


@pytest.fixture
def victim(tmp_path: Path):
    """A place whose files must not change; symlinks lead there. Compared at the end."""
    place = tmp_path / "victim"
    (place / "dir").mkdir(parents=True)
    (place / "secret").write_text("secret")
    (place / "dir/inner").write_text("inner")
    (tmp_path / "target").mkdir()  # beside it, so that ../victim leads there
    before = listing(place)
    yield place
    assert listing(place) == before, "something outside was changed"
    assert sorted(os.listdir(tmp_path)) == ["target", "victim"], "something outside was made"


def attempt(victim: Path, *members: tuple) -> tuple[str, dict]:
    """Unpack in target/layer; returns the error, or "", and what is there then."""
    target = victim.parent / "target/layer"
    message = ""
    try:
        unpack_bytes(tar(*members), target)
    except ImageError as error:
        message = error.message
    found = listing(target)
    for name, (_, _, _, content, _, first, _) in found.items():
        assert content != digest(b"secret").partition(":")[2], f"{name!r} is the secret file"
        assert first in found, f"{name!r} is a hard link to something outside"
    return message, found


@needs_root
@pytest.mark.parametrize("name", ["../victim/x", "a/../../victim/x", "..", "./../victim/x", "/../x",
                                  "a/..", "/a/../../../../../../tmp/x"])  # fmt: skip
def test_names_that_climb_are_refused(victim: Path, name: str) -> None:
    message, found = attempt(victim, directory("a"), entry(name, b"x"))
    assert message == f'layer 1 of 1: {name!r}: ".." in its name'
    assert set(found) <= {b"", b"a"}


@needs_root
def test_absolute_names_are_below_the_root(victim: Path) -> None:
    message, found = attempt(victim, entry(str(victim / "x"), b"x"), entry("//etc//passwd", b""))
    assert message == ""
    assert os.fsencode(str(victim / "x").lstrip("/")) in found
    assert b"etc/passwd" in found


@needs_root
@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("then", [
    entry("link/new", b"x"), directory("link/new"), entry("link/secret", b"x"),
    symlink("link/new", "/"), hardlink("link/new", "file"), entry("link/.wh.secret"),
    entry("link/.wh..wh..opq"), directory("link/dir", 0o777), entry("link/dir/inner", b"x"),
    entry("link/fifo", type=tarfile.FIFOTYPE),
    entry("link/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
])  # fmt: skip
def test_entries_through_a_symlink_stay_inside(victim: Path, absolute: bool, then) -> None:
    where = str(victim) if absolute else "../../victim"
    attempt(victim, entry("file", b"f"), symlink("link", where), then)


@needs_root
def test_a_dangling_symlink_is_no_directory(victim: Path) -> None:
    message, _ = attempt(victim, symlink("link", "/nowhere"), entry("link/x", b"x"))
    assert message == "layer 1 of 1: 'link/x': 'link' in its path is not a directory"


@needs_root
@pytest.mark.parametrize("first", ["link", "dir/link"])
def test_a_file_does_not_write_through_a_symlink_of_its_name(victim: Path, first: str) -> None:
    message, found = attempt(
        victim, directory("dir"), symlink(first, str(victim / "secret")), entry(first, b"mine")
    )
    assert message == ""
    assert found[first.encode()][3] == digest(b"mine").partition(":")[2]


@needs_root
@pytest.mark.parametrize("link", ["../../victim/secret", "/../victim/secret", "link/secret",
                                  "link/dir", "nothing", "link/../secret",
                                  "/proc/self/root/etc"])  # fmt: skip
def test_hard_links_reach_nothing_outside(victim: Path, link: str) -> None:
    message, _ = attempt(victim, symlink("link", str(victim)), hardlink("mine", link))
    assert message.startswith("layer 1 of 1: 'mine': ")
    assert ".." in message or "which this layer has not" in message


@needs_root
@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "a/.wh..", "a/.wh..."])
def test_whiteouts_of_no_file_are_refused(victim: Path, name: str) -> None:
    message, found = attempt(victim, directory("a"), entry(name))
    assert message == f"layer 1 of 1: {name!r}: a whiteout of no file"
    assert set(found) <= {b"", b"a"}


@needs_root
def test_whiteouts_with_traversal_are_refused(victim: Path) -> None:
    message, _ = attempt(victim, entry("../victim/.wh.secret"))
    assert '".." in its name' in message


@needs_root
def test_a_directory_that_becomes_a_symlink_between_its_entries(victim: Path) -> None:
    """The metadata of directories is set at the end: then the name may lead elsewhere."""
    message, _ = attempt(
        victim, directory("d", 0o777, uid=99), entry("d/x", b"x"), symlink("d", str(victim)),
        entry("d/secret", b"mine"),
    )  # fmt: skip
    assert message == "layer 1 of 1: 'd/secret': 'd' in its path is not a directory"
    attempt_again = victim.parent / "target/two"
    unpack_bytes(tar(directory("d", 0o777, uid=99), symlink("d", str(victim))), attempt_again)
    assert os.readlink(attempt_again / "d") == str(victim)


@needs_root
def test_a_symlink_loop_and_a_symlink_as_root(victim: Path) -> None:
    message, _ = attempt(victim, symlink("a", "b"), symlink("b", "a"), entry("a/x", b""))
    assert message == "layer 1 of 1: 'a/x': too many levels of symbolic links"
    for n, name in enumerate((".", "/", "./")):
        with pytest.raises(ImageError, match="the root must be a directory"):
            unpack_bytes(tar(symlink(name, str(victim))), victim.parent / f"target/{n}")


@needs_root
@pytest.mark.parametrize(("member", "words"), [
    (entry("null", type=tarfile.CHRTYPE), "character device 0:0"),
    (entry("x", type=b"V"), "entries of type b'V'"),
    (entry("n" * 300, b""), "file name too long"),
    (entry("/".join(["d" * 100] * 50), b""), "file name too long"),
    (entry("x", uid=2**32 - 1), "out of range"),
    (entry("x", pax_headers={"path": "a\0b"}), "NUL byte"),
    (symlink("x", ""), "no such file or directory"),
])  # fmt: skip
def test_other_entries_that_cannot_be(victim: Path, member, words: str) -> None:
    message, _ = attempt(victim, entry("first", b"1"), member)
    assert "layer 1 of 1: " in message
    assert words in message


@needs_root
def test_layers_do_not_write_through_each_other(tmp_path: Path) -> None:
    """A later layer writes below a symlink that an earlier one made: it has its own directory."""
    store, victim = Store(str(tmp_path / "store")), tmp_path / "victim"
    victim.mkdir()
    first, second = tar(symlink("etc", str(victim))), tar(entry("etc/new", b"x"))
    layers.unpacked(store, add_image(store, "two", [first, second]))
    assert os.listdir(victim) == []


NAMES = ["a", "b", "a/dir", "a/dir/new", "a/secret", "b/a", "a/.wh.secret", "a/.wh..wh..opq",
         ".wh.a", ".", "VICTIM", "VICTIM/dir"]  # fmt: skip
TARGETS = ["/", "..", "../../victim", "a", "a/dir", "VICTIM", "VICTIM/secret"]
BEGINNINGS = [
    [], [("symlink", "a", "VICTIM"), ("dir", "VICTIM", "")], [("symlink", "a", "..")],
    [("dir", "a/dir", "")], [("symlink", "b", "a"), ("symlink", "a", "VICTIM")],
]  # fmt: skip
KINDS = ["file", "file", "dir", "symlink", "link", "fifo"]
MEMBERS = st.builds(
    list.__add__,
    st.sampled_from(BEGINNINGS),
    st.lists(
        st.tuples(st.sampled_from(KINDS), st.sampled_from(NAMES), st.sampled_from(TARGETS)),
        min_size=1, max_size=8,
    ),
)  # fmt: skip


@needs_root
@settings(max_examples=400, deadline=None)
@given(st.lists(MEMBERS, min_size=1, max_size=3))
def test_nothing_that_two_layers_do_reaches_outside(stack: list) -> None:
    """Links that lead out, names that go through them, in one layer or from one to the next."""
    with tempfile.TemporaryDirectory() as place:
        top = Path(place)
        victim = top / "victim"
        (victim / "dir").mkdir(parents=True)
        (victim / "secret").write_text("secret")
        (victim / "dir/inner").write_text("inner")
        os.utime(victim, ns=(5, 5))
        before = listing(victim)

        def member(kind: str, name: str, target: str):
            name, target = (text.replace("VICTIM", str(victim)) for text in (name, target))
            return {
                "file": lambda: entry(name, b"x", uid=666, mode=0o666),
                "dir": lambda: directory(name, 0o777, uid=666),
                "symlink": lambda: symlink(name, target, uid=666),
                "link": lambda: hardlink(name, target),
                "fifo": lambda: entry(name, type=tarfile.FIFOTYPE, uid=666),
            }[kind]()

        tars = [tar(*[member(*words) for words in one]) for one in stack]
        store = Store(str(top / "store"))
        image = add_image(store, "i", tars)
        told = ""
        try:
            paths = layers.unpacked(store, image)
            (top / "copy").mkdir()
            merge.copy(paths, "trusted.overlay.", str(top / "copy"))
            for _ in merge.tar(paths, "trusted.overlay."):
                pass
        except ImageError as error:
            told = error.message
        assert not told or f"of {len(stack)}: " in told
        store.untag("i")
        store.gc()
        assert listing(victim) == before
        assert set(os.listdir(top)) <= {"victim", "store", "copy"}
        assert os.listdir(f"{store.root}/layers") == []


# --- bombs, damage --------------------------------------------------------------------------------


def bomb(size: int) -> bytes:
    return tar(entry("zeros", bytes(size)))


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_bomb_is_refused_by_its_ratio_and_by_its_size(tmp_path: Path, pack) -> None:
    with pytest.raises(ImageError, match="more than 20 for one"):
        unpack_bytes(pack(bomb(4 << 20)), tmp_path / "a", SMALL)
    with pytest.raises(ImageError, match=f"more than {8 << 20} bytes"):
        unpack_bytes(pack(bomb(16 << 20)), tmp_path / "b", Limits(total=8 << 20))
    unpack_bytes(pack(bomb(4 << 20)), tmp_path / "c", Limits(ratio=10**6, free=0))


def test_a_gzip_of_a_gigabyte_does_not_take_a_gigabyte(tmp_path: Path) -> None:
    import resource

    zeros = gzip.compress(bytes(64 << 20), 9)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Plain(io.BytesIO(zeros * 16), "x", Limits(ratio=10_000)) as stream:
        for _ in range(1024):
            assert len(stream.read(1 << 20)) == 1 << 20
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100 << 10, f"{grown} KiB"


def test_a_zstd_frame_may_not_ask_for_gigabytes(tmp_path: Path) -> None:
    greedy = zstandard.ZstdCompressionParameters(window_log=30, compression_level=1)
    machine = zstandard.ZstdCompressor(compression_params=greedy).compressobj()
    data = machine.compress(bomb(1 << 20)) + machine.flush()
    with pytest.raises(ImageError, match="damaged or cut short"):
        unpack_bytes(data, tmp_path / "x")


@needs_root
def test_too_many_files_are_refused_and_a_hundred_thousand_are_not(tmp_path: Path) -> None:
    many = tar(*[entry(f"d{n % 300}/{n}") for n in range(100_000)], format=tarfile.USTAR_FORMAT)
    with pytest.raises(ImageError, match="more than 1000 files"):
        unpack_bytes(many, tmp_path / "few", Limits(entries=1000))
    unpack_bytes(many, tmp_path / "many")
    assert sum(len(files) for _, _, files in os.walk(tmp_path / "many")) == 100_000


@needs_root
@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
def test_a_layer_that_is_cut_short_anywhere_is_refused(tmp_path: Path, pack) -> None:
    store = Store(str(tmp_path / "store"))
    whole = tar(entry("a", os.urandom(3000)), directory("d"), entry("d/b", os.urandom(700)))
    packed = pack(whole)
    for n, end in enumerate({0, 1, 100, 511, 512, 600, 3000, 3584, len(packed) // 2,
                             len(packed) - 1}):  # fmt: skip
        if end < len(packed):
            image = add_image(store, f"i{n}", [whole], stored=[packed[:end]])
            with pytest.raises(ImageError, match="layer 1 of 1: "):
                layers.unpacked(store, image)
    assert os.listdir(f"{store.root}/layers") == []


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=3000))
@example(b"\x1f\x8b\x08" + bytes(600))
@example(b"\x28\xb5\x2f\xfd" + bytes(600))
def test_noise_is_an_error_or_nothing(noise: bytes) -> None:
    with Plain(io.BytesIO(noise), "noise", SMALL) as stream:
        try:
            for one in entries(stream):
                assert one.size >= 0
        except ImageError:
            pass


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_tar_with_flipped_bytes_is_an_error_or_a_tar(data) -> None:
    headers = {"SCHILY.xattr.user.x": "y", "GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    image = bytearray(tar(entry("a" * 150, b"1\n0\n5\n" + bytes(600), pax_headers=headers),
                          entry("b", b"data"), hardlink("c", "b")))  # fmt: skip
    for _ in range(data.draw(st.integers(1, 6))):
        where = data.draw(st.integers(0, len(image) - 1))
        image[where] = data.draw(st.integers(0, 255))
        header = where // 512 * 512
        if data.draw(st.booleans()):  # mend the checksum, so that the rest is looked at
            block = bytearray(image[header : header + 512])
            block[148:156] = b" " * 8
            image[header + 148 : header + 156] = b"%06o\0 " % sum(block)
    with Plain(io.BytesIO(bytes(image)), "x", SMALL) as stream:
        try:
            for one in entries(stream):
                assert one.stored >= 0
                assert one.extents is None or all(o + n <= one.size for o, n in one.extents)
        except ImageError:
            pass


# --- what documents say ---------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


LAYER = tar(entry("f", b"x"))


@needs_root
@pytest.mark.parametrize("kind", ["", "gzip"])
def test_a_layer_with_another_diff_id_is_refused(store: Store, kind: str) -> None:
    blob = gzip.compress(LAYER) if kind else LAYER
    image = add_image(store, "i", [LAYER], stored=[blob], diff_ids=["sha256:" + "0" * 64])
    with pytest.raises(ImageError, match="layer 1 of 1: its diffID is "):
        layers.unpacked(store, image)
    assert os.listdir(f"{store.root}/layers") == []


@needs_root
def test_a_blob_that_changed_in_the_store_is_found(store: Store) -> None:
    image = add_image(store, "i", [LAYER])
    path = store.path(image.layers[0]["digest"])
    data = bytearray(Path(path).read_bytes())
    data[600] ^= 1
    Path(path).write_bytes(data)
    with pytest.raises(ImageError, match="its digest is"):
        layers.unpacked(store, image)
    assert len(store.fsck()) == 1
    os.unlink(path)
    with pytest.raises(ImageError, match="is not in the store"):
        layers.unpacked(store, image)


def test_counts_sizes_and_media_types_that_lie(store: Store) -> None:
    with pytest.raises(ImageError, match="2 layers, the config 1"):
        add_image(store, "a", [LAYER], stored=[LAYER, LAYER], media_types=[d.OCI_LAYER] * 2)
    with pytest.raises(ImageError, match="layer 1: unknown media type 'text/html'"):
        add_image(store, "b", [LAYER], media_types=["text/html"])
    with store.lease():
        blob = store.add(b"{}", media_type=d.OCI_MANIFEST)
        with pytest.raises(ImageError, match="its size is not 3"):
            store.read_json({**blob, "size": 3})
        with pytest.raises(ImageError, match="3 bytes were announced"):
            store.add(b"{}", blob["digest"], 3)
        with pytest.raises(ImageError, match="is required"):
            store.read_json(blob)
        with pytest.raises(ImageError, match="too many for a document"):
            store.read({**blob, "size": 2**40})


def test_a_manifest_that_is_an_index_too(store: Store) -> None:
    """CVE-2021-41190: two readers would see two images."""
    both = {"schemaVersion": 2, "manifests": [], "layers": [], "config": {
        "mediaType": d.OCI_CONFIG, "digest": "sha256:" + "0" * 64, "size": 1}}  # fmt: skip
    for kind in (d.OCI_MANIFEST, d.OCI_INDEX):
        with store.lease():
            blob = store.add(json.dumps(both).encode(), media_type=kind)
            with pytest.raises(ImageError, match="manifest and index at once"):
                store.read_json(blob)
    typed = {"schemaVersion": 2, "mediaType": d.DOCKER_INDEX, "manifests": []}
    with store.lease(), pytest.raises(ImageError, match="what points to it says"):
        store.read_json(store.add(json.dumps(typed).encode(), media_type=d.OCI_INDEX))


def test_indexes_in_indexes_end(store: Store) -> None:
    with store.lease():
        pointer = store.add(b'{"schemaVersion":2,"manifests":[]}', media_type=d.OCI_INDEX)
        for _ in range(10):
            index = {"schemaVersion": 2, "manifests": [pointer]}
            pointer = store.add(json.dumps(index).encode(), media_type=d.OCI_INDEX)
        store.tag("deep", pointer)
        with pytest.raises(ImageError, match="more than 4 indexes in one another"):
            store.image("deep")
        assert store.gc()["blobs"] == 0, "all are leased"


def test_an_index_that_names_itself(store: Store) -> None:
    """Nobody can make one with a true digest; a store on a disk can be lied into having one."""
    name = "sha256:" + "a" * 64
    pointer = {"mediaType": d.OCI_INDEX, "digest": name, "size": 0}
    for _ in range(3):  # its size is in it
        text = json.dumps({"schemaVersion": 2, "manifests": [pointer]})
        pointer["size"] = len(text)
    store.make()
    Path(store.path(name)).write_text(text)
    store.tag("loop", pointer)
    with pytest.raises(ImageError, match="more than 4 indexes"):
        store.image("loop")
    store.gc()
    assert any("its content is" in line for line in store.fsck())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=10,
)  # fmt: skip
GOOD = {"mediaType": d.OCI_LAYER, "digest": "sha256:" + "1" * 64, "size": 5}


@settings(max_examples=300, deadline=None)
@given(json_values, st.sampled_from(["mediaType", "digest", "size", "annotations", "platform"]))
def test_descriptors_are_checked_to_the_last_member(value, member: str) -> None:
    try:
        checked = d.check_descriptor({**GOOD, member: value})
    except ImageError:
        return
    assert isinstance(checked["size"], int)
    assert 0 <= checked["size"] < 2**63
    d.check_digest(checked["digest"])
    assert isinstance(checked["mediaType"], str)


@settings(max_examples=300, deadline=None)
@given(
    json_values,
    st.sampled_from([d.check_manifest, d.check_index, d.check_config, d.check_descriptor]),
)
def test_any_json_is_an_error_or_a_document(value, check) -> None:
    try:
        assert isinstance(check(value), dict)
    except ImageError:
        pass


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80) | st.from_regex(r"sha(256|512):[0-9a-fA-F./]{60,130}"))
@example("sha256:" + "0" * 63 + "/")
@example("sha256:../" + "0" * 61)
@example("sha256:" + "A" * 64)
@example("sha256:" + "0" * 64 + "\n")
def test_a_digest_never_leads_elsewhere(text: str) -> None:
    store = Store("/nowhere")
    try:
        path = store.path(text)
    except ImageError:
        return
    assert os.path.normpath(path) == path
    assert os.path.dirname(path) == "/nowhere/blobs/sha256"


@pytest.mark.parametrize("text", [
    b"[" * 100_000, b'{"a":' * 50_000, b"\xff", b"", b"nul", b"{}x",
    b'{"schemaVersion":' + b"9" * 5000, b'{"schemaVersion": NaN}', b" " * ((4 << 20) + 1),
])  # fmt: skip
def test_texts_that_are_no_documents(text: bytes) -> None:
    with pytest.raises(ImageError, match=r"^m: "):
        d.parse(text, d.check_manifest, "m")


def test_limits_of_counts() -> None:
    with pytest.raises(ImageError, match="501 entries"):
        d.check_manifest({"schemaVersion": 2, "config": GOOD, "layers": [GOOD] * 501})
    with pytest.raises(ImageError, match="1001 entries"):
        d.check_index({"schemaVersion": 2, "manifests": [GOOD] * 1001})


def test_errors_do_not_speak_to_the_terminal(tmp_path: Path) -> None:
    evil = "\x1b[2J\x07"
    with pytest.raises(ImageError) as caught:
        d.check_descriptor({**GOOD, "annotations": {evil: 5}})
    assert "\\x1b[2J\\x07" in str(caught.value)
    assert "\x1b" not in str(caught.value)
    with pytest.raises(ImageError) as caught:
        load(Store(str(tmp_path / "s")), io.BytesIO(tar(entry(f"blobs/{evil}/x", b""))))
    assert "\x1b" not in str(caught.value)


# --- archives -------------------------------------------------------------------------------------


def archive(**files: object) -> bytes:
    members = []
    for name, content in files.items():
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        members.append(entry(name, data))
    return tar(*members)


CONFIG = {"architecture": "amd64", "os": "linux",
          "rootfs": {"type": "layers", "diff_ids": [digest(LAYER)]}}  # fmt: skip
DOCKER = [{"Config": "c.json", "RepoTags": ["a:b"], "Layers": ["l.tar"]}]


@pytest.mark.parametrize(("files", "words"), [
    ({"x": b""}, "neither index.json nor manifest.json"),
    ({"manifest.json": DOCKER, "c.json": CONFIG}, "names 'l.tar', which is not there"),
    ({"manifest.json": DOCKER, "l.tar": LAYER}, "names 'c.json', which is not there"),
    ({"manifest.json": DOCKER, "c.json": CONFIG, "l.tar": tar(entry("g"))}, "its diffID is"),
    ({"manifest.json": DOCKER, "c.json": {}, "l.tar": LAYER}, "is required"),
    ({"manifest.json": {}, "c.json": CONFIG, "l.tar": LAYER}, "a list is expected"),
    ({"manifest.json": [{**DOCKER[0], "RepoTags": ["A B"]}], "c.json": CONFIG, "l.tar": LAYER},
     "image name"),
    ({"blobs/sha256/" + "0" * 64: b"x"}, "the content has another digest"),
    ({"blobs/sha256/../../x": b"x", "manifest.json": DOCKER}, "which is not there"),
    ({"oci-layout": {}, "index.json": {"schemaVersion": 2, "manifests": [
        {**GOOD, "mediaType": d.OCI_MANIFEST}]}}, "is not in the store"),
    ({"oci-layout": {}, "index.json": {"schemaVersion": 2}}, "manifests: is required"),
])  # fmt: skip
def test_bad_archives_leave_the_store_as_it_was(store: Store, files: dict, words: str) -> None:
    add_image(store, "before", [LAYER + bytes(512)])
    before = listing(store.root, times=False)
    with pytest.raises(ImageError, match="(?s).*" + words.replace("[", r"\[")):
        load(store, io.BytesIO(archive(**files)))
    whole = archive(**files)
    for end in (len(whole) // 3, len(whole) - 600):
        with pytest.raises(ImageError):
            load(store, io.BytesIO(whole[:end]))
    after = listing(store.root, times=False)
    assert set(after) == set(before)
    assert store.fsck() == []


def test_an_archive_with_a_link_to_the_host(store: Store) -> None:
    members = [entry("manifest.json", json.dumps(DOCKER).encode()), symlink("l.tar", "/etc/passwd"),
               entry("c.json", json.dumps(CONFIG).encode())]  # fmt: skip
    with pytest.raises(ImageError, match=r"names 'l.tar', which is not there"):
        load(store, io.BytesIO(tar(*members)))


@needs_root
def test_directories_without_entries_do_not_lead_out(tmp_path: Path) -> None:
    """Their metadata is that of the layer below; the path to them may go through a symlink."""
    victim = tmp_path / "victim"
    (victim / "cron.d").mkdir(parents=True)
    before = listing(victim)
    below = tar(directory("a"), directory("a/cron.d", 0o777, uid=666, gid=666))
    inside = str(victim).lstrip("/")
    above = tar(symlink("a", str(victim)), directory(inside), entry("a/cron.d/job", b"x"))
    store = Store(str(tmp_path / "store"))
    paths = layers.unpacked(store, add_image(store, "two", [below, above]))
    assert listing(victim) == before
    assert os.path.exists(f"{paths[1]}/{inside}/cron.d/job")
