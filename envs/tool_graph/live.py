"""ToolGraph in a live loop: one episode on a graph that the loop brings along, observed as in replay.

`decide` takes the graph as its text (YAML, see `graph.py`), and what is seen as features: ``alarm/TOOL`` is 1 where
the monitor of a tool shows an alarm, ``risk_alarm`` where the risk signal does, ``risk_prior`` how likely a risk is
beforehand. After a consultation the next `decide` is told ``health/TOOL`` (0 healthy, 1 down, 2 a bad output; healthy
where nothing is said) and ``risk`` (0 or 1). `record` after a call says by `error` that it failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any, ClassVar

import numpy as np

from rlroute.envs.live import LiveEpisode
from rlroute.envs.terms import ends
from rlroute.envs.tool_graph.costs import WAY
from rlroute.envs.tool_graph.faults import REGIME_NAMES, regime_records
from rlroute.envs.tool_graph.graph import ToolGraph, parse_graph, parse_yaml
from rlroute.envs.tool_graph.observation import Sight, observe_goal, observe_progress, observe_terms
from rlroute.envs.tool_graph.progress import (
    HEALTHY,
    TRACE,
    Known,
    add_call,
    add_consultation,
    believe_all,
    clear,
    demote,
    hear,
    hear_signal,
    watch,
    write_mask,
)
from rlroute.envs.tool_graph.table import GraphTable
from rlroute.jit import records
from rlroute.policy import TrainedPolicy
from rlroute.router import Response


class ToolGraphLive(LiveEpisode):
    """A batch of one whose tools are called for real."""

    slot_fields: ClassVar[dict[str, Any]] = TRACE

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
        self.sight: Sight | None = None
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
        graph, known = self._now[0], self._now[1].known
        names = {"risk_alarm", "risk_prior", "risk"}
        names |= {f"{kind}/{tool.name}" for kind in ("alarm", "health") for tool in graph.tools}
        for name, value in features.items():
            if name not in names:
                raise ValueError(f"features has {name!r}: expected among {', '.join(sorted(names))}")
            if not 0 <= value <= 2:
                raise ValueError(f"features[{name!r}]: found {value!r}, expected a number in [0, 2]")
        if self._consulting:
            for t, tool in enumerate(graph.tools):
                hear(known, 0, t, int(features.get(f"health/{tool.name}", HEALTHY)))
            add_consultation(known, 0, int(features.get("risk", 0)))
            self._consulting = False
        for t, tool in enumerate(graph.tools):
            watch(known, 0, t, features.get(f"alarm/{tool.name}", 0.0) > 0)
        hear_signal(known, 0, features.get("risk_alarm", 0.0) > 0)

    def _begin(self, text: str, features: Mapping[str, float]) -> None:
        graph = parse_graph(parse_yaml(text, "the text of decide()"), "the text of decide()")
        room = int(self.constants["num_tools"])
        if graph.size > room:
            raise ValueError(f"the graph has {graph.size} tools: expected at most {room}, what the policy has room for")
        table = GraphTable.of([graph], [float(features.get("risk_prior", 0.0))], room)
        table.put_latencies(self.l_ref)
        regimes = regime_records(np.array([[self.constants[f"regime/{name}"] for name in REGIME_NAMES]]))
        known = Known.nothing(self.slots, table, regimes)
        low, high = ends(self.arguments["model_cost"])
        self.slots["model_cost"] = np.sqrt(low * high)
        clear(known, 0)
        mask = np.zeros((1, self.layout.num_actions), np.int8)
        self.graph, self._text = graph, text
        self.sight = Sight(known, records(room, WAY), mask, np.zeros((1, self.layout.size), np.float32))

    @property
    def _now(self) -> tuple[ToolGraph, Sight]:
        if self.graph is None or self.sight is None:
            raise RuntimeError("no graph yet: expected decide() first")
        return self.graph, self.sight

    def action_mask(self) -> np.ndarray:
        """(1, num_actions) int8."""
        sight = self._now[1]
        write_mask(sight.known, 0, sight.mask)
        return sight.mask

    def observe(self) -> np.ndarray:
        """(1, layout.size) float32."""
        sight = self._now[1]
        write_mask(sight.known, 0, sight.mask)
        believe_all(sight.known, 0)
        observe_terms(sight, 0)
        observe_goal(sight, 0)
        observe_progress(sight, 0)
        return sight.seen.copy()

    def taken(self, action: str, choice: int | None) -> float:
        """Consult, demote, escalate and finish cost no USD of their own."""
        self._consulting = action == "consult"
        if action == "demote":
            demote(self._now[1].known, 0)
        return 0.0

    def record(self, choice: int, response: Response) -> float:
        """A call came back; it costs what was recorded, else what the graph says."""
        known = self._now[1].known
        price = float(known.tools[0, choice].call_cost_usd)
        add_call(known, 0, choice, response.error is None)
        return self.pay(price if response.cost_usd is None else response.cost_usd)
