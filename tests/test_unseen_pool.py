"""Newcomers: choices that nothing was fitted on, known by their price list and a few probe queries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from logs import Row, budget_vec, think_env, think_vec
from numpy.testing import assert_allclose, assert_array_equal
from random_logs import many_questions, many_tasks

from rlroute.aptitude import Descriptions, Rehearsal, fit_aptitude
from rlroute.features import fitted_states
from rlroute.log import Log
from rlroute.newcomers import Probing, newcomer_features, one_response, probe_states
from rlroute.policy import TrainedPolicy, parameter_shapes
from rlroute.rollout import rollout
from rlroute.testing import check_routing_env

pytestmark = [
    pytest.mark.usefixtures("handmade"),
    pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning"),
]

PROBING = Probing(("b",), 12, 0)
Setup = tuple[Callable[..., Log], Callable[..., Any], Probing]
SETUPS: dict[str, Setup] = {
    "questions": (many_questions, think_vec, PROBING),
    "tasks": (many_tasks, budget_vec, Probing(("large",), 12, 0)),
}


def probed(log: Log, probing: Probing) -> set[tuple[str, str, int]]:
    """(state, choice, attempt) of every probe query."""
    known = log.without(probing.newcomers)
    fitted, weight = fitted_states(known.arrays, known.splits())
    rows = np.flatnonzero(np.isin(log.arrays.state_ids, known.arrays.state_ids))[fitted]
    asked = set()
    for name in probing.newcomers:
        choice = log.arrays.choice_names.index(name)
        states = probe_states(log.arrays, rows, weight, choice, probing)
        first = log.arrays.cell[states * log.arrays.num_choices + choice]
        attempts = one_response(log.arrays, states, choice, probing) - first
        ids = log.arrays.state_ids[states]
        asked |= {(str(s), name, int(a)) for s, a in zip(ids, attempts, strict=True)}
    return asked


def spoil(probing: Probing, spoilt: Callable[[Row, str], bool]) -> Callable[[list[Row], list[Row]], None]:
    """Makes other responses of the newcomers wherever `spoilt` says so, by row and split."""

    def change(states: list[Row], responses: list[Row]) -> None:
        split = {row["state_id"]: row["split"] for row in states}
        for row in responses:
            if row["choice"] in probing.newcomers and spoilt(row, split[row["state_id"]]):
                row.update(quality=1.0 - row["quality"], completion_tokens=59, latency_s=9.0, verdict=0.5)

    return change


def observations(log: Log, make: Callable[..., Any], probing: Probing) -> list[np.ndarray]:
    """What is seen on val before any newcomer is called, and while only others are."""
    env = make(log, 32, split="val", newcomers=probing.newcomers, probes=probing.probes, probe_seed=probing.seed)
    others = np.array([name not in probing.newcomers for name in log.arrays.choice_names])
    observation, info = env.reset(seed=1)
    seen = [observation.copy()]
    for _ in range(4):
        per_choice = info["action_mask"][:, len(env.layout.context_actions) :].reshape(32, -1, len(others)) * others
        action = len(env.layout.context_actions) + per_choice.reshape(32, -1).argmax(axis=1)
        observation, _, _, _, info = env.step(action)
        seen.append(observation.copy())
    return seen


@pytest.mark.parametrize("name", SETUPS)
def test_of_a_newcomers_train_recording_nothing_but_the_probes_reaches_an_observation(name: str) -> None:
    make_log, make, probing = SETUPS[name]
    log = make_log()
    asked = probed(log, probing)
    assert len(asked) == probing.probes

    def not_asked(row: Row, split: str) -> bool:
        return split == "train" and (row["state_id"], row["choice"], row["attempt"]) not in asked

    other = make_log(spoil(probing, not_asked))
    assert other.content_hash != log.content_hash
    for before, after in zip(observations(log, make, probing), observations(other, make, probing), strict=True):
        assert_array_equal(before, after)


@pytest.mark.parametrize("name", SETUPS)
def test_the_probes_do_reach_it(name: str) -> None:
    make_log, make, probing = SETUPS[name]
    log = make_log()
    asked = probed(log, probing)
    other = make_log(spoil(probing, lambda row, _: (row["state_id"], row["choice"], row["attempt"]) in asked))
    before, after = observations(log, make, probing)[0], observations(other, make, probing)[0]
    assert not np.array_equal(before, after)


@pytest.mark.parametrize("name", SETUPS)
def test_nothing_recorded_of_a_newcomer_on_val_or_test_is_used(name: str) -> None:
    make_log, _, probing = SETUPS[name]
    other = make_log(spoil(probing, lambda _, split: split != "train"))
    before, after = newcomer_features(make_log(), probing, "letters"), newcomer_features(other, probing, "letters")
    for table in ("text", "prior", "prospect", "extra", "mean_cost_usd", "mean_completion_tokens", "mean_latency_s"):
        assert_array_equal(getattr(before, table), getattr(after, table), err_msg=table)
    assert before.reference == after.reference


@pytest.mark.parametrize("name", SETUPS)
def test_the_known_choices_look_as_they_did_in_training(name: str) -> None:
    make_log, make, probing = SETUPS[name]
    log = make_log()
    less = log.without(probing.newcomers)
    trained = make(less, 4, split="train").dynamics
    now = make(log, 4, split="train", newcomers=probing.newcomers, probes=probing.probes).dynamics
    rows = np.flatnonzero(np.isin(log.arrays.state_ids, less.arrays.state_ids))
    known = np.flatnonzero(~np.isin(log.arrays.choice_names, probing.newcomers))
    for table in ("prior", "prospect"):
        ours, theirs = getattr(now.features, table)[np.ix_(rows, known)], getattr(trained.features, table)
        assert_allclose(ours, theirs, atol=1e-6, err_msg=table)
    for table in ("text", "extra"):
        assert_array_equal(getattr(now.features, table)[rows], getattr(trained.features, table), err_msg=table)
    for table in ("mean_cost_usd", "mean_completion_tokens", "mean_latency_s"):
        assert_array_equal(getattr(now.features, table)[known], getattr(trained.features, table), err_msg=table)
    assert (now.c_ref, now.l_ref) == (trained.c_ref, trained.l_ref)
    assert now.layout.context == trained.layout.context
    assert now.layout.choice == trained.layout.choice


def test_a_policy_trained_without_them_acts_with_them() -> None:
    log = many_questions()
    trained = think_vec(log.without(["b"]), 8).dynamics
    rng = np.random.default_rng(0)
    shapes = parameter_shapes(trained.layout, 8)
    parameters = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    policy = TrainedPolicy(trained.policy_card(), parameters)
    env = think_vec(log, 8, newcomers=("b",), probes=12)
    played = rollout(env, policy, env.dynamics.roots)
    assert len(played) == 20
    assert not played.truncated.any()


def test_an_environment_with_newcomers_keeps_its_promises() -> None:
    check_routing_env(think_env(many_questions(), newcomers=("a", "c"), probes=5), episodes=5)


# -- probe queries ---------------------------------------------------------------------------------------


def test_probe_queries_are_distinct_states_of_train_and_repeatable() -> None:
    log = many_questions()
    asked = probed(log, PROBING)
    train = {str(name) for name in log.arrays.state_ids[log.splits() == 0]}
    assert len({state for state, _, _ in asked}) == PROBING.probes
    assert {state for state, _, _ in asked} <= train
    assert probed(many_questions(), PROBING) == asked
    assert probed(log, replace(PROBING, seed=1)) != asked
    assert probed(log, replace(PROBING, probes=5)) < asked  # more probes are asked on top


def test_all_newcomers_are_asked_the_same_queries() -> None:
    asked = probed(many_questions(), Probing(("a", "b"), 9, 3))
    assert {s for s, name, _ in asked if name == "a"} == {s for s, name, _ in asked if name == "b"}


def test_what_matters_more_is_asked_more_often() -> None:
    log = many_questions()
    states = np.arange(100)
    weight = np.where(states < 50, 9.0, 1.0)
    draws = [probe_states(log.arrays, states, weight, 0, Probing(("a",), 10, seed)) for seed in range(60)]
    assert 0.8 < np.mean(np.concatenate(draws) < 50) < 0.95  # 0.9 with replacement


def test_units_of_a_newcomer_are_those_of_its_probes() -> None:
    """Where it always takes twice what the others take, it is expected to take twice their mean."""

    def twice(states: list[Row], responses: list[Row]) -> None:
        of_a = {(row["state_id"], row["attempt"]): row for row in responses if row["choice"] == "a"}
        for row in responses:
            like = of_a[row["state_id"], 0]
            factor = 2 if row["choice"] == "b" else 1
            row.update(latency_s=like["latency_s"] * factor, completion_tokens=like["completion_tokens"] * factor)

    features = newcomer_features(many_questions(twice), PROBING, "letters")
    for table in ("mean_latency_s", "mean_completion_tokens"):
        mean = getattr(features, table)
        assert_allclose(mean[1], 2 * mean[0], rtol=1e-6, err_msg=table)


# -- aptitude --------------------------------------------------------------------------------------------


def world(num_states: int = 4000, seed: int = 0) -> tuple[Descriptions, np.ndarray, Rehearsal]:
    """States of four subjects, three known choices and what a newcomer is worth there: it knows the third subject."""
    rng = np.random.default_rng(seed)
    subject = rng.integers(4, size=num_states)
    text = 2 * np.eye(4)[subject] - 0.5 + 0.2 * rng.normal(size=(num_states, 4))
    levels = np.array([[0.9, 0.3, 0.4, 0.2], [0.2, 0.8, 0.3, 0.3], [0.5, 0.5, 0.4, 0.9]])
    known = levels.T[subject]
    truth = np.array([0.2, 0.3, 0.9, 0.2])[subject]
    outcomes = (rng.random((num_states, 3)) < known).astype(float)
    states = Descriptions(known, text)
    return states, truth, Rehearsal(outcomes[:0], states, outcomes, np.ones(num_states))


def estimate(k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Estimates after k probes, the truth, and what the pool does on average, on other states."""
    states, truth, rehearsal = world(seed=seed)
    rng = np.random.default_rng(seed + 100)
    asked = np.arange(k)
    rehearsal = replace(rehearsal, outcomes=rehearsal.quality[asked])
    outcomes = (rng.random(k) < truth[asked]).astype(float)
    aptitude = fit_aptitude(states[asked], outcomes, rehearsal)
    rest = np.arange(1000, 4000)
    return aptitude(states[rest]), truth[rest], states[rest].mean


