"""What images may cost: `python -m benchmarks.images_budgets` measures it, side by side.

A round is one shot of each arm, in a random order; a shot is one whole process, from its start to
its end, and what it needs and leaves is made and removed while no clock runs. All arms read the
same files from the page cache, and nothing is waited for to be on the disk, by either side.

unpack    the layer of a Debian image, as a plain, a gzip and a zstd file: our unpacking, which
          checks the digests of the file and of its content, beside `tar -x`
build     a Containerfile of ten steps that were all made before
commit    1 MiB that a container changed, of an image of 10 MiB and of one of 200 MiB
start     `run IMAGE true`, the image having 1 layer and 64
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks import workdir
from benchmarks.command import PATH
from benchmarks.guard import Guard, Rules
from benchmarks.roots import CLONE
from benchmarks.statistics import Summary, ratio, summarize
from benchmarks.version import first_line
from minicontainer.images.store import Store

COMMAND = os.path.join(CLONE, "minicontainer", "minicontainer")
KINDS = ("unpack", "build", "commit", "start")
ROUNDS, SEED = 15, 1
FEWEST = 5  # rounds below which there is no interval
UNPACK = """\
import os, sys
sys.path.insert(0, sys.argv[1])
from minicontainer.images.compression import Plain
from minicontainer.images.unpack import unpack
with open(sys.argv[2], "rb", buffering=0) as file, Plain(file, "layer") as stream:
    unpack(stream, sys.argv[3])
    stream.finish()
