"""A container start is a plan: an ordered list of steps, made from an OCI configuration.

Nothing else starts containers. `minicontainer explain` prints the plan, `--trace` the plan with
times, the benchmark draws it as a waterfall, and an error names the step that failed.
"""

from __future__ import annotations

from ..kernel import namespaces
from ..kernel.syscalls import MS_PRIVATE, MS_REC
from . import steps


def build(spec: dict) -> list[steps.Step]:
    """The steps for an OCI runtime configuration, in the order in which the kernel wants them."""
    process, linux = spec["process"], spec["linux"]
    kinds = [namespace["type"] for namespace in linux["namespaces"]]
    user_namespace = "user" in kinds
    root = spec["root"]["path"]
    plan: list[steps.Step] = []

    # In the process that starts the container.
    plan.append(steps.Unshare([k for k in kinds if k in namespaces.FOR_CHILDREN], "parent"))
    if user_namespace:
        plan.append(steps.MapIds(linux["uidMappings"][0], linux["gidMappings"][0]))
    plan.append(steps.Fork())

    # From here on in the container's init.
    plan.append(steps.NewSession())
    plan.append(steps.Unshare([k for k in kinds if k not in namespaces.FOR_CHILDREN], "init"))
    if "network" in kinds:
        plan.append(steps.Loopback())
    plan.append(steps.Hostname(spec["hostname"]))
    plan.append(steps.Propagation(MS_REC | MS_PRIVATE))
    plan.append(steps.BindRoot(root))
    plan.extend(steps.Mount(mount) for mount in spec["mounts"])
    plan.append(steps.Devices(bind=user_namespace))
    plan.append(steps.PivotRoot(root))
    if not user_namespace:
        plan.append(steps.NoOtherDevices())
    plan.append(steps.MaskedPaths(linux["maskedPaths"]))
    plan.append(
        steps.ReadonlyPaths(
            linux["readonlyPaths"], "read-only paths", "switches of the kernel, not the container's"
        )
    )
    if spec["root"]["readonly"]:
        plan.append(steps.ReadonlyPaths(["/"], "read-only root", "the root file system is fixed"))
    plan.append(steps.BoundingSet(process["capabilities"]["bounding"]))
    plan.append(steps.Identity(process["user"], setgroups=not user_namespace))
    plan.append(steps.Capabilities(process["capabilities"], process["user"]["uid"]))
    if process["noNewPrivileges"]:
        plan.append(steps.NoNewPrivileges())
    plan.append(steps.DieWithParent())
    plan.append(steps.WorkingDirectory(process["cwd"]))
    plan.append(steps.CloseDescriptors())
    plan.append(steps.Exec(process["args"], process["env"]))
    return plan


def describe(plan: list[steps.Step]) -> list[dict]:
    """The plan as data: dicts with n (from 1), name, where, calls, why, clause, lesson."""
    return [
        {
            "n": number,
            "name": step.name,
            "where": step.where,
            "calls": step.calls(),
            "why": step.why,
            "clause": step.clause,
            "lesson": step.lesson,
        }
        for number, step in enumerate(plan, 1)
    ]
