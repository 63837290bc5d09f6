"""What the benchmarks `cpu`, `syscall` and `memspeed` share: a load is an existing tool; ours is
that each arm runs the same bytes of it, in turns, and that what it says is read.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks import roots, toolbox
from benchmarks.arms.base import Arm, ArmFailed, Skip
from benchmarks.arms.bubblewrap import Bubblewrap
from benchmarks.arms.minicontainer import Command
from benchmarks.arms.oci import OciRuntime
from benchmarks.arms.process import CommandArm
from benchmarks.arms.runtime import OURS, Run
from benchmarks.arms.vm import VirtualMachine
from benchmarks.benches.base import Bench, Size, Value
from benchmarks.command import PATH, output_of
from benchmarks.rows import Row, RowMaker, Where
from benchmarks.version import first_line

MARK = "== load"


@dataclass(frozen=True)
class Load:
    """metric: after the benchmark's name, TOOL.WHAT. words: the tool's name first. finds: its
    figure in what it says.
    """

    metric: str
    package: str
    words: str
    finds: str
    unit: str
    direction: str

    @property
    def program(self) -> str:
        """The tool's path; "" where it is not installed."""
        return shutil.which(self.words.split()[0], path=PATH) or ""

    @property
    def arguments(self) -> str:
        return self.words.partition(" ")[2]

    def missing(self) -> Skip:
        tool = self.words.split()[0]
        return Skip(f"tool missing: {tool}", f"apt-get install {self.package}")


class Host(CommandArm):
    """The tool as a plain process of the host."""

    runtime = "fork+exec"

    def __init__(self) -> None:
        super().__init__("fork+exec", [""], roots.TOOLS)

    def capture(self, words: list[str]) -> str:
        return output_of(words)


class Tools(Bench):
    loads: tuple[Load, ...] = ()

    def arms(self, quick: bool = False) -> list[Arm]:
        root = roots.TOOLS
        containers = [Command(root), Run(OURS, root), Bubblewrap(root), OciRuntime("runc", root)]
        machines = [VirtualMachine(tier, root) for tier in ("micro", "direct")]
        return [Host(), *containers, *machines]

    def prepare(self, size: Size) -> None:
        super().prepare(size)
        self.able = [load for load in self.loads if load.program]
        if self.able and roots.missing("busybox") is None:
            toolbox.make(sorted({load.program for load in self.able}))

    def unavailable(self, arm: Arm) -> Skip | None:
        return super().unavailable(arm) if self.able else self.loads[0].missing()

    def sample(self, arm: Arm, where: Where, make: RowMaker) -> Iterable[Row]:
        rows = list(super().sample(arm, where, make))
        if where.warmup:
            lacking = [load for load in self.loads if load not in self.able]
            rows += [
                make.skip(arm, load.missing(), f"{self.name}.{load.metric}") for load in lacking
            ]
        return rows

    def values(self, arm: Arm, where: Where) -> Iterable[Value]:
        # One instance runs them all, one after the other: a machine's start takes long.
        lines = [f"echo {MARK}; {load.program} {load.arguments} 2>&1" for load in self.able]
        said = arm.capture(["/bin/sh", "-c", "\n".join(lines)])
        for load, text in zip(self.able, said.split(f"{MARK}\n")[1:], strict=True):
            found = re.search(load.finds, text)
            if not found:
                raise ArmFailed(f"{load.words}: {text.strip()[-200:] or 'it said nothing'}")
            params = {"tool": first_line(load.program), "words": load.words}
            metric = f"{self.name}.{load.metric}"
            yield Value(metric, float(found[1]), load.unit, load.direction, params=params)

    def close(self) -> None:
        toolbox.remove()
