"""Prices of all ways through a graph: the features behind `through` and `on_way`.

An estimate by sums over inputs: exact where joins are `any`; where an `all` join needs two tools that share an input,
that input is counted twice. Exact plans for one graph are in `plans`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rlroute.envs.tool_graph.table import GraphTable
from rlroute.hints import index
from rlroute.jit import kernel

BLOCKED = 1e6  # a price that no way through is worth

# What is worked out about a tool; all episodes use the same (T,) records, one after the other.
WAY: dict[str, Any] = {
    "price": np.float64,  # of executing it
    "done": np.bool_,  # it is there already
    "reach": np.float64,  # price of executing it from where the episode stands
    "onto": np.float64,  # of stepping onto it: its own, and with an `all` join all its inputs
    "ahead": np.float64,  # from it, once executed, to the goal
    "through": np.float64,  # of the cheapest way to the goal through it; BLOCKED where there is none
}


@kernel
def find_ways(table: GraphTable, g: int, ways: np.ndarray, goal: int) -> None:
    """Fill `reach` and `through` of the tools of graph `g` from `price` and `done`; `goal` may be NO_GOAL."""
    g, tools, inputs = index(g), table.tools, table.inputs
    size = table.graphs[g].num_tools
    for t in range(size):
        way, tool = ways[t], tools[g, t]
        every, least = 0.0, BLOCKED
        for k in range(tool.num_inputs):
            reach = ways[index(inputs[g, t, k])].reach
            every += reach
            least = min(least, reach)
        own = 0.0 if way.done else way.price
        way.onto = own + (every if tool.joins_all and not way.done else 0.0)
        way.reach = own
        if tool.num_inputs > 0 and not way.done:
            way.reach += every if tool.joins_all else least
        way.ahead = way.through = BLOCKED
    if goal < 0:
        return
    ways[index(goal)].ahead = 0.0
    for back in range(goal + 1):
        t = index(goal - back)
        way, tool = ways[t], tools[g, t]
        way.through = min(way.reach + way.ahead, BLOCKED)
        if way.ahead >= BLOCKED:
            continue
        shared = tool.joins_all and not way.done
        for k in range(tool.num_inputs):
            before = ways[index(inputs[g, t, k])]
            step = way.onto - before.reach if shared else way.onto
            before.ahead = min(before.ahead, way.ahead + step)
