"""The words of the command `minicontainer` for images that are here."""

from __future__ import annotations

import os

from .images.errors import ImageError
from .images.store import Image, Store
from .options import HELP, Option, UsageError, describe, parse
from .runtime.errors import kernel_words

_JSON = Option("--json", help="as JSON, for machines", default=False)
_OUTPUT = Option("--output", "-o", metavar="FILE", help="write there instead of to stdout")


class Command:
    """One word: its options, what it takes, and what does it."""

    def __init__(self, work, takes: str, about: str, examples: str, *options: Option) -> None:
        self.work = work
        self.takes = takes
        self.about = about
        self.examples = examples
        self.options = [*options, HELP]

    def __call__(self, words: list[str]) -> int:
        options, rest = parse(words, self.options)
        name = self.work.__name__.strip("_")
        if options["help"]:
            usage = f"usage: minicontainer {name} [OPTIONS] {self.takes}".rstrip()
            examples = "\n".join(f"  minicontainer {line}" for line in self.examples.splitlines())
            print(f"{usage}\n\n{self.about}\n\n{describe(self.options)}\n\nexamples:\n{examples}")
            return 0
        least = sum(word[0].isupper() for word in self.takes.split())
        most = 1000 if self.takes.endswith("...]") else len(self.takes.split())
        if not least <= len(rest) <= most:
            raise UsageError(f"{name} takes {self.takes or 'no arguments'}")
        try:
            return self.work(Store(), options, rest) or 0
        except BrokenPipeError:
            raise
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise ImageError(f"{name}: {where}{kernel_words(error.errno or 0)}") from error


def images(store: Store, options: dict, _: list[str]) -> None:
    """`minicontainer images`."""
    rows: list[dict] = []
    unusable: list[dict] = []
    for name, pointer in store.names().items():
        try:
            image = store.image(name)
        except ImageError as error:  # of another platform, or damaged: to be seen all the same
            unusable.append({"name": name, "digest": pointer["digest"], "error": error.message})
            continue
        rows.append({
            "name": name, "id": image.config_digest, "digest": pointer["digest"],
            "created": image.config.get("created", ""), "layers": len(image.layers),
            "size": sum(layer["size"] for layer in image.layers),
        })  # fmt: skip
    if options["json"]:
        return _print_json([*rows, *unusable])
    print_table([
        ("NAME", "IMAGE ID", "CREATED", "LAYERS", "SIZE"),
        *[(row["name"], _short(row["id"]), row["created"][:10], str(row["layers"]),
           _bytes(row["size"])) for row in rows],
    ])  # fmt: skip
    for row in unusable:
        print(f"{row['name']}: {row['error']}")
    return None


def inspect(store: Store, _: dict, names: list[str]) -> None:
    """`minicontainer inspect`."""
    found = []
    for name in names:
        image = store.image(name)
        found.append({
            "names": _names(store, image.descriptor["digest"]), "id": image.config_digest,
            "digest": image.descriptor["digest"], "config": image.config,
            "manifest": image.manifest,
        })  # fmt: skip
    _print_json(found)


def history(store: Store, options: dict, names: list[str]) -> None:
    """`minicontainer history`: the newest step first."""
    image = store.image(names[0])
    rows = _steps(image)
    if options["json"]:
        return _print_json(rows)
    print_table([
        ("CREATED", "SIZE", "CREATED BY", "COMMENT"),
        *[(row["created"][:10], _bytes(row["size"]), _line(row["created_by"]), row["comment"])
          for row in reversed(rows)],
    ])  # fmt: skip
    return None


def tree(store: Store, options: dict, _: list[str]) -> None:
    """`minicontainer tree`: layers that images share are shown once."""
    root: dict = {"layers": {}, "images": []}
    for name in store.names():
        image = store.image(name)
        node = root
        for layer, step in zip(image.layers, _full_steps(image), strict=True):
            new = {"digest": layer["digest"], "size": layer["size"], "created_by": step,
                   "images": [], "layers": {}}  # fmt: skip
            node = node["layers"].setdefault(layer["digest"], new)
        node["images"].append(name)
    if options["json"]:
        return _print_json(_as_lists(root)["layers"])
    _print_nodes(root, "")
    once, apart = _sizes(root)
    shared = apart - once
    print(f"{_bytes(once)} in all; {_bytes(shared)} more if images shared no layers")
    return None


