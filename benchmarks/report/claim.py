"""One row of the lecture's table."""

from __future__ import annotations

from dataclasses import dataclass

NOT_MEASURED = "not measured in this run"


@dataclass(frozen=True)
class Claim:
    """measured: a line for each arm, with median, interval and n; or a fact and what was read."""

    claim: str
    measured: list[str]
    published: list[str]
    verdict: str
