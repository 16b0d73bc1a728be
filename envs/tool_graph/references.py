"""Reference policies of ToolGraph that know no more than a live router: what a trained one has to beat.

Each family of references is a list of candidates that differ in their knobs; `rlroute.evaluation.tune` keeps the best
on `val` at each price of a model call. See `healing` for the self-healing router; here stand what it is compared with:
a static workflow with one fallback a tool, a ReAct-style agent that asks the model before every call, an A* search
over tool sequences as in ToolChain*, and giving up or finishing at once.
"""

from __future__ import annotations

import heapq
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from rlroute.envs.tool_graph.graph import ToolGraph
from rlroute.envs.tool_graph.healing import HealingRouter, Knobs, PaperHealing, SlotPolicy, plan_from
from rlroute.envs.tool_graph.plans import INFINITE, cheapest_completion
from rlroute.envs.tool_graph.transitions import CONSULT, DEMOTE, ESCALATE, FINISH, FIRST_CALL
from rlroute.policies import Actions, Array, Policy


class StaticWorkflow(SlotPolicy):
    """A fixed sequence with one fallback a tool; where both are down it goes on as if nothing had happened."""

    name = "static workflow"

    def decide(self, slot: int) -> int:
        sight = self.see(slot)
        for tool, fallback in workflow(sight.graph):
            if sight.executed >> tool & 1 or (fallback >= 0 and sight.executed >> fallback & 1):
                continue
            if not sight.down >> tool & 1:
                wanted = tool
            elif fallback >= 0 and not sight.down >> fallback & 1:
                wanted = fallback
            else:
                return FINISH  # nothing is left of this step, and nobody notices
            return FIRST_CALL + wanted if sight.graph.callable(wanted, sight.executed) else FINISH
        return FINISH


@cache
def workflow(graph: ToolGraph) -> tuple[tuple[int, int], ...]:
    """(tool, fallback) in order: the cheapest plan, and for each tool the cheapest other one in its place, −1 none."""
    plan = cheapest_completion(graph, graph.goals[0].tool)
    assert plan is not None, "checked when the graph was parsed"
    steps = []
    for tool in plan.tools:
        others = [
            t
            for t in range(graph.size)
            if t not in plan.tools
            and graph.callable(t, sum(1 << u for u in plan.tools if u < tool))
            and _successors(graph, t) & _successors(graph, tool)
        ]
        steps.append((tool, min(others, key=lambda t: graph.tools[t].cost_usd, default=-1)))
    return tuple(steps)


def _successors(graph: ToolGraph, tool: int) -> int:
    """Bit mask of the tools that may follow a tool and do not need others as well."""
    return sum(1 << t for t in range(graph.size) if graph.predecessors[t] >> tool & 1 and graph.tools[t].join == "any")


class ReAct(SlotPolicy):
    """A model call before every tool call; what it shows is believed, and the cheapest way around it taken."""

    name = "ReAct"

    def decide(self, slot: int) -> int:
        d, sight = self.dynamics, self.see(slot)
        sound = sight.executed & ~sight.bad
        if sight.graph.holds(sound) >> sight.goal & 1:
            return FINISH
        if d.progress.model_calls[slot] <= d.progress.tool_calls[slot].sum():
            return CONSULT
        plan = plan_from(sight, sound, sight.goal, sight.down)
        if plan is None or (sight.risk >= 0.5 and any(sight.graph.effect[t] >= 0 for t in plan.tools)):
            return ESCALATE if plan is not None or sight.degraded < 0 else DEMOTE
        return FIRST_CALL + plan.tools[0]


class ToolChainAStar(SlotPolicy):
    """A* over sets of executed tools (after ToolChain*, arXiv 2310.13227): the cheapest sequence, searched anew after
    every failure; it believes what it is told and knows no risk."""

    name = "ToolChain A*"

    def decide(self, slot: int) -> int:
        sight = self.see(slot)
        if sight.executed >> sight.goal & 1:
            return FINISH
        tool = first_of_cheapest(sight.graph, sight.goal, sight.executed, sight.down)
        if tool is None:
            return DEMOTE if sight.degraded >= 0 else ESCALATE
        return FIRST_CALL + tool


@cache
def first_of_cheapest(graph: ToolGraph, goal: int, executed: int, down: int) -> int | None:
    """The first tool of the cheapest sequence that executes `goal`, by A*; None where there is none.

    f = cost so far + price of the cheapest completion. That heuristic is exact, so next to nothing but the best
    sequence is expanded.
    """
    own = [tool.cost_usd + 1e-9 for tool in graph.tools]  # of two free sequences the shorter one
    queue: list[tuple[float, float, int, int]] = [(0.0, 0.0, executed, -1)]
    best = {executed: 0.0}
    while queue:
        _, minus_spent, done, first = heapq.heappop(queue)
        if done >> goal & 1:
            return first
        for t in range(graph.size):
            if (done | down) >> t & 1 or not graph.callable(t, done) or graph.repeats_effect(t, done):
                continue
            cost = own[t] - minus_spent + graph.call_cost_usd(t, done) - graph.tools[t].cost_usd
            following = done | 1 << t
            ahead = cheapest_completion(graph, goal, following, down, own)
            if ahead is not None and cost < best.get(following, INFINITE):
                best[following] = cost
                total = round(cost + ahead.cost, 9)  # of equal totals the one that has come farthest
                heapq.heappush(queue, (total, -cost, following, t if first < 0 else first))
    return None


class AtOnce:
    """One action, at once and always."""

    reads_terms = True

    def __init__(self, action: int, name: str) -> None:
        self.action, self.name = action, name

    def begin(self, env: Any) -> None:
        """Nothing to prepare."""

    def act(self, observation: Array, action_mask: Array) -> Actions:
        return np.full(len(action_mask), self.action)


def references(env: Any) -> dict[str, list[Policy]]:
    """All references as {family of references: candidates}."""
    healing: list[Policy] = [
        HealingRouter(Knobs(kappa, escalate_at, ask_at, redo, consult, retry))
        for kappa, (escalate_at, ask_at), redo, (consult, retry) in product(
            (0.0, 0.3, 1.0),
            ((1.1, 1.1), (0.3, 1.1), (1.0, 0.3)),
            (False, True),
            ((False, False), (False, True), (True, True)),
        )
    ]
    return {
        "healing router": healing,
        "paper's healing code": [PaperHealing()],
        "static workflow": [StaticWorkflow()],
        "ReAct": [ReAct()],
        "ToolChain A*": [ToolChainAStar()],
        "escalate at once": [AtOnce(ESCALATE, "escalate at once")],
        "finish at once": [AtOnce(FINISH, "finish at once")],
    }
