"""Our own program file, out of the containers' reach.

A container's first process is a fork of this Python, so until its exec /proc/self/exe is the host's
interpreter. Root in a container without a user namespace is the host's root: when its command is
`/proc/self/exe`, or a script that begins with `#!/proc/self/exe`, the interpreter is started with
the container's libraries, which keep a descriptor of it and write to it as soon as it has ended
(CVE-2019-5736 in runc). So whatever puts a process into a container runs from a file that can't be
written:

- root's is a read-only bind mount of the interpreter, made once a boot. A pyvenv.cfg beside it
  leads it to its library, so that the launcher `minicontainer-runtime` can start it directly:

      /run/minicontainer/sealed/usr-bin-python3.11/pyvenv.cfg
                                                  /lib            for what is linked to $ORIGIN
                                                  /bin/python3    the mount

- anybody else's, and root's where no mount can be made, is a copy in memory that is sealed
  (memfd_create(2), F_ADD_SEALS), made at each start. An interpreter that belongs to root needs none
  for an ordinary user.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

from . import paths
from .runtime.errors import ContainerError, kernel_words

_EXE = "/proc/self/exe"
_OVERFLOW_UID = 65534  # how an owner looks who has no id in this user namespace
_MFD_EXEC = 0x10  # Linux 6.3; before, every memfd could be executed


def ensure(*words: str) -> None:
    """Return if this process runs from a file that its containers cannot write; else start anew.

    words  what follows the interpreter on the command line

    The new program has the process, the descriptors and the environment of this one. Raises
    ContainerError when this host allows no such file.
    """
    if _safe():
        return
    if os.geteuid() == 0:
        try:
            python = _mounted()
            os.execve(python, [python, *words], os.environ)
        except OSError:
            pass  # no CAP_SYS_ADMIN, an old kernel, a directory that is somebody else's
    try:
        os.execve(_copied(), [sys.executable or os.readlink(_EXE), *words], _with_library_path())
    except OSError as error:
        raise ContainerError(
            f"{os.readlink(_EXE)}: containers could overwrite it, and it cannot be copied to "
            f"memory: {kernel_words(error.errno or 0)}",
            hint="sysctl vm.memfd_noexec=1 allows that; or take an interpreter that is root's",
        ) from None


def _safe() -> bool:
    if os.statvfs(_EXE).f_flag & os.ST_RDONLY:
        return True
    if os.readlink(_EXE).startswith("/memfd:"):
        return _is_sealed()
    # Not by us, nor by an id that we could give to a container: what is neither root's nor without
    # an id here may belong to one of our subordinate ids.
    owner = os.stat(_EXE).st_uid
    strange = owner != os.geteuid() and owner in (0, _OVERFLOW_UID)
    return strange and not os.access(_EXE, os.W_OK)


def _is_sealed() -> bool:
    import fcntl

    fd = os.open(_EXE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE)
    except OSError:
        return False  # a file of that name, no memfd
    finally:
        os.close(fd)


# --- root's read-only mount --------------------------------------------------------------------


def _mounted() -> str:
    """The path of the read-only interpreter; makes what is missing. Raises OSError.

    Everything but the mount is there before the mount is, so one that is found is complete.
    """
    import fcntl

    exe = os.readlink(_EXE)
    if exe.endswith(" (deleted)"):
        raise FileNotFoundError(errno.ENOENT, exe)  # replaced since we started: the next one's task
    base = f"{paths.runtime_dir()}/sealed"
    place = f"{base}/{exe.strip('/').replace('-', '--').replace('/', '-')}"
    for directory, mode in (
        (paths.runtime_dir(), 0o755), (base, 0o700), (place, 0o700), (f"{place}/bin", 0o700),
    ):  # fmt: skip
        _make_directory(directory, mode)
    python = f"{place}/bin/python3"
    lock = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_ours_read_only(python):
            _furnish(place)
            _mount(python)
    finally:
        os.close(lock)
    return python


def _make_directory(path: str, mode: int) -> None:
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        pass
    now = os.lstat(path)
    writable = now.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not stat.S_ISDIR(now.st_mode) or now.st_uid != os.geteuid() or writable:
        raise OSError(errno.EPERM, f"{path} is not a directory of ours alone")


def _is_ours_read_only(python: str) -> bool:
    """Whether it is the very file that we run from (no older one, after an upgrade), and sealed."""
    try:
        there, here = os.stat(python), os.stat(_EXE)
        same = (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
        return same and bool(os.statvfs(python).f_flag & os.ST_RDONLY)
    except FileNotFoundError:
        return False


def _furnish(place: str) -> None:
    base = os.path.realpath(getattr(sys, "_base_executable", None) or os.readlink(_EXE))
    home = os.path.dirname(base)
    for name, make in (
        ("pyvenv.cfg", lambda path: _write(path, f"home = {home}\n")),
        ("lib", lambda path: os.symlink(f"{os.path.dirname(home)}/lib", path)),
    ):
        new = f"{place}/{name}.new"
        if os.path.lexists(new):
            os.unlink(new)  # somebody was killed here
        make(new)
        os.rename(new, f"{place}/{name}")


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "w") as file:
        file.write(text)


def _mount(python: str) -> None:
    from .kernel import mountfd, syscalls

    mount = mountfd.clone(_EXE)
    try:
        mountfd.set_attributes(mount, syscalls.MOUNT_ATTR_RDONLY)
        try:
            while True:  # until it is no mount point: an older interpreter, or a half-made one
                syscalls.umount2(python, syscalls.MNT_DETACH)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise
        # Not executable: what finds no mount there must not take it for an interpreter
        os.close(os.open(python, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        target = os.open(python, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            mountfd.place(mount, target)
        finally:
            os.close(target)
    finally:
        os.close(mount)


# --- a copy in memory --------------------------------------------------------------------------


def _copied() -> int:
    """Descriptor of a sealed copy of the interpreter; closed at exec. Raises OSError."""
    import fcntl

    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        copy = os.memfd_create("python3", flags | _MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        copy = os.memfd_create("python3", flags)
    with open(_EXE, "rb", buffering=0) as source:
        while os.sendfile(copy, source.fileno(), None, 1 << 30):
            pass
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(copy, fcntl.F_ADD_SEALS, seals)
    return copy


def _with_library_path() -> dict[str, str]:
    """Our environment, in which a copy finds the libpython that was linked to $ORIGIN, ld.so(8)."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            directory, slash, name = line.rstrip().partition(" /")[2].rpartition("/")
            if slash and name.startswith("libpython"):
                found = [f"/{directory}", os.environ.get("LD_LIBRARY_PATH", "")]
                return {**os.environ, "LD_LIBRARY_PATH": ":".join(filter(None, found))}
    return dict(os.environ)
