"""Base images that are made here, without any registry."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from minicontainer.images import bootstrap
from minicontainer.images.errors import ImageError
from minicontainer.images.store import Store
from tests.roots import COMMAND

ROOT = os.geteuid() == 0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "data/images"))


def command(store: Store, *words: str, prefix=()) -> subprocess.CompletedProcess:
    data = f"MINICONTAINER_DATA={Path(store.root).parent}"
    done = subprocess.run(
        [*(prefix or ["env"]), data, *COMMAND, *words], capture_output=True, text=True, timeout=280
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def need_busybox() -> str:
    return shutil.which("busybox") or pytest.skip("busybox is not installed: busybox-static")


def test_busybox_is_a_root_with_all_applets(store: Store) -> None:
    program = need_busybox()
    assert bootstrap.make(store, "busybox", "base:1", None, print) == "docker.io/library/base:1"
    image = store.image("base:1")
    assert image.config["config"]["Cmd"] == ["sh"]
    assert store.fsck() == []
    with tarfile.open(fileobj=io.BytesIO(bootstrap._busybox())) as archive:
        names = {member.name: member for member in archive}
    applets = subprocess.run([program, "--list-full"], capture_output=True, text=True).stdout
    assert len(applets.split()) > 100
    for name in applets.split():
        assert name in names, name
    assert names["usr/bin/env"].linkname == "../../bin/busybox"
    assert (names["tmp"].mode, names["root"].mode) == (0o1777, 0o700)


def test_the_same_busybox_gives_the_same_image(store: Store, tmp_path: Path, monkeypatch) -> None:
    need_busybox()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1600000000")
    other = Store(str(tmp_path / "other"))
    for one in (store, other):
        bootstrap.make(one, "busybox", "b", None, print)
    digests = {one.image("b").descriptor["digest"] for one in (store, other)}
    assert len(digests) == 1


@pytest.mark.skipif(not ROOT, reason="needs root: sudo ./workshop test")
def test_every_applet_that_is_a_link_runs(store: Store) -> None:
    need_busybox()
    assert command(store, "image", "bootstrap", "busybox").returncode == 0
    script = "for f in /bin/* /sbin/* /usr/[bs]*/*; do test -x $f || echo $f; done; id -un"
    assert command(store, "run", "busybox", "sh", "-c", script).stdout == "root\n"


def test_a_dynamic_busybox_is_refused(store: Store, tmp_path: Path, monkeypatch) -> None:
    shutil.copy("/bin/ls", tmp_path / "busybox")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ImageError, match="is not static"):
        bootstrap.make(store, "busybox", "b", None, print)
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    with pytest.raises(ImageError, match="not installed"):
        bootstrap.make(store, "busybox", "b", None, print)


def test_what_cannot_be_made_is_said(store: Store) -> None:
    for words, says in (
        (["image", "bootstrap", "plan9"], "busybox and debian"),
        (["image", "bootstrap"], "and what they take"),
        (["image", "boil"], "and what they take"),
    ):
        done = command(store, *words)
        assert (done.returncode, says in done.stderr) == (125, True), done.stderr


def test_mmdebstrap_that_fails_leaves_no_image(store: Store, tmp_path: Path, monkeypatch) -> None:
    fake = tmp_path / "mmdebstrap"
    fake.write_text("#!/bin/sh\nhead -c 3000 /dev/zero; echo no network >&2; exit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ImageError, match="mmdebstrap failed"):
        bootstrap.make(store, "debian", "d", None, print)
    assert store.names() == {}
    store.gc()
    assert os.listdir(f"{store.root}/blobs/sha256") == []


@pytest.mark.slow
@pytest.mark.skipif(not ROOT, reason="needs root: sudo ./workshop test")
def test_debian(store: Store) -> None:
    if not shutil.which("mmdebstrap"):
        pytest.skip("mmdebstrap is not installed: apt install mmdebstrap")
    done = command(store, "image", "bootstrap", "debian", "debian:here")
    if done.returncode and "apt-get update must work" in done.stderr:
        pytest.skip(f"Debian's packages are out of reach: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    script = ". /etc/os-release; echo $ID; dpkg -l apt | tail -1 | cut -c1-2; ls /dev/disk; id -un"
    done = command(store, "run", "debian:here", "-c", script)
    assert done.returncode == 127  # the image has no Entrypoint
    done = command(store, "run", "debian:here", "bash", "-c", script)
    assert done.stdout.split() == ["debian", "ii", "root"], done.stderr
