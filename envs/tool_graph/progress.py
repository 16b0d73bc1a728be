"""What a router knows of N episodes on tool graphs: what was called, what came of it, and what follows from that.

Replay and live use keep the same record, so that both observe the same.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from rlroute.envs.tool_graph.faults import REGIME_NAMES, beliefs, risk_belief, still_down
from rlroute.envs.tool_graph.table import NO_GOAL, GraphTable

UNKNOWN = -1
HEALTHY, HARD, WRONG = range(3)  # what a consultation says of a tool


@dataclass
class Progress:
    """N episodes with up to T tools, as far as they went."""

    table: GraphTable  # (N, …)
    regime: np.ndarray  # (N, 7) see faults.REGIME_NAMES
    model_cost: np.ndarray  # (N,) utility lost by a consultation
    executed: np.ndarray  # (N, T) bool: reported success at least once
    inputs_met: np.ndarray  # (N, T) executed predecessors of each tool
    cheapest_edge_usd: np.ndarray  # (N, T) from an executed predecessor; infinite where there is none
    known_down: np.ndarray  # (N, T) bool: the last thing seen of it is a hard fault
    known_bad: np.ndarray  # (N, T) bool: a consultation showed that its output is, or would be, bad
    seen_down_at: np.ndarray  # (N, T) step of the last hard fault seen
    may_be_hard: np.ndarray  # (N, T) bool: nothing seen excludes it
    may_be_wrong: np.ndarray  # (N, T) bool
    may_be_healthy: np.ndarray  # (N, T) bool
    alarm: np.ndarray  # (N, T) bool: what the monitors show now
    effect_done: np.ndarray  # (N, T) bool: the side effect of this tool was done, by whomever
    tool_calls: np.ndarray  # (N, T)
    goal_rank: np.ndarray  # (N,) 0, and 1 more for every demotion
    model_calls: np.ndarray  # (N,)
    steps: np.ndarray  # (N,) actions taken
    risk_alarm: np.ndarray  # (N,) bool: what the risk signal shows
    known_risk: np.ndarray  # (N,) 0 or 1 after a consultation, UNKNOWN before
    spent_usd: np.ndarray  # (N,)

    @classmethod
    def start(cls, table: GraphTable) -> Progress:
        """N episodes on the graphs of `table` before anything was done."""
        n, t = table.present.shape

        def flags(value: bool = False) -> np.ndarray:
            return np.full((n, t), value)

        return cls(
            table=table,
            regime=np.zeros((n, len(REGIME_NAMES))),
            model_cost=np.zeros(n),
            executed=flags(),
            inputs_met=np.zeros((n, t), np.int64),
            cheapest_edge_usd=np.full((n, t), np.inf),
            known_down=flags(),
            known_bad=flags(),
            seen_down_at=np.zeros((n, t)),
            may_be_hard=flags(True),
            may_be_wrong=flags(True),
            may_be_healthy=flags(True),
            alarm=flags(),
            effect_done=flags(),
            tool_calls=np.zeros((n, t), np.int64),
            goal_rank=np.zeros(n, np.int64),
            model_calls=np.zeros(n, np.int64),
            steps=np.zeros(n, np.int64),
            risk_alarm=np.zeros(n, bool),
            known_risk=np.full(n, UNKNOWN),
            spent_usd=np.zeros(n),
        )

    def clear(self, which: np.ndarray) -> None:
        """Back to the start in the slots `which`; graph, regime and prices are the caller's to set."""
        for field in fields(self):
            if field.name.startswith("may_be"):
                getattr(self, field.name)[which] = True
            elif field.name not in ("table", "regime", "model_cost", "known_risk"):
                getattr(self, field.name)[which] = 0
        self.known_risk[which] = UNKNOWN
        self.cheapest_edge_usd[which] = np.inf

    # -- what happens -------------------------------------------------------------------------------------------

    def called(self, which: np.ndarray, tool: np.ndarray, succeeded: np.ndarray, cost_usd: np.ndarray) -> np.ndarray:
        """Calls of `tool` (M,) came back; returns which of them repeated a side effect, (M,) bool."""
        effect = self.table.effect[which, tool]
        repeated = succeeded & (effect >= 0) & self.effect_done[which, tool]
        self.tool_calls[which, tool] += 1
        self.known_down[which, tool] = ~succeeded
        self.seen_down_at[which, tool] = np.where(succeeded, self.seen_down_at[which, tool], self.steps[which])
        # A success excludes a hard fault, a failure everything else.
        self.may_be_hard[which, tool] = ~succeeded
        self.may_be_wrong[which, tool] = self.may_be_healthy[which, tool] = succeeded
        self.known_bad[which, tool] &= ~succeeded  # it was done again: whether well, nobody said yet
        self._execute(which[succeeded], tool[succeeded])
        done = succeeded & (effect >= 0)
        self.effect_done[which] |= (self.table.effect[which] == effect[:, None]) & done[:, None]
        self.steps[which] += 1
        self.spent_usd[which] += cost_usd
        return repeated

    def _execute(self, which: np.ndarray, tool: np.ndarray) -> None:
        new = ~self.executed[which, tool]
        which, tool = which[new], tool[new]
        self.executed[which, tool] = True
        follows = self.table.before[which, :, tool]  # (M, T)
        self.inputs_met[which] += follows
        edge = np.where(follows, self.table.edge_usd[which, :, tool], np.inf)
        self.cheapest_edge_usd[which] = np.minimum(self.cheapest_edge_usd[which], edge)

    def consulted(self, which: np.ndarray, health: np.ndarray, risk: np.ndarray) -> None:
        """The model said how every tool is, `health` (M, T) of HEALTHY, HARD, WRONG, and whether there is `risk` (M,).

        Of an executed tool it says how its output is.
        """
        self.known_down[which] = health == HARD
        self.known_bad[which] = health == WRONG
        now = np.broadcast_to(self.steps[which, None], health.shape)
        self.seen_down_at[which] = np.where(health == HARD, now, self.seen_down_at[which])
        self.may_be_healthy[which] = health == HEALTHY
        self.may_be_hard[which] = health == HARD
        self.may_be_wrong[which] = health == WRONG
        self.known_risk[which] = risk
        self.model_calls[which] += 1
        self.steps[which] += 1

    def demoted(self, which: np.ndarray) -> None:
        """The goal is the next degraded one from now on."""
        self.goal_rank[which] += 1
        self.steps[which] += 1

    # -- what follows -------------------------------------------------------------------------------------------

    @property
    def callable(self) -> np.ndarray:
        """(N, T) bool: tools whose join is satisfied."""
        table = self.table
        enough = np.where(table.joins_all, self.inputs_met == table.num_before, self.inputs_met > 0)
        return table.present & (enough | (table.num_before == 0))

    @property
    def call_cost_usd(self) -> np.ndarray:
        """(N, T) price of a call now: the tool's own, and the cheapest executed edge (`any`) or all edges (`all`).

        Of a tool with no executed predecessor yet it is the price by its cheapest edge.
        """
        table = self.table
        edge = np.where(np.isfinite(self.cheapest_edge_usd), self.cheapest_edge_usd, table.least_edge_usd)
        return table.cost_usd + np.where(table.joins_all, table.all_edges_usd, edge)

    @property
    def beliefs(self) -> tuple[np.ndarray, np.ndarray]:
        """P(hard fault now) and P(wrong), (N, T) each."""
        hard, wrong = beliefs(
            self.table, self.regime, self.alarm, self.may_be_hard, self.may_be_wrong, self.may_be_healthy, self.steps
        )
        hard = np.where(self.known_down, still_down(self.regime, self.seen_down_at, self.steps), hard)
        return hard, np.where(self.known_bad, 1.0, np.where(self.known_down, 0.0, wrong))

    @property
    def risk_belief(self) -> np.ndarray:
        """(N,) probability that irreversible effects do harm."""
        believed = risk_belief(self.table.risk, self.risk_alarm)
        return np.where(self.known_risk == UNKNOWN, believed, self.known_risk)

    def goal(self, rank: np.ndarray) -> np.ndarray:
        """(N,) the tool that is the goal of that rank, NO_GOAL beyond the last."""
        last = self.table.goal.shape[1] - 1
        tool = self.table.goal[np.arange(len(rank)), np.minimum(rank, last)]
        return np.where(rank <= last, tool, NO_GOAL)

    def goal_value(self, rank: np.ndarray) -> np.ndarray:
        """(N,) what the goal of that rank is worth."""
        last = self.table.goal.shape[1] - 1
        return np.where(rank <= last, self.table.goal_value[np.arange(len(rank)), np.minimum(rank, last)], 0.0)
