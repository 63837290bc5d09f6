"""What a killed harness (kill -9, power cut) left outside the clone: found by its directories,
undone by anyone.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Callable

from benchmarks import dockerd, netns
from benchmarks.command import tidy
from benchmarks.workdir import abandoned


def remove(say: Callable[[str], None]) -> list[str]:
    """List and remove it; returns the directories that were removed. Running harnesses are left
    alone.
    """
    _destroy_machines(say)
    directories = abandoned()
    for directory in directories:
        say(f"remove {directory}")
        _delete_containers(directory)
        _stop_daemon(directory)
    for directory in directories:
        pid = os.path.basename(directory).rpartition("-")[2]
        # Nothing says which of dockerd's side effects were there before: leave those that exist.
        dockerd.clean_up(directory, directory, f"bench-docker-{pid}", set(dockerd.SIDE_EFFECTS))
        dockerd.remove_cgroups(f"bench-podman-{pid}")
        netns.remove_those_of(int(pid))
        shutil.rmtree(directory, ignore_errors=True)
    return directories


def _destroy_machines(say: Callable[[str], None]) -> None:
    try:
        from benchmarks.vm import hypervisor, parts
    except ImportError:
        return  # without libvirt-python there never was a machine
    for machine in hypervisor.abandoned():
        say(f"destroy virtual machine {machine.name()}")
        hypervisor.destroy(machine.name())
    parts.remove_abandoned_bridges(say)


def _delete_containers(directory: str) -> None:
    """Those that a runtime knows of in this directory: see arms/oci.py."""
    for name in os.listdir(directory):
        if not name.endswith(".command"):
            continue
        with open(os.path.join(directory, name), encoding="utf-8") as file:
            base = json.load(file)
        state = os.path.join(directory, name.replace(".command", ".state"))
        for container in os.listdir(state) if os.path.isdir(state) else []:
            tidy([*base, "delete", "--force", container])


def _stop_daemon(directory: str) -> None:
    """Stop the private dockerd of this directory when its pid is still that daemon."""
    with contextlib.suppress(OSError, ValueError):
        with open(os.path.join(directory, "docker", "pid"), encoding="ascii") as file:
            pid = int(file.read())
        handle = os.pidfd_open(pid)
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if directory.encode() not in file.read():
                    return  # the pid was given to somebody else
            signal.pidfd_send_signal(handle, signal.SIGTERM)
            dockerd.wait_for_end(handle)
        finally:
            os.close(handle)
