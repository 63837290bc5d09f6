"""The run itself: rounds of one sample of every arm, each in a fresh random order.

Round 0 warms everything up, shows by doing which arms run here (the others become skip rows with
reason and fix), and gives the costs from which the number of rounds is fixed. It is written, and
discarded by the analysis.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import asdict

from benchmarks.arms.base import Arm, ArmFailed, Skip
from benchmarks.benches.base import Bench
from benchmarks.benches.start import BENCH as START
from benchmarks.guard import Guard, Rules
from benchmarks.plan import Plan
from benchmarks.progress import Progress
from benchmarks.rows import Row, RowMaker, Where

Write = Callable[[list[Row]], None]


def prepare(
    arms: list[Arm], say: Callable[[str], None], bench: Bench = START
) -> tuple[list[Arm], dict[str, Skip]]:
    """Prepare every arm. Returns those that may run, and why the others cannot."""
    ready, skips = [], {}
    for arm in arms:
        skip = bench.unavailable(arm)
        if skip is None:
            say(f"prepare {arm.name}")
            try:
                arm.prepare()
                skip = bench.left_out(arm)
            except (ArmFailed, OSError) as failure:
                skip = Skip(str(failure), arm.fix_for(str(failure)))
            if skip is not None:
                arm.close()
        if skip is None:
            ready.append(arm)
        else:
            skips[arm.name] = skip
    return ready, skips


def round_zero(
    arms: list[Arm],
    order: list[str],
    make: RowMaker,
    say: Callable[[str], None],
    bench: Bench = START,
) -> tuple[dict[str, float], dict[str, Skip], list[Row]]:
    """One sample of every arm: (seconds of those that work, skips of those that do not, the
    warm-up rows).
    """
    by_name = {arm.name: arm for arm in arms}
    seconds: dict[str, float] = {}
    skips: dict[str, Skip] = {}
    rows: list[Row] = []
    for position, name in enumerate(order):
        say(f"warm-up {name}")
        began = time.monotonic()
        try:
            rows += bench.sample(by_name[name], Where(0, position, 0, warmup=True), make)
        except ArmFailed as failure:
            skips[name] = Skip(str(failure), by_name[name].fix_for(str(failure)))
            by_name[name].close()
            continue
        seconds[name] = time.monotonic() - began
    return seconds, skips, rows


def run_rounds(
    arms: list[Arm],
    plan: Plan,
    make: RowMaker,
    write: Write,
    *,
    first: int = 1,
    before: int = 0,
    bench: Bench = START,
    guard: Guard | None = None,
    progress: Progress | None = None,
) -> None:
    """Shoot rounds first..plan.rounds; each round's rows go to `write` when it is complete.

    before: rounds that other benchmarks of the same run had: rounds are numbered through the run.
    """
    guard = guard or Guard()
    rules = Rules()
    by_name = {arm.name: arm for arm in arms}
    done_s = 0.0
    if progress:
        progress.start(plan.expected_s(first))
    for number in range(first, plan.rounds + 1):
        rows: list[Row] = []
        guard.before_round()
        for position, (name, rep, traced) in enumerate(plan.order(number)):
            if progress:
                progress.update(done_s, f"{make.bench} {number}/{plan.rounds}  {name}")
            where = Where(before + number, position, rep, traced=traced)
            rows += _one(bench, by_name[name], where, make)
            done_s += plan.seconds[name]
        reading = guard.after_round()
        broken = reading.broken(rules)
        rows += make.guard(before + number, False, asdict(reading))
        for row in rows:
            row["contaminated"] = bool(broken)
        write(rows)
        gc.collect()
    if progress:
        progress.finish()


def _one(bench: Bench, arm: Arm, where: Where, make: RowMaker) -> list[Row]:
    try:
        return list(bench.sample(arm, where, make))
    except ArmFailed as failure:
        return [make.error(arm, where, str(failure))]
