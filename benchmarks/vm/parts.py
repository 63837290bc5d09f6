"""What a machine of the full tier needs on the host before it starts, and leaves no trace of: a
disk of its own, a linked clone, and a bridge or a port that its address is reached by.
"""

from __future__ import annotations

import contextlib
import glob
import os
import socket
import subprocess
from collections.abc import Callable
from typing import Any

from benchmarks.arms.base import ArmFailed
from benchmarks.command import PATH, environment
from benchmarks.vm import domain
from benchmarks.workdir import storage_directory

GUEST_PORT = 7777  # of vm-images/full's ready.service


OWNER = "minicontainer-"  # of a bridge's alias; then the pid of the harness that made it


def remove_abandoned_bridges(say: Callable[[str], None]) -> None:
    """Those of harness processes that no longer live."""
    for path in glob.glob("/sys/class/net/mc*/ifalias"):
        with open(path, encoding="utf-8") as file:
            owner = file.read().strip()
        pid = owner.removeprefix(OWNER)
        if owner.startswith(OWNER) and pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
            name = path.split("/")[-2]
            say(f"remove bridge {name}")
            with contextlib.suppress(ArmFailed):
                _run("ip", "link", "delete", name)


def _run(*words: str) -> None:
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env={**environment(), "PATH": PATH}
    )
    if done.returncode:
        raise ArmFailed(f"{' '.join(words)}: {done.stderr.strip()[-300:]}")


def linked_clone(base: str, name: str) -> domain.Disk:
    """A qcow2 image that has only what differs from `base`, which nobody writes to meanwhile.
    Raises ArmFailed.
    """
    path = os.path.join(storage_directory(), f"{name}.qcow2")
    try:
        _run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", path)
    except FileNotFoundError as error:
        raise ArmFailed("qemu-img is not installed: apt install qemu-utils") from error
    os.chmod(path, 0o644)
    return domain.Disk(path, base, direct=_takes_direct(path) and _takes_direct(base))


def _takes_direct(path: str) -> bool:
    """Whether its file system has direct I/O: tmpfs had none until Linux 6.6."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except OSError:
        return False
    return True


class Link:
    """How the host reaches one guest. `bridge`: a bridge of its own, without any address of IPv4's;
    the guest has the link-local address that follows from its card's (RFC 4291, appendix A).
    `user`: a port of the loopback that QEMU's user network forwards.
    """

    def __init__(self, mode: str, name: str) -> None:
        tail = os.urandom(3)
        mac = "52:54:00:" + ":".join(f"{byte:02x}" for byte in tail)
        self.bridge = ""
        if mode == "bridge":
            self.bridge = f"mc{tail.hex()}"  # an interface's name has 15 bytes at most
            self.network = domain.Network(mac, self.bridge)
            self._make_bridge()
            a, b, c = tail
            address = f"fe80::5054:ff:fe{a:02x}:{b:02x}{c:02x}"
            scope = socket.if_nametoindex(self.bridge)
            self.address: tuple[Any, ...] = (address, GUEST_PORT, 0, scope)
            self.family = socket.AF_INET6
        else:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            self.network = domain.Network(mac, port=port, guest_port=GUEST_PORT)
            self.address = ("127.0.0.1", port)
            self.family = socket.AF_INET

    def _make_bridge(self) -> None:
        _run("ip", "link", "add", self.bridge, "type", "bridge", "forward_delay", "0")
        try:
            # Its own address is there at once: nobody else is on this link to ask.
            with contextlib.suppress(OSError):
                path = f"/proc/sys/net/ipv6/conf/{self.bridge}/accept_dad"
                with open(path, "w", encoding="ascii") as file:
                    file.write("0")
            # Whose it is: for `clean`, when this process is killed.
            _run("ip", "link", "set", self.bridge, "alias", f"{OWNER}{os.getpid()}", "up")
        except BaseException:
            self.close()
            raise

    def first_reply(self, timeout_s: float) -> bytes:
        """Connect and wait for what the guest answers. Raises ArmFailed."""
        with socket.socket(self.family, socket.SOCK_STREAM) as link:
            link.settimeout(timeout_s)
            try:
                link.connect(self.address)
                return link.recv(16)
            except OSError as error:
                raise ArmFailed(f"no reply from {self.address[0]}: {error}") from error

    def close(self) -> None:
        if self.bridge:
            with contextlib.suppress(ArmFailed):
                _run("ip", "link", "delete", self.bridge)
            self.bridge = ""
