"""The belief-optimal policy against an expectimax written another way, and what no ceiling may fall below."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from tool_graphs import random_graph

from rlroute.envs.contest import vector_env
from rlroute.envs.slots import idle_slots
from rlroute.envs.tool_graph.belief import BeliefOptimal, BeliefOptimalPolicy, Prices, health_prior, is_static
from rlroute.envs.tool_graph.ceilings import clairvoyant
from rlroute.envs.tool_graph.faults import regime_records, regime_table
from rlroute.envs.tool_graph.graph import GraphError, ToolGraph, parse_graph
from rlroute.envs.tool_graph.plans import cheapest_completion
from rlroute.envs.tool_graph.progress import TRACE, Known, believe_all, clear
from rlroute.envs.tool_graph.table import GraphTable


def graphs(seed: int, sizes: tuple[int, int], count: int) -> Iterator[ToolGraph]:
    """Random graphs with two providers and a degraded goal."""
    rng = np.random.default_rng(seed)
    while count:
        data = random_graph(rng, int(rng.integers(*sizes)))
        data["providers"] = {"p": 0.3, "q": 0.1}
        names = list(data["tools"])
        for name in names:
            data["tools"][name]["provider"] = [None, "p", "q"][int(rng.integers(3))]
        if len(names) > 2:
            data["goals"][names[0]] = 0.5
        try:
            yield parse_graph(data, "random")
        except GraphError:
            continue
        count -= 1


def joint(graph: ToolGraph, regime: np.ndarray, alarm: np.ndarray) -> np.ndarray:
    """P(exactly these tools are down | alarms), by summing over providers; an independent way to `health_prior`."""
    provider_factor, own_factor, _, _, _, detection, false_alarm = regime
    outages = list(graph.provider_outage.values())
    table = np.zeros(1 << graph.size)
    for out in range(1 << len(outages)):
        for own in range(1 << graph.size):
            probability, down = 1.0, own
            for k, q in enumerate(outages):
                probability *= q * provider_factor if out >> k & 1 else 1 - q * provider_factor
                if out >> k & 1:
                    down |= sum(1 << t for t in range(graph.size) if graph.provider[t] == k)
            for t, tool in enumerate(graph.tools):
                f = (1 - tool.reliability) * own_factor
                probability *= f if own >> t & 1 else 1 - f
            for t in range(graph.size):
                p = detection if down >> t & 1 else false_alarm
                probability *= p if alarm[t] else 1 - p
            table[down] += probability
    return table / table.sum()


@pytest.mark.parametrize("name", ["independent", "correlated", "noisy"])
def test_priors_and_beliefs_equal_enumeration(name: str) -> None:
    regime = regime_table((name,))
    rng = np.random.default_rng(0)
    for graph in graphs(1, (2, 6), 12):
        alarm = rng.random((1, graph.size)) < 0.4
        expected = joint(graph, regime[0], alarm[0])
        np.testing.assert_allclose(health_prior(graph, regime[0], alarm)[0], expected, atol=1e-12)
        table = GraphTable.of([graph], [0.0], graph.size)
        known = Known.nothing(idle_slots(1, TRACE), table, regime_records(regime))
        clear(known, 0)
        tools = known.tools[0]
        tools["alarm"] = alarm[0]
        believe_all(known, 0)
        masks = np.arange(1 << graph.size)
        for t in range(graph.size):
            assert tools["hard"][t] == pytest.approx(expected[masks >> t & 1 == 1].sum())
        assert not tools["wrong"].any()
        up = rng.integers(graph.size)  # one tool has answered, another has failed
        down = (up + 1) % graph.size
        seen = (masks >> up & 1 == 0) & (masks >> down & 1 == 1)
        tools["may_be_hard"][up] = tools["may_be_healthy"][down] = False
        believe_all(known, 0)
        for t in range(graph.size):
            expected_t = expected[seen & (masks >> t & 1 == 1)].sum() / expected[seen].sum()
            assert tools["hard"][t] == pytest.approx(expected_t)


def expectimax(graph: ToolGraph, prices: Prices, weight: dict[int, float], risk: float) -> float:
    """The best expected utility by plain recursion over histories; `weight` by mask of what may be down."""

    def full(executed: int, down: int, risky: bool) -> float:
        best = max([0.1, *(goal.value for goal in graph.goals if executed >> goal.tool & 1)])
        for goal in graph.goals:
            price = [
                prices.cost_weight * tool.cost_usd / prices.cheapest_usd + float(risky and graph.effect[t] >= 0)
                for t, tool in enumerate(graph.tools)
            ]
            scale = prices.cost_weight / prices.cheapest_usd
            plan = cheapest_completion(graph, goal.tool, executed, down, price, scale)
            if plan is not None:
                best = max(best, goal.value - plan.cost)
        return best

    def value(executed: int, belief: dict[int, float]) -> float:
        total = sum(belief.values())
        best = max([0.1, *(goal.value for goal in graph.goals if executed >> goal.tool & 1)])
        told = sum(
            w * ((1 - risk) * full(executed, down, False) + risk * full(executed, down, True))
            for down, w in belief.items()
        )
        best = max(best, told / total - prices.model_cost)
        for t in range(graph.size):
            if executed >> t & 1 or not graph.callable(t, executed) or graph.repeats_effect(t, executed):
                continue
            up = {down: w for down, w in belief.items() if not down >> t & 1}
            failed = {down: w for down, w in belief.items() if down >> t & 1}
            if not up:
                continue
            cost = prices.cost_weight * graph.call_cost_usd(t, executed) / prices.cheapest_usd
            share = sum(up.values()) / total
            worth = share * (value(executed | 1 << t, up) - risk * float(graph.effect[t] >= 0)) - cost
            worth += (1 - share) * value(executed, failed) if failed else 0.0
            best = max(best, worth)
        return best

    return value(0, weight)


def test_dynamic_programming_equals_expectimax() -> None:
    regime = regime_table(("correlated",))[0]
    rng = np.random.default_rng(3)
    consulted = 0
    for graph in graphs(2, (2, 5), 30):
        plan = cheapest_completion(graph, graph.goals[0].tool)
        assert plan is not None
        prices = Prices(float(rng.choice([0.0, 0.1, 0.5])), float(rng.choice([0.0, 0.05, 0.5])), plan.cost)
        alarm, risk = rng.random((1, graph.size)) < 0.4, float(rng.choice([0.0, 0.2, 0.6]))
        prior = health_prior(graph, regime, alarm)
        solved = BeliefOptimal(graph, prices, prior, np.array([risk]))
        weight = {mask: float(w) for mask, w in enumerate(prior[0]) if w > 0}
        assert solved.value[0] == pytest.approx(expectimax(graph, prices, weight, risk))
        consulted += int(solved.solve(0, 0)[1][0] == 0)
    assert consulted > 3


def test_knowing_everything_beforehand_is_worth_the_clairvoyant_ceiling() -> None:
    rng = np.random.default_rng(5)
    for graph in graphs(4, (3, 8), 40):
        down = sum(1 << t for t in range(graph.size) if rng.random() < 0.3)
        prior = np.zeros((1, 1 << graph.size))
        prior[0, down] = 1.0
        plan = cheapest_completion(graph, graph.goals[0].tool)
        assert plan is not None
        solved = BeliefOptimal(graph, Prices(0.1, np.inf, plan.cost), prior, np.zeros(1))
        assert solved.value[0] == pytest.approx(clairvoyant(graph, down, False, 0.1, plan.cost)[0])


def test_played_it_earns_what_it_expects() -> None:
    env = vector_env("rlroute/ToolGraph-v0", "test", 150, faults="correlated", model_cost=0.03)
    d, policy = env.dynamics, BeliefOptimalPolicy()
    _, info = env.reset(seed=3, options={"task": np.resize(d.roots[:25], 150)})
    expected = np.empty(150)
    for slot in range(150):
        graph = d.graph(slot)
        prior = health_prior(graph, d.progress.regime[slot], d.progress.alarm[[slot], : graph.size])
        prices = Prices(0.1, 0.03, float(d.progress.cheapest_usd[slot]))
        expected[slot] = BeliefOptimal(graph, prices, prior, d.progress.risk_belief[[slot]]).value[0]
    policy.begin(env)
    earned = np.zeros(150)
    while d.active.any():
        _, reward, *_, info = env.step(policy.act(np.zeros(0), info["action_mask"]))
        earned += reward
    ahead = earned - expected
    assert abs(ahead.mean()) < 3 * ahead.std() / np.sqrt(len(ahead))
    assert ahead.std() > 0.1, "an expectation is not what was drawn"
    assert not info["repeated_effects"].any()
    assert 0.05 < info["model_calls"].mean() < 1


def test_regimes_in_which_faults_come_go_or_hide_are_not_solved() -> None:
    assert is_static(regime_table(("independent", "correlated", "noisy")))
    for name in ("wrong", "late", "transient"):
        assert not is_static(regime_table((name,)))
