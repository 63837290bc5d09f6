"""Steps that turn init into the process of the configuration: identity, privilege, start, exec."""

from __future__ import annotations

import _signal as signal
import errno
import os
import stat

from ..kernel import capabilities, syscalls
from . import report
from .errors import RUNTIME_FAILED
from .steps import Step

SYS_ADMIN = capabilities.mask(["CAP_SYS_ADMIN"])


class StdioOwner(Step):
    name = "stdio owner"
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


class BoundingSet(Step):
    name = "bounding set"
    why = "what is taken out here, no program can ever get back, setuid or not"
    clause = "config.md#linux-process"
    lesson = "10"

    def __init__(self, keep: int) -> None:
        self.keep = keep

    def calls(self):
        return [
            syscalls.prctl.text(syscalls.PR_CAPBSET_DROP, number)
            for number in range(len(capabilities.NAMES)) if not self.keep >> number & 1
        ]  # fmt: skip

    def apply(self, context):
        for text in capabilities.drop_bounding(self.keep):
            context.warn(text)


class KeepCapabilities(Step):
    name = "keep capabilities"
    why = "becoming an ordinary user would clear them all, also those it is to have"
    clause = "PR_SET_KEEPCAPS(2const)"
    lesson = "10"

    def calls(self):
        return [syscalls.prctl.text(syscalls.PR_SET_KEEPCAPS, 1)]

    def apply(self, context):
        capabilities.keep_through_setuid(True)


class Identity(Step):
    """With a umask of 0022, as runc, unless the configuration has one."""

    name = "identity"
    clause = "config.md#posix-platform-user"
    lesson = "05"

    def __init__(self, user: dict) -> None:
        self.uid, self.gid = user["uid"], user["gid"]
        self.groups = list(user.get("additionalGids", ()))
        self.umask = user.get("umask", 0o022)
        self.why = f"become uid {self.uid}, gid {self.gid}, and drop the caller's groups"

    def calls(self):
        return [
            syscalls.setgroups.text(self.groups),
            syscalls.setresgid.text(self.gid, self.gid, self.gid),
            syscalls.setresuid.text(self.uid, self.uid, self.uid),
            syscalls.umask.text(self.umask),
        ]

    def apply(self, context):
        context.hint = "ids that are not mapped into the user namespace do not exist in there"
        # Where the user namespace denies it, there is nothing to set, and it would be EPERM
        if context.setgroups or self.groups:
            syscalls.setgroups(self.groups)
        syscalls.setresgid(self.gid, self.gid, self.gid)
        syscalls.setresuid(self.uid, self.uid, self.uid)
        syscalls.umask(self.umask)


class Capabilities(Step):
    """All sets. `borrow` keeps CAP_SYS_ADMIN until the filter is loaded: see `Filter`."""

    name = "capabilities"
    clause = "config.md#linux-process"
    lesson = "10"

    def __init__(self, sets: dict[str, int], borrow: bool) -> None:
        self.sets = sets
        self.extra = SYS_ADMIN if borrow else 0
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
        ]

    def apply(self, context):
        for text in capabilities.set_all(
            self.sets["effective"] | self.extra, self.sets["permitted"] | self.extra,
            self.sets["inheritable"], self.sets["ambient"],
        ):  # fmt: skip
            context.warn(text)


class NoNewPrivileges(Step):
    name = "no_new_privs"
    why = "exec of a setuid program gives nothing any more"
    clause = "config.md#linux-process"
    lesson = "10"

    def calls(self):
        return [syscalls.prctl.text(syscalls.PR_SET_NO_NEW_PRIVS, 1)]

    def apply(self, context):
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)


class DieWithParent(Step):
    name = "die with parent"
    why = "when we are killed, even by SIGKILL, nothing stays behind; must follow setresuid"
    clause = "PR_SET_PDEATHSIG(2const)"
    lesson = "11"

    def calls(self):
        return [syscalls.prctl.text(syscalls.PR_SET_PDEATHSIG, 9)]

    def apply(self, context):
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 9)
        # Had the parent died before that line, no signal would come: its pipe tells.
        os.set_blocking(context.alive_fd, False)
        try:
            os.read(context.alive_fd, 1)
        except BlockingIOError:
            return  # still held open
        os._exit(RUNTIME_FAILED)


class WorkingDirectory(Step):
    name = "working directory"
    clause = "config.md#process"
    lesson = "02"

    def __init__(self, cwd: str) -> None:
        self.cwd = cwd
        self.why = "entered as the user that the command runs as"

    def calls(self):
        return [syscalls.chdir.text(self.cwd)]

    def apply(self, context):
        syscalls.chdir(self.cwd)


class CloseDescriptors(Step):
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


class Exec(Step):
    name = "exec"
    why = "init becomes the command: same process, PID 1 in there"
    clause = "runtime.md#start"
    lesson = "01"

    def __init__(self, args, env) -> None:
        self.args = list(args)
        self.env = dict(entry.split("=", 1) for entry in env)

    def calls(self):
        return [syscalls.execve.text(self.args[0], self.args, self.env)]

    def candidates(self) -> list[str]:
        """The paths that are tried, as execvp(3) does."""
        command = self.args[0]
        if "/" in command:
            return [command]
        return [f"{d or '.'}/{command}" for d in self.env.get("PATH", "").split(":")]

    def apply(self, context):
        failure: OSError = FileNotFoundError(2, self.calls()[0])
        for path in self.candidates():
            try:
                syscalls.execve(path, self.args, self.env)
            except (FileNotFoundError, NotADirectoryError) as error:
                if os.path.lexists(path):
                    raise error  # the file is there: its interpreter is not
            except PermissionError as error:
                failure = error  # as a shell does, go on looking
        raise failure


class FindProgram(Exec):
    """Looks for the command without running it, so that `create` can say that it is not there."""

    name = "find command"
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
