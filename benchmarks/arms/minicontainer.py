"""This project's own containers: the command, and the library with its helper running."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import minicontainer
from benchmarks import roots
from benchmarks.arms.base import Arm, ArmFailed, Phase, Shot, Skip
from benchmarks.command import output_of, shoot_command
from benchmarks.held import Ear, Foreground, Held
from benchmarks.receiver import Listener, rest_of_line

PACKAGE = os.path.join(roots.CLONE, "minicontainer")
TIMEOUT_S = 20.0
SETTLE_S = 0.03  # untimed: what the helper makes ready for the next call burdens no other arm


class _MinicontainerArm(Arm):
    kind = "container"
    net_mode = "none"

    def __init__(self, front: str, root: str) -> None:
        super().__init__()
        self.runtime = f"minicontainer-{front}"
        self.name = f"{self.runtime}:{root}"
        self.root = root
        self.runtime_version = getattr(minicontainer, "__version__", "")
        self.params["isolation"] = "all namespaces, pivot_root, fresh /proc /dev /sys; no cgroup"

    def unavailable(self) -> Skip | None:
        return roots.missing(self.root)

    def fix_for(self, failure: str) -> str:
        return "minicontainer doctor"


class Command(_MinicontainerArm):
    """`minicontainer run`, by its launcher script."""

    def __init__(self, root: str) -> None:
        super().__init__("cli", root)
        self.tool = sys.executable
        self.argv = [f"{PACKAGE}/minicontainer", "run", "--rootfs", roots.tree(root), "/probe"]
        self.params["command"] = self.argv

    def shoot(self) -> Shot:
        return shoot_command(self.argv, timeout_s=TIMEOUT_S)

    def hold(self, ear: Ear, words: list[str] | None = None) -> Held:
        return Foreground([*self.argv[:-1], *(words or [self.argv[-1], "stay"])], ear)

    def capture(self, words: list[str]) -> str:
        return output_of([*self.argv[:-1], *words])

    def shoot_traced(self) -> Shot:
        traced = list(self.argv)
        traced.insert(traced.index("--rootfs"), "--trace=json")
        shot = shoot_command(traced, timeout_s=TIMEOUT_S)
        steps = [json.loads(line) for line in shot.words.splitlines() if line.startswith("{")]
        shot.phases = _waterfall(shot, "python, imports, plan", steps)
        return shot


class Library(_MinicontainerArm):
    """`minicontainer.run()` from a process whose helper is already running, as in a notebook."""

    def __init__(self, root: str) -> None:
        super().__init__("library", root)
        self.channel = "inherited fd 1, receiver in a thread"
        self.params["command"] = ["minicontainer.run", roots.tree(root), ["/probe"]]
        self.params["isolation"] += "; its init is made after the call before, untimed"

    def prepare(self) -> None:
        minicontainer.helper_start()

    def shoot(self) -> Shot:
        return self._shoot(trace=False)

    def shoot_traced(self) -> Shot:
        return self._shoot(trace=True)

    def _shoot(self, trace: bool) -> Shot:
        tree = roots.tree(self.root)
        deadline = time.monotonic_ns() + int(TIMEOUT_S * 1e9)
        channel, stdout = os.pipe()
        try:
            with Listener(channel, deadline) as heard:
                t0 = time.monotonic_ns()
                result = minicontainer.run(
                    tree, ["/probe"], stdout=stdout, timeout=TIMEOUT_S, trace=trace
                )
                t_end = time.monotonic_ns()
            t6, line = heard.result()
            rest_of_line(channel, line, deadline)
            time.sleep(SETTLE_S)
        except (minicontainer.ContainerError, OSError) as error:
            raise ArmFailed(str(error)) from error
        finally:
            os.close(channel)
            os.close(stdout)
        if result.returncode != 0:
            raise ArmFailed(f"exit code {result.returncode}: {result.stderr.strip()[-300:]}")
        shot = Shot(t0, t6, t_end)
        shot.phases = _waterfall(shot, "request to the helper", result.steps)
        return shot

    def close(self) -> None:
        minicontainer.helper_stop()


def _waterfall(shot: Shot, before: str, steps: list[dict[str, Any]]) -> list[Phase]:
    """What comes before the first step, the steps of the plan, then t6 and the end."""
    if not steps:
        return []
    plan = [Phase(step["name"], step["start_ns"], step["end_ns"]) for step in steps]
    signal = Phase("first instruction heard", plan[-1].end_ns, max(shot.t6, plan[-1].end_ns))
    end = Phase("end", shot.t6, shot.t_end or shot.t6)
    return [Phase(before, shot.t0, plan[0].start_ns), *plan, signal, end]


def minicontainer_arms() -> list[Arm]:
    trees = ("busybox", "debian")
    return [*(Library(root) for root in trees), *(Command(root) for root in trees)]
