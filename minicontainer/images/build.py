"""Images from a Containerfile: each instruction is a layer, or a change of the configuration.

A layer is made in a process with mounts of its own, on an overlay of the layers below, and is what
that wrote to the upper directory. It is remembered in the store's cache/ by what it came from: the
layers below, the instruction, and what the copied files are (but for their times) or what the
command is run with. With SOURCE_DATE_EPOCH the same input gives the same digest.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable
from hashlib import sha256

from ..runtime import jsonfile
from ..runtime.errors import kernel_words
from ..runtime.spec import PATH
from . import descriptor as d
from . import layers
from .change import SCRIPT, Scratch, make, mount, run
from .commit import epoch, history, timestamp, write_image
from .containerfile import Containerfile, Instruction, Stage
from .copying import Packer, Source, is_directory, make_directory, pack, put
from .errors import ImageError
from .ignore import Ignore
from .store import Image, Store
from .users import owner_of

NAMES = ("Containerfile", "Dockerfile")
SHELL = ["/bin/sh", "-c"]
BUILD_FAILED = 1  # exit status of a build whose command failed

Progress = Callable[[str], None]


def build(
    store: Store, context: str, file: str | None = None, tags: list[str] | tuple = (),
    args: dict[str, str] | None = None, target: str | None = None, cache: bool = True,
    network: str = "host", progress: Progress | None = None, output: int | None = None,
) -> dict:  # fmt: skip
    """Build an image; returns its manifest's descriptor. Raises ImageError that names the line.

    context   a directory
    file      the Containerfile; by default one of NAMES in the context
    tags      names for the image
    args      values for ARG
    target    the stage to build, by name or number; the last one by default
    cache     whether layers that were made before are taken
    network   of RUN: "host" or "none"
    progress  is told each step, and notices
    output    descriptor for what RUN prints; without it the end of that is in the error
    """
    from .reference import parse

    names = [str(parse(tag)) for tag in tags]
    with store.lease() as lease, Scratch(store) as scratch:
        try:
            source = Source(context)
        except OSError as error:
            raise ImageError(f"{context}: {kernel_words(error.errno or 0)}") from None
        parsed, source.ignored = _read(source, file)
        builder = _Builder(store, lease, scratch, parsed, source, args or {}, network)
        builder.use_cache, builder.output = cache, output
        builder.progress = progress or builder.progress
        descriptor = builder.build(target)
        for full in names:
            if store.names().get(full, {}).get("digest") != descriptor["digest"]:
                store.tag(full, descriptor)
    return descriptor


def _read(context: Source, file: str | None) -> tuple[Containerfile, Ignore]:
    """The Containerfile, which need not be in the context, and what is ignored."""
    place, names = context, [file] if file else list(NAMES)
    if file:
        directory, name = os.path.split(os.path.realpath(file))
        place, names = Source(directory) if os.path.isdir(directory) else context, [name]
    for name in names:
        data = place.read(name)
        if data is not None:
            break
    else:
        raise ImageError(f"{file or NAMES[0]}: no such file", "-f FILE says which it is")
    suffixes = (".containerignore", ".dockerignore")
    for where, prefix in ((place, name), (context, "")):
        for suffix in suffixes:
            patterns = where.read(prefix + suffix)
            if patterns is not None:
                text = patterns.decode(errors="surrogateescape")
                return Containerfile(data, os.path.basename(name)), Ignore(text, prefix + suffix)
    return Containerfile(data, os.path.basename(name)), Ignore()


def _pairs(words: list[str]) -> dict[str, str]:
    return dict(word.partition("=")[::2] for word in words)


class _Image:
    """A stage as far as it was built: the document, its layers, and variables of its ARGs."""

    def __init__(self, document: dict, layers: list[dict]) -> None:
        self.document: dict = jsonfile.loads(jsonfile.dumps(document))
        self.layers = list(layers)
        self.arguments: dict[str, str] = {}
        self.has_command = False  # of its own
        self.config: dict = self.document.setdefault("config", {})
        self.config.setdefault("Env", [])
        self.document["history"] = history(self.document)

    @property
    def diff_ids(self) -> list[str]:
        return self.document["rootfs"]["diff_ids"]

    @property
    def chain(self) -> str:
        return layers.chain_ids(self.diff_ids)[-1] if self.diff_ids else ""

    @property
    def environment(self) -> dict[str, str]:
        return _pairs(self.config["Env"])

    @property
    def variables(self) -> dict[str, str]:
        """What words are expanded with."""
        return {**self.arguments, **self.environment}

    @property
    def workdir(self) -> str:
        return self.config.get("WorkingDir") or "/"

    def unpacked(self, store: Store, name: str) -> list[str]:
        manifest = {"config": {"digest": ""}, "layers": self.layers}
        return layers.unpacked(store, Image(name, {}, manifest, self.document))


class _Builder:
    use_cache = True
    output: int | None = None

    def __init__(
        self, store: Store, lease, scratch: Scratch, file: Containerfile, context: Source,
        args: dict[str, str], network: str,
    ) -> None:  # fmt: skip
        self.store, self.lease, self.scratch, self.file = store, lease, scratch, file
        self.context, self.args, self.network = context, args, network
        self.progress: Progress = lambda text: None
        self.epoch = epoch()
        self.now = timestamp(self.epoch)
        self.built: dict[int, _Image] = {}
        self.told: set[str] = set()
        self.log = f"{scratch.path}/log"
        self.unused = set(args)
        platform = d.host_platform()
        words = {
            "OS": platform["os"], "ARCH": platform["architecture"],
            "VARIANT": platform.get("variant", ""), "PLATFORM": d.platform_words(platform),
        }  # fmt: skip
        self.globals = {f"{p}{key}": v for p in ("TARGET", "BUILD") for key, v in words.items()}

    # --- stages -------------------------------------------------------------------------------

    def build(self, target: str | None) -> dict:
        """The descriptor of the image that a stage became; of others only what it needs."""
        for notice in self.file.notices:
            self.progress(notice)
        for one in self.file.arguments:
            self._declare(one, self.globals, self.globals)
        stages = self.file.stages
        last = len(stages) - 1 if target is None else self._number(target.lower(), len(stages))
        if last is None:
            raise ImageError(f"--target {target}: {self.file.name} has no such stage")
        image = self._stage(last)
        if self.unused:
            self.progress(f"no ARG takes --build-arg {', '.join(sorted(self.unused))}")
        return self._finish(image)

    def _number(self, name: str, before: int) -> int | None:
        """Which of the stages before the n-th has a name or a number."""
        for number in range(before - 1, -1, -1):
            if self.file.stages[number].name == name or name == str(number):
                return number
        return None

    def _stage(self, number: int) -> _Image:
        if number not in self.built:
            stage = self.file.stages[number]
            image = self._base(stage, number)
            for count, one in enumerate(stage.instructions, 2):
                place = f"{stage.name or f'stage {number}'} {count}/{len(stage.instructions) + 1}"
                self._step(image, one, place, number)
            self.built[number] = image
        return self.built[number]

    def _base(self, stage: Stage, number: int) -> _Image:
        line = stage.origin.line
        name = self.file.expand(line, stage.base, self.globals)
        self.progress(f"[{stage.name or f'stage {number}'} 1/{len(stage.instructions) + 1}] "
                      f"{stage.origin.text}")  # fmt: skip
        earlier = self._number(name.lower(), number)
        if earlier is not None and self.file.stages[earlier].name == name.lower():
            base = self._stage(earlier)
            image = _Image(base.document, base.layers)
            image.arguments.update(base.arguments)
            return image
        if name == "scratch":
            config = {"Env": [f"PATH={PATH}"], "WorkingDir": "/"}
            empty = {"config": config, "rootfs": {"type": "layers", "diff_ids": []}}
            return _Image({**d.host_platform(), **empty}, [])
        return self._foreign(line, name)

    def _foreign(self, line: int, name: str) -> _Image:
        try:
            image = self.store.image(name)
            self.store.has(image.descriptor["digest"])  # the lease keeps it
            return _Image(image.config, image.layers)
        except ImageError as error:
            raise self.file.error(line, error.message, error.hint) from None

    def _finish(self, image: _Image) -> dict:
        document = image.document
        steps = [{**one, "created": ""} for one in document["history"]]
        key = self._key("image", {**document, "created": "", "history": steps}, image.layers)
        found = self._cached(key)
        if found:
            return found["image"]
        document["created"] = self.now
        descriptor = write_image(self.store, document, image.layers)
        self._remember(key, {"image": descriptor, "needs": [descriptor["digest"]]})
        return descriptor

    # --- the cache ----------------------------------------------------------------------------

    def _key(self, *parts) -> str:
        return sha256(jsonfile.dumps([self.epoch, *parts]).encode()).hexdigest()

    def _cached(self, key: str) -> dict | None:
        try:
            found = jsonfile.loads(jsonfile.read_file(f"{self.store.root}/cache/{key}"))
        except (FileNotFoundError, ValueError):
            return None
        there = self.use_cache and all(map(self.store.has, found["needs"]))
        return found if there else None

    def _remember(self, key: str, found: dict) -> None:
        with self.store.lock():  # `upkeep` sweeps there
            os.makedirs(f"{self.store.root}/cache", exist_ok=True)
            jsonfile.write_file(f"{self.store.root}/cache/{key}", jsonfile.dumps(found))

    # --- instructions -------------------------------------------------------------------------

    def _step(self, image: _Image, one: Instruction, place: str, number: int) -> None:
        shown = f"[{place}] {one.text}"
        if one.name in ("ADD", "COPY", "RUN", "WORKDIR"):
            try:
                key, work = getattr(self, f"_{one.name.lower()}")(image, one, number)
                key = self._key(image.chain, one.name, *key)
                found = self._cached(key)
                self.progress(f"{shown}{' (cached)' * bool(found)}")
                if not found:
                    found = self._change(image, work, one)
                    self._remember(key, found)
            except OSError as error:
                what = f"{one.text[:200]}: {kernel_words(error.errno or 0)}"
                raise self.file.error(one.line, what) from None
            except ImageError as error:
                if error.message.startswith(f"{self.file.name}:"):
                    raise
                what = f"{one.text[:200]}: {error.message}"
                raise self.file.error(one.line, what, error.hint, error.exit_code) from None
            step = {"created": found["created"], "created_by": one.text}
            if found["layer"]:
                image.layers.append(found["layer"])
                image.diff_ids.append(found["diff_id"])
                self.lease.add(found["diff_id"])
                self.lease.add(image.chain)
                image.document["history"].append(step)
                return
        else:
            self.progress(shown)
            self._configure(image, one)
            step = {"created": self.now, "created_by": one.text}
        image.document["history"].append({**step, "empty_layer": True})

    def _change(self, image: _Image, work, one: Instruction) -> dict:
        lowers = image.unpacked(self.store, self.file.name)
        found = make(self.store, self.scratch, lowers, self.epoch, work)
        status, notice = found.pop("status"), found.pop("notice")
        if notice and notice not in self.told:
            self.told.add(notice)
            self.progress(notice)
        if status:
            told = ""
            if self.output is None:
                with open(self.log, "rb") as log:
                    log.seek(max(0, os.fstat(log.fileno()).st_size - 4096))
                    told = "\n" + log.read().decode(errors="backslashreplace").rstrip()
            raise ImageError(f"exit status {status}{told}", exit_code=BUILD_FAILED)
        top = [found["layer"]] if found["layer"] else image.layers[-1:]
        needs = [layer["digest"] for layer in top]
        return {**found, "created": self.now, "needs": needs}

    def _words(self, image: _Image, one: Instruction) -> list[str]:
        return [self.file.expand(one.line, word, image.variables) for word in one.words]

    def _flag(self, image: _Image, one: Instruction, name: str) -> str:
        return self.file.expand(one.line, one.flags.get(name, ""), image.variables)

    def _declare(self, one: Instruction, into: dict[str, str], variables: dict[str, str]) -> None:
        """ARG."""
        for word in one.words:
            name, equals, default = word.partition("=")
            self.unused.discard(name)
            if name in self.args:
                into[name] = self.args[name]
            elif equals:
                into[name] = self.file.expand(one.line, default, variables)
            elif name in self.globals:
                into[name] = self.globals[name]

    def _configure(self, image: _Image, one: Instruction) -> None:
        config, words = image.config, one.words
        if one.name == "ARG":
            return self._declare(one, image.arguments, image.variables)
        if one.name in ("CMD", "ENTRYPOINT", "SHELL"):
            if not one.exec and words:
                words = [*config.get("Shell", SHELL), *words]
            key = {"CMD": "Cmd", "ENTRYPOINT": "Entrypoint", "SHELL": "Shell"}[one.name]
            config[key] = words
            image.has_command |= key == "Cmd"
            if key == "Entrypoint" and not image.has_command:
                config.pop("Cmd", None)  # the base's was for the base's entry point
            return None
        words = self._words(image, one)
        if one.name == "ENV":
            values = {**image.environment, **_pairs(words)}
            config["Env"] = [f"{name}={value}" for name, value in values.items()]
        elif one.name == "LABEL":
            config["Labels"] = {**config.get("Labels", {}), **_pairs(words)}
        elif one.name == "EXPOSE":
            ports = [self._port(one, port) for word in words for port in word.split()]
            exposed = config.setdefault("ExposedPorts", {})
            exposed.update((port, {}) for some in ports for port in some)
        elif one.name == "VOLUME":
            config["Volumes"] = {**config.get("Volumes", {}), **{word: {} for word in words}}
        else:
            config[{"USER": "User", "STOPSIGNAL": "StopSignal"}[one.name]] = words[0]
        if "" in words:
            raise self.file.error(one.line, f"{one.text}: it comes to nothing")
        return None

    def _port(self, one: Instruction, word: str) -> list[str]:
        numbers, _, protocol = word.partition("/")
        first, dash, last = numbers.partition("-")
        plain = all(n.isascii() and n.isdecimal() and len(n) < 6 for n in (first, last or first))
        if not plain or (dash and not last) or not 0 < int(first) <= int(last or first) < 65536:
            raise self.file.error(one.line, f"EXPOSE {word!a}: as in 80, 80/udp or 8000-8010/tcp")
        span = range(int(first), int(last or first) + 1)
        return [f"{port}/{protocol.lower() or 'tcp'}" for port in span]

    # --- layers: each returns what its key is made of, and what changes the files ---------------

    def _workdir(self, image: _Image, one: Instruction, number: int):
        path = posixpath.normpath(posixpath.join(image.workdir, self._words(image, one)[0]))
        image.config["WorkingDir"] = path

        def work(root: str) -> int:
            make_directory(root, path)
            return 0

        return [path], work

    def _run(self, image: _Image, one: Instruction, number: int):
        env = {"PATH": PATH, **image.variables}
        args = one.words if one.exec else [*image.config.get("Shell", SHELL), *one.words]
        script = one.heredocs[0][1] if one.heredocs and one.words[0].startswith("#!") else ""
        if script:
            args = [SCRIPT]
        user = image.config.get("User", "")

        def work(root: str) -> int:
            make_directory(root, image.workdir)
            place = self.scratch.directory()
            output = self.output
            if output is None:
                output = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC)
            variables = [f"{name}={value}" for name, value in env.items()]
            return run(
                root, args, variables, image.workdir, user, self.network, output, place, script
            )

        return [args, script, env, image.workdir, user, self.network], work

    def _copy(self, image: _Image, one: Instruction, number: int):
        *patterns, to = self._words(image, one)
        into = to.endswith(("/", "/.")) or to == "."
        to = posixpath.normpath(posixpath.join("/", image.workdir, to))
        owner, mode = self._flag(image, one, "chown"), self._flag(image, one, "chmod")
        if mode.strip("01234567") or len(mode) > 4:
            raise ImageError(f"--chmod={mode}: octal digits are supported only")
        bits = int(mode, 8) if mode else None
        if one.name == "ADD" and any("://" in p or p.startswith("git@") for p in patterns):
            raise ImageError("what is not in the context is not supported", "RUN can fetch it")
        written = self._written(image, one) if one.heredocs else None
        if written:
            patterns = [p for p in patterns if not p.lstrip("0123456789").startswith("<<")]
        lowers: list[str] = []
        default: tuple[int, int] | None = (0, 0)
        from_ = one.flags.get("from")

        def files(source: Source) -> list[tuple[Source, str]]:
            documents = written.find("*") if written else []
            return [*documents, *(found for p in patterns for found in source.find(p))]

        if from_ is None:
            seen = Packer(self.context.ignored, default, None)
            for _ in pack(files(self.context), seen, to, into):
                pass
            content = seen.digest
        else:
            earlier = self._number(from_.lower(), number)
            other = self._foreign(one.line, from_) if earlier is None else self._stage(earlier)
            lowers, content, default = other.unpacked(self.store, from_), other.chain, None

        def work(root: str) -> int:
            place = self.scratch.directory()
            source = self.context if from_ is None else Source(mount(lowers, place)[0], True)
            ids = owner_of(root, owner) if owner else default
            packer = Packer(source.ignored, ids, bits)
            found = files(source)
            many = into or len(found) > 1 or is_directory(root, to)
            extracted = (
                Packer(Ignore(), ids if owner else None, bits) if one.name == "ADD" else None
            )
            put(root, pack(found, packer, to, many, place, extracted))
            if from_ is None and one.name == "COPY" and packer.digest != content:
                raise ImageError("the context was changed while it was copied")
            return 0

        return [to, into, owner, mode, patterns, content], work

    _add = _copy

    def _written(self, image: _Image, one: Instruction) -> Source:
        """Here-documents as files."""
        place = self.scratch.directory()
        for name, content, expand in one.heredocs:
            if expand:
                content = self.file.expand(one.line, content, image.variables, document=True)
            with open(f"{place}/{posixpath.basename(name)}", "w") as file:
                file.write(content)
                os.fchmod(file.fileno(), 0o644)
        return Source(place)
