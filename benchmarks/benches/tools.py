"""What the benchmarks whose loads are existing tools share (cpu, syscall, memspeed, disk, network,
application): each arm runs the same bytes of a tool, in turns, and what it says is read.

A load's words are a shell's. $HERE is the root tree: empty in a container or a machine, which have
it as their root, a directory for a plain process of the host.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import time
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
from benchmarks.command import PATH, running, with_last_words
from benchmarks.rows import Row, RowMaker, Where
from benchmarks.version import first_line

MARK = "== load"
RUN_S = 120.0
PID = '"$HERE/load/pid"'


@dataclass(frozen=True)
class Load:
    """metric: after the benchmark's name, TOOL.WHAT. words: the tool's name first. finds: its
    figure in what it says. server: what it talks to, which writes its pid to PID once it listens.
    """

    metric: str
    package: str
    words: str
    finds: str
    unit: str
    direction: str
    server: str = ""

    @property
    def program(self) -> str:
        """The tool's path; "" where it is not installed."""
        return _path(self.words)

    @property
    def programs(self) -> list[str]:
        """All that it needs; "" for what is not installed."""
        return [_path(words) for words in (self.words, self.server) if words]

    @property
    def arguments(self) -> str:
        return self.words.partition(" ")[2]

    def script(self) -> str:
        """The lines that run it, between start and end of its server."""
        run = f"{self.program} {self.arguments} 2>&1"
        if not self.server:
            return run
        server = f"{_path(self.server)} {self.server.partition(' ')[2]}"
        return "\n".join(
            [
                f"rm -f {PID}",
                f"{server} 2>&1 &",
                f"until [ -s {PID} ] || ! kill -0 $! 2>/dev/null; do sleep 0.05; done",
                run,
                "kill $!; wait $!",
            ]
        )

    def missing(self) -> Skip:
        words = (self.words, self.server)
        tools = [one.split()[0] for one in words if one and not _path(one)]
        return Skip(f"tool missing: {', '.join(tools)}", f"apt-get install {self.package}")


def _path(words: str) -> str:
    return shutil.which(words.split()[0], path=PATH) or ""


class Host(CommandArm):
    """The tool as a plain process of the host."""

    runtime = "fork+exec"

    def __init__(self) -> None:
        super().__init__("fork+exec", [""], roots.TOOLS)

    def capture(self, words: list[str]) -> str:
        """Nothing that it started outlives it, whatever ends it."""
        said, words_said = os.memfd_create("stdout"), os.memfd_create("stderr")
        null = os.open(os.devnull, os.O_RDWR)
        try:
            with running(words, null, said, words_said) as process:
                process.succeed(words[0], time.monotonic_ns() + int(RUN_S * 1e9))
            return os.pread(said, os.fstat(said).st_size, 0).decode(errors="replace")
        except ArmFailed as failure:
            raise ArmFailed(with_last_words(str(failure), words_said)) from None
        finally:
            for fd in (said, words_said, null):
                os.close(fd)


class Tools(Bench):
    reference = "fork+exec"  # a load has no start: what it costs to be kept apart is to be seen
    loads: tuple[Load, ...] = ()
    files: dict[str, str] = {}  # in the tree: path, content

    def arms(self, quick: bool = False) -> list[Arm]:
        root = roots.TOOLS
        containers = [Command(root), Run(OURS, root), Bubblewrap(root), OciRuntime("runc", root)]
        return [Host(), *containers, *self.machines()]

    def machines(self) -> list[Arm]:
        return [VirtualMachine(tier, roots.TOOLS) for tier in ("micro", "direct")]

    @property
    def able(self) -> list[Load]:
        return [load for load in self.loads if all(load.programs)]

    def prepare(self, size: Size) -> None:
        super().prepare(size)
        if self.able and roots.missing(roots.BASE) is None:
            programs = {program for load in self.able for program in load.programs}
            toolbox.make(sorted(programs), self.files)

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

    def variables(self, arm: Arm) -> dict[str, str]:
        """Of the shell that runs the loads."""
        return {"HERE": roots.tree(roots.TOOLS) if arm.kind == "process" else ""}

    def values(self, arm: Arm, where: Where) -> Iterable[Value]:
        # One instance runs them all, one after the other: a machine's start takes long.
        lines = [f"{name}={shlex.quote(value)}" for name, value in self.variables(arm).items()]
        lines += ["ifconfig lo 127.0.0.1 up"] if arm.kind == "vm" else []
        for load in self.able:
            lines += [f"echo {MARK}", load.script()]
        said = arm.capture(["/bin/sh", "-c", "\n".join([*lines, "true"])])
        for load, text in zip(self.able, said.split(f"{MARK}\n")[1:], strict=True):
            yield self.found(load, text)

    def found(self, load: Load, text: str) -> Value:
        """The load's figure in what it said. Raises ArmFailed."""
        found = re.search(load.finds, text)
        if not found:
            said = " ".join(text.split())[-200:]
            raise ArmFailed(f"{load.words}: {said or 'it said nothing'}")
        params = {"tool": first_line(load.program), "words": load.words}
        if load.server:
            params["server"] = f"{load.server} ({first_line(_path(load.server), '-v')})"
        metric = f"{self.name}.{load.metric}"
        return Value(metric, float(found[1]), load.unit, load.direction, params=params)

    def close(self) -> None:
        toolbox.remove()
