"""System calls, and nothing else: the only place in the package that calls C.

Each call is declared once, below. Every one of them

- raises `OSError(errno, "unshare(flags=CLONE_NEWPID|CLONE_NEWTIME)")` when the kernel says no,
  so a message always shows what was asked;
- can say what it would do without doing it: `unshare.text(CLONE_NEWPID)`;
- passes the one trace point, `trace`.

Flags are the kernel's (`include/uapi/linux/{sched,mount,prctl,openat2,close_range}.h`) and have the
kernel's names; numbers of system calls are those that are equal on x86-64 and aarch64
(`asm-generic/unistd.h` for everything since Linux 5.1).
"""

from __future__ import annotations

import os
import struct
from time import monotonic_ns

from . import clib

TYPE_CHECKING = False  # as in typing, whose import would cost a start 3 ms
if TYPE_CHECKING:
    from collections.abc import Callable

# --- flags ------------------------------------------------------------------------------------

CLONE_NEWTIME = 0x00000080
CLONE_PARENT = 0x00008000
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_MANDLOCK = 64
MS_DIRSYNC = 128
MS_NOSYMFOLLOW = 256
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_SILENT = 1 << 15
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_I_VERSION = 1 << 23
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25

MNT_DETACH = 2

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

PR_CAPBSET_READ = 23
PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT_RAISE = 2

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = 0o2000000
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_TSYNC = 1
SECCOMP_FILTER_FLAG_LOG = 2
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4

KEYCTL_JOIN_SESSION_KEYRING = 1

PROC_SUPER_MAGIC = 0x9FA0
DEVPTS_SUPER_MAGIC = 0x1CD1

TIOCSCTTY = 0x540E
TIOCGPTPEER = 0x5441
TIOCGPTN = 0x80045430
TIOCSPTLCK = 0x40045431

BPF_PROG_LOAD = 5
BPF_PROG_ATTACH = 8
BPF_PROG_GET_FD_BY_ID = 13
BPF_OBJ_GET_INFO_BY_FD = 15
BPF_PROG_QUERY = 16
BPF_F_ALLOW_MULTI = 2
BPF_F_REPLACE = 4

SYS_OPEN_TREE = 428
SYS_MOVE_MOUNT = 429
SYS_FSOPEN = 430
SYS_FSCONFIG = 431
SYS_FSMOUNT = 432
SYS_CLONE3 = 435
SYS_CLOSE_RANGE = 436
SYS_OPENAT2 = 437
SYS_MOUNT_SETATTR = 442
# Older than the common numbers. A machine that is not listed gets ENOSYS.
SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}.get(os.uname().machine, -1)
SYS_BPF = {"x86_64": 321, "aarch64": 280}.get(os.uname().machine, -1)
SYS_CLONE = {"x86_64": 56, "aarch64": 220}.get(os.uname().machine, -1)
SYS_KEYCTL = {"x86_64": 250, "aarch64": 219}.get(os.uname().machine, -1)


class Refused(OSError):
    """The kernel, or this host's setup, refuses. `strerror` says what, `hint` how to mend it."""

    def __init__(self, number: int, text: str, hint: str = "") -> None:
        super().__init__(number, text)
        self.hint = hint


# --- how arguments are shown ------------------------------------------------------------------


class _Flags:
    """Shows a bit set by the names of this module's constants that share a prefix."""

    def __init__(self, *prefix: str) -> None:
        self.prefix = prefix
        self.known: list[tuple[str, int]] = []

    def constants(self) -> list[tuple[str, int]]:
        if not self.known:
            self.known = [pair for pair in globals().items() if pair[0].startswith(self.prefix)]
        return self.known

    def __call__(self, value: int) -> str:
        names = []
        for name, bit in self.constants():
            if value & bit == bit:
                names.append(name)
                value &= ~bit
        if value or not names:
            names.append(hex(value) if value else "0")
        return "|".join(names)


class _Enum(_Flags):
    """Shows one number by the name of the constant that has it."""

    def __call__(self, value: int) -> str:
        for name, number in self.constants():
            if number == value:
                return name
        return str(value)


def _octal(value: int) -> str:
    return f"0{value:o}"


# --- the one trace point ----------------------------------------------------------------------

# When set: called after each call with (text, result or OSError, start, end), times in
# nanoseconds of CLOCK_MONOTONIC. The plan's steps, `run --trace` and the benchmark listen here.
trace: Callable[[str, object, int, int], None] | None = None


