"""runc and crun: the reference runtimes of the OCI specification, on one bundle made from the same
root tree.

The bundle is the runtime's own example (`runc spec`), with the terminal off, the probe as its
command, the same writable root, and a cgroup namespace beside the five others it asks for.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

from benchmarks import roots
from benchmarks.arms.base import Arm, ArmFailed, Shot, Skip
from benchmarks.command import PATH, environment, output_of, shoot_command, tidy
from benchmarks.held import Detached, Ear, Held
from benchmarks.version import first_line
from benchmarks.workdir import run_directory


class BundleArm(Arm):
    """`RUNTIME run` of a fresh container id for each shot, from a bundle made by `config`.

    command: the runtime, before its options and its verb.
    """

    kind = "container"
    net_mode = "none"

    def __init__(self, name: str, runtime: str, root: str, command: list[str]) -> None:
        super().__init__()
        self.name = f"{name}:{root}"
        self.runtime = runtime
        self.root = root
        self.command = command
        self.ids = itertools.count()

    def config(self) -> dict[str, Any]:
        """The bundle's config.json, whatever its program. Raises ArmFailed."""
        raise NotImplementedError

    def prepare(self) -> None:
        name = self.name.replace(":", "-")
        self.bundle = os.path.join(run_directory(), name)
        self.state = os.path.join(run_directory(), f"{name}.state")
        shutil.rmtree(self.bundle, ignore_errors=True)
        os.makedirs(self.bundle)
        self.spec = self.config()
        self._program(["/probe"])
        self.base = [*self.command, "--root", self.state]
        # For whoever finds what a killed harness left.
        with open(f"{self.state.removesuffix('.state')}.command", "w", encoding="utf-8") as file:
            json.dump(self.base, file)
        self.argv = [*self.base, "run", "--bundle", self.bundle]
        self.params["command"] = self.argv

    def _program(self, words: list[str]) -> None:
        """Make these words the program of the bundle."""
        self.spec["process"]["args"] = words
        with open(os.path.join(self.bundle, "config.json"), "w", encoding="utf-8") as file:
            json.dump(self.spec, file)

    def shoot(self) -> Shot:
        name = self.fresh_id()
        with self.deleted_on_failure(name):
            return shoot_command([*self.argv, name])

    def hold(self, ear: Ear, words: list[str] | None = None) -> Held:
        self._program(words or ["/probe", "stay"])
        name = self.fresh_id()
        pid_file = os.path.join(self.bundle, "pid")
        start = [*self.argv, "--detach", "--pid-file", pid_file, name]

        def find() -> tuple[int, str]:
            with open(pid_file, encoding="ascii") as file:
                return int(file.read()), name

        return Detached(start, [*self.base, "delete", "--force", name], ear, find)

    def capture(self, words: list[str]) -> str:
        self._program(words)
        name = self.fresh_id()
        with self.deleted_on_failure(name):
            return output_of([*self.argv, name])

    def fresh_id(self) -> str:
        return f"bench-{os.getpid()}-{self.root}-{next(self.ids):05}"

    @contextlib.contextmanager
    def deleted_on_failure(self, name: str) -> Iterator[None]:
        try:
            yield
        except BaseException:
            tidy([*self.base, "delete", "--force", name])
            raise

    def fix_for(self, failure: str) -> str:
        if "hybrid" in failure:
            return "boot with systemd.unified_cgroup_hierarchy=1 (crun refuses the hybrid layout)"
        by_hand = [*self.params.get("command", [*self.command, "spec"]), "test"]
        return f"try it by hand: {' '.join(by_hand)}"

    def close(self) -> None:
        if hasattr(self, "bundle"):
            shutil.rmtree(self.bundle, ignore_errors=True)
            shutil.rmtree(self.state, ignore_errors=True)


class OciRuntime(BundleArm):
    """A runtime that is one installed program, with its own example of a bundle."""

    def __init__(self, runtime: str, root: str) -> None:
        self.tool = installed(runtime)
        super().__init__(runtime, runtime, root, [self.tool])
        self.runtime_version = first_line(self.tool) if self.tool else ""
        self.params["isolation"] = (
            "6 namespaces, pivot_root, mounts, masks, capabilities, cgroup; no seccomp"
        )

    def unavailable(self) -> Skip | None:
        return missing_program(self.tool, self.runtime) or roots.missing(self.root)

    def config(self) -> dict[str, Any]:
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
        with open(os.path.join(self.bundle, "config.json"), encoding="utf-8") as file:
            spec: dict[str, Any] = json.load(file)
        spec["process"].update(terminal=False)
        spec["root"] = {"path": roots.tree(self.root), "readonly": False}
        kinds = {space["type"] for space in spec["linux"]["namespaces"]}
        if "cgroup" not in kinds:
            spec["linux"]["namespaces"].append({"type": "cgroup"})
        return spec


def installed(runtime: str) -> str:
    """Path of the program, "" when there is none."""
    return shutil.which(runtime, path=PATH) or ""


def missing_program(tool: str, runtime: str) -> Skip | None:
    if tool:
        return None
    return Skip(f"{runtime} is not installed", f"apt-get install {runtime}")


def oci_arms() -> list[Arm]:
    pairs = itertools.product(("runc", "crun"), ("busybox", "debian"))
    return [OciRuntime(runtime, root) for runtime, root in pairs]
