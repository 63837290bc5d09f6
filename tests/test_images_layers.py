"""Layers: unpacked as GNU tar unpacks them, merged as overlayfs merges them, and back."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from minicontainer.doctor import check, enter, in_child
from minicontainer.images import commit, diff, layers, merge, overlay, rootless
from minicontainer.images.compression import GZIP_LEVEL, Chunks, Compressed, Plain
from minicontainer.images.errors import ImageError
from minicontainer.images.store import Store
from minicontainer.kernel import syscalls
from tests.image_layers import (
    add_image,
    directory,
    entry,
    hardlink,
    listing,
    symlink,
    tar,
    unpack_bytes,
)
from tests.roots import ORDINARY_UID, REPOSITORY

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners and devices need root")
TRUSTED = "trusted.overlay."


def needs_overlay() -> None:
    found = check("overlayfs")
    if not found.ok:
        pytest.skip(f"{found.detail}; {found.fix}")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with everything that a layer can have."""
    top = tmp_path / "tree"
    (top / "etc/empty").mkdir(parents=True)
    (top / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    os.link(top / "etc/passwd", top / "etc/hard")
    (top / "etc/link").symlink_to("passwd")
    (top / "etc/absolute").symlink_to("/etc/passwd")
    (top / "big").write_bytes(os.urandom(3 << 20))
    (top / "zero").touch()
    deep = top / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    (deep / ("f" * 200)).write_text("long names")
    (deep / "to").symlink_to("x/" * 150 + "y")
    os.link(deep / ("f" * 200), top / "hard to a long name")
    (top / "\u00fcml\u00e4ut").write_text("UTF-8")
    os.close(os.open(os.fsencode(top) + b"/\xff\xfe", os.O_CREAT | os.O_WRONLY))
    os.mkfifo(top / "fifo")
    with open(top / "sparse", "wb") as file:
        file.truncate(40 << 20)
        for offset in (0, 5 << 20, (40 << 20) - 4096):
            file.seek(offset)
            file.write(b"data" * 1024)
    with open(top / "only a hole", "wb") as file:
        file.truncate(1 << 20)
    if os.geteuid() == 0:
        os.chown(top / "big", 1234, 2_000_000)
        os.chown(top / "etc/link", 3_000_000_000, 5, follow_symlinks=False)
        os.mknod(top / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(top / "disk", stat.S_IFBLK | 0o600, os.makedev(259, 70000))
    (top / "etc/passwd").chmod(0o4755)
    (top / "etc/empty").chmod(0o1777)
    (top / "etc").chmod(0o555)
    os.utime(top / "zero", ns=(0, 123_456_789))
    os.utime(top / "etc/link", ns=(5, 1_500_000_000_000_000_000), follow_symlinks=False)
    os.utime(top / "etc", ns=(0, 1_000_000_000_500_000_000))
    return top


@needs_root
@pytest.mark.parametrize("format", ["gnu", "posix", "oldgnu"])
@pytest.mark.parametrize("compression", ["", "gzip", "zstd"])
def test_unpacked_is_what_gnu_tar_unpacks(
    tree: Path, tmp_path: Path, format: str, compression: str
) -> None:
    archive, theirs, ours = tmp_path / "a.tar", tmp_path / "theirs", tmp_path / "ours"
    subprocess.run(
        ["tar", "--sparse", "--numeric-owner", "--format", *format.split(), "-C", tree, "-cf",
         archive, "."], check=True,
    )  # fmt: skip
    theirs.mkdir()
    subprocess.run(["tar", "--numeric-owner", "-C", theirs, "-xpf", archive], check=True)
    data = archive.read_bytes()
    if compression == "gzip":
        half = len(data) // 2  # two members, as pigz and others write them; and padding
        data = gzip.compress(data[:half]) + gzip.compress(data[half:]) + bytes(700)
    elif compression == "zstd":
        data = zstandard.compress(data[:9999]) + zstandard.compress(data[9999:])
    assert unpack_bytes(data, ours) == []
    assert listing(ours) == listing(theirs)
    for name in ("sparse", "only a hole"):
        assert (ours / name).stat().st_blocks * 512 < 1 << 20, f"{name} lost its holes"


@needs_root
@pytest.mark.parametrize("version", ["0.0", "0.1"])
def test_old_forms_of_sparse_files_are_refused_not_misread(tmp_path: Path, version: str) -> None:
    with open(tmp_path / "holes", "wb") as file:
        file.truncate(1 << 20)
        file.write(b"x")
    words = ["tar", "-C", tmp_path, "--sparse", f"--sparse-version={version}", "--format=posix"]
    data = subprocess.check_output([*words, "-c", "holes"])
    with pytest.raises(ImageError, match="sparse files of version 0 are not supported"):
        unpack_bytes(data, tmp_path / "out")


def test_ustar_and_version_7_are_read(tmp_path: Path) -> None:
    top = tmp_path / "t"
    (top / ("p" * 90) / ("q" * 50)).mkdir(parents=True)  # ustar's prefix
    (top / ("p" * 90) / ("q" * 50) / "file").write_text("x")
    subprocess.run(["tar", "--format=ustar", "-C", top, "-cf", tmp_path / "u", "."], check=True)
    unpack_bytes((tmp_path / "u").read_bytes(), tmp_path / "ours")
    assert listing(tmp_path / "ours") == listing(top, times=False) or (
        listing(tmp_path / "ours", times=False) == listing(top, times=False)
    )
    shutil.rmtree(top / ("p" * 90))
    (top / "d").mkdir()
    (top / "d/old").write_text("1979")
    subprocess.run(["tar", "--format=v7", "-C", top, "-cf", tmp_path / "v", "d"], check=True)
    unpack_bytes((tmp_path / "v").read_bytes(), tmp_path / "seven")
    assert (tmp_path / "seven/d/old").read_text() == "1979"


@needs_root
def test_extended_attributes_are_kept_but_not_those_that_speak_to_others(tmp_path: Path) -> None:
    capability = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep
    attributes = {
        "SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape"),
        "SCHILY.xattr.user.comment": "kept",
        "SCHILY.xattr.user.overlay.opaque": "y",
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "SCHILY.xattr.security.selinux": "no",
    }
    layer = tar(entry("bin", b"x", pax_headers=attributes), directory("d", pax_headers=attributes))
    unpack_bytes(layer, tmp_path / "x")
    assert set(os.listxattr(tmp_path / "x/bin")) == {"security.capability", "user.comment"}
    assert os.getxattr(tmp_path / "x/bin", "security.capability") == capability
    assert "trusted.overlay.redirect" not in os.listxattr(tmp_path / "x/d")
    again = b"".join(diff.tar(str(tmp_path / "x")))
    unpack_bytes(again, tmp_path / "y")
    assert listing(tmp_path / "y", directory_times=False) == listing(
        tmp_path / "x", directory_times=False
    )


@needs_root
def test_our_tar_is_read_by_gnu_tar_and_python(tree: Path, tmp_path: Path) -> None:
    for path in (tree, *tree.rglob("*")):
        os.utime(path, ns=(0, path.lstat().st_mtime_ns // 10**9 * 10**9), follow_symlinks=False)
    data = b"".join(diff.tar(str(tree)))
    assert data == b"".join(diff.tar(str(tree))), "the same files give other bytes"
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    subprocess.run(["tar", "--numeric-owner", "-C", theirs, "-xpf", "-"], input=data, check=True)
    expected = listing(tree, directory_times=False)
    del expected[b""]  # the root directory is no entry of a diff
    found = listing(theirs, directory_times=False)
    del found[b""]
    assert found == expected
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        assert sorted(os.fsencode(name) for name in archive.getnames()) == sorted(expected)


def test_times_are_clamped(tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    (tmp_path / "new").touch()
    os.utime(tmp_path / "old", (5, 5))
    data = b"".join(diff.tar(str(tmp_path), newest=1_000))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert {one.name: one.mtime for one in archive} == {"old": 5, "new": 1_000}


names = st.binary(min_size=1, max_size=120).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
    and not name.startswith(b".wh.")
)  # fmt: skip


@needs_root
@settings(max_examples=60, deadline=None)
@given(st.dictionaries(names, st.binary(max_size=2000), max_size=8), st.sampled_from([0, 1, 2]))
def test_any_name_survives_tar_and_back(files: dict[bytes, bytes], format: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        top = Path(place)
        layer = tar(*[entry(name, data) for name, data in files.items()], format=tarfile.PAX_FORMAT
                    if format else tarfile.GNU_FORMAT)  # fmt: skip
        unpack_bytes(layer, top / "a")
        assert {os.fsencode(p.name): p.read_bytes() for p in (top / "a").iterdir()} == files
        unpack_bytes(b"".join(diff.tar(str(top / "a"))), top / "b")
        assert listing(top / "b", directory_times=False) == listing(
            top / "a", directory_times=False
        )


# --- whiteouts, overlayfs -------------------------------------------------------------------------

LOWER = [
    directory("etc"), entry("etc/a", b"1"), entry("etc/b", b"2"), directory("etc/sub"),
    entry("etc/sub/x", b"x"), directory("opq"), entry("opq/old", b"old"), directory("gone"),
    entry("gone/file", b"f"), entry("becomes-dir", b"file"), directory("becomes-file"),
    entry("becomes-file/inner", b""), symlink("lib", "usr/lib"), directory("usr"),
    directory("usr/lib"), entry("usr/lib/so", b"so"), directory("again"), entry("again/old", b""),
]  # fmt: skip
UPPER = [
    directory("etc", 0o700), entry("etc/.wh.a"), entry("etc/c", b"3"), entry(".wh.gone"),
    directory("opq"), entry("opq/.wh..wh..opq"), entry("opq/new", b"new"),
    directory("becomes-dir"), entry("becomes-dir/in", b"in"), entry("becomes-file", b"now"),
    entry(".wh.again"), directory("again"), entry("again/new", b"new"), entry("lib/other", b"o"),
]  # fmt: skip
VISIBLE = {
    b"", b"etc", b"etc/b", b"etc/c", b"etc/sub", b"etc/sub/x", b"opq", b"opq/new", b"becomes-dir",
    b"becomes-dir/in", b"becomes-file", b"lib", b"lib/other", b"usr", b"usr/lib", b"usr/lib/so",
    b"again", b"again/new",
}  # fmt: skip


def mounted(paths: list[str], work: Path, then) -> None:
    """Call `then(path)` in a child that has these layers mounted at a path."""
    for name in ("upper", "work", "merged"):
        (work / name).mkdir(exist_ok=True)
    layers.copy_root_metadata(paths, str(work / "upper"))

    def child() -> None:
        enter("mount")
        syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE, None)
        overlay.mount(paths, str(work / "merged"), str(work / "upper"), str(work / "work"),
                      rootless.overlay_prefix() == "user.overlay.")  # fmt: skip
        then(work / "merged")

    in_child(child)


def say(condition: object, what: object) -> None:
    """An assertion in a child, where only an OSError comes through."""
    if not condition:
        raise OSError(0, str(what)[:4000])


@needs_root
def test_layers_are_merged_as_the_kernel_merges_them(store: Store, tmp_path: Path) -> None:
    needs_overlay()
    image = add_image(store, "two", [tar(*LOWER), tar(*UPPER)])
    paths = layers.unpacked(store, image)
    assert {name for name, _, _ in merge.merged(paths, TRUSTED)} == VISIBLE
    merge.copy(paths, TRUSTED, str(fresh(tmp_path / "copy")))
    exported = b"".join(merge.tar(paths, TRUSTED))
    unpack_bytes(exported, tmp_path / "exported")

    def look(top: Path) -> None:
        found = listing(top)
        say(set(found) == VISIBLE, sorted(found))
        for other in ("copy", "exported"):
            say(listing(tmp_path / other) == found, other)

    mounted(paths, tmp_path, look)
    assert layers.unpacked(store, image) == paths, "unpacked twice"
    assert sorted(os.listdir(f"{store.root}/layers")) == sorted(map(os.path.basename, paths))


def fresh(path: Path) -> Path:
    path.mkdir()
    return path


@needs_root
def test_order_within_a_layer_does_not_matter_to_whiteouts(tmp_path: Path) -> None:
    for n, members in enumerate((
        [entry("d/.wh.f"), entry("d/f", b"mine")], [entry("d/f", b"mine"), entry("d/.wh.f")],
    )):  # fmt: skip
        unpack_bytes(tar(*members), tmp_path / str(n))
        assert (tmp_path / str(n) / "d/f").read_bytes() == b"mine"
    for n, members in enumerate((
        [entry(".wh.d"), directory("d")], [directory("d"), entry(".wh.d")],
        [entry(".wh.d"), entry("d/f")],
    )):  # fmt: skip
        unpack_bytes(tar(*members), tmp_path / f"d{n}")
        assert os.getxattr(tmp_path / f"d{n}/d", "trusted.overlay.opaque") == b"y"


def version() -> tuple[int, ...]:
    return tuple(map(int, os.uname().release.split("-")[0].split(".")[:2]))


@needs_root
@pytest.mark.parametrize("count", [1, 64, 128, 200])
def test_many_layers(store: Store, tmp_path: Path, count: int) -> None:
    needs_overlay()
    image = add_image(store, "many", [tar(entry(f"f{n}", b"x"), entry("n", b"%d" % n))
                                      for n in range(count)])  # fmt: skip
    paths = layers.unpacked(store, image)
    if count > 128 and version() < (6, 7):  # no lowerdir+: all names in one page
        with pytest.raises(OSError, match="300 layers: this kernel takes fewer"):
            mounted(paths, tmp_path, print)
        return

    def look(top: Path) -> None:
        say(len(os.listdir(top)) == count + 1, os.listdir(top))
        say((top / "n").read_bytes() == b"%d" % (count - 1), (top / "n").read_bytes())

    mounted(paths, tmp_path, look)


@needs_root
def test_a_store_at_a_long_path_with_strange_characters(tmp_path: Path) -> None:
    needs_overlay()
    odd = tmp_path / ("x" * 200) / "a,b:c\\d"
    store = Store(str(odd / "store"))
    odd.mkdir(parents=True)
    image = add_image(store, "one", [tar(entry("f", b"x")), tar(entry("g", b"x"))])
    paths = layers.unpacked(store, image)
    mounted(paths, odd, lambda top: say(sorted(os.listdir(top)) == ["f", "g"], os.listdir(top)))


@needs_root
def test_directories_without_entries_are_those_of_the_layers_below(store, tmp_path: Path) -> None:
    below = tar(directory("tmp", 0o1777, uid=7, gid=8), directory("tmp/in", 0o750))
    above = tar(entry("tmp/in/new", b"x"), entry("made/up/f", b"y"))
    paths = layers.unpacked(store, add_image(store, "a", [below, above]))
    chain = layers.chain_ids(store.image("a").diff_ids)[1]
    assert os.path.basename(paths[1]) == chain.partition(":")[2], "others below it: not shared"
    seen = listing(paths[1])
    assert (seen[b"tmp"][:3], seen[b"tmp/in"][0]) == (("0o41777", 7, 8), "0o40750")
    assert seen[b"made"][0] == "0o40755"
    other = tar(directory("tmp", 0o700))
    assert layers.unpacked(store, add_image(store, "b", [other, above]))[1] != paths[1]
    assert layers.unpacked(store, store.image("a")) == paths
    store.untag("b")
    assert store.gc()["layers"] == 2
    assert layers.unpacked(store, store.image("a")) == paths


# --- what a container changed ---------------------------------------------------------------------


@needs_root
def test_what_a_container_changed_becomes_a_layer(store: Store, tmp_path: Path) -> None:
    needs_overlay()
    base = add_image(store, "base", [tar(*LOWER)], Env=["A=1"], Cmd=["sh"])
    paths = layers.unpacked(store, base)
    after: dict = {}

    def change(top: Path) -> None:
        (top / "etc/a").write_text("changed")
        (top / "etc/b").unlink()
        shutil.rmtree(top / "opq")
        (top / "opq").mkdir()
        (top / "opq/new").write_text("new")
        shutil.rmtree(top / "gone")
        subprocess.run(["mv", top / "usr", top / "moved"], check=True)
        os.link(top / "etc/a", top / "hard")
        os.chown(top / "becomes-dir", 5, 6)
        (top / "etc/sub").chmod(0o711)
        (top / "linked").symlink_to("/nowhere")
        os.setxattr(top / "etc/a", "user.note", b"1")
        subprocess.run(["cp", "-a", str(top), str(tmp_path / "after")], check=True)

    mounted(paths, tmp_path, change)
    after = listing(tmp_path / "after", times=False)
    with store.lease():
        pointer = commit.commit(
            store, base, str(tmp_path / "upper"), created_by="change", comment="c"
        )
        store.tag("changed", pointer)
    image = store.image("changed")
    assert len(image.diff_ids) == 2
    assert image.config["config"] == {"Env": ["A=1"], "Cmd": ["sh"]}
    assert image.config["history"][-1]["created_by"] == "change"
    new = layers.unpacked(store, image)
    assert new[0] == paths[0]
    merge.copy(new, TRUSTED, str(fresh(tmp_path / "copy")))
    assert listing(tmp_path / "copy", times=False) == after
    (tmp_path / "two").mkdir()
    mounted(new, tmp_path / "two",
            lambda top: say(listing(top, times=False) == after, listing(top)))  # fmt: skip
    assert store.fsck() == []


@needs_root
def test_the_same_change_gives_the_same_digest(store: Store, tmp_path: Path, monkeypatch) -> None:
    base = add_image(store, "base", [tar(entry("f"))])
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    digests = set()
    for n in range(2):
        upper = fresh(tmp_path / f"upper{n}")
        for name in ("b", "a", "c") if n else ("c", "b", "a"):
            (upper / name).write_text(name)
        with store.lease():
            digests.add(commit.commit(store, base, str(upper))["digest"])
    assert len(digests) == 1


@needs_root
def test_the_cost_of_a_commit_is_that_of_the_change(store: Store, tmp_path: Path) -> None:
    """strace: no file of the 64 MiB image is opened, for 1 MiB that changed."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed: apt install strace")
    blob = os.urandom(64 << 20)
    base = add_image(store, "base", [tar(entry("big", blob))])
    layers.unpacked(store, base)
    upper = fresh(tmp_path / "upper")
    (upper / "new").write_bytes(os.urandom(1 << 20))
    code = (
        "import sys; from minicontainer.images import commit; "
        "from minicontainer.images.store import Store; s = Store(sys.argv[1])\n"
        "with s.lease(): commit.commit(s, s.image('base'), sys.argv[2])"
    )
    trace = tmp_path / "trace"
    subprocess.run(
        ["strace", "-f", "-y", "-o", trace, "-e", "trace=read,pread64,copy_file_range,sendfile",
         sys.executable, "-c", code, store.root, upper],
        check=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    read = {
        line.split("<")[1].split(">")[0] for line in trace.read_text().splitlines() if "<" in line
    }
    touched = [path for path in read if base.layers[0]["digest"].partition(":")[2] in path
               or f"{store.root}/layers" in path]  # fmt: skip
    assert touched == []
    assert any(path.endswith("/new") for path in read)


def test_compressed_and_back() -> None:
    data = os.urandom(100_000) + bytes(5 << 20)
    packed = Compressed([data[:70_000], data[70_000:]])
    blob = b"".join(packed)
    with Plain(io.BytesIO(blob), "x") as stream:
        assert stream.read(len(data) + 1) == data
        assert stream.finish()[1] == packed.diff_id
    assert Chunks([b"", b"a"]).read(1) == b"a"
    assert 1 <= GZIP_LEVEL <= 9
    assert gzip.decompress(blob) == data


# --- without root ---------------------------------------------------------------------------------

AS_USER = """
import json, os, sys
from minicontainer.images import layers, merge, rootless
from minicontainer.images.store import Store
store = Store(sys.argv[1])
image = store.image("image")
paths = layers.unpacked(store, image)
owners = {}
def look():
    for name, path, now in merge.merged(paths, "user.overlay."):
        owners[name.decode()] = [now.st_uid, now.st_gid]
    return owners
print(json.dumps({"owners": rootless.inside(look), "maps": rootless.id_maps()}))
"""


@pytest.fixture
def users_store(ordinary_user: list[str], tmp_path: Path):
    def run(script: str, *members, ranges: str = "", above=()) -> subprocess.CompletedProcess:
        place = tmp_path / "users"
        store = Store(str(place))
        add_image(store, "image", [tar(*members), *([tar(*above)] if above else [])])
        if os.geteuid() == 0:
            for path in (place, *place.rglob("*")):
                os.chown(path, ORDINARY_UID, ORDINARY_UID)
        before: list[str] = []
        if ranges:  # /etc/subuid of its own, in a mount namespace
            (tmp_path / "sub").write_text(f"somebody:{ranges}\n")
            user = f"somebody:x:{ORDINARY_UID}:{ORDINARY_UID}::/:/bin/sh\n"  # newuidmap asks for it
            (tmp_path / "passwd").write_text(Path("/etc/passwd").read_text() + user)
            bind = (
                f"mount --bind {tmp_path}/sub /etc/subuid; mount --bind {tmp_path}/sub /etc/subgid;"
                f"mount --bind {tmp_path}/passwd /etc/passwd;"
            )
            before = ["unshare", "--mount", "sh", "-c", f'{bind} exec "$@"', "sh"]
        env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        words = [*before, *ordinary_user, sys.executable, "-c", script, str(place)]
        return subprocess.run(words, capture_output=True, text=True, env=env)

    return run


MEMBERS = [directory("etc", uid=0, gid=0), entry("etc/f", b"x", uid=33, gid=44), entry(".wh.w")]


@pytest.mark.rootless
def test_an_ordinary_user_owns_all_files_when_it_has_one_id(users_store) -> None:
    if not check("user namespace").ok:
        pytest.skip(check("user namespace").detail)
    done = users_store(AS_USER, *MEMBERS)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    if len(said["maps"][0]) > 1:
        pytest.skip("this user has a range of ids: another test is about those")
    assert said["owners"]["etc/f"] == [0, 0]


MOUNT_AS_USER = """
import os, sys
from minicontainer.images import layers, overlay, rootless
from minicontainer.images.store import Store
store = Store(sys.argv[1])
paths = layers.unpacked(store, store.image("image"))
place = sys.argv[1] + "/place"
for name in ("", "/upper", "/work", "/merged"):
    os.mkdir(place + name)
def look():
    overlay.mount(paths, place + "/merged", place + "/upper", place + "/work", user=True)
    found = [os.path.join(base, one)[len(place) + 8:] for base, some, others in
             os.walk(place + "/merged") for one in some + others]
    os.unlink(place + "/merged/etc/c")
    return sorted(found)
print(*rootless.inside(look, apart=True))
"""


@pytest.mark.rootless
def test_an_ordinary_user_mounts_layers(users_store, tmp_path: Path) -> None:
    if not check("user namespace").ok:
        pytest.skip(check("user namespace").detail)
    done = users_store(MOUNT_AS_USER, *LOWER, above=UPPER)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {os.fsdecode(name).lstrip("/") for name in VISIBLE - {b""}}


@needs_root
def test_owners_are_kept_through_the_ids_of_subuid(users_store, tmp_path: Path) -> None:
    if not shutil.which("newuidmap"):
        pytest.skip("newuidmap is not installed: apt install uidmap")
    done = users_store(AS_USER, *MEMBERS, ranges="700000:65536")
    assert done.returncode == 0, done.stderr
    assert '"etc/f": [33, 44]' in done.stdout
    files = list((tmp_path / "users/layers").rglob("f"))
    assert [(path.stat().st_uid, path.stat().st_gid) for path in files] == [(700032, 700043)]
    done = users_store(AS_USER, entry("f", uid=70_000), ranges="700000:65536")
    assert "sub[ug]id" in done.stderr
    assert "layer 1 of 1: 'f': invalid argument" in done.stderr
    script = AS_USER.replace("print(", "store.untag('image'); print(store.gc())#")
    done = users_store(script, *MEMBERS, ranges="700000:65536")
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path / "users/layers") == [], "files of others are removed, too"


@pytest.mark.rootless
def test_an_ordinary_user_makes_no_devices(users_store, tmp_path: Path) -> None:
    null = entry("dev/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)
    done = users_store(AS_USER, entry("f"), null)
    assert "layer 1 of 1: 'dev/null': a device node, which only root can make" in done.stderr
    assert os.listdir(tmp_path / "users/layers") == []


@pytest.mark.slow
@needs_root
def test_unpacking_keeps_up_with_tar(tmp_path: Path) -> None:
    """The budget, 1.3 of `tar -x`, measured side by side; judged loosely: others work here, too."""
    top = fresh(tmp_path / "t")
    for n in range(2000):
        (top / f"d{n % 50}").mkdir(exist_ok=True)
        (top / f"d{n % 50}" / f"f{n}").write_bytes((b"%d " % n) * 2000)
    archive = tmp_path / "a.tar.gz"
    subprocess.run(["tar", "-C", top, "-czf", archive, "."], check=True)
    theirs, ours = [], []
    for n in range(3):
        start = time.monotonic()
        target = fresh(tmp_path / f"theirs{n}")
        subprocess.run(["tar", "-C", target, "-xpf", archive], check=True)
        theirs.append(time.monotonic() - start)
        start = time.monotonic()
        unpack_bytes(archive.read_bytes(), tmp_path / f"ours{n}")
        ours.append(time.monotonic() - start)
    assert min(ours) < 2 * min(theirs), (ours, theirs)


@needs_root
def test_hard_links_stay_links(tmp_path: Path) -> None:
    unpack_bytes(
        tar(entry("a", b"x"), hardlink("b/c", "a"), hardlink("d", "./b/c")), tmp_path / "x"
    )
    assert (tmp_path / "x/a").stat().st_nlink == 3
