"""The parts of a start, for the waterfall."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Bar:
    """A phase in the waterfall: median offset from t0 and median length over its shots, ms."""

    name: str
    offset: float
    length: float

    @property
    def after(self) -> bool:
        """Whether it lies behind the first instruction: every arm calls that part "end"."""
        return self.name == "end"


@dataclass(frozen=True)
class Waterfall:
    arm: str
    accel: str
    traced: bool
    n: int
    bars: list[Bar]

    @property
    def start(self) -> list[Bar]:
        return [bar for bar in self.bars if not bar.after]

    @property
    def first_ms(self) -> float:
        """The first instruction: where the last part before it ends."""
        return max((bar.offset + bar.length for bar in self.start), default=0.0)


def waterfalls(table: pd.DataFrame) -> dict[str, Waterfall]:
    """For each arm its phases with a warm cache; from the traced shots where it has them."""
    phases = table[
        (table.bench == "start.phases")
        & (table.status == "ok")
        & ~table.warmup.astype(bool)
        & (table.cache_state == "warm")
    ]
    found = {}
    for name, rows in phases.groupby("arm"):
        details = pd.DataFrame(list(rows.params), index=rows.index)
        rows = rows.assign(offset=details.offset_ms, traced=details.traced)
        traced = bool(rows.traced.any())
        rows = rows[rows.traced == traced]
        bars = [
            Bar(phase, float(part.offset.median()), float(part.value.median()))
            for phase, part in rows.groupby("phase", sort=False)
        ]
        bars.sort(key=lambda bar: (bar.offset, bar.length))
        shots = int(rows["round"].nunique())
        found[str(name)] = Waterfall(str(name), rows.accel.iloc[0], traced, shots, bars)
    return found