class Syscall:
    """One system call: callable, and able to say what a call with given arguments is."""

    __slots__ = ("_function", "_parameters", "name")

    def __init__(self, name, function, /, **parameters) -> None:
        self.name = name
        self._function = function
        self._parameters = parameters  # argument name -> how to show a value of it

    def text(self, *args) -> str:
        """The call as `strace` would write it, with the arguments' names."""
        shown = [
            f"{name}={show(value)}"
            for (name, show), value in zip(self._parameters.items(), args, strict=False)
        ]
        return f"{self.name}({', '.join(shown)})"

    def __call__(self, *args):
        start = monotonic_ns() if trace else 0
        try:
            result = self._function(*args)
        except OSError as error:
            end = monotonic_ns() if trace else 0  # before the text: that takes longer than a call
            text = self.text(*args)
            failure = OSError(error.errno, text)
            if trace:
                trace(text, failure, start, end)
            raise failure from None
        if trace:
            end = monotonic_ns()
            trace(self.text(*args), result, start, end)
        return result


_c = clib.raising
_syscall = _c("syscall")
_INT, _ULONG, _STR, _PTR = clib.INT, clib.ULONG, clib.STRING, clib.POINTER


def _number(number: int):
    """A system call that the C library has no function for; whole numbers are passed as long."""

    def call(*args):
        return _syscall(_ULONG(number), *[_ULONG(a) if isinstance(a, int) else a for a in args])

    return call


# --- namespaces and identity ------------------------------------------------------------------

unshare = Syscall("unshare", _c("unshare", _INT), flags=_Flags("CLONE_"))
setns = Syscall("setns", _c("setns", _INT, _INT), fd=str, nstype=_Flags("CLONE_"))
_sethostname = _c("sethostname", _STR, _ULONG)
sethostname = Syscall(
    "sethostname", lambda name: _sethostname(name, len(os.fsencode(name))), name=repr
)
_setdomainname = _c("setdomainname", _STR, _ULONG)
setdomainname = Syscall(
    "setdomainname", lambda name: _setdomainname(name, len(os.fsencode(name))), name=repr
)
setsid = Syscall("setsid", os.setsid)
setgroups = Syscall("setgroups", os.setgroups, groups=repr)
setresgid = Syscall("setresgid", os.setresgid, rgid=str, egid=str, sgid=str)
setresuid = Syscall("setresuid", os.setresuid, ruid=str, euid=str, suid=str)
umask = Syscall("umask", os.umask, mask=_octal)

# --- files and mounts -------------------------------------------------------------------------

mount = Syscall(
    "mount",
    _c("mount", _STR, _STR, _STR, _ULONG, _STR),
    source=repr,
    target=repr,
    filesystemtype=repr,
    mountflags=_Flags("MS_"),
    data=repr,
)
umount2 = Syscall("umount2", _c("umount2", _STR, _INT), target=repr, flags=_Flags("MNT_"))
pivot_root = Syscall("pivot_root", _c("pivot_root", _STR, _STR), new_root=repr, put_old=repr)
chroot = Syscall("chroot", os.chroot, path=repr)
chdir = Syscall("chdir", os.chdir, path=repr)
fchdir = Syscall("fchdir", os.fchdir, fd=str)
mkdir = Syscall("mkdir", os.mkdir, pathname=repr, mode=_octal)
rmdir = Syscall("rmdir", os.rmdir, pathname=repr)
mkdirat = Syscall(
    "mkdirat",
    lambda dirfd, path, mode: os.mkdir(path, mode, dir_fd=dirfd),
    dirfd=str,
    pathname=repr,
    mode=_octal,
)
mknodat = Syscall(
    "mknodat",
    lambda dirfd, path, mode, device: os.mknod(path, mode, device, dir_fd=dirfd),
    dirfd=str,
    pathname=repr,
    mode=_octal,
    dev=lambda device: f"makedev({os.major(device)}, {os.minor(device)})",
)
symlinkat = Syscall(
    "symlinkat",
    lambda target, dirfd, path: os.symlink(target, path, dir_fd=dirfd),
    target=repr,
    newdirfd=str,
    linkpath=repr,
)


def _write_file(path: str, text: str) -> int:
    # For the kernel's own files, which take a value as one write(2).
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        return os.write(fd, text.encode())
    finally:
        os.close(fd)


write_file = Syscall("write", _write_file, file=repr, text=repr)


_openat2_number = _number(SYS_OPENAT2)


