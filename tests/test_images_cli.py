"""The words for images, as people type them: output, JSON, errors with a way out."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from minicontainer.images.store import Store
from tests.image_layers import add_image, entry, tar
from tests.roots import COMMAND, make_busybox_root

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: sudo ./workshop test")
BASE, TOP = tar(entry("a", b"x" * 5000)), tar(entry("b", b"y" * 3000))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The directory that holds the store, with two images on one base."""
    store = Store(str(tmp_path / "data/images"))
    add_image(store, "docker.io/library/base:1", [BASE])
    add_image(store, "docker.io/library/app:1", [BASE, TOP], Cmd=["sh"])
    return tmp_path / "data"


@pytest.fixture
def run(data: Path):
    def call(*words: str | Path, status: int = 0, input: bytes | None = None):
        done = subprocess.run(
            [*COMMAND, *map(str, words)], input=input, capture_output=True,
            env={**os.environ, "MINICONTAINER_DATA": str(data)},
        )  # fmt: skip
        assert done.returncode == status, (done.stdout, done.stderr)
        return done.stdout if not status else done.stderr.decode()

    return call


def test_images_are_listed(run, data: Path) -> None:
    lines = run("images").decode().splitlines()
    assert [line.split()[0] for line in lines] == [
        "NAME", "docker.io/library/app:1", "docker.io/library/base:1",
    ]  # fmt: skip
    found = json.loads(run("images", "--json"))
    image = Store(f"{data}/images").image("app:1")
    assert found[0]["id"] == image.config_digest
    assert found[0]["size"] == len(BASE) + len(TOP)
    one = json.loads(run("inspect", "app:1"))[0]
    assert (one["config"]["config"], one["digest"]) == ({"Cmd": ["sh"]}, image.descriptor["digest"])
    assert one["names"] == ["docker.io/library/app:1"]


def test_the_tree_shows_shared_layers_once(run) -> None:
    lines = run("tree").decode().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("└─ ")
    assert "docker.io/library/base:1" in lines[0]
    assert lines[1].startswith("   └─ ")
    assert "docker.io/library/app:1" in lines[1]
    assert lines[2] == "20.5 kB in all; 10.2 kB more if images shared no layers"
    nested = json.loads(run("tree", "--json"))
    assert nested[0]["images"] == ["docker.io/library/base:1"]
    assert nested[0]["layers"][0]["images"] == ["docker.io/library/app:1"]


def test_names_come_and_go(run, data: Path) -> None:
    run("tag", "app:1", "localhost:5000/mine/app")
    assert "localhost:5000/mine/app:latest" in Store(f"{data}/images").names()
    digest = json.loads(run("inspect", "app:1"))[0]["digest"]
    said = run("rmi", digest[7:19]).decode()
    assert said.count("untagged") == 2
    assert "removed 3 blobs" in said, "a layer, a config, a manifest; the base stays"
    assert "no such image: app:1" in run("rmi", "app:1", status=125)
    assert run("fsck").decode().endswith(": consistent\n")
    assert json.loads(run("gc", "--json")) == {"blobs": 0, "layers": 0, "bytes": 0}


def test_damage_is_told(run, data: Path) -> None:
    store = Store(f"{data}/images")
    Path(store.path(store.image("app:1").layers[1]["digest"])).write_bytes(b"damaged")
    assert len(json.loads(subprocess.run(
        [*COMMAND, "fsck", "--json"], capture_output=True,
        env={**os.environ, "MINICONTAINER_DATA": str(data)},
    ).stdout)) == 2  # fmt: skip
    run("fsck", status=1)


@needs_root
def test_in_and_out(run, data: Path, tmp_path: Path) -> None:
    root = make_busybox_root(tmp_path / "root")
    plain = subprocess.run(["tar", "-C", root, "-c", "."], capture_output=True, check=True).stdout
    assert run("import", "-", "busy", input=plain) == b"docker.io/library/busy:latest\n"
    (tmp_path / "r.tar").write_bytes(plain)
    run("import", tmp_path / "r.tar", "busy:2")
    assert "import r.tar" in run("history", "busy:2").decode()
    listed = subprocess.run(["tar", "-t"], input=run("export", "busy"), capture_output=True)
    assert b"bin/sh\n" in listed.stdout
    saved = run("save", "busy", "app:1")
    run("save", "-o", tmp_path / "saved.tar", "busy", "app:1")
    assert (tmp_path / "saved.tar").read_bytes() == saved
    run("rmi", "busy", "app:1")
    loaded = run("load", "-i", tmp_path / "saved.tar").decode().split()
    assert loaded == ["docker.io/library/busy:latest", "docker.io/library/app:1"]
    assert run("load", input=saved).decode().split() == loaded
    assert sorted(os.listdir(tmp_path)) == ["data", "r.tar", "root", "saved.tar"]


@pytest.mark.parametrize(("words", "told"), [
    (["inspect"], "inspect takes IMAGE [IMAGE...]\n  help: minicontainer inspect --help"),
    (["tag", "a"], "tag takes IMAGE NAME"),
    (["tag", "app:1", "Not Good"], "image name"),
    (["hsitory"], "unknown command 'hsitory'; did you mean history?"),
    (["load", "-i", "/nowhere"], "load: /nowhere: no such file or directory"),
    (["save", "-o", "/nowhere/x", "app:1"], "save: /nowhere/x"),
    (["history", "nope"], "no such image: nope\n  fix: minicontainer images"),
    (["images", "x"], "images takes no arguments"),
    (["export", "--output"], "needs a value"),
])  # fmt: skip
def test_errors_say_what_to_do(run, words: list[str], told: str) -> None:
    assert told in run(*words, status=125)


def test_help_of_each_word_has_examples(run) -> None:
    usage = run("--help").decode()
    for word in ("images", "inspect", "history", "tree", "tag", "rmi", "save", "load", "import",
                 "export", "gc", "fsck"):  # fmt: skip
        assert f"\n  {word} " in usage
        text = run(word, "--help").decode()
        assert text.startswith(f"usage: minicontainer {word} ")
        assert f"\nexamples:\n  minicontainer {word}" in text


def test_what_strangers_wrote_does_not_reach_the_terminal(run, data: Path) -> None:
    store = Store(f"{data}/images")
    image = store.image("app:1")
    evil = {**image.config, "history": [{"created_by": "\x1b[2J\x07evil\r" + "x" * 99}]}
    with store.lease():
        config = store.add(
            json.dumps(evil).encode(), media_type=image.manifest["config"]["mediaType"]
        )
        manifest = json.dumps({**image.manifest, "config": config}).encode()
        store.tag("evil", store.add(manifest, media_type=image.descriptor["mediaType"]))
    for word in (("history", "evil"), ("tree",), ("images",)):
        text = run(*word).decode()
        assert "\x1b" not in text
        assert "\x07" not in text
    assert "evil" in run("history", "evil").decode()
