"""The stopwatch: one endpoint, one clock and one receiver for processes, containers and virtual
machines.

In Python, notebooks included, `benchmarks.load("results/RUN")` gives a run as a pandas table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def load(run: str) -> pd.DataFrame:
    """Every observation of a run as a pandas table: see `benchmarks.tables.load`."""
    from benchmarks import tables  # pandas only for who asks for it

    return tables.load(run)
