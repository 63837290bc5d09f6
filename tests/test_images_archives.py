"""Archives and the store itself, in both directions, with the tools that others use."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest

from minicontainer.images import layers, merge
from minicontainer.images.archive import import_tar, load, save
from minicontainer.images.errors import ImageError
from minicontainer.images.store import Store
from tests.image_layers import add_image, directory, entry, hardlink, listing, symlink, tar
from tests.registries import need, skopeo
from tests.roots import make_busybox_root

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: sudo ./workshop test")
NAME = "docker.io/library/made:1"
LOWER = [directory("etc"), entry("etc/a", b"1"), entry("etc/b", b"2", uid=5, gid=6), directory("d"),
         entry("d/x", b"x"), symlink("lnk", "etc/a"), hardlink("hard", "etc/a")]  # fmt: skip
UPPER = [directory("etc"), entry("etc/.wh.a"), entry("etc/c", b"3"), directory("d"),
         entry("d/.wh..wh..opq"), entry("d/y", b"y", mode=0o4755)]  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def made(store: Store) -> Store:
    """A store with an image of two layers."""
    add_image(store, NAME, [tar(*LOWER), tar(*UPPER)], Env=["A=1"], Cmd=["/bin/sh"], User="5")
    return store


def umoci(*words: str | Path) -> str:
    program = need("umoci", "umoci")
    done = subprocess.run([program, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def tree(store: Store, name: str, place: Path, **words) -> dict:
    """What a container of the image would see."""
    paths = layers.unpacked(store, store.image(name))
    place.mkdir()
    merge.copy(paths, "trusted.overlay.", str(place))
    return listing(place, **words)


def written(store: Store, place: Path, *names: str) -> Path:
    place.write_bytes(b"".join(save(store, list(names or (NAME,)))))
    return place


# --- what we write, others read -------------------------------------------------------------------


def test_skopeo_reads_all_that_we_write(made: Store, tmp_path: Path) -> None:
    image = made.image(NAME)
    archive = written(made, tmp_path / "a.tar")
    for source in (f"oci:{made.root}:{NAME}", f"oci-archive:{archive}:{NAME}"):
        assert json.loads(skopeo("inspect", source))["Digest"] == image.descriptor["digest"]
        assert json.loads(skopeo("inspect", "--raw", source)) == image.manifest
    config = json.loads(skopeo("inspect", "--config", f"docker-archive:{archive}:{NAME}"))
    assert config["rootfs"]["diff_ids"] == image.diff_ids
    for n, source in enumerate((f"oci-archive:{archive}:{NAME}", f"docker-archive:{archive}:{NAME}",
                                f"oci:{made.root}:{NAME}")):  # fmt: skip
        skopeo("copy", "-q", source, f"dir:{tmp_path}/dir{n}")  # which checks every digest


@needs_root
def test_umoci_unpacks_our_image_to_the_same_tree(made: Store, tmp_path: Path) -> None:
    umoci("unpack", "--image", f"{made.root}:{NAME}", tmp_path / "bundle")
    theirs = listing(tmp_path / "bundle/rootfs", directory_times=False)
    assert theirs == tree(made, NAME, tmp_path / "ours", directory_times=False)


def test_the_same_images_give_the_same_archive(made: Store, tmp_path: Path) -> None:
    first = written(made, tmp_path / "1").read_bytes()
    other = Store(str(tmp_path / "other"))
    assert load(other, io.BytesIO(first)) == [NAME]
    assert written(other, tmp_path / "2").read_bytes() == first
    assert other.image(NAME).descriptor["digest"] == made.image(NAME).descriptor["digest"]
    blobs = {path.name for path in Path(other.root, "blobs/sha256").iterdir()}
    image = made.image(NAME)
    needed = [image.descriptor, image.manifest["config"], *image.layers]
    assert blobs == {one["digest"].partition(":")[2] for one in needed}, "the lists stay out"


def test_an_image_that_goes_while_it_is_saved(tmp_path: Path) -> None:
    """Another process removes it, and collects its blobs."""
    store = Store(str(tmp_path / "store"))
    add_image(store, "mine", [tar(entry("file", b"x" * 100_000))])
    parts = save(store, ["mine"])
    next(parts)
    store.untag("mine")
    store.gc()
    with pytest.raises(ImageError, match="is not in the store any more"):
        list(parts)


# --- what others write, we read -------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("form", ["oci-archive", "docker-archive"])
@pytest.mark.parametrize("compression", ["", "gzip", "zstd"])
def test_an_archive_of_skopeo_is_the_same_image(
    made: Store, tmp_path: Path, form: str, compression: str
) -> None:
    image, archive = made.image(NAME), tmp_path / "a.tar"
    words = ["--dest-compress-format", compression] if compression else []
    if form == "docker-archive" and compression == "zstd":
        words = []
    skopeo("copy", "-q", *words, f"oci:{made.root}:{NAME}", f"{form}:{archive}:made:1")
    other = Store(str(tmp_path / "other"))
    assert load(other, io.BytesIO(archive.read_bytes())) == [NAME]
    found = other.image(NAME)
    assert found.diff_ids == image.diff_ids
    assert found.config["config"] == image.config["config"]
    assert other.fsck() == []
    assert tree(other, NAME, tmp_path / "x") == tree(made, NAME, tmp_path / "y")
    packed = subprocess.run(["gzip", "-c", archive], capture_output=True, check=True).stdout
    third = Store(str(tmp_path / "third"))
    load(third, io.BytesIO(packed))
    assert third.names() == other.names()


@needs_root
def test_layers_of_umoci(store: Store, tmp_path: Path) -> None:
    """umoci's layers have no entries for directories above what changed."""
    layout, bundle = tmp_path / "oci", tmp_path / "bundle"
    umoci("init", "--layout", layout)
    umoci("new", "--image", f"{layout}:one")
    umoci("unpack", "--image", f"{layout}:one", bundle)
    make_busybox_root(bundle / "rootfs2")
    shutil.copytree(bundle / "rootfs2", bundle / "rootfs", symlinks=True, dirs_exist_ok=True)
    (bundle / "rootfs/tmp/deep").mkdir(parents=True)
    (bundle / "rootfs/tmp").chmod(0o1777)
    umoci("repack", "--image", f"{layout}:one", bundle)
    shutil.rmtree(bundle)
    umoci("unpack", "--image", f"{layout}:one", bundle)
    (bundle / "rootfs/tmp/deep/file").write_text("new")
    (bundle / "rootfs/bin/sh").unlink()
    umoci("repack", "--image", f"{layout}:two", bundle)
    skopeo("copy", "-q", f"oci:{layout}:two", f"oci-archive:{tmp_path}/two.tar:two")
    with open(tmp_path / "two.tar", "rb") as file:
        assert load(store, file) == ["docker.io/library/two:latest"]
    found = tree(store, "two", tmp_path / "ours", times=False)
    assert found == listing(bundle / "rootfs", times=False)
    assert found[b"tmp"][0] == "0o41777"
    assert b"bin/sh" not in found


