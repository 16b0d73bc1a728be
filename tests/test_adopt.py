"""A trained policy takes newcomers into its pool without being trained again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from logs import budget_vec, think_vec
from numpy.testing import assert_array_equal
from random_logs import many_questions, many_tasks

from rlroute.adopt import adopt
from rlroute.log import Log
from rlroute.policy import PolicyError, TrainedPolicy, load_policy, parameter_shapes
from rlroute.router import Router

pytestmark = [
    pytest.mark.usefixtures("handmade"),
    pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning"),
]


def trained_on(env: Any) -> TrainedPolicy:
    """A policy with random weights, as it would come out of training in `env`."""
    rng = np.random.default_rng(0)
    shapes = parameter_shapes(env.layout, 8)
    parameters = {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    card = env.dynamics.policy_card() | {"format": 1, "network": {"hidden": 8}}
    return TrainedPolicy(card, parameters, env.dynamics.policy_tensors())


def test_the_folder_decides_live_as_the_policy_does_in_the_environment(tmp_path: Path) -> None:
    log = many_questions()
    policy = trained_on(think_vec(log.without(["b"]), 1))
    env = think_vec(log, 20, newcomers=("b",), probes=12)
    router = Router.load(adopt(policy, env, tmp_path / "adopted"))
    assert router.choices == ("a", "b", "c")
    assert_array_equal(router.policy.parameters["trunk.weight"], policy.parameters["trunk.weight"])
    observation, info = env.reset(seed=0, options={"task": env.dynamics.roots})
    action = policy.act(observation, info["action_mask"])
    for slot, state in enumerate(env.dynamics.roots.tolist()):
        tokens = log.arrays.prompt_tokens_of[state]
        episode = router.episode(cost_weight=0.1)
        decision = episode.decide(log.state_text(state), prompt_tokens=int(tokens.max()), can_think=True)
        if tokens.min() == tokens.max():  # live, one number stands for all choices
            name, choice = env.layout.describe_action(int(action[slot]))
            assert (decision.action, decision.choice) == (name, None if choice is None else router.choices[choice])
        assert "b" in {label.split(" ")[-1] for label in decision.scores}


def test_a_few_recorded_answers_are_enough(tmp_path: Path) -> None:
    """Of the newcomer nothing is recorded but the answers to eight questions."""
    whole = many_questions()
    keep = set(whole.arrays.state_ids[(whole.splits() == 0) & whole.arrays.root][:8].tolist())
    rows = [r for r in whole.responses.to_pylist() if r["choice"] != "b" or r["state_id"] in keep]
    card = type(whole.card)("handmade", coverage="partial")
    log = Log.from_tables(card, whole.choices, whole.states, rows)
    policy = trained_on(think_vec(log.without(["b"]), 1, missing="mask"))
    env = think_vec(log, 1, newcomers=("b",), probes=8, missing="mask")
    assert Router.load(adopt(policy, env, tmp_path / "adopted")).choices == ("a", "b", "c")


def test_terms_of_training_stay_those_of_training(tmp_path: Path) -> None:
    log = many_tasks()
    policy = trained_on(budget_vec(log.without(["large"]), 1, budget_calls=(1, 4)))
    env = budget_vec(log, 1, newcomers=("large",), probes=6)
    adopted = load_policy(adopt(policy, env, tmp_path / "adopted"))
    assert adopted.card["arguments"]["budget_calls"] == [1, 4]
    assert adopted.card["arguments"]["newcomers"] == ["large"]
    assert adopted.card["reference"] == policy.card["reference"]


def test_an_environment_that_is_not_of_the_same_training_is_refused(tmp_path: Path) -> None:
    log = many_questions()
    policy = trained_on(think_vec(log.without(["b"]), 1))
    with pytest.raises(PolicyError, match=r"text/c.*the same log, without the newcomers"):
        adopt(policy, think_vec(log, 1, newcomers=("a",), probes=8), tmp_path / "other")
    policy.card["reference"]["cost_usd"] *= 2
    with pytest.raises(PolicyError, match=r"reference.*as in training"):
        adopt(policy, think_vec(log, 1, newcomers=("b",), probes=8), tmp_path / "units")
    with pytest.raises(PolicyError, match="layout"):
        adopt(policy, budget_vec(many_tasks(), 1), tmp_path / "family")
