"""base/debian.tar: a Debian "minbase" from the distribution's archive, made by mmdebstrap(1); that
takes some 30 s and the network. debian.py unpacks it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence

from kit import tools
from kit.recipe import Failed, Recipe, Work
from kit.trees import file_sha256

MIRROR = "MINICONTAINER_DEBIAN_MIRROR"
OTHER_HOSTS_SUITE = "bookworm"  # where the host is not Debian

# mmdebstrap clamps every later time to this one and puts no other date into files, so the same
# packages give the same bytes. Any fixed date before the packages' own does: 2020-01-01.
EPOCH = "1577836800"

# Nothing that runs reads these. /usr/share/common-licenses and the copyright files stay out with
# the documentation: the tree is a cache for experiments on this machine, not for distribution.
EXCLUDED = ["man", "info", "doc", "locale", "lintian", "groff", "linda", "doc-base"]

# Without it apt chooses `usrmerge`, a program in Perl that would merge /usr of an older system, and
# 46 MB of Perl with it. The hook, which mmdebstrap brings, makes the links /bin -> usr/bin first.
MERGED_USR = "/usr/share/mmdebstrap/hooks/maybe-merged-usr"

SPACE_MB = 400  # apt waits for ever on a full disk, so it is looked at before

# As root: a pid namespace of its own. It ends with its first process, and all that apt and dpkg had
# started with it, whatever happens to the builder. An ordinary user's mmdebstrap makes one itself.
CONTAINED = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]

FIX = (
    f"apt-get update must work on this host; or set {MIRROR} to a mirror's address or to a whole "
    "line of sources.list; `mmdebstrap` alone shows more"
)
NO_NAMESPACE = (
    "sudo ./workshop setup, which makes one that yours is copied from; or apt install uidmap and "
    "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER"
)


def release() -> tuple[str, str]:
    """(ID, VERSION_CODENAME) of os-release(5)."""
    found = {}
    with open("/etc/os-release", encoding="utf-8") as file:
        for line in file:
            name, _, value = line.strip().partition("=")
            found[name] = value.strip("\"'")
    return found.get("ID", ""), found.get("VERSION_CODENAME", "")


def suite() -> str:
    name, codename = release()
    return codename if name == "debian" and codename else OTHER_HOSTS_SUITE


def facts() -> dict[str, str]:
    return {
        "suite": suite(),
        # Its checksum only: the address may have a password in it, and all may read the manifest.
        MIRROR: hashlib.sha256(os.environ.get(MIRROR, "").encode()).hexdigest(),
        # Its --version alone takes 0.2 s.
        "mmdebstrap sha256": file_sha256(tools.find("mmdebstrap", "mmdebstrap")),
    }


def make(work: Work) -> dict[str, str]:
    return bootstrap(work, SPACE_MB)


def bootstrap(work: Work, space_mb: int, options: Sequence[str] = ()) -> dict[str, str]:
    """Write `work.target`, a tar archive, with mmdebstrap; `options`: more packages, hooks."""
    tool = tools.find("mmdebstrap", "mmdebstrap")
    mirror, sources = os.environ.get(MIRROR, ""), ""
    if not mirror:
        sources = host_sources(suite())
    words = [f"--mode={mode()}", "--variant=minbase", "--format=tar", *options]
    words += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in EXCLUDED]
    if os.path.isdir(MERGED_USR):  # since mmdebstrap 1.1
        words.append(f"--hook-dir={MERGED_USR}")
    origin = [mirror] if mirror else ["-"] if sources else []
    argv = [tool, *words, suite(), work.target, *origin]
    contained = CONTAINED if os.geteuid() == 0 else []
    # In a user namespace of its own mmdebstrap is nobody to the scratch directory.
    temporary = work.scratch if os.geteuid() == 0 else "/tmp"
    for directory in (work.scratch, temporary):
        tools.require_space(directory, space_mb)
    work.tools.run(
        argv, FIX, within=contained, stdin=sources, SOURCE_DATE_EPOCH=EPOCH, TMPDIR=temporary
    )
    return {"mmdebstrap": tools.version("mmdebstrap", "mmdebstrap"), "suite": suite()}


def mode() -> str:
    """How mmdebstrap becomes root. Raises Failed for a user who cannot."""
    if os.geteuid() == 0:
        return "root"
    if shutil.which("newuidmap") and _has_subordinate_ids():
        return "unshare"
    if shutil.which("fakechroot") and shutil.which("fakeroot"):
        return "fakechroot"
    raise Failed("a user without subordinate ids cannot unpack Debian packages", NO_NAMESPACE)


def _has_subordinate_ids() -> bool:
    """subuid(5): a line "name or uid:first:count"."""
    import pwd

    names = {str(os.getuid())}
    try:
        names.add(pwd.getpwuid(os.getuid()).pw_name)
    except KeyError:
        pass
    try:
        with open("/etc/subuid", encoding="utf-8") as file:
            return any(line.split(":")[0] in names for line in file)
    except OSError:
        return False


def host_sources(codename: str) -> str:
    """The host's own lines for Debian's archive, third parties' left out; "" where it has none, and
    then mmdebstrap's default is used.

    apt itself says which they are: whatever way they are written, and by the Origin that their
    signed Release file states.
    """
    if release()[0] != "debian" or not shutil.which("apt-get"):
        return ""
    fields = "$(ORIGIN)|$(CODENAME)|deb $(REPO_URI) $(RELEASE) $(COMPONENT)"
    query = ["apt-get", "indextargets", "--format", fields, "Created-By: Packages"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    wanted = {codename, f"{codename}-updates", f"{codename}-security"}
    lines = []
    for target in done.stdout.splitlines():
        origin, name, line = target.split("|", 2)
        if origin == "Debian" and name in wanted and line.endswith(" main"):
            lines.append(line)
    return "".join(f"{line}\n" for line in dict.fromkeys(lines))


RECIPES = [Recipe("base/debian.tar", "roots", make, (__file__,), facts=facts, shared=True)]
