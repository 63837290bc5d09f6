"""What this project allows itself: how often an arm may take the time of another one, both measured
from the request until nothing of it is left, in the same rounds and on the same root.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Allowance:
    """`arm` and `against` are names of arms before the colon."""

    arm: str
    limit: float
    against: str


ALLOWANCES = (
    Allowance("minicontainer-cli", 1.0, "runc"),
    Allowance("minicontainer-library", 0.4, "runc"),
    Allowance("minicontainer-runtime-run", 0.8, "runc-run"),
    Allowance("minicontainer-runtime-create-start-delete", 1.0, "runc-create-start-delete"),
    Allowance("minicontainer-library", 0.25, "runc-run"),
    Allowance("minicontainer-library", 1.2, "bubblewrap"),
)
