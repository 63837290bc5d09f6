"""config.json, read and checked field by field: what a container shall be.

https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config.md and config-linux.md. The
resources are checked by `kernel.cgroups`, the filter by `kernel.seccomp`, which know their meaning.
"""

from __future__ import annotations

import os

from ..kernel import capabilities, namespaces
from . import jsonfile
from .checks import (
    UINT32,
    absolute,
    boolean,
    fields,
    items,
    mapping,
    nonempty,
    number,
    one_of,
    refused,
    text,
    wrong,
)
from .errors import ContainerError, kernel_words

VERSION = "1.2.0"

_ID = number(0, UINT32 - 1)  # (uid_t) -1 means "leave as it is" to setresuid(2)
RLIMITS = {
    "RLIMIT_CPU": 0, "RLIMIT_FSIZE": 1, "RLIMIT_DATA": 2, "RLIMIT_STACK": 3, "RLIMIT_CORE": 4,
    "RLIMIT_RSS": 5, "RLIMIT_NPROC": 6, "RLIMIT_NOFILE": 7, "RLIMIT_MEMLOCK": 8, "RLIMIT_AS": 9,
    "RLIMIT_LOCKS": 10, "RLIMIT_SIGPENDING": 11, "RLIMIT_MSGQUEUE": 12, "RLIMIT_NICE": 13,
    "RLIMIT_RTPRIO": 14, "RLIMIT_RTTIME": 15,
}  # fmt: skip
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
PROPAGATION = ("private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable",
               "runbindable", "")  # fmt: skip


def _variable(value, name: str) -> None:
    text(value, name)
    if "=" not in value[1:]:
        raise wrong(name, "NAME=VALUE", value)


def _mount_options(value, name: str) -> None:
    items(text)(value, name)
    for word in value:
        if word in ("idmap", "ridmap"):
            raise ValueError(f"{name}: {word!r} is not supported: map ids for the whole container")


def _limits(value, name: str) -> None:
    fields(("type", "soft", "hard"), type=one_of(*RLIMITS), soft=number(0, 2**64 - 1),
           hard=number(0, 2**64 - 1))(value, name)  # fmt: skip
    if value["soft"] > value["hard"]:
        raise ValueError(f"{name}.soft: {value['soft']} is more than the hard limit")


PROCESS = fields(
    ("args", "cwd"),
    terminal=boolean, consoleSize=fields(("height", "width"), height=number(0, 65535),
                                         width=number(0, 65535)),
    user=fields(uid=_ID, gid=_ID, umask=number(0, 0o777), additionalGids=items(_ID)),
    args=items(text, least=1), env=items(_variable), cwd=absolute,
    capabilities=mapping(items(text)), rlimits=items(_limits), noNewPrivileges=boolean,
    oomScoreAdj=number(-1000, 1000), apparmorProfile=text, selinuxLabel=text,
    scheduler=refused("set it inside with chrt(1)"),
    ioPriority=refused("set it inside with ionice(1)"),
    execCPUAffinity=refused("linux.resources.cpu.cpus confines all processes of the container"),
)  # fmt: skip
_HOOK = items(fields(("path",), path=absolute, args=items(text), env=items(_variable),
                     timeout=number(1, 2**31)))  # fmt: skip
_MAPPING = items(fields(("containerID", "hostID", "size"), containerID=_ID, hostID=_ID,
                        size=number(1, UINT32)))  # fmt: skip
_OFFSET = fields(secs=number(-(2**63), 2**63 - 1), nanosecs=number(0, 999_999_999))
_LINUX = fields(
    namespaces=items(fields(("type",), type=one_of(*namespaces.NAMESPACES), path=absolute)),
    uidMappings=_MAPPING, gidMappings=_MAPPING,
    timeOffsets=fields(monotonic=_OFFSET, boottime=_OFFSET),
    devices=items(fields(
        ("type", "path"), type=one_of("c", "b", "u", "p"), path=absolute, major=number(0, 4095),
        minor=number(0, 0xFFFFF), fileMode=number(0, 0o777777), uid=_ID, gid=_ID,
    )),
    cgroupsPath=text, resources=mapping(lambda value, name: None), sysctl=mapping(text),
    seccomp=mapping(lambda value, name: None), rootfsPropagation=one_of(*PROPAGATION),
    maskedPaths=items(absolute), readonlyPaths=items(absolute), mountLabel=text,
    intelRdt=refused("linux.resources divides processor time and memory"),
    personality=refused("run a binary of that kind; the kernel knows what to do"),
    netDevices=refused("move the device in with `ip link set DEV netns PID`"),
    memoryPolicy=refused("linux.resources.cpu.mems confines memory"),
)  # fmt: skip
_CONFIG = fields(
    ("ociVersion", "root", "linux"),
    ociVersion=text, hostname=text, domainname=text, process=PROCESS,
    root=fields(("path",), path=nonempty, readonly=boolean),
    mounts=items(fields(
        ("destination",), destination=nonempty, source=text, type=text, options=_mount_options,
        uidMappings=refused("map ids for the whole container"),
        gidMappings=refused("map ids for the whole container"),
    )),
    hooks=fields(**dict.fromkeys(HOOKS, _HOOK)),
    annotations=mapping(text), linux=_LINUX,
)  # fmt: skip


