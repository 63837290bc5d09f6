"""A run on disk: `results/<run_id>/` with plan.json, environment.json and samples.jsonl.

The round is the unit of writing: its rows are appended together when it is complete, flushed and
synced. So an interrupted run is valid as it lies, and resumes at a round's border: no pair ever
spans an interruption.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from benchmarks.rows import SCHEMA, Row

if TYPE_CHECKING:
    import pandas as pd

SAMPLES = "samples.jsonl"
NEEDED = ("schema", "arm", "metric", "round", "rep", "status")


class ResultsError(Exception):
    """The results cannot be used; the message says which file, why, and what to do."""


def append(directory: str, rows: Iterable[Row]) -> None:
    """Add complete rows to the run's samples, and do not return before they are on disk. Raises
    OSError.
    """
    with open(os.path.join(directory, SAMPLES), "a", encoding="utf-8") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
        file.flush()
        os.fsync(file.fileno())


def write_json(directory: str, name: str, record: dict[str, Any]) -> None:
    """Write a record so that a reader sees the old one or the new one, never half."""
    path = os.path.join(directory, name)
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump(record, file, indent=2, sort_keys=True)
        file.write("\n")
    os.replace(f"{path}.new", path)


def read_json(directory: str, name: str) -> dict[str, Any]:
    path = os.path.join(directory, name)
    try:
        with open(path, encoding="utf-8") as file:
            return dict(json.load(file))
    except FileNotFoundError:
        raise ResultsError(
            f"{path}: no such file; is {directory} the directory of a run?"
        ) from None
    except ValueError as error:
        raise ResultsError(f"{path}: not readable as JSON ({error})") from error


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
    versions = {row["schema"] for row in rows} - {SCHEMA}
    if versions:
        raise ResultsError(
            f"{path}: rows of schema {sorted(map(str, versions))}, this program reads {SCHEMA}; "
            "read them with the version that wrote them (params and environment.json name it)"
        )
    return rows, damaged


def _parse(line: str) -> tuple[Row | None, str]:
    try:
        row = json.loads(line)
    except ValueError as error:
        return None, f"not JSON ({error})"
    missing = [name for name in NEEDED if not isinstance(row, dict) or name not in row]
    return (None, f"not a row: no {', '.join(missing)}") if missing else (row, "")


def frame(rows: Iterable[Row]) -> pd.DataFrame:
    """The rows as a pandas table, one column for each field of the schema."""
    import pandas as pd

    return pd.DataFrame(list(rows))


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
    seen: dict[int, set[tuple[str, int]]] = {}
    first_line: dict[int, int] = {}
    for number, line in enumerate(lines):
        row, _ = _parse(line.decode(errors="replace"))
        if row is not None and row["status"] != "skip" and row["arm"]:
            first_line.setdefault(row["round"], number)
            seen.setdefault(row["round"], set()).add((row["arm"], row["rep"]))
    last = max(seen, default=0)
    if last == 0 or seen[last] >= expected.get(last, set()):
        return last + 1
    keep = first_line[last]
    with open(os.path.join(directory, "samples.discarded.jsonl"), "ab") as file:
        file.writelines(lines[keep:])
    with open(f"{path}.new", "wb") as file:
        file.writelines(lines[:keep])
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.new", path)
    return last
