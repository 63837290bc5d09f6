"""kernel/vmlinuz: the distribution's own kernel, downloaded and unpacked, never installed.

Debian's "cloud" kernel has drivers for virtual machines only; it is the smallest that a package
brings. Its package name changes with every update, so the metapackage is asked for it.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess

from kit.recipe import Failed, Recipe, Work
from kit.trees import file_sha256
from roots.debian_base import release

OVERRIDE = "MINICONTAINER_KERNEL"
META = {"debian": "linux-image-cloud-", "ubuntu": "linux-image-virtual"}
FIX = f"sudo apt-get update, then again; or set {OVERRIDE} to the path of a vmlinuz"

# What the guests stand on: an initramfs, and ioperm(2) for the probe's port.
REQUIRED = ["CONFIG_BLK_DEV_INITRD=y"]
if os.uname().machine == "x86_64":
    REQUIRED.append("CONFIG_X86_IOPL_IOPERM=y")


def facts() -> dict[str, str]:
    own = os.environ.get(OVERRIDE)
    if not own:
        return {"distribution": " ".join(release()), "machine": os.uname().machine}
    if not os.path.isfile(own):
        raise Failed(f"{OVERRIDE}={own} is not a file", f"unset {OVERRIDE}, or name a kernel")
    return {OVERRIDE: os.path.abspath(own), "sha256": file_sha256(own)}


def make(work: Work) -> dict[str, str]:
    own = os.environ.get(OVERRIDE)
    if own:
        shutil.copyfile(own, work.target)
        os.chmod(work.target, 0o644)
        return {"kernel": os.path.basename(own)}
    tree, version = fetch(work)
    _check_config(tree)
    # Readable to QEMU's user, which is not the one that builds.
    shutil.copyfile(image(tree), work.target)
    os.chmod(work.target, 0o644)
    return {"kernel": version}


def fetch(work: Work) -> tuple[str, str]:
    """The package, unpacked in the scratch directory, and its name with its version."""
    tree = os.path.join(work.scratch, "package")
    os.mkdir(tree)
    if shutil.which("apt-get"):
        version = _from_apt(work, tree)
    elif shutil.which("dnf"):
        version = _from_dnf(work, tree)
    else:
        raise Failed("neither apt-get nor dnf is here", f"set {OVERRIDE} to the path of a vmlinuz")
    return tree, version


def image(tree: str) -> str:
    return _one(tree, ["boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz", "lib/modules/*/vmlinuz"])


def _from_apt(work: Work, tree: str) -> str:
    package = _newest_apt()
    # As root apt drops to a user of its own, who could not write into the scratch directory.
    own_user = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
    work.tools.run(["apt-get", "download", *own_user, package], FIX)
    archive = _one(work.scratch, ["*.deb"])
    work.tools.run(["dpkg-deb", "-x", archive, tree], FIX)
    return os.path.basename(archive).removesuffix(".deb")


def _newest_apt() -> str:
    """What the metapackage depends on: linux-image-6.1.0-56-cloud-amd64, for example."""
    meta = META.get(release()[0], META["debian"])
    if meta.endswith("-"):
        query = ["dpkg", "--print-architecture"]
        meta += subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    query = ["apt-cache", "depends", "--important", meta]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    words = done.stdout.split()
    names = [word for word in words if word.startswith("linux-image-") and word != meta]
    if not names:
        raise Failed(f"apt knows no {meta}: {done.stderr.strip() or 'it names no kernel'}", FIX)
    return names[0]


def _from_dnf(work: Work, tree: str) -> str:
    fix = f"dnf install dnf-plugins-core rpm cpio; or set {OVERRIDE} to the path of a vmlinuz"
    work.tools.run(["dnf", "download", "--destdir", work.scratch, "kernel-core"], fix)
    archive = _one(work.scratch, ["*.rpm"])
    unpack = 'rpm2cpio "$1" | cpio --extract --make-directories --quiet --directory "$2"'
    work.tools.run(["sh", "-c", unpack, "sh", archive, tree], fix)
    return os.path.basename(archive).removesuffix(".rpm")


def _one(directory: str, patterns: list[str]) -> str:
    for pattern in patterns:
        found = sorted(glob.glob(os.path.join(directory, pattern)))
        if found:
            return found[-1]
    raise Failed(f"the package has no {' or '.join(patterns)}", FIX)


def _check_config(tree: str) -> None:
    """Raises Failed for a kernel that could not boot these guests. Some distributions ship the
    configuration in another package: then the boot itself has to tell.
    """
    found = glob.glob(f"{tree}/boot/config-*") + glob.glob(f"{tree}/lib/modules/*/config")
    if not found:
        return
    with open(found[0], encoding="utf-8") as file:
        lines = set(file.read().splitlines())
    lacking = [line for line in REQUIRED if line not in lines]
    if lacking:
        raise Failed(f"this kernel is built without {', '.join(lacking)}", FIX)


RECIPES = [Recipe("kernel/vmlinuz", "micro", make, (__file__,), facts=facts, shared=True)]
