"""The cheapest way on from what has been executed: exact, with `any` and `all` joins and effects done once.

Where all joins are `any` this is Dijkstra's shortest path; with `all` joins it is a minimum-cost AND–OR completion,
in which a tool that two branches need is paid once. Both are one recursion over sets of tools still needed, taken
from the last in topological order to the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlroute.envs.tool_graph.graph import ToolGraph, members

INFINITE = float("inf")


@dataclass(frozen=True)
class Plan:
    """Tools to call, in order, and what they cost by the prices they were planned with."""

    tools: tuple[int, ...]
    cost: float


def cheapest_completion(
    graph: ToolGraph,
    goal: int,
    executed: int = 0,
    blocked: int = 0,
    price: Sequence[float] | None = None,
    edge_scale: float = 1.0,
) -> Plan | None:
    """The cheapest plan that executes tool `goal`, or None where there is none.

    `executed` and `blocked` are bit masks: what ran already and costs nothing, and what must not be called. A tool
    whose side effect was done, by an executed tool or one of the plan, is not called either. `price` (T,) replaces
    the tools' own costs in USD, for plans under beliefs; `edge_scale` puts edge costs in the same unit.
    """
    own = [tool.cost_usd for tool in graph.tools] if price is None else price
    for t in members(executed):
        blocked |= graph.rivals[t]
    memo: dict[tuple[int, int], tuple[float, int]] = {}

    def solve(needed: int, forbidden: int) -> tuple[float, int]:
        """Least cost of executing all of `needed`, and the whole set of tools that takes."""
        if not needed:
            return 0.0, 0
        key = needed, forbidden & (1 << needed.bit_length()) - 1
        if key in memo:
            return memo[key]
        tool = needed.bit_length() - 1
        rest = needed ^ 1 << tool
        best = (INFINITE, 0)
        if not forbidden >> tool & 1 and own[tool] < INFINITE:
            before, edges = graph.predecessors[tool], graph.edge_cost_usd[tool]
            forbidden |= graph.rivals[tool]
            if not before or graph.tools[tool].join == "all":
                options = [(before, float(sum(edges[p] for p in members(before))))]
            else:
                options = [(1 << p, float(edges[p])) for p in members(before)]
            for inputs, edge in options:
                cost, tools = solve(rest | inputs & ~executed, forbidden)
                cost += own[tool] + edge * edge_scale
                if cost < best[0]:
                    best = cost, tools | 1 << tool
        memo[key] = best
        return best

    if executed >> goal & 1:
        return Plan((), 0.0)
    cost, tools = solve(1 << goal, blocked)
    return None if cost == INFINITE else Plan(tuple(members(tools)), cost)
