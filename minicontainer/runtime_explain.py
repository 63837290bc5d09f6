"""`minicontainer-runtime explain`: each field of a config.json, and what becomes of it.

A field is carried out by a step of the plan (which says so: `Step.fields`), or it is for somebody
else, has no effect, is refused, or unknown. Nothing is made and nothing written: the plan is built
as for `create` and not applied, so no privilege is needed.
"""

from __future__ import annotations

import copy
import json
import os

from .kernel import cgroups, seccomp
from .kernel.cgroups import resources as limits_of
from .paper import Paper, compact
from .runtime import checks, plan
from .runtime import config as configs
from .runtime.errors import ContainerError

# Fields that no step carries: what they are for, and the clause.
NOTES = {
    "ociVersion": (
        "the version of the spec that the configuration is written in: 1.x is taken",
        "config.md#specification-version",
    ),
    "annotations": (
        "for whoever asked for the container: `state` and the hooks are told them",
        "config.md#annotations",
    ),
    "hooks.poststart": (
        "`start` runs them, outside, when the command has begun",
        "config.md#posix-platform-hooks",
    ),
    "hooks.poststop": (
        "`delete` runs them, outside, when nothing of the container is left",
        "config.md#posix-platform-hooks",
    ),
}
_EXTENSIBLE = "config.md#extensibility"
_UNNAMED = "ID"  # stands for the container's id, which `create` is told


class Options(plan.Options):
    """Those of `create`, but nothing is written."""

    __slots__ = ()
    compile = staticmethod(seccomp.compile)


class _Seen(dict):
    """An object that remembers which of its members were asked for, in `seen`, by their names."""

    def __init__(self, value: dict, name: str, seen: set[str]) -> None:
        super().__init__({k: _watched(one, f"{name}.{k}", seen) for k, one in value.items()})
        self._name, self._seen = name, seen

    def get(self, key, default=None):
        self._seen.add(f"{self._name}.{key}")
        return super().get(key, default)


def _watched(value, name: str, seen: set[str]):
    if isinstance(value, dict):
        return _Seen(value, name, seen)
    if isinstance(value, list):
        return [_watched(one, f"{name}[{n}]", seen) for n, one in enumerate(value)]
    return value


