"""ToolGraph: what an action does and which actions are masked. Arrays in, arrays out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rlroute.draws import Stream, integers, uniform
from rlroute.envs.arguments import EpisodeArguments, require_one_of
from rlroute.envs.episodes import EpisodeDynamics, Transition
from rlroute.envs.terms import Range, ends
from rlroute.envs.tool_graph.faults import FAULTS, MIXED, REGIME_NAMES, REGIMES, SCENARIO, Faults, regime_table
from rlroute.envs.tool_graph.graph import ToolGraph
from rlroute.envs.tool_graph.observation import CONTEXT_ACTIONS, make_layout, write_observation
from rlroute.envs.tool_graph.progress import HARD, HEALTHY, WRONG, Progress
from rlroute.envs.tool_graph.suites import STATES, Suite, load_suite
from rlroute.envs.tool_graph.utility import ESCALATED_VALUE, utility
from rlroute.rewards import COST_USD, LATENCY_S, QUALITY

CONSULT, DEMOTE, ESCALATE, FINISH = range(len(CONTEXT_ACTIONS))
FIRST_CALL = len(CONTEXT_ACTIONS)
RUNNING, GOAL, DEMOTED, ESCALATED, SILENT, STOPPED = range(len(STATES))
CONSULT_LATENCY_S = 2.0


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
        self.layout = make_layout(self.num_tools, index=arguments.obs == "index")
        self.tables = self.suite.table(self.num_tools)  # one row a task
        if arguments.budget_usd is not None:
            self._refuse_unusable_budget(arguments.budget_usd)
        self.c_ref = float(self.tables.cheapest_usd.mean())
        self.l_ref = float(self.tables.latency_s[self.tables.present].mean())
        self.faults_name = arguments.faults or self.suite.faults
        self.regimes = regime_table(tuple(REGIMES) if self.faults_name == MIXED else (self.faults_name,))
        self.progress = Progress.start(self.tables.rows(np.zeros(num_envs, np.int64)))
        self.faults = Faults.none(num_envs, self.num_tools)
        self.good = np.zeros((num_envs, self.num_tools), bool)  # hidden: executed, and the output is not bad
        self.outcome = np.zeros(num_envs, np.int64)  # index of STATES
        self.repeated_effects = np.zeros(num_envs, np.int64)
        self.risk_breaches = np.zeros(num_envs, np.int64)
        self.walk: list[list[tuple[int, bool]]] = [[] for _ in range(num_envs)]  # tools called, whether they succeeded
        self._consulted = np.zeros(num_envs, np.int64)  # in the latest step
        self._harms = np.zeros(num_envs, np.int64)  # in the latest step

    @property
    def default_max_episode_steps(self) -> int:
        return 4 * self.num_tools + 8

    # -- what policies may read ---------------------------------------------------------------------------------

    def graph(self, slot: int) -> ToolGraph:
        """The graph that a slot plays on."""
        return self.suite.task_of(int(self.task[slot])).graph

    @property
    def callable(self) -> np.ndarray:
        """(N, T) bool: tools whose join is satisfied and whose price the budget covers."""
        return self.progress.callable & (self.progress.call_cost_usd <= self.usd_left[:, None])

    @property
    def calls(self) -> np.ndarray:
        return self.progress.tool_calls.sum(axis=1)

    @property
    def expensive_calls(self) -> np.ndarray:
        """Consultations of the model."""
        return self.progress.model_calls

    # -- transitions --------------------------------------------------------------------------------------------

    def enter_task(self, which: np.ndarray) -> None:
        progress, task = self.progress, self.task[which] // len(STATES)
        progress.table.put(which, self.tables.rows(task))
        progress.clear(which)
        unit, episode = self.slot[which] // self.group_size, self.episode[which]
        low, high = ends(self.arguments.model_cost)
        share = uniform(self.key, unit, episode, Stream.MODEL_COST)
        progress.model_cost[which] = low if low == high else low * (high / low) ** share
        progress.regime[which] = self.regimes[integers(self.key, len(self.regimes), unit, episode, Stream.REGIME)]
        rows, noise = progress.table.rows(which), self.noise_unit(which)
        self.faults.draw(which, rows, progress.regime[which], self.key, noise, episode)
        if self.faults_name == SCENARIO:
            self._impose(which, task)
        progress.risk_alarm[which] = self.faults.risk_alarm[which]
        progress.alarm[which] = self._alarms()[which]
        self.good[which] = False
        for slot in which:
            self.walk[slot] = []
        self.outcome[which] = self.repeated_effects[which] = self.risk_breaches[which] = 0

    def _impose(self, which: np.ndarray, task: np.ndarray) -> None:
        """The outages that the scenarios name, in place of drawn ones."""
        for slot, number in zip(which, task, strict=True):
            self.suite.tasks[number].impose(self.faults, int(slot))

    def _alarms(self) -> np.ndarray:
        return self.faults.alarm(self.progress.steps, self.progress.regime)

    def step(self, action: np.ndarray, mask: np.ndarray) -> Transition:
        self._consulted[:] = self._harms[:] = 0
        transition = super().step(action, mask)
        stopped = np.flatnonzero(transition.truncated)
        self.outcome[stopped] = STOPPED
        self.state[stopped] = self.task[stopped] + STOPPED
        return transition

    def act(self, which: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        vector = np.zeros((len(which), 4))
        terminated = np.zeros(len(which), bool)
        calling = action >= FIRST_CALL
        if calling.any():
            vector[calling] = self._call(which[calling], action[calling] - FIRST_CALL)
        consulting = which[action == CONSULT]
        if len(consulting):
            self._consult(consulting)
            vector[action == CONSULT, LATENCY_S] = CONSULT_LATENCY_S
        self.progress.demoted(which[action == DEMOTE])
        escalating = action == ESCALATE
        vector[escalating, QUALITY] = ESCALATED_VALUE
        self._end(which[escalating], np.full(escalating.sum(), ESCALATED))
        finishing = action == FINISH
        if finishing.any():
            vector[finishing, QUALITY] = self._finish(which[finishing])
        terminated[escalating | finishing] = True
        self.progress.alarm[which] = self._alarms()[which]
        return vector, terminated

    def _call(self, which: np.ndarray, tool: np.ndarray) -> np.ndarray:
        """Reward vectors of calls, (M, 4)."""
        progress = self.progress
        faulty = self.faults.faulty(progress.steps)[which, tool]
        wrong = faulty & self.faults.wrong[which, tool]
        succeeded = ~faulty | wrong
        vector = np.zeros((len(which), 4))
        vector[:, COST_USD] = progress.call_cost_usd[which, tool]
        vector[:, LATENCY_S] = progress.table.latency_s[which, tool]
        breach = succeeded & self.faults.risk[which] & (progress.table.effect[which, tool] >= 0)
        for slot, called, well in zip(which.tolist(), tool.tolist(), succeeded.tolist(), strict=True):
            self.walk[slot].append((called, well))
        repeated = progress.called(which, tool, succeeded, vector[:, COST_USD])
        self.good[which, tool] = np.where(succeeded, ~wrong, self.good[which, tool])
        self.repeated_effects[which] += repeated
        self.risk_breaches[which] += breach
        self._harms[which] += repeated.astype(np.int64) + breach
        return vector

    def _consult(self, which: np.ndarray) -> None:
        faulty, wrong = self.faults.faulty(self.progress.steps)[which], self.faults.wrong[which]
        health = np.where(faulty, np.where(wrong, WRONG, HARD), HEALTHY)
        output = np.where(self.good[which], HEALTHY, WRONG)
        self.progress.consulted(which, np.where(self.progress.executed[which], output, health), self.faults.risk[which])
        self._consulted[which] = 1

    def _finish(self, which: np.ndarray) -> np.ndarray:
        """What the ends are worth, (M,)."""
        progress = self.progress
        rank = progress.goal_rank
        held = progress.table.rows(which).holds(self.good[which])
        reached = held[np.arange(len(which)), progress.goal(rank)[which]]
        kind = np.where(reached, np.where(rank[which] > 0, DEMOTED, GOAL), SILENT)
        self._harms[which] += ~reached
        self._end(which, kind)
        return np.where(reached, progress.goal_value(rank)[which], 0.0)

    def _end(self, which: np.ndarray, outcome: np.ndarray) -> None:
        self.outcome[which] = outcome
        self.state[which] = self.task[which] + outcome
        self.progress.steps[which] += 1

    def scalar_reward(self, vector: np.ndarray, ended: np.ndarray) -> np.ndarray:
        progress = self.progress
        return utility(
            vector[:, QUALITY],
            self._harms,
            vector[:, COST_USD],
            vector[:, LATENCY_S],
            self._consulted,
            self.w_cost,
            self.w_latency,
            progress.model_cost,
            progress.table.cheapest_usd,
            self.l_ref,
        )

    # -- what a policy sees -------------------------------------------------------------------------------------

    def write_action_mask(self, mask: np.ndarray) -> None:
        mask[:, ESCALATE] = mask[:, FINISH] = 1
        mask[:, CONSULT] = self.progress.model_calls < self.terms.budget_calls
        mask[:, DEMOTE] = self.progress.goal(self.progress.goal_rank + 1) >= 0
        mask[:, FIRST_CALL:] = self.callable

    def observe(self, out: np.ndarray) -> None:
        index = self.arguments.obs == "index"
        write_observation(
            out, self.layout, self.progress, self.terms, self.usd_left, self.callable, self.l_ref,
            row=self.state if index else None,
        )  # fmt: skip

    def extra_info(self) -> dict[str, np.ndarray]:
        """How episodes went so far: `outcome` (an index of suites.STATES), side effects repeated, model calls."""
        return {
            "outcome": self.outcome.copy(),
            "repeated_effects": self.repeated_effects.copy(),
            "risk_breaches": self.risk_breaches.copy(),
            "model_calls": self.progress.model_calls.copy(),
        }

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
        return draw_walk(task.graph, self.walk[slot], title)

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
        tables = self.tables
        first = tables.present & (tables.num_before == 0)
        cheapest = float(np.where(first, tables.cost_usd, np.inf)[self.roots // len(STATES)].min())
        if ends(budget_usd)[0] < cheapest:
            raise ValueError(
                f"budget_usd={budget_usd!r} is below the cheapest step: expected at least {cheapest:.3g} USD"
            )