def rmi(store: Store, _: dict, names: list[str]) -> None:
    """`minicontainer rmi`."""
    for name in names:
        for full in _full_names(store, name):
            store.untag(full)
            print(f"untagged {full}")
    gc(store, {"json": False}, [])


def gc(store: Store, options: dict, _: list[str]) -> None:
    """`minicontainer gc`."""
    gone = store.gc()
    if options["json"]:
        return _print_json(gone)
    print(f"removed {gone['blobs']} blobs, {_bytes(gone['bytes'])}; {gone['layers']} unpacked")
    return None


def fsck(store: Store, options: dict, _: list[str]) -> int:
    """`minicontainer fsck`: the exit status is 1 when something is wrong."""
    from .engine import containers

    wrong = [*store.fsck(), *containers.check()]
    if options["json"]:
        _print_json(wrong)
    else:
        for line in wrong:
            print(line)
        print(f"{store.root}: {len(wrong)} problems" if wrong else f"{store.root}: consistent")
    return bool(wrong)


def tag(store: Store, _: dict, names: list[str]) -> None:
    """`minicontainer tag`."""
    from .images.reference import parse as parse_name

    store.tag(str(parse_name(names[1])), store.resolve(names[0]))


def save(store: Store, options: dict, names: list[str]) -> None:
    """`minicontainer save`."""
    from .images import archive

    full = [one for name in names for one in _full_names(store, name)]
    _write(options, archive.save(store, full))


def load(store: Store, options: dict, _: list[str]) -> None:
    """`minicontainer load`."""
    from .images import archive

    with _open(options["input"]) as file:
        for name in archive.load(store, file, options["name"] or ""):
            print(name)


def import_(store: Store, _: dict, words: list[str]) -> None:
    """`minicontainer import`."""
    from .images import archive

    with _open(None if words[0] == "-" else words[0]) as file:
        source = os.path.basename(words[0])
        print(archive.import_tar(store, file, words[1], created_by=f"import {source}"))


def export(store: Store, options: dict, names: list[str]) -> None:
    """`minicontainer export`."""
    from .images import layers, merge, rootless

    with store.lease() as lease:
        image = store.image(names[0])
        lease.add(image.descriptor["digest"])
        paths = layers.unpacked(store, image)
        prefix = rootless.overlay_prefix()
        rootless.inside(lambda: _write(options, merge.tar(paths, prefix)))


def command(work, takes: str, summary: str, about: str, examples: str, *options: Option):
    return Command(work, takes, about, examples, *options), summary


# As cli.COMMANDS has them.
COMMANDS = {
    "images": command(
        images, "", "list the images that are here",
        "List the images that are here.",
        "images\nimages --json", _JSON,
    ),
    "inspect": command(
        inspect, "IMAGE [IMAGE...]", "show all that is known of an image",
        "Show all that is known of images, as JSON.",
        "inspect debian:12 | jq '.[0].config.config'",
    ),
    "history": command(
        history, "IMAGE", "show the steps that an image was made in",
        "Show the steps that an image was made in, the newest first.",
        "history debian:12", _JSON,
    ),
    "tree": command(
        tree, "", "show layers, and which images share them",
        "Show the layers of all images as a tree: each is built on the one it hangs on,\n"
        "and is stored once, however many images have it.",
        "tree", _JSON,
    ),
    "tag": command(
        tag, "IMAGE NAME", "give an image one more name",
        "Give an image one more name.",
        "tag debian:12 base:1",
    ),
    "rmi": command(
        rmi, "IMAGE [IMAGE...]", "remove an image",
        "Take a name away, and what no other name needs. By digest: all names of that image.",
        "rmi debian:12",
    ),
    "save": command(
        save, "IMAGE [IMAGE...]", "write images into a tar file",
        "Write images into one tar file, which `load`, docker, podman and skopeo (oci-archive:\n"
        "and docker-archive:) read.",
        "save -o debian.tar debian:12\nsave app:1 app:2 | ssh host minicontainer load", _OUTPUT,
    ),
    "load": command(
        load, "", "read images from a tar file",
        "Read images from a tar file that `save`, docker, podman or skopeo wrote.",
        "load -i debian.tar\nload < debian.tar.gz",
        Option("--input", "-i", metavar="FILE", help="read that instead of stdin"),
        Option("--name", metavar="NAME", help="for an image that has none in the file"),
    ),
    "import": command(
        import_, "FILE NAME", "make an image from a tar of a root file system",
        "Make an image of one layer from a tar of a root file system; - is stdin; gzip,\n"
        "zstd, xz and bzip2 are recognised.",
        "import root.tar.xz base:1\nimport - base:1 < root.tar",
    ),
    "export": command(
        export, "IMAGE", "write an image's root file system as a tar",
        "Write the root file system that a container of the image would see, as a tar.",
        "export -o root.tar debian:12\nexport debian:12 | tar -t", _OUTPUT,
    ),
    "gc": command(
        gc, "", "remove what no image needs",
        "Remove what no image, container or running command needs.",
        "gc", _JSON,
    ),
    "fsck": command(
        fsck, "", "check the store of images",
        "Read all that is stored and say what is wrong with it; status 1 when something is.\n"
        "Of layers that are unpacked it sees that they are there, where a container needs them;\n"
        "not what is in them: what `gc` removes is unpacked anew from what was checked.",
        "fsck", _JSON,
    ),
}  # fmt: skip


