"""Lines, ranks, order and capacity, against scipy and against data whose truth is known."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot as plt

from benchmarks.plan import Plan
from benchmarks.report.analysis import analyse
from benchmarks.report.capacity import RESERVE_MIB
from benchmarks.report.figures.drift import drift
from benchmarks.report.order import biased_places, order_effect
from benchmarks.statistics import line, rank_correlation
from tests.bench_fakes import FakeArm, write_run
from tests.report_fakes import arms, full_run

numbers = st.lists(st.tuples(st.integers(0, 50), st.integers(-100, 100)), min_size=2, max_size=40)


@given(numbers)
@settings(max_examples=60, deadline=None)
def test_lines_are_those_of_scipy(points):
    x, y = zip(*points, strict=True)
    found = line(x, y, 1)
    if len(set(x)) == 1:
        assert found is None
        return
    theirs = scipy.stats.linregress(x, y)
    assert found.slope == pytest.approx(theirs.slope, abs=1e-9)
    assert found.intercept == pytest.approx(theirs.intercept, abs=1e-7)


@given(numbers)
@settings(max_examples=60, deadline=None)
def test_ranks_are_those_of_scipy(points):
    x, y = zip(*points, strict=True)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert rank_correlation(x, y) == 0
    else:
        theirs = scipy.stats.spearmanr(x, y).statistic
        assert rank_correlation(x, y) == pytest.approx(theirs, abs=1e-9)


def test_slopes_hold_the_truth_in_95_of_100():
    rng = np.random.default_rng(2)
    held = 0
    for seed in range(200):
        x = np.arange(40)
        found = line(x, 5 + 0.3 * x + rng.normal(0, 2, 40), seed)
        held += found.low <= 0.3 <= found.high
    assert 0.88 <= held / 200 <= 0.99


def test_where_a_line_leads_is_only_told_when_its_slope_is_certain():
    x = np.arange(30)
    falling = line(x, 1000 - 10 * x, 1)
    assert falling.reaches(0) == pytest.approx(100)
    flat = line(x, np.random.default_rng(3).normal(1000, 5, 30), 1)
    assert flat.reaches(0) is None
    assert line([1, 2], [3, 4], 1).reaches(0) is None  # two points: no interval


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return analyse(full_run(tmp_path_factory.mktemp("full")))


def test_memory_by_every_definition(full):
    found = {one.name: one for one in full.footprints}
    runc, machine = found["runc:busybox"], found["vm-micro:busybox"]
    assert runc.n == 8
    assert runc.by["pss"].median == pytest.approx(4, rel=0.03)
    assert runc.by["mapped"].median == pytest.approx(32, rel=0.03)
    assert set(runc.by_n) == {1, 2, 4, 8}
    assert runc.per_instance == pytest.approx(4, rel=0.1)
    assert machine.per_instance == pytest.approx(90, rel=0.02)
    assert machine.slope.n == 60  # 48 looks; in each of 12 rounds nothing given up at first
    assert machine.emulated
    assert not runc.emulated


def test_density_measured_and_extrapolated(full):
    container, machine = full.curves
    assert (container.reached, machine.reached) == (1000, 20)
    assert container.stopped == "there were 1000"
    assert container.extrapolated == pytest.approx((16000 - RESERVE_MIB) / 4, rel=0.01)
    assert machine.extrapolated == pytest.approx((16000 - RESERVE_MIB) / 90, rel=0.01)
    assert container.start_line.at(1000) / container.start_line.at(0) == pytest.approx(1.2, 0.02)


class Later(FakeArm):
    """Slower the later in its round it is shot, as where one arm's work burdens the next."""

    turn = 0

    def shoot(self):
        self.ms = [20 + 2 * (Later.turn % 7)]  # six arms, the reference twice
        Later.turn += 1
        return super().shoot()


def test_a_random_order_shows_nothing(tmp_path):
    found = analyse(write_run(tmp_path, arms(), 30)).arms
    effect = order_effect(found, 1)
    assert not effect.matters
    assert effect.sentence == "the position in the round does not matter"
    assert biased_places(found) == []


def test_work_that_piles_up_in_a_round_is_seen(tmp_path):
    Later.turn = 0
    later = [Later(f"runc:{name}") for name in ("busybox", "b", "c", "d", "e", "f")]
    found = analyse(write_run(tmp_path, later, 30)).arms
    effect = order_effect(found, 1)
    assert effect.low > 0.9
    assert effect.sentence == "later in a round is slower"


def test_an_order_that_is_not_random_is_named(full, tmp_path):
    found = analyse(write_run(tmp_path, [*arms(), FakeArm("docker:busybox", 200)], 30)).arms
    for arm in found:
        first = arm.name == "docker:busybox"
        arm.orders[:] = [0 if first else random.randint(1, 5) for _ in arm.orders]
    assert "docker:busybox (mean place 0.00 of the round)" in biased_places(found)


def biased_run(directory, monkeypatch, arrange):
    """A run of the real rounds by a plan whose order is `arrange`d: (shots, round) -> shots."""
    honest = Plan.order

    def order(plan, number):
        return arrange(sorted(honest(plan, number)), number)

    monkeypatch.setattr(Plan, "order", order)
    some = [FakeArm(name, 20.0) for name in ("runc:busybox", *"bcdef")]
    return analyse(write_run(directory, some, 30))


def test_a_harness_that_always_keeps_one_order_is_told_by_the_drift_figure(tmp_path, monkeypatch):
    found = biased_run(tmp_path, monkeypatch, lambda shots, _: shots)
    names = " ".join(biased_places(found.arms))
    assert "b (mean place 0.00 of the round)" in names
    assert "c (30 times in 30 right after b)" in names
    made = drift(found)
    plt.close(made.figure)
    assert "; NOT in random order: b (mean place 0.00 of the round)" in made.title


def test_a_rotation_whose_mean_places_are_alike_is_told_too(tmp_path, monkeypatch):
    def rotated(shots, number):
        turn = number % len(shots)
        return shots[turn:] + shots[:turn]

    found = biased_run(tmp_path, monkeypatch, rotated)
    names = biased_places(found.arms)
    assert not [name for name in names if "mean place" in name]
    assert any(re.fullmatch(r"d \(2\d times in 30 right after c\)", name) for name in names)
    made = drift(found)
    plt.close(made.figure)
    assert "NOT in random order: " in made.title


@pytest.mark.parametrize("count", [2, 12])
def test_random_orders_raise_no_alarm(tmp_path, count):
    """Fifteen runs of each size, as the harness itself orders them."""
    for seed in range(15):
        some = [FakeArm(f"arm-{number}", 20.0) for number in range(count)]
        run = write_run(tmp_path / str(seed), some, 12, seed=seed)
        assert biased_places(analyse(run).arms) == []


def test_a_slow_arm_of_ten_milliseconds_is_ten_milliseconds(tmp_path):
    """The fake clock's 10 ms come out as 10 ms; tests with real arms do the same with a sleep."""
    directory = write_run(tmp_path, [FakeArm("runc:busybox", 20), FakeArm("sleep", 10.0)], 8)
    found = analyse(directory).arm("sleep").first
    assert (found.low, found.median, found.high) == (10, 10, 10)
