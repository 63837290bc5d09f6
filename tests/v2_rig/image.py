"""The guest's initramfs: what this host has, as far as the tests use it, under the same paths.

So the repository, the virtual environment and every program are where they are on the host, and the
guest needs no package, no network and no image of its own.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

from tests.roots import REPOSITORY
from tests.v2_rig import selection
from tests.v2_rig.tree import Tree

HERE = Path(__file__).parent
# A program that the host lacks is lacking in the guest too, and the tests say so.
PROGRAMS = (
    "bash capsh cat chgrp chmod chown chroot conmon cp cpio crun debugfs docker-registry e2fsck "
    "env find getcap getfattr grep gzip ip ln ls mkdir mkfs.ext4 mknod mount mv newgidmap "
    "newuidmap nsenter openssl podman ps rm runc script sed setcap setfattr setpriv sh skopeo "
    "sleep stat strace tar touch umoci umount unshare xz zstd"
)
# Distributions of the virtual environment, with all that they require but do without.
PACKAGES = "hypothesis ipykernel matplotlib nbval pytest urllib3 zlib-ng zstandard"
UNUSED = {"debugpy", "jedi", "parso"}
TREES = ("lessons", "minicontainer", "tests")
SETTINGS = ("/etc/containers/policy.json", "/etc/containers/registries.conf", "/etc/mke2fs.conf",
            "/etc/ssl/openssl.cnf", "/etc/localtime")  # fmt: skip
WRITTEN = {
    "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\nlearner:x:1000:1000::/home/learner:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "/etc/group": "root:x:0:\nlearner:x:1000:\nnogroup:x:65534:\n",
    "/etc/subuid": "root:100000:65536\nlearner:165536:65536\n",
    "/etc/subgid": "root:100000:65536\nlearner:165536:65536\n",
    "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "/etc/os-release": "ID=v2rig\n",
}
DIRECTORIES = ("/dev", "/home/learner", "/mnt", "/proc", "/root", "/run", "/sys", "/tmp",
               "/var/lib", "/var/tmp", str(REPOSITORY / ".venv"))  # fmt: skip
NOT_COPIED = {"__pycache__", "test", "idlelib", "lib2to3", "ensurepip", "dist-packages",
              "site-packages", ".git", ".ipynb_checkpoints"}  # fmt: skip


def build(target: Path, modules: Path) -> None:
    """Write the initramfs, behind the archive of modules, to `target`."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch, target.open("wb") as file:
        with modules.open("rb") as archive:
            shutil.copyfileobj(archive, file)
        tree = Tree(file)
        tree.begin(HERE / "init.sh", busybox())
        for name in DIRECTORIES:
            tree.directory(name)
        for path in python_files():
            tree.add(path)
        for path in programs():
            tree.add(path)
        for top in TREES:
            for path in below(REPOSITORY / top):
                tree.add(path)
        tree.add(REPOSITORY / "pyproject.toml")
        tree.write("/etc/v2-rig", settings().encode())
        # As an editable installation does: the notebooks' kernels start elsewhere.
        tree.write(f"{sysconfig.get_path('purelib')}/minicontainer.pth", f"{REPOSITORY}\n".encode())
        for path in filter(os.path.exists, SETTINGS):
            tree.add(Path(path))
        for name, text in WRITTEN.items():
            tree.write(name, text.encode())
        add_compiled(tree, Path(scratch))
        add_busybox(tree)
        tree.end()


def settings() -> str:
    """For passes.sh."""
    words = {"REPOSITORY": str(REPOSITORY), "PYTHON": sys.executable, "OPTIONS": selection.OPTIONS}
    words |= {name.upper(): tests for name, tests in selection.passes().items()}
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in words.items())


def below(top: Path) -> Iterator[Path]:
    for directory, names, files in os.walk(top):
        names[:] = sorted({name for name in names if not name.startswith("config-")} - NOT_COPIED)
        yield from (Path(directory, name) for name in sorted(files))


def python_files() -> Iterator[Path]:
    """The interpreter under its names, the standard library, the packages."""
    yield from (Path(sys.executable), Path(sys.prefix, "pyvenv.cfg"))
    if os.path.exists("/usr/bin/python3"):
        yield Path("/usr/bin/python3")
    interpreter = Path(sys.executable).resolve()
    yield interpreter
    library = Path(sysconfig.get_path("stdlib"))
    yield from below(library)
    compiled = list(library.glob("lib-dynload/*.so"))
    for path in packages():
        yield path
        if ".so" in path.suffixes:
            compiled.append(path)
    yield from libraries([interpreter, *compiled])


def packages() -> Iterator[Path]:
    wanted, seen = PACKAGES.split(), set(UNUSED)
    while wanted:
        name = re.sub("[-_.]+", "-", wanted.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # the one in the standard library is used then, or its tests are skipped
        for line in found.requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                wanted.append(requirement.name)
        for file in found.files or []:
            path = Path(os.path.normpath(str(found.locate_file(file))))
            if path.is_file() and not {"tests", "__pycache__"} & set(file.parts):
                yield path


def programs() -> Iterator[Path]:
    found = [Path(path) for name in PROGRAMS.split() if (path := _which(name))]
    yield from found
    yield from libraries(found)


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin:/usr/libexec/podman")


def libraries(files: list[Path]) -> Iterator[Path]:
    """What ldd(1) finds; a script or a static program has none."""
    said = subprocess.run(["ldd", *files], capture_output=True, text=True).stdout
    found = re.findall(r"(?m)^\s+(?:\S+ => )?(/.+) \(0x[0-9a-f]+\)$", said)
    yield from (Path(path) for path in sorted(set(found)))


def add_compiled(tree: Tree, scratch: Path) -> None:
    """Emulated, Python compiles slower than it runs these tests: so all is compiled here, as pytest
    rewrites it too. The host's own compiled files, where there are any, serve for the rest.
    """
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(scratch), "PYTHONPATH": str(REPOSITORY)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    run = {"cwd": REPOSITORY, "env": environment, "stdout": subprocess.DEVNULL}
    collect = [sys.executable, "-m", "pytest", "--collect-only", "--nbval", "-q", "-p",
               "no:cacheprovider"]  # fmt: skip
    words = " ".join(selection.passes().values()).split()
    subprocess.run([*collect, *words], **run)
    subprocess.run([sys.executable, "-m", "compileall", "-q", "minicontainer"], **run)
    for source in sorted(tree.sources):
        directory, name = os.path.split(source)
        cache = f"{directory}/__pycache__"
        for where in (f"{scratch}{directory}", cache):
            stem = name.removesuffix(".py")
            found = sorted(Path(where).glob(f"{stem}.{sys.implementation.cache_tag}*.pyc"))
            for path in found:
                tree.add(path, f"{cache}/{path.name}")
            if found:
                break


def add_busybox(tree: Tree) -> None:
    """Under all its names that no program of the host's has taken."""
    tree.add(busybox())
    applets = subprocess.run([busybox(), "--list"], capture_output=True, text=True, check=True)
    taken = {os.path.basename(name) for name in tree.there}
    for name in applets.stdout.split():
        if name not in taken:
            tree.link(f"/bin/{name}", str(busybox()))


def busybox() -> Path:
    return Path(shutil.which("busybox") or "/bin/busybox")
