"""Rows of every benchmark with a known truth, for what the report says and how it looks."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from benchmarks import results
from benchmarks.arms.base import Skip
from benchmarks.arms.creation import creation_arms
from benchmarks.rows import Row, RowMaker, Where
from tests.bench_fakes import BUSY, QUIET, FakeArm, write_run

NANO = {"kind": "vm", "tier": "nano", "accel": "kvm (pvm)"}
MICRO = {"kind": "vm", "tier": "micro", "accel": "tcg"}
DIRECT = {"kind": "vm", "tier": "direct", "accel": "tcg"}
FULL = {"kind": "vm", "tier": "full", "accel": "tcg"}


def wobble(ms: float) -> list[float]:
    return [ms * (1 + 0.02 * ((number * 7) % 5 - 2)) for number in range(40)]


def arms(*more: FakeArm) -> list[FakeArm]:
    return [
        FakeArm("fork+exec", *wobble(0.5), kind="process"),
        FakeArm("runc:busybox", *wobble(20)),
        FakeArm("minicontainer-cli:busybox", *wobble(15)),
        FakeArm("minicontainer-library:busybox", *wobble(6)),
        *more,
    ]


def machines() -> list[FakeArm]:
    return [
        FakeArm("vm-nano", *wobble(60), **NANO),
        FakeArm("vm-micro:busybox", *wobble(2300), **MICRO),
    ]


class Writer:
    """Rows of a benchmark other than start."""

    def __init__(self, seed: int = 3) -> None:
        self.make = RowMaker("run", "env")
        self.random = random.Random(seed)

    def row(self, arm: FakeArm, where: Where, bench: str, metric: str, value: float, **more) -> Row:
        row = self.make._row(arm, where)
        row.update(bench=bench, metric=metric, value=value, **more)
        return row

    def rounds(
        self, arm: FakeArm, bench: str, metric: str, value: float, rounds: int = 12, twice=False,
        spread: float = 0.04, **more,
    ) -> Iterator[Row]:  # fmt: skip
        """One value around the true one in each round; twice: the reference, A/A."""
        for number in range(1, rounds + 1):
            for rep in (0, 1) if twice else (0,):
                noisy = value * (1 + self.random.uniform(-spread, spread))
                where = Where(number, self.random.randrange(5), rep)
                yield self.row(arm, where, bench, metric, noisy, **more)


RUNC = FakeArm("runc:busybox")
OURS = FakeArm("minicontainer-cli:busybox")
VM = FakeArm("vm-micro:busybox", **MICRO)
VM_FULL = FakeArm("vm-full:debian", **FULL)
FACTS = (  # name, sentence, direction, (container, machine)
    ("own_kernel", "it runs a kernel of its own", "higher", (0, 1)),
    ("own_root", "its root file system is its own", "higher", (1, 1)),
    ("own_network", "it has network devices of its own", "higher", (1, 1)),
    ("own_pid_1", "its first process is PID 1", "higher", (1, 1)),
    ("host_cpu_model", "it reads the model of the host's CPU", "lower", (1, 0)),
    ("host_load", "it reads the load of the host", "lower", (1, 0)),
)


def every_bench(write: Writer) -> list[Row]:
    """Known: memory 4 and 90 MiB, 1000 containers, 20 machines, snapshots ten times a commit."""
    rows: list[Row] = []
    for arm, size in ((RUNC, 4.0), (OURS, 1.5), (VM, 90.0)):
        for n in (1, 2, 4, 8):
            for what, times in (("mapped", 8), ("rss", 2), ("pss", 1), ("cgroup", 1.2)):
                rows += write.rounds(
                    arm, "memory", f"memory.{what}", size * times, unit="MiB", n_concurrent=n
                )
            free = 16000 - size * n
            rows += write.rounds(
                arm,
                "memory",
                "memory.available",
                free,
                unit="MiB",
                n_concurrent=n,
                spread=1e-4,
                params={"available_before": 16000},
            )
    for arm, ms, count, size in ((RUNC, 25, 1000, 4.0), (VM, 2400, 20, 90.0)):
        for n in range(0, count, max(1, count // 60)):
            value = ms * (1 + n / 5000)
            where = Where(1, 0, 0)
            rows.append(write.row(arm, where, "density", "density.start", value, n_concurrent=n))
            rows.append(
                write.row(
                    arm, where, "density", "density.available", 16000 - size * n, unit="MiB",
                    n_concurrent=n,
                )
            )  # fmt: skip
        rows.append(
            write.row(
                arm, where, "density", "density.available", 16000 - size * count, unit="MiB",
                n_concurrent=count, params={"stopped": f"there were {count}"},
            )
        )  # fmt: skip
    for arm, ms in ((RUNC, 40), (OURS, 30), (VM, 3000)):
        twice = arm is RUNC
        rows += write.rounds(arm, "ready", "start.ready_ip", ms, net_mode="bridge", twice=twice)
        rows += write.rounds(arm, "stop", "stop.teardown", ms / 2, twice=twice)
    for metric, ms, arm in (
        ("commit", 50, OURS), ("clone", 3, OURS), ("revert", 4, OURS), ("commit", 500, VM_FULL),
        ("clone", 30, VM_FULL), ("revert", 40, VM_FULL), ("snapshot", 60, VM_FULL),
    ):  # fmt: skip
        rows += write.rounds(arm, "images", f"images.{metric}", ms)
    for arm, unique, shared in ((OURS, 2, 80), (VM_FULL, 30, 900)):
        rows += write.rounds(arm, "images", "images.unique", unique, unit="MiB")
        rows += write.rounds(arm, "images", "images.shared", shared, unit="MiB")
    for arm, machine in ((RUNC, 0), (OURS, 0), (VM, 1)):
        for name, sentence, direction, answers in FACTS:
            params = {"fact": sentence, "how": "read in /proc", "seen": f"seen by {arm.name}"}
            rows.append(
                write.row(
                    arm, Where(1, 0, 0), "isolation", f"isolation.{name}", answers[machine],
                    unit="fact", direction=direction, params=params,
                )
            )  # fmt: skip
        params = {"fact": "system calls that reach the host", "how": "tried", "seen": ""}
        rows.append(
            write.row(
                arm, Where(1, 0, 0), "isolation", "isolation.host_calls", 40 if machine else 310,
                unit="calls", params=params,
            )
        )  # fmt: skip
    for one in creation_arms():  # the names are those of the real arms
        ms = {"driver": 103, "createXML": 100, "QEMU": 90}[one.how]
        creation = FakeArm(one.name, kind="vm", tier="nano", accel="tcg")
        twice = one.how == "QEMU"
        rows += write.rounds(creation, "libvirt", "libvirt.create", ms, spread=0.005, twice=twice)
    for arm, value in ((RUNC, 990), (VM, 160)):
        rows += write.rounds(
            arm, "cpu", "cpu.sysbench.events", value, unit="events/s", direction="higher",
            twice=arm is RUNC,
        )  # fmt: skip
    for bench, metric, unit, direction, values in (
        ("disk", "fio.read_4k_qd1", "IOPS", "higher", (12000, 2900)),
        ("network", "qperf.tcp_latency", "ns", "lower", (12000, 112000)),
        ("application", "redis.get", "requests/s", "higher", (48000, 5200)),
    ):
        for arm, value in zip((RUNC, VM), values, strict=True):
            rows += write.rounds(
                arm, bench, f"{bench}.{metric}", value, unit=unit, direction=direction,
                twice=arm is RUNC,
            )  # fmt: skip
    for arm, ms in ((RUNC, 80), (OURS, 160), (VM, 4000)):
        rows += write.rounds(
            arm, "start", "start.first_instruction", ms, cache_state="cold", twice=arm is RUNC
        )
    skip = write.make.skip(FakeArm("crun:busybox"), Skip("hybrid cgroups", "boot with v2"))
    rows.append({**skip, "bench": "memory", "metric": "memory.pss", "unit": "MiB"})
    return rows


def full_run(directory: Path, rounds: int = 12) -> str:
    """A run with every benchmark."""
    write_run(directory, arms(*machines()), rounds, QUIET, BUSY, QUIET)
    results.append(str(directory), every_bench(Writer()))
    return str(directory)


def run_of(
    directory: Path, run_id: str, ours: float = 1.0, *, machine: str = "a CPU", **more
) -> str:
    """A run in which our arms take `ours` times as long as in `arms()`, whatever `more` says of
    rounds, seed and `slow`: how much slower the whole machine is.
    """
    slow, rounds, seed = more.get("slow", 1.0), more.get("rounds", 20), more.get("seed", 1)
    noise = random.Random(seed)
    timed = []
    for arm in arms():
        times = ours if arm.name.startswith("minicontainer") else 1.0
        timed.append(
            FakeArm(
                arm.name,
                *(ms * slow * times * noise.uniform(0.97, 1.03) for ms in arm.ms),
                kind=arm.kind,
            )
        )
    write_run(directory, timed, rounds, seed=seed)
    samples = directory / results.SAMPLES
    samples.write_text(samples.read_text().replace('"run_id": "run"', f'"run_id": "{run_id}"'))
    environment = results.read_json(str(directory), "environment.json")
    environment["cpu"]["model"] = machine
    results.write_json(str(directory), "environment.json", environment)
    return str(directory)
