"""What can this host do? Each answer is found by doing the thing in a throwaway child process.

A finding that is not ok says why, in the kernel's words, and what to do. Tests and benchmarks take
the reasons of their skips from here: `check("overlayfs").ok`.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass

from .kernel import capabilities, namespaces, syscalls, userns
from .kernel.syscalls import MS_PRIVATE, MS_REC
from .runtime.errors import kernel_words


@dataclass(frozen=True)
class Finding:
    """One answer: what was tried, whether it works; how, or why not and the fix."""

    name: str
    ok: bool
    detail: str
    fix: str = ""
    required: bool = False


class Cannot(Exception):
    """Raised by a probe: why this host can't, and what to do."""

    def __init__(self, why: str, fix: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.fix = fix


@dataclass(frozen=True)
class _Probe:
    run: Callable[[], str]
    required: bool


_probes: dict[str, _Probe] = {}


def _probe(name: str, required: bool = False) -> Callable:
    def register(function: Callable[[], str]) -> Callable[[], str]:
        _probes[name] = _Probe(function, required)
        return function

    return register


def names() -> list[str]:
    """The names of all probes, in the order of the report."""
    return list(_probes)


def check(name: str) -> Finding:
    """Run one probe."""
    probe = _probes[name]
    try:
        return Finding(name, True, probe.run(), required=probe.required)
    except Cannot as reason:
        return Finding(name, False, reason.why, reason.fix, probe.required)
    except OSError as error:
        why = f"{kernel_words(error.errno)}: {error.strerror}" if error.errno else str(error)
        return Finding(name, False, why, _general_fix(error), probe.required)


def _general_fix(error: OSError) -> str:
    if error.errno in (errno.EPERM, errno.EACCES):
        return userns.why_denied() or "run as root, or outside the container that forbids it"
    return ""


def report(as_json: bool = False) -> int:
    """Print all findings; returns 0 when everything that a container needs works, else 1."""
    findings = []
    for name in names():
        finding = check(name)
        findings.append(finding)
        if not as_json:
            print(f"{'ok' if finding.ok else 'NO':<3} {name:<22} {finding.detail}", flush=True)
            if finding.fix:
                print(f"{'':<26} fix: {finding.fix}")
    able = all(finding.ok for finding in findings if finding.required)
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    elif able:
        print("containers can be run here")
    else:
        print("containers cannot be run here: mend the required entries marked NO")
    return 0 if able else 1


def in_child(function: Callable[[], object]) -> None:
    """Call `function` in a child process, in namespaces of its own if it makes some.

    Raises the OSError that it raised there; the child and all that it made are gone then.
    """
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function()
            status = 0
        except OSError as error:
            os.write(write_fd, f"{error.errno or 0} {error.strerror or error}".encode())
        finally:
            os._exit(status)
    os.close(write_fd)
    with open(read_fd, "rb") as pipe:
        message = pipe.read().decode()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if message:
        number, _, text = message.partition(" ")
        raise OSError(int(number), text)
    if code:
        raise OSError(0, f"the child ended with status {code}")


def enter(*kinds: str) -> None:
    """New namespaces for this process, a user namespace first where we are not root."""
    uid, gid = os.geteuid(), os.getegid()
    if uid != 0 and "user" not in kinds:
        kinds = ("user", *kinds)
    namespaces.unshare(kinds)
    if "user" in kinds:
        userns.write_single_id_map(0, uid, 0, gid)


# --- the probes, from what everything needs to what only the comparison needs ------------------


@_probe("kernel")
def _kernel() -> str:
    release = platform.release()
    if tuple(int(part) for part in release.split("-")[0].split(".")[:2]) < (5, 11):
        raise Cannot(f"Linux {release} is too old", "Linux 5.11 or newer is needed")
    return f"Linux {release} {platform.machine()}, Python {platform.python_version()}"


@_probe("privilege")
def _privilege() -> str:
    if os.geteuid() != 0:
        return f"ordinary user {os.geteuid()}: containers get a user namespace"
    held = capabilities.current()["CapEff"]
    missing = [name for i, name in enumerate(capabilities.NAMES) if not held >> i & 1]
    return "root" + (f" without {', '.join(missing)}" if missing else " with every capability")


@_probe("user namespace", required=os.geteuid() != 0)
def _user_namespace() -> str:
    in_child(lambda: enter("user"))
    return "root inside, yourself outside"


def _register_namespace(kind: str) -> None:
    def run() -> str:
        if kind not in namespaces.available():
            raise Cannot(f"this kernel has no {kind} namespace", "a newer kernel has")
        in_child(lambda: enter(kind))
        return namespaces.NAMESPACES[kind][2]

    _probe(f"{kind} namespace", required=kind != "time")(run)


for _kind in namespaces.NAMESPACES:
    if _kind != "user":
        _register_namespace(_kind)


@_probe("fresh /proc", required=True)
def _fresh_proc() -> str:
    def mount_proc() -> None:
        enter("pid", "mount")
        child = os.fork()
        if child == 0:
            number = 0
            try:
                syscalls.mount(None, "/", None, MS_REC | MS_PRIVATE, None)
                syscalls.mount("proc", "/proc", "proc", 0, None)
            except OSError as error:
                number = error.errno or 1
            os._exit(number)
        number = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if number:
            raise OSError(number, "mount(source='proc', target='/proc')")

    try:
        in_child(mount_proc)
    except PermissionError as error:
        raise Cannot(
            f"{kernel_words(errno.EPERM)}: {error.strerror}",
            "parts of /proc are covered here (inside docker or podman?): start that outer "
            "container with --security-opt unmask=ALL or systempaths=unconfined",
        ) from None
    return "shows the processes of a new pid namespace only"


@_probe("overlayfs")
def _overlayfs() -> str:
    def mount_overlay() -> None:
        enter("mount")
        syscalls.mount(None, "/", None, MS_REC | MS_PRIVATE, None)
        syscalls.mount("tmpfs", "/tmp", "tmpfs", 0, None)
        for name in ("lower", "upper", "work", "merged"):
            os.mkdir(f"/tmp/{name}")
        layers = "lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work"
        syscalls.mount("overlay", "/tmp/merged", "overlay", 0, layers)

    in_child(mount_overlay)
    return "image layers can be stacked"


@_probe("subordinate ids")
def _subordinate_ids() -> str:
    if os.geteuid() == 0:
        return "root needs none"
    if not shutil.which("newuidmap"):
        raise Cannot("newuidmap is not installed", "apt install uidmap (dnf: shadow-utils)")
    import pwd

    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise Cannot(f"uid {os.geteuid()} has no name in /etc/passwd") from None
    try:
        with open("/etc/subuid") as file:
            ranges = [line for line in file if line.split(":")[0] in (user, str(os.geteuid()))]
    except FileNotFoundError:
        ranges = []
    if not ranges:
        raise Cannot(
            f"/etc/subuid has no range for {user}: containers have a single id, root",
            f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}",
        )
    return ranges[0].strip()


