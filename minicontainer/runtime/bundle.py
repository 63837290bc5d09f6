"""From a checked config.json to the plan of steps that `launch` applies."""

from __future__ import annotations

import os

from ..kernel import capabilities, cgroups, mounts, seccomp
from ..kernel.syscalls import MS_BIND, MS_PRIVATE, MS_RDONLY, MS_REC, MS_SHARED, MS_SLAVE
from . import home, steps, steps_files, steps_host, steps_process
from .config import HOOKS

# The order in which namespaces are joined or made; a cgroup namespace starts where its maker is.
_IN_INIT = ("ipc", "uts", "network", "cgroup", "mount")


class Options:
    """What the command line adds to a configuration."""

    __slots__ = ("keyring", "pivot", "preserve_fds", "wait")

    def __init__(self, pivot=True, keyring=True, preserve_fds=0, wait=True) -> None:
        self.pivot = pivot
        self.keyring = keyring
        self.preserve_fds = preserve_fds
        self.wait = wait

    def compile(self, profile: dict) -> bytes:
        """The filter; `explain` has another way, that writes nothing."""
        return seccomp.cached(profile)


def build(config: dict, bundle: str, group, options: Options) -> tuple[list[steps.Step], list[str]]:
    """(the plan for a container, warnings). Raises ValueError that names the field."""
    linux, process = config["linux"], config["process"]
    joined = {n["type"]: n["path"] for n in linux["namespaces"] if n.get("path")}
    new = [n["type"] for n in linux["namespaces"] if not n.get("path")]
    plan: list[steps.Step] = []
    if group:
        plan.append(steps_host.CreateCgroup(group))
    if joined:
        plan.append(steps_host.OpenNamespaces(joined))
    root = _root(config, bundle, group, options)
    binds = [step for step in root if isinstance(step, steps_files.BundleMount) and step.bind]
    if binds and os.geteuid() == 0 and ("user" in joined or "user" in new):
        plan.append(steps_files.OpenSources(binds))
    plan += _stage(linux, joined, new, group)
    plan += outside_steps(process, linux.get("resources") or {}, group)
    plan += _world(config, linux, joined, new, options)
    plan += root
    process = {**process, "env": _environment(config, bundle)}
    start: list[steps.Step] = [steps_process.WaitForStart()] if options.wait else []
    hooks = config.get("hooks") or {}
    if hooks.get("startContainer"):
        start.append(steps_process.StartContainerHooks(hooks))
    finish, warnings = process_steps(
        process, linux.get("seccomp"), options.preserve_fds, start, options.compile
    )
    return plan + finish, warnings


def _environment(config: dict, bundle: str) -> list[str]:
    process = config["process"]
    uid = (process.get("user") or {}).get("uid", 0)
    return home.add(process.get("env") or [], root_path(config, bundle), uid)


def _stage(linux: dict, joined: dict, new: list[str], group) -> list[steps.Step]:
    plan: list[steps.Step] = []
    if group:
        plan.append(steps_host.EnterCgroup(group))
    if "user" in joined:
        plan.append(steps_host.Join(["user"], "stage"))
    if "user" in new:
        plan.append(steps.Unshare(["user"], "stage"))
        plan.append(steps_host.MapIdsFromOutside(linux["uidMappings"], linux["gidMappings"]))
    for kind in ("pid", "time"):
        if kind in joined:
            plan.append(steps_host.Join([kind], "stage"))
    if born := [kind for kind in ("pid", "time") if kind in new]:
        plan.append(steps.Unshare(born, "stage"))
    if linux.get("timeOffsets"):
        plan.append(steps_host.TimeOffsets(linux["timeOffsets"]))
    plan.append(steps_host.ForkSibling())
    return plan


def outside_steps(process: dict, resources: dict, group) -> list[steps.Step]:
    """What is done to init from outside; also for a process of `exec`."""
    plan: list[steps.Step] = []
    if group and resources:
        plan.append(steps_host.LimitCgroup(group, resources))
    if process.get("rlimits"):
        plan.append(steps_host.ResourceLimits(process["rlimits"]))
    if process.get("oomScoreAdj") is not None:
        plan.append(steps_host.OomScore(process["oomScoreAdj"]))
    return plan


def _world(config: dict, linux: dict, joined: dict, new: list[str], options: Options):
    """Session, names, network: what init is before it has a root."""
    plan: list[steps.Step] = [steps.NewSession()]
    if os.geteuid() == 0:  # an ordinary user's own tools need /proc/PID/ns of a created container
        plan.append(steps_process.Undumpable())
    if options.keyring:
        plan.append(steps_process.NewKeyring())
    if kinds := [kind for kind in _IN_INIT if kind in joined]:
        plan.append(steps_host.Join(kinds, "init"))
    if kinds := [kind for kind in _IN_INIT if kind in new]:
        plan.append(steps.Unshare(kinds, "init"))
    if "network" in new:
        plan.append(steps.Loopback())
    if config.get("hostname"):
        plan.append(steps.Hostname(config["hostname"]))
    if config.get("domainname"):
        plan.append(steps_process.DomainName(config["domainname"]))
    return plan


