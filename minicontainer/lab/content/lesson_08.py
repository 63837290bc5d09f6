"""Lesson 08, images: its predictions, and the checks of its exercises."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable

from ..catalogue import Exercise, NotYet
from ..judging import SECONDS, fact, must_run
from ..workbench import Workbench

PREDICTIONS = {"08.a": "b", "08.b": "a", "08.c": "b", "08.d": "c"}

LAYOUT = "/srv/x"
REF = "org.opencontainers.image.ref.name"


def _put(data: bytes) -> dict:
    digest = hashlib.sha256(data).hexdigest()
    os.makedirs(f"{LAYOUT}/blobs/sha256", exist_ok=True)
    with open(f"{LAYOUT}/blobs/sha256/{digest}", "wb") as file:
        file.write(data)
    return {"digest": f"sha256:{digest}", "size": len(data), "mediaType": "of no account"}


# --- 08.1: is it all still true? ----------------------------------------------------------------


def _damage() -> dict[str, str]:
    """Blobs, some of them damaged in different ways; digest -> how."""
    whole = [bytes(range(256)) * 1000, b"", b"{}", b"text\r\n"]
    how = {}
    for content in whole:
        how[_put(content)["digest"]] = "is as it was"
    for content, damaged, words in (
        (b"a" * 100_000, b"a" * 99_999 + b"b", "has one other byte, and the same size"),
        (b"b" * 100_000, b"b" * 50_000, "is cut off in the middle"),
        (b"c" * 10, b"c" * 10 + b"\n", "has a line end too many"),
    ):
        digest = _put(content)["digest"]
        with open(f"{LAYOUT}/blobs/sha256/{digest[7:]}", "wb") as file:
            file.write(damaged)
        how[digest] = words
    return how


def _damaged(bench: Workbench, answer: Callable) -> str:
    how = fact(bench.call(_damage))
    found = must_run(bench.call(answer, LAYOUT, timeout=SECONDS), "damaged")
    if not isinstance(found, list):
        raise NotYet(f"damaged returned {type(found).__name__}; a list of digests is wanted.")
    if any(f"sha256:{one}" in how for one in found):
        raise NotYet("A digest begins with the name of its function: sha256:, then the digits.")
    for digest, words in how.items():
        if (words != "is as it was") != (digest in found):
            said = "has" if digest in found else "lacks"
            raise NotYet(f"Your list {said} {digest[:19]}…, and that blob {words}.")
    if found != sorted(found) or len(found) != 3:
        raise NotYet("Three blobs are damaged; the list is to be sorted, each of them in it once.")
    return "Three were damaged, four not; one byte among 100 000 was enough."


# --- 08.2: the deleted password -----------------------------------------------------------------


def _tar(files: dict[str, str], packed: bool) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return gzip.compress(buffer.getvalue()) if packed else buffer.getvalue()


def _leak() -> None:
    """Two images; app has a password in its second and third layer, and its fourth deletes it."""
    base = _put(_tar({"etc/os": "debian\n", "etc/password": "not this\n"}, True))
    other = [base, _put(_tar({"etc/password": "of the other image\n"}, False))]
    app = [
        base,
        _put(_tar({"etc/password": "hunter2\n"}, True)),
        _put(_tar({"etc/password": "hunter3\n", "app": "1\n"}, False)),
        _put(_tar({"etc/.wh.password": "", "app": "2\n"}, True)),
    ]
    entries = []
    for name, layers in (("other:1", other), ("app:1", app), ("app:10", other)):
        manifest = _put(json.dumps({"schemaVersion": 2, "layers": layers}).encode())
        entries.append({**manifest, "annotations": {REF: name}})
    with open(f"{LAYOUT}/index.json", "w") as file:
        json.dump({"schemaVersion": 2, "manifests": entries}, file)


def _unearth(bench: Workbench, answer: Callable) -> str:
    fact(bench.call(_leak))

    def ask(path: str):
        return must_run(bench.call(answer, LAYOUT, "app:1", path, timeout=SECONDS), "unearth")

    found = ask("etc/password")
    if isinstance(found, bytes):
        raise NotYet("The content is wanted as text: decode() makes text of bytes.")
    if found == "of the other image\n":
        raise NotYet("This is another image's. index.json has three; look at their annotations.")
    if found == "":
        raise NotYet(
            "You found no etc/password. The last layer has only its whiteout, but the layers below "
            "are there as they were."
        )
    if found in ("hunter2\n", "not this\n"):
        raise NotYet("A higher layer has the file, too. The manifest lists the lowest layer first.")
    if found != "hunter3\n":
        raise NotYet(f"etc/password of app:1 is 'hunter3\\n' there; you returned {found!r}.")
    for path, content in (("app", "2\n"), ("etc/os", "debian\n"), ("etc/nothing", "")):
        if (found := ask(path)) != content:
            raise NotYet(f"For {path} the answer is {content!r}; you returned {found!r}.")
    return "Deleted in the topmost layer, and still there for everybody who has the image."


# --- 08.3: the same again -----------------------------------------------------------------------

FILES = {"b/deep/file": 0o644, "a": 0o755, "b/c": 0o600, "b-c": 0o644, "z": 0o644}


def _write_tree(top: str, backwards: bool, when: int) -> None:
    for name in sorted(FILES, reverse=backwards):
        os.makedirs(os.path.dirname(f"{top}/{name}"), exist_ok=True)
        with open(f"{top}/{name}", "w") as file:
            file.write(f"this is {name}\n")
        os.chmod(f"{top}/{name}", FILES[name])
    for directory, _, names in os.walk(top):
        for name in (".", *names):
            os.utime(f"{directory}/{name}", (when, when))


def _archive(bench: Workbench, answer: Callable) -> str:
    made = []
    for top, backwards, when in (("/srv/x", False, 10**9), ("/srv/y", True, 10**9 + 1)):
        fact(bench.call(_write_tree, top, backwards, when))
        data = must_run(bench.call(answer, top, timeout=SECONDS), "archive")
        if not isinstance(data, bytes):
            raise NotYet(f"archive returned a {type(data).__name__}; bytes are wanted.")
        made.append(data)
    for data in made:
        _look_into(data)
    if made[0] != made[1]:
        raise NotYet(_difference(*made))
    fact(bench.shell("echo changed > /srv/y/z"))
    if must_run(bench.call(answer, "/srv/y", timeout=SECONDS), "archive") == made[0]:
        raise NotYet("A file was changed, and the tar is the same.")
    return "The same files, the same bytes: now a digest says whether anything was changed."


def _entries(data: bytes) -> list[tarfile.TarInfo]:
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            return tar.getmembers()
    except tarfile.TarError as error:
        raise NotYet(f"The bytes are no tar: {error}.") from None


def _look_into(data: bytes) -> None:
    """Whether all is in the tar that has to be. Raises NotYet."""
    entries = {os.path.normpath(entry.name): entry for entry in _entries(data)}
    for name in (*FILES, "b", "b/deep"):
        if name not in entries:
            there = ", ".join(sorted(entries)[:3])
            raise NotYet(f"The tar has no {name}, relative to the directory. It has: {there}, …")
    if len(_entries(data)) > len(FILES) + 3:
        raise NotYet("Some entries are there twice: a directory brings what is in it, by default.")
    for name, mode in FILES.items():
        if entries[name].mode & 0o777 != mode:
            raise NotYet(
                f"{name} has the mode {mode:o}, in the tar {entries[name].mode & 0o777:o}."
            )
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        file = tar.extractfile(entries["b/c"])
        if not file or file.read() != b"this is b/c\n":
            raise NotYet("The content of b/c is not in the tar.")


def _difference(one: bytes, other: bytes) -> str:
    first, second = _entries(one), _entries(other)
    what = "Is it compressed, with a time?"
    if [entry.name for entry in first] != [entry.name for entry in second]:
        what = "It is the order of the entries: a directory lists its files in any, so sort them."
    elif [entry.mtime for entry in first] != [entry.mtime for entry in second]:
        what = "It is the time of their last change."
    return f"Two directories with the same files give different bytes. {what}"


EXERCISES = {
    "08.1": Exercise(
        "damaged",
        _damaged,
        (
            "A blob's file name is the digest that its content must have.",
            "The files are in blobs/sha256 below the layout. Read each as bytes, and let "
            "hashlib.sha256(...).hexdigest() make the digits.",
            "Go through Path(layout, 'blobs/sha256').iterdir(). Where the digits are not "
            "path.name, put 'sha256:' and path.name into the list. At the end, sort it.",
        ),
    ),
    "08.2": Exercise(
        "unearth",
        _unearth,
        (
            "Three steps: index.json to the manifest of that name, the manifest to its layers, the "
            "layers to their files.",
            "A descriptor's blob lies at blobs/, then the digest with a slash in place of the "
            "colon. The name is entry['annotations'][...]; compare the whole of it.",
            "Go through the layers from the last to the first (reversed). Open each with "
            "tarfile.open; if path is among its getnames(), read extractfile(path) and decode it.",
        ),
    ),
    "08.3": Exercise(
        "archive",
        _archive,
        (
            "What differs between two directories with the same files? The order in which they are "
            "listed, times, owners.",
            "Go through sorted(Path(directory).rglob('*')), and add each entry without what is in "
            "it: recursive=False.",
            "The filter sets mtime, uid and gid to 0, uname and gname to an empty text, and "
            "returns the entry. The tar is written to an io.BytesIO, without compression.",
        ),
    ),
}
