"""Steps that turn init into the process of the configuration: identity, privilege, start, exec."""

from __future__ import annotations

import _signal as signal
import errno
import os
import stat

from ..kernel import capabilities, seccomp, syscalls
from . import hooks, report
from .steps import Exec, Identity, Step

_SYS_ADMIN = capabilities.mask(["CAP_SYS_ADMIN"])


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


class Undumpable(Step):
    name = "not dumpable"
    why = "until exec nobody in the container may look into us: /proc/PID/exe is the interpreter"
    clause = "PR_SET_DUMPABLE(2const)"
    lesson = "10"

    def calls(self):
        return [syscalls.prctl.text(syscalls.PR_SET_DUMPABLE, 0)]

    def apply(self, context):
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)


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


class StdioOwner(Step):
    name = "stdio owner"
    fields = ("process.user.uid", "process.terminal")
    why = "so that /dev/stdout can be opened again by the user; /dev/null stays as it is"
    clause = "fchown(2)"
    lesson = "10"

    def __init__(self, uid: int) -> None:
        self.uid = uid

    def calls(self):
        return [f"fchown({fd}, {self.uid}, -1)" for fd in (0, 1, 2)]

    def apply(self, context):
        for fd in (0, 1, 2):
            try:
                now = os.fstat(fd)
                if stat.S_ISCHR(now.st_mode) or now.st_uid == self.uid:
                    continue  # a device is shared with the host: /dev/null, a terminal
                os.fchown(fd, self.uid, -1)
            except OSError as error:
                # runc's list: a read-only file system, an id that is not mapped, closed by the user
                if error.errno not in (errno.EINVAL, errno.EPERM, errno.EROFS, errno.EBADF):
                    raise


class KeepCapabilities(Step):
    name = "keep capabilities"
    fields = ("process.user.uid", "process.capabilities.permitted")
    why = "becoming an ordinary user would clear them all, also those it is to have"
    clause = "PR_SET_KEEPCAPS(2const)"
    lesson = "10"

    def calls(self):
        return [syscalls.prctl.text(syscalls.PR_SET_KEEPCAPS, 1)]

    def apply(self, context):
        capabilities.keep_through_setuid(True)


class BundleIdentity(Identity):
    """With a umask of 0022, as runc, unless the configuration has one."""

    def apply(self, context):
        if not context.setgroups and not self.groups:
            self.groups = None  # nothing to set, and it would be EPERM
        context.hint = "ids that are not mapped into the user namespace do not exist in there"
        super().apply(context)


class BundleBoundingSet(Step):
    name = "bounding set"
    fields = ("process.capabilities.bounding",)
    why = "what is taken out here, no program can ever get back, setuid or not"
    clause = "config.md#linux-process"
    lesson = "10"

    def __init__(self, keep: int) -> None:
        self.keep = keep

    def calls(self):
        return [
            syscalls.prctl.text(syscalls.PR_CAPBSET_DROP, name)
            for number, name in enumerate(capabilities.NAMES) if not self.keep >> number & 1
        ]  # fmt: skip

    def apply(self, context):
        for text in capabilities.drop_bounding(self.keep):
            context.warn(text)


class BundleCapabilities(Step):
    """All sets. `borrow` keeps CAP_SYS_ADMIN until the filter is loaded: see `Filter`."""

    name = "capabilities"
    fields = tuple(f"process.capabilities.{kind}" for kind in capabilities.SETS[1:])
    clause = "config.md#linux-process"
    lesson = "10"

    def __init__(self, sets: dict[str, int], borrow: bool) -> None:
        self.sets = sets
        self.extra = _SYS_ADMIN if borrow else 0
        count = sets["permitted"].bit_count()
        self.why = f"{count} of {len(capabilities.NAMES)} are left"
        if borrow:
            self.why += ", and CAP_SYS_ADMIN until the filter is loaded"

    def calls(self):
        effective, permitted = self.sets["effective"], self.sets["permitted"]
        return [
            syscalls.capset.text(
                effective | self.extra, permitted | self.extra, self.sets["inheritable"]
            )
        ] + [
            syscalls.prctl.text(syscalls.PR_CAP_AMBIENT, "PR_CAP_AMBIENT_RAISE", name)
            for number, name in enumerate(capabilities.NAMES) if self.sets["ambient"] >> number & 1
        ]  # fmt: skip

    def apply(self, context):
        for text in capabilities.set_all(
            self.sets["effective"] | self.extra, self.sets["permitted"] | self.extra,
            self.sets["inheritable"], self.sets["ambient"],
        ):  # fmt: skip
            context.warn(text)


