"""Which of the cgroup controllers this host gives to the workbench, and what trying one needs.

`reasons` asks by doing. All others are called in the workbench, by `bench.call` and by cells.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import mmap
import os
import shutil
import socket
import subprocess

from ..kernel import cgroups
from ..kernel.cgroups import CgroupError, files
from ..kernel.cgroups.location import PREFIX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .workbench import Workbench

MEGABYTE = 1 << 20
MAP_HUGETLB = 0x40000  # mmap(2)
DISK_FILE_SIZE = 4 * MEGABYTE
# Controllers by their names in v1, in the order of the lecture; pids came later.
CONTROLLERS = (
    "memory", "hugetlb", "cpu", "cpuset", "blkio", "net_cls", "devices", "freezer", "pids",
)  # fmt: skip


class Cannot(Exception):
    """Why this host can't, and the fix."""


def reasons(bench: Workbench) -> dict[str, str]:
    """For each controller why a workbench cannot have it on this host, or "".

    Raises WorkbenchError when there is no asking.
    """
    outcome = bench.call(why_not, *CONTROLLERS)
    if outcome.error:
        from .workbench import WorkbenchError

        raise WorkbenchError(outcome.error)
    found = dict(outcome.value)  # type: ignore[call-overload]
    if not found["devices"]:
        found["devices"] = _why_no_device_filter(bench)
    return found


def _why_no_device_filter(bench: Workbench) -> str:
    """Only the host's root may filter devices, so the workbench has it done from outside."""
    bench.call(make_group, "try")
    with contextlib.redirect_stdout(io.StringIO()) as said:
        bench.deny_devices(f"{PREFIX}try", "c 1:5 r")
    bench.call(remove_group, "try")
    return said.getvalue().strip()


def why_not(*wanted: str) -> dict[str, str]:
    """For each controller "", or why the workbench cannot have it, and the fix."""
    if cgroups.detect.detect().kind == "none":
        return dict.fromkeys(wanted, f"no control group is yours here: {files.DELEGATION}")
    return {controller: _reason(controller) for controller in wanted}


def _reason(controller: str) -> str:
    try:
        group = cgroups.place("try", _limits(controller))
        try:
            group.create()
            if controller in ("devices", "freezer"):
                group.having(controller)
            group.set(_limits(controller))
            if controller == "net_cls":
                count_packets(group, 65535)
        finally:
            group.delete()
    except CgroupError as error:
        return f"{error.strerror}" + (f" ({error.hint})" if error.hint else "")
    except (OSError, Cannot) as error:
        return str(error)
    return ""


def _limits(controller: str) -> dict:
    """An OCI `linux.resources` that needs this controller."""
    if controller == "memory":
        return {"memory": {"limit": 64 * MEGABYTE, "swap": 64 * MEGABYTE}}
    if controller == "pids":
        return {"pids": {"limit": 10}}
    if controller == "cpu":
        return {"cpu": {"quota": 50_000, "period": 100_000, "shares": 512}}
    if controller == "cpuset":
        return {"cpu": {"cpus": str(min(os.sched_getaffinity(0)))}}
    if controller == "blkio":
        _, disk = file_on_disk()
        return {"blockIO": {"throttleReadBpsDevice": [{**disk, "rate": MEGABYTE}]}}
    if controller == "hugetlb":
        return {"hugepageLimits": [huge_pages(1)]}
    return {"hugepageLimits": []} if controller == "net_cls" else {}


def make_group(name: str) -> None:
    cgroups.place(name).create()


def remove_group(name: str) -> None:
    cgroups.look(name).delete()


# --- what the experiments need beside a group ---------------------------------------------------


def huge_pages(count: int) -> dict:
    """A limit of so many huge pages, as OCI has it. Raises Cannot when none are reserved."""
    with open("/proc/meminfo") as file:
        numbers = {line.split(":")[0]: int(line.split()[1]) for line in file}
    if numbers.get("HugePages_Free", 0) < 2:
        raise Cannot("no huge pages are reserved on this machine: sudo sysctl vm.nr_hugepages=4")
    megabytes = numbers["Hugepagesize"] >> 10
    return {"pageSize": f"{megabytes}MB", "limit": count * megabytes * MEGABYTE}


def map_huge_pages(count: int) -> None:
    """Map and touch so many huge pages. Raises OSError, ENOMEM where the limit forbids."""
    size = huge_pages(count)["limit"]
    with mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_HUGETLB) as memory:
        memory[0] = 1


def file_on_disk() -> tuple[str, dict[str, int]]:
    """A file of some megabytes, and the whole disk that it is on, as OCI has it. Raises Cannot.

    Read with O_DIRECT it comes from the disk each time, not from memory (open(2)).
    """
    for path in itertools.islice(_large_files("/usr"), 20):
        number = os.stat(path).st_dev
        try:
            place = os.path.realpath(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
            if os.path.exists(f"{place}/partition"):
                place = os.path.dirname(place)
            major, minor = map(int, files.read(f"{place}/dev").split(":"))
            os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
        except OSError:
            continue
        return path, {"major": major, "minor": minor}
    raise Cannot("no file of this machine is on a plain disk (overlay, btrfs, a network?)")


def _large_files(top: str):
    for directory, _, names in os.walk(top):
        for name in names:
            path = f"{directory}/{name}"
            if not os.path.islink(path) and os.path.getsize(path) >= DISK_FILE_SIZE:
                yield path
                break  # one of each directory: most are on the same disk


def read_from_disk(path: str) -> None:
    """Read the first megabytes of the file, each from the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    with mmap.mmap(-1, MEGABYTE) as buffer:  # O_DIRECT wants whole pages
        for place in range(0, DISK_FILE_SIZE, MEGABYTE):
            os.preadv(fd, [buffer], place)
    os.close(fd)


def count_packets(group: cgroups.Group, port: int) -> None:
    """Have the firewall count what processes of the group's v2 directory send to a UDP port."""
    layout = cgroups.detect.detect()
    if 2 not in [directory.version for directory in group.directories]:
        raise Cannot("{} ({})".format(*cgroups.detect.why_missing("net_cls", layout)))
    directory = group.having("cgroup")
    program = shutil.which("iptables-nft") or shutil.which("iptables")
    if not program:
        raise Cannot(
            "iptables is not installed, which counts packets by group: apt install iptables"
        )
    path = directory.path.removeprefix(f"{directory.mount_point}/")
    subprocess.run([program, "-F", "OUTPUT"], capture_output=True, check=False)
    rule = ["-A", "OUTPUT", "-p", "udp", "--dport", str(port), "-m", "cgroup", "--path", path]
    done = subprocess.run([program, *rule], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Cannot(f"packets cannot be counted by group: {done.stderr.strip()}")


def send_packets(count: int, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(count):
            sender.sendto(b"hello", ("127.0.0.1", port))


def counted_packets(port: int) -> int:
    """How many packets that rule has counted."""
    program = shutil.which("iptables-nft") or "iptables"
    done = subprocess.run([program, "-L", "OUTPUT", "-vnx"], capture_output=True, text=True,
                          check=True)  # fmt: skip
    return sum(int(line.split()[0]) for line in done.stdout.splitlines() if f"dpt:{port}" in line)
