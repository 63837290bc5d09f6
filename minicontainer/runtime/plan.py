"""A container start is a plan: an ordered list of steps, made from a checked configuration.

Nothing else starts containers. `explain` prints the plan, `--trace` the plan with times, the
benchmark draws it as a waterfall, and an error names the step that failed. See `launch` for who
applies which step.
"""

from __future__ import annotations

import os

from ..kernel import capabilities, mounts
from ..kernel.syscalls import MS_BIND, MS_PRIVATE, MS_RDONLY, MS_REC, MS_SHARED, MS_SLAVE
from . import home, steps, steps_files, steps_host, steps_process

TYPE_CHECKING = False  # as in typing, whose import would cost a start 3 ms
if TYPE_CHECKING:
    from ..kernel import cgroups

# Namespaces that only children get. (The user namespace owns the others, so it comes with them.)
_FOR_CHILDREN = ("pid", "time")
# The order in which init joins or makes the rest; a cgroup namespace starts where its maker is.
_IN_INIT = ("ipc", "uts", "network", "cgroup", "mount")


class Options:
    """What the caller adds to a configuration.

    attended  the caller stands by until the end: the command runs at once and dies with it.
              Otherwise init waits for `start`
    by_root   the caller is root; None: look. A process in a user namespace cannot look
    """

    __slots__ = ("attended", "by_root", "keyring", "pivot", "preserve_fds")

    def __init__(
        self, pivot=True, keyring=True, preserve_fds=0, attended=False, by_root: bool | None = None
    ) -> None:
        self.by_root = os.geteuid() == 0 if by_root is None else by_root
        self.pivot = pivot
        self.keyring = keyring
        self.preserve_fds = preserve_fds
        self.attended = attended

    def compile(self, profile: dict) -> bytes:
        """The filter; `explain` has another way, that writes nothing."""
        from ..kernel import seccomp

        return seccomp.cached(profile)


def build(
    config: dict, bundle: str = "/", group: cgroups.Group | None = None,
    options: Options | None = None, root_steps: list[steps.Step] | None = None,
) -> list[steps.Step]:  # fmt: skip
    """The steps for a container, in the order in which the kernel wants them.

    bundle      directory that relative paths of the configuration start at
    options     None: attended
    group       the container's place among the cgroups, or None
    root_steps  make the root file system a mount at its path, and open it; without them it is a
                directory, which is bound onto itself
    Raises ValueError that names the field.
    """
    options = options or Options(attended=True)
    linux, process = config["linux"], config["process"]
    kinds = {n["type"]: n.get("path", "") for n in linux["namespaces"]}
    path = root_path(config, bundle)
    root = _root(config, bundle, path, kinds, group, options, root_steps)
    plan: list[steps.Step] = []
    if group:
        plan.append(steps_host.CreateCgroup(group))
    if any(kinds.values()):
        plan.append(steps_host.OpenNamespaces({k: path for k, path in kinds.items() if path}))
    binds = [step for step in root if isinstance(step, steps_files.Mount) and step.bind]
    if binds and options.by_root and "user" in kinds:
        plan.append(steps_files.OpenSources(binds))
    plan += _birth(linux, kinds, group, options)
    plan += outside_steps(process, linux.get("resources") or {}, group)
    if "user" in kinds and not kinds["user"] and not _needs_stage(linux, kinds):
        plan.append(steps_host.BecomeRoot("init"))
    uid = (process.get("user") or {}).get("uid", 0)
    env = home.add(process.get("env") or [], path, uid)
    start: list[steps.Step] = [] if options.attended else [steps_process.WaitForStart()]
    if (config.get("hooks") or {}).get("startContainer"):
        from .steps_hooks import StartContainerHooks

        start.append(StartContainerHooks(config["hooks"]))
    process = {**process, "env": env}
    last = process_steps(process, linux.get("seccomp"), options, start)
    early: list[steps.Step] = []  # what no mount needs; hooks, which init runs, may need it
    if not config.get("hooks"):
        early += [step for step in last if isinstance(step, steps_process.BoundingSet)]
    plan += _world(config, kinds, options, early)
    plan += root
    return plan + [step for step in last if step not in early]


def describe(plan: list[steps.Step]) -> list[dict]:
    """The plan as data: dicts with n (from 1), name, where, calls, why, clause, lesson."""
    return [
        {"n": number, "name": step.name, "where": step.where, "calls": step.calls(),
         "why": step.why, "clause": step.clause, "lesson": step.lesson}
        for number, step in enumerate(plan, 1)
    ]  # fmt: skip


