"""A run's rows as a pandas table, and as CSV for whatever else reads tables."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import IO, Any

import pandas as pd

from benchmarks import results
from benchmarks.rows import Row, fields

NUMBERS = ("value", "cpu_ms", "channel_cost_us")  # the fields that may be null


def frame(rows: Iterable[Row]) -> pd.DataFrame:
    """One line for each row, one column for each field of the schema; no number is NaN."""
    table = pd.DataFrame(list(rows), columns=list(fields()))
    return table.astype(dict.fromkeys(NUMBERS, float))


def load(run: str) -> pd.DataFrame:
    """Every observation of a run, warm-up and failures included, with its field names as columns.

    run: a run's directory, or a CSV file that `export` wrote. Lines that cannot be read are left
    out, and counted in the table's `attrs["damaged"]`, one message each. Raises ResultsError.
    """
    if os.path.isfile(run):
        return _from_csv(run)
    rows, damaged = results.read_rows(run)
    table = frame(rows)
    table.attrs["damaged"] = damaged
    return table


def write_csv(rows: Iterable[Row], file: IO[str]) -> None:
    """The rows as CSV (RFC 4180), `params` as JSON in its column."""
    table = frame(rows)
    table["params"] = [json.dumps(params, sort_keys=True) for params in table.params]
    table.to_csv(file, index=False)


def _from_csv(path: str) -> pd.DataFrame:
    numbers = dict.fromkeys(("value", "cpu_ms", "channel_cost_us"), float)
    whole = dict.fromkeys(("schema", "n_concurrent", "round", "order", "rep"), int)
    flags = dict.fromkeys(("warmup", "contaminated"), bool)
    texts: dict[str, Any] = dict.fromkeys(fields(), str)
    try:
        # An empty text is "", as in the rows; only an empty number is missing.
        table = pd.read_csv(
            path,
            dtype=texts | numbers | whole | flags,
            keep_default_na=False,
            na_values={name: [""] for name in numbers},
        )
        missing = [name for name in fields() if name not in table]
        if missing:
            raise ValueError(f"no column {', '.join(missing)}")
        table["params"] = [json.loads(text) for text in table.params]
    except (ValueError, UnicodeDecodeError) as error:
        raise results.ResultsError(f"{path}: not a table that `export` wrote ({error})") from error
    table.attrs["damaged"] = []
    return table
