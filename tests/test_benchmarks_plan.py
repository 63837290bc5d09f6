"""How many rounds, who takes part, in which order: fixed before the first round."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import plan as plans
from benchmarks.plan import Plan, make_plan

FAST = {"runc:busybox": 0.03, "fork+exec": 0.001, "podman:busybox": 0.2}
MIXED = {**FAST, "vm-micro:busybox": 2.5, "vm-direct:debian": 3.5, "vm-full:debian": 12.0}
costs = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0.001, 30), min_size=1, max_size=8)


def rounds_of(plan: Plan, arm: str) -> list[int]:
    return [number for number in range(1, plan.rounds + 1) if plan.takes_part(arm, number)]


def test_the_order_follows_from_the_seed():
    one, same, other = (make_plan(FAST, seed=seed, rounds=20) for seed in (1, 1, 2))
    orders = [one.order(number) for number in range(1, 21)]
    assert orders == [same.order(number) for number in range(1, 21)]
    assert orders != [other.order(number) for number in range(1, 21)]
    assert len({tuple(order) for order in orders}) > 10, "each round has an order of its own"


def test_every_arm_comes_equally_often_at_every_place():
    plan = make_plan(FAST, seed=3, rounds=800)
    places = Counter(
        (arm, place)
        for number in range(1, 801)
        for place, (arm, rep, _) in enumerate(plan.order(number))
        if rep == 0
    )
    for arm in FAST:
        for place in range(4):
            assert 150 <= places[arm, place] <= 250  # 200 expected; 4 standard deviations


def test_the_reference_is_shot_twice_in_each_round():
    plan = make_plan(MIXED, seed=1, budget_s=None)
    assert plan.reference == "runc:busybox"
    for number in range(1, plan.rounds + 1):
        shots = [(arm, rep) for arm, rep, _ in plan.order(number)]
        assert shots.count(("runc:busybox", 0)) == shots.count(("runc:busybox", 1)) == 1
        assert len(shots) == len(set(shots))
        assert all(rep == 0 for arm, rep in shots if arm != plan.reference)


def test_without_a_known_reference_the_fastest_is_it():
    assert make_plan({"a": 0.2, "b": 0.1}, seed=1, rounds=1).reference == "b"


def test_slow_arms_take_part_in_fewer_rounds_evenly_spread():
    plan = make_plan(MIXED, seed=1)
    assert plan.shots == {
        **dict.fromkeys(FAST, 30), "vm-micro:busybox": 15, "vm-direct:debian": 15,
        "vm-full:debian": 5,
    }  # fmt: skip
    for arm, shots in plan.shots.items():
        numbers = rounds_of(plan, arm)
        assert len(numbers) == shots
        gaps = {later - earlier for earlier, later in itertools.pairwise(numbers)}
        assert gaps == {plan.rounds // shots}
    assert rounds_of(plan, "vm-micro:busybox") == rounds_of(plan, "vm-direct:debian")


def test_rounds_asked_for_are_for_every_arm():
    plan = make_plan(MIXED, seed=1, rounds=7)
    assert plan.rounds == 7
    assert set(plan.shots.values()) == {7}


@given(costs, st.floats(1, 2000))
@settings(max_examples=80, deadline=None)
def test_the_budget_is_kept_or_the_plan_is_the_smallest(seconds, budget):
    plan = make_plan(seconds, seed=1, budget_s=budget)
    assert all(plans.FEWEST <= shots <= plans.enough(seconds[arm]) or shots == plans.FEWEST
               for arm, shots in plan.shots.items())  # fmt: skip
    if plan.expected_s() > budget:
        assert {shots for arm, shots in plan.shots.items() if seconds[arm] >= 1} <= {plans.FEWEST}
        fast = plan.of_fast_arms()
        assert set(fast.shots.values()) <= {plans.FEWEST} or fast.expected_s() <= budget / 3
    for arm, shots in plan.shots.items():
        assert len(rounds_of(plan, arm)) == shots


def test_a_smaller_budget_cuts_slow_arms_first():
    full = make_plan(MIXED, seed=1)
    cut = make_plan(MIXED, seed=1, budget_s=full.expected_s() * 0.75)
    assert cut.shots["runc:busybox"] == 30
    assert 5 <= cut.shots["vm-micro:busybox"] < 15
    assert cut.expected_s() <= full.expected_s() * 0.75


def test_one_very_slow_arm_does_not_leave_the_fast_ones_without_figures():
    plan = make_plan({**MIXED, "vm-full:debian": 25.0}, seed=1, budget_s=120.0)
    assert plan.shots["runc:busybox"] == 30
    assert plan.shots["vm-full:debian"] == 5


@pytest.mark.parametrize("rounds", [3, 5, 9, 12, 30])
def test_traced_shots_are_a_small_series_of_their_own(rounds):
    plan = make_plan(FAST, seed=1, rounds=rounds, traced=["fork+exec"])
    traced = [shot for number in range(1, rounds + 1) for shot in plan.order(number) if shot[2]]
    assert traced == [("fork+exec", 0, True)] * min(plans.TRACED[0], rounds)


def test_what_takes_long_is_traced_once():
    plan = make_plan({"a": 40.0, "b": 2.0}, seed=1, rounds=5, traced=["a", "b"])
    traced = [arm for number in range(1, 6) for arm, _, traced in plan.order(number) if traced]
    assert (traced.count("a"), traced.count("b")) == (1, 3)


def test_expected_time_is_the_sum_of_its_shots():
    plan = make_plan({"a": 0.5, "b": 0.1}, seed=1, rounds=4)
    per_round = 0.5 + 2 * 0.1 + 3 * plans.PER_SHOT_S + plans.PER_ROUND_S
    assert plan.expected_s() == pytest.approx(4 * per_round)
    assert plan.expected_s(first=4) == pytest.approx(per_round)


def test_a_stored_plan_is_the_same_plan():
    plan = make_plan(MIXED, seed=9, traced=["fork+exec"])
    again = Plan(**plan.record())
    assert [again.order(n) for n in range(1, 31)] == [plan.order(n) for n in range(1, 31)]
