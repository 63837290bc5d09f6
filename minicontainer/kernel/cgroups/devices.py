"""Which device nodes a group may make, read and write: OCI's rules, and their form in v1.

Rules apply in order, so of two that match the later one holds; what none matches is denied.
https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config-linux.md#allowed-device-list
v1 has files for it (Documentation/admin-guide/cgroup-v1/devices.rst), v2 a program: `devices_v2`.
"""

from __future__ import annotations

from .resources import Section, Write

# What every container may use, as runc adds it after the configuration's own rules: making any node
# (which gives no access to the device), null, zero, full, random, urandom, tty, ptmx, pts/*.
DEFAULT = [{"allow": True, "type": kind, "access": "m"} for kind in "cb"] + [
    {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"}
    for major, minor in ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (136, -1))
]
ANY = -1


class Rule:
    """allow or deny; kind "b" or "c"; major and minor, or ANY; access, letters of "rwm"."""

    __slots__ = ("access", "allow", "kind", "major", "minor")

    def __init__(self, allow: bool, kind: str, major: int, minor: int, access: str) -> None:
        self.allow, self.kind, self.major, self.minor = allow, kind, major, minor
        self.access = access

    def __str__(self) -> str:
        major, minor = ("*" if n == ANY else str(n) for n in (self.major, self.minor))
        return f"{self.kind} {major}:{minor} {self.access}"

    def covers(self, other: Rule) -> bool:
        """Whether each device that `other` names is named by this rule."""
        return (self.kind == other.kind and self.major in (ANY, other.major)
                and self.minor in (ANY, other.minor))  # fmt: skip

    def overlaps(self, other: Rule) -> bool:
        """Whether some device is named by both."""
        return (self.kind == other.kind and (self.major == other.major or
                ANY in (self.major, other.major)) and (self.minor == other.minor or
                ANY in (self.minor, other.minor)))  # fmt: skip


def rules(resources: dict) -> tuple[bool, list[Rule]]:
    """(whether a device that no rule names is allowed, the rules), those of DEFAULT included."""
    default = False
    found: list[Rule] = []
    items = Section("linux.resources", resources).sections("devices")
    for item in items + Section("default", {"devices": DEFAULT}).sections("devices"):
        allow, kind, access = item.flag("allow"), item.word("type") or "a", item.word("access")
        major, minor = item.integer("major", -1, 4095), item.integer("minor", -1, 0xFFFFF)
        access = "".join(a for a in "rwm" if access is None or a in access)
        kinds = {"a": "bc", "b": "b", "c": "c", "u": "c"}.get(kind)  # u: mknod(1)'s word for c
        if allow is None or not kinds or not access:
            raise ValueError(f"{item.name}: allow is true or false, type is a, b or c, access is "
                             "made of r, w and m")  # fmt: skip
        major, minor = ANY if major is None else major, ANY if minor is None else minor
        if (kind, major, minor, access) == ("a", ANY, ANY, "rwm"):
            default, found = allow, []  # nothing before this matters
        else:
            found += [Rule(allow, kind, major, minor, access) for kind in kinds]
    return default, found


def writes_v1(default: bool, found: list[Rule]) -> list[Write]:
    """The rules as writes to devices.allow and devices.deny, which start from nothing.

    v1 has one default and a list of exceptions. Raises ValueError for a rule that takes back a part
    of an earlier one: the kernel would silently do nothing. v2 can do that.
    """
    exceptions: list[Rule] = []
    for rule in found:
        if rule.allow != default:
            exceptions.append(rule)
            continue
        kept = []
        for other in exceptions:
            left = "".join(a for a in other.access if a not in rule.access)
            if left == other.access or not rule.overlaps(other):
                kept.append(other)
            elif not rule.covers(other):
                raise ValueError(
                    f"linux.resources.devices: {str(rule)!r} takes back a part of {str(other)!r}, "
                    "which cgroup v1 cannot do: name the devices one by one"
                )
            elif left:
                kept.append(Rule(other.allow, other.kind, other.major, other.minor, left))
        exceptions = kept
    files = ("devices.deny", "devices.allow")
    return [Write(files[default], "a"), *(Write(files[not default], rule) for rule in exceptions)]
