"""The healing router's knobs: when it asks, escalates, redoes and retries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tool_graphs import make_wrong, refund_env, suite_of

from rlroute.envs.contest import vector_env
from rlroute.envs.tool_graph.graph import parse_graph
from rlroute.envs.tool_graph.healing import HealingRouter, Knobs
from rlroute.envs.tool_graph.transitions import DEMOTED, ESCALATED, GOAL
from rlroute.evaluation import Setting, evaluate
from rlroute.rollout import Episodes, rollout

ASKS = Knobs(escalate_at=1.0, ask_at=0.3)
CHAIN: dict[str, Any] = {
    "name": "chain",
    "tools": {"first": {"cost_usd": 1.0}, "second": {"cost_usd": 1.0, "after": ["first"]}},
    "goals": {"second": 1.0},
}


def play(env: Any, knobs: Knobs, episodes: int = 1) -> Episodes:
    return rollout(env, HealingRouter(knobs), env.dynamics.roots, episodes)


@pytest.mark.parametrize(
    ("risk", "knobs", "model_calls", "outcome"),
    [
        (0.0, ASKS, 0, GOAL),
        (0.6, ASKS, 1, ESCALATED),  # a true risk: the model knows
        (0.4, ASKS, 0, GOAL),  # no alarm, so the risk is small
        (0.6, Knobs(escalate_at=0.3), 0, ESCALATED),
        (0.6, Knobs(), 0, GOAL),
    ],
)
def test_before_an_irreversible_effect_it_asks_or_escalates(
    risk: float, knobs: Knobs, model_calls: int, outcome: int
) -> None:
    played = play(refund_env(risk=risk), knobs)
    assert played.extra["model_calls"][0] == model_calls
    assert played.extra["outcome"][0] == outcome
    assert played.extra["risk_breaches"][0] == (risk > 0.5 and outcome == GOAL)


def test_where_a_model_call_is_cheap_asking_about_risk_pays() -> None:
    def utility(model_cost: float, knobs: Knobs) -> float:
        env = vector_env("rlroute/ToolGraph-v0", "val", 512, faults="independent", model_cost=model_cost)
        return float(play(env, knobs, episodes=8).reward.mean())

    assert utility(0.02, ASKS) > utility(0.02, Knobs()) + 0.01
    assert utility(1.0, ASKS) < utility(1.0, Knobs()) - 0.01


def test_it_gives_up_asks_or_demotes_when_no_way_is_left() -> None:
    assert play(refund_env(down=["e-mail"]), Knobs()).extra["outcome"][0] == DEMOTED
    asked = play(refund_env(down=["lookup"]), Knobs(consult=True))
    assert (asked.extra["model_calls"][0], asked.extra["outcome"][0]) == (1, ESCALATED)
    assert play(refund_env(down=["lookup"]), Knobs()).extra["model_calls"][0] == 0


def test_what_was_seen_down_is_retried_only_with_retry() -> None:
    suite = suite_of(parse_graph(CHAIN, "chain"), down=["first"])
    env = vector_env("rlroute/ToolGraph-v0", "test", 1, log=suite)
    assert play(env, Knobs()).calls[0] == 1
    assert play(env, Knobs(retry=True)).calls[0] == 4


def test_with_redo_a_bad_output_is_not_built_on() -> None:
    env = refund_env()
    for knobs, called_again in ((Knobs(), False), (Knobs(redo=True), True)):
        router = HealingRouter(knobs)
        env.reset(seed=0)
        router.begin(env)
        mask = env.dynamics.action_mask
        lookup = 0
        make_wrong(env, lookup)
        env.step(np.array([4 + lookup]))
        env.step(np.array([0]))  # a consultation shows that the output is bad
        action = int(router.act(np.zeros((1, 1)), mask)[0])
        assert (action == 4 + lookup) == called_again


def test_it_is_played_once_for_all_prices_of_a_model_call_and_scored_as_if_at_each() -> None:
    class Reader(HealingRouter):
        reads_model_cost = True

    def make_env(split: str, **given: Any) -> Any:
        return vector_env("rlroute/ToolGraph-v0", split, 128, faults="independent", **given)

    settings = [Setting.model_cost(price) for price in (0.02, 0.3)]
    policies = {"once": HealingRouter(ASKS), "each": Reader(ASKS)}
    scores = evaluate(make_env, settings, policies, "val")
    np.testing.assert_allclose(scores.rewards("once"), scores.rewards("each"), rtol=1e-6)
    assert scores.rewards("once")[0] > scores.rewards("once")[1] + 0.01
