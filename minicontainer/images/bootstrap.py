"""Base images made on this machine, so that nothing has to come from Docker Hub.

busybox: the host's static busybox under all its names, and the files that every program expects.
debian: Debian's "minbase" by mmdebstrap(1), from the host's own package sources.
"""

from __future__ import annotations

import io
import os
import platform
import shutil
import signal
import struct
import subprocess

from ..runtime.spec import PATH
from . import archive, tar_write
from .errors import ImageError
from .store import Store
from .tar_read import DIRECTORY, REGULAR, SYMLINK

MIRROR = "MINICONTAINER_DEBIAN_MIRROR"  # for hosts whose own sources are not Debian's
SUITE = "bookworm"  # where the host is not Debian
DIRECTORIES = {
    b"bin": 0o755, b"dev": 0o755, b"etc": 0o755, b"proc": 0o555, b"root": 0o700, b"run": 0o755,
    b"sbin": 0o755, b"sys": 0o555, b"tmp": 0o1777, b"usr": 0o755, b"usr/bin": 0o755,
    b"usr/sbin": 0o755, b"var": 0o755, b"var/tmp": 0o1777,
}  # fmt: skip
FILES = {
    b"etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n"
    b"nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    b"etc/group": b"root:x:0:\nnogroup:x:65534:\n",
    b"etc/hostname": b"", b"etc/hosts": b"", b"etc/resolv.conf": b"",
}  # fmt: skip
# What nobody reads who runs a container; /usr/share/common-licenses and copyright files stay.
EXCLUDED = ("man", "info", "doc", "locale", "lintian", "groff", "linda", "doc-base")
# Links /bin -> usr/bin first, or apt would install a program in Perl, 46 MB, to do it.
MERGED_USR = "/usr/share/mmdebstrap/hooks/maybe-merged-usr"


def make(store: Store, kind: str, name: str, suite: str | None, say) -> str:
    """Make the image `kind`, "busybox" or "debian"; returns its name in full. Raises ImageError.

    suite  of Debian; None takes the host's own
    say    is told, with a text, what takes long
    """
    config = {"Env": [f"PATH={PATH}"], "Cmd": ["sh" if kind == "busybox" else "bash"]}
    if kind == "busybox":
        return archive.import_tar(store, io.BytesIO(_busybox()), name, config, "busybox")
    if kind != "debian":
        raise ImageError(f"{kind}: busybox and debian are what can be made here")
    return _debian(store, name, suite or _suite(), config, say)


def _busybox() -> bytes:
    """The root file system as a tar; the same busybox gives the same bytes."""
    hint = "apt install busybox-static (dnf: busybox), or put one first in PATH"
    program = shutil.which("busybox")
    if not program:
        raise ImageError("busybox is not installed", hint)
    with open(program, "rb") as file:
        content = file.read()
    if _has_interpreter(content):
        raise ImageError(f"{program} is not static: alone in a root it would not run", hint)
    parts = [tar_write.header(path, DIRECTORY, mode) for path, mode in DIRECTORIES.items()]
    for path, data in {**FILES, b"bin/busybox": content}.items():
        mode = 0o755 if data is content else 0o644
        parts += [tar_write.header(path, REGULAR, mode, size=len(data)), data]
        parts.append(tar_write.padding(len(data)))
    listed = subprocess.run([program, "--list-full"], capture_output=True, check=True).stdout
    for path in sorted(set(listed.split()) - {b"bin/busybox"}):
        if os.path.dirname(path) in (b"", *DIRECTORIES):
            target = os.path.relpath(b"bin/busybox", os.path.dirname(path))
            parts.append(tar_write.header(path, SYMLINK, 0o777, link=target))
    return b"".join([*parts, tar_write.END])


def _has_interpreter(program: bytes) -> bool:
    """Whether it needs a loader: a program header of type PT_INTERP, 3 (elf(5)); 64 bits."""
    if program[:5] != b"\x7fELF\x02":
        return True
    (table,) = struct.unpack_from("=Q", program, 32)  # e_phoff
    size, count = struct.unpack_from("=HH", program, 54)  # e_phentsize, e_phnum
    kinds = [struct.unpack_from("=I", program, table + n * size)[0] for n in range(count)]
    return 3 in kinds


def _debian(store: Store, name: str, suite: str, config: dict, say) -> str:
    tool = shutil.which("mmdebstrap")
    if not tool:
        raise ImageError("mmdebstrap is not installed", "apt install mmdebstrap")
    command = [tool, "--variant=minbase", "--format=tar", "--quiet", "--skip=output/dev"]
    command += [f"--dpkgopt=path-exclude=/usr/share/{one}/*" for one in EXCLUDED]
    if os.path.isdir(MERGED_USR):
        command.append(f"--hook-dir={MERGED_USR}")
    mirror = os.environ.get(MIRROR, "")
    command += [suite, "-", *([mirror] if mirror else [])]
    say(f"Debian {suite} is made by mmdebstrap, which takes a minute")
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            return archive.import_tar(store, _Output(process), name, config, f"debian {suite}")
        except BaseException:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)  # it unmounts and cleans up
            raise


class _Output:
    """What a program writes; the end of it is one only if the program succeeded."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def read(self, size: int) -> bytes:
        assert self._process.stdout
        data = self._process.stdout.read(size)
        if not data and self._process.wait():
            hint = f"apt-get update must work here; or set {MIRROR} to a mirror's address"
            raise ImageError("mmdebstrap failed", hint)
        return data


def _suite() -> str:
    """VERSION_CODENAME of os-release(5), where ID is debian."""
    found = platform.freedesktop_os_release()
    return found.get("VERSION_CODENAME", SUITE) if found.get("ID") == "debian" else SUITE