def _root(config: dict, bundle: str, group, options: Options) -> list[steps.Step]:
    linux = config["linux"]
    path = root_path(config, bundle)
    kinds = {n["type"]: n.get("path", "") for n in linux["namespaces"]}
    word = linux.get("rootfsPropagation", "")
    before = {"shared": MS_SHARED, "private": MS_PRIVATE}.get(word.removeprefix("r"), MS_SLAVE)
    plan: list[steps.Step] = [
        steps.Propagation(before | MS_REC), steps_files.ParentPrivate(path), steps.BindRoot(path),
    ]  # fmt: skip
    mount_steps = _mounts(config, bundle, group, own_cgroup=kinds.get("cgroup") == "")
    plan += mount_steps
    dev = next((m for m in mount_steps if isinstance(m, steps.Mount) and m.target == "/dev"), None)
    if dev is None or not dev.flags & MS_BIND:  # else it is the caller's, and complete
        read_only = bool(dev and dev.flags & MS_RDONLY)
        plan.append(steps_files.BundleDevices(linux.get("devices", []), "user" in kinds, read_only))
    process = config["process"]
    if process.get("terminal"):
        from . import steps_console

        uid = process.get("user", {}).get("uid", 0)
        plan.append(steps_console.Console(process.get("consoleSize"), uid))
    hooks = config.get("hooks") or {}
    if any(hooks.get(kind) for kind in HOOKS[:3]):
        plan.append(steps_files.CreateContainerHooks(hooks))
    plan.append(steps.PivotRoot(path) if options.pivot else steps_files.MoveRoot(path))
    if word and word != "private":
        plan.append(steps_files.RootPropagation(word))
    if linux.get("sysctl"):
        plan.append(steps_files.Sysctl(linux["sysctl"]))
    if linux.get("readonlyPaths"):
        why = "switches of the kernel, not the container's"
        plan.append(steps_files.BundleReadonlyPaths(linux["readonlyPaths"], "read-only paths", why))
    if linux.get("maskedPaths"):
        plan.append(steps_files.BundleMaskedPaths(linux["maskedPaths"]))
    if config["root"].get("readonly"):
        plan.append(steps.ReadonlyPaths(["/"], "read-only root", "the root file system is fixed"))
    return plan


def root_path(config: dict, bundle: str) -> str:
    """The root file system's path; a relative one is in the bundle (config.md#root)."""
    return os.path.realpath(os.path.join(bundle, config["root"]["path"]))


def _mounts(config: dict, bundle: str, group, own_cgroup: bool) -> list[steps.Step]:
    plan: list[steps.Step] = []
    for n, mount in enumerate(config.get("mounts") or []):
        for step in _mount(mount, bundle, group, own_cgroup):
            step.fields = (f"mounts[{n}]",)
            plan.append(step)
    return plan


def _mount(mount: dict, bundle: str, group, own_cgroup: bool):
    if mount.get("type") not in ("cgroup", "cgroup2") or "bind" in mount.get("options", ()):
        yield steps_files.BundleMount(mount, bundle)
        return
    flags, _, _ = mounts.parse_options(mount.get("options", ()))
    read_only = bool(flags & MS_RDONLY)
    if group is None or not group.directories:
        words = ["rbind", "nosuid", "noexec", "nodev", "ro", "rro"]
        mount = {**mount, "type": "bind", "source": "/sys/fs/cgroup", "options": words}
        yield steps_files.BundleMount(mount, bundle)
        return
    made, links = cgroups.container_mounts(group, own_cgroup, mount["destination"], read_only)
    for one in made:
        yield steps_files.BundleMount(one, bundle)
    if links:
        yield steps_files.Links(links)
    if read_only and len(made) > 1:
        yield _ReadonlyMount([mount["destination"]], "read-only cgroup mounts",
                             "the tmpfs that holds them, too")  # fmt: skip


class _ReadonlyMount(steps.ReadonlyPaths):
    def apply(self, context):
        for path in self.paths:
            mounts.remount_bind_in_root(context.root_fd, path, MS_RDONLY)


def process_steps(
    process: dict, profile: dict | None, preserve_fds: int, start: list[steps.Step],
    compile=seccomp.cached,
) -> tuple[list[steps.Step], list[str]]:  # fmt: skip
    """The steps from root inside to the command; `create` and `exec` share them."""
    user = {"uid": 0, "gid": 0, **(process.get("user") or {})}
    sets, warnings = capabilities.parse(process.get("capabilities") or {}, strict=False)
    env = list(process.get("env") or [])
    if preserve_fds and os.environ.get("LISTEN_FDS"):
        env += [f"LISTEN_FDS={os.environ['LISTEN_FDS']}", "LISTEN_PID=1"]  # sd_listen_fds(3)
    no_new_privs = bool(process.get("noNewPrivileges"))
    borrow = bool(profile) and not no_new_privs
    plan: list[steps.Step] = []
    if not process.get("terminal"):
        plan.append(steps_process.StdioOwner(user["uid"]))
    plan.append(steps_process.BundleBoundingSet(sets["bounding"]))
    if user["uid"] and (sets["permitted"] or borrow):
        plan.append(steps_process.KeepCapabilities())
    plan.append(steps_process.BundleIdentity(user, setgroups=True))
    plan.append(steps_process.BundleCapabilities(sets, borrow))
    if no_new_privs:
        plan.append(steps.NoNewPrivileges())
    plan.append(steps.WorkingDirectory(process["cwd"]))
    plan.append(steps_process.KeepDescriptors(preserve_fds))
    plan.append(steps_process.FindProgram(process["args"], env))
    plan += start
    if profile:
        program, flags = compile(profile), seccomp.flags(profile)
        drop = (
            sets
            if borrow and not sets["permitted"] & capabilities.mask(["CAP_SYS_ADMIN"])
            else None
        )
        plan.append(steps_process.Filter(program, flags, drop))
    plan.append(steps.Exec(process["args"], env))
    return plan, warnings
