"""One run from its first check to its last row. For each benchmark of it: prepare, round 0, the
fixed plan, the rounds, and the way back.
"""

from __future__ import annotations

import datetime
import fnmatch
import gc
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from types import FrameType
from typing import Any

from benchmarks import benches, environment, results
from benchmarks.arms.base import Arm, ArmFailed, Skip
from benchmarks.benches.base import Bench, Size
from benchmarks.benches.start import BENCH as START
from benchmarks.channels import channel_costs
from benchmarks.guard import Rules
from benchmarks.lock import alone
from benchmarks.plan import Plan
from benchmarks.progress import Progress, clock
from benchmarks.rounds import prepare, round_zero, run_rounds
from benchmarks.rows import Row, RowMaker
from benchmarks.workdir import remove_own

BUDGET_S = 120.0
QUICK_S = 110.0  # with what comes before the rounds, three minutes


class UsageError(Exception):
    """What was asked for cannot be: exit code 2."""


@dataclass(frozen=True)
class Request:
    """What the command line asks of a run. budget_s bounds the rounds of all benchmarks together
    (not the preparation); None is no bound.
    """

    out: str = "results"
    arms: str = ""
    seed: int | None = None
    rounds: int | None = None
    budget_s: float | None = BUDGET_S
    benches: tuple[str, ...] = ("start",)
    quick: bool = False
    reference: str = ""


@dataclass(frozen=True)
class Part:
    """One benchmark of a run, and those of its arms that were asked for."""

    bench: Bench
    arms: list[Arm]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def choose(benches: Iterable[Bench], patterns: str, quick: bool = False) -> list[Part]:
    """Each benchmark with its arms that match names or globs, comma-separated ('' is all); those
    without any are left out. Raises UsageError for a pattern that nothing matches.
    """
    words = [word for word in (word.strip() for word in patterns.split(",")) if word]
    parts, known = [], []
    for bench in benches:
        arms = bench.arms(quick)
        known += [arm.name for arm in arms]
        found = [[arm for arm in arms if fnmatch.fnmatchcase(arm.name, word)] for word in words]
        chosen = list(dict.fromkeys(itertools.chain(*found))) if words else arms
        if chosen:
            parts.append(Part(bench, chosen))
    for word in words:
        if not fnmatch.filter(known, word):
            names = ", ".join(dict.fromkeys(known))
            raise UsageError(f"no arm is called {word!r}; there are: {names}")
    return parts