def _openat2(dirfd: int, path: str, flags: int, resolve: int) -> int:
    how = (clib.UINT64 * 3)(flags | os.O_CLOEXEC, 0, resolve)  # struct open_how: the second is mode
    return _openat2_number(dirfd, path, clib.byref(how), clib.sizeof(how))


openat2 = Syscall(
    "openat2", _openat2, dirfd=str, pathname=repr, flags=hex, resolve=_Flags("RESOLVE_")
)
close_range = Syscall("close_range", _number(SYS_CLOSE_RANGE), first=str, last=hex, flags=hex)

_fstatfs_buffer = _c("fstatfs", _INT, _PTR)


def _fstatfs(fd: int) -> int:
    buffer = (clib.LONG * 32)()  # struct statfs; f_type comes first
    _fstatfs_buffer(fd, clib.addressof(buffer))
    return buffer[0]


fstatfs = Syscall("fstatfs", _fstatfs, fd=str)
syncfs = Syscall("syncfs", _c("syncfs", _INT), fd=str)

# Mounts as descriptors: made and changed where no path leads, then put in their place.
open_tree = Syscall(
    "open_tree", _number(SYS_OPEN_TREE), dirfd=str, pathname=repr, flags=_Flags("OPEN_TREE_", "AT_")
)
move_mount = Syscall(
    "move_mount", _number(SYS_MOVE_MOUNT), from_dirfd=str, from_pathname=repr, to_dirfd=str,
    to_pathname=repr, flags=_Flags("MOVE_MOUNT_"),
)  # fmt: skip
fsopen = Syscall("fsopen", _number(SYS_FSOPEN), fsname=repr, flags=_Flags("FSOPEN_"))
fsconfig = Syscall(
    "fsconfig", _number(SYS_FSCONFIG), fd=str, cmd=_Enum("FSCONFIG_"), key=repr, value=repr, aux=str
)
fsmount = Syscall(
    "fsmount", _number(SYS_FSMOUNT), fsfd=str, flags=_Flags("FSMOUNT_"),
    attr_flags=_Flags("MOUNT_ATTR_"),
)  # fmt: skip
_mount_setattr_number = _number(SYS_MOUNT_SETATTR)


def _mount_setattr(fd: int, path: str, flags: int, on: int, off: int, propagation: int) -> int:
    attributes = (clib.UINT64 * 4)(on, off, propagation, 0)  # struct mount_attr
    size = clib.sizeof(attributes)
    return _mount_setattr_number(fd, path, flags, clib.byref(attributes), size)


mount_setattr = Syscall(
    "mount_setattr", _mount_setattr, dirfd=str, pathname=repr, flags=_Flags("AT_"),
    attr_set=_Flags("MOUNT_ATTR_"), attr_clr=_Flags("MOUNT_ATTR_"), propagation=_Flags("MS_"),
)  # fmt: skip

# --- privilege, processes ---------------------------------------------------------------------

_prctl = _c("prctl", _INT, _ULONG, _ULONG, _ULONG, _ULONG)
prctl = Syscall(
    "prctl", lambda option, arg2, arg3=0: _prctl(option, arg2, arg3, 0, 0), option=_Enum("PR_"),
    arg2=str, arg3=str,
)  # fmt: skip
_capset = _c("capset", _PTR, _PTR)
_capget = _c("capget", _PTR, _PTR)


