"""How far the attendee is: one small JSON file of their own, written whole or not at all.

{"02": {"passed": ["02.1"], "hints": {"02.2": 1}, "predictions": {"02.a": "b"}}}
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile

from . import catalogue


def path() -> str:
    """The file, below XDG_STATE_HOME (XDG base directory specification)."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(base, "minicontainer", "progress.json")


# Where the file cannot be written, what was done counts at least until this process ends.
_unkept: dict | None = None


def load() -> dict:
    """All records; {} where there are none. A file that is no JSON is put aside, not lost."""
    if _unkept is not None:
        return _unkept
    try:
        with open(path()) as file:
            records = json.load(file)
        if isinstance(records, dict):
            return records
    except FileNotFoundError:
        return {}
    except ValueError:
        pass
    except OSError:
        return {}
    with contextlib.suppress(OSError):
        os.replace(path(), path() + ".broken")
    return {}


def of_lesson(records: dict, lesson: str) -> dict:
    """The record of a lesson, made when it is missing, with all its fields."""
    record = records.setdefault(lesson, {})
    for name, empty in (("passed", []), ("hints", {}), ("predictions", {})):
        record.setdefault(name, empty)
    return record


def save(records: dict) -> str:
    """Write all records; returns "" or, where that cannot be done, why (the lesson goes on)."""
    global _unkept
    target = path()
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        _write_whole(target, json.dumps(records, indent=1, sort_keys=True))
    except OSError as error:
        _unkept = records
        return f"progress is not kept: {target}: {error.strerror}"
    _unkept = None
    return ""


def _write_whole(target: str, text: str) -> None:
    """All of it or, on a full disk, nothing."""
    fd, path = tempfile.mkstemp(dir=os.path.dirname(target))
    try:
        with open(fd, "w") as file:
            file.write(text)
        os.replace(path, target)
    except OSError:
        os.unlink(path)
        raise


# --- what cells call ----------------------------------------------------------------------------


def progress(lesson: str | None = None) -> None:
    """Print what was done of one lesson, or of all that exist."""
    known = load()
    for number in [lesson] if lesson else catalogue.lessons():
        print(_line(number, of_lesson(known, number)))
    if _unkept is not None:
        print(f"this is not kept after the notebook: {path()} cannot be written")


def _line(lesson: str, record: dict) -> str:
    content = catalogue.content(lesson)
    passed = [number for number in content.EXERCISES if number in record["passed"]]
    made = {n: answer for n, answer in record["predictions"].items() if n in content.PREDICTIONS}
    right = sum(content.PREDICTIONS[number] == answer for number, answer in made.items())
    names = f" ({', '.join(passed)})" if passed else ""
    return (
        f"{lesson}: {len(passed)} of {len(content.EXERCISES)} exercises passed{names}; "
        f"{len(made)} of {len(content.PREDICTIONS)} predictions made, {right} right"
    )


def forget(lesson: str | None = None) -> None:
    """Forget what was done of one lesson, or of all."""
    if lesson is None:
        known = {}
    else:
        catalogue.content(lesson)
        known = load()
        known.pop(lesson, None)
    print(save(known) or f"forgotten: {lesson or 'all lessons'}")