def load(path: str) -> tuple[dict, str]:
    """(the configuration, its text) of the file `path`. Raises ContainerError."""
    try:
        text = jsonfile.read_file(path)
        config = jsonfile.loads(text)
        check(config)
    except ValueError as error:
        raise ContainerError(f"{path}: {error}") from None
    except OSError as error:
        hint = "a bundle is a directory with config.json and the root file system: --bundle DIR"
        raise ContainerError(
            f"{path}: {kernel_words(error.errno or 0)}", hint=hint, errno=error.errno or 0
        ) from None
    return config, text


def check(config) -> None:
    """Raise ValueError that names the field which is wrong, or not supported."""
    _CONFIG(config, "")
    if not config["ociVersion"].startswith("1."):
        raise ValueError(f"ociVersion: {config['ociVersion']!r} is not 1.x, which this runtime has")
    if "process" not in config:
        raise ValueError("process: is required: nothing could be started")
    linux = config["linux"]
    kinds: dict[str, str] = {}
    for n, item in enumerate(linux.setdefault("namespaces", [])):
        if item["type"] in kinds:
            raise ValueError(f"linux.namespaces[{n}].type: {item['type']!r} is there twice")
        kinds[item["type"]] = item.get("path", "")
    _check_namespaces(config, linux, kinds)
    for name, value in linux.get("sysctl", {}).items():
        _check_sysctl(name, value, kinds)
    _check_labels(config["process"])
    _check_label(linux.get("mountLabel", ""), "linux.mountLabel")


def check_process(process) -> None:
    """The same for a process object alone, as `exec` gets it."""
    PROCESS(process, "process")
    _check_labels(process)


def _check_labels(process: dict) -> None:
    for name in ("apparmorProfile", "selinuxLabel"):
        _check_label(process.get(name, ""), f"process.{name}")


def _check_namespaces(config: dict, linux: dict, kinds: dict[str, str]) -> None:
    if "mount" not in kinds:
        raise ValueError("linux.namespaces: mount is needed: the host's mounts would change")
    for field, kind in (("hostname", "uts"), ("domainname", "uts")):
        if config.get(field) and kind not in kinds:
            raise ValueError(
                f"{field}: needs a uts namespace in linux.namespaces: it is the host's"
            )
        if len(os.fsencode(config.get(field, ""))) > 64:
            raise ValueError(f"{field}: at most 64 bytes, sethostname(2)")
    new_user = "user" in kinds and not kinds["user"]
    for field in ("uidMappings", "gidMappings"):
        if new_user and not linux.get(field):
            raise ValueError(f"linux.{field}: is required for a new user namespace")
        if linux.get(field) and not new_user:
            raise ValueError(f"linux.{field}: needs a new user namespace in linux.namespaces")
    if linux.get("timeOffsets") and kinds.get("time", "-"):
        raise ValueError("linux.timeOffsets: needs a new time namespace in linux.namespaces")


_SYSCTL = {
    "net.": "network", "fs.mqueue.": "ipc", "kernel.msg": "ipc", "kernel.sem": "ipc",
    "kernel.shm": "ipc", "kernel.domainname": "uts",
}  # fmt: skip


def _check_sysctl(name: str, value: str, kinds: dict[str, str]) -> None:
    """Only what a namespace of the container's own has: everything else is the host's."""
    where = f"linux.sysctl.{name}"
    if "/" in name and "." in name.partition("/")[0]:
        raise ValueError(f"{where}: a name has dots or slashes between its parts, not both")
    dotted = name.replace("/", ".")
    if ".." in dotted:
        raise ValueError(f"{where}: empty parts are not allowed")
    for prefix, kind in _SYSCTL.items():
        if dotted.startswith(prefix):
            if (
                kind not in kinds
                or kinds[kind] == f"/proc/self/ns/{namespaces.NAMESPACES[kind][0]}"
            ):
                raise ValueError(f"{where}: needs a {kind} namespace in linux.namespaces")
            return
    raise ValueError(f"{where}: is not in a namespace: it would change the host")


def _check_label(label: str, where: str) -> None:
    """Labels of a security module: refused where that module is active, else without effect."""
    if not label or label == "unconfined":
        return
    for module in ("apparmor", "selinux"):
        active = (
            "/sys/kernel/security/apparmor" if module == "apparmor" else "/sys/fs/selinux/enforce"
        )
        if (module == "apparmor") == ("apparmor" in where) and os.path.exists(active):
            raise ValueError(
                f"{where}: {label!r} is not supported; run with --security-opt "
                f"{'apparmor=unconfined' if module == 'apparmor' else 'label=disable'}"
            )


def warnings(config: dict) -> list[str]:
    """What is accepted, and has no effect."""
    label = config["linux"].get("mountLabel")
    return process_warnings(config["process"]) + _without_effect("linux.mountLabel", label)


def process_warnings(process: dict) -> list[str]:
    """The same for a process object alone."""
    _, found = capabilities.parse(process.get("capabilities") or {}, strict=False)
    for name in ("apparmorProfile", "selinuxLabel"):
        found += _without_effect(f"process.{name}", process.get(name))
    return found


def _without_effect(where: str, label: str | None) -> list[str]:
    if not label or label == "unconfined":
        return []
    return [f"{where}: {label!r} has no effect: that module is not active here"]
