"""ToolGraph's dynamics: what an action does, what it costs, which of five ends it comes to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.testing import assert_array_equal
from tool_graphs import REFUND, make_wrong, random_graph, refund_env, suite_of

from rlroute.envs.tool_graph.costs import (
    BLOCKED,
    TO_DEGRADED,
    TO_GOAL,
    WAY,
    count_effects,
    find_ways,
    lead_to,
    reach_tools,
    set_out,
    through,
)
from rlroute.envs.tool_graph.env import ToolGraphVectorEnv
from rlroute.envs.tool_graph.graph import GraphError, parse_graph
from rlroute.envs.tool_graph.plans import cheapest_completion
from rlroute.envs.tool_graph.table import NO_GOAL, GraphTable
from rlroute.envs.tool_graph.transitions import (
    CONSULT,
    DEMOTE,
    DEMOTED,
    ESCALATE,
    ESCALATED,
    FINISH,
    FIRST_CALL,
    GOAL,
    SILENT,
    STOPPED,
)
from rlroute.jit import records
from rlroute.policies import RandomPolicy
from rlroute.policy import parameter_shapes, save_policy
from rlroute.router import Router

LOOKUP, CARD, VOUCHER, EMAIL = range(4)
CHEAPEST = 6.0  # lookup 1, card 3, e-mail 2


def play(env: ToolGraphVectorEnv, *actions: int) -> tuple[float, dict[str, Any]]:
    """The return of these actions in slot 0, and the last info."""
    _, info = env.reset(seed=0)
    total = 0.0
    for action in actions:
        assert info["action_mask"][0, action], f"action {action} is masked"
        _, reward, _, _, info = env.step(np.full(env.num_envs, action))
        total += float(reward[0])
    return total, info


def call(tool: int) -> int:
    return FIRST_CALL + tool


def test_the_cheapest_way_to_the_goal_is_worth_one_minus_its_weighted_cost() -> None:
    total, info = play(refund_env(), call(LOOKUP), call(CARD), call(EMAIL), FINISH)
    assert total == pytest.approx(1.0 - 0.1)
    assert info["outcome"][0] == GOAL
    assert info["totals"][0, :2] == pytest.approx([1.0, CHEAPEST])


def test_a_failed_call_costs_as_much_as_one_that_succeeds() -> None:
    total, info = play(refund_env(down=["card"]), call(LOOKUP), call(CARD), call(VOUCHER), call(EMAIL), FINISH)
    assert total == pytest.approx(1.0 - 0.1 * (1 + 3 + 5 + 2) / CHEAPEST)
    assert info["outcome"][0] == GOAL
    assert info["repeated_effects"][0] == 0


def test_a_tool_is_masked_until_its_join_is_satisfied() -> None:
    env = refund_env()
    _, info = env.reset(seed=0)
    assert_array_equal(info["action_mask"][0, FIRST_CALL:], [1, 0, 0, 0])
    _, info = play(env, call(LOOKUP))
    assert_array_equal(info["action_mask"][0, FIRST_CALL:], [1, 1, 1, 0])


def test_a_side_effect_done_twice_is_counted_and_costs_one() -> None:
    twice = (call(LOOKUP), call(CARD), call(VOUCHER), call(EMAIL), FINISH)
    total, info = play(refund_env(), *twice)
    assert info["repeated_effects"][0] == 1
    assert total == pytest.approx(1.0 - 0.1 * (1 + 3 + 5 + 2) / CHEAPEST - 1.0)
    _, info = play(refund_env(), call(LOOKUP), call(CARD), call(CARD), call(CARD))
    assert info["repeated_effects"][0] == 2


def test_finishing_without_the_goal_is_a_silent_failure() -> None:
    total, info = play(refund_env(), FINISH)
    assert (total, info["outcome"][0]) == (-1.0, SILENT)


def test_a_bad_output_is_a_silent_failure_unless_it_is_done_again() -> None:
    env = refund_env()
    env.reset(seed=0)
    make_wrong(env, LOOKUP)
    for action in (call(LOOKUP), call(CARD), call(EMAIL)):
        _, _, _, _, info = env.step(np.array([action]))
    assert info["action_mask"][0, call(EMAIL)], "a wrong tool reports success"
    env.dynamics.faults["stop"][:, LOOKUP] = 0  # the fault is over
    env.step(np.array([call(LOOKUP)]))
    _, _, _, _, info = env.step(np.array([FINISH]))
    assert info["outcome"][0] == GOAL
    env.reset(seed=0)
    make_wrong(env, LOOKUP)
    for action in (call(LOOKUP), call(CARD), call(EMAIL), FINISH):
        _, _, _, _, info = env.step(np.array([action]))
    assert info["outcome"][0] == SILENT


def test_a_consultation_costs_c_model_and_shows_health_outputs_and_risk() -> None:
    env = refund_env(down=["voucher"], model_cost=0.2)
    env.reset(seed=0)
    make_wrong(env, LOOKUP)
    env.step(np.array([call(LOOKUP)]))
    _, reward, _, _, info = env.step(np.array([CONSULT]))
    dynamics = env.dynamics
    assert reward[0] == pytest.approx(-0.2)
    assert info["model_calls"][0] == 1
    assert_array_equal(dynamics.progress.known_down[0], [0, 0, 1, 0])
    assert_array_equal(dynamics.progress.known_bad[0], [1, 0, 0, 0])
    assert dynamics.progress.beliefs[0][0, VOUCHER] == 1.0
    assert dynamics.progress.known_risk[0] == 0


def test_demotion_and_escalation_are_worth_their_values() -> None:
    total, info = play(refund_env(), call(LOOKUP), call(CARD), DEMOTE, FINISH)
    assert total == pytest.approx(0.5 - 0.1 * 4 / CHEAPEST)
    assert info["outcome"][0] == DEMOTED
    total, info = play(refund_env(), ESCALATE)
    assert (total, info["outcome"][0]) == (0.1, ESCALATED)
    env = refund_env()
    _, info = play(env, DEMOTE)
    assert not info["action_mask"][0, DEMOTE], "there is no second degraded goal"


def test_an_irreversible_effect_under_a_true_risk_costs_one() -> None:
    total, info = play(refund_env(risk=1.0), call(LOOKUP), call(CARD), call(EMAIL), FINISH)
    assert info["risk_breaches"][0] == 1
    assert total == pytest.approx(0.9 - 1.0)


def test_a_failed_call_of_an_irreversible_tool_does_no_harm() -> None:
    _, info = play(refund_env(down=["card"], risk=1.0), call(LOOKUP), call(CARD))
    assert info["risk_breaches"][0] == 0
    assert info["repeated_effects"][0] == 0


def test_the_time_limit_is_an_end_of_its_own() -> None:
    _, info = play(refund_env(max_episode_steps=2), call(LOOKUP), call(LOOKUP))
    assert info["outcome"][0] == STOPPED


def test_late_faults_arrive_and_transient_ones_pass() -> None:
    env = refund_env()
    env.reset(seed=0)
    faults = env.dynamics.faults
    faults["start"][:, LOOKUP], faults["stop"][:, LOOKUP] = 0, 1  # over after the first step
    faults["start"][:, CARD], faults["stop"][:, CARD] = 2, 9
    env.step(np.array([call(LOOKUP)]))
    assert env.dynamics.progress.known_down[0, LOOKUP]
    env.step(np.array([call(LOOKUP)]))
    assert env.dynamics.progress.executed[0, LOOKUP]
    env.step(np.array([call(CARD)]))
    assert env.dynamics.progress.known_down[0, CARD]


def test_rewards_sum_to_the_utility_of_the_episode() -> None:
    env = ToolGraphVectorEnv(256, autoreset="disabled", faults="mixed", model_cost=(0.05, 0.5))
    _, info = env.reset(seed=4)
    policy = RandomPolicy(0)
    policy.begin(env)
    returns, dynamics = np.zeros(256), env.dynamics
    while dynamics.active.any():
        _, reward, _, _, info = env.step(policy.act(np.zeros(0), info["action_mask"]))
        returns += reward
    harms = (dynamics.outcome == SILENT) + dynamics.repeated_effects + dynamics.risk_breaches
    spent = 0.1 * dynamics.totals.cost_usd / dynamics.progress.cheapest_usd
    expected = dynamics.totals.quality - spent - dynamics.progress.model_cost * dynamics.progress.model_calls - harms
    np.testing.assert_allclose(returns, expected, atol=1e-9)
    assert {GOAL, ESCALATED, SILENT} <= set(dynamics.outcome.tolist())


def test_what_is_hidden_changes_no_observation() -> None:
    first, second = refund_env(down=[]), refund_env(down=["card", "e-mail"])
    assert_array_equal(first.reset(seed=0)[0], second.reset(seed=0)[0])
    assert_array_equal(first.step(np.array([call(LOOKUP)]))[0], second.step(np.array([call(LOOKUP)]))[0])


def test_a_budget_masks_what_it_cannot_pay() -> None:
    env = refund_env(budget_usd=4.0)
    _, info = play(env, call(LOOKUP))
    assert_array_equal(info["action_mask"][0, FIRST_CALL:], [1, 1, 0, 0])  # the voucher would cost 5
    _, info = play(env, call(LOOKUP), call(CARD))
    assert not info["action_mask"][0, FIRST_CALL:].any()
    assert info["action_mask"][0, FINISH]


def set_all_out(ways: np.ndarray, price: Any, done: Any) -> None:
    for t in range(len(ways)):
        set_out(ways[t], np.broadcast_to(price, len(ways))[t], np.broadcast_to(done, len(ways))[t])


def test_ways_equal_exact_plans_where_all_joins_are_any() -> None:
    rng = np.random.default_rng(0)
    compared = 0
    while compared < 200:
        data = random_graph(rng, int(rng.integers(2, 9)), joins_all=0.0, effects=0)
        for tool in data["tools"].values():
            tool["after"] = dict.fromkeys(tool["after"], 0.0)  # ways are priced by tool
        graph = parse_graph(data, "random")
        executed = np.zeros((1, graph.size), bool)
        mask = 0
        for t in range(graph.size):
            if graph.callable(t, mask) and rng.random() < 0.3:
                executed[0, t] = True
                mask |= 1 << t
        goal = graph.goals[0].tool
        table = GraphTable.of([graph], [0.0], graph.size)
        ways = records(graph.size, WAY)
        price = np.where(rng.random(graph.size) < 0.2, BLOCKED, table.tools["cost_usd"][0])
        set_all_out(ways, price, executed[0])
        assert find_ways(table, 0, ways, goal, NO_GOAL) == (0, BLOCKED, 0)
        least = min(through(way) for way in ways)
        blocked = sum(1 << t for t in range(graph.size) if ways["price"][t] >= BLOCKED)
        plan = cheapest_completion(graph, goal, mask, blocked)
        if plan is None:
            assert least >= BLOCKED or executed[0, goal]
            assert not ways["taken"].any()
        else:
            assert least == pytest.approx(plan.cost)
            assert ways["price"][ways["taken"] == TO_GOAL].sum() == pytest.approx(plan.cost)
        compared += 1


def test_a_way_traced_counts_what_two_branches_need_once_and_its_irreversible_effects() -> None:
    tools = {
        "begin": {"cost_usd": 1.0, "effect": "book"},
        "left": {"cost_usd": 1.0, "after": ["begin"]},
        "right": {"cost_usd": 1.0, "after": ["begin"], "effect": "ship"},
        "dear": {"cost_usd": 9.0, "after": ["begin"]},
        "both": {"cost_usd": 1.0, "after": ["left", "right"], "join": "all"},
        "end": {"cost_usd": 1.0, "after": ["both", "dear"]},
    }
    graph = parse_graph({"name": "branches", "tools": tools, "goals": {"end": 1.0}}, "branches")
    table = GraphTable.of([graph], [0.0], graph.size)
    names = np.array([tool.name for tool in graph.tools])
    ways = records(graph.size, WAY)
    price, done = table.tools["cost_usd"][0].copy(), np.zeros(graph.size, bool)

    def taken() -> set[str]:
        set_all_out(ways, price, done)
        effects, *degraded = find_ways(table, 0, ways, graph.index["end"], NO_GOAL)
        assert effects == sum(t in ("begin", "right") for t in found(TO_GOAL))
        assert degraded == [BLOCKED, 0]
        return found(TO_GOAL)

    def found(which: int) -> set[str]:
        return set(names[ways["taken"] & which != 0].tolist())

    assert taken() == {"begin", "left", "right", "both", "end"}
    done[names == "begin"] = True
    assert taken() == {"left", "right", "both", "end"}
    price[names == "left"] = BLOCKED
    assert taken() == {"dear", "end"}
    set_all_out(ways, price, done)
    assert find_ways(table, 0, ways, graph.index["end"], graph.index["right"]) == (0, 1.0, 1)
    assert (found(TO_GOAL), found(TO_DEGRADED)) == ({"dear", "end"}, {"right"})
    set_all_out(ways, price, done)
    effects, degraded_way, degraded_effects = find_ways(table, 0, ways, graph.index["dear"], graph.index["left"])
    assert (effects, degraded_effects, found(TO_DEGRADED)) == (0, 0, set())
    assert degraded_way >= BLOCKED


def test_branches_agree_on_one_tool_for_a_side_effect() -> None:
    tools = {
        "pay": {"cost_usd": 1.0, "effect": "charge"},
        "pay-dear": {"cost_usd": 3.0, "effect": "charge"},
        "receipt": {"cost_usd": 1.0, "after": ["pay-dear"]},
        "ticket": {"cost_usd": 1.0, "after": ["pay", "pay-dear"]},
        "end": {"cost_usd": 1.0, "after": ["receipt", "ticket"], "join": "all"},
    }
    graph = parse_graph({"name": "rivals", "tools": tools, "goals": {"end": 1.0}}, "rivals")
    table = GraphTable.of([graph], [0.0], graph.size)
    goal, names = graph.goals[0].tool, np.array([tool.name for tool in graph.tools])
    ways = records(graph.size, WAY)
    price = table.tools["cost_usd"][0].copy()
    set_all_out(ways, price, done=False)
    reach_tools(table, 0, ways)
    lead_to(table, 0, ways, goal, NO_GOAL)
    assert count_effects(table, 0, ways, TO_GOAL) == 2  # both ways of paying
    ticket = graph.index["ticket"]
    set_all_out(ways, price, done=False)
    assert find_ways(table, 0, ways, ticket, goal) == (1, 9.0, 1)  # 3 for pay-dear, for the receipt and for the ticket
    assert set(names[ways["taken"] == TO_GOAL].tolist()) == {"pay", "ticket"}
    set_all_out(ways, price, done=False)
    assert find_ways(table, 0, ways, goal, ticket) == (1, 2.0, 1)
    assert set(names[ways["taken"] == TO_GOAL].tolist()) == {"pay-dear", "receipt", "ticket", "end"}
    assert through(ways[graph.index["pay"]]) == BLOCKED
    price[names == "pay-dear"] = BLOCKED
    set_all_out(ways, price, done=False)
    assert find_ways(table, 0, ways, goal, NO_GOAL)[0] == 0
    assert not ways["taken"].any()


def test_one_policy_serves_graphs_of_another_size() -> None:
    small = ToolGraphVectorEnv(2)
    wide = ToolGraphVectorEnv(2, max_choices=20)
    assert small.layout.block_size == wide.layout.block_size
    assert wide.layout.num_choices == 20
    with pytest.raises(ValueError, match="max_choices=3"):
        ToolGraphVectorEnv(1, max_choices=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"faults": "gremlins"}, "'independent'"),
        ({"model_cost": -1.0}, "model_cost=-1.0"),
        ({"model_cost": (0.0, 1.0)}, "0 < low"),
        ({"reward": "linear"}, "'utility'"),
    ],
)
def test_bad_arguments_say_what_is_allowed(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ToolGraphVectorEnv(1, **arguments)


def test_an_unknown_suite_is_refused_with_the_known_names() -> None:
    with pytest.raises(GraphError, match="stochastic-small"):
        ToolGraphVectorEnv(1, log="no such suite")


def test_a_live_episode_observes_what_replay_does(tmp_path: Path) -> None:
    data = {**REFUND, "tools": {name: {**tool, "reliability": 0.7} for name, tool in REFUND["tools"].items()}}
    suite = suite_of(parse_graph(data, "refund"), risk=0.3)
    env = ToolGraphVectorEnv(1, autoreset="disabled", split="test", log=suite, faults="wrong")
    rng = np.random.default_rng(0)
    parameters = {
        name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in parameter_shapes(env.layout, 8).items()
    }
    card = env.policy_card() | {"network": {"hidden": 8}}
    router = Router.load(save_policy(tmp_path / "policy", card, parameters))
    names = [tool.name for tool in env.dynamics.graph(0).tools] if env.reset(seed=0) else []
    text = yaml.safe_dump({**data, "name": "refund"}, sort_keys=False)
    compared = 0
    for episode in range(150):
        observation, info = env.reset(seed=None if episode else 0)
        dynamics, features = env.dynamics, dict[str, float]()
        with router.episode() as live:
            while dynamics.active[0]:
                features |= {f"alarm/{name}": float(dynamics.progress.alarm[0, t]) for t, name in enumerate(names)}
                features |= {"risk_alarm": float(dynamics.progress.risk_alarm[0]), "risk_prior": 0.3}
                decision = live.decide(text, features)
                assert_array_equal(live._live.observe(), observation)
                assert_array_equal(live._live.action_mask(), info["action_mask"])
                compared += 1
                tool = None if decision.choice is None else names.index(decision.choice)
                action = env.layout.action(decision.action, tool)
                observation, _, _, _, info = env.step(np.array([action]))
                features = {}
                if tool is not None:
                    failed = bool(dynamics.progress.known_down[0, tool])
                    live.record(error="down" if failed else None)
                elif decision.action == "consult":
                    bad, down = dynamics.progress.known_bad[0], dynamics.progress.known_down[0]
                    features |= {f"health/{n}": 2.0 if bad[t] else float(down[t]) for t, n in enumerate(names)}
                    features["risk"] = float(dynamics.progress.known_risk[0])
                if live.decisions and len(live.decisions) > 30:
                    break
    assert compared > 300