def _steps(image: Image) -> list[dict]:
    sizes = iter(image.layers)
    steps = image.config.get("history") or [{} for _ in image.layers]
    return [
        {
            "created": step.get("created", ""),
            "created_by": step.get("created_by", ""),
            "comment": step.get("comment", ""),
            "size": 0 if step.get("empty_layer") else next(sizes, {"size": 0})["size"],
        }
        for step in steps
    ]


def _full_steps(image: Image) -> list[str]:
    """For each layer, what made it."""
    history = image.config.get("history") or []
    full = [step.get("created_by", "") for step in history if not step.get("empty_layer")]
    return (full + [""] * len(image.layers))[: len(image.layers)]


def _print_nodes(node: dict, indent: str) -> None:
    below = list(node["layers"].values())
    for child in below:
        last = child is below[-1]
        names = "".join(f"  ← {name}" for name in child["images"])
        made = _line(child["created_by"])
        print(f"{indent}{'└─' if last else '├─'} {_short(child['digest'])}  "
              f"{_bytes(child['size']):>8}  {made}{names}")  # fmt: skip
        _print_nodes(child, indent + ("   " if last else "│  "))


def _as_lists(node: dict) -> dict:
    return {**node, "layers": [_as_lists(child) for child in node["layers"].values()]}


def _sizes(node: dict) -> tuple[int, int]:
    """Bytes of the layers below a node: each once, and once for each image that has it."""

    def images_of(one: dict) -> int:
        return len(one["images"]) + sum(images_of(child) for child in one["layers"].values())

    seen: dict[str, int] = {}
    apart = 0
    nodes = list(node["layers"].values())
    while nodes:
        one = nodes.pop()
        seen[one["digest"]] = one["size"]
        apart += one["size"] * images_of(one)
        nodes += one["layers"].values()
    return sum(seen.values()), apart


def _full_names(store: Store, name: str) -> list[str]:
    """The full name that is meant; by digest, all names of that image."""
    full = store.full_name(name)
    return [full] if full else _names(store, store.resolve(name)["digest"])


def _names(store: Store, digest: str) -> list[str]:
    return [name for name, pointer in store.names().items() if pointer["digest"] == digest]


def _write(options: dict, chunks) -> None:
    name = options["output"]
    if not name and os.isatty(1):
        raise UsageError("a tar file is no text for a terminal: -o FILE, or | something")
    beside = f"{name}.{os.getpid()}"
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644) if name else os.dup(1)
    try:
        with open(fd, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
        if name:
            os.rename(beside, name)
    except BaseException:
        if name:
            os.unlink(beside)
        raise


def _open(name: str | None):
    if name is None and os.isatty(0):
        raise UsageError("a tar file is expected on stdin; or name one")
    return open(name if name else 0, "rb", buffering=0, closefd=bool(name))


def _print_json(value) -> None:
    import json

    print(json.dumps(value, indent=1))


def print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("   ".join(cells).rstrip())


def _short(digest: str) -> str:
    return digest.partition(":")[2][:12]


def _line(text: str) -> str:
    """A stranger's text for a terminal: one line, no control characters, not long."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    return plain if len(plain) <= 60 else f"{plain[:59]}…"


def _bytes(count: int) -> str:
    """Decimal, as docker shows sizes."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.3g} {unit}" if size < 1000 else f"{size:.0f} {unit}"
