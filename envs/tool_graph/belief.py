"""The belief-optimal policy on small tool graphs, by dynamic programming over what was seen.

Where faults hold all episode and show themselves (no `wrong`, `transient` or `late` ones), what was seen of an episode
is the pair (executed tools, tools seen to be down); what is believed besides is the joint distribution of health given
the monitors' first readings, which never change. Calling an executed tool again, one that is down, or one whose side
effect was done changes nothing for the better, so those calls are left out. A consultation shows everything, so what
follows it is a deterministic search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlroute.envs.tool_graph.faults import REGIME_NAMES
from rlroute.envs.tool_graph.graph import ToolGraph
from rlroute.envs.tool_graph.transitions import CONSULT, DEMOTE, ESCALATE, FINISH, FIRST_CALL
from rlroute.envs.tool_graph.utility import ESCALATED_VALUE

LARGEST = 10  # tools
STATIC = ("wrong", "transient", "late")  # shares that have to be 0


def is_static(regime: np.ndarray) -> bool:
    """Whether faults of these regimes (M, 7) hold all episode and show when a tool is called."""
    return not regime[:, [REGIME_NAMES.index(name) for name in STATIC]].any()


def health_prior(graph: ToolGraph, regime: np.ndarray, alarm: np.ndarray) -> np.ndarray:
    """(B, 2^T) probability that exactly the tools of a bit mask are down, given `alarm` (B, T) and one regime (7,)."""
    number = dict(zip(REGIME_NAMES, regime, strict=True))
    own = np.array([1.0 - tool.reliability for tool in graph.tools]) * number["own"]
    if_down = np.where(alarm, number["detection"], 1 - number["detection"])  # (B, T)
    if_up = np.where(alarm, number["false_alarm"], 1 - number["false_alarm"])
    masks = np.arange(1 << graph.size)
    is_down = (masks[:, None] >> np.arange(graph.size) & 1).astype(bool)  # (2^T, T)
    prior = np.ones((len(alarm), len(masks)))
    outages = list(graph.provider_outage.values())
    for provider in range(-1, len(outages)):
        tools = np.flatnonzero(graph.provider == provider)
        alone = np.ones_like(prior)
        together = np.ones_like(prior)
        for t in tools:
            alone *= np.where(is_down[:, t], own[t] * if_down[:, [t]], (1 - own[t]) * if_up[:, [t]])
            together *= np.where(is_down[:, t], if_down[:, [t]], 0.0)
        outage = outages[provider] * number["provider"] if provider >= 0 else 0.0
        prior *= (1 - outage) * alone + outage * together
    return np.asarray(prior / prior.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Prices:
    """What the reward is made of."""

    cost_weight: float
    model_cost: float  # infinite where no consultation is allowed
    cheapest_usd: float


class FullInformation:
    """Values on one graph once everything is known, for all masks of tools that are down at once."""

    def __init__(self, graph: ToolGraph, prices: Prices) -> None:
        self.graph, self.prices = graph, prices
        masks = np.arange(1 << graph.size)
        self._is_down = [(masks >> t & 1).astype(bool) for t in range(graph.size)]
        self._known: dict[tuple[int, bool], np.ndarray] = {}

    def end(self, executed: int) -> float:
        """The most that ending now is worth."""
        return max([ESCALATED_VALUE, *(goal.value for goal in self.graph.goals if executed >> goal.tool & 1)])

    def call_price(self, tool: int, executed: int) -> float:
        """Utility that a call costs."""
        prices = self.prices
        return prices.cost_weight * self.graph.call_cost_usd(tool, executed) / prices.cheapest_usd

    def callable(self, executed: int) -> list[int]:
        """Tools worth calling."""
        graph = self.graph
        return [
            t
            for t in range(graph.size)
            if not executed >> t & 1 and graph.callable(t, executed) and not graph.repeats_effect(t, executed)
        ]

    def value(self, executed: int, risk: bool) -> np.ndarray:
        """(2^T,) value of what is left, by the mask of tools that are down."""
        key = executed, risk
        if key not in self._known:
            best = np.full(1 << self.graph.size, self.end(executed))
            for t in self.callable(executed):
                harm = float(risk and self.graph.effect[t] >= 0)
                after = self.value(executed | 1 << t, risk) - self.call_price(t, executed) - harm
                best = np.maximum(best, np.where(self._is_down[t], -np.inf, after))
            self._known[key] = best
        return self._known[key]

    def next_tool(self, executed: int, down: int, risk: bool) -> int:
        """The tool to call, −1 to end."""
        best, chosen = self.end(executed), -1
        for t in self.callable(executed):
            if not down >> t & 1:
                harm = float(risk and self.graph.effect[t] >= 0)
                after = self.value(executed | 1 << t, risk)[down] - self.call_price(t, executed) - harm
                if after > best + 1e-12:
                    best, chosen = after, t
        return chosen


class BeliefOptimal:
    """Values and actions for a batch of B episodes on one graph.

    `prior` (B, 2^T) as `health_prior` gives it, `risk` (B,) the probability that irreversible effects do harm.
    """

    def __init__(self, graph: ToolGraph, prices: Prices, prior: np.ndarray, risk: np.ndarray) -> None:
        if graph.size > LARGEST:
            raise ValueError(f"{graph.name}: {graph.size} tools, expected at most {LARGEST}")
        self.graph, self.prices, self.prior, self.risk = graph, prices, prior, risk
        self.known = FullInformation(graph, prices)
        self._masks = np.arange(1 << graph.size)
        self._mass: dict[tuple[int, int], np.ndarray] = {}
        self._solved: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}

    @property
    def value(self) -> np.ndarray:
        """(B,) expected utility from the start."""
        return self.solve(0, 0)[0]

    def solve(self, executed: int, down: int) -> tuple[np.ndarray, np.ndarray]:
        """Expected utility of what is left (B,), and the best action (B,): a tool's call, CONSULT, or FINISH to end."""
        key = executed, down
        if key in self._solved:
            return self._solved[key]
        known = self.known
        options, actions = [np.full(len(self.prior), known.end(executed))], [FINISH]
        mass = np.maximum(self._probability(executed, down), 1e-300)
        for t in known.callable(executed):
            if down >> t & 1:
                continue
            up = np.minimum(self._probability(executed | 1 << t, down) / mass, 1.0)
            harm = self.risk * (self.graph.effect[t] >= 0)
            after = up * (self.solve(executed | 1 << t, down)[0] - harm)
            after = after + (1 - up) * self.solve(executed, down | 1 << t)[0] - known.call_price(t, executed)
            options.append(after)
            actions.append(FIRST_CALL + t)
        options.append(self._consulted(executed, down, mass) - self.prices.model_cost)
        actions.append(CONSULT)
        table = np.stack(options)
        best = table.argmax(axis=0)
        self._solved[key] = table.max(axis=0), np.array(actions)[best]
        return self._solved[key]

    def _probability(self, executed: int, down: int) -> np.ndarray:
        """(B,) that all executed tools are up and all of `down` down."""
        key = executed, down
        if key not in self._mass:
            fits = (self._masks & executed == 0) & (self._masks & down == down)
            self._mass[key] = self.prior[:, fits].sum(axis=1)
        return self._mass[key]

    def _consulted(self, executed: int, down: int, mass: np.ndarray) -> np.ndarray:
        """(B,) expected value once everything is shown."""
        fits = (self._masks & executed == 0) & (self._masks & down == down)
        safe, risky = (self.prior[:, fits] @ self.known.value(executed, risk)[fits] / mass for risk in (False, True))
        return np.asarray((1 - self.risk) * safe + self.risk * risky)


