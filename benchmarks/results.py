"""A run on disk: `results/<run_id>/` with plan.json, environment.json and samples.jsonl.

The round is the unit of writing: its rows are appended together when it is complete, flushed and
synced. So an interrupted run is valid as it lies, and resumes at a round's border: no pair ever
spans an interruption.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from typing import Any

from benchmarks import schema
from benchmarks.rows import SCHEMA, Row

SAMPLES = "samples.jsonl"
DISCARDED = "samples.discarded.jsonl"
LAST_OF_A_ROUND = "guard.suspended"  # rounds.run_rounds puts the guard's rows behind all others


class ResultsError(Exception):
    """The results cannot be used; the message says which file, why, and what to do."""


def append(directory: str, rows: Iterable[Row]) -> None:
    """Add complete rows to the run's samples, all or none, and do not return before they are on
    disk. Raises OSError with the file's name.
    """
    path = os.path.join(directory, SAMPLES)
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    # Unbuffered: a buffer would try again to write, when it is closed, what had no room.
    with open(path, "ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())
        except OSError as error:
            file.truncate(before)
            raise OSError(error.errno, error.strerror, path) from error


def begun(directory: str) -> bool:
    """Whether any sample was written."""
    path = os.path.join(directory, SAMPLES)
    return os.path.exists(path) and os.path.getsize(path) > 0


def write_whole(path: str, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never half. Raises OSError
    with the file's name.
    """
    new = f"{path}.new"
    try:
        with open(new, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(new, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise OSError(error.errno, error.strerror, path) from error


def write_json(directory: str, name: str, record: dict[str, Any]) -> None:
    text = json.dumps(record, indent=2, sort_keys=True) + "\n"
    write_whole(os.path.join(directory, name), text)


def read_json(directory: str, name: str, needed: Iterable[str] = ()) -> dict[str, Any]:
    """The record in this file. Raises ResultsError when there is none, or when it lacks what is
    needed of it.
    """
    path = os.path.join(directory, name)
    try:
        with open(path, encoding="utf-8") as file:
            record = dict(json.load(file))
    except FileNotFoundError:
        raise ResultsError(
            f"{path}: no such file; is {directory} the directory of a run?"
        ) from None
    except (ValueError, TypeError) as error:
        raise ResultsError(f"{path}: not readable as JSON ({error})") from error
    missing = [name for name in needed if name not in record]
    if missing:
        raise ResultsError(f"{path}: no {', '.join(missing)} in it; another version wrote it")
    return record


def read_rows(directory: str) -> tuple[list[Row], list[str]]:
    """All readable rows, and one message for each line that is not ("samples.jsonl:17: …").

    Raises ResultsError when there is no file, or when its rows are of another schema version.
    """
    path = os.path.join(directory, SAMPLES)
    rows: list[Row] = []
    damaged = []
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                row, problem = _parse(line)
                if row is None:
                    damaged.append(f"{SAMPLES}:{number}: {problem}; line left out")
                else:
                    rows.append(row)
    except FileNotFoundError:
        raise ResultsError(f"{path}: no such file; run `python -m benchmarks run` first") from None
    if not rows:
        problem = damaged[0] if damaged else "it is empty"
        raise ResultsError(f"{path}: no row can be read ({problem})")
    versions = {row["schema"] for row in rows} - {SCHEMA}
    if versions:
        raise ResultsError(
            f"{path}: rows of schema {sorted(map(str, versions))}, this program reads {SCHEMA}; "
            "read them with the version that wrote them (environment.json names its source commit)"
        )
    return rows, damaged


def _parse(line: str) -> tuple[Row | None, str]:
    try:
        row = json.loads(line, parse_constant=_no_number)
    except ValueError as error:
        return None, f"not JSON ({error})"
    if not isinstance(row, dict) or "schema" not in row:
        return None, "not a row"
    # Another schema may have other fields; read_rows refuses it as a whole.
    problem = schema.problem(row) if row["schema"] == SCHEMA else ""
    return (None, problem) if problem else (row, "")


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON's")


def runs(results: str) -> list[str]:
    """Directories of runs under `results`, oldest first (a run's id begins with its time)."""
    names = sorted(os.listdir(results)) if os.path.isdir(results) else []
    return [
        os.path.join(results, name)
        for name in names
        if os.path.isfile(os.path.join(results, name, SAMPLES))
    ]


def latest(results: str) -> str:
    found = runs(results)
    if not found:
        raise ResultsError(f"{results}: no run here; start one with `python -m benchmarks run`")
    return found[-1]


def discard_incomplete_round(directory: str, expected: dict[int, set[tuple[str, int]]]) -> int:
    """Before resuming: cut off the last round when it is not whole; return the next round to shoot.

    expected: for each round its (arm, rep) pairs. The cut-off bytes are kept in
    samples.discarded.jsonl.
    """
    path = os.path.join(directory, SAMPLES)
    with open(path, "rb") as file:
        lines = file.readlines()
    whole_lines = len(lines) - (1 if lines and not lines[-1].endswith(b"\n") else 0)
    seen: dict[int, set[tuple[str, int]]] = {}
    first_line: dict[int, int] = {}
    closed = set()
    for number, line in enumerate(lines[:whole_lines]):
        row, _ = _parse(line.decode(errors="replace"))
        if row is None or row["round"] == 0:
            continue
        first_line.setdefault(row["round"], number)
        seen.setdefault(row["round"], set()).add((row["arm"], row["rep"]))
        if row["metric"] == LAST_OF_A_ROUND:
            closed.add(row["round"])
    last = max(first_line, default=0)
    whole = last == 0 or (last in closed and seen[last] >= expected.get(last, set()))
    keep = whole_lines if whole else first_line[last]
    if keep < len(lines):
        with open(os.path.join(directory, DISCARDED), "ab") as file:
            file.writelines(lines[keep:])
        os.truncate(path, sum(len(line) for line in lines[:keep]))
    return last + 1 if whole else last
