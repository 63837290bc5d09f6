"""`minicontainer-runtime diff A B`: in what two processes live in different worlds.

A and B are a container's id, `host` (this very process), or `pid:NUMBER`. Everything is read from
/proc and the cgroup file systems; nothing is joined, changed or asked of the containers.
"""

from __future__ import annotations

import json
import os
import re
import stat

from .kernel import capabilities, cgroups, namespaces
from .kernel.cgroups import files
from .paper import Paper
from .runtime import state
from .runtime.errors import ContainerError, kernel_words

_ESCAPE = re.compile(r"\\([0-7]{3})")  # proc_pid_mountinfo(5)
_FILE_SETS = {"CapInh": "inheritable", "CapPrm": "permitted", "CapEff": "effective",
              "CapBnd": "bounding", "CapAmb": "ambient"}  # fmt: skip
_MODES = {"0": "none", "1": "strict", "2": "filter"}  # proc_pid_status(5)
# Files of a group that can be written and are no limits.
_NO_LIMIT = re.compile(
    r"cgroup\.|tasks$|notify_on_release$|release_agent$|cpuacct\.|cpu\.pressure$|"
    r".*\.(pressure|failcnt|stat|force_empty|reset_stats|reclaim|peak)$|.*max_usage_in_bytes$|"
    r"memory\.(oom_control|move_charge_at_immigrate|use_hierarchy|pressure_level)$|"
    r"freezer\.state$|memory\.events"
)


# --- one process ----------------------------------------------------------------------------------


def resolve(root: str, word: str) -> int:
    """The pid that a word of the command line means. Raises ContainerError."""
    if word == "host":
        return os.getpid()
    kind, colon, number = word.partition(":")
    if colon:
        if kind != "pid" or not (number.isascii() and number.isdecimal()) or not int(number):
            raise ContainerError(f"{word!r}: a container's id, host, or pid:NUMBER")
        return int(number)
    found = state.load(root, word)
    if not found.running():
        raise ContainerError(
            f"container {word} is {found.status()}: there is no process to look at",
            hint="only a created, running or paused container can be compared",
        )
    return found.pid


def look(pid: int) -> dict:
    """Everything that `compare` compares, of one process. Raises ContainerError."""
    started = state.start_time(pid)
    try:
        found = _look(pid)
    except OSError as error:
        if state.start_time(pid) is None:
            raise ContainerError(f"there is no process {pid}") from None
        raise ContainerError(
            f"process {pid}: {kernel_words(error.errno or 0)}",
            hint="to look at somebody else's process takes root",
        ) from None
    if started is None or state.start_time(pid) != started:
        raise ContainerError(f"process {pid} ended meanwhile")
    return found


def _look(pid: int) -> dict:
    status = dict(line.split(":", 1) for line in files.read(f"/proc/{pid}/status").splitlines())
    status = {key: value.strip() for key, value in status.items()}
    mounts = _mounts(files.read(f"/proc/{pid}/mountinfo"))
    root = mounts.get("/", {})
    return {
        "namespaces": namespaces.inodes(pid),
        "capabilities": {
            _FILE_SETS[key]: _names(mask) for key, mask in capabilities.current(pid).items()
        },
        "mounts": mounts,
        "cgroups": _groups(pid),
        "process": {
            "user": status["Uid"].split()[1],
            "group": status["Gid"].split()[1],
            "additional groups": status["Groups"],
            "no_new_privs": status.get("NoNewPrivs", "0"),
            "seccomp": _MODES.get(status.get("Seccomp", "0"), "?"),
            "seccomp filters": status.get("Seccomp_filters", ""),
            "root": "read-only" if "ro" in root.get("options", ()) else "writable",
            "uid map": _map(f"/proc/{pid}/uid_map"),
            "gid map": _map(f"/proc/{pid}/gid_map"),
            "oom_score_adj": files.read(f"/proc/{pid}/oom_score_adj").strip(),
        },
        "rlimits": _rlimits(files.read(f"/proc/{pid}/limits")),
    }


def _names(mask: int) -> list[str]:
    return [name for number, name in enumerate(capabilities.NAMES) if mask >> number & 1]


def _map(path: str) -> str:
    """As inside:outside:size, one after the other."""
    return " ".join(":".join(line.split()) for line in files.read(path).splitlines())


