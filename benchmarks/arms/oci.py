"""runc and crun: the reference runtimes of the OCI specification, on one bundle made from the same
root tree.

The bundle is the runtime's own example (`runc spec`), with the terminal off, the probe as its
command, the same writable root, and a cgroup namespace beside the five others it asks for.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess

from benchmarks import roots
from benchmarks.arms.base import Arm, ArmFailed, Shot, Skip
from benchmarks.command import PATH, environment, shoot_command, tidy
from benchmarks.version import first_line
from benchmarks.workdir import run_directory


class OciRuntime(Arm):
    """`RUNTIME run` of a fresh container id for each shot."""

    kind = "container"
    net_mode = "none"

    def __init__(self, runtime: str, root: str) -> None:
        super().__init__()
        self.runtime = runtime
        self.name = f"{runtime}:{root}"
        self.root = root
        self.tool = shutil.which(runtime, path=PATH) or ""
        self.runtime_version = first_line(self.tool) if self.tool else ""
        self.ids = itertools.count()
        self.params["isolation"] = (
            "6 namespaces, pivot_root, mounts, masks, capabilities, cgroup; no seccomp"
        )

    def unavailable(self) -> Skip | None:
        if not self.tool:
            return Skip(f"{self.runtime} is not installed", f"apt-get install {self.runtime}")
        return roots.missing(self.root)

    def prepare(self) -> None:
        self.bundle = os.path.join(run_directory(), self.name.replace(":", "-"))
        self.state = os.path.join(run_directory(), self.runtime)
        shutil.rmtree(self.bundle, ignore_errors=True)
        os.makedirs(self.bundle)
        rootless = [] if os.geteuid() == 0 else ["--rootless"]
        said = subprocess.run(
            [self.tool, "spec", *rootless],
            cwd=self.bundle,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if said.returncode != 0:
            raise ArmFailed(f"{self.runtime} spec: {said.stderr.strip()[-300:]}")
        path = os.path.join(self.bundle, "config.json")
        with open(path, encoding="utf-8") as file:
            spec = json.load(file)
        spec["process"].update(terminal=False, args=["/probe"])
        spec["root"] = {"path": roots.tree(self.root), "readonly": False}
        kinds = {space["type"] for space in spec["linux"]["namespaces"]}
        if "cgroup" not in kinds:
            spec["linux"]["namespaces"].append({"type": "cgroup"})
        with open(path, "w", encoding="utf-8") as file:
            json.dump(spec, file)
        self.argv = [self.tool, "--root", self.state, "run", "--bundle", self.bundle]
        self.params["command"] = self.argv

    def shoot(self) -> Shot:
        name = f"bench-{os.getpid()}-{self.root}-{next(self.ids)}"
        done = False
        try:
            shot = shoot_command([*self.argv, name])
            done = True
            return shot
        finally:
            if not done:
                self._delete(name)

    def _delete(self, name: str) -> None:
        tidy([self.tool, "--root", self.state, "delete", "--force", name])

    def fix_for(self, failure: str) -> str:
        if "hybrid" in failure:
            return "boot with systemd.unified_cgroup_hierarchy=1 (crun refuses the hybrid layout)"
        by_hand = [*self.params.get("command", [self.tool, "spec"]), "test"]
        return f"try it by hand: {' '.join(by_hand)}"

    def close(self) -> None:
        if hasattr(self, "bundle"):
            shutil.rmtree(self.bundle, ignore_errors=True)
            shutil.rmtree(self.state, ignore_errors=True)


def oci_arms() -> list[Arm]:
    pairs = itertools.product(("runc", "crun"), ("busybox", "debian"))
    return [OciRuntime(runtime, root) for runtime, root in pairs]
