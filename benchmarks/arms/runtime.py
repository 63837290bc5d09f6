"""OCI runtimes on one complete bundle, made here and the same for all: a cgroup with limits, every
namespace but time (which runc knows from 1.2 on), docker's default filter and 14 capabilities.

Two arms of each: `run`, and the three commands that engines call, `create`, `start`, `delete`.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

import minicontainer
from benchmarks import roots
from benchmarks.arms.base import Arm, ArmFailed, Shot, Skip
from benchmarks.arms.bubblewrap import Bubblewrap
from benchmarks.arms.minicontainer import PACKAGE, Library
from benchmarks.arms.oci import BundleArm, installed, missing_program
from benchmarks.command import shoot_in_steps
from benchmarks.residents import Resident, residents
from benchmarks.version import first_line
from minicontainer.kernel.capabilities import DOCKER_DEFAULT
from minicontainer.kernel.seccomp_default import default_profile
from minicontainer.runtime.features import template

KINDS = ("pid", "network", "ipc", "uts", "mount", "cgroup", "user")
OURS = "minicontainer-runtime"


def complete(root: str, args: list[str]) -> dict[str, Any]:
    """The configuration: `runc spec`'s, completed."""
    config: dict[str, Any] = template(rootless=False)
    config["ociVersion"] = "1.0.2"  # all that it uses; older runtimes refuse a later one
    capabilities = {kind: list(DOCKER_DEFAULT) for kind in ("bounding", "effective", "permitted")}
    config["process"].update(terminal=False, args=args, capabilities=capabilities, rlimits=[])
    config["root"] = {"path": roots.tree(root), "readonly": False}
    identity = [{"containerID": 0, "hostID": 0, "size": 65536}]
    config["linux"].update(
        namespaces=[{"type": kind} for kind in KINDS],
        uidMappings=identity,
        gidMappings=identity,
        seccomp=default_profile(DOCKER_DEFAULT),
    )
    config["linux"]["resources"].update(memory={"limit": 512 << 20}, pids={"limit": 512})
    return config


class Run(BundleArm):
    """`run` of the complete bundle."""

    verb = "run"

    def __init__(self, runtime: str, root: str) -> None:
        if runtime == OURS:
            self.tool = os.path.join(PACKAGE, OURS)  # the launcher: what engines are told to call
            command = [self.tool]
            version = minicontainer.__version__
        else:
            self.tool = installed(runtime)
            command = [self.tool]
            version = first_line(self.tool) if self.tool else ""
        super().__init__(f"{runtime}-{self.verb}", runtime, root, command)
        self.runtime_version = version
        self.params["isolation"] = (
            "7 namespaces, pivot_root, mounts, masks, 14 capabilities, cgroup, seccomp"
        )

    def unavailable(self) -> Skip | None:
        if os.geteuid() != 0:
            return Skip("this bundle has a cgroup with limits: only root makes it", "use sudo")
        return missing_program(self.tool, self.runtime) or roots.missing(self.root)

    def config(self) -> dict[str, Any]:
        return complete(self.root, ["/probe"])


class Verbs(Run):
    """`create`, `start` and, when the payload has ended, `delete`. The payload is only listened to
    once `start` has returned: of this arm the whole process counts, not the first byte.
    """

    verb = "create-start-delete"

    def prepare(self) -> None:
        super().prepare()
        self.pid_file = os.path.join(self.bundle, "pid")
        self.params["command"] = self._create()
        self.params["residents"] = {
            state: [resident.record() for resident in found]
            for state, found in self._residents().items()
        }

    def _create(self, *name: str) -> list[str]:
        create = [*self.base, "create", "--bundle", self.bundle, "--pid-file", self.pid_file]
        return [*create, *name]

    def shoot(self) -> Shot:
        name = self.fresh_id()
        start, delete = [*self.base, "start", name], [*self.base, "delete", name]
        with self.deleted_on_failure(name):
            return shoot_in_steps(self._create(name), start, delete, self.pid_file)

    def _residents(self) -> dict[str, list[Resident]]:
        """The processes that a created, then a running container keeps alive. Untimed."""
        path = os.path.join(self.bundle, "config.json")
        with open(path, encoding="utf-8") as file:
            short = file.read()
        found = {}
        name = self.fresh_id()
        delete = [*self.base, "delete", "--force", name]
        try:
            with open(path, "w", encoding="utf-8") as file:
                json.dump(complete(self.root, ["/bin/busybox", "sleep", "600"]), file)
            for state, words in (
                ("created", self._create(name)),
                ("running", [*self.base, "start", name]),
            ):
                _call(words)
                time.sleep(0.1)  # a program that was just executed has no memory of its own yet
                found[state] = residents(name, self.state)
        finally:
            _call(delete)
            with open(path, "w", encoding="utf-8") as file:
                file.write(short)
        return found


def _call(words: list[str]) -> None:
    """One command, its output to nowhere: a container keeps what it inherits."""
    null = os.open(os.devnull, os.O_RDWR)
    try:
        redirect = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in range(3)]
        pid = os.posix_spawn(words[0], words, os.environ, file_actions=redirect)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(null)
    if code != 0:
        raise ArmFailed(f"exit code {code}: {' '.join(words)}")


def runtime_arms() -> list[Arm]:
    """What the runtime's budgets are about, ours and those it is held against."""
    runtimes = (OURS, "runc", "crun")
    return [
        *(kind(runtime, "busybox") for kind in (Run, Verbs) for runtime in runtimes),
        Library("busybox"),
        Bubblewrap("busybox"),
    ]
