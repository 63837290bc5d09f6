"""One run from its first check to its last row: prepare, round 0, the fixed plan, the rounds, and
the way back.
"""

from __future__ import annotations

import datetime
import fnmatch
import gc
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

from benchmarks import environment, results
from benchmarks.arms.base import Arm, ArmFailed, Skip
from benchmarks.channels import channel_costs
from benchmarks.guard import Rules
from benchmarks.plan import Plan, make_plan
from benchmarks.progress import Progress, clock
from benchmarks.rounds import prepare, round_zero, run_rounds
from benchmarks.rows import RowMaker
from benchmarks.workdir import remove_own

BUDGET_S = 120.0


class UsageError(Exception):
    """What was asked for cannot be: exit code 2."""


@dataclass(frozen=True)
class Request:
    """What the command line asks of a run. budget_s bounds the rounds (not the preparation)."""

    out: str = "results"
    arms: str = ""
    seed: int | None = None
    rounds: int | None = None
    budget_s: float = BUDGET_S


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def choose(arms: list[Arm], patterns: str) -> list[Arm]:
    """The arms that match names or globs, comma-separated ('' is all). Raises UsageError."""
    if not patterns:
        return arms
    chosen: list[Arm] = []
    for pattern in filter(None, (word.strip() for word in patterns.split(","))):
        found = [arm for arm in arms if fnmatch.fnmatchcase(arm.name, pattern)]
        if not found:
            names = ", ".join(arm.name for arm in arms)
            raise UsageError(f"no arm is called {pattern!r}; there are: {names}")
        chosen += [arm for arm in found if arm not in chosen]
    return chosen


