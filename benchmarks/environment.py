"""The environment record: everything about this host that a figure depends on. `env_id` names it in
every row.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from typing import Any

from benchmarks import roots
from benchmarks.arms.base import Arm
from benchmarks.command import PATH
from benchmarks.version import first_line

TOOLS = ("qemu-system-x86_64", "libvirtd", "runc", "crun", "bwrap", "podman", "docker", "unshare")


def record(arms: list[Arm]) -> dict[str, Any]:
    """The record of this host for these arms; `env_id` is the checksum of all the rest."""
    env: dict[str, Any] = {
        "cpu": _cpu(),
        "kernel": platform.release(),
        "kernel_version": platform.version(),
        "architecture": platform.machine(),
        "distribution": _distribution(),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
        "mitigations": {
            os.path.basename(path): _read(path)
            for path in sorted(glob.glob("/sys/devices/system/cpu/vulnerabilities/*"))
        },
        "clocksource": _read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "transparent_hugepages": _chosen("/sys/kernel/mm/transparent_hugepage/enabled"),
        "ksm": _read("/sys/kernel/mm/ksm/run"),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "cgroups": _cgroups(),
        "lsm": _read("/sys/kernel/security/lsm"),
        "psi": os.path.exists("/proc/pressure/cpu"),
        "root": os.geteuid() == 0,
        "capabilities": _status("CapEff"),
        "systemd": os.path.isdir("/run/systemd/system"),
        "hypervisor": _hypervisor(),
        "kvm_device": os.path.exists("/dev/kvm"),
        "accelerators": sorted({arm.accel for arm in arms if arm.accel}),
        "python": sys.version.split()[0],
        "tools": {
            name: first_line(path) for name in TOOLS if (path := shutil.which(name, path=PATH))
        },
        "images": roots.manifest(),
        "source": _commit(),
    }
    env["env_id"] = hashlib.sha256(json.dumps(env, sort_keys=True).encode()).hexdigest()[:12]
    return env


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _chosen(path: str) -> str:
    """The word in brackets, as in 'always [madvise] never'."""
    return _read(path).partition("[")[2].partition("]")[0]


def _status(name: str) -> str:
    lines = _read("/proc/self/status").splitlines()
    return next((line.split()[1] for line in lines if line.startswith(f"{name}:")), "")


def _cpu() -> dict[str, Any]:
    facts: dict[str, str] = {}
    for line in _read("/proc/cpuinfo").partition("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        facts[name.strip()] = value.strip()
    return {
        "model": facts.get("model name", facts.get("CPU part", "")),
        "online": os.cpu_count(),
        "flags": sorted(facts.get("flags", facts.get("Features", "")).split()),
    }


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""


def _cgroups() -> str:
    """v1, v2 or hybrid (v1 controllers with a v2 tree beside them), from what is mounted."""
    kinds = set()
    for line in _read("/proc/self/mountinfo").splitlines():
        kind = line.partition(" - ")[2].split()[0]
        if kind in {"cgroup", "cgroup2"}:
            kinds.add(kind)
    if kinds == {"cgroup", "cgroup2"}:
        return "hybrid"
    return {frozenset({"cgroup"}): "v1", frozenset({"cgroup2"}): "v2"}.get(frozenset(kinds), "")


def _hypervisor() -> str:
    """What this host itself runs on ('' on bare metal)."""
    if "hypervisor" not in _cpu()["flags"]:
        return ""
    vendor = _read("/sys/class/dmi/id/sys_vendor") or _read("/sys/hypervisor/type")
    return vendor or "unknown (the CPU has the hypervisor flag)"


def _commit() -> str:
    """Commit of this clone, with '+' when files differ from it; '' outside a clone."""
    git = ["git", "-C", roots.CLONE]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        )
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