def root_path(config: dict, bundle: str) -> str:
    """The root file system's path; a relative one is in the bundle (config.md#root)."""
    return os.path.realpath(os.path.join(bundle, config["root"]["path"]))


def _needs_stage(linux: dict, kinds: dict[str, str]) -> bool:
    """Whether init cannot be cloned right into its namespaces: setns(2) or offsets come before."""
    joined = any(kinds.get(kind) for kind in ("user", *_FOR_CHILDREN))
    return joined or bool(linux.get("timeOffsets"))


def _birth(linux: dict, kinds: dict[str, str], group, options: Options) -> list[steps.Step]:
    """From our process to init, which is in its cgroup."""
    maps = linux.get("uidMappings") or [], linux.get("gidMappings") or []
    new_user = kinds.get("user") == ""
    plan: list[steps.Step] = []
    if not _needs_stage(linux, kinds):
        # A cgroup namespace has its root where its maker is, so init makes it, in its group
        born = [kind for kind, path in kinds.items() if not path and kind != "cgroup"]
        plan.append(steps_host.Clone(born, group))
        if new_user:
            plan.append(steps_host.MapIds(*maps, "outside"))
        if group:
            plan.append(steps_host.EnterCgroup(group, "init"))
        return plan
    if group:
        plan.append(steps_host.EnterCgroup(group, "stage"))
    if kinds.get("user"):
        plan.append(steps_host.Join(["user"], "stage"))
    if new_user:
        plan.append(steps_host.Unshare(["user"], "stage"))
        plan.append(steps_host.MapIds(*maps, "stage"))
        plan.append(steps_host.BecomeRoot("stage"))
    plan += [steps_host.Join([kind], "stage") for kind in _FOR_CHILDREN if kinds.get(kind)]
    if born := [kind for kind in _FOR_CHILDREN if kinds.get(kind) == ""]:
        plan.append(steps_host.Unshare(born, "stage"))
    if linux.get("timeOffsets"):
        plan.append(steps_host.TimeOffsets(linux["timeOffsets"]))
    if kinds.get("pid") and options.by_root:  # init is seen in there as soon as it is forked
        plan.append(steps.Undumpable("stage"))
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


def _world(
    config: dict, kinds: dict[str, str], options: Options, early: list[steps.Step]
) -> list[steps.Step]:
    """Session, `early`, names, network: what init is before it has a root."""
    plan: list[steps.Step] = [steps.NewSession()]
    # An ordinary user's own tools need /proc/PID/ns of a created container
    if options.by_root and not kinds.get("pid"):
        plan.append(steps.Undumpable("init"))
    if options.keyring:
        plan.append(steps.NewKeyring())
    plan += early
    if joined := [kind for kind in _IN_INIT if kinds.get(kind)]:
        plan.append(steps_host.Join(joined, "init"))
    left = _IN_INIT if _needs_stage(config["linux"], kinds) else ("cgroup",)
    if made := [kind for kind in left if kinds.get(kind) == ""]:
        plan.append(steps_host.Unshare(made, "init"))
    if kinds.get("network") == "":
        plan.append(steps.Loopback())
    if config.get("hostname"):
        plan.append(steps.Hostname(config["hostname"]))
    if config.get("domainname"):
        plan.append(steps.DomainName(config["domainname"]))
    return plan


