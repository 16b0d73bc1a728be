"""Graphs as padded arrays, one row a slot: what the dynamics, beliefs and observations compute with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from rlroute.envs.tool_graph.graph import ToolGraph
from rlroute.envs.tool_graph.plans import cheapest_completion

NO_GOAL = -1


@dataclass
class GraphTable:
    """N graphs with up to T tools, P providers and L goals. Tools are in topological order, padding comes last."""

    present: np.ndarray  # (N, T) bool
    cost_usd: np.ndarray  # (N, T)
    latency_s: np.ndarray  # (N, T)
    reliability: np.ndarray  # (N, T)
    edge_usd: np.ndarray  # (N, T, T) of calling t after p; 0 where p is no predecessor of t
    least_edge_usd: np.ndarray  # (N, T) of the cheapest edge to each tool, 0 where there is none
    all_edges_usd: np.ndarray  # (N, T) of all edges to each tool
    before: np.ndarray  # (N, T, T) bool: p is a predecessor of t
    num_before: np.ndarray  # (N, T)
    inputs: np.ndarray  # (N, T, K) predecessors of each tool, T where there are fewer
    outputs: np.ndarray  # (N, T, K) successors, likewise
    joins_all: np.ndarray  # (N, T) bool
    effect: np.ndarray  # (N, T) number of the side effect, −1 none
    provider: np.ndarray  # (N, T) −1 none
    provider_outage: np.ndarray  # (N, P) probability
    goal: np.ndarray  # (N, L) tool, −1 where there are fewer goals
    goal_value: np.ndarray  # (N, L)
    cheapest_usd: np.ndarray  # (N,) cost of the cheapest outage-free completion of the goal
    risk: np.ndarray  # (N,) prior probability that irreversible effects do harm

    @classmethod
    def of(cls, graphs: Sequence[ToolGraph], risk: Sequence[float], num_tools: int) -> GraphTable:
        """The table of `graphs`, padded to `num_tools`."""
        n, t = len(graphs), num_tools
        num_providers = max(1, *(len(graph.provider_outage) for graph in graphs))
        num_goals = max(len(graph.goals) for graph in graphs)
        edges_of = [np.isfinite(graph.edge_cost_usd) for graph in graphs]
        most_inputs = max(1, *(int(edges.sum(axis=1).max()) for edges in edges_of))
        most_outputs = max(1, *(int(edges.sum(axis=0).max()) for edges in edges_of))
        table = cls(
            present=np.zeros((n, t), bool),
            cost_usd=np.zeros((n, t)),
            latency_s=np.zeros((n, t)),
            reliability=np.ones((n, t)),
            edge_usd=np.zeros((n, t, t)),
            least_edge_usd=np.zeros((n, t)),
            all_edges_usd=np.zeros((n, t)),
            before=np.zeros((n, t, t), bool),
            num_before=np.zeros((n, t), np.int64),
            inputs=np.full((n, t, most_inputs), t),
            outputs=np.full((n, t, most_outputs), t),
            joins_all=np.zeros((n, t), bool),
            effect=np.full((n, t), -1),
            provider=np.full((n, t), -1),
            provider_outage=np.zeros((n, num_providers)),
            goal=np.full((n, num_goals), NO_GOAL),
            goal_value=np.zeros((n, num_goals)),
            cheapest_usd=np.ones(n),
            risk=np.asarray(risk, np.float64),
        )
        for i, graph in enumerate(graphs):
            size = graph.size
            edges = graph.edge_cost_usd
            table.present[i, :size] = True
            table.cost_usd[i, :size] = [tool.cost_usd for tool in graph.tools]
            table.latency_s[i, :size] = [tool.latency_s for tool in graph.tools]
            table.reliability[i, :size] = [tool.reliability for tool in graph.tools]
            table.before[i, :size, :size] = np.isfinite(edges)
            table.edge_usd[i, :size, :size] = np.where(np.isfinite(edges), edges, 0.0)
            table.all_edges_usd[i, :size] = table.edge_usd[i, :size].sum(axis=1)
            least = edges.min(axis=1)
            table.least_edge_usd[i, :size] = np.where(np.isfinite(least), least, 0.0)
            table.num_before[i, :size] = np.isfinite(edges).sum(axis=1)
            for tool in range(size):
                before, after = np.flatnonzero(edges_of[i][tool]), np.flatnonzero(edges_of[i][:, tool])
                table.inputs[i, tool, : len(before)], table.outputs[i, tool, : len(after)] = before, after
            table.joins_all[i, :size] = [tool.join == "all" for tool in graph.tools]
            table.effect[i, :size] = graph.effect
            table.provider[i, :size] = graph.provider
            table.provider_outage[i, : len(graph.provider_outage)] = list(graph.provider_outage.values())
            for rank, goal in enumerate(graph.goals):
                table.goal[i, rank], table.goal_value[i, rank] = goal.tool, goal.value
            plan = cheapest_completion(graph, graph.goals[0].tool)
            assert plan is not None, "checked when the graph was parsed"
            table.cheapest_usd[i] = plan.cost
        return table

    def rows(self, index: np.ndarray) -> GraphTable:
        """The table of the graphs `index`, one row each."""
        return GraphTable(*(getattr(self, field.name)[index] for field in fields(self)))

    def put(self, which: np.ndarray, rows: GraphTable) -> None:
        """Overwrite the rows `which`."""
        for field in fields(self):
            getattr(self, field.name)[which] = getattr(rows, field.name)

    def holds(self, good: np.ndarray) -> np.ndarray:
        """(N, T) bool: tools of `good` (executed, output not bad) whose inputs hold as well."""
        held = np.zeros_like(good)
        for t in range(good.shape[1]):
            met = (self.before[:, t] & held).sum(axis=1)
            enough = np.where(self.joins_all[:, t], met == self.num_before[:, t], met > 0)
            held[:, t] = good[:, t] & (enough | (self.num_before[:, t] == 0))
        return held
