"""The ceilings agree with brute force on instances small enough for it, and order as they must."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from logs import budget_vec, make_log, think_vec, walk_log
from random_logs import many_questions, many_tasks

from rlroute.envs.budget_route import ceilings as budget
from rlroute.envs.think_route import ceilings as think
from rlroute.evaluation import Evaluation, Setting
from rlroute.generators import questions, tasks
from rlroute.log import Log
from rlroute.outcomes import Outcomes, recorded_rows, stored_outcomes
from rlroute.policies import RandomPolicy
from rlroute.rollout import places, rollout

KINDS = questions.KINDS
C_REF = 1.0


@pytest.fixture(scope="module")
def asked() -> Log:
    return questions.generate(questions.QuestionsParameters(num_questions=60, seed=5))


@pytest.fixture(scope="module")
def tasked() -> Log:
    return tasks.generate(tasks.TasksParameters(num_tasks=15, seed=5))


# ---- ThinkRoute --------------------------------------------------------------------------------------------


def tiny_think(seed: int, num_choices: int = 2, attempts: int = 2) -> tuple[Any, Outcomes]:
    """A two-hop question: state 0 the whole, 1 the first sub-question, 2-5 the second by answer accepted."""
    rng = np.random.default_rng(seed)
    num_states, num_kinds = 6, len(KINDS)
    shape = (num_states, num_choices, num_kinds)
    next_state = np.full(shape, -1, np.int32)
    next_state[1, :, :4] = [2, 3, 4, 5]
    quality = np.zeros(shape)
    quality[[0, 2], :, 0] = 1.0
    quality[1, :, 0] = 1.0  # of an intermediate answer: must not count
    verdict = rng.uniform(size=(num_states, num_choices, 1)) * np.array([0.9, 0.4, 0.3, 0.2, 0.0])
    cost = np.repeat(rng.uniform(0.1, 1.0, size=(num_states, num_choices, 1)), num_kinds, axis=2)
    probability = rng.dirichlet([2.0, 1.0, 0.6, 0.4, 0.3], size=(num_states, num_choices))
    outcomes = Outcomes(KINDS, probability, next_state, quality, cost, verdict)
    arrays = SimpleNamespace(
        step=np.array([0, 1, 2, 2, 2, 2]),
        root=np.array([True] + [False] * 5),
        think_state=np.array([1] + [-1] * 5),
        num_attempts=np.full((num_states, num_choices), attempts),
    )
    return SimpleNamespace(arrays=arrays, outcomes=None), outcomes


def brute_think(
    log: Any, outcomes: Outcomes, weight: float, rounds: int, observe: bool, think_cost: float
) -> tuple[float, float, float]:
    """Expectimax over full call sequences; a belief maps the kinds of the replies so far to a probability."""
    arrays, empty = log.arrays, KINDS.index("empty")

    def enter(state: int, left: int) -> tuple[float, float, float]:
        return act(state, left, (), {(): 1.0}) if left else (0.0, 0.0, 0.0)

    def pattern(kinds: tuple[int, ...]) -> tuple[int, ...]:
        seen: dict[int, int] = {}
        return tuple(-1 if k == empty else seen.setdefault(k, len(seen)) for k in kinds)

    def act(state: int, left: int, calls: tuple[int, ...], belief: dict[Any, float]) -> tuple[float, float, float]:
        mass = sum(belief.values())
        options = []
        for choice in set(calls):
            last = max(i for i, c in enumerate(calls) if c == choice)
            total = np.zeros(3)
            for kinds, p in belief.items():
                kind = kinds[last]
                following = -1 if kind == empty else outcomes.next_state[state, 0, kind]
                if following >= 0:
                    total += p * np.array(enter(int(following), left))
                else:
                    q = 0.0 if kind == empty else outcomes.quality[state, 0, kind]
                    total += p * np.array([q, q, 0.0])
            options.append(total)
        if arrays.think_state[state] >= 0:
            value, quality, cost = enter(int(arrays.think_state[state]), left)
            options.append(mass * np.array([value - weight * think_cost, quality, cost + think_cost]))
        if left:
            for choice in range(outcomes.probability.shape[1]):
                if calls.count(choice) == arrays.num_attempts[state, choice]:
                    continue
                price = outcomes.cost_usd[state, choice, 0]
                total = mass * np.array([-weight * price, 0.0, price])
                branches: dict[Any, dict[Any, float]] = {}
                for kinds, p in belief.items():
                    for kind in range(5):
                        says = outcomes.verdict[state, choice, kind]
                        for verdict, chance in ((0, 1 - says), (1, says)) if observe else ((0, 1.0),):
                            grown = (*kinds, kind)
                            branch = branches.setdefault((pattern(grown), verdict), {})
                            joint = p * outcomes.probability[state, choice, kind] * chance
                            branch[grown] = branch.get(grown, 0.0) + joint
                for branch in branches.values():
                    total += np.array(act(state, left - 1, (*calls, choice), branch))
                options.append(total)
        best = max(options, key=lambda option: option[0])
        return float(best[0]), float(best[1]), float(best[2])

    return enter(0, rounds)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("observe", [True, False])
def test_latent_knowing_equals_brute_force(seed: int, observe: bool) -> None:
    log, outcomes = tiny_think(seed)
    weights = np.array([0.0, 0.05, 0.3])
    found = think.latent_knowing(
        log, np.array([0]), weights, C_REF, 3, "observe" if observe else None, 0.02, outcomes=outcomes
    )
    for w, weight in enumerate(weights):
        value, quality, cost = brute_think(log, outcomes, weight, 3, observe, 0.02)
        assert found.value[w, 0] == pytest.approx(value, abs=1e-12)
        if weight:  # without a price of cost, ties leave it open
            assert found.quality[w, 0] == pytest.approx(quality, abs=1e-12)
            assert found.cost_usd[w, 0] == pytest.approx(cost, abs=1e-12)


def test_latent_knowing_equals_brute_force_with_four_different_answers_heard() -> None:
    log, outcomes = tiny_think(11)
    found = think.latent_knowing(log, np.array([0]), np.array([0.02]), C_REF, 4, None, outcomes=outcomes)
    value, _, _ = brute_think(log, outcomes, 0.02, 4, False, 0.0)
    assert found.value[0, 0] == pytest.approx(value, abs=1e-12)


def test_latent_knowing_equals_brute_force_with_three_choices() -> None:
    log, outcomes = tiny_think(12, num_choices=3, attempts=1)
    found = think.latent_knowing(log, np.array([0]), np.array([0.02]), C_REF, 3, outcomes=outcomes)
    value, _, _ = brute_think(log, outcomes, 0.02, 3, True, 0.0)
    assert found.value[0, 0] == pytest.approx(value, abs=1e-12)


def test_knowing_more_never_hurts(asked: Log) -> None:
    roots = np.flatnonzero(np.asarray(asked.arrays.root))
    c_ref = asked.reference["cost_usd"]
    weights = np.array([0.03, 0.3])
    full = think.latent_knowing(asked, roots, weights, c_ref)
    blind = think.latent_knowing(asked, roots, weights, c_ref, checker=None)
    still = think.latent_knowing(asked, roots, weights, c_ref, thinking=False)
    brief = think.latent_knowing(asked, roots, weights, c_ref, max_rounds=1)
    for less in (blind, still, brief):
        assert (full.value >= less.value - 1e-12).all()
        assert full.value.mean() > less.value.mean() + 0.01
    np.testing.assert_allclose(full.value, full.quality - weights[:, None] * full.cost_usd / c_ref, atol=1e-12)


def test_one_round_without_thinking_is_the_best_single_call(asked: Log) -> None:
    roots = np.flatnonzero(np.asarray(asked.arrays.root))
    outcomes, c_ref = stored_outcomes(asked), asked.reference["cost_usd"]
    found = think.latent_knowing(asked, roots, np.array([0.2]), c_ref, max_rounds=1, thinking=False)
    quality = (outcomes.probability * outcomes.quality).sum(axis=-1)
    best = (quality - 0.2 * outcomes.mean_cost_usd / c_ref)[roots].max(axis=1)
    np.testing.assert_allclose(found.value[0], best, atol=1e-12)


def test_attempts_stand_in_for_probabilities_that_are_not_stored(asked: Log) -> None:
    bare = Log.from_tables(asked.card, asked.choices, asked.states, asked.responses)
    arrays, rows = bare.arrays, recorded_rows(bare.arrays)
    roots = np.flatnonzero(np.asarray(arrays.root))
    found = think.latent_knowing(bare, roots, np.array([0.2]), 1e-3, max_rounds=1, thinking=False)
    mean_quality = np.asarray(arrays.quality, np.float64)[rows[roots]].mean(axis=-1)
    mean_cost = np.asarray(arrays.cost_usd)[rows[roots]].mean(axis=-1)
    np.testing.assert_allclose(found.value[0], (mean_quality - 0.2 * mean_cost / 1e-3).max(axis=1), atol=1e-6)


def test_unknown_checker_is_refused(asked: Log) -> None:
    with pytest.raises(ValueError, match="observe"):
        think.latent_knowing(asked, np.arange(1), np.ones(1), 1.0, checker="action")  # type: ignore[arg-type]


def brute_clairvoyant(arrays: Any, rows: np.ndarray, root: int, rounds: int, weight: float, c_ref: float) -> float:
    """Best over every sequence of actions, hearing as many choices in a state as one likes."""

    def act(state: int, left: int, counts: tuple[int, ...]) -> float:
        options = []
        for choice, count in enumerate(counts):
            if count:
                row = rows[state, choice, count - 1]
                following = arrays.next_state[row]
                if following < 0:
                    options.append(float(arrays.quality[row]))
                elif arrays.terminal[following]:
                    options.append(float(arrays.success[following]))
                else:
                    options.append(act(following, left, (0,) * len(counts)) if left else 0.0)
            if left and count < rows.shape[2] and rows[state, choice, count] >= 0:
                price = weight * float(arrays.cost_usd[rows[state, choice, count]]) / c_ref
                grown = (*counts[:choice], count + 1, *counts[choice + 1 :])
                options.append(act(state, left - 1, grown) - price)
        if arrays.think_state[state] >= 0:
            options.append(act(arrays.think_state[state], left, (0,) * len(counts)) if left else 0.0)
        return max(options)

    return act(root, rounds, (0,) * rows.shape[1])


def test_think_clairvoyant_equals_brute_force(asked: Log) -> None:
    arrays = asked.arrays
    rows = recorded_rows(arrays)
    rows = np.where(rows[..., ::-1] >= 0, rows[..., ::-1], -1)  # another order of the attempts
    c_ref = asked.reference["cost_usd"]
    hops = np.array([name[0] for name in np.array(arrays.task_names)[np.asarray(arrays.task_name)]])
    picked = [np.flatnonzero(np.asarray(arrays.root) & (hops == h))[:2] for h in "123"]
    roots = np.concatenate(picked)
    for rounds, weight in ((2, 0.5), (3, 0.1)):
        found = think.clairvoyant(arrays, roots, np.array([weight]), c_ref, rows, rounds)
        for position, root in enumerate(roots):
            expected = brute_clairvoyant(arrays, rows, int(root), rounds, weight, c_ref)
            assert found.value[0, position] == pytest.approx(expected, abs=1e-6)


@pytest.mark.usefixtures("handmade")
@pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning")
@pytest.mark.parametrize("weight", [0.0, 0.02, 0.5])
def test_think_clairvoyant_is_a_ceiling_on_a_log_with_terminal_states(weight: float) -> None:
    env = think_vec(many_tasks(), 20, max_rounds=24, preference=weight)
    dynamics = env.dynamics
    played = rollout(env, RandomPolicy(), dynamics.roots)
    env.reset(seed=0)
    rows = dynamics.drawn_rows(dynamics.roots, *places(env, len(dynamics.roots), 1, 0))
    found = think.clairvoyant(dynamics.arrays, dynamics.roots, np.array([weight]), dynamics.c_ref, rows, 24)
    assert played.success.any()
    assert (played.reward <= found.value[0] + 1e-9).all()
    if weight == 0.0:
        np.testing.assert_array_equal(found.value[0], np.isfinite(found.least_cost_usd))


@pytest.mark.usefixtures("handmade")
@pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning")
@pytest.mark.parametrize("rounds", [2, 3, 4])
def test_think_clairvoyant_equals_brute_force_with_terminal_states(rounds: int) -> None:
    for log in (walk_log(3), walk_log(3, last="lost")):
        arrays, rows = log.arrays, recorded_rows(log.arrays)
        roots = np.flatnonzero(arrays.root)
        found = think.clairvoyant(arrays, roots, np.array([0.1]), 1e-2, rows, rounds)
        for position, root in enumerate(roots):
            expected = brute_clairvoyant(arrays, rows, int(root), rounds, 0.1, 1e-2)
            assert found.value[0, position] == pytest.approx(expected, abs=1e-9)


@pytest.mark.usefixtures("handmade")
@pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning")
def test_two_tasks_of_one_group_are_told_apart() -> None:
    log = many_tasks()
    states = log.states.to_pylist()
    for state in states:
        state["group_id"] = state["split"]
    env = budget_vec(make_log(states, log.responses.to_pylist()), 20, preference=0.2, prompt_cache=False)
    dynamics = env.dynamics
    assert len(dynamics.roots) > len(np.unique(dynamics.arrays.group[dynamics.roots]))
    evaluation = evaluation_of(env)
    played = rollout(env, RandomPolicy(), dynamics.roots)
    budget.add_ceilings(evaluation, lambda split, **_: env, [Setting.weight(0.2)], 1, 0)
    assert (played.reward <= evaluation.scores["clairvoyant"][0].reward + 1e-9).all()


# ---- where ceilings hold -----------------------------------------------------------------------------------


def evaluation_of(env: Any, settings: tuple[Setting, ...] = (Setting.weight(0.2),)) -> Evaluation:
    dynamics = env.dynamics
    return Evaluation(dynamics.family, dynamics.log.name, "test", list(settings), dynamics.c_ref)


def added(module: Any, make_vec: Any, log: Log, settings: list[Setting], **arguments: Any) -> set[str]:
    """The ceilings that are added to a comparison."""

    def make_env(split: str, **given: Any) -> Any:
        env = make_vec(log, 8, split=split, **{**arguments, **given})
        env.dynamics.roots = env.dynamics.roots[:4]
        return env

    evaluation = evaluation_of(make_env("test", **settings[0].arguments), tuple(settings))
    module.add_ceilings(evaluation, make_env, settings, 2, 0)
    return set(evaluation.scores)


BOTH = {"latent-knowing", "clairvoyant"}
WEIGHTS = [Setting.weight(0.0), Setting.weight(0.2)]


@pytest.mark.usefixtures("handmade")
@pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, BOTH),
        ({"checker": None}, BOTH),
        ({"latency_preference": (0.0, 0.0)}, BOTH),
        ({"max_episode_steps": 500}, BOTH),
        ({"checker": "action"}, {"clairvoyant"}),
        ({"reward": "router_r1"}, set()),
        ({"latency_preference": 0.1}, set()),
        ({"budget_usd": 1.0}, set()),
        ({"commit": "plurality"}, set()),
        ({"repeat": "same"}, set()),
        ({"max_episode_steps": 3}, set()),
    ],
)
def test_think_ceilings_are_added_where_they_hold(asked: Log, arguments: dict[str, Any], expected: set[str]) -> None:
    assert added(think, think_vec, asked, WEIGHTS, **arguments) == expected


@pytest.mark.usefixtures("handmade")
@pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning")
def test_think_ceilings_depend_on_log_and_settings(asked: Log, tasked: Log) -> None:
    assert added(think, think_vec, asked, [Setting.usd(1.0)]) == set()
    assert added(think, think_vec, tasked, WEIGHTS, max_rounds=6) == {"clairvoyant"}
    assert added(think, think_vec, many_questions(), WEIGHTS) == {"clairvoyant"}


@pytest.mark.usefixtures("handmade")
@pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning")
@pytest.mark.parametrize(
    ("settings", "arguments", "expected"),
    [
        ([Setting.calls(1), Setting.calls(3)], {}, BOTH),
        ([Setting.calls(1)], {"repeat": "mask", "preference": (0.0, 0.0)}, BOTH),
        (WEIGHTS, {"prompt_cache": False}, BOTH),
        (WEIGHTS, {"budget_calls": 2, "prompt_cache": False}, BOTH),
        (WEIGHTS, {}, {"clairvoyant"}),
        ([Setting.calls(1)], {"preference": 0.2}, {"clairvoyant"}),
        ([Setting.calls(1)], {"preference": (0.1, 1.0)}, set()),
        (WEIGHTS, {"budget_calls": (1, 4)}, set()),
        ([Setting.usd(1.0)], {}, set()),
        (WEIGHTS, {"budget_usd": 1.0}, set()),
        (WEIGHTS, {"reward": "router_r1"}, set()),
        (WEIGHTS, {"latency_preference": 0.1}, set()),
        (WEIGHTS, {"max_episode_steps": 3}, set()),
    ],
)
def test_budget_ceilings_are_added_where_they_hold(
    tasked: Log, settings: list[Setting], arguments: dict[str, Any], expected: set[str]
) -> None:
    assert added(budget, budget_vec, tasked, settings, **arguments) == expected


def test_cheapest_success_costs_what_it_must(asked: Log) -> None:
    arrays = asked.arrays
    roots = np.flatnonzero(np.asarray(arrays.root))
    found = think.clairvoyant(arrays, roots, np.array([0.0, 1e-3]), 1.0, recorded_rows(arrays))
    succeeds = np.isfinite(found.least_cost_usd)
    np.testing.assert_allclose(found.value[0], succeeds.astype(float), atol=1e-9)
    np.testing.assert_allclose(found.value[1][succeeds], 1.0 - 1e-3 * found.least_cost_usd[succeeds], atol=1e-9)
    assert 0 < succeeds.mean() <= 1


def test_clairvoyant_beats_latent_knowing_on_average(asked: Log) -> None:
    roots = np.flatnonzero(np.asarray(asked.arrays.root))
    c_ref, weights = asked.reference["cost_usd"], np.array([0.03, 0.3, 1.0])
    seer = think.clairvoyant(asked.arrays, roots, weights, c_ref, recorded_rows(asked.arrays))
    knowing = think.latent_knowing(asked, roots, weights, c_ref)
    assert (seer.value.mean(axis=1) > knowing.value.mean(axis=1)).all()


# ---- BudgetRoute -------------------------------------------------------------------------------------------

EXPENSIVE = np.array([False, True])


def tiny_budget(seed: int) -> tuple[Any, Outcomes]:
    """Three decisions in a row; terminal states 7 (success) and 8 (failure)."""
    rng = np.random.default_rng(seed)
    next_state = np.array([[1, 2, 8], [3, 4, 8], [4, 5, 8], [7, 6, 8], [7, 6, 8], [6, 8, 8], [7, 8, 8]])
    next_state = np.concatenate([next_state, np.full((2, 3), -1)])
    probability = np.zeros((9, 2, 3))
    probability[:7] = rng.dirichlet([1.5, 1.0, 0.5], size=(7, 2))
    cost = np.repeat(rng.uniform(0.1, 1.0, size=(9, 2, 1)), 3, axis=2)
    shape = (9, 2, 3)
    outcomes = Outcomes(
        tasks.KINDS,
        probability,
        np.broadcast_to(next_state[:, None], shape),
        np.zeros(shape),
        cost,
        np.full(shape, np.nan),
    )
    terminal = np.arange(9) >= 7
    arrays = SimpleNamespace(
        step=np.array([0, 1, 1, 2, 2, 2, 3, 4, 4]),
        terminal=terminal,
        success=np.arange(9) == 7,
        root=np.arange(9) == 0,
    )
    return SimpleNamespace(arrays=arrays, outcomes=None), outcomes


def roll(log: Any, outcomes: Outcomes, policy: np.ndarray, cap: int, weight: float) -> float:
    """Expected value of a policy table (S, cap + 1), by walking the tree."""

    def walk(state: int, left: int) -> float:
        if log.arrays.terminal[state]:
            return float(log.arrays.success[state])
        choice = int(policy[state, left])
        assert choice == 0 or left > 0
        after = [walk(int(s), left - choice) for s in outcomes.next_state[state, choice]]
        return float(outcomes.probability[state, choice] @ after) - weight * outcomes.cost_usd[state, choice, 0]

    return walk(0, cap)


@pytest.mark.parametrize("weight", [0.0, 0.2])
def test_budget_latent_knowing_is_the_best_of_all_policy_tables(weight: float) -> None:
    log, outcomes = tiny_budget(3)
    cap = 1
    found = budget.latent_knowing(log, np.array([0]), EXPENSIVE, cap, weight, 1.0, outcomes)
    best = -np.inf
    for bits in itertools.product((0, 1), repeat=7):  # what to do with a call left; without one the cheap choice acts
        policy = np.zeros((9, 2), int)
        policy[:7, 1] = bits
        best = max(best, roll(log, outcomes, policy, cap, weight))
    assert found.value[0] == pytest.approx(best, abs=1e-12)
    assert roll(log, outcomes, found.policy, cap, weight) == pytest.approx(best, abs=1e-12)


def test_budget_value_grows_with_the_cap_up_to_no_cap(tasked: Log) -> None:
    roots = np.flatnonzero(np.asarray(tasked.arrays.root))
    values = [budget.latent_knowing(tasked, roots, EXPENSIVE, cap).value for cap in (0, 1, 2, 4, 30)]
    free = budget.latent_knowing(tasked, roots, EXPENSIVE)
    for less, more in itertools.pairwise([*values, free.value]):
        assert (more >= less - 1e-12).all()
    np.testing.assert_allclose(values[-1], free.value, atol=1e-12)
    assert values[2].mean() > values[0].mean() + 0.05
    assert budget.latent_knowing(tasked, roots, EXPENSIVE, 0).expensive_calls.max() == 0
    assert budget.latent_knowing(tasked, roots, EXPENSIVE, 2).expensive_calls.max() <= 2


def test_budget_clairvoyant_equals_the_search_of_all_paths(tasked: Log) -> None:
    arrays = tasked.arrays
    rows = recorded_rows(arrays)[:, :, 1]
    roots = np.flatnonzero(np.asarray(arrays.root))

    def paths(state: int) -> set[tuple[int, float]]:
        """(expensive calls, cost) of the undominated ways to succeed."""
        if arrays.terminal[state]:
            return {(0, 0.0)} if arrays.success[state] else set()
        found = set()
        for choice in (0, 1):
            row = rows[state, choice]
            for calls, cost in known[int(arrays.next_state[row])]:
                found.add((calls + choice, cost + float(arrays.cost_usd[row])))
        return {p for p in found if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in found)}

    known: dict[int, set[tuple[int, float]]] = {}
    for state in np.argsort(-np.asarray(arrays.step, int), kind="stable"):
        known[int(state)] = paths(int(state))
    for cap in (1, 3, None):
        found = budget.clairvoyant(arrays, roots, EXPENSIVE, rows, cap, cost_weight=2.0)
        for i, root in enumerate(roots):
            ways = [p for p in known[int(root)] if cap is None or p[0] <= cap]
            assert found.success[i] == bool(ways)
            least = min((cost for _, cost in ways), default=np.inf)
            assert found.least_cost_usd[i] == pytest.approx(least)
            fewest = min((calls for calls, _ in known[int(root)]), default=np.inf)
            assert found.least_expensive_calls[i] == fewest
            if ways and 1.0 - 2.0 * least > 0.0:  # else failing cheaply may be better
                assert found.value[i] == pytest.approx(1.0 - 2.0 * least)


def test_budget_clairvoyant_beats_latent_knowing_on_average(tasked: Log) -> None:
    roots = np.flatnonzero(np.asarray(tasked.arrays.root))
    rows = recorded_rows(tasked.arrays)
    for cap in (2, 4, 6):
        seen = [budget.clairvoyant(tasked.arrays, roots, EXPENSIVE, rows[:, :, k], cap) for k in range(rows.shape[2])]
        knowing = budget.latent_knowing(tasked, roots, EXPENSIVE, cap)
        assert np.mean([seer.success.mean() for seer in seen]) > knowing.success.mean()


def test_least_cost_is_the_cost_of_a_wholly_cached_prompt(tasked: Log) -> None:
    arrays = tasked.arrays
    least = budget.least_cost_usd(arrays)
    rows = recorded_rows(arrays)
    for state in (0, 1, 7):
        row = rows[state, 1, 0]
        prompt, completion = float(arrays.prompt_tokens[row]), float(arrays.completion_tokens[row])
        per_token = 2.0 if arrays.root[state] else 0.5
        assert least[row] == pytest.approx((per_token * prompt + 8.0 * completion) * 1e-6)
    roots = np.flatnonzero(np.asarray(arrays.root))
    recorded = budget.clairvoyant(arrays, roots, EXPENSIVE, rows[:, :, 0], 3)
    cached = budget.clairvoyant(arrays, roots, EXPENSIVE, rows[:, :, 0], 3, cost_usd=least)
    won = recorded.success
    assert (cached.least_cost_usd[won] < recorded.least_cost_usd[won]).all()


@pytest.mark.usefixtures("handmade")
@pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning")
def test_least_cost_is_below_every_charge_whatever_was_recorded() -> None:
    log = many_tasks()
    rows = log.responses.to_pylist()
    rng = np.random.default_rng(3)
    for row in rows:
        row["cost_usd"] = float(rng.uniform(0, 0.02)) if rng.random() < 0.5 else None
        row["error"] = "timeout" if rng.random() < 0.3 else None
    env = budget_vec(make_log(log.states.to_pylist(), rows), 20, prompt_cache=True, preference=0.3)
    dynamics = env.dynamics
    played = rollout(env, RandomPolicy(), dynamics.roots)
    evaluation = evaluation_of(env, (Setting.weight(0.3),))
    budget.add_ceilings(evaluation, lambda split, **_: env, [Setting.weight(0.3)], 1, 0)
    assert (played.reward <= evaluation.scores["clairvoyant"][0].reward + 1e-9).all()
