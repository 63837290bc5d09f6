"""Published figures to draw beside our own: `anchors.csv`, one fact a line with its source and
year.

`verified` says whether the source itself was read ("read") or only its abstract ("abstract").
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass

PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "anchors.csv")
STARTS = ("start", "boot")  # metrics that end where ours does: at the payload or in its init


@dataclass(frozen=True)
class Anchor:
    metric: str
    arm: str
    value: float
    unit: str
    year: int | None
    conditions: str
    source: str
    locator: str
    verified: str

    @property
    def cited(self) -> str:
        """What is written beside the diamond: the source's short name and year."""
        name = self.source.partition(",")[0].removesuffix(" README")
        name = name.removeprefix("firecracker-microvm/").removeprefix("google/")
        name = name.partition(" website")[0].removesuffix(" eurosys21-artifacts")
        cited = f"{name}, {self.year}" if self.year else f"{name}, undated"
        return cited if self.verified == "read" else f"{cited}, {self.verified} only"

    @property
    def hardware(self) -> str:
        """What the source says it ran on, in short."""
        return self.conditions.partition(";")[0] or "hardware not told"

    @property
    def mebibytes(self) -> float:
        """A memory figure in MiB, whichever unit its source has."""
        return self.value * (1e6 / 2**20 if self.unit == "MB" else 1)


def load(path: str = PATH) -> list[Anchor]:
    """All published figures. Raises OSError, and ValueError with the number of a damaged line."""
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        try:
            return [_anchor(line) for line in reader]
        except (KeyError, ValueError) as error:
            raise ValueError(f"{path}:{reader.line_num}: {error}") from error


def _anchor(line: dict[str, str]) -> Anchor:
    return Anchor(
        line["metric"],
        line["arm"],
        float(line["value"]),
        line["unit"],
        int(line["year"]) if line["year"] else None,
        line["conditions"],
        line["source"],
        line["locator"],
        line["verified"],
    )


def starts() -> list[Anchor]:
    """Published start and boot times in ms, fastest first."""
    chosen = [anchor for anchor in load() if anchor.metric in STARTS and anchor.unit == "ms"]
    return sorted(chosen, key=lambda anchor: anchor.value)


def memory() -> list[Anchor]:
    """Published memory of one instance, smallest first."""
    chosen = [anchor for anchor in load() if anchor.metric.partition(".")[0] == "memory"]
    sizes = [anchor for anchor in chosen if anchor.unit in ("MB", "MiB")]
    return sorted(sizes, key=lambda anchor: anchor.mebibytes)


def claim(arm: str) -> float:
    """The lecture's bound in ms for "VM startup" or "container startup"."""
    return next(a.value for a in load() if a.metric == "claim" and a.arm == arm)
