"""The steps of which a container start is made; each can describe itself and apply itself.

A step's `calls()` are the system calls as one would write them by hand; `apply(context)` does them.
`why`, `clause` (of the OCI runtime spec, or a man page) and `lesson` are for readers and for
`minicontainer explain`. Here: what a step is, and the ones about init as a process of its own. The
others are in `steps_host` (cgroup, namespaces), `steps_files` (the root file system),
`steps_process` (identity, privilege, exec) and `steps_console`.
"""

from __future__ import annotations

import errno
import os

from ..kernel import syscalls


class Context:
    """What the steps of one start share; `launch` has more of it."""

    __slots__ = ("hint", "root_fd")

    def __init__(self) -> None:
        self.root_fd = -1  # the container's root, before it is our root
        self.hint = ""  # what to do, should the present step fail


class Step:
    """Base of all steps.

    where  the process that does it, in the order of `launch`: "parent" is ours, before there is
           another; "stage" the one between, where one is needed; "outside" ours again, when init's
           pid is known; "init" the container's PID 1
    fields  what of the configuration it carries out, with all below; a namespace by its type, as in
            "linux.namespaces[pid]", a mount by its number
    """

    name = ""
    where = "init"
    fields: tuple[str, ...] = ()
    why = ""
    clause = ""
    lesson = ""

    def calls(self) -> list[str]:
        """The step as text: one string for each system call."""
        raise NotImplementedError

    def apply(self, context: Context) -> None:
        """Do it. Raises OSError whose text is the failing call."""
        raise NotImplementedError


class NewSession(Step):
    name = "new session"
    why = "no controlling terminal: nothing inside can type into yours, signals come through us"
    clause = "setsid(2)"
    lesson = "04"

    def calls(self):
        return [syscalls.setsid.text()]

    def apply(self, context):
        syscalls.setsid()


class Undumpable(Step):
    name = "not dumpable"
    why = "until exec nobody in the container may look into us: /proc/PID/exe is the interpreter"
    clause = "PR_SET_DUMPABLE(2const)"
    lesson = "10"

    def __init__(self, where: str) -> None:
        self.where = where

    def calls(self):
        return [syscalls.prctl.text(syscalls.PR_SET_DUMPABLE, 0)]

    def apply(self, context):
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)


class NewKeyring(Step):
    name = "session keyring"
    why = "keys of the caller's session are not the container's"
    clause = "keyctl_join_session_keyring(3)"
    lesson = "10"

    def calls(self):
        return [syscalls.keyctl.text(syscalls.KEYCTL_JOIN_SESSION_KEYRING, None)]

    def apply(self, context):
        try:
            syscalls.keyctl(syscalls.KEYCTL_JOIN_SESSION_KEYRING, None)
        except OSError as error:
            # no keys in this kernel, forbidden by an outer container's filter, or the quota is used
            if error.errno not in (errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EDQUOT):
                raise
            context.warn(f"session keyring: {error.strerror}: {os.strerror(error.errno)}")


class Hostname(Step):
    name = "hostname"
    fields = ("hostname",)
    why = "a name of its own, in the new uts namespace"
    clause = "config.md#hostname"
    lesson = "04"

    def __init__(self, hostname: str) -> None:
        self.hostname = hostname

    def calls(self):
        return [syscalls.sethostname.text(self.hostname)]

    def apply(self, context):
        syscalls.sethostname(self.hostname)


class DomainName(Step):
    name = "domainname"
    fields = ("domainname",)
    why = "the NIS domain's name, in the uts namespace"
    clause = "config.md#domainname"
    lesson = "04"

    def __init__(self, name: str) -> None:
        self.domain = name

    def calls(self):
        return [syscalls.setdomainname.text(self.domain)]

    def apply(self, context):
        syscalls.setdomainname(self.domain)


class Loopback(Step):
    name = "loopback up"
    fields = ("linux.namespaces[network]",)
    why = "127.0.0.1 is all the network that a new network namespace has, and it starts down"
    clause = "network_namespaces(7)"
    lesson = "09"

    def calls(self):
        return [syscalls.set_interface_up.text("lo")]

    def apply(self, context):
        syscalls.set_interface_up("lo")
