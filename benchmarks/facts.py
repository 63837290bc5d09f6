"""What a process in an arm sees and reaches of its host: asked inside, looked up outside, compared
with what the host says of itself.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from benchmarks.footprint import processes
from benchmarks.held import Held

# One line each, NAME, a tab, what was seen. Nothing in it changes the host: a value is written back
# as it was read, one byte of a disk is read.
SCRIPT = r"""
PATH=$PATH:/bin:/sbin:/usr/bin
f() { printf '%s\t%s\n' "$1" "$(echo $2)"; }
r() { cat "$1" 2>/dev/null; }
f hostname "$(uname -n)"
f release "$(uname -r)"
f boot "$(r /proc/sys/kernel/random/boot_id)"
f uptime "$(r /proc/uptime)"
f loadavg "$(r /proc/loadavg)"
f memory "$(grep MemTotal /proc/meminfo 2>/dev/null)"
f cpu "$(grep -m1 'model name' /proc/cpuinfo 2>/dev/null)"
f command_line "$(r /proc/cmdline)"
f harness "$(r /proc/HARNESS/stat)"
f processes "$(ls -d /proc/[0-9]* 2>/dev/null | wc -l)"
where=/proc/self/mountinfo
# But for devices that are bound one by one, where mknod is refused.
own='^/dev/(null|zero|full|random|urandom|tty)$'
fields='!/ - cgroup/ && $5 !~ own { print $3 "," $4 "," $5 }'
f mounts "$(awk -v own="$own" "$fields" $where 2>/dev/null)"
f disks "$(awk 'NR > 2 { print $4 }' /proc/partitions 2>/dev/null)"
file=/proc/sys/vm/swappiness
{ old=$(cat $file) && echo "$old" >$file; } 2>/dev/null && f proc_sys written || f proc_sys refused
node=/tmp/.bench-$$
{ mknod $node b MAJOR MINOR && f disk_bytes "$(head -c 1 $node | wc -c)"; } 2>/dev/null
rm -f $node
PROBE ask
true
"""

NAMESPACES = {
    "mnt": ("mounts", "It has mounts of its own."),
    "pid": ("processes", "It numbers its processes itself."),
    "net": ("network", "It has network devices and ports of its own."),
    "ipc": ("ipc", "It has System V and POSIX queues of its own."),
    "uts": ("hostname", "It has a host name of its own."),
    "user": ("users", "Its users are not the host's."),
    "cgroup": ("cgroup_view", "It sees its own cgroup as the topmost."),
    "time": ("boot_clock", "It has a boot-time clock of its own."),
}
# Of `probe ask`: what was asked for, and the fact that it was permitted.
ASKED = {
    "settimeofday": ("set_clock", "It may set the host's clock."),
    "init_module": ("load_modules", "It may load modules into the host's kernel."),
    "kexec_load": ("replace_kernel", "It may load another kernel for the host to boot."),
    "swapon": ("add_swap", "It may give the host swap space."),
    "fsopen": ("mount", "It may mount file systems with the host's kernel."),
    "syslog": ("kernel_log", "It reads the host's kernel log."),
    "bpf": ("load_bpf", "It may load BPF programs into the host's kernel."),
    "io_uring_setup": ("io_uring", "It may use the host's io_uring."),
    "ioperm": ("io_ports", "It may use the host's I/O ports."),
    "unshare": ("new_user_namespace", "It may make user namespaces in the host's kernel."),
}
EPERM, ENOSYS = 1, 38
REFUSED = {EPERM, ENOSYS}
LEAKS = {
    "release": ("host_kernel_version", "It reads the version of the host's kernel."),
    "cpu": ("host_cpu_model", "It reads the model of the host's CPU."),
    "memory": ("host_memory_size", "It reads how much memory the host has."),
    "command_line": ("host_command_line", "It reads the command line of the host's kernel."),
}
UPTIME_S, LOAD = 120.0, 0.5  # nearer to the host's is the host's


@dataclass(frozen=True)
class Fact:
    """name: after "isolation.". better: whether isolation is better where it is so."""

    name: str
    so: bool
    text: str
    how: str
    seen: str
    better: bool = False


def script(probe: str = "/probe") -> str:
    """SCRIPT, with what it looks for on this host. probe: where it is."""
    with open("/proc/partitions", encoding="ascii") as file:
        disks = [line.split() for line in file.readlines()[2:]]
    # The first that has a size: a machine's main disk. Without any there is nothing to be read.
    major, minor = next(((disk[0], disk[1]) for disk in disks if disk[2] != "0"), ("0", "0"))
    text = SCRIPT.replace("HARNESS", str(os.getpid())).replace("PROBE", probe)
    return text.replace("MAJOR", major).replace("MINOR", minor)


def parsed(said: str) -> dict[str, str]:
    """What SCRIPT printed, by name."""
    lines = [line.partition("\t") for line in said.splitlines()]
    return {name: seen.strip() for name, tab, seen in lines if tab}


def answers(said: str) -> dict[str, int]:
    """The errno of each call that the probe asked for, 0 where it was permitted."""
    lines = [line.split() for line in said.splitlines() if line.startswith("ask ")]
    return {line[1]: int(line[2]) for line in lines}


def inside(
    seen: dict[str, str], asked: dict[str, int], host: dict[str, str], own_kernel: bool
) -> list[Fact]:
    """What was found out inside; `host`: what the same script says on the host."""
    how = "read inside, compared with the host"

    def same(name: str) -> bool:
        return bool(seen.get(name)) and seen[name] == host[name]

    mounts = set(seen.get("mounts", "").split()) & set(host["mounts"].split())
    # Its number may be another process's there: name and start time tell.
    harness = _identity(seen.get("harness", "")) == _identity(host["harness"])
    disks = sorted(set(seen.get("disks", "").split()) & set(host["disks"].split()))
    facts = [
        Fact("sees_host_name", same("hostname"), "It sees the host's name.", how, seen["hostname"]),
        Fact(
            "sees_host_processes", harness, "It sees the host's processes.",
            "a process of the host looked for in /proc", f"{seen.get('processes')} processes",
        ),
        Fact(
            "sees_host_mounts", bool(mounts) and not own_kernel, "It sees mounts of the host.",
            "/proc/self/mountinfo, same device at the same place", " ".join(sorted(mounts)[:8]),
        ),
        Fact(
            "sees_host_disks", bool(disks) and not own_kernel, "It sees the host's disks.",
            "/proc/partitions", " ".join(disks) or "none of them",
        ),
        Fact(
            "reads_host_disk", seen.get("disk_bytes") == "1" and not own_kernel,
            "It can read the host's disk.", "mknod(2) with its number, one byte read",
            {"1": "it was read", "0": "it was refused"}.get(
                seen.get("disk_bytes", ""), "no device node could be made"
            ),
        ),
        Fact(
            "writes_proc_sys", seen.get("proc_sys") == "written" and not own_kernel,
            "It may change the host's kernel parameters.",
            "vm.swappiness written back as it was read", seen.get("proc_sys", ""),
        ),
        Fact(
            "host_uptime", _near(seen, host, "uptime", UPTIME_S), "It reads the host's uptime.",
            "/proc/uptime, within two minutes", seen.get("uptime", ""),
        ),
        Fact(
            "host_load", _near(seen, host, "loadavg", LOAD) and not own_kernel,
            "It reads the host's load average.", "/proc/loadavg", seen.get("loadavg", ""),
        ),
    ]  # fmt: skip
    facts += [Fact(name, same(key), text, how, seen.get(key, "")) for key, (name, text)
              in LEAKS.items()]  # fmt: skip
    return [*facts, *_permitted(asked, own_kernel)]


def _permitted(asked: dict[str, int], own_kernel: bool) -> list[Fact]:
    facts = []
    for call, (name, text) in ASKED.items():
        error = asked.get(call, ENOSYS)
        seen = "permitted" if error not in REFUSED else os.strerror(error)
        whom = " by its own kernel" if own_kernel else ""
        facts.append(
            Fact(
                name, error not in REFUSED and not own_kernel, text,
                f"{call}(2) asked in a way that changes nothing", seen + whom,
            )
        )  # fmt: skip
    return facts


def _identity(stat: str) -> tuple[str, ...]:
    """Name and start time, proc_pid_stat(5)."""
    words = stat.split()
    return (words[1], words[21]) if len(words) > 21 else (stat,)


def _near(seen: dict[str, str], host: dict[str, str], name: str, difference: float) -> bool:
    if not seen.get(name):
        return False
    return abs(float(seen[name].split()[0]) - float(host[name].split()[0])) < difference


def outside(one: Held, own_kernel: bool) -> list[Fact]:
    """What the host's kernel says of an instance: of its payload, or of the process around it."""
    pid = one.payload() or min(processes([one])[one])
    facts = [
        Fact(
            f"own_{name}", own_kernel or _namespace(pid, kind) != _namespace("self", kind), text,
            "its own kernel" if own_kernel else f"/proc/PID/ns/{kind} from the host",
            _namespace(pid, kind), better=True,
        )
        for kind, (name, text) in NAMESPACES.items()
    ]  # fmt: skip
    root = os.stat(f"/proc/{pid}/root")
    ours = os.stat("/")
    status = _status(pid)
    numbers = status.get("NSpid", "").split()
    uid = status["Uid"].split()[1]
    return [
        *facts,
        Fact(
            "own_root", own_kernel or (root.st_dev, root.st_ino) != (ours.st_dev, ours.st_ino),
            "It has a root file system of its own.", "/proc/PID/root from the host",
            f"device {root.st_dev}, inode {root.st_ino}", better=True,
        ),
        Fact(
            "own_pid_1", own_kernel or numbers[-1:] == ["1"], "It is process 1 of its system.",
            "NSpid in /proc/PID/status from the host", " ".join(numbers), better=True,
        ),
        Fact(
            "host_root", uid == "0", "To the host's kernel it is the user root.",
            "Uid in /proc/PID/status from the host",
            f"user {uid}" + (" (of QEMU, the process around it)" if own_kernel else ""),
        ),
    ]  # fmt: skip


def _namespace(pid: int | str, kind: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except FileNotFoundError:
        return "none in this kernel"


def _status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
