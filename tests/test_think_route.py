"""ThinkRoute on logs made by hand: what every action does, what is masked, and what must never be seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from logs import Play, Row, background, hop_log, make_log, response, think_env, think_vec, walk_log
from numpy.testing import assert_allclose, assert_array_equal
from random_logs import many_questions, of_test, same, watch

from rlroute.envs import think_route
from rlroute.envs.think_route.dynamics import ThinkRouteArguments
from rlroute.envs.think_route.experience import response_worth

pytestmark = [
    pytest.mark.usefixtures("handmade"),
    pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning"),
]

# A call in hop_log: 100 prompt and 10 completion tokens.
SMALL_USD, LARGE_USD = 120e-6, 1200e-6
C_REF = 1400e-6  # large is the best single choice on train: 100 prompt tokens, 20 completion tokens


def play(task: str = "hop", *actions: str, seed: int = 0, **arguments: Any) -> Play:
    return Play(think_env(hop_log(), **arguments), task, seed).do(*actions)


# -- think, call, accept ---------------------------------------------------------------------------


def test_thinking_goes_to_the_first_sub_question_and_costs_the_routers_tokens() -> None:
    game = play("hop", think_cost_usd=7e-6)
    assert "think" in game.legal
    game.do("think")
    assert game.state == "hop/1"
    assert_allclose(game.info["reward_vector"], [0, 7e-6, 0, 0])
    assert_allclose(game.reward, -0.1 * 7e-6 / C_REF)
    assert not game.terminated
    assert "think" not in game.legal
    assert game.seen("depth") == 0.25


def test_calling_before_thinking_asks_the_whole_question() -> None:
    game = play("hop", "call large")
    assert game.state == "hop"
    assert_allclose(game.info["reward_vector"], [0, LARGE_USD, 5, 0])
    game.do("accept large")
    assert game.terminated
    assert game.quality == 1
    assert game.reward == 1


def test_thinking_is_still_possible_after_a_call_and_forgets_it() -> None:
    game = play("hop", "call large", "think")
    assert game.state == "hop/1"
    assert game.legal == {"call small", "call large"}
    assert game.seen("heard") == 0
    assert game.seen("rounds_left") == 0.75


def test_a_plain_question_cannot_be_thought_about() -> None:
    env = think_env(hop_log(), split="train")
    assert Play(env, "train").legal == {"call small", "call large"}


def test_accepting_in_a_sub_question_leads_to_the_next_one_keyed_by_the_answer() -> None:
    assert play("hop", "think", "call large", "accept large").state == "hop/2.bob"
    wrong = play("hop", "think", "call small", "accept small")
    assert wrong.state == "hop/2.ann"
    assert not wrong.terminated
    assert wrong.reward == 0
    assert wrong.quality == 0
    assert wrong.legal == {"call small", "call large"}


@pytest.mark.parametrize(
    ("first", "second", "quality"),
    [("large", "large", 1.0), ("large", "small", 0.0), ("small", "large", 0.0), ("small", "small", 0.0)],
)
def test_the_last_accepted_answer_is_scored_and_nothing_before_it(first: str, second: str, quality: float) -> None:
    game = play("hop", "think", f"call {first}", f"accept {first}", f"call {second}")
    assert not game.terminated
    assert game.quality == 0
    game.do(f"accept {second}")
    assert game.terminated
    assert not game.truncated
    assert game.info["reward_vector"].tolist() == [quality, 0, 0, 0]


def test_several_choices_may_be_heard_before_one_is_accepted() -> None:
    game = play("hop", "think", "call small", "call large")
    assert {"accept small", "accept large"} <= game.legal
    assert game.do("accept large").state == "hop/2.bob"


def test_accept_is_masked_until_that_choice_has_answered_here() -> None:
    game = play("hop")
    assert not {"accept small", "accept large"} & game.legal
    game.do("call small")
    assert "accept small" in game.legal
    assert "accept large" not in game.legal


def test_accept_takes_the_latest_response_of_the_choice() -> None:
    env = think_env(hop_log())
    game = Play(env, "hop")
    for _ in range(3):
        game.do("call small")
        latest = env.dynamics.heard_row[0, env.dynamics.num_heard[0] - 1]
        assert env.dynamics.latest_row[0, 0] == latest
    expected = float(env.dynamics.arrays.quality[latest])
    assert game.do("accept small").quality == expected


def test_accepting_an_empty_reply_to_a_sub_question_ends_the_episode_with_nothing() -> None:
    game = play("silent", "think", "call small", "accept small")
    assert game.terminated
    assert game.quality == 0


# -- rounds and attempts ---------------------------------------------------------------------------


@pytest.mark.parametrize("max_rounds", [0, 40_000])
def test_rounds_that_cannot_be_counted_are_refused(max_rounds: int) -> None:
    with pytest.raises(ValueError, match=f"max_rounds={max_rounds}: expected 1 to 32,767 calls"):
        ThinkRouteArguments(max_rounds=max_rounds)


def test_after_max_rounds_only_accepting_is_allowed() -> None:
    assert play("hop", "call small", "call small", max_rounds=2).legal == {"accept small"}
    assert play("hop", "call small", "call large", max_rounds=2).legal == {"accept small", "accept large"}
    assert play("hop", "call small", "call small", "call small", "call large").legal == {
        "accept small",
        "accept large",
    }


def test_rounds_count_over_the_whole_episode_not_per_sub_question() -> None:
    game = play("hop", "call small", "think", "call large", "accept large", max_rounds=3)
    assert_allclose(game.seen("rounds_left"), 1 / 3)
    game.do("call large")
    assert game.legal == {"accept large"}


def test_nothing_heard_at_all_is_quality_zero() -> None:
    game = play("hop", "think", "call large", "accept large", max_rounds=1)
    assert game.terminated
    assert not game.truncated
    assert game.quality == 0
    assert game.state == "hop/2.bob"


def test_every_call_hears_another_attempt_until_they_are_used_up() -> None:
    orders = set()
    for seed in range(30):
        env = think_env(hop_log())
        game = Play(env, "hop", seed)
        for _ in range(3):
            assert "call small" in game.legal
            game.do("call small")
        rows = env.dynamics.heard_row[0, :3].tolist()
        first = int(env.dynamics.arrays.cell[env.dynamics.state[0] * 2])
        assert sorted(rows) == [first, first + 1, first + 2]
        assert "call small" not in game.legal
        assert "call large" in game.legal
        orders.add(tuple(rows))
    assert len(orders) == 6


def test_with_repeat_same_the_last_answer_comes_again_at_full_price() -> None:
    env = think_env(hop_log(), repeat="same")
    game = Play(env, "hop").do("call large")
    before = game.cost_usd
    assert "call large" in game.legal
    game.do("call large", "call large")
    assert len(set(env.dynamics.heard_row[0, :3])) == 1
    assert_allclose(game.cost_usd, 3 * before)
    game = Play(env, "hop").do("call small", "call small", "call small", "call small")
    rows = env.dynamics.heard_row[0].tolist()
    assert len(set(rows[:3])) == 3
    assert rows[3] == rows[2]


def test_attempts_are_counted_afresh_in_every_sub_question() -> None:
    game = play("hop", "think", "call large", "accept large")
    assert {"call small", "call large"} <= game.legal


# -- what was said ---------------------------------------------------------------------------------


def test_agreement_length_and_failure_of_what_was_heard_are_observed() -> None:
    game = play("hop", "think", "call large", "accept large", "call small", "call large")
    assert game.seen("distinct_answers") == 0.5
    assert game.seen("agreement", "small") == game.seen("agreement", "large") == 0.5
    same = play("hop", "think", "call small", "accept small", "call small", "call large")
    assert same.seen("distinct_answers") == 0.25
    assert same.seen("agreement", "small") == same.seen("agreement", "large") == 1
    assert same.seen("support", "small") == 0.5
    assert_allclose(same.seen("length", "small"), np.log1p(4) / 10)
    silent = play("silent", "think", "call small")
    assert silent.seen("failed", "small") == 1
    assert silent.seen("answered", "small") == 1
    assert silent.seen("failed", "large") == silent.seen("answered", "large") == 0
    assert silent.seen("agreement", "small") == silent.seen("length", "small") == 0


def test_a_checker_that_is_observed_speaks_with_every_response() -> None:
    game = play("hop", "think", "call small", "call large")
    assert game.seen("verdict", "small") == 0
    assert game.seen("verdict", "large") == 1
    assert game.seen("verdict_seen", "small") == game.seen("verdict_seen", "large") == 1


def test_without_a_checker_no_verdict_is_seen() -> None:
    game = play("hop", "think", "call small", "call large", checker=None)
    for choice in ("small", "large"):
        assert game.seen("verdict", choice) == 0.5
        assert game.seen("verdict_seen", choice) == 0
    assert game.layout.context_actions == ("think",)


def test_checking_is_an_action_with_a_price_on_the_latest_response() -> None:
    game = play("hop", checker="action", check_cost_usd=5e-6)
    assert "check" not in game.legal
    game.do("think", "call small", "call large")
    assert "check" in game.legal
    assert game.seen("verdict_seen", "large") == 0
    game.do("check")
    assert_allclose(game.info["reward_vector"], [0, 5e-6, 0, 0])
    assert game.seen("verdict", "large") == 1
    assert game.seen("verdict_seen", "large") == 1
    assert game.seen("verdict_seen", "small") == 0
    assert "check" not in game.legal
    assert game.seen("rounds_left") == 0.5


def test_a_response_without_a_verdict_cannot_be_checked() -> None:
    env = think_env(hop_log(), split="train", checker="action")
    assert "check" not in Play(env, "train").do("call small").legal


@pytest.mark.parametrize("commit", ["plurality", "verdict"])
def test_commit_rules_replace_the_policys_own_choice(commit: str) -> None:
    env = think_env(hop_log(), commit=commit)
    for seed in range(20):
        game = Play(env, "hop", seed).do("call small", "call small", "call large")
        answers = [int(env.dynamics.arrays.answer[row]) for row in env.dynamics.heard_row[0, :3]]
        qualities = [float(env.dynamics.arrays.quality[row]) for row in env.dynamics.heard_row[0, :3]]
        counts = [answers.count(answer) for answer in answers]
        plural = qualities[counts.index(max(counts))]
        game.do("accept small")
        assert game.quality == (1.0 if commit == "verdict" else plural)


def test_commit_rules_break_ties_for_the_earliest_response() -> None:
    path = ("think", "call large", "accept large")
    assert play("hop", *path, "call small", "call large", "accept large", commit="plurality").quality == 0
    assert play("hop", *path, "call large", "call small", "accept small", commit="plurality").quality == 1
    # A verdict that the policy may not see decides nothing.
    hidden = play("hop", *path, "call small", "call large", "accept large", commit="verdict", checker=None)
    assert hidden.quality == 0


# -- masks, limits, budgets ------------------------------------------------------------------------


def test_a_masked_action_changes_nothing_but_the_time_left() -> None:
    game = play("hop", "call small", max_episode_steps=4)
    before, legal, totals = game.observation, game.legal, game.info["totals"]
    for action in ("accept large", "accept large"):
        game.do(action)
        assert game.reward == -1
        assert not game.terminated
        assert not game.truncated
        assert game.info["reward_vector"].tolist() == [0, 0, 0, 0]
        assert_array_equal(game.observation, before)
        assert_array_equal(game.info["totals"], totals)
        assert game.legal == legal
    game.do("accept large")
    assert game.truncated
    assert not game.terminated
    assert game.reward == -1


def test_the_default_time_limit_leaves_room_for_every_legal_episode() -> None:
    game = play("hop", checker="action")
    game.do("think", "call small", "check", "call large", "check", "accept large")
    game.do("call small", "check", "call large", "check", "accept large")
    assert game.terminated
    assert not game.truncated


def test_a_budget_in_usd_reserves_the_most_a_call_can_cost() -> None:
    # Reserves: small 100 · 1 + 100 · 2 = 300, large 3000 USD per million.
    env = think_env(hop_log(), budget_usd=3100e-6)
    game = Play(env, "hop")
    assert {"call small", "call large"} <= game.legal
    assert_allclose(game.seen("reserve", "large"), 3000 / 3100, rtol=1e-6)
    game.do("call small")
    left = 3100e-6 - game.cost_usd
    assert ("call large" in game.legal) == (left >= 3000e-6)
    assert "call large" not in game.legal
    assert "call small" in game.legal
    assert_allclose(env.dynamics.usd_left[0], left)


def test_a_reserve_that_is_just_covered_is_allowed() -> None:
    assert "call large" in play("hop", budget_usd=3000e-6).legal
    assert "call large" not in play("hop", budget_usd=2999e-6).legal


def test_thinking_and_checking_need_their_price() -> None:
    assert "think" not in play("hop", think_cost_usd=500e-6, budget_usd=400e-6).legal
    assert "think" in play("hop", think_cost_usd=400e-6, budget_usd=400e-6).legal
    dear: dict[str, Any] = {"checker": "action", "check_cost_usd": 300e-6, "budget_usd": 400e-6}
    assert "check" not in play("hop", "think", "call small", **dear).legal


def test_a_budget_that_runs_out_with_nothing_heard_is_a_failure() -> None:
    # Thinking leaves 299: less than any reserve.
    game = play("hop", "think", think_cost_usd=101e-6, budget_usd=400e-6)
    assert game.terminated
    assert not game.truncated
    assert game.quality == 0


def test_what_was_heard_can_be_accepted_without_money() -> None:
    game = play("hop", "think", "call small", budget_usd=310e-6)
    assert game.legal == {"accept small"}
    game.do("accept small")
    assert game.terminated
    assert game.quality == 0


def test_a_log_without_prompt_tokens_cannot_be_played_under_a_budget() -> None:
    states, responses = background()
    states.append({"state_id": "q", "text": "What is lead?", "split": "test"})
    responses += [response("q", choice, "metal", 1.0) for choice in ("small", "large")]
    for row in responses:
        row |= {"prompt_tokens": None, "cost_usd": 0.001}
    with pytest.raises(ValueError, match="prompt tokens"):
        think_env(make_log(states, responses), budget_usd=1.0)


def test_partial_logs_must_be_asked_for_and_are_masked() -> None:
    states, responses = background()
    states.append({"state_id": "q", "text": "What is lead?", "split": "test"})
    responses.append(response("q", "small", "metal", 1.0))
    log = make_log(states, responses, coverage="partial")
    with pytest.raises(ValueError, match=r"partial.*missing='mask'"):
        think_env(log)
    assert Play(think_env(log, missing="mask"), "q").legal == {"call small"}


# -- rewards ---------------------------------------------------------------------------------------


def test_linear_steps_sum_to_quality_less_weighted_cost_and_latency() -> None:
    game = play("hop", preference=0.3, latency_preference=0.2)
    total = 0.0
    for action in ("think", "call small", "call large", "accept large", "call large", "accept large"):
        total += game.do(action).reward
    cost, latency = 2 * LARGE_USD + SMALL_USD, 3.0
    assert_allclose(game.info["totals"], [1, cost, latency, 0])
    assert_allclose(total, 1 - 0.3 * cost / C_REF - 0.2 * latency / 1.0)


def test_router_r1_counts_completion_tokens_of_all_calls_and_pays_at_the_end() -> None:
    env = think_env(hop_log(), reward="router_r1", preference=0.4)
    reference = env.dynamics.features.reference
    # One call on train costs 30 · 2 or 20 · 20 USD per million in completion tokens.
    low, high = np.percentile(np.sqrt([60e-6, 400e-6]), [5, 95])
    assert_allclose([reference.root_cost_p5, reference.root_cost_p95], [low, high])
    game = Play(env, "hop")
    for action in ("think", "call small", "call large", "accept large", "call small", "call large"):
        assert game.do(action).reward == 0
    root = np.sqrt((10 + 10) * 2e-6 + (10 + 10) * 20e-6)
    expected = 0.6 + 0.4 * (1 - np.clip((root - low) / (high - low), 0, 1))
    assert_allclose(game.do("accept large").reward, expected)
    lost = Play(env, "hop").do("think", "call small", "accept small", "call small", "accept small")
    assert lost.reward == 0


# -- what must never be seen -----------------------------------------------------------------------


@pytest.mark.parametrize("checker", ["observe", "action", None])
def test_gold_answers_and_qualities_reach_no_observation(checker: str | None) -> None:
    def other_truth(states: list[Row], responses: list[Row]) -> None:
        for state in states:
            if state["split"] == "test" and state.get("gold"):
                state["gold"] = ["green", "blue"]
        for _, row in of_test(states, responses):
            row["quality"] = 1.0 - row["quality"]

    before, paid, _ = watch(think_vec(many_questions(), 200, checker=checker))
    after, paid_otherwise, _ = watch(think_vec(many_questions(other_truth), 200, checker=checker))
    assert same(before, after)
    assert not same(paid, paid_otherwise)


@pytest.mark.parametrize("arguments", [{}, {"checker": "action"}, {"budget_usd": 700e-6}, {"repeat": "same"}])
def test_nothing_of_a_response_that_was_not_drawn_reaches_an_observation(arguments: dict[str, Any]) -> None:
    before, paid, drawn = watch(think_vec(many_questions(), 200, **arguments))
    changed = 0

    def other_responses(states: list[Row], responses: list[Row]) -> None:
        nonlocal changed
        rng = np.random.default_rng(6)
        for i, row in of_test(states, responses):
            if i not in drawn:
                row |= {
                    "answer": str(rng.choice(["red", "violet", "green"])),
                    "text": "other words",
                    "error": None,
                }
                row |= {"verdict": float(rng.random()), "quality": float(rng.random())}
                row |= {"completion_tokens": int(rng.integers(1, 61)), "latency_s": float(rng.random())}
                row["cost_usd"] = float(rng.random()) * 1e-5
                changed += 1

    after, paid_again, drawn_again = watch(think_vec(many_questions(other_responses), 200, **arguments))
    assert changed > 300
    assert drawn_again == drawn
    assert same(before + paid, after + paid_again)


def test_a_hidden_verdict_reaches_no_observation() -> None:
    def other_verdicts(states: list[Row], responses: list[Row]) -> None:
        for row in responses:
            row["verdict"] = 1.0 - row["verdict"]

    for checker, alike in ((None, True), ("observe", False)):
        stories = [watch(think_vec(many_questions(c), 200, checker=checker))[0] for c in (None, other_verdicts)]
        assert same(*stories) == alike


# -- groups ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", ["own", "shared"])
def test_slots_of_a_group_hear_their_own_attempts_or_shared_ones(noise: str) -> None:
    env = think_vec(many_questions(), 40, group_noise=noise)
    _, info = env.reset(seed=0, options={"group": 8})
    rows = []
    for _ in range(2):
        _, _, _, _, info = env.step(np.full(40, env.layout.action("call", 1)))
        rows.append(env.dynamics.latest_row[:, 1].reshape(5, 8))
    assert info["action_mask"].any()
    alike = (np.stack(rows) == np.stack(rows)[:, :, :1]).all(axis=(0, 2))
    assert alike.all() if noise == "shared" else not alike.any()
    tasks = env.dynamics.task.reshape(5, 8)
    assert (tasks == tasks[:, :1]).all()


def test_a_task_log_ends_at_terminal_states_with_their_success() -> None:
    game = Play(think_env(walk_log(2)), "test/0").do("call large", "accept large", "call large", "accept large")
    assert game.terminated
    assert game.quality == 1
    lost = Play(think_env(walk_log(2)), "test/0").do("call large", "accept large", "call small", "accept small")
    assert lost.terminated
    assert lost.quality == 0


def test_what_leads_to_a_terminal_state_is_worth_its_success() -> None:
    arrays = walk_log(3).arrays
    worth = response_worth(arrays)
    state = arrays.row_cell // arrays.num_choices
    # large wins wherever it acts to the end, small loses at the last step.
    last = arrays.step[state] == 2
    assert_array_equal(worth[last], np.tile([0.0, 1.0], 3))
    assert (worth[~last] == 1).all()


# -- actions that are none --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("actions", "found"),
    [
        ([0, 1, 5, -1], "action 5 of slot 2"),
        ([0, -3, 5, 1], "action -3 of slot 1"),
        ([0.0, 1.0, 1.5, 9.0], r"action 1\.5 of slot 2"),
        ([0.0, 1.0, np.nan, 1.0], "action nan of slot 2"),
        (["0", "1", "1", "1"], "actions of type <U1"),
        ([None] * 4, "actions of type object"),
    ],
)
def test_an_action_that_is_none_is_named_with_its_slot(actions: list[Any], found: str) -> None:
    env = think_vec(hop_log(), 4)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=rf"{found}: expected (a )?whole numbers? from 0 to 4"):
        env.step(actions)


def test_whole_floats_are_actions() -> None:
    env = think_vec(hop_log(), 2)
    env.reset(seed=0)
    assert_array_equal(env.step(np.array([1.0, 2.0], np.float32))[4]["totals"][:, 1] > 0, [True, True])


def test_the_spec_card_gives_masks_as_they_are() -> None:
    card = str(think_route.__doc__)
    row = next(line for line in card.splitlines() if line.startswith("| 1 |"))
    assert row.count("|") == 4
    for reason in ("nothing heard", "no verdict recorded", "checked already", "no round left", "price not covered"):
        assert reason in row