def _capability_header():
    return (clib.UINT32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread


def _capget_all() -> tuple[int, int, int]:
    data = (clib.UINT32 * 6)()
    header = _capability_header()
    _capget(clib.addressof(header), clib.addressof(data))
    return data[0] | data[3] << 32, data[1] | data[4] << 32, data[2] | data[5] << 32


def _capset_all(effective: int, permitted: int, inheritable: int) -> int:
    header = _capability_header()
    data = (clib.UINT32 * 6)(
        *[value >> shift & 0xFFFFFFFF
          for shift in (0, 32) for value in (effective, permitted, inheritable)]
    )  # fmt: skip
    return _capset(clib.addressof(header), clib.addressof(data))


capget = Syscall("capget", _capget_all)  # effective, permitted, inheritable
capset = Syscall("capset", _capset_all, effective=hex, permitted=hex, inheritable=hex)
execve = Syscall("execve", os.execve, pathname=repr, argv=repr, envp=lambda env: f"<{len(env)}>")
fork = Syscall("fork", os.fork)
kill = Syscall("kill", os.kill, pid=str, sig=str)


def _fork_by(number: int, *arguments) -> int:
    # What os.fork does around fork(2), with another call instead
    clib.python_function("PyOS_BeforeFork")()
    pid = clib.python_function("syscall")(_ULONG(number), *arguments)
    failure = clib.get_errno()
    clib.python_function("PyOS_AfterFork_Parent" if pid else "PyOS_AfterFork_Child")()
    if pid == -1:
        raise OSError(failure, "clone")
    return pid


def _clone(flags: int, cgroup_fd: int) -> int:
    # A process that is born in a v2 group needs no move, for which the kernel waits some 10 ms.
    arguments = (clib.UINT64 * 11)()  # struct clone_args: flags first, exit_signal the fifth
    arguments[0], arguments[4] = flags, 17  # SIGCHLD
    if cgroup_fd >= 0:
        arguments[0], arguments[10] = flags | CLONE_INTO_CGROUP, cgroup_fd
    return _fork_by(SYS_CLONE3, clib.byref(arguments), _ULONG(88))


def _fork_sibling() -> int:
    zero = _ULONG(0)  # no stack of its own, as in fork(2)
    return _fork_by(SYS_CLONE, _ULONG(CLONE_PARENT | 17), zero, zero, zero, zero)


clone = Syscall("clone3", _clone, flags=_Flags("CLONE_"), cgroup=str)  # cgroup -1: the caller's
fork_sibling = Syscall("clone CLONE_PARENT", _fork_sibling)  # the child is our parent's child
_prlimit = _c("prlimit", _INT, _INT, _PTR, _PTR)


def _set_rlimit(pid: int, resource: int, soft: int, hard: int) -> int:
    limit = (clib.UINT64 * 2)(soft, hard)  # struct rlimit
    return _prlimit(pid, resource, clib.addressof(limit), None)


prlimit = Syscall("prlimit", _set_rlimit, pid=str, resource=str, soft=str, hard=str)
keyctl = Syscall("keyctl", _number(SYS_KEYCTL), operation=_Enum("KEYCTL_"), name=repr)

_seccomp_number = _number(SYS_SECCOMP)


def _seccomp(operation: int, flags: int, program: bytes) -> int:
    # struct sock_fprog: how many instructions, and where
    where = clib.buffer(program, len(program))
    filter_ = (clib.UINT64 * 2)(len(program) // 8, clib.addressof(where))
    return _seccomp_number(operation, flags, clib.byref(filter_))


seccomp = Syscall(
    "seccomp", _seccomp, operation=_Enum("SECCOMP_SET_"), flags=_Flags("SECCOMP_FILTER_FLAG_"),
    args=lambda program: f"<{len(program) // 8} instructions>",
)  # fmt: skip

_bpf_number = _number(SYS_BPF)


def _bpf(command: int, layout: str, *values) -> int:
    """`union bpf_attr` from struct's `layout` of values; a bytearray stands for its address."""
    kept = [clib.view(value) for value in values if isinstance(value, bytearray)]
    addresses = iter([clib.addressof(buffer) for buffer in kept])
    plain = [next(addresses) if isinstance(v, bytearray) else v for v in values]
    attributes = struct.pack(layout, *plain)
    return _bpf_number(command, attributes, len(attributes))


bpf = Syscall("bpf", _bpf, cmd=_Enum("BPF_PROG_", "BPF_OBJ_"))

# --- terminals, the loopback interface (netdevice(7)) --------------------------------------------

AF_INET, SOCK_DGRAM_CLOEXEC = 2, 2 | 0o2000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
_socket = _c("socket", _INT, _INT, _INT)
_ioctl = _c("ioctl", _INT, _ULONG, _PTR)
ioctl = Syscall("ioctl", _ioctl, fd=str, request=_Enum("TIOC"), argument=str)


def _ioctl_pointer(fd: int, request: int, value: int) -> int:
    box = clib.INT(value)
    _ioctl(fd, request, clib.addressof(box))
    return box.value


ioctl_int = Syscall("ioctl", _ioctl_pointer, fd=str, request=_Enum("TIOC"), argument=str)


def _set_interface_up(name: str) -> int:
    fd = _socket(AF_INET, SOCK_DGRAM_CLOEXEC, 0)
    try:
        # struct ifreq: the name in 16 bytes, then a union of which ifr_flags is a short
        request = clib.buffer(os.fsencode(name).ljust(16, b"\0") + b"\1\0", 40)
        return _ioctl(fd, SIOCSIFFLAGS, clib.addressof(request))
    finally:
        os.close(fd)


set_interface_up = Syscall("ioctl SIOCSIFFLAGS IFF_UP", _set_interface_up, ifr_name=repr)
