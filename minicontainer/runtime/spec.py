"""The OCI runtime configuration (config.json) of a container: what it shall be, not how.

`default` makes one for a plain directory, with the values of `runc spec` and docker's capabilities.
https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config.md
"""

from __future__ import annotations

import os

from ..kernel import capabilities, namespaces, userns
from .errors import ContainerError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Facts of the host that a container has no business to read, and switches it must not turn.
MASKED_PATHS = (
    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
)  # fmt: skip
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def default(
    rootfs, args, *, hostname="minicontainer", env=None, cwd="/", user=None, read_only=False,
    network="none",
) -> dict:  # fmt: skip
    """An OCI configuration for running `args` in the directory `rootfs`.

    user is (uid, gid) or None for root; network "none" (a namespace with nothing but a loopback)
    or "host". Without root's power the container gets a user namespace in which the caller is root.
    Raises ContainerError when the input cannot become a container.
    """
    rootless = os.geteuid() != 0 or not userns.is_initial()
    uid, gid = user or (0, 0)
    if rootless and (uid, gid) != (0, 0):
        raise ContainerError(
            f"user {uid}:{gid} does not exist in the container: without root only one id can be "
            "mapped, and that is 0",
            hint="leave --user out, or run as root",
        )
    return configuration(
        checked_rootfs(rootfs), args, hostname=hostname,
        env={"PATH": PATH, "HOSTNAME": hostname, "HOME": "/root" if uid == 0 else "/",
             **(env or {})},
        cwd=cwd, user={"uid": uid, "gid": gid}, read_only=read_only, network=network,
        rootless=rootless, uid_maps=[_mapping(os.geteuid())], gid_maps=[_mapping(os.getegid())],
    )  # fmt: skip


def configuration(
    root: str, args, *, hostname: str, env: dict[str, str], cwd: str, user: dict, read_only: bool,
    network: str, rootless: bool, uid_maps: list[dict], gid_maps: list[dict],
) -> dict:  # fmt: skip
    """The same from its parts; rootless: with a user namespace, which has these maps."""
    kinds = namespaces.available()
    if not rootless:
        kinds.remove("user")
    if network == "host":
        kinds.remove("network")
    return {
        "ociVersion": "1.2.0",
        "process": {
            "user": user,
            "args": _checked_args(args),
            "env": _environment(env),
            "cwd": _checked_cwd(cwd),
            "capabilities": {
                kind: list(capabilities.DOCKER_DEFAULT)
                for kind in ("bounding", "effective", "permitted")
            },
            "noNewPrivileges": True,
        },
        "root": {"path": root, "readonly": read_only},
        "hostname": _checked_hostname(hostname),
        "mounts": mounts(rootless, network),
        "linux": {
            "namespaces": [{"type": kind} for kind in kinds],
            "uidMappings": uid_maps if rootless else [],
            "gidMappings": gid_maps if rootless else [],
            "maskedPaths": list(MASKED_PATHS),
            "readonlyPaths": list(READONLY_PATHS),
        },
    }


def _mapping(host_id: int) -> dict:
    return {"containerID": 0, "hostID": host_id, "size": 1}


def mounts(rootless: bool, network: str) -> list[dict]:
    # gid 5 is Debian's "tty" group; a user namespace with a single id has no such group.
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    sys = {"destination": "/sys", "type": "sysfs", "source": "sysfs",
           "options": ["nosuid", "noexec", "nodev", "ro"]}  # fmt: skip
    if rootless and network == "host":
        # sysfs shows network devices, so only the owner of the network namespace may mount it.
        sys = {"destination": "/sys", "source": "/sys",
               "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]}  # fmt: skip
    return [
        {"destination": "/proc", "type": "proc", "source": "proc",
         "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
         "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
         "options": pts if rootless else [*pts, "gid=5"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
         "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
         "options": ["nosuid", "noexec", "nodev"]},
        sys,
    ]  # fmt: skip


def checked_rootfs(rootfs) -> str:
    """The absolute path of a directory that can be a root, or ContainerError saying why not."""
    path = os.fspath(rootfs)
    hint = "give the directory of an unpacked root file system: minicontainer run --rootfs DIR CMD"
    if not path:
        raise ContainerError("rootfs: the path is empty", hint=hint)
    if "\0" in path:
        raise ContainerError("rootfs: a path cannot contain a NUL byte", hint=hint)
    try:
        entries = os.listdir(path)
    except FileNotFoundError:
        raise ContainerError(f"rootfs {path!r}: no such file or directory", hint=hint) from None
    except NotADirectoryError:
        raise ContainerError(
            f"rootfs {path!r}: not a directory",
            hint=f"unpack it first: mkdir rootfs && tar -C rootfs -xf {path}",
        ) from None
    except PermissionError:
        raise ContainerError(
            f"rootfs {path!r}: permission denied", hint="make it readable, or run as root"
        ) from None
    if not entries:
        raise ContainerError(f"rootfs {path!r}: the directory is empty", hint=hint)
    return os.path.realpath(path)


def _checked_args(args) -> list[str]:
    if isinstance(args, str | bytes) or not args:
        raise ContainerError(
            f"the command must be a list of at least one word, not {args!r}",
            hint='for example ["/bin/sh", "-c", "echo hello"]',
        )
    words = [os.fspath(word) for word in args]
    for word in words:
        if "\0" in word:
            raise ContainerError(f"command: {word!r} contains a NUL byte")
    return words


def _checked_cwd(cwd: str) -> str:
    if not cwd.startswith("/") or "\0" in cwd:
        raise ContainerError(f"working directory {cwd!r}: must be an absolute path")
    return cwd


def _checked_hostname(hostname: str) -> str:
    # 64 bytes is the kernel's limit; anything else than a name confuses every log and prompt
    plain = hostname.replace("-", "").replace(".", "")
    if len(hostname) > 64 or not (plain.isascii() and plain.isalnum()):
        raise ContainerError(
            f"hostname {hostname!r}: 1 to 64 letters, digits, dots and hyphens (sethostname(2))"
        )
    return hostname


def _environment(values: dict) -> list[str]:
    for name, value in values.items():
        if not name or "=" in name or "\0" in name + value:
            raise ContainerError(f"environment: {name!r}={value!r} is no valid NAME=VALUE")
    return [f"{name}={value}" for name, value in values.items()]
