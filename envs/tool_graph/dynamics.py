"""ToolGraph: N episodes on the graphs of a suite; what an action does is in `transitions`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rlroute.envs.arguments import EpisodeArguments, require_one_of
from rlroute.envs.episodes import EpisodeDynamics
from rlroute.envs.terms import Range, ends
from rlroute.envs.tool_graph import transitions
from rlroute.envs.tool_graph.costs import WAY
from rlroute.envs.tool_graph.faults import (
    FAULT,
    FAULTS,
    MIXED,
    REGIME_NAMES,
    REGIMES,
    SCENARIO,
    regime_records,
    regime_table,
)
from rlroute.envs.tool_graph.graph import ToolGraph
from rlroute.envs.tool_graph.observation import Sight, make_layout
from rlroute.envs.tool_graph.progress import TRACE, Known, Progress
from rlroute.envs.tool_graph.suites import STATES, Suite, load_suite
from rlroute.envs.tool_graph.transitions import Game
from rlroute.jit import records


@dataclass(frozen=True)
class ToolGraphArguments(EpisodeArguments):
    """Arguments of ToolGraph, beside the common ones."""

    log: str | Suite = "stochastic-small"  # type: ignore[assignment]  # name of a suite, folder of graphs, or a Suite
    reward: str = "utility"  # see rlroute.envs.tool_graph.utility
    faults: str | None = None  # a name of faults.FAULTS; default: the suite's
    model_cost: Range = 0.1  # utility lost by a consultation, or a range drawn log-uniformly per episode
    max_choices: int | None = None  # tools that an observation has room for; default: those of the largest graph

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("reward", self.reward, ("utility",))
        require_one_of("faults", self.faults, (None, *FAULTS))
        low, high = ends(self.model_cost)
        if not (0 <= low <= high < np.inf) or (low < high and low == 0):
            expected = "expected a number ≥ 0, or a pair (low, high) with 0 < low ≤ high"
            raise ValueError(f"model_cost={self.model_cost!r}: {expected}")


class ToolGraphDynamics(EpisodeDynamics):
    """N episodes of ToolGraph."""

    family: ClassVar[str] = "rlroute/ToolGraph-v0"
    arguments_type = ToolGraphArguments
    slot_fields: ClassVar[dict[str, Any]] = TRACE
    tallies: ClassVar[tuple[str, ...]] = transitions.TALLIES
    enter_all = staticmethod(transitions.enter_all)
    step_all = staticmethod(transitions.step_all)
    arguments: ToolGraphArguments

    def __init__(self, arguments: ToolGraphArguments, num_envs: int) -> None:
        self.suite = load_suite(arguments.log)
        super().__init__(arguments, num_envs, self.suite)
        self.num_tools = arguments.max_choices or self.suite.num_tools
        if self.num_tools < self.suite.num_tools:
            raise ValueError(
                f"max_choices={arguments.max_choices!r}: suite {self.suite.name!r} has a graph of "
                f"{self.suite.num_tools} tools, expected at least that"
            )
        index = arguments.obs == "index"
        self.layout = make_layout(self.num_tools, index=index)
        self.tables = self.suite.table(self.num_tools)  # one row a task
        if arguments.budget_usd is not None:
            self._refuse_unusable_budget(arguments.budget_usd)
        self.c_ref = float(self.tables.graphs["cheapest_usd"].mean())
        self.l_ref = float(self.tables.tools["latency_s"][self.tables.present].mean())
        self.tables.put_latencies(self.l_ref)
        self.faults_name = arguments.faults or self.suite.faults
        self.regimes = regime_table(tuple(REGIMES) if self.faults_name == MIXED else (self.faults_name,))
        known = Known.nothing(self.slots, self.tables, regime_records(self.regimes))
        self.faults = records((num_envs, self.num_tools), FAULT)
        self.game = Game(
            num_tools=self.num_tools,
            sight=Sight(
                known=known,
                ways=records(self.num_tools, WAY),
                mask=np.zeros((num_envs, self.layout.num_actions), np.int8),
                seen=np.zeros((num_envs, self.layout.size), np.float32),
            ),
            faults=self.faults,
            met=np.zeros(self.num_tools, np.int64),
            walk=np.zeros((num_envs, self.max_episode_steps), np.int32),
            roots=self.roots,
            model_cost=ends(arguments.model_cost),
            scenario=self.faults_name == SCENARIO,
            by_row=index,
            l_ref=self.l_ref,
            tallies=self.tally,
        )
        self.progress = Progress(known)

    @property
    def default_max_episode_steps(self) -> int:
        return 4 * self.num_tools + 8

    # -- what policies may read ---------------------------------------------------------------------------------

    def graph(self, slot: int) -> ToolGraph:
        """The graph that a slot plays on."""
        return self.suite.task_of(int(self.task[slot])).graph

    @property
    def calls(self) -> np.ndarray:
        return np.asarray(self.slots["tool_calls"])

    @property
    def expensive_calls(self) -> np.ndarray:
        """Consultations of the model."""
        return np.asarray(self.slots["model_calls"])

    @property
    def outcome(self) -> np.ndarray:
        """(num_envs,) index of STATES."""
        return np.asarray(self.slots["outcome"])

    @property
    def repeated_effects(self) -> np.ndarray:
        return np.asarray(self.slots["repeated_effects"])

    @property
    def risk_breaches(self) -> np.ndarray:
        return np.asarray(self.slots["risk_breaches"])

    def walk(self, slot: int) -> list[tuple[int, bool]]:
        """The tools called in the episode of a slot, and whether they succeeded."""
        return [(int(code) // 2, bool(code % 2)) for code in self.game.walk[slot, : self.calls[slot]]]

    def describe_progress(self, slot: int) -> list[str]:
        names = np.array([tool.name for tool in self.graph(slot).tools])
        progress, size = self.progress, len(names)

        def listed(flags: np.ndarray) -> str:
            return ", ".join(names[flags[slot, :size]]) or "none"

        return [
            f"executed: {listed(progress.executed)}; known down: {listed(progress.known_down)}",
            f"alarms: {listed(progress.alarm)}; model calls: {progress.model_calls[slot]}",
            f"outcome: {STATES[self.outcome[slot]]}; repeated effects: {self.repeated_effects[slot]}",
        ]

    def picture(self, slot: int) -> np.ndarray:
        from rlroute.envs.tool_graph.render import draw_walk

        task = self.suite.task_of(int(self.task[slot]))
        ended = STATES[self.outcome[slot]] if self.outcome[slot] else "under way"
        calls = self.progress.model_calls[slot]
        title = f"{task.id}: {ended}, {self.totals.cost_usd[slot]:.3g} USD, {calls} model calls"
        return draw_walk(task.graph, self.walk(slot), title)

    def policy_card(self) -> dict[str, Any]:
        names = [f"tool {t}" for t in range(self.num_tools)]
        return {
            "family": self.family,
            "choices": {name: {} for name in names},  # their names are the graph's, which a live episode brings along
            "layout": self.layout.to_dict(),
            "arguments": self.arguments.to_dict(),
            "log": {"name": self.suite.name, "content_hash": self.suite.content_hash},
            "reference": {"cost_usd": self.c_ref, "latency_s": self.l_ref},
            "constants": {
                "num_tools": self.num_tools,
                **{f"regime/{name}": float(x) for name, x in zip(REGIME_NAMES, self.regimes.mean(axis=0), strict=True)},
            },
            "extra_names": [],
        }

    # -- construction -------------------------------------------------------------------------------------------

    def _refuse_unusable_budget(self, budget_usd: Range) -> None:
        tools = self.tables.tools
        first = self.tables.present & (tools["num_inputs"] == 0)
        cheapest = float(np.where(first, tools["cost_usd"], np.inf)[self.roots // len(STATES)].min())
        if ends(budget_usd)[0] < cheapest:
            raise ValueError(
                f"budget_usd={budget_usd!r} is below the cheapest step: expected at least {cheapest:.3g} USD"
            )