"""
CONTAINERFILE = """\
FROM one
ENV A=1 B=2
WORKDIR /app
COPY file /app/
RUN echo 1 > /1
RUN echo 2 > /2
RUN echo 3 > /3
USER 0
EXPOSE 80
CMD ["sh"]
"""


Taken = dict[str, list[float]]  # milliseconds of an arm in each round


@dataclass(frozen=True)
class Budget:
    """`arm` may take `limit` times what `against` takes; or, without one, `limit` milliseconds."""

    arm: str
    limit: float
    against: str = ""


BUDGETS = (
    *(Budget(f"unpack {kind}", 1.3, f"tar -x {kind}") for kind in ("plain", "gzip", "zstd")),
    Budget("build cached", 150),
    Budget("commit of 200 MiB", 1.2, "commit of 10 MiB"),
    Budget("start of 64 layers", 1.2, "start of 1 layer"),
)


@dataclass(frozen=True)
class Arm:
    """A command; `into` is a directory that is empty before each shot, and removed after it."""

    command: list[str]
    into: str = ""


class Scene:
    """What the arms need, in a directory of its own."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.containers: list[str] = []
        self.environment = {
            "PATH": PATH, "LC_ALL": "C", "MINICONTAINER_DATA": f"{directory}/data",
            "HOME": os.environ.get("HOME", "/"),
        }  # fmt: skip

    def make(self, kinds: list[str]) -> dict[str, Arm]:
        """The arms of these KINDS, by name."""
        self.call(COMMAND, "image", "bootstrap", "busybox", "one")
        return {name: arm for kind in kinds for name, arm in getattr(self, f"_{kind}")().items()}

    def close(self) -> None:
        for name in self.containers:
            self.call(COMMAND, "rm", name)

    def call(self, *words: str) -> None:
        done = subprocess.run(
            words, env=self.environment, check=False, stdin=subprocess.DEVNULL,
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{' '.join(words)}: {done.returncode}: {done.stderr.strip()[-500:]}")

    def write(self, name: str, text: str) -> str:
        path = f"{self.directory}/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def _unpack(self) -> dict[str, Arm]:
        store = Store()
        if not store.full_name("debian"):
            self.call(COMMAND, "image", "bootstrap", "debian")
            store = Store(f"{self.directory}/data/images")
        (layer,) = store.image("debian").layers
        plain, into = f"{self.directory}/layer.tar", f"{self.directory}/into"
        with open(plain, "wb") as file:
            subprocess.run(["gzip", "-dc", store.path(layer["digest"])], stdout=file, check=True)
        self.call("gzip", "-k", plain)
        self.call("zstd", "-q", plain)
        arms = {}
        for kind, suffix in (("plain", ""), ("gzip", ".gz"), ("zstd", ".zst")):
            ours = [sys.executable, "-I", "-S", "-c", UNPACK, CLONE, plain + suffix, into]
            theirs = ["tar", "-C", into, "--xattrs", "--numeric-owner", "-xpf", plain + suffix]
            arms[f"unpack {kind}"] = Arm(ours, into)
            arms[f"tar -x {kind}"] = Arm(theirs, into)
        return arms

    def _build(self) -> dict[str, Arm]:
        context = os.path.dirname(self.write("context/Containerfile", CONTAINERFILE))
        self.write("context/file", "content\n")
        command = [COMMAND, "build", "-q", "-t", "app", context]
        self.call(*command)
        return {"build cached": Arm(command)}

    def _commit(self) -> dict[str, Arm]:
        arms = {}
        for size in (10, 200):
            name = f"c{size}"
            self._image(name, f"FROM one\nRUN head -c {size << 20} /dev/urandom > /content\n")
            self.containers.append(name)
            change = "head -c 1048576 /dev/urandom > /change"
            self.call(COMMAND, "run", "--name", name, name, "sh", "-c", change)
            arms[f"commit of {size} MiB"] = Arm([COMMAND, "commit", name, f"{name}-changed"])
        return arms

    def _start(self) -> dict[str, Arm]:
        self._image("many", "FROM one\n" + "".join(f"RUN echo > /{n}\n" for n in range(63)))
        arms = {"start of 1 layer": "one", "start of 64 layers": "many"}
        return {arm: Arm([COMMAND, "run", image, "true"]) for arm, image in arms.items()}

    def _image(self, name: str, containerfile: str) -> None:
        path = self.write(f"{name}/Containerfile", containerfile)
        self.call(COMMAND, "build", "-q", "-t", name, os.path.dirname(path))
        self.call(COMMAND, "run", name, "true")  # unpacks it

    def shoot(self, arm: Arm) -> tuple[float, float]:
        """Milliseconds that the command takes: of time, and of processors by all its processes."""
        if arm.into:
            os.mkdir(arm.into)
        cpu, began = _cpu_s(), time.monotonic_ns()
        self.call(*arm.command)
        took = (time.monotonic_ns() - began) / 1e6, (_cpu_s() - cpu) * 1e3
        if arm.into:
            shutil.rmtree(arm.into)
        return took


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(scene: Scene, arms: dict[str, Arm], rounds: int, seed: int) -> tuple[Taken, Taken, int]:
    """What `shoot` says of each arm in each round, and how many rounds other work disturbed.

    One round before them does not count.
    """
    taken: Taken = {name: [] for name in arms}
    cpu: Taken = {name: [] for name in arms}
    guard, rules, disturbed = Guard(), Rules(), 0
    for number in range(rounds + 1):
        order = list(arms)
        random.Random(f"{seed}/{number}").shuffle(order)
        guard.before_round()
        for name in order:
            if arms[name].into:
                os.sync()  # what the one before left for the disk is not this one's to write
            took, used = scene.shoot(arms[name])
            if number:
                taken[name].append(took)
                cpu[name].append(used)
        disturbed += bool(number and guard.after_round().broken(rules))
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
    return taken, cpu, disturbed


def judged(taken: Taken, seed: int, busy: bool = False) -> Iterator[dict[str, Any]]:
    """For each budget what was measured, with its 95% interval, and the verdict.

    busy  other work had the machine, too: then nothing is said to be too slow
    """
    for budget in BUDGETS:
        if budget.arm not in taken:
            continue
        if budget.against:
            found = ratio(taken[budget.arm], taken[budget.against], seed)
            value, low, high = found.value, found.low, found.high
        else:
            one = summarize(taken[budget.arm], seed)
            value, low, high = one.median, one.low, one.high
        verdict = "not resolved"
        if low is not None and high is not None and not low <= budget.limit < high:
            verdict = "met" if high <= budget.limit else "not met"
        if busy and verdict == "not met":
            verdict = "not resolved"
        yield {**asdict(budget), "value": value, "low": low, "high": high, "verdict": verdict}


def table(summaries: dict[str, Summary], cpu: Taken, budgets: list[dict[str, Any]]) -> str:
    """The figures; processor time beside time, for on a busy machine it is the steadier one."""
    lines = [f"{'arm':20} {'median ms':>10} {'95%':>19} {'n':>4} {'cpu ms':>10}"]
    for name, one in summaries.items():
        lines.append(f"{name:20} {one.median:10.1f} {_span(one.low, one.high, 1):>19} {one.n:4} "
                     f"{statistics.median(cpu[name]):10.1f}")  # fmt: skip
    lines.append("")
    for said in budgets:
        against, unit = said["against"], "" if said["against"] else " ms"
        used = statistics.median(cpu[said["arm"]])
        used = used / statistics.median(cpu[against]) if against else used
        measured = f"{said['value']:.2f}{unit} ({_span(said['low'], said['high'], 2)})"
        lines.append(f"budget {said['verdict']}: {said['arm']}: {measured} "
                     f"{f'× {against}' if against else 'whole process'}, "
                     f"allowed {said['limit']:g}{unit}; of cpu {used:.2f}{unit}")  # fmt: skip
    return "\n".join(lines)


def _span(low: float | None, high: float | None, digits: int) -> str:
    return "too few" if low is None or high is None else f"{low:.{digits}f}–{high:.{digits}f}"


def missing(which: Callable[[str], str | None] = shutil.which) -> str:
    """Why it cannot be measured here, and the fix; or ""."""
    if os.geteuid() != 0:
        return "layers are unpacked with their owners, and devices made: use sudo"
    needs = {"busybox": "busybox-static", "mmdebstrap": "mmdebstrap", "zstd": "zstd", "tar": "tar"}
    lacking = [package for tool, package in needs.items() if not which(tool)]
    return f"apt install {' '.join(lacking)}" if lacking else ""


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.images_budgets")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"{ROUNDS}, if not given")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--json", metavar="FILE", help="write all samples and verdicts there")
    parser.add_argument("--only", choices=KINDS, action="append", help="not all of them (again)")
    options = parser.parse_args(words)
    if options.rounds < FEWEST:
        parser.error(f"--rounds {options.rounds}: {FEWEST} or more, else there is no interval")
    if why := missing():
        print(f"skipped: {why}", file=sys.stderr)
        return 0
    scene = Scene(workdir.storage_directory())
    try:
        arms = scene.make(options.only or list(KINDS))
        taken, cpu, disturbed = measure(scene, arms, options.rounds, options.seed)
    finally:
        try:
            scene.close()
        finally:
            workdir.remove_own()
    budgets = list(judged(taken, options.seed, busy=2 * disturbed > options.rounds))
    summaries = {name: summarize(times, options.seed) for name, times in taken.items()}
    print(table(summaries, cpu, budgets))
    print(f"other work disturbed {disturbed} of {options.rounds} rounds")
    if options.json:
        tools = {tool: first_line(shutil.which(tool) or "") for tool in ("tar", "gzip", "zstd")}
        record = {
            "seed": options.seed,
            "tools": tools,
            "ms": taken,
            "cpu_ms": cpu,
            "disturbed": disturbed,
            "budgets": budgets,
        }
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(record, file, indent=1)
    return 0 if all(one["verdict"] != "not met" for one in budgets) else 1


if __name__ == "__main__":
    sys.exit(main())
