"""What this runtime can do (features.md), and a configuration to start from."""

from __future__ import annotations

import os

from ..kernel import capabilities, mounts, namespaces, seccomp_profile
from ..kernel.seccomp import FLAGS
from . import spec
from .config import HOOKS, VERSION


def features(version: str) -> dict:
    """https://github.com/opencontainers/runtime-spec/blob/v1.2.0/features.md

    Of the runtime, whatever this host's kernel has.
    """
    words = {*mounts.FLAG_OPTIONS, *mounts.PROPAGATION_OPTIONS, *mounts.RECURSIVE_OPTIONS}
    machines = seccomp_profile.ARCHITECTURES.get(os.uname().machine, ())
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": VERSION,
        "hooks": list(HOOKS),
        "mountOptions": sorted(words | {"defaults", "tmpcopyup"}),
        "linux": {
            "namespaces": list(namespaces.NAMESPACES),
            "capabilities": list(capabilities.NAMES),
            "cgroup": {"v1": True, "v2": True, "systemd": False, "systemdUser": False,
                       "rdma": True},
            "seccomp": {
                "enabled": bool(machines),
                "actions": list(seccomp_profile.ACTIONS),
                "operators": list(seccomp_profile.OPERATORS),
                "archs": [machine[0] for machine in machines],
                "knownFlags": list(FLAGS),
                "supportedFlags": list(FLAGS),
            },
            "apparmor": {"enabled": False},
            "selinux": {"enabled": False},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": False}},
        },
        "annotations": {"org.minicontainer.version": version},
        "potentiallyUnsafeConfigAnnotations": [],
    }  # fmt: skip


def template(rootless: bool) -> dict:
    """A configuration as `runc spec` writes it; its root file system is BUNDLE/rootfs."""
    kept = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
    mounts_ = spec.mounts(rootless, "none")
    mounts_.append({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                    "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]})  # fmt: skip
    kinds = ["pid", "network", "ipc", "uts", "mount", "cgroup"] + ["user"] * rootless
    linux = {
        "namespaces": [{"type": kind} for kind in kinds],
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "maskedPaths": list(spec.MASKED_PATHS),
        "readonlyPaths": list(spec.READONLY_PATHS),
    }
    if rootless:
        for field, own in (("uidMappings", os.geteuid()), ("gidMappings", os.getegid())):
            linux[field] = [{"containerID": 0, "hostID": own, "size": 1}]
        del linux["resources"]
    return {
        "ociVersion": VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [f"PATH={spec.PATH}", "TERM=xterm"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), kept),
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "minicontainer",
        "mounts": mounts_,
        "linux": linux,
    }
