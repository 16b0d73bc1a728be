"""The rules by which the code of Self-Healing Router (arXiv 2603.01548) counts, over our graphs and plans.

They are its rules, not ours: all outages are known before a call, re-planning starts at the start, a goal given up
counts as handled. `rlroute.envs.tool_graph` plays the same scenarios under an accounting that hides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlroute.envs.tool_graph.graph import ToolGraph, members
from rlroute.envs.tool_graph.plans import cheapest_completion

STUCK_CALLS = 4  # model calls that ReAct is charged with where no way is left
MANY_DOWN = 3  # known outages from which one model call more is made


@dataclass(frozen=True)
class Row:
    """One scenario: what the healing router, ReAct and a static workflow do."""

    model_calls: int  # of the healing router
    reroutes: int  # of the healing router
    react_calls: int  # of the model, by ReAct
    static: str  # "ok", "silent" or "crash"
    tools: int  # attempted by ReAct, each once
    stuck: bool
    irreversible: bool  # something that cannot be undone was done before it was stuck


def play(graph: ToolGraph, down: int) -> Row:
    """Walk the cheapest path from the start; after a failed call plan again from the start, around known failures."""
    goal = graph.goals[0].tool
    known, reroutes, attempted = 0, 0, 0
    while True:
        plan = cheapest_completion(graph, goal, 0, known)
        if plan is None:
            break
        walk = members(_through(plan.tools, down))
        attempted |= sum(1 << t for t in walk)
        failed = [t for t in walk if down >> t & 1]
        if not failed:
            break
        known |= 1 << failed[0]
        reroutes += 1
    stuck = plan is None
    # What costs nothing to reach is a join of several tools, not a tool.
    tools = sum(graph.call_cost_usd(t, graph.predecessors[t]) > 0 for t in members(attempted))
    return Row(
        model_calls=int(stuck) + int(down.bit_count() >= MANY_DOWN),
        reroutes=reroutes,
        react_calls=tools + (STUCK_CALLS if stuck else 1),
        static=static_outcome(graph, down),
        tools=tools,
        stuck=stuck,
        irreversible=any(graph.effect[t] >= 0 for t in members(attempted & ~down)),
    )


def _through(tools: tuple[int, ...], down: int) -> int:
    """The tools of a path up to and including the first that is down."""
    walked = 0
    for t in tools:
        walked |= 1 << t
        if down >> t & 1:
            break
    return walked


def static_outcome(graph: ToolGraph, down: int) -> str:
    """A layer wholly down ends a fixed workflow: with a crash, or unnoticed where it has exactly one fallback."""
    for tools in layers(graph):
        if all(down >> t & 1 for t in tools):
            return "silent" if len(tools) == 2 else "crash"
    return "ok"


def layers(graph: ToolGraph) -> list[list[int]]:
    """Tools by their distance from the start."""
    depth: list[int] = []
    for t in range(graph.size):
        depth.append(1 + max((depth[p] for p in members(graph.predecessors[t])), default=-1))
    return [[t for t in range(graph.size) if depth[t] == d] for d in range(max(depth) + 1)]


def paper_cells(row: Row, risk: bool) -> tuple[int, int]:
    """(healing router's, ReAct's) model calls as the paper counts them, as far as we could reconstruct it [ours].

    A risk costs the healing router one call. Where no way is left it makes one call, two if something irreversible was
    done before. ReAct makes one call a tool, and four more where no way is left.
    """
    if risk:
        return 1, row.tools
    healing = (2 if row.irreversible else 1) if row.stuck else 0
    return healing, row.tools + (STUCK_CALLS if row.stuck else 0)
