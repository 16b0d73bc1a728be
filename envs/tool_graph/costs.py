"""Prices of all ways through a graph: the features behind `detour`, `on_way` and `effects`.

An estimate by sums over inputs: exact where joins are `any`; where an `all` join needs two tools that share an input,
that input is counted twice, and of tools with one side effect the best is chosen one effect at a time. Exact plans for
one graph are in `plans`.

Kernels go over the links of a graph in one loop, forth and back, and choose values in place of branches: graphs differ
from episode to episode, so that a processor would mostly guess wrong.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rlroute.envs.tool_graph.table import NO_GOAL, NO_TOOL, GraphTable
from rlroute.hints import index
from rlroute.jit import kernel

BLOCKED = 1e6  # a price that no way through is worth
TO_GOAL, TO_DEGRADED = 1, 2  # bits of `taken`

# What is worked out about a tool; all episodes use the same (T,) records, one after the other.
WAY: dict[str, Any] = {
    "price": np.float64,  # of a call
    "own": np.float64,  # the same, 0 where it is there already, BLOCKED where it is held
    "every": np.float64,  # of executing all its inputs
    "least": np.float64,  # of executing the nearest of them
    "reach": np.float64,  # of executing it from where the episode stands
    "ahead": np.float64,  # from it, once executed, to the goal
    "nearest": np.int16,  # input, NO_TOOL where none is in reach
    "done": np.bool_,  # it is there already
    "held": np.bool_,  # left out, since another tool with its side effect is on the way; see `find_ways`
    "taken": np.uint8,  # it is still to be called on the cheapest ways TO_GOAL and TO_DEGRADED
}


@kernel
def set_out(way: Any, price: float, done: bool) -> None:
    """A tool, a record of `WAY`, of which nothing is worked out yet."""
    way.price, way.done, way.held = price, done, False
    _forget(way)


@kernel
def _forget(way: Any) -> None:
    own = BLOCKED if way.held else way.price
    way.own = way.reach = 0.0 if way.done else own
    way.every, way.least, way.nearest = 0.0, BLOCKED, NO_TOOL
    way.ahead, way.taken = BLOCKED, 0


@kernel
def through(way: Any) -> float:
    """Price of the cheapest way to the goal through a tool, a record of `WAY`; BLOCKED where there is none."""
    return min(way.reach + way.ahead, BLOCKED)


@kernel
def find_ways(table: GraphTable, g: int, ways: np.ndarray, goal: int, degraded: int) -> tuple[int, float, int]:
    """Fill the `ways` of the tools of graph `g`, which have `set_out`; `degraded` may be NO_GOAL.

    Returns how many irreversible effects the way to the goal has, and the price and the effects of that to the degraded
    goal; a goal out of reach has none. No way does one side effect twice: branches that an `all` join brings together
    may each be cheapest by another tool with the same side effect. The one is kept by which the goal is cheapest, and
    its rivals are held back, lest calling one of them close the way.
    """
    g = index(g)
    reach_tools(table, g, ways)
    lead_to(table, g, ways, goal, degraded)
    degraded_way = ways[degraded].reach if degraded >= 0 else BLOCKED
    if table.graphs[g].has_rivals:
        return _find_lawful_ways(table, g, ways, goal, degraded, degraded_way)
    effects = degraded_effects = 0
    for k in range(table.graphs[g].num_effects):
        taken = ways[index(table.effects[g, k])].taken
        effects += taken & TO_GOAL
        degraded_effects += taken // TO_DEGRADED
    return effects, degraded_way, degraded_effects


@kernel
def reach_tools(table: GraphTable, g: int, ways: np.ndarray) -> None:
    """Fill `every`, `least`, `nearest` and `reach`: links lie in the order of the tools that they lead to."""
    for k in range(table.graphs[g].num_links):
        link = table.links[g, k]
        way, joins_all = ways[index(link.target)], link.joins_all
        before, least, nearest = ways[index(link.source)].reach, way.least, way.nearest
        every = way.every + before
        nearest = link.source if before < least else nearest
        least = min(before, least)
        reach = way.own + (every if joins_all else least)
        way.every, way.least, way.nearest = every, least, nearest
        way.reach = 0.0 if way.done else reach


@kernel
def lead_to(table: GraphTable, g: int, ways: np.ndarray, goal: int, degraded: int) -> None:
    """Fill `ahead` and `taken` from what `reach_tools` found; both goals may be NO_GOAL."""
    if degraded >= 0:
        way = ways[degraded]
        way.taken = TO_DEGRADED if way.reach < BLOCKED and not way.done else 0
    if goal >= 0:
        way = ways[goal]
        way.ahead = 0.0
        way.taken |= TO_GOAL if way.reach < BLOCKED and not way.done else 0
    last = table.graphs[g].num_links - 1
    for k in range(last + 1):
        link = table.links[g, index(last - k)]
        before, way = ways[index(link.source)], ways[index(link.target)]
        joins_all, own, every, reach, taken = link.joins_all, way.own, way.every, before.reach, way.taken
        step = own + every - reach if joins_all & ~way.done else own
        before.ahead = min(before.ahead, way.ahead + step)
        before.taken |= taken if (joins_all | (way.nearest == link.source)) & ~before.done else 0


@kernel
def _find_lawful_ways(
    table: GraphTable, g: int, ways: np.ndarray, goal: int, degraded: int, degraded_way: float
) -> tuple[int, float, int]:
    """`find_ways` where tools have the same side effect, once the cheapest ways are found."""
    degraded_effects = count_effects(table, g, ways, TO_DEGRADED)
    if _effect_done_twice(table, g, ways, TO_DEGRADED) >= 0:
        _hold_rivals(table, g, ways, degraded)
        degraded_way, degraded_effects = ways[degraded].reach, count_effects(table, g, ways, TO_GOAL)
        for t in range(table.graphs[g].num_tools):
            ways[t].held = False
        _find_again(table, g, ways, goal)
    if _effect_done_twice(table, g, ways, TO_GOAL) >= 0:
        _hold_rivals(table, g, ways, goal)
    return count_effects(table, g, ways, TO_GOAL), degraded_way, degraded_effects


@kernel
def _find_again(table: GraphTable, g: int, ways: np.ndarray, goal: int) -> None:
    """The cheapest way to one goal, with other tools held than before."""
    for t in range(table.graphs[g].num_tools):
        _forget(ways[t])
    reach_tools(table, g, ways)
    lead_to(table, g, ways, goal, NO_GOAL)


@kernel
def count_effects(table: GraphTable, g: int, ways: np.ndarray, which: int) -> int:
    """How many irreversible effects the way `which`, a bit of `taken`, has."""
    effects = 0
    for k in range(table.graphs[g].num_effects):
        effects += (ways[index(table.effects[g, k])].taken & which) != 0
    return effects


@kernel
def _hold_rivals(table: GraphTable, g: int, ways: np.ndarray, goal: int) -> None:
    """Hold back tools until the way to the goal, which is that TO_GOAL then, does no side effect twice."""
    _find_again(table, g, ways, goal)
    while True:
        effect = _effect_done_twice(table, g, ways, TO_GOAL)
        if effect < 0:
            return
        kept, least = -1, 0.0
        for k in range(table.graphs[g].num_effects):
            t = table.effects[g, k]
            if table.tools[g, t].effect == effect:
                _keep(table, g, ways, effect, t)
                _find_again(table, g, ways, goal)
                if kept < 0 or ways[goal].reach < least:
                    kept, least = t, ways[goal].reach
        _keep(table, g, ways, effect, kept)
        _find_again(table, g, ways, goal)


@kernel
def _effect_done_twice(table: GraphTable, g: int, ways: np.ndarray, which: int) -> int:
    """A side effect of two tools that are taken on the way `which`, −1 if there is none."""
    for k in range(table.graphs[g].num_effects):
        t = table.effects[g, k]
        if ways[t].taken & which:
            for earlier in range(k):
                u = table.effects[g, earlier]
                if ways[u].taken & which and table.tools[g, u].effect == table.tools[g, t].effect:
                    return int(table.tools[g, t].effect)
    return -1


@kernel
def _keep(table: GraphTable, g: int, ways: np.ndarray, effect: int, kept: int) -> None:
    """Hold back all tools with this side effect but one."""
    for k in range(table.graphs[g].num_effects):
        t = table.effects[g, k]
        if table.tools[g, t].effect == effect:
            ways[t].held = t != kept