class Explanation:
    """What there is to say about one configuration.

    fields    one dict a field, in the file's order, see `_Row`
    plan      the steps, as `plan.describe` has them
    Raises ContainerError when there is no plan for it even without what is refused.
    """

    def __init__(self, path: str, directory: str, own_cgroup: bool = True) -> None:
        self._config: dict = {}
        self._problems: dict[str, str] = {}  # field -> why `create` would refuse it
        self._gone: set[str] = set()  # what was taken out for that
        self._directory, self._own_cgroup = directory, own_cgroup
        original, _ = configs.load(path, self._load)
        self._steps = self._built
        self._warnings = dict(text.split(": ", 1) for text in configs.warnings(self._config))
        self._known_below: set[str] = set()
        self._limits = self._config["linux"].get("resources") or {}
        self._watch()
        self.plan = plan.describe(self._steps)
        self._original = original
        self.fields = self.rows()

    # --- a plan, without what is refused -------------------------------------------------------

    def _load(self, config) -> None:
        """Check a copy and build the plan; take out what is refused, and again."""
        work = copy.deepcopy(config)
        first = ""
        while True:
            try:
                self._built = self._build(work)
                self._config = work
                return
            except ValueError as error:
                first = first or str(error)
                if not self._take_out(work, str(error)):
                    raise ValueError(first) from None

    def _build(self, config):
        configs.check(config)
        linux = config["linux"]
        limits = linux.get("resources") or {}
        self._group = None
        if self._own_cgroup:
            self._group = cgroups.look(linux.get("cgroupsPath") or _UNNAMED, limits)
            for member, value in limits.items():
                try:
                    self._group.calls({member: value})
                except OSError as error:
                    hint = getattr(error, "hint", "")
                    raise ValueError(
                        f"linux.resources.{member}: on this host: {error.strerror}"
                        f"{f' ({hint})' if hint else ''}"
                    ) from None
            self._group.calls(limits)
        return plan.build(config, self._directory, self._group, Options())

    def _take_out(self, config, problem: str) -> bool:
        """Remove the field that the problem's text begins with; whether it is there."""
        places = {name: (parent, key) for name, parent, key in _places(config, "")}
        named = [name for name in places if problem.startswith((f"{name}:", f"{name} "))]
        if named:
            name = max(named, key=len)
            if name in self._problems:
                return False  # it came back: there is a rule that it has to be there
            self._problems[name] = problem[len(name) :].removeprefix(" (a key)").lstrip(": ")
        else:  # one that is missed, having been taken out: then what it was in goes, too
            taken = [name for name in self._problems if problem.startswith(f"{name}:")]
            name = _above(max(taken, key=len)) if taken else ""
        while name and (name not in places or isinstance(places[name][0], list)):
            name = _above(name)  # of a list the others would move up, and have other names
        if name:
            parent, key = places[name]
            del parent[key]
            self._gone.add(name)
        return bool(name)

    def _watch(self) -> None:
        """Find out which members the kernel's floor asks for: the others are unknown."""
        seen = self._known_below
        if self._group and self._limits:
            self._group.calls(_watched(self._limits, "linux.resources", seen))
        seen.update(f"linux.resources.{name}" for name in (*limits_of.CONTROLLERS, "devices"))
        seen.add("linux.resources.unified")

    # --- the fields ----------------------------------------------------------------------------

    def rows(self, merged: bool = False) -> list[dict]:
        """A row for each field; `merged`: one for an object of whose members the same is said.

        field, value; status: step, note (see NOTES), nothing (it asks for nothing), warned (no
        effect), refused, unknown; why; steps: numbers in `plan`; calls; clause
        """
        return self._object(self._original, configs.CONFIG, "", merged)

    def _object(self, value, check, name: str, merged: bool) -> list[dict]:
        members: list[tuple] = []
        if name in self._problems or check is _unknown or isinstance(check, checks.refused):
            pass
        elif isinstance(value, dict):
            for key, one in value.items():
                inner = f"{name}.{key}" if name else key
                known = getattr(check, "known", {}).get(key) or _each(check)
                if known is configs.below and self._strange(inner, one):
                    known = _unknown
                members.append((one, known, inner))
        elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
            members = [(one, _each(check), f"{name}[{n}]") for n, one in enumerate(value)]
        if not members:
            return [self._row(value, check, name)]
        rows = [row for one, known, inner in members
                for row in self._object(one, known, inner, merged)]  # fmt: skip
        if merged and name and len({_said(row) for row in rows}) == 1:
            rows = [{**rows[0], "field": name, "value": value}]
        return rows

    def _strange(self, name: str, value) -> bool:
        """Whether nobody asked for that member of linux.resources."""
        if name in self._known_below or value is None:
            return False
        # Without cgroups nothing was asked for, and of what was taken out neither
        if self._group is None and name.startswith("linux.resources"):
            return False
        return not any(_within(name, one) or _within(one, name) for one in self._gone)

    def _row(self, value, check, name: str) -> dict:
        row = {"field": name, "value": value, "status": "nothing", "why": "", "steps": [],
               "calls": [], "clause": ""}  # fmt: skip
        if name in self._problems:
            return {**row, "status": "refused", "why": self._problems[name]}
        if check is _unknown:
            return {**row, "status": "unknown", "why": "ignored", "clause": _EXTENSIBLE}
        if value is None:
            return {**row, "why": "null is the same as absent"}
        if name in self._warnings:
            return {**row, "status": "warned", "why": self._warnings[name]}
        for note, (why, clause) in NOTES.items():
            if _within(name, note):
                return {**row, "status": "note", "why": why, "clause": clause}
        if name.startswith("linux.resources") and self._own_cgroup:
            return self._limit_row(row, name)
        if name.startswith(("linux.resources", "linux.cgroupsPath")) and not self._own_cgroup:
            return {**row, "status": "warned", "why": "no effect, since cgroups are disabled"}
        numbers = self._carriers(name)
        if not numbers:
            return {**row, "why": "asks for nothing"}
        calls = [call for n in numbers for call in self.plan[n - 1]["calls"]]
        return {**row, "status": "step", "steps": numbers, "calls": calls,
                "clause": self.plan[numbers[0] - 1]["clause"]}  # fmt: skip

    def _carriers(self, name: str) -> list[int]:
        wanted = self._by_type(name)
        return [
            number for number, step in enumerate(self._steps, 1)
            if any(_within(wanted, field) or field.startswith(f"{wanted}.")
                   for field in step.fields)
        ]  # fmt: skip

    def _by_type(self, name: str) -> str:
        prefix = "linux.namespaces["
        if not name.startswith(prefix):
            return name
        number, _, rest = name[len(prefix) :].partition("]")
        return f"{prefix}{self._original['linux']['namespaces'][int(number)]['type']}]{rest}"

    def _limit_row(self, row: dict, name: str) -> dict:
        """Which writes a limit is for: those that would not be made without it."""
        numbers = self._carriers(name)
        member = name.removeprefix("linux.resources.").partition(".")[0].partition("[")[0]
        if member not in self._limits:
            return {**row, "why": "asks for nothing"}
        section = {member: self._limits[member]}
        there = self._effects(section)
        without = self._effects_without(section, name)
        mine = [effect for effect in there if effect not in without]
        if member == "devices":
            mine = there  # one list of rules, and the defaults among them
        warned = [text for kind, text in mine if kind == "warning"]
        calls = [text for kind, text in mine if kind == "call"]
        if warned and not calls:
            text = warned[0].removeprefix(f"{name} ")
            return {**row, "status": "warned", "why": text}
        if not calls:
            return {**row, "why": "asks for nothing: 0 is “not set”, or it is so anyway"}
        return {**row, "status": "step", "steps": numbers, "calls": calls,
                "clause": self.plan[numbers[0] - 1]["clause"]}  # fmt: skip

    def _effects(self, limits: dict) -> list[tuple[str, str]]:
        versions = cgroups.detect.detect().versions()
        warned = [item for _, _, item in limits_of.writes(limits, versions)
                  if isinstance(item, str)]  # fmt: skip
        calls = self._group.calls(limits) if self._group else []
        return [("call", call) for call in calls] + [("warning", text) for text in warned]

    def _effects_without(self, section: dict, name: str) -> list[tuple[str, str]]:
        """The same without that field; or without the object that needs it."""
        while name != "linux.resources":
            less = copy.deepcopy(section)
            places = {n: (parent, key) for n, parent, key in _places(less, "linux.resources")}
            if name in places:
                parent, key = places[name]
                del parent[key]
                try:
                    return self._effects(less)
                except (ValueError, OSError):
                    pass
            name = _above(name)
        return []


