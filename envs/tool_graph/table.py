"""Graphs as tables, one row a graph: what kernels look up of the graph that an episode is played on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rlroute.envs.scales import money_feature
from rlroute.envs.tool_graph.graph import ToolGraph
from rlroute.envs.tool_graph.plans import cheapest_completion
from rlroute.jit import records

NO_GOAL = -1
NO_TOOL = -1

GRAPH: dict[str, Any] = {
    "num_tools": np.int64,  # those of a row beyond them are padding
    "cheapest_usd": np.float64,  # cost of the cheapest outage-free completion of the goal
    "risk": np.float64,  # prior probability that irreversible effects do harm
    "num_links": np.int16,
    "num_effects": np.int16,  # tools with a side effect
    "has_rivals": np.bool_,  # some of them have the same
}
TOOL: dict[str, Any] = {
    "cost_usd": np.float64,  # of its own, without edges
    "first_cost_usd": np.float64,  # of a call before any input was executed: by the cheapest edge (`any`) or all
    "latency_s": np.float64,
    "latency": np.float64,  # as observed
    "own_fault": np.float64,  # 1 − reliability
    "outage": np.float64,  # probability that its provider is down, 0 without one
    "effect": np.int16,  # number of its side effect, −1 none
    "provider": np.int16,  # −1 none
    "sibling": np.int16,  # the next tool of its provider, after the last the first; itself where it is alone
    "num_inputs": np.int16,
    "num_outputs": np.int16,
    "needed": np.int16,  # inputs that have to be executed before it can be called
    "joins_all": np.bool_,
    "leads": np.bool_,  # the first tool of its provider, or alone
    "down": np.bool_,  # in the scenario of this task
}
GOAL: dict[str, Any] = {"tool": np.int64, "value": np.float64}
EDGE: dict[str, Any] = {"tool": np.int64, "usd": np.float64}
# An edge as `costs` reads it.
LINK: dict[str, Any] = {
    "source": np.int16,  # tool
    "target": np.int16,
    "joins_all": np.bool_,  # the join of the target
}


class GraphTable(NamedTuple):
    """G graphs of up to T tools and L goals. Tools are in topological order, padding comes last."""

    graphs: np.ndarray  # (G,) records of `GRAPH`
    tools: np.ndarray  # (G, T) records of `TOOL`
    goals: np.ndarray  # (G, L + 1) records of `GOAL`; NO_GOAL after the last
    outputs: np.ndarray  # (G, T, K) records of `EDGE`: successors of each tool, NO_TOOL where there are fewer
    links: np.ndarray  # (G, E) records of `LINK`: all edges by target, then by source
    effects: np.ndarray  # (G, M) int16 tools with a side effect, in order

    @classmethod
    def of(
        cls, graphs: Sequence[ToolGraph], risk: Sequence[float], num_tools: int, down: Sequence[Sequence[str]] = ()
    ) -> GraphTable:
        """The table of `graphs`, padded to `num_tools`; `down` names tools of each that are down in its scenario."""
        shape = len(graphs), num_tools
        edges_of = [np.isfinite(graph.edge_cost_usd) for graph in graphs]
        most_outputs = max(1, *(int(edges.sum(axis=0).max()) for edges in edges_of))
        table = cls(
            graphs=records(len(graphs), GRAPH),
            tools=records(shape, TOOL),
            goals=records((len(graphs), 1 + max(len(graph.goals) for graph in graphs)), GOAL),
            outputs=records((*shape, most_outputs), EDGE),
            links=records((len(graphs), max(1, *(int(edges.sum()) for edges in edges_of))), LINK),
            effects=np.full(
                (len(graphs), max(1, *(int((graph.effect >= 0).sum()) for graph in graphs))), NO_TOOL, np.int16
            ),
        )
        table.goals["tool"], table.outputs["tool"] = NO_GOAL, NO_TOOL
        table.tools["effect"] = table.tools["provider"] = NO_TOOL
        table.tools["sibling"], table.tools["leads"] = np.arange(num_tools), True
        for g, graph in enumerate(graphs):
            plan = cheapest_completion(graph, graph.goals[0].tool)
            assert plan is not None, "checked when the graph was parsed"
            table.graphs["num_tools"][g], table.graphs["cheapest_usd"][g] = graph.size, plan.cost
            table.graphs["risk"][g] = risk[g]
            for rank, goal in enumerate(graph.goals):
                table.goals[g, rank] = goal.tool, goal.value
            table._fill_tools(g, graph)
            table._link(g, graph.edge_cost_usd)
        for g, names in enumerate(down):
            table.tools["down"][g, [graphs[g].index[name] for name in names]] = True
        return table

    def _fill_tools(self, g: int, graph: ToolGraph) -> None:
        tools, edges = self.tools[g, : graph.size], graph.edge_cost_usd
        exists = np.isfinite(edges)
        tools["cost_usd"] = [tool.cost_usd for tool in graph.tools]
        tools["latency_s"] = [tool.latency_s for tool in graph.tools]
        tools["own_fault"] = 1.0 - np.array([tool.reliability for tool in graph.tools])
        tools["joins_all"] = [tool.join == "all" for tool in graph.tools]
        tools["effect"], tools["provider"] = graph.effect, graph.provider
        irreversible = np.flatnonzero(graph.effect >= 0)
        self.effects[g, : len(irreversible)] = irreversible
        self.graphs["num_effects"][g] = len(irreversible)
        self.graphs["has_rivals"][g] = len(np.unique(graph.effect[irreversible])) < len(irreversible)
        tools["num_inputs"], tools["num_outputs"] = exists.sum(axis=1), exists.sum(axis=0)
        tools["needed"] = np.where(tools["joins_all"], tools["num_inputs"], np.minimum(tools["num_inputs"], 1))
        least = np.where(exists.any(axis=1), edges.min(axis=1), 0.0)
        every = np.where(exists, edges, 0.0).sum(axis=1)
        tools["first_cost_usd"] = tools["cost_usd"] + np.where(tools["joins_all"], every, least)
        for provider, outage in enumerate(graph.provider_outage.values()):
            members = np.flatnonzero(graph.provider == provider)
            tools["outage"][members], tools["leads"][members[1:]] = outage, False
            tools["sibling"][members] = np.roll(members, -1)

    def _link(self, g: int, edge_usd: np.ndarray) -> None:
        targets, sources = np.nonzero(np.isfinite(edge_usd))
        links = self.links[g, : len(targets)]
        self.graphs["num_links"][g] = len(targets)
        links["source"], links["target"], links["joins_all"] = sources, targets, self.tools["joins_all"][g, targets]
        for t in range(len(edge_usd)):
            after = np.flatnonzero(np.isfinite(edge_usd[:, t]))
            self.outputs["tool"][g, t, : len(after)] = after
            self.outputs["usd"][g, t, : len(after)] = edge_usd[after, t]

    @property
    def present(self) -> np.ndarray:
        """(G, T) bool: no padding."""
        return np.arange(self.tools.shape[1]) < self.graphs["num_tools"][:, None]

    def put_latencies(self, l_ref: float) -> None:
        """Fill what is observed of the latencies, in units of `l_ref` seconds."""
        for g, t in zip(*np.nonzero(self.present), strict=True):
            self.tools["latency"][g, t] = money_feature(self.tools["latency_s"][g, t] / l_ref)
