"""images: layers against snapshots. A copy of a root file system is made, changed by a fixed number
of bytes, kept as a new image, and brought back to what it was.
"""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.arms.base import Arm
from benchmarks.arms.layers import CHANGED_MIB, Copies, DockerLayers, layer_arms
from benchmarks.benches.base import Bench, Value
from benchmarks.rows import Where


class Images(Bench):
    name = rows = "images"
    title = "layers against snapshots: clone, commit, revert, and the bytes of a change"
    metric = "images.clone"

    def arms(self, quick: bool = False) -> list[Arm]:
        return [arm for arm in layer_arms() if not quick or not arm.tier]

    def values(self, arm: Arm, where: Where) -> Iterable[Value]:
        assert isinstance(arm, Copies | DockerLayers)
        params = {"changed_mib": CHANGED_MIB}
        for name, value in arm.life().items():
            size = name in ("unique", "shared")
            direction = "higher" if name == "shared" else "lower"
            yield Value(f"images.{name}", value, "MiB" if size else "ms", direction, params=params)


BENCH = Images()