class BeliefOptimalPolicy:
    """Plays what `BeliefOptimal` finds; it knows the probabilities of its episode, but no draw."""

    name = "latent-knowing"
    reads_terms = True

    def begin(self, env: object) -> None:
        from rlroute.policies import dynamics_of

        self.dynamics = dynamics_of(env)
        self._episode = np.full(self.dynamics.num_envs, -1)
        self._solution: dict[int, BeliefOptimal] = {}

    def act(self, observation: np.ndarray, action_mask: np.ndarray) -> np.ndarray:
        actions = np.full(len(action_mask), ESCALATE)
        for slot in np.flatnonzero(self.dynamics.active).tolist():
            actions[slot] = self._decide(slot)
        return actions

    def _decide(self, slot: int) -> int:
        d = self.dynamics
        graph = d.graph(slot)
        if self._episode[slot] != d.episode[slot]:
            self._episode[slot] = d.episode[slot]
            model_cost = float(d.progress.model_cost[slot]) if d.terms.budget_calls[slot] >= 1 else np.inf
            prices = Prices(float(d.w_cost[slot]), model_cost, float(d.progress.cheapest_usd[slot]))
            prior = health_prior(graph, d.progress.regime[slot], d.progress.alarm[[slot], : graph.size])
            self._solution[slot] = BeliefOptimal(graph, prices, prior, d.progress.risk_belief[[slot]])
        executed, down = (mask_of(flags[slot, : graph.size]) for flags in (d.progress.executed, d.progress.known_down))
        solution = self._solution[slot]
        if d.progress.model_calls[slot]:
            tool = solution.known.next_tool(executed, down, bool(d.progress.known_risk[slot]))
            action = FIRST_CALL + tool if tool >= 0 else FINISH
        else:
            action = int(solution.solve(executed, down)[1][0])
        return self._ending(slot, graph, executed) if action == FINISH else action

    def _ending(self, slot: int, graph: ToolGraph, executed: int) -> int:
        """Finish with the best goal that is executed, after the demotions that takes; escalate where there is none."""
        worth = [goal.value if executed >> goal.tool & 1 else 0.0 for goal in graph.goals]
        best = int(np.argmax(worth))
        if worth[best] <= ESCALATED_VALUE:
            return ESCALATE
        return DEMOTE if self.dynamics.progress.goal_rank[slot] < best else FINISH


def mask_of(flags: Sequence[bool] | np.ndarray) -> int:
    """Flags as a bit mask."""
    return sum(1 << t for t, flag in enumerate(flags) if flag)