@contextmanager
def prepared(arms: list[Arm]) -> Iterator[tuple[list[Arm], dict[str, Skip]]]:
    """The arms that may run, and the skips; everything is undone at the end, Ctrl-C or SIGTERM
    included.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    terminate = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield prepare(arms, say)
    finally:
        # A second Ctrl-C or SIGTERM must not cut the clean-up short.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ctrl_c = signal.signal(signal.SIGINT, signal.SIG_IGN)
        for arm in arms:
            _close(arm)
        remove_own()
        signal.signal(signal.SIGINT, ctrl_c)
        signal.signal(signal.SIGTERM, terminate)


def _close(arm: Arm) -> None:
    """One arm that cannot be undone must not keep the others from it."""
    try:
        arm.close()
    except (ArmFailed, OSError, subprocess.SubprocessError) as failure:
        say(f"{arm.name} could not be cleaned up ({failure}); later: python -m benchmarks clean")


def new_run(request: Request, arms: list[Arm]) -> str:
    """A whole run; returns its directory."""
    seed = random.SystemRandom().randrange(2**32) if request.seed is None else request.seed
    run_id = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ") + f"-{seed:x}"
    directory = os.path.join(request.out, run_id)
    os.makedirs(directory)
    try:
        return _run_in(directory, request, seed, arms)
    finally:
        samples = os.path.join(directory, results.SAMPLES)
        if not os.path.exists(samples) or os.path.getsize(samples) == 0:
            shutil.rmtree(directory)  # nothing was measured: leave nothing


def _run_in(directory: str, request: Request, seed: int, arms: list[Arm]) -> str:
    run_id = os.path.basename(directory)
    with prepared(arms) as (ready, skips):
        make = _row_maker(directory, run_id, arms)
        names = [arm.name for arm in ready]
        random.Random(f"{seed}/0").shuffle(names)
        seconds, failed, rows = round_zero(ready, names, make, say)
        skips |= failed
        rows += [make.skip(arm, skips[arm.name]) for arm in arms if arm.name in skips]
        results.append(directory, rows)
        _say_skips(skips)
        if not seconds:
            raise results.ResultsError("no arm runs on this host; the reasons are above")
        ready = [arm for arm in ready if arm.name in seconds]
        plan = make_plan(
            seconds,
            seed=seed,
            rounds=request.rounds,
            budget_s=request.budget_s,
            traced=[arm.name for arm in ready if _traces(arm)],
        )
        record = {"plan": plan.record(), "rules": asdict(Rules()), "request": asdict(request)}
        results.write_json(directory, "plan.json", record)
        _say_plan(plan, directory)
        _shoot(directory, ready, plan, make, 1)
    return directory


def resume(directory: str, arms: list[Arm]) -> str:
    """Go on with an interrupted run at the first round that is not whole. Its plan is kept."""
    stored = results.read_json(directory, "plan.json")
    results.read_rows(directory)  # refuses rows that this version could not go on with
    plan = Plan(**stored["plan"])
    arms = [arm for arm in arms if arm.name in plan.shots]
    lost = set(plan.shots) - {arm.name for arm in arms}
    if lost:
        raise results.ResultsError(f"{directory} was run with arms unknown here: {sorted(lost)}")
    whole = {
        number: {(arm, rep) for arm, rep, _ in plan.order(number)}
        for number in range(1, plan.rounds + 1)
    }
    first = results.discard_incomplete_round(directory, whole)
    if first > plan.rounds:
        say(f"{directory} is complete: {plan.rounds} rounds")
        return directory
    with prepared(arms) as (ready, skips):
        if skips:
            name, skip = next(iter(skips.items()))
            raise results.ResultsError(f"cannot resume: {name}: {skip.reason} ({skip.fix})")
        make = _row_maker(directory, os.path.basename(os.path.normpath(directory)), arms)
        # Warm again what the interruption let go cold; written as warm-up, like the first time.
        _, failed, rows = round_zero(ready, [arm.name for arm in ready], make, say)
        if failed:
            name, skip = next(iter(failed.items()))
            raise results.ResultsError(f"cannot resume: {name}: {skip.reason} ({skip.fix})")
        results.append(directory, rows)
        say(f"going on at round {first} of {plan.rounds}")
        _shoot(directory, ready, plan, make, first)
    return directory


def _traces(arm: Arm) -> bool:
    return type(arm).shoot_traced is not Arm.shoot_traced


def _row_maker(directory: str, run_id: str, arms: list[Arm]) -> RowMaker:
    """Writes the environment record and measures the channels on the way."""
    env = environment.record(arms)
    costs = channel_costs()
    name = "environment.json"
    if os.path.exists(os.path.join(directory, name)):  # resumed
        first = results.read_json(directory, name)
        changed = [key for key in env if env[key] != first.get(key) and key != "env_id"]
        if changed:
            say(f"not the host that the run began on: {', '.join(changed)} changed")
            name = f"environment.{env['env_id']}.json"
    if not os.path.exists(os.path.join(directory, name)):
        results.write_json(directory, name, {**env, "channel_costs_us": costs})
    return RowMaker(run_id, env["env_id"], costs)


def _shoot(directory: str, arms: list[Arm], plan: Plan, make: RowMaker, first: int) -> None:
    gc.collect()
    gc.freeze()  # what exists now lives to the end: no later collection looks at it
    try:
        run_rounds(
            arms,
            plan,
            make,
            lambda rows: results.append(directory, rows),
            first=first,
            progress=Progress(),
        )
    except (KeyboardInterrupt, OSError):
        say(f"\nstopped early; the whole rounds are in {directory}; go on with:")
        say(f"  python -m benchmarks run --resume {directory}")
        raise


def _say_skips(skips: dict[str, Skip]) -> None:
    for name, skip in skips.items():
        say(f"skip {name}: {skip.reason}")
        say(f"     fix: {skip.fix or 'unknown'}")


def _say_plan(plan: Plan, directory: str) -> None:
    say(f"plan: {plan.rounds} rounds, seed {plan.seed}, reference {plan.reference} (twice: A/A)")
    for arm, shots in plan.shots.items():
        say(f"  {arm:<32} {shots:3d} shots of {plan.seconds[arm] * 1000:8.1f} ms")
    say(f"expected to take {clock(plan.expected_s())} (minutes:seconds), into {directory}")


def status(arms: list[Arm]) -> list[dict[str, Any]]:
    """For each arm whether it can run here, by doing: prepare and one shot."""
    facts = []
    with prepared(arms) as (ready, skips):
        make = RowMaker("doctor", "")
        seconds, failed, _ = round_zero(ready, [arm.name for arm in ready], make, lambda _: None)
        skips |= failed
        for arm in arms:
            skip = skips.get(arm.name)
            facts.append(
                {
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
