"""A libvirt of a test's own, which may be stopped and killed: its sockets and its state lie in a
mount namespace. `run(code)` runs Python code there, with DAEMON, the pid of its libvirtd.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.roots import REPOSITORY

PLACES = "/run/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt"
# What libvirt has asked QEMU once; it looks whether that is still true. Else each start takes 8 s.
KNOWN = "/var/cache/libvirt/qemu/capabilities"
# Where libvirt may use KVM and QEMU's user may not, it asks QEMU what it can do at every start.
PREPARE = (
    f"if [ -d {KNOWN} ]; then exec 9<{KNOWN}; fi; "
    f'for d in {PLACES}; do mount -t tmpfs none "$d" || exit; done; '
    f"if [ -e /proc/self/fd/9 ]; then mkdir -p {KNOWN} && cp -a /proc/self/fd/9/. {KNOWN}; fi; "
    "exec 9<&-; "
    "if [ -e /dev/kvm ] && getent group kvm >/dev/null; then "
    "  cp -a /dev/kvm /run/libvirt/kvm && chgrp kvm /run/libvirt/kvm && "
    "  chmod 660 /run/libvirt/kvm && mount --bind /run/libvirt/kvm /dev/kvm || exit; fi; "
)
BEFORE = """
import glob, os, signal, subprocess, sys, threading
from pathlib import Path
from benchmarks import workdir
from benchmarks.arms.base import ArmFailed
from benchmarks.vm import hypervisor
from benchmarks.vm.driver import Machine
from tests.bench_fakes import processes_with
from tests.waiting import until

def answers():
    try:
        return bool(hypervisor.version())
    except ArmFailed:
        return False

def own_qemus():
    return processes_with(f"guest=minicontainer-{os.getpid()}-")

daemons = []
try:
    for name in ("virtlogd", "libvirtd"):
        words = [name, "--pid-file", f"/run/libvirt/{name}-test.pid"]
        daemons.append(subprocess.Popen(words, stderr=subprocess.DEVNULL))
    DAEMON = daemons[-1].pid
    until(answers, 60)
    # It asks QEMU what it can do, which takes seconds the first time.
    hypervisor.connection().getDomainCapabilities(None, "x86_64", None, "qemu")
"""
AFTER = """
finally:
    for daemon in daemons:
        daemon.kill()
        daemon.wait()
    groups = f"/sys/fs/cgroup/*/machine/qemu-*-minicontainer-{os.getpid()}-*.libvirt-qemu"
    for group in glob.glob(groups):
        for directory, _, _ in os.walk(group, topdown=False):
            os.rmdir(directory)
    workdir.remove_own()
"""


def run(code: str, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """What the code said. Skips where there is no libvirtd, or nobody who may start one."""
    if os.geteuid() != 0 or not shutil.which("libvirtd"):
        pytest.skip("only root can start a libvirtd whose state is its own, and it is not here")
    indented = "".join(f"    {line}\n" for line in code.splitlines())
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", f'{PREPARE}exec "$@"', "sh", sys.executable, "-c",
         BEFORE + indented + AFTER, *arguments],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
