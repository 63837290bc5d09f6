"""seccomp: a program in the kernel that judges each system call of a process (seccomp(2)).

Capabilities divide root's power; seccomp takes calls away, from everybody. A filter sees a call's
number, its architecture and its six arguments, but never the memory they point to. It cannot be
taken off again, and children inherit it.

Compiling takes some milliseconds, so `cached` keeps programs on disk: a warm start loads neither
the compiler (`seccomp_compiler`) nor the table of calls.
"""

from __future__ import annotations

import errno
import os
import stat

from . import syscalls

# OCI's names. SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV waits for an agent of SCMP_ACT_NOTIFY.
FLAGS = ("SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW")


def flags(profile: dict) -> int:
    """The flags for `load` that an OCI `linux.seccomp` object asks for. Raises ValueError."""
    bits = 0
    for n, name in enumerate(listed(profile, "flags", "linux.seccomp")):
        if name not in FLAGS:
            raise ValueError(
                f"linux.seccomp.flags[{n}]: {name!r} is not supported; known: {' '.join(FLAGS)}"
            )
        bits |= getattr(syscalls, name)
    return bits


def listed(entry, field: str, where: str) -> list:
    """The list in that member of an object, empty when it is absent. Raises ValueError."""
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: an object is expected, not {entry!r}")
    value = entry.get(field)
    if value is not None and not isinstance(value, list):
        raise ValueError(f"{where}.{field}: a list is expected, not {value!r}")
    return value or []


def compile(profile: dict) -> bytes:
    """The filter for an OCI `linux.seccomp` object. Raises ValueError that names the wrong field.

    Names that this runtime does not know are skipped: `describe` tells them.
    """
    from . import seccomp_compiler

    return seccomp_compiler.compile(profile)


def describe(profile: dict) -> list[str]:
    """An OCI `linux.seccomp` object in words, one line for each fate. Raises ValueError."""
    from . import seccomp_profile

    return seccomp_profile.describe(profile)


def load(program: bytes, flags: int = 0) -> None:
    """Put the calling thread under the filter, for good.

    Raises OSError: EACCES without no_new_privs and without CAP_SYS_ADMIN (else a filter could make
    a setuid program believe that its setuid(2) worked), EINVAL for a bad program or flag.
    """
    try:
        other = syscalls.seccomp(syscalls.SECCOMP_SET_MODE_FILTER, flags, program)
    except OSError as error:
        if error.errno == errno.EACCES:
            text = f"{error.strerror}: neither no_new_privs nor CAP_SYS_ADMIN is there"
            raise OSError(error.errno, text) from None
        raise
    if other:  # TSYNC returns the thread that has a filter of its own
        call = syscalls.seccomp.text(syscalls.SECCOMP_SET_MODE_FILTER, flags, program)
        raise OSError(errno.ESRCH, f"{call}: thread {other} cannot take the filter")


def cached(profile: dict, directory: str | None = None) -> bytes:
    """`compile`, remembered in `directory` (by default the user's run-time directory).

    The cache is a convenience: one that cannot be written, or that is not ours alone, is not used.
    """
    directory = directory or run_directory()
    key = _sha256(_canonical(profile) + _compiler_version())
    path = f"{directory}/{key.hex()}.bpf"
    program = _read(directory, path, key)
    if program is None:
        program = compile(profile)
        _write(directory, path, _sha256(key + program) + program)
    return program


def run_directory() -> str:
    """Where compiled filters are kept."""
    if os.geteuid() == 0:
        return "/run/minicontainer/seccomp"
    # Without one: /proc cannot be written, so nothing is kept.
    return os.environ.get("XDG_RUNTIME_DIR", "/proc") + "/minicontainer/seccomp"


def _canonical(value) -> bytes:
    """A JSON value as bytes, equal for equal values. (Importing json costs a start 5 ms.)"""
    if isinstance(value, dict):
        inner = b",".join([_canonical(k) + b":" + _canonical(value[k]) for k in sorted(value)])
        return b"{" + inner + b"}"
    if isinstance(value, list | tuple):
        return b"[" + b",".join([_canonical(one) for one in value]) + b"]"
    return repr(value).encode(errors="backslashreplace")


def _compiler_version() -> bytes:
    """Changes whenever the compiler does: a filter made by an older one must not live on."""
    here = os.path.dirname(__file__)
    parts = [os.uname().machine]
    for name in ("seccomp_compiler.py", "seccomp_profile.py", "seccomp_table.py", "bpf.py"):
        try:
            now = os.stat(f"{here}/{name}")
            parts.append(f"{now.st_size} {now.st_mtime_ns}")
        except OSError:
            parts.append(str(os.getpid()))  # no source, no version: nothing is found again
    return ";".join(parts).encode()


def _sha256(data: bytes) -> bytes:
    # hashlib itself would load OpenSSL, 2 ms; Fedora's Python has nothing else.
    try:
        from _sha2 import sha256  # type: ignore[import-not-found]  # since Python 3.12
    except ImportError:
        try:
            from _sha256 import sha256  # type: ignore[import-not-found]
        except ImportError:
            from _hashlib import openssl_sha256 as sha256
    return sha256(data).digest()


def _is_ours(fd: int, kind: int) -> bool:
    """Whether only we (or root in our stead) can have written it; a filter is a matter of trust."""
    now = os.fstat(fd)
    return stat.S_IFMT(now.st_mode) == kind and now.st_uid == os.geteuid() and not (
        now.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )  # fmt: skip


def _read(directory: str, path: str, key: bytes) -> bytes | None:
    try:
        for name, kind in ((directory, stat.S_IFDIR), (path, stat.S_IFREG)):
            # O_NONBLOCK: a stranger's fifo must not hold us up
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                if not _is_ours(fd, kind):
                    return None
                if kind == stat.S_IFREG:
                    data = os.read(fd, 1 << 16)
            finally:
                os.close(fd)
    except OSError:
        return None
    program = data[32:]
    return program if program and data[:32] == _sha256(key + program) else None


def _write(directory: str, path: str, data: bytes) -> None:
    """Whole or not at all: written beside, then renamed over."""
    beside = f"{path}.{os.getpid()}"
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            whole = os.write(fd, data) == len(data)
        finally:
            os.close(fd)
        if whole:
            os.rename(beside, path)
        else:
            os.unlink(beside)
    except OSError:
        return  # read-only, full, or somebody else's: the filter works without
