"""OCI `linux.resources` -> the writes that it means, without making any.

https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config-linux.md#control-groups
The spec speaks v1; `resources_v1` takes it word by word, `resources_v2` converts. As in runc and
crun, 0 means "not set" wherever 0 makes no sense as a limit, and -1 means "no limit".
"""

from __future__ import annotations

import os

from .. import syscalls
from . import files

MAX = 2**63 - 1


class Write:
    """A text for one file of a group.

    instead    a Write for kernels that do not have this file
    optional   a kernel without this file is no problem
    keep_word  the file's present first word goes before the text: `cpu.max` without a quota
    """

    __slots__ = ("file", "instead", "keep_word", "optional", "value")

    def __init__(self, file, value, instead=None, optional=False, keep_word=False) -> None:
        self.file: str = file
        self.value = str(value)
        self.instead: Write | None = instead
        self.optional = optional
        self.keep_word = keep_word

    def text(self, directory: str) -> str:
        """The call, as a trace shows it."""
        return syscalls.write_file.text(f"{directory}/{self.file}", self.value)

    def apply(self, directory: str) -> None:
        """Do it. Raises CgroupError."""
        path, value = f"{directory}/{self.file}", self.value
        if (self.instead or self.optional) and not os.path.exists(path):
            return self.instead.apply(directory) if self.instead else None
        if self.keep_word:
            value = f"{files.read(path).split()[0]} {value}"
        return files.write(path, value)


class Section:
    """One JSON object, whose members are checked as they are taken; null is the same as absent."""

    __slots__ = ("_members", "name")

    def __init__(self, name: str, members: object) -> None:
        self.name = name
        if not isinstance(members, dict):
            raise ValueError(f"{name}: an object is expected, not {members!r}")
        self._members = members

    def _get(self, key: str, kind: type, words: str):
        value = self._members.get(key)
        # JSON's true is no number, though Python's is.
        fits = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
        if value is not None and not fits:
            raise ValueError(f"{self.name}.{key}: {words} is expected, not {value!r}")
        return value

    def integer(self, key: str, low: int = 0, high: int = MAX) -> int | None:
        value = self._get(key, int, "a whole number")
        if value is not None and not low <= value <= high:
            raise ValueError(f"{self.name}.{key}: {value} is not between {low} and {high}")
        return value

    def nonzero(self, key: str, low: int = 1, high: int = MAX) -> int | None:
        """As `integer`, but 0 means "not set"."""
        return self.integer(key, low, high) if self._members.get(key) != 0 else None

    def flag(self, key: str) -> bool | None:
        return self._get(key, bool, "true or false")

    def word(self, key: str) -> str | None:
        """A text without blanks: it becomes part of a line with others, or a file's name."""
        value = self.text(key)
        if value and not (value.isascii() and value.isprintable() and " " not in value):
            raise ValueError(f"{self.name}.{key}: {value!r} contains blanks or odd characters")
        return value or None

    def text(self, key: str) -> str | None:
        return self._get(key, str, "a text")

    def section(self, key: str) -> Section:
        return Section(f"{self.name}.{key}", self._members.get(key) or {})

    def sections(self, key: str) -> list[Section]:
        items = self._get(key, list, "a list") or []
        return [Section(f"{self.name}.{key}[{n}]", item) for n, item in enumerate(items)]

    def keys(self) -> list[str]:
        return list(self._members)

    def device(self) -> str:
        """`MAJOR:MINOR` of an object that names a block device."""
        major, minor = self.integer("major", 0, 4095), self.integer("minor", 0, 0xFFFFF)
        if major is None or minor is None:
            raise ValueError(f"{self.name}: major and minor are required")
        return f"{major}:{minor}"


# Member of `linux.resources` -> the controllers that it is for. Their names are those of v1, and of
# the functions in resources_v1 and resources_v2.
CONTROLLERS = {
    "cpu": ("cpuset", "cpu"), "memory": ("memory",), "pids": ("pids",), "blockIO": ("blkio",),
    "hugepageLimits": ("hugetlb",), "network": ("net_cls", "net_prio"), "rdma": ("rdma",),
}  # fmt: skip
# What v2 calls differently.
V2_NAMES = {"blkio": "io"}


def writes(resources: object, versions: dict[str, int]):
    """Yields (controller, version, Write or a warning) for each limit that is set.

    versions  `Layout.versions()`; for a controller that this host does not have, version is 0
    Raises ValueError that names what is wrong. `devices` are the business of `devices`.
    """
    from . import resources_v1, resources_v2

    top = Section("linux.resources", resources)
    for member, controllers in CONTROLLERS.items():
        if member not in top.keys():  # noqa: SIM118 (a Section is no dict)
            continue
        for v1_name in controllers:
            v2_name = V2_NAMES.get(v1_name, v1_name)
            version = versions.get(v1_name) or versions.get(v2_name) or 0
            on_v2 = version == 2 or (not version and 1 not in versions.values())
            module = resources_v2 if on_v2 else resources_v1
            for item in getattr(module, v1_name)(top):
                yield v2_name if on_v2 else v1_name, version, item
    for write in resources_v2.unified(top):
        controller = write.file.partition(".")[0]
        if versions.get(controller) == 1:
            raise ValueError(f"linux.resources.unified: {write.file!r} is a file of cgroup v2, and "
                             f"on this host {controller} is in v1")  # fmt: skip
        yield controller, versions.get(controller, 0), write


def controllers(resources: object) -> set[str]:
    """The v1 names of the controllers that these resources are about, whether set or not."""
    top = Section("linux.resources", resources)
    wanted = {name for member in top.keys() for name in CONTROLLERS.get(member, ())}  # noqa: SIM118
    wanted.update(key.partition(".")[0] for key in top.section("unified").keys())  # noqa: SIM118
    return wanted | ({"devices"} if "devices" in top.keys() else set())  # noqa: SIM118
