"""The host's libvirt: one connection, which is opened again when it broke; how long it may take to
answer; its logs; and machines of ours that a killed harness left there.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import libvirt

from benchmarks.arms.base import ArmFailed

PREFIX = "minicontainer-"  # of every domain's name; then the pid of the harness that made it
SYSTEM_LOGS = "/var/log/libvirt/qemu"
# Far more than any call takes here, memory snapshots on a loaded machine included.
ANSWER_S, INTERRUPTED_S = 60.0, 10.0

T = TypeVar("T")

libvirt.registerErrorHandler(lambda *_: None, None)  # errors are raised; never also printed

_opened: dict[str, libvirt.virConnect] = {}
_unanswered: list[threading.Thread] = []


def uri() -> str:
    """LIBVIRT_DEFAULT_URI, else the system's libvirt for root and the user's own for a user."""
    default = "qemu:///system" if os.geteuid() == 0 else "qemu:///session"
    return os.environ.get("LIBVIRT_DEFAULT_URI", default)


def connection() -> libvirt.virConnect:
    """The process's one connection. Raises ArmFailed, with libvirt's words, when none answers."""
    where = uri()
    known = _opened.get(where)
    if known is not None and known.isAlive():  # asks nobody: it looks at its own end of the socket
        return known

    def opened() -> tuple[libvirt.virConnect, str]:
        host = libvirt.open(where)
        return host, host.getType()

    try:
        host, kind = answer(opened)
    except libvirt.libvirtError as error:
        raise ArmFailed(f"{where}: {error}") from error
    if kind != "QEMU":
        raise ArmFailed(f"{where} is libvirt's {kind} driver, not QEMU: set LIBVIRT_DEFAULT_URI")
    _opened[where] = host
    return host


def answer(call: Callable[[], T]) -> T:
    """What libvirt answers to this call, which may raise libvirtError. Raises ArmFailed when it
    takes too long: a libvirtd that was stopped, or is stuck, keeps its callers waiting for ever.

    The call is made by a thread, which such a libvirtd keeps. While it does, nothing more is asked.
    """
    _unanswered[:] = [thread for thread in _unanswered if thread.is_alive()]
    if _unanswered:
        raise ArmFailed(_silent("still "))
    answered: Future[T] = Future()

    def ask() -> None:
        try:
            answered.set_result(call())
        except BaseException as error:
            answered.set_exception(error)

    thread = threading.Thread(target=ask, name="libvirt", daemon=True)
    thread.start()
    try:
        return answered.result(ANSWER_S)
    except TimeoutError:
        _unanswered.append(thread)
        raise ArmFailed(_silent(f"for {ANSWER_S:.0f} s ")) from None
    except KeyboardInterrupt:
        thread.join(INTERRUPTED_S)  # what it was about to make is there then, and can be undone
        if thread.is_alive():
            _unanswered.append(thread)
        raise


def _silent(how_long: str) -> str:
    return (
        f"libvirt {how_long}does not answer ({uri()}): `virsh list` shows whether it does again; "
        "if not, restart libvirtd, then run this again"
    )


def explained(error: libvirt.libvirtError) -> ArmFailed:
    """libvirt's words in one line; and whether it is still there."""
    words = " ".join(str(error).split())
    known = _opened.get(uri())
    if known is not None and not known.isAlive():
        return ArmFailed(f"libvirt went away ({uri()}): {words}; start it, then run this again")
    return ArmFailed(words)


def version() -> str:
    """'libvirt 9.0.0, QEMU 7.2.22'."""
    host = connection()
    numbers = answer(lambda: (host.getLibVersion(), host.getVersion()))
    texts = [f"{n // 1_000_000}.{n // 1000 % 1000}.{n % 1000}" for n in numbers]
    return f"libvirt {texts[0]}, QEMU {texts[1]}"


def own_name(name: str) -> str:
    """A domain's whole name: it says whose it is."""
    return f"{PREFIX}{os.getpid()}-{name}"


def destroy(name: str) -> None:
    """End the domain of that whole name if there is one."""
    with contextlib.suppress(ArmFailed, libvirt.libvirtError):
        host = connection()
        answer(lambda: host.lookupByName(name).destroy())


def log_path(name: str) -> str:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    users = os.path.join(cache, "libvirt", "qemu", "log")
    return os.path.join(SYSTEM_LOGS if "/system" in uri() else users, f"{name}.log")


def log_words(name: str) -> str:
    """The last line of QEMU's log that is a message of QEMU's ('' without one)."""
    try:
        with open(log_path(name), encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file if ": qemu-system" in line]
    except OSError:
        return ""
    return lines[-1][-300:] if lines else ""


def remove_log(name: str) -> None:
    """libvirt keeps a log of each domain's name for ever; ours are of no use afterwards."""
    with contextlib.suppress(OSError):
        os.unlink(log_path(name))


def abandoned() -> list[libvirt.virDomain]:
    """Domains of harness processes that no longer live: AUTODESTROY leaves none but on a crash of
    libvirt's, and of those that had no AUTODESTROY.
    """
    try:
        host = connection()
        machines = answer(host.listAllDomains)
    except (ArmFailed, libvirt.libvirtError):
        return []
    found = []
    for machine in machines:
        pid = machine.name().removeprefix(PREFIX).partition("-")[0]
        if machine.name().startswith(PREFIX) and not os.path.exists(f"/proc/{pid}"):
            found.append(machine)
    return found
