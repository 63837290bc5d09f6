"""The arms: one small file for each family, one list of all."""

from __future__ import annotations

from benchmarks.arms.base import Arm


def all_arms() -> list[Arm]:
    """Every arm this project knows, runnable here or not, in the order of the report."""
    return []