def test_without_probes_a_newcomer_is_expected_to_do_what_the_pool_does() -> None:
    guess, _, mean = estimate(0)
    assert_allclose(guess, mean)


def test_more_probes_come_nearer_to_the_truth() -> None:
    errors = [np.mean([np.mean((estimate(k, s)[0] - estimate(k, s)[1]) ** 2) for s in range(6)]) for k in (0, 30, 300)]
    assert errors[0] > 0.08
    assert errors[1] < 0.6 * errors[0]
    assert errors[2] < 0.15 * errors[0]


def test_a_subject_that_no_known_choice_is_good_at_is_found_from_the_text() -> None:
    guess, truth, _ = estimate(300)
    assert guess[truth == 0.9].mean() > 0.7
    assert guess[truth == 0.2].mean() < 0.35


def test_probes_without_a_quality_do_not_count() -> None:
    states, truth, rehearsal = world()
    asked = np.arange(40)
    some = asked[1::2]
    outcomes, told = truth[asked].copy(), rehearsal.quality[asked].copy()
    outcomes[::2], told[::2] = np.nan, np.nan
    with_gaps = fit_aptitude(states[asked], outcomes, replace(rehearsal, outcomes=told))
    without_them = fit_aptitude(states[some], outcomes[some], replace(rehearsal, outcomes=told[some]))
    assert_allclose(with_gaps(states), without_them(states))


def test_one_known_choice_suffices() -> None:
    states, truth, rehearsal = world()
    asked = np.arange(200)
    alone = Descriptions(states.known[:, :1], states.text)
    one = Rehearsal(rehearsal.quality[asked, :1], alone, rehearsal.quality[:, :1], rehearsal.weight)
    assert np.mean((alone.mean - truth) ** 2) > 0.15
    assert np.mean((fit_aptitude(alone[asked], truth[asked], one)(alone) - truth) ** 2) < 0.02


# -- bad input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"newcomers": ("d",)}, r"newcomers=\('d',\): expected some, but not all, of a, b, c"),
        ({"newcomers": ("a", "b", "c")}, "some, but not all"),
        ({"newcomers": ("a",), "probes": 0}, "probes=0: .*at least 1"),
        ({"newcomers": ("a",), "probes": 10_000}, "probes=10000: choice 'a' was recorded in"),
        ({"newcomers": ("a",), "obs": "index"}, "obs='index'.*features"),
    ],
)
def test_newcomers_that_cannot_be_are_refused_at_once(arguments: Row, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        think_env(many_questions(), **arguments)
