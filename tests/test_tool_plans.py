"""Plans are exact, and a router that follows them never does an irreversible thing twice."""

from __future__ import annotations

from itertools import combinations

import networkx as nx
import numpy as np
import pytest
from tool_graphs import random_graph

from rlroute.envs.tool_graph.ceilings import integer_completion
from rlroute.envs.tool_graph.graph import GraphError, ToolGraph, members, parse_graph
from rlroute.envs.tool_graph.healing import Knobs, Sight, next_action
from rlroute.envs.tool_graph.plans import cheapest_completion
from rlroute.envs.tool_graph.references import first_of_cheapest
from rlroute.envs.tool_graph.transitions import FIRST_CALL


def any_graph(rng: np.random.Generator, size: int, joins_all: float = 0.3, effects: int = 2) -> ToolGraph:
    while True:
        try:
            return parse_graph(random_graph(rng, size, joins_all, effects), "random")
        except GraphError:  # a goal out of reach
            continue


def any_situation(rng: np.random.Generator, graph: ToolGraph) -> tuple[int, int]:
    """Masks of executed and of blocked tools, as an episode may come to them."""
    executed = blocked = 0
    for t in range(graph.size):
        if graph.callable(t, executed) and not graph.repeats_effect(t, executed) and rng.random() < 0.3:
            executed |= 1 << t
        elif rng.random() < 0.2:
            blocked |= 1 << t
    return executed, blocked


def exhaustive(graph: ToolGraph, goal: int, executed: int, blocked: int) -> float:
    """Least cost over all sets of further tools, by trying every one."""
    free = [t for t in range(graph.size) if not (executed | blocked) >> t & 1]
    best = np.inf if not executed >> goal & 1 else 0.0
    for k in range(1, len(free) + 1):
        for extra in combinations(free, k):
            done, cost = executed, 0.0
            for t in extra:  # topological order: whatever a tool may need of the set comes before it
                if not graph.callable(t, done) or graph.repeats_effect(t, done):
                    break
                cost += graph.call_cost_usd(t, done)
                done |= 1 << t
            else:
                if done >> goal & 1:
                    best = min(best, cost)
    return float(best)


def test_every_replan_equals_exhaustive_search() -> None:
    rng = np.random.default_rng(0)
    infeasible = 0
    for _ in range(250):
        graph = any_graph(rng, int(rng.integers(2, 10)))
        executed, blocked = any_situation(rng, graph)
        goal = graph.goals[0].tool
        plan = cheapest_completion(graph, goal, executed, blocked)
        assert (np.inf if plan is None else plan.cost) == pytest.approx(exhaustive(graph, goal, executed, blocked))
        infeasible += plan is None
    assert 20 < infeasible < 230


def test_a_replan_on_ten_tools_equals_exhaustive_search() -> None:
    rng = np.random.default_rng(1)
    for _ in range(6):
        graph = any_graph(rng, 10)
        goal = graph.goals[0].tool
        plan = cheapest_completion(graph, goal)
        assert plan is not None
        assert plan.cost == pytest.approx(exhaustive(graph, goal, 0, 0))


def test_plans_can_be_called_in_their_order() -> None:
    rng = np.random.default_rng(2)
    for _ in range(300):
        graph = any_graph(rng, int(rng.integers(2, 14)))
        executed, blocked = any_situation(rng, graph)
        plan = cheapest_completion(graph, graph.goals[0].tool, executed, blocked)
        done, cost = executed, 0.0
        for t in plan.tools if plan else ():
            assert graph.callable(t, done)
            assert not graph.repeats_effect(t, done)
            assert not blocked >> t & 1
            cost += graph.call_cost_usd(t, done)
            done |= 1 << t
        if plan is not None:
            assert done >> graph.goals[0].tool & 1
            assert cost == pytest.approx(plan.cost)


def test_where_joins_are_any_a_plan_is_dijkstras_path() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        graph = any_graph(rng, int(rng.integers(2, 20)), joins_all=0.0, effects=0)
        network = nx.DiGraph()
        for t, tool in enumerate(graph.tools):
            if not tool.after:
                network.add_edge("start", t, weight=tool.cost_usd)
            for name, usd in tool.after:
                network.add_edge(graph.index[name], t, weight=usd + tool.cost_usd)
        goal = graph.goals[0].tool
        plan = cheapest_completion(graph, goal)
        assert plan is not None
        assert plan.cost == pytest.approx(nx.dijkstra_path_length(network, "start", goal))


def test_integer_programming_finds_the_same_plans() -> None:
    rng = np.random.default_rng(4)
    for _ in range(60):
        graph = any_graph(rng, int(rng.integers(2, 16)))
        executed, blocked = any_situation(rng, graph)
        goal, price = graph.goals[0].tool, [tool.cost_usd for tool in graph.tools]
        exact = cheapest_completion(graph, goal, executed, blocked, price)
        solved = integer_completion(graph, goal, executed, blocked, price)
        assert (exact is None) == (solved is None)
        if exact is not None and solved is not None:
            assert solved.cost == pytest.approx(exact.cost, abs=1e-6)


def test_a_star_begins_a_cheapest_sequence() -> None:
    rng = np.random.default_rng(5)
    for _ in range(150):
        graph = any_graph(rng, int(rng.integers(2, 10)))
        executed, blocked = any_situation(rng, graph)
        goal = graph.goals[0].tool
        if executed >> goal & 1:
            continue
        plan = cheapest_completion(graph, goal, executed, blocked)
        first = first_of_cheapest(graph, goal, executed, blocked)
        assert (plan is None) == (first is None)
        if plan is not None and first is not None:
            rest = cheapest_completion(graph, goal, executed | 1 << first, blocked)
            assert rest is not None
            assert rest.cost + graph.call_cost_usd(first, executed) == pytest.approx(plan.cost, abs=1e-6)


def heal(graph: ToolGraph, down: int, knobs: Knobs) -> tuple[int, int]:
    """Play the healing router's own decisions on a graph; (side effects repeated, calls)."""
    executed = known = repeated = calls = 0
    counts = [0] * graph.size
    goals = [goal.tool for goal in graph.goals]
    rank = 0
    for _ in range(4 * graph.size + 8):
        degraded = goals[rank + 1] if rank + 1 < len(goals) else -1
        sight = Sight(
            graph, executed, known, 0, goals[rank], degraded, [tool.cost_usd for tool in graph.tools], 1.0, 0.0, True,
            counts,
        )  # fmt: skip
        action = next_action(sight, knobs)
        if action < FIRST_CALL:
            break
        tool = action - FIRST_CALL
        assert graph.callable(tool, executed)
        counts[tool] += 1
        calls += 1
        if down >> tool & 1:
            known |= 1 << tool
        else:
            repeated += graph.repeats_effect(tool, executed)
            executed |= 1 << tool
    return repeated, calls


def test_on_ten_thousand_graphs_and_outages_no_side_effect_is_done_twice() -> None:
    rng = np.random.default_rng(6)
    total_calls = with_effects = 0
    for i in range(10_000):
        graph = any_graph(rng, int(rng.integers(3, 9)), effects=1 + i % 3)
        down = sum(1 << t for t in range(graph.size) if rng.random() < 0.25)
        repeated, calls = heal(graph, down, Knobs(redo=bool(i % 2), retry=bool(i % 3)))
        assert repeated == 0, (graph.tools, members(down))
        total_calls += calls
        with_effects += bool((graph.effect >= 0).any())
    assert total_calls > 15_000
    assert with_effects > 6_000