@_probe("cgroups")
def _cgroups() -> str:
    with open("/proc/self/mountinfo") as mountinfo:
        mounts = [line.split() for line in mountinfo]
    kinds = [(fields[fields.index("-") + 1], fields[4]) for fields in mounts]
    v1 = [where for kind, where in kinds if kind == "cgroup"]
    v2 = [where for kind, where in kinds if kind == "cgroup2"]
    if not v1 and not v2:
        raise Cannot("no cgroup file system is mounted", "mount -t cgroup2 none /sys/fs/cgroup")
    layout = "v2" if not v1 else "hybrid (v1 and v2)" if v2 else "v1"
    return f"{layout}, {_writable_cgroup(v2 + v1)}"


def _writable_cgroup(mount_points: list[str]) -> str:
    own = {}
    with open("/proc/self/cgroup") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            own[controllers] = path
    for point in mount_points:
        for controllers, path in own.items():
            if controllers and os.path.basename(point) not in controllers.split(","):
                continue
            directory = f"{point}{path.rstrip('/')}/minicontainer-doctor-{os.getpid()}"
            try:
                os.mkdir(directory)
            except OSError:
                continue
            os.rmdir(directory)
            return "groups can be made"
    return "groups cannot be made by this user (no delegation)"


@_probe("container", required=True)
def _container() -> str:
    busybox = shutil.which("busybox")
    if not busybox:
        raise Cannot("no busybox to run in one", "apt install busybox-static (dnf: busybox)")
    from .client import run
    from .runtime.errors import ContainerError

    with tempfile.TemporaryDirectory(prefix="minicontainer-doctor-") as root:
        os.mkdir(f"{root}/bin")
        shutil.copy(busybox, f"{root}/bin/busybox")
        try:
            result = run(root, ["/bin/busybox", "hostname"], capture_output=True)
        except ContainerError as error:
            if "interpreter" in error.hint:
                raise Cannot("busybox is not static", "apt install busybox-static") from None
            raise Cannot(error.message, error.hint) from None
    if result.stdout != "minicontainer\n":
        raise Cannot(f"a container said {result.stdout!r} {result.stderr!r}")
    return "one was started, and answered"


@_probe("kvm")
def _kvm() -> str:
    import fcntl

    try:
        fd = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Cannot(
            "there is no /dev/kvm: virtual machines are emulated (tcg), ten times slower",
            "enable virtualization in the firmware, or nested virtualization of this VM; "
            "sudo modprobe kvm_intel or kvm_amd",
        ) from None
    except PermissionError:
        raise Cannot(
            "/dev/kvm: permission denied", "sudo usermod --append --groups kvm $USER; log in again"
        ) from None
    try:
        version = fcntl.ioctl(fd, 0xAE00, 0)  # KVM_GET_API_VERSION
    finally:
        os.close(fd)
    return f"answers (API {version}); whether a guest boots is found by `benchmarks doctor`"


@_probe("libvirt")
def _libvirt() -> str:
    uri = "qemu:///system" if os.geteuid() == 0 else "qemu:///session"
    if not shutil.which("virsh"):
        raise Cannot("libvirt is not installed", "sudo ./workshop setup")
    done = subprocess.run(
        ["virsh", "--connect", uri, "version", "--daemon"],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=30,
    )
    if done.returncode:
        why = done.stderr.strip().splitlines() or ["no answer"]
        raise Cannot(
            f"{uri}: {why[-1]}",
            "sudo systemctl start libvirtd, or where no service manager runs: "
            "sudo virtlogd -d; sudo libvirtd -d (./workshop does it)",
        )
    lines = [line for line in done.stdout.splitlines() if "hypervisor" in line]
    return f"{uri}: {lines[0].split(':')[-1].strip() if lines else 'answers'}"