@contextmanager
def prepared(
    arms: list[Arm], bench: Bench = START, size: Size | None = None
) -> Iterator[tuple[list[Arm], dict[str, Skip]]]:
    """The arms that may run, and the skips; everything is undone at the end, Ctrl-C or SIGTERM
    included.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    terminate = signal.signal(signal.SIGTERM, interrupt)
    try:
        bench.prepare(size or Size())
        yield prepare(arms, say, bench)
    finally:
        # A second Ctrl-C or SIGTERM must not cut the clean-up short.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ctrl_c = signal.signal(signal.SIGINT, signal.SIG_IGN)
        for arm in arms:
            _close(arm)
        _close(bench)
        remove_own()
        signal.signal(signal.SIGINT, ctrl_c)
        signal.signal(signal.SIGTERM, terminate)


def _close(one: Arm | Bench) -> None:
    """One arm that cannot be undone must not keep the others from it."""
    try:
        one.close()
    except (ArmFailed, OSError, subprocess.SubprocessError) as failure:
        say(f"{one.name} could not be cleaned up ({failure}); later: python -m benchmarks clean")


def new_run(request: Request, parts: list[Part]) -> str:
    """A whole run; returns its directory. Raises UsageError."""
    known = {arm.name for part in parts for arm in part.arms}
    if request.reference and request.reference not in known:
        raise UsageError(f"no arm of this run is called {request.reference!r} (--reference)")
    seed = random.SystemRandom().randrange(2**32) if request.seed is None else request.seed
    with alone(say):
        run_id = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ") + f"-{seed:x}"
        directory = os.path.join(request.out, run_id)
        os.makedirs(directory)
        names = tuple(part.bench.name for part in parts)
        record: dict[str, Any] = {
            "seed": seed, "rules": asdict(Rules()), "plans": {},
            "request": asdict(replace(request, benches=names)),
        }  # fmt: skip
        try:
            with _says_how_to_go_on(directory):
                results.write_json(directory, "plan.json", record)
                measured = [_measure(directory, record, part) for part in parts]
            if not any(measured):
                raise results.ResultsError("no arm runs on this host; the reasons are above")
        finally:
            if not results.begun(directory):
                shutil.rmtree(directory)  # nothing was measured: leave nothing
    return directory


def resume(directory: str, parts: Callable[[Iterable[str], str, bool], list[Part]]) -> str:
    """Go on with an interrupted run at the first round that is not whole. Its plans are kept; a
    benchmark that it had not come to begins.

    parts: as `choose`, of names of benchmarks, patterns of arms, and whether the run is a quick one
    """
    record = results.read_json(directory, "plan.json")
    results.read_rows(directory)  # refuses rows that this version could not go on with
    if "plans" not in record:
        raise results.ResultsError(f"{directory}: an earlier version's run; it can be reported")
    with alone(say), _says_how_to_go_on(directory):
        next_round = results.discard_incomplete_round(directory, _planned(record))
        request = record["request"]
        for part in parts(request["benches"], request["arms"], request["quick"]):
            stored = record["plans"].get(part.bench.name)
            if stored is None:
                _measure(directory, record, part)
                continue
            plan = Plan(**stored["plan"])
            lost = set(plan.shots) - {arm.name for arm in part.arms}
            if lost:
                raise results.ResultsError(
                    f"{directory} was run with arms unknown here: {sorted(lost)}"
                )
            if next_round <= stored["before"] + plan.rounds:
                first = max(1, next_round - stored["before"])
                _go_on(directory, part, plan, stored["before"], first)
    say(f"{directory} is complete")
    return directory


def _planned(record: dict[str, Any]) -> dict[int, set[tuple[str, int]]]:
    """For each round of the run, numbered through all benchmarks, what is shot in it."""
    return {
        stored["before"] + number: {(arm, rep) for arm, rep, _ in plan.order(number)}
        for stored in record["plans"].values()
        for plan in [Plan(**stored["plan"])]
        for number in range(1, plan.rounds + 1)
    }


def _size(record: dict[str, Any], bench: Bench) -> Size:
    """This benchmark's share of what was asked for."""
    request = record["request"]
    budget_s = request["budget_s"]
    if budget_s is not None:
        weights = [benches.bench(name).weight for name in request["benches"]]
        budget_s *= bench.weight / sum(weights)
    return Size(request["quick"], request["rounds"], budget_s, request.get("reference", ""))


def _measure(directory: str, record: dict[str, Any], part: Part) -> bool:
    """One benchmark from its beginning; whether any arm takes part."""
    bench, arms, seed = part.bench, part.arms, record["seed"]
    size = _size(record, bench)
    with prepared(arms, bench, size) as (ready, skips):
        make = _row_maker(directory, arms).of(bench)
        names = [arm.name for arm in ready]
        random.Random(f"{seed}/0").shuffle(names)
        seconds, failed, rows = round_zero(ready, names, make, say, bench)
        skips |= failed
        rows += [make.skip(arm, skips[arm.name]) for arm in arms if arm.name in skips]
        results.append(directory, rows)
        _say_skips(skips)
        if not seconds:
            say(f"{bench.name}: no arm can take part")
            return False
        ready = [arm for arm in ready if arm.name in seconds]
        traced = [arm.name for arm in ready if bench.traced and _traces(arm)]
        plan = bench.plan(seconds, seed, size, traced)
        before = len(_planned(record))
        record["plans"][bench.name] = {"before": before, "plan": plan.record()}
        # The headline's, for those who know of one benchmark only.
        record["plan"] = next(iter(record["plans"].values()))["plan"]
        results.write_json(directory, "plan.json", record)
        _say_plan(bench, plan, directory)
        _shoot(directory, Part(bench, ready), plan, make, before, 1)
    return True


