"""What was measured beside starts: one value for each round and arm, by any metric."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks import schema
from benchmarks.report.series import Group, Key, Series, paired
from benchmarks.statistics import Ratio, Summary, verdict

# What has a table of its own, or is told apart by number.
ELSEWHERE = {"start", "memory", "density", "isolation"}


@dataclass(frozen=True)
class Measured:
    """One arm by one metric, and its ratio to the reference of that benchmark."""

    key: Key
    kind: str
    tier: str
    unit: str
    direction: str
    summary: Summary
    ratio: Ratio | None
    verdict: str
    samples: list[float]

    @property
    def name(self) -> str:
        return self.key.arm

    @property
    def accel(self) -> str:
        return self.key.accel

    @property
    def emulated(self) -> bool:
        return self.accel == "tcg"


def measured(
    found: dict[Key, Series], references: dict[Group, Series], seed: int
) -> list[Measured]:
    """Everything that stands in a plain table: arms by metric, best first."""
    lines = [
        _measured(one, references.get(key.group), seed)
        for key, one in found.items()
        if key.group.bench not in ELSEWHERE
    ]
    order = list(schema.benches())
    best = {"lower": 1, "higher": -1}

    def place(one: Measured) -> tuple[int, Group, float]:
        group = one.key.group
        return order.index(group.bench), group, best[one.direction] * one.summary.median

    return sorted(lines, key=place)


def _measured(one: Series, reference: Series | None, seed: int) -> Measured:
    is_reference = reference is not None and reference.key == one.key
    against = None
    if reference is not None and not is_reference:
        against = paired(one.values, reference.values, seed)
    return Measured(
        one.key,
        one.kind,
        one.tier,
        one.unit,
        one.direction,
        one.summary(seed),
        against,
        _said(against, reference, one.direction, is_reference),
        list(one.values.values()),
    )


def _said(
    against: Ratio | None, reference: Series | None, direction: str, is_reference: bool
) -> str:
    """The verdict in words that fit the metric: slower and faster are of times alone."""
    if is_reference:
        return "reference"
    if against is None or reference is None:
        return "–"
    said = verdict(against, reference.floor if reference.again else 1.0)
    if said == "not resolved":
        return said
    more = said == "slower"
    if direction == "higher":
        return "better" if more else "worse"
    return "worse" if more else "better"