def _mounts(text: str) -> dict[str, dict]:
    """Mount point -> what is mounted there; of several on one another the topmost."""
    found = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        _, _, _, root, point, options, *tags = left.split()
        kind, source, *more = right.split(" ")
        found[_plain(point)] = {
            "type": kind, "source": _plain(source), "root": _plain(root),
            "options": options.split(","),
            "propagation": sorted({tag.partition(":")[0] for tag in tags}) or ["private"],
            "super options": more[0].split(",") if more else [],
        }  # fmt: skip
    return found


def _plain(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def _rlimits(text: str) -> dict[str, str]:
    """proc_pid_limits(5): a table of fixed columns; name -> soft:hard."""
    head, *lines = text.splitlines()
    soft, hard, unit = (head.index(word) for word in ("Soft", "Hard", "Units"))
    return {
        line[:soft].strip().lower(): f"{line[soft:hard].strip()}:{line[hard:unit].strip()}"
        for line in lines
    }


def _groups(pid: int) -> dict[str, dict]:
    """Controllers, as in "cpu,cpuacct" or "v2" -> the group's path and its limits."""
    with open("/proc/self/mountinfo") as mountinfo, open(f"/proc/{pid}/cgroup") as own:
        layout = cgroups.detect.parse(mountinfo, own)
    found = {}
    for one in layout.hierarchies:
        name = "v2" if one.version == 2 else ",".join(one.controllers)
        # None: it is above, or beside, what our mounts show (cgroup_namespaces(7))
        limits = {} if one.own is None else _limits(one.mount_point + one.own)
        found[name] = {"path": one.own if one.own is None else one.own or "/", "limits": limits}
    return found


def _limits(directory: str) -> dict[str, str]:
    found = {}
    try:
        names = os.listdir(directory)
    except OSError:
        return {}
    for name in sorted(names):
        path = f"{directory}/{name}"
        try:
            mode = os.lstat(path).st_mode
            settable = stat.S_ISREG(mode) and mode & 0o600 == 0o600 and not _NO_LIMIT.match(name)
            if settable or name == "devices.list":
                found[name] = "; ".join(files.read(path).split("\n")).strip("; ")
        except OSError:
            continue  # not with this scheduler, or gone
    return found


# --- two of them ----------------------------------------------------------------------------------


def compare(a: dict, b: dict) -> dict:
    """What is different, section by section; `a` and `b` are from `look`."""
    return {
        "namespaces": {
            kind: {"a": a["namespaces"].get(kind), "b": b["namespaces"].get(kind),
                   "equal": a["namespaces"].get(kind) == b["namespaces"].get(kind)}
            for kind in namespaces.NAMESPACES
        },
        "process": {
            key: {"a": a["process"][key], "b": b["process"][key],
                  "equal": a["process"][key] == b["process"][key]}
            for key in a["process"]
        },
        "capabilities": {
            kind: _sets(a["capabilities"][kind], b["capabilities"][kind])
            for kind in capabilities.SETS
        },
        "mounts": _compare_mounts(a["mounts"], b["mounts"]),
        "cgroups": _compare_groups(a["cgroups"], b["cgroups"]),
        "rlimits": _changed(a["rlimits"], b["rlimits"]),
    }  # fmt: skip


def _changed(a: dict, b: dict) -> dict:
    return {
        key: {"a": a.get(key), "b": b.get(key)}
        for key in dict.fromkeys((*a, *b)) if a.get(key) != b.get(key)
    }  # fmt: skip


def _sets(a: list[str], b: list[str]) -> dict:
    return {"only_a": [one for one in a if one not in b],
            "only_b": [one for one in b if one not in a],
            "both": [one for one in a if one in b]}  # fmt: skip


def _compare_mounts(a: dict, b: dict) -> dict:
    differ = {}
    for point in a:
        if point in b and a[point] != b[point]:
            changed = _changed(a[point], b[point])
            for key in ("options", "propagation", "super options"):
                if key in changed:
                    changed[key] = _sets(a[point][key], b[point][key])
            differ[point] = changed
    return {
        "only_a": {point: one for point, one in a.items() if point not in b},
        "only_b": {point: one for point, one in b.items() if point not in a},
        "differ": differ,
        "equal": len([point for point in a if a[point] == b.get(point)]),
    }


def _compare_groups(a: dict, b: dict) -> dict:
    found = {}
    for name in dict.fromkeys((*a, *b)):
        one, other = a.get(name, {}), b.get(name, {})
        found[name] = {
            "a": one.get("path"), "b": other.get("path"),
            "limits": _changed(one.get("limits", {}), other.get("limits", {})),
        }  # fmt: skip
    return found


# --- on paper -------------------------------------------------------------------------------------


def report(root: str, a: str, b: str, as_json: bool) -> None:
    """Print the comparison. Raises ContainerError."""
    pids = [resolve(root, word) for word in (a, b)]
    told = compare(*map(look, pids))
    sides = {side: {"name": name, "pid": pid}
             for side, name, pid in zip("ab", (a, b), pids, strict=True)}  # fmt: skip
    if as_json:
        print(json.dumps({**sides, **told}, indent=1))
        return
    paper = Paper()
    a, b = (f"{word} (2nd)" if n and a == b else word for n, word in enumerate((a, b)))
    _print_namespaces(paper, told["namespaces"], a, b)
    _print_capabilities(paper, told["capabilities"], a, b)
    _head(paper, "process", "who it is, and what it can never do", "10")
    _pairs(paper, told["process"], a, b)
    _print_mounts(paper, told["mounts"], a, b)
    _print_groups(paper, told["cgroups"], a, b)
    _head(paper, "resource limits", "of each process, setrlimit(2); soft:hard", "10")
    _pairs(paper, told["rlimits"], a, b)


def _head(paper: Paper, title: str, words: str, lesson: str) -> None:
    paper.line(f"{paper.bold(title)}: {words} {paper.dim(f'(lesson {lesson})')}")


def _pairs(paper: Paper, changed: dict, a: str, b: str) -> None:
    rows = [(key, _word(one["a"]), _word(one["b"])) for key, one in changed.items()
            if not one.get("equal")]  # fmt: skip
    paper.table([("", a, b), *rows] if rows else [("no difference",)])


def _word(value) -> str:
    return "-" if value in (None, "") else str(value)


def _print_namespaces(paper: Paper, told: dict, a: str, b: str) -> None:
    own = [kind for kind, one in told.items() if not one["equal"]]
    _head(paper, "namespaces", f"{len(own)} of {len(told)} are not shared", "04")
    rows = [("", a, b, "")]
    for kind, one in told.items():
        what = namespaces.NAMESPACES[kind][2]
        other = "the same" if one["equal"] else _word(one["b"])
        rows.append((kind, _word(one["a"]), other, what))
    paper.table(rows)


def _print_capabilities(paper: Paper, told: dict, a: str, b: str) -> None:
    _head(paper, "capabilities", "pieces of root's power, capabilities(7)", "10")
    alike: dict[str, list[str]] = {}  # sets in which the same is the same
    for kind, one in told.items():
        alike.setdefault(json.dumps(one), []).append(kind)
    rows = []
    for kinds in alike.values():
        one = told[kinds[0]]
        sides = [("both", "both"), ("only_a", f"only {a}"), ("only_b", f"only {b}")]
        shown = [(side, name) for side, name in sides if one[side]] or sides[:1]
        left = ", ".join(kinds)
        for side, name in shown:
            rows.append((left, name, _few(one[side])))
            left = ""
    paper.table(rows)


def _few(names: list[str]) -> str:
    if len(names) == len(capabilities.NAMES):
        return f"all {len(names)}"
    return " ".join(name.removeprefix("CAP_").lower() for name in names) or "none"


def _print_mounts(paper: Paper, told: dict, a: str, b: str) -> None:
    words = f"{told['equal']} are the same, {len(told['differ'])} differ"
    _head(paper, "mounts", words, "03")
    rows = []
    for point, one in told["differ"].items():
        rows.append((point, "differs", "; ".join(_difference(one, a, b))))
    for side, name in (("only_a", a), ("only_b", b)):
        for point, one in told[side].items():
            what = f"{one['type']} {one['source']} {','.join(one['options'])}"
            rows.append((point, f"only {name}", what))
    paper.table(rows)


def _difference(changed: dict, a: str, b: str):
    for key, one in changed.items():
        if "only_a" not in one:
            yield f"{key}: {_word(one['a'])} in {a}, {_word(one['b'])} in {b}"
            continue
        for side, name in (("only_a", a), ("only_b", b)):
            if one[side]:
                yield f"{key} only in {name}: {','.join(one[side])}"


def _print_groups(paper: Paper, told: dict, a: str, b: str) -> None:
    _head(paper, "cgroups", "what they may use together with others, cgroups(7)", "06")
    rows = [("", a, b)]
    for name, one in told.items():
        rows.append(
            (name, _word(one["a"]), _word(one["b"]) if one["a"] != one["b"] else "the same")
        )
        for file, values in one["limits"].items():
            rows.append((f"  {file}", _word(values["a"]), _word(values["b"])))
    paper.table(rows)