def _unknown(value, name: str) -> None:
    """The check of what is not known."""


def _each(check):
    """The check of each member of an object or list that `check` is for."""
    return check if check is configs.below else getattr(check, "one", _unknown)


def _places(value, name: str):
    """(name, the object or list that it is in, its key there) of each field below `value`."""
    members = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in list(members):
        inner = f"{name}[{key}]" if isinstance(value, list) else f"{name}.{key}".lstrip(".")
        yield inner, value, key
        if isinstance(one, dict | list):
            yield from _places(one, inner)


def _above(name: str) -> str:
    """What that field is in: of a.b[1] that is a.b; "" at the top. A dot in a key does no harm."""
    return name[: max(name.rfind("."), name.rfind("["), 0)]


def _within(name: str, field: str) -> bool:
    return name == field or name.startswith((f"{field}.", f"{field}["))


def _said(row: dict) -> tuple:
    return row["status"], row["why"], tuple(row["steps"]), tuple(row["calls"])


# --- on paper ----------------------------------------------------------------------------------


def report(path: str, directory: str, own_cgroup: bool, as_json: bool) -> None:
    """Print the explanation. Raises ContainerError."""
    told = Explanation(path, directory, own_cgroup)
    if as_json:
        whole = {"config": os.path.abspath(path), "fields": told.fields, "plan": told.plan}
        print(json.dumps(whole, indent=1))
        return
    paper = Paper()
    shown: set[int] = set()
    for row in told.rows(merged=True):
        _print_row(paper, row, told.plan, shown)
    paper.line()
    paper.line(paper.bold("steps that no field asks for"))
    for step in told.plan:
        if step["n"] not in shown:
            _print_step(paper, step, step["calls"])
    refused = [row["field"] for row in told.fields if row["status"] == "refused"]
    if refused:
        paper.line()
        paper.line(paper.red(f"create would refuse it: {', '.join(refused)}"))


def _print_row(paper: Paper, row: dict, described: list[dict], shown: set[int]) -> None:
    room = max(20, paper.width - len(row["field"]) - 2)
    paper.line(f"{paper.bold(row['field'])}  {compact(row['value'], room)}")
    if row["status"] == "step":
        for number in row["steps"]:
            step = described[number - 1]
            # Of a limit's step only the writes for this limit
            calls = [call for call in step["calls"] if call in row["calls"]]
            if number in shown and calls == step["calls"]:
                paper.columns([f"{number:4} {step['name']}"], ["as above"], paper.dim)
            else:
                _print_step(paper, step, calls)
            shown.add(number)
        return
    colour = {"refused": paper.red, "warned": paper.yellow}.get(row["status"], paper.dim)
    words = {"note": "no step", "nothing": "no step"}.get(row["status"], row["status"])
    where = [f"{row['clause']}"] if row["clause"] else []
    paper.columns([f"     {words}"], [row["why"], *where], colour)


_SHOWN = 3  # calls of a step


def _print_step(paper: Paper, step: dict, calls: list[str]) -> None:
    left = [f"{step['n']:4} {step['name']}", f"     {step['where']}, lesson {step['lesson']}"]
    right = calls[:_SHOWN]
    if len(calls) > _SHOWN:
        right = [*right, f"… {len(calls) - _SHOWN} more like these"]
    paper.columns(left, [*right, step["clause"]])


def config_of(args: list[str], directory: str | None) -> tuple[str, str]:
    """(the file, its bundle) from the words of the command line. Raises ContainerError."""
    if args and directory:
        raise ContainerError("either CONFIG.json or --bundle DIR, not both")
    path = args[0] if args else f"{directory or '.'}/config.json"
    return path, os.path.dirname(os.path.abspath(path))
