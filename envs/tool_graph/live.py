"""ToolGraph in a live loop: one episode on a graph that the loop brings along, observed as in replay.

`decide` takes the graph as its text (YAML, see `graph.py`), and what is seen as features: ``alarm/TOOL`` is 1 where
the monitor of a tool shows an alarm, ``risk_alarm`` where the risk signal does, ``risk_prior`` how likely a risk is
beforehand. After a consultation the next `decide` is told ``health/TOOL`` (0 healthy, 1 down, 2 a bad output; healthy
where nothing is said) and ``risk`` (0 or 1). `record` after a call says by `error` that it failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real

import numpy as np

from rlroute.envs.live import LiveEpisode
from rlroute.envs.terms import ends
from rlroute.envs.tool_graph.faults import REGIME_NAMES
from rlroute.envs.tool_graph.graph import ToolGraph, parse_graph, parse_yaml
from rlroute.envs.tool_graph.observation import CONTEXT_ACTIONS, write_observation
from rlroute.envs.tool_graph.progress import HEALTHY, Progress
from rlroute.envs.tool_graph.table import GraphTable
from rlroute.policy import TrainedPolicy
from rlroute.router import Response

ONE = np.zeros(1, np.int64)  # the only slot


class ToolGraphLive(LiveEpisode):
    """A batch of one whose tools are called for real."""

    @classmethod
    def check(cls, policy: TrainedPolicy) -> None:
        super().check(policy)
        policy.value("constants", "num_tools", kind=Real)
        policy.value("arguments", "model_cost")
        for name in REGIME_NAMES:
            policy.value("constants", f"regime/{name}", kind=Real)

    def __init__(self, policy: TrainedPolicy, terms: Mapping[str, float | None]) -> None:
        super().__init__(policy, terms)
        self.graph: ToolGraph | None = None
        self.progress: Progress | None = None
        self._text = ""
        self._consulting = False

    @property
    def choices(self) -> tuple[str, ...]:
        return () if self.graph is None else tuple(tool.name for tool in self.graph.tools)

    def completion_limit(self, choice: int) -> int | None:
        return None

    def situate(self, text: str, features: Mapping[str, float], prompt_tokens: int, can_think: bool) -> None:
        """The graph is `text`; what monitors, and a consultation just made, say are `features`."""
        if self.graph is None:
            self._begin(text, features)
        elif text != self._text:
            raise ValueError("decide() got another graph: expected the one that the episode began with")
        graph, progress = self._now
        known = {"risk_alarm", "risk_prior", "risk"}
        known |= {f"{kind}/{tool.name}" for kind in ("alarm", "health") for tool in graph.tools}
        for name, value in features.items():
            if name not in known:
                raise ValueError(f"features has {name!r}: expected among {', '.join(sorted(known))}")
            if not 0 <= value <= 2:
                raise ValueError(f"features[{name!r}]: found {value!r}, expected a number in [0, 2]")

        def of_tools(kind: str) -> np.ndarray:
            row = np.zeros((1, progress.table.present.shape[1]))
            row[0, : graph.size] = [features.get(f"{kind}/{tool.name}", 0.0) for tool in graph.tools]
            return row

        if self._consulting:
            health = of_tools("health").astype(np.int64)
            progress.consulted(ONE, health, np.array([int(features.get("risk", HEALTHY))]))
            self._consulting = False
        progress.alarm[:] = of_tools("alarm") > 0
        progress.risk_alarm[:] = features.get("risk_alarm", 0.0) > 0

    def _begin(self, text: str, features: Mapping[str, float]) -> None:
        graph = parse_graph(parse_yaml(text, "the text of decide()"), "the text of decide()")
        room = int(self.constants["num_tools"])
        if graph.size > room:
            raise ValueError(f"the graph has {graph.size} tools: expected at most {room}, what the policy has room for")
        self.graph, self._text = graph, text
        self.progress = Progress.start(GraphTable.of([graph], [float(features.get("risk_prior", 0.0))], room))
        low, high = ends(self.arguments["model_cost"])
        self.progress.model_cost[:] = np.sqrt(low * high)
        self.progress.regime[:] = [self.constants[f"regime/{name}"] for name in REGIME_NAMES]

    @property
    def _now(self) -> tuple[ToolGraph, Progress]:
        if self.graph is None or self.progress is None:
            raise RuntimeError("no graph yet: expected decide() first")
        return self.graph, self.progress

    def callable(self) -> np.ndarray:
        """(1, num_tools) bool: joins satisfied, and the price within the budget."""
        progress = self._now[1]
        return progress.callable & (progress.call_cost_usd <= self.usd_left[:, None])

    def action_mask(self) -> np.ndarray:
        progress = self._now[1]
        context = np.ones((1, len(CONTEXT_ACTIONS)), np.int8)
        context[:, CONTEXT_ACTIONS.index("consult")] = progress.model_calls < self.terms.budget_calls
        context[:, CONTEXT_ACTIONS.index("demote")] = progress.goal(progress.goal_rank + 1) >= 0
        return np.concatenate([context, self.callable().astype(np.int8)], axis=1)

    def observe(self) -> np.ndarray:
        """(1, layout.size) float32."""
        out = np.empty((1, self.layout.size), np.float32)
        write_observation(out, self.layout, self._now[1], self.terms, self.usd_left, self.callable(), self.l_ref)
        return out

    def taken(self, action: str, choice: int | None) -> float:
        """Consult, demote, escalate and finish cost no USD of their own."""
        self._consulting = action == "consult"
        if action == "demote":
            self._now[1].demoted(ONE)
        return 0.0

    def record(self, choice: int, response: Response) -> float:
        """A call came back; it costs what was recorded, else what the graph says."""
        progress = self._now[1]
        cost = float(progress.call_cost_usd[0, choice]) if response.cost_usd is None else response.cost_usd
        succeeded = np.array([response.error is None])
        progress.called(ONE, np.array([choice]), succeeded, np.array([cost]))
        return self.pay(cost)