PODMAN = ["--cgroup-manager=cgroupfs", "--storage-driver=vfs", "--events-backend=file"]


@pytest.fixture
def podman():
    program = need("podman", "podman")
    # podman refuses a runroot of more than 50 characters
    place = tempfile.mkdtemp(prefix="p")
    base = [program, *PODMAN, "--root", f"{place}/root", "--runroot", f"{place}/run",
            "--tmpdir", f"{place}/tmp"]  # fmt: skip

    def run(*words: str | Path) -> str:
        done = subprocess.run([*base, *map(str, words)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    yield run
    run("rmi", "--all", "--force")
    shutil.rmtree(place)


@needs_root
@pytest.mark.slow
def test_podman_loads_and_saves(made: Store, tmp_path: Path, podman) -> None:
    archive = written(made, tmp_path / "a.tar")
    assert NAME in podman("load", "-i", archive)
    seen = json.loads(podman("inspect", NAME))[0]
    image = made.image(NAME)
    assert seen["RootFS"]["Layers"] == image.diff_ids
    assert seen["Config"]["User"] == "5"
    mounted = podman("image", "mount", NAME).strip()
    try:
        theirs = listing(mounted, directory_times=False)
    finally:
        podman("image", "umount", NAME)
    ours = tree(made, NAME, tmp_path / "ours", directory_times=False)
    assert theirs == {**ours, b"": theirs[b""]}  # podman's own mode of "/"
    for form in ("oci-archive", "docker-archive"):
        podman("save", "--format", form, "-o", tmp_path / form, NAME)
        other = Store(f"{tmp_path}/{form}-store")
        with open(tmp_path / form, "rb") as file:
            assert load(other, file) == [NAME]
        assert other.image(NAME).diff_ids == image.diff_ids
        assert tree(other, NAME, Path(f"{tmp_path}/{form}-tree"), directory_times=False) == ours
        assert other.fsck() == []


@needs_root
@pytest.mark.slow
def test_podman_builds_an_image_that_we_read(store: Store, tmp_path: Path, podman) -> None:
    make_busybox_root(tmp_path / "context/root")
    (tmp_path / "context/Containerfile").write_text(
        'FROM scratch\nCOPY root /\nCOPY --chown=7:8 Containerfile /a/b/c\nENV X=y\nCMD ["sh"]\n'
    )
    podman("build", "--isolation=chroot", "-t", "built:2", tmp_path / "context")
    podman("save", "-o", tmp_path / "b.tar", "built:2")
    with open(tmp_path / "b.tar", "rb") as file:
        assert load(store, file) == ["localhost/built:2"]
    image = store.image("localhost/built:2")
    assert "X=y" in image.config["config"]["Env"]
    found = tree(store, "localhost/built:2", tmp_path / "ours")
    assert found[b"a/b/c"][1:3] == (7, 8)
    assert found[b"bin/busybox"][3] is not None


# --- plain tars -----------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("compressor", [["cat"], ["gzip"], ["zstd", "-q"], ["xz"], ["bzip2"]])
def test_import_of_a_root_file_system(store: Store, tmp_path: Path, compressor) -> None:
    need(compressor[0], compressor[0])
    root = make_busybox_root(tmp_path / "root")
    plain = subprocess.run(
        ["tar", "--numeric-owner", "-C", root, "-c", "."], capture_output=True, check=True
    ).stdout
    data = subprocess.run([*compressor, "-c"] if compressor != ["cat"] else compressor,
                          input=plain, capture_output=True, check=True).stdout  # fmt: skip
    name = import_tar(store, io.BytesIO(data), "base", {"Cmd": ["sh"]})
    assert name == "docker.io/library/base:latest"
    assert store.image("base").config["config"] == {"Cmd": ["sh"]}
    assert tree(store, "base", tmp_path / "x", times=False) == listing(root, times=False)
    exported = b"".join(merge.tar(layers.unpacked(store, store.image("base")), "trusted.overlay."))
    (tmp_path / "again").mkdir()
    subprocess.run(["tar", "-C", tmp_path / "again", "-xp"], input=exported, check=True)
    assert listing(tmp_path / "again", times=False) == listing(root, times=False)
    assert store.fsck() == []


def test_what_is_no_tar_is_not_imported(store: Store) -> None:
    for data in (b"x" * 3000, tar(entry("../x"))):
        with pytest.raises(ImageError, match="layer 1 of 1"):
            import_tar(store, io.BytesIO(data), "x")
    assert store.names() == {}
    assert os.listdir(f"{store.root}/blobs/sha256") == []
    with pytest.raises(ImageError, match="image name"):
        import_tar(store, io.BytesIO(b""), "NO GOOD")


def test_names_in_archives(made: Store, tmp_path: Path) -> None:
    two = written(made, tmp_path / "a", NAME, NAME)
    assert load(Store(str(tmp_path / "s")), io.BytesIO(two.read_bytes())) == [NAME, NAME]
    with tarfile.open(two) as archive:  # without the names: as `skopeo copy x oci-archive:f` does
        index = json.load(archive.extractfile("index.json"))  # type: ignore[arg-type]
        del index["manifests"][1], index["manifests"][0]["annotations"]
        members = []
        for one in archive:
            if one.name not in ("index.json", "manifest.json"):
                file = archive.extractfile(one)
                members.append((one, file.read() if file else b""))
    nameless = tar(entry("index.json", json.dumps(index).encode()), *members)
    other = Store(str(tmp_path / "t"))
    with pytest.raises(ImageError, match="an image without a name"):
        load(other, io.BytesIO(nameless))
    assert load(other, io.BytesIO(nameless), "given") == ["docker.io/library/given:latest"]