def _go_on(directory: str, part: Part, plan: Plan, before: int, first: int) -> None:
    bench = part.bench
    arms = [arm for arm in part.arms if arm.name in plan.shots]
    with prepared(arms, bench) as (ready, skips):
        make = _row_maker(directory, arms).of(bench)
        rows: list[Row] = []
        if not skips:
            # Warm again what the interruption let go cold; written as warm-up, like the first time.
            _, skips, rows = round_zero(ready, [arm.name for arm in ready], make, say, bench)
        if skips:
            name, skip = next(iter(skips.items()))
            raise results.ResultsError(f"cannot resume: {name}: {skip.reason} ({skip.fix})")
        results.append(directory, rows)
        say(f"going on with {bench.name} at round {first} of {plan.rounds}")
        _shoot(directory, part, plan, make, before, first)


def _traces(arm: Arm) -> bool:
    return type(arm).shoot_traced is not Arm.shoot_traced


def _row_maker(directory: str, arms: list[Arm]) -> RowMaker:
    """Writes the environment record and measures the channels on the way."""
    run_id = os.path.basename(os.path.normpath(directory))
    env = environment.record(arms)
    costs = channel_costs()
    name = "environment.json"
    if os.path.exists(os.path.join(directory, name)):  # resumed
        first = results.read_json(directory, name)
        # Which accelerators: of the arms of one benchmark of several.
        same = ("env_id", "accelerators")
        changed = [key for key in env if env[key] != first.get(key) and key not in same]
        if not changed:
            env = first
        else:
            say(f"not the host that the run began on: {', '.join(changed)} changed")
            name = f"environment.{env['env_id']}.json"
    if not os.path.exists(os.path.join(directory, name)):
        results.write_json(directory, name, {**env, "channel_costs_us": costs})
    return RowMaker(run_id, env["env_id"], costs)


def _shoot(directory: str, part: Part, plan: Plan, make: RowMaker, before: int, first: int) -> None:
    gc.collect()
    gc.freeze()  # what exists now lives to the end: no later collection looks at it
    run_rounds(
        part.arms,
        plan,
        make,
        lambda rows: results.append(directory, rows),
        first=first,
        before=before,
        bench=part.bench,
        progress=Progress(),
    )


@contextmanager
def _says_how_to_go_on(directory: str) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, OSError):
        if results.begun(directory):
            say(f"\nstopped early; the whole rounds are in {directory}; go on with:")
            say(f"  python -m benchmarks run --resume {directory}")
        raise


def _say_skips(skips: dict[str, Skip]) -> None:
    for name, skip in skips.items():
        say(f"skip {name}: {skip.reason}")
        say(f"     fix: {skip.fix or 'unknown'}")


def _say_plan(bench: Bench, plan: Plan, directory: str) -> None:
    twice = f", reference {plan.reference} (twice: A/A)" if plan.reference else ""
    say(f"{bench.name}: {plan.rounds} rounds, seed {plan.seed}{twice}")
    for arm, shots in plan.shots.items():
        say(f"  {arm:<32} {shots:3d} samples of {plan.seconds[arm] * 1000:8.1f} ms")
    say(f"expected to take {clock(plan.expected_s())} (minutes:seconds), into {directory}")


def status(part: Part) -> list[dict[str, Any]]:
    """For each arm whether it can take part here, by doing: prepare and one sample."""
    facts = []
    with prepared(part.arms, part.bench) as (ready, skips):
        make = RowMaker("doctor", "").of(part.bench)
        names = [arm.name for arm in ready]
        seconds, failed, _ = round_zero(ready, names, make, lambda _: None, part.bench)
        skips |= failed
        for arm in part.arms:
            skip = skips.get(arm.name)
            facts.append(
                {
                    "bench": part.bench.name,
                    "arm": arm.name,
                    "kind": arm.kind,
                    "accel": arm.accel,
                    "runs": skip is None,
                    "seconds": seconds.get(arm.name),
                    "reason": skip.reason if skip else "",
                    "fix": skip.fix if skip else "",
                }
            )
    return facts