class FindProgram(Exec):
    """Looks for the command without running it, so that `create` can say that it is not there."""

    name = "find command"
    fields = ("process.args", "process.env")
    why = "an error at create is worth more than one at start"
    clause = "runtime.md#create"

    def calls(self):
        return [f"faccessat({path!r}, X_OK)" for path in self.candidates()]

    def apply(self, context):
        failure: OSError = FileNotFoundError(2, self.args[0])
        for path in self.candidates():
            try:
                now = os.stat(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except PermissionError as error:
                failure = error
                continue
            if stat.S_ISREG(now.st_mode) and os.access(path, os.X_OK, effective_ids=True):
                return
            failure = PermissionError(13, path)
        raise failure


class WaitForStart(Step):
    name = "wait for start"
    why = "everything is there; a byte in the fifo says go. From here on errors go to `start`"
    clause = "runtime.md#lifecycle"
    lesson = "12"

    def calls(self):
        return ["read(EXEC_FIFO, 1)"]

    def apply(self, context):
        # A PID 1 is deaf to signals that it has no handler for; exec takes these away again.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, lambda number, frame: os._exit(128 + number))
        os.write(context.report_fd, report.encode("ready"))
        os.close(context.report_fd)
        os.close(context.go_fd)
        context.report_fd = context.result_fifo
        os.read(context.exec_fifo, 1)
        os.close(context.exec_fifo)


class StartContainerHooks(Step):
    name = "startContainer hooks"
    fields = ("hooks.startContainer",)
    why = "in the container, as its process, before the command"
    clause = "config.md#posix-platform-hooks"
    lesson = "12"

    def __init__(self, configured: dict) -> None:
        self.hooks = configured

    def calls(self):
        return [f"execve({hook['path']!r})" for hook in self.hooks["startContainer"]]

    def apply(self, context):
        hooks.run(self.hooks, "startContainer", {**context.state, "status": "created"})


class KeepDescriptors(Step):
    name = "close descriptors"
    clause = "close_range(2)"
    lesson = "10"

    def __init__(self, preserved: int) -> None:
        self.first = 3 + preserved
        self.why = "an open directory of the host would be a way out: all others close at exec"

    def calls(self):
        return [syscalls.close_range.text(self.first, 0xFFFFFFFF, syscalls.CLOSE_RANGE_CLOEXEC)]

    def apply(self, context):
        for fd in range(3, self.first):
            try:
                os.set_inheritable(fd, True)
            except OSError as error:
                raise OSError(error.errno, f"--preserve-fds: descriptor {fd} is not open") from None
        syscalls.close_range(self.first, 0xFFFFFFFF, syscalls.CLOSE_RANGE_CLOEXEC)


class Filter(Step):
    """The seccomp filter, as the very last thing before exec.

    Loading one takes no_new_privs or CAP_SYS_ADMIN. Where the container is to have neither, the
    capability is kept until here and dropped under the filter, which has to allow capset(2): that
    way nothing else that we do needs to be allowed in it.
    """

    name = "seccomp"
    fields = ("linux.seccomp",)
    why = "system calls that the command does not need are refused"
    clause = "config-linux.md#seccomp"
    lesson = "10"

    def __init__(self, program: bytes, flags: int, drop: dict[str, int] | None) -> None:
        self.program = program
        self.flags = flags
        self.drop = drop  # the capabilities to have after it

    def calls(self):
        found = [syscalls.seccomp.text(syscalls.SECCOMP_SET_MODE_FILTER, self.flags, self.program)]
        if self.drop:
            kinds = ("effective", "permitted", "inheritable")
            found.append(syscalls.capset.text(*[self.drop[kind] for kind in kinds]))
        return found

    def apply(self, context):
        # What is granted now is less than asked for on some hosts: only our own is taken back.
        sets = syscalls.capget() if self.drop else (0, 0, 0)
        seccomp.load(self.program, self.flags)
        if self.drop:
            syscalls.capset(sets[0] & ~_SYS_ADMIN, sets[1] & ~_SYS_ADMIN, sets[2])
