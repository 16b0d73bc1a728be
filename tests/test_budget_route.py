"""BudgetRoute on logs made by hand: outcomes, budgets, the prompt cache; budgets over many random steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from logs import LARGE, SMALL, Play, Row, budget_env, budget_vec, make_log, response, walk_log
from numpy.testing import assert_allclose, assert_array_equal
from random_logs import many_tasks, of_test, same, watch

from rlroute.envs import replay
from rlroute.envs.budget_route.env import BudgetRouteVectorEnv
from rlroute.log import Log
from rlroute.policies import RandomPolicy
from rlroute.rollout import rollout

pytestmark = pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning")
by_hand = pytest.mark.usefixtures("handmade")


def play(log: Log, *actions: str, **arguments: Any) -> Play:
    return Play(budget_env(log, **arguments), "test/0").do(*(f"choose {name}" for name in actions))


# -- outcomes --------------------------------------------------------------------------------------


@by_hand
def test_success_is_known_at_the_end_only() -> None:
    game = play(walk_log(3))
    for name in ("small", "small"):
        game.do(f"choose {name}")
        assert not game.terminated
        assert game.quality == 0
    game.do("choose large")
    assert game.terminated
    assert not game.truncated
    assert game.quality == 1
    assert game.info["reward_vector"][0] == 1
    assert game.reward == 1


@by_hand
def test_an_end_without_success_is_a_failure() -> None:
    assert play(walk_log(3), "large", "large", "small").quality == 0
    assert play(walk_log(3, last="lost"), "large", "large", "large").quality == 0


@by_hand
def test_a_response_that_leads_nowhere_is_a_failure_whatever_its_quality() -> None:
    log = walk_log(2, last="nowhere")
    rows = log.responses.to_pylist()
    for row in rows:
        row["quality"] = 1.0
    states = log.states.to_pylist()
    game = play(make_log(states, rows), "large", "large")
    assert game.terminated
    assert game.quality == 0
    assert game.reward == 0


@by_hand
def test_a_log_without_ends_is_refused() -> None:
    states = [{"state_id": s, "split": s, "text": s} for s in ("train", "val", "test")]
    log = make_log(states, [response(s["state_id"], c, "x", 1.0) for s in states for c in ("small", "large")])
    with pytest.raises(ValueError, match="no terminal states"):
        budget_env(log)


@by_hand
def test_cost_enters_the_reward_when_a_preference_is_given() -> None:
    game = play(walk_log(2), preference=0.5, latency_preference=0.1, prompt_cache=False)
    total = game.do("choose large").reward + game.do("choose large").reward
    # Prompts of 100 and 200 tokens at 10 USD, twice 10 completion tokens at 20 USD per million.
    cost = (100 + 200) * 10e-6 + 2 * 10 * 20e-6
    c_ref, l_ref = game.dynamics.c_ref, game.dynamics.l_ref
    assert_allclose([c_ref, l_ref], [cost, 120.0])  # large alone succeeds on train
    assert_allclose(total, 1 - 0.5 - 0.1)
    assert_allclose(game.info["totals"], [1, cost, 120, 0])


@by_hand
def test_router_r1_pays_a_success_by_the_completion_tokens_of_all_its_calls() -> None:
    game = play(walk_log(2), "large", reward="router_r1", preference=0.4)
    assert game.reward == 0
    reference = game.dynamics.features.reference
    root = np.sqrt(2 * 10 * 20e-6)
    saved = 1 - np.clip((root - reference.root_cost_p5) / (reference.root_cost_p95 - reference.root_cost_p5), 0, 1)
    assert_allclose(game.do("choose large").reward, 0.6 + 0.4 * saved)
    assert play(walk_log(2), "large", "small", reward="router_r1", preference=0.4).reward == 0


@by_hand
def test_router_r1_counts_the_whole_cost_where_completion_tokens_are_unknown() -> None:
    log = walk_log(2)
    rows = [row | {"completion_tokens": None, "cost_usd": 0.01} for row in log.responses.to_pylist()]
    game = play(make_log(log.states.to_pylist(), rows), "small", "large", reward="router_r1")
    assert_allclose(game.dynamics.totals.output_cost_usd, 0.02)


@by_hand
def test_running_out_of_steps_truncates() -> None:
    game = play(walk_log(4), "small", "small", max_episode_steps=2)
    assert game.truncated
    assert not game.terminated
    assert game.quality == 0
    finished = play(walk_log(2), "large", "large", max_episode_steps=2)
    assert finished.terminated
    assert not finished.truncated


@by_hand
def test_a_masked_action_changes_nothing_but_the_time_left() -> None:
    game = play(walk_log(4), budget_calls=0, max_episode_steps=3)
    before = game.observation
    for _ in range(2):
        game.do("choose large")
        assert game.reward == -1
        assert not game.terminated
        assert not game.truncated
        assert not game.info["reward_vector"].any()
        assert_array_equal(game.observation, before)
    game.do("choose large")
    assert game.truncated
    assert not game.terminated


# -- budgets ---------------------------------------------------------------------------------------


@by_hand
@pytest.mark.parametrize("calls", [0, 1, 2, 3])
def test_budget_calls_is_exact(calls: int) -> None:
    game = play(walk_log(4), budget_calls=calls)
    made = 0
    while not game.terminated:
        assert ("choose large" in game.legal) == (made < calls)
        assert "choose small" in game.legal
        assert_allclose(game.seen("calls_left"), np.log2(1 + calls - made) / 4)
        assert game.seen("one_call_left") == (calls - made == 1)
        if made < calls:
            game.do("choose large")
            made += 1
        else:
            game.do("choose small")
    assert game.dynamics.expensive_calls[0] == calls
    assert game.dynamics.calls[0] == 4


@by_hand
def test_always_large_under_a_cap_spends_it_first_and_is_then_masked() -> None:
    env = budget_vec(walk_log(6), 5, budget_calls=2)
    _, info = env.reset(seed=0)
    chosen = []
    while env.dynamics.active.any():
        action = np.where(info["action_mask"][:, 1] == 1, 1, 0)
        chosen.append(action)
        _, _, _, _, info = env.step(action)
    assert_array_equal(np.stack(chosen), np.repeat([[1], [1], [0], [0], [0], [0]], 5, axis=1))
    assert (env.dynamics.expensive_calls == 2).all()
    assert not env.dynamics.totals.quality.any()


@by_hand
def test_which_choices_are_expensive_can_be_said() -> None:
    log = walk_log(3)
    assert play(log, budget_calls=0).legal == {"choose small"}
    assert play(log, budget_calls=0, expensive=["small"]).legal == {"choose large"}
    assert play(log, budget_calls=0, expensive=()).legal == {"choose small", "choose large"}
    assert play(log, expensive=("small",)).seen("expensive", "small") == 1
    with pytest.raises(ValueError, match=r"'huge' is unknown.*'small', 'large'"):
        budget_env(log, expensive=["huge"])


@by_hand
def test_nothing_legal_ends_the_episode_failed() -> None:
    both = play(walk_log(3), "small", budget_calls=1, expensive=("small", "large"))
    assert both.terminated
    assert not both.truncated
    assert both.quality == 0


@by_hand
def test_an_episode_ends_failed_when_nothing_is_affordable() -> None:
    # small reserves 300, 400, 500 USD per million at steps 0, 1, 2 and costs 120, 220, 320 of it.
    game = play(walk_log(3), "small", prompt_cache=False, budget_usd=520e-6)
    assert game.legal == {"choose small"}
    assert_allclose(game.dynamics.usd_left[0], 400e-6)
    game.do("choose small")
    assert game.terminated
    assert not game.truncated
    assert game.quality == 0
    assert game.reward == 0
    assert game.legal == set()


@by_hand
def test_an_episode_that_cannot_afford_its_first_step_ends_failed_at_once() -> None:
    # Both caps are legal, as a short prompt could be paid; the task at hand has a long one.
    log = walk_log(3)
    states = log.states.to_pylist()
    states.append(states[0] | {"state_id": "tiny", "task_id": "tiny", "group_id": "tiny", "split": "test"})
    states[-1]["text"] = "tiny"
    rows = [*log.responses.to_pylist(), *(response("tiny", c, prompt_tokens=1) for c in ("small", "large"))]
    game = play(make_log(states, rows), budget_usd=250e-6)
    assert game.legal == set()
    game.do("choose small")
    assert game.terminated
    assert game.quality == 0
    assert game.reward == 0
    assert game.cost_usd == 0


@by_hand
def test_a_cap_below_the_cheapest_step_is_refused_with_the_least_that_is_allowed() -> None:
    for cap in (299e-6, (299e-6, 1.0)):
        with pytest.raises(ValueError, match=r"below the cheapest step.*0\.0003 USD.*'small'"):
            budget_env(walk_log(3), budget_usd=cap)
    assert play(walk_log(3), budget_usd=300e-6).legal == {"choose small"}


@by_hand
def test_budget_usd_needs_limits_and_prices() -> None:
    log = walk_log(2)
    for missing in ("max_completion_tokens", "output_usd_per_mtok"):
        rows = [row | {"cost_usd": 1e-6} for row in log.responses.to_pylist()]
        choices = [SMALL, LARGE | {missing: None, "input_usd_per_mtok": None}]
        with pytest.raises(ValueError, match=r"max_completion_tokens and prices.*large"):
            budget_env(make_log(log.states.to_pylist(), rows, choices), budget_usd=1.0)


@by_hand
def test_the_reserve_covers_the_longest_prompt_and_completion() -> None:
    # 10 USD in, 20 USD out per million: 100 prompt tokens and 100 completion tokens are 3,000.
    assert "choose large" in play(walk_log(3), budget_usd=3000e-6).legal
    assert "choose large" not in play(walk_log(3), budget_usd=2999e-6).legal


def recorded(log: Log, state: str, choice: str, **values: Any) -> Log:
    """The log with other values in the responses of `choice` in `state`."""
    rows = log.responses.to_pylist()
    for row in rows:
        if row["state_id"] == state and row["choice"] == choice:
            row |= values
    return make_log(log.states.to_pylist(), rows)


# What large may reserve in test/1: 200 prompt tokens at 10 USD and 100 completion tokens at 20 USD per million.
RESERVE = 4000e-6


@by_hand
@pytest.mark.parametrize(
    ("values", "cache", "charge"),
    [
        ({"completion_tokens": 101}, True, "0.00402"),
        ({"completion_tokens": 101}, False, "0.00402"),
        ({"cost_usd": 0.005}, False, "0.005"),
        ({"cost_usd": 0.005, "error": "500 but billed"}, True, "0.005"),
    ],
)
def test_a_cap_that_a_recorded_charge_could_break_is_refused(values: dict[str, Any], cache: bool, charge: str) -> None:
    log = recorded(walk_log(3), "test/1", "large", **values)
    expected = rf"'large' in state 'test/1' costs {charge} USD; expected at most its reserve of 0\.004 USD"
    with pytest.raises(ValueError, match=expected):
        budget_env(log, budget_usd=1.0, prompt_cache=cache)
    assert budget_env(log, prompt_cache=cache).reset()  # without a cap nothing is reserved


@by_hand
def test_a_charge_that_the_reserve_covers_is_allowed() -> None:
    for values in ({"completion_tokens": 100}, {"cost_usd": RESERVE * (1 + 1e-12)}):
        log = recorded(walk_log(3), "test/1", "large", **values)
        assert budget_env(log, budget_usd=1.0, prompt_cache=False).reset()
    # With the prompt cache the tokens are charged, whatever was recorded.
    assert budget_env(recorded(walk_log(3), "test/1", "large", cost_usd=0.005), budget_usd=1.0).reset()


charges = st.one_of(st.none(), st.floats(0, 5e-3), st.sampled_from([3000e-6, 4000e-6]))
calls = st.tuples(st.integers(0, 105), st.integers(1, 300), charges, st.sampled_from([None, "500", "empty"]))


def charged(row: Row, cache: bool) -> float:
    """What an episode pays for a response at most."""
    price = LARGE if row["choice"] == "large" else SMALL
    tokens = (
        row["prompt_tokens"] * price["input_usd_per_mtok"] + row["completion_tokens"] * price["output_usd_per_mtok"]
    )
    if row["cost_usd"] is not None and (row["error"] or not cache):
        return float(row["cost_usd"])
    return 0.0 if row["error"] == "500" else float(tokens) / 1e6


@by_hand
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(calls, min_size=1, max_size=4), st.floats(0.0031, 0.02), st.booleans(), st.integers(0, 9))
def test_no_cap_is_exceeded_on_a_log_that_passes(
    recordings: list[tuple[int, int, float | None, str | None]], cap: float, cache: bool, seed: int
) -> None:
    log = walk_log(4)
    rows = log.responses.to_pylist()
    for i, row in enumerate(rows):
        completion, prompt, cost, error = recordings[i % len(recordings)]
        row |= {"completion_tokens": completion, "prompt_tokens": prompt, "cost_usd": cost, "error": error}
    log = make_log(log.states.to_pylist(), rows)
    covered = [charged(row, cache) - charged(row | {"completion_tokens": 100, "error": None}, True) for row in rows]
    if max(covered) > 1e-12:
        with pytest.raises(ValueError, match="could be exceeded"):
            budget_vec(log, 20, budget_usd=(cap, cap + 1e-3), prompt_cache=cache)
        return
    env = budget_vec(log, 20, budget_usd=(cap, cap + 1e-3), prompt_cache=cache)
    assert not rollout(env, RandomPolicy(seed), env.dynamics.roots, 20, seed).violation.any()


@by_hand
def test_an_unusable_log_is_refused_before_anything_is_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*_: Any) -> None:
        raise AssertionError("fitted")

    monkeypatch.setattr(replay, "log_features", fit)
    log = walk_log(2)
    states, rows = log.states.to_pylist(), log.responses.to_pylist()
    with pytest.raises(ValueError, match="is partial"):
        budget_env(make_log(states, rows[:-1], coverage="partial"))
    with pytest.raises(ValueError, match="is empty"):
        budget_env(make_log([{**state, "split": None} for state in states], rows), split_salt=1, split=_absent(log))
    endless = [{"state_id": s, "split": s, "text": s} for s in ("train", "val", "test")]
    with pytest.raises(ValueError, match="no terminal states"):
        budget_env(make_log(endless, [response(s["state_id"], c, "x") for s in endless for c in ("small", "large")]))


def _absent(log: Log) -> str:
    """A split that holds no task at salt 1."""
    codes = set(log.splits(1)[log.arrays.root].tolist())
    return next(name for i, name in enumerate(("train", "val", "test")) if i not in codes)


# -- the prompt cache ------------------------------------------------------------------------------

PROMPTS = (100, 250, 400, 600)


@by_hand
def test_a_prompt_prefix_that_the_choice_has_seen_is_charged_at_the_cached_price() -> None:
    game = play(walk_log(4, prompts=PROMPTS, latency_s=10.0))
    costs = [float(game.do("choose small").info["reward_vector"][1]) for _ in range(4)]
    fresh, cached = 1e-6, 0.25e-6
    expected = [
        100 * fresh,
        150 * fresh + 100 * cached,
        150 * fresh + 250 * cached,
        200 * fresh + 400 * cached,
    ]
    assert_allclose(costs, np.array(expected) + 10 * 2e-6)


@by_hand
def test_switching_to_another_choice_pays_the_whole_prompt() -> None:
    game = play(walk_log(4, prompts=PROMPTS, latency_s=10.0))
    costs = [float(game.do(f"choose {c}").info["reward_vector"][1]) for c in ("small", "large", "small", "large")]
    expected = [
        100 * 1e-6 + 20e-6,
        250 * 10e-6 + 200e-6,
        300 * 1e-6 + 100 * 0.25e-6 + 20e-6,
        350 * 10e-6 + 250 * 1e-6 + 200e-6,
    ]
    assert_allclose(costs, expected)


@by_hand
def test_a_cached_prefix_lives_for_its_time_and_no_longer() -> None:
    # 60 s a call: small's prefix is 60 s old after one call of large, 120 s after two; it lives for 100 s.
    assert_allclose(
        play(walk_log(4, prompts=PROMPTS), "small", "large", "small").info["reward_vector"][1],
        300 * 1e-6 + 100 * 0.25e-6 + 20e-6,
    )
    assert_allclose(
        play(walk_log(4, prompts=PROMPTS), "small", "large", "large", "small").info["reward_vector"][1],
        600 * 1e-6 + 20e-6,
    )
    # A prefix that is exactly as old as its time to live is still there.
    assert_allclose(
        play(walk_log(4, prompts=PROMPTS, latency_s=100.0), "small", "large", "small").info["reward_vector"][1],
        300 * 1e-6 + 100 * 0.25e-6 + 20e-6,
    )


@by_hand
def test_the_cached_prefix_and_the_price_with_it_are_observed() -> None:
    game = play(walk_log(4, prompts=PROMPTS, latency_s=10.0), "small")
    assert_allclose(game.seen("cached", "small"), 100 / 250)
    assert game.seen("cached", "large") == 0
    assert_array_equal(game.dynamics.game.calls["prefix_tokens"], [[100, 0]])
    price = 150 * 1e-6 + 100 * 0.25e-6 + 10 * 2e-6  # ten completion tokens are the mean of train
    assert_allclose(game.seen("price", "small"), np.log2(price / game.dynamics.c_ref) / 8, rtol=1e-5)


@by_hand
def test_a_new_episode_starts_with_empty_caches() -> None:
    env = budget_env(walk_log(2, prompts=PROMPTS))
    first = Play(env, "test/0").do("choose small")
    second = Play(env, "test/0").do("choose small")
    assert first.cost_usd == second.cost_usd
    assert env.dynamics.visits.tolist() == [[1, 0]]


@by_hand
def test_without_the_prompt_cache_the_recorded_cost_is_charged() -> None:
    log = walk_log(3)
    rows = log.responses.to_pylist()
    for i, row in enumerate(rows):
        row["cost_usd"] = 0.001 * (i + 1)
    priced = make_log(log.states.to_pylist(), rows)
    game = play(priced, "small", prompt_cache=False)
    first = next(i for i, row in enumerate(rows) if row["state_id"] == "test/0")
    assert_allclose(game.cost_usd, 0.001 * (first + 1))
    assert game.seen("cached", "small") == 0
    assert_allclose(play(priced, "small", prompt_cache=True).cost_usd, 120e-6)


@by_hand
def test_the_prompt_cache_is_on_where_tokens_are_known_and_refused_where_not() -> None:
    log = walk_log(3)
    assert budget_env(log).dynamics.prompt_cache
    rows = [row | {"cost_usd": 0.01} for row in log.responses.to_pylist()]
    rows[3]["completion_tokens"] = None
    unknown = make_log(log.states.to_pylist(), rows)
    assert not budget_env(unknown).dynamics.prompt_cache
    with pytest.raises(ValueError, match="prompt_cache=True needs"):
        budget_env(unknown, prompt_cache=True)


@by_hand
def test_a_call_that_the_provider_did_not_bill_is_free_with_and_without_the_cache() -> None:
    log = walk_log(2)
    rows = log.responses.to_pylist()
    for row in rows:
        if row["choice"] == "small":
            row |= {"error": "503 overloaded", "cost_usd": None}
        else:
            row |= {"error": "empty answer", "cost_usd": None}
    faulty = make_log(log.states.to_pylist(), rows)
    for prompt_cache in (True, False):
        assert play(faulty, "small", prompt_cache=prompt_cache).cost_usd == 0
        assert_allclose(play(faulty, "large", prompt_cache=prompt_cache).cost_usd, 1200e-6)


@by_hand
def test_a_call_that_failed_costs_what_the_provider_billed_with_and_without_the_cache() -> None:
    log = recorded(walk_log(2), "test/0", "small", error="500 but billed", cost_usd=77e-6)
    for prompt_cache in (True, False):
        assert_allclose(play(log, "small", prompt_cache=prompt_cache).cost_usd, 77e-6)
    unfailed = recorded(walk_log(2), "test/0", "small", cost_usd=77e-6)
    assert_allclose(play(unfailed, "small", prompt_cache=True).cost_usd, 120e-6)


# -- what must never be seen -----------------------------------------------------------------------


CAPS = [
    {"budget_calls": (0, 6)},
    {"budget_usd": (0.005, 0.06)},
    {"budget_usd": (0.005, 0.06), "budget_calls": (1, 5)},
]


@by_hand
@pytest.mark.parametrize("arguments", [{}, {"prompt_cache": False}, *CAPS])
def test_nothing_of_a_response_that_was_not_drawn_reaches_an_observation(arguments: dict[str, Any]) -> None:
    before, paid, drawn = watch(budget_vec(many_tasks(), 200, **arguments))
    changed = 0

    def other_responses(states: list[Row], responses: list[Row]) -> None:
        nonlocal changed
        rng = np.random.default_rng(6)
        for i, row in of_test(states, responses):
            if i not in drawn:
                task, place = row["next_state_id"].split("/")
                other = {"won": "lost", "lost": "won"}.get(place) or f"{place[0]}.{1 - int(place[-1])}"
                row |= {"next_state_id": f"{task}/{other}", "quality": 1.0, "answer": "42", "verdict": 1.0}
                row |= {"completion_tokens": int(rng.integers(1, 101)), "latency_s": float(rng.random() * 60)}
                changed += 1

    after, paid_again, drawn_again = watch(budget_vec(many_tasks(other_responses), 200, **arguments))
    assert changed > 200
    assert drawn_again == drawn
    assert same(before + paid, after + paid_again)


@by_hand
def test_success_reaches_no_observation() -> None:
    def other_outcomes(states: list[Row], responses: list[Row]) -> None:
        for state in states:
            if state["split"] == "test" and state.get("terminal"):
                state["success"] = not state["success"]

    before, paid, _ = watch(budget_vec(many_tasks(), 200))
    after, paid_otherwise, _ = watch(budget_vec(many_tasks(other_outcomes), 200))
    assert same(before, after)
    assert not same(paid, paid_otherwise)


# -- many random steps -----------------------------------------------------------------------------


def violations(steps: int, **arguments: Any) -> tuple[int, int, int]:
    """Episodes, caps exceeded, and failures for want of money in `steps` legal random steps."""
    slots = 1000
    env = BudgetRouteVectorEnv(slots, log="tasks", split="train", autoreset="same_step", **arguments)
    rng = np.random.default_rng(0)
    _, info = env.reset(seed=0)
    dynamics = env.dynamics
    ended = broken = broke = 0
    for _ in range(steps // slots):
        mask = info["action_mask"]
        # Expensive choices most of the time, or a cap would hardly ever bind.
        score = np.where(mask == 1, rng.random(mask.shape) + np.array([0.0, 0.5]), -1)
        terms = (dynamics.terms.budget_usd.copy(), dynamics.terms.budget_calls.copy())
        spent, calls = dynamics.totals.cost_usd.copy(), dynamics.expensive_calls
        action = score.argmax(axis=1)
        _, reward, terminated, truncated, info = env.step(action)
        final = info.get("final_info", info)
        cost = np.where(terminated | truncated, final["totals"][:, 1], dynamics.totals.cost_usd)
        legal = mask[np.arange(slots), action] == 1
        calls = calls + (action == 1) * legal
        assert (cost >= spent).all()
        broken += int(((cost > terms[0] * (1 + 1e-9)) | (calls > terms[1])).sum())
        assert not (legal & (reward == -1)).any()
        ended += int(terminated.sum())
        broke += int((terminated & (final.get("action_mask", mask).sum(axis=1) == 0)).sum())
        assert not truncated.any()
    return ended, broken, broke


@pytest.mark.parametrize("caps", CAPS)
def test_no_cap_is_exceeded_in_200_000_random_steps(caps: dict[str, Any]) -> None:
    ended, broken, broke = violations(200_000, **caps)
    assert broken == 0
    assert ended > 10_000
    if "budget_usd" in caps:
        assert broke > 100


@pytest.mark.slow
@pytest.mark.parametrize("caps", CAPS)
def test_no_cap_is_exceeded_in_1_000_000_random_steps(caps: dict[str, Any]) -> None:
    ended, broken, _ = violations(1_000_000, **caps)
    assert broken == 0
    assert ended > 50_000