def _root(config: dict, bundle: str, path: str, kinds: dict[str, str], group, options, root_steps):
    linux = config["linux"]
    word = linux.get("rootfsPropagation", "")
    before = {"shared": MS_SHARED, "private": MS_PRIVATE}.get(word.removeprefix("r"), MS_SLAVE)
    plan: list[steps.Step] = [steps_files.Propagation(before | MS_REC)]
    if before == MS_SHARED:
        plan.append(steps_files.ParentPrivate(path))
    plan += root_steps or [steps_files.BindRoot(path)]
    mount_steps = _mounts(config, bundle, group, own_cgroup=kinds.get("cgroup") == "")
    plan += mount_steps
    filesystems = [step for step in mount_steps if isinstance(step, steps_files.Mount)]
    dev = next((step for step in filesystems if step.target == "/dev"), None)
    read_only = bool(dev and dev.flags & MS_RDONLY)
    devices = steps_files.Devices(linux.get("devices") or [], "user" in kinds, read_only)
    if dev is None or not dev.flags & MS_BIND:  # else it is the caller's, and complete
        plan.append(devices)
    process = config["process"]
    if process.get("terminal"):
        from . import steps_console

        uid = (process.get("user") or {}).get("uid", 0)
        plan.append(steps_console.Console(process.get("consoleSize"), uid))
    if config.get("hooks"):
        from .steps_hooks import BEFORE_PIVOT, CreateContainerHooks

        if any(config["hooks"].get(kind) for kind in BEFORE_PIVOT):
            plan.append(CreateContainerHooks(config["hooks"]))
    plan.append(steps_files.PivotRoot(path) if options.pivot else steps_files.MoveRoot(path))
    if options.attended and group is None and devices in plan and "user" not in kinds:
        plan.append(steps_files.NoOtherDevices(devices))
    if word and word != "private":
        plan.append(steps_files.RootPropagation(word))
    if linux.get("sysctl"):
        plan.append(steps_files.Sysctl(linux["sysctl"]))
    if linux.get("readonlyPaths"):
        plan.append(steps_files.ReadonlyPaths(linux["readonlyPaths"]))
    if linux.get("maskedPaths"):
        plan.append(steps_files.MaskedPaths(linux["maskedPaths"]))
    if config["root"].get("readonly"):
        why = "the root file system is fixed"
        plan.append(steps_files.ReadonlyMount("/", "read-only root", why))
    return plan


def _mounts(config: dict, bundle: str, group, own_cgroup: bool) -> list[steps.Step]:
    plan: list[steps.Step] = []
    for n, mount in enumerate(config.get("mounts") or []):
        for step in _mount(mount, bundle, group, own_cgroup):
            step.fields = (f"mounts[{n}]",)
            plan.append(step)
    return plan


def _mount(mount: dict, bundle: str, group, own_cgroup: bool):
    if mount.get("type") not in ("cgroup", "cgroup2") or "bind" in mount.get("options", ()):
        yield steps_files.Mount(mount, bundle)
        return
    from ..kernel import cgroups

    flags, _, _ = mounts.parse_options(mount.get("options", ()))
    read_only = bool(flags & MS_RDONLY)
    made, links = cgroups.container_mounts(group, own_cgroup, mount["destination"], read_only)
    for one in made:
        yield steps_files.Mount(one, bundle)
    if links:
        yield steps_files.Links(links)
    if read_only and len(made) > 1:
        why = "the tmpfs that holds them, too"
        yield steps_files.ReadonlyMount(mount["destination"], "read-only cgroup mounts", why)


def process_steps(
    process: dict, profile: dict | None, options: Options, start: list[steps.Step]
) -> list[steps.Step]:
    """The steps from root inside to the command; `create` and `exec` share them."""
    user = {"uid": 0, "gid": 0, **(process.get("user") or {})}
    sets, _ = capabilities.parse(process.get("capabilities") or {}, strict=False)
    env = list(process.get("env") or [])
    if options.preserve_fds and os.environ.get("LISTEN_FDS"):
        env += [f"LISTEN_FDS={os.environ['LISTEN_FDS']}", "LISTEN_PID=1"]  # sd_listen_fds(3)
    no_new_privs = bool(process.get("noNewPrivileges"))
    borrow = bool(profile) and not no_new_privs
    plan: list[steps.Step] = []
    if not process.get("terminal"):
        plan.append(steps_process.StdioOwner(user["uid"]))
    plan.append(steps_process.BoundingSet(sets["bounding"]))
    if user["uid"] and (sets["permitted"] or borrow):
        plan.append(steps_process.KeepCapabilities())
    plan.append(steps_process.Identity(user))
    plan.append(steps_process.Capabilities(sets, borrow))
    if no_new_privs:
        plan.append(steps_process.NoNewPrivileges())
    if options.attended:
        plan.append(steps_process.DieWithParent())
    plan.append(steps_process.WorkingDirectory(process["cwd"]))
    plan.append(steps_process.CloseDescriptors(options.preserve_fds))
    plan.append(steps_process.FindProgram(process["args"], env))
    plan += start
    if profile:
        from ..kernel import seccomp
        from .steps_seccomp import Filter

        program, flags = options.compile(profile), seccomp.flags(profile)
        keeps_it = sets["permitted"] & capabilities.mask(["CAP_SYS_ADMIN"])
        drop = sets if borrow and not keeps_it else None
        plan.append(Filter(program, flags, drop))
    plan.append(steps_process.Exec(process["args"], env))
    return plan
