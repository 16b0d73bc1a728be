"""Prices of all ways through a graph: the features behind `detour`, `on_way` and `effects`.

An estimate by sums over inputs: exact where joins are `any`; where an `all` join needs two tools that share an input,
that input is counted twice, and of tools with one side effect the best is chosen one effect at a time. Exact plans for
one graph are in `plans`.
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
    "held": np.bool_,  # left out, since another tool with its side effect is on the way; see `find_lawful_way`
    "reach": np.float64,  # price of executing it from where the episode stands
    "onto": np.float64,  # of stepping onto it: its own, and with an `all` join all its inputs
    "ahead": np.float64,  # from it, once executed, to the goal
    "through": np.float64,  # of the cheapest way to the goal through it; BLOCKED where there is none
    "taken": np.bool_,  # it is still to be called on the cheapest way to the goal
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
        own = BLOCKED if way.held else way.price
        own = 0.0 if way.done else own
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


@kernel
def trace_way(table: GraphTable, g: int, ways: np.ndarray, goal: int) -> int:
    """Fill `taken` from what `find_ways` found; returns how many irreversible effects the way has. No tool is taken
    where the goal is NO_GOAL or out of reach."""
    effects = 0
    for t in range(table.graphs[g].num_tools):
        ways[t].taken = False
    if goal < 0 or ways[goal].reach >= BLOCKED:
        return effects
    ways[goal].taken = True
    for t in range(goal, -1, -1):
        way, tool = ways[t], table.tools[g, t]
        way.taken = way.taken and not way.done
        if not way.taken:
            continue
        effects += tool.effect >= 0
        nearest = -1
        for k in range(tool.num_inputs):
            before = table.inputs[g, t, k]
            if tool.joins_all:
                ways[before].taken = True
            elif nearest < 0 or ways[before].reach < ways[nearest].reach:
                nearest = before
        if nearest >= 0:
            ways[nearest].taken = True
    return effects


@kernel
def find_lawful_way(table: GraphTable, g: int, ways: np.ndarray, goal: int) -> int:
    """`find_ways` and `trace_way` without a way that does one side effect twice.

    Branches that an `all` join brings together may each be cheapest by another tool with the same side effect. The one
    is kept by which the goal is cheapest, and its rivals are held back, lest calling one of them close the way.
    """
    size, tools = table.graphs[g].num_tools, table.tools
    for t in range(size):
        ways[t].held = False
    find_ways(table, g, ways, goal)
    effects = trace_way(table, g, ways, goal)
    while True:
        effect = _effect_done_twice(table, g, ways)
        if effect < 0:
            return effects
        kept, least = -1, 0.0
        for t in range(size):
            if tools[g, t].effect == effect:
                _keep(table, g, ways, effect, t)
                find_ways(table, g, ways, goal)
                if kept < 0 or ways[goal].reach < least:
                    kept, least = t, ways[goal].reach
        _keep(table, g, ways, effect, kept)
        find_ways(table, g, ways, goal)
        effects = trace_way(table, g, ways, goal)


@kernel
def _effect_done_twice(table: GraphTable, g: int, ways: np.ndarray) -> int:
    """A side effect of two tools that are taken, −1 if there is none."""
    tools = table.tools
    for t in range(table.graphs[g].num_tools):
        if ways[t].taken and tools[g, t].effect >= 0:
            for u in range(t):
                if ways[u].taken and tools[g, u].effect == tools[g, t].effect:
                    return int(tools[g, t].effect)
    return -1


@kernel
def _keep(table: GraphTable, g: int, ways: np.ndarray, effect: int, kept: int) -> None:
    """Hold back all tools with this side effect but one."""
    for t in range(table.graphs[g].num_tools):
        if table.tools[g, t].effect == effect:
            ways[t].held = t != kept
