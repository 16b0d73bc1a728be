"""The self-healing router: deterministic plans over a tool graph, made anew after every failure.

`HealingRouter` is the method of arXiv 2603.01548 without the faults of its code: it re-plans from what was executed,
never does an irreversible thing twice, and knows of a failure only once it has seen it. `PaperHealing` is the code as
it is: it re-plans from the start.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from rlroute.envs.tool_graph.graph import ToolGraph, members
from rlroute.envs.tool_graph.observation import LEAST_HEALTH
from rlroute.envs.tool_graph.plans import Plan, cheapest_completion
from rlroute.envs.tool_graph.transitions import CONSULT, DEMOTE, ESCALATE, FINISH, FIRST_CALL
from rlroute.policies import Actions, Array, dynamics_of

MOST_CALLS = 4  # of one tool: no fault is worth more patience


@dataclass(frozen=True)
class Knobs:
    """What a healing router is tuned by."""

    kappa: float = 0.0  # how much of −log P(healthy) is added to the price of a tool
    escalate_at: float = 1.1  # risk from which it escalates before an irreversible effect
    ask_at: float = 1.1  # risk from which it asks a model first, which knows
    redo: bool = False  # whether the output of an executed tool that is rather bad than not is not built on
    consult: bool = False  # whether a consultation comes before giving up
    retry: bool = False  # whether a tool seen to be down is called again before giving up


@dataclass
class Sight:
    """What the router sees of one episode; tools as bit masks."""

    graph: ToolGraph
    executed: int
    down: int  # seen to be down
    bad: int  # known, or rather believed than not, to give bad outputs
    goal: int
    degraded: int  # the next degraded goal, −1 for none
    price: Sequence[float]  # (T,) of executing each tool
    edge_scale: float
    risk: float
    consulted: bool
    calls: Sequence[int]  # (T,) of each tool so far


def next_action(sight: Sight, knobs: Knobs) -> int:
    """The action that a healing router takes, a number of the action space."""
    sound = sight.executed & ~sight.bad if knobs.redo else sight.executed
    if sight.goal >= 0 and sight.graph.holds(sound) >> sight.goal & 1:
        return FINISH
    plan = plan_from(sight, sound, sight.goal, sight.down)
    if plan is not None:
        irreversible = any(sight.graph.effect[t] >= 0 for t in plan.tools)
        if irreversible and sight.risk >= knobs.ask_at and not sight.consulted:
            return CONSULT
        if irreversible and sight.risk >= knobs.escalate_at:
            return ESCALATE
        return FIRST_CALL + plan.tools[0]
    if knobs.consult and not sight.consulted:
        return CONSULT
    if knobs.retry:
        tired = sum(1 << t for t in range(sight.graph.size) if sight.calls[t] >= MOST_CALLS)
        again = plan_from(sight, sound, sight.goal, sight.down & tired)
        if again is not None:
            return FIRST_CALL + again.tools[0]
    if sight.degraded >= 0:
        reached = sight.graph.holds(sound) >> sight.degraded & 1
        if reached or plan_from(sight, sound, sight.degraded, sight.down) is not None:
            return DEMOTE
    return ESCALATE


def plan_from(sight: Sight, sound: int, goal: int, down: int) -> Plan | None:
    """The cheapest plan on from the `sound` outputs, around `down`; no side effect done twice, nothing redone twice.

    An output stays good where one of its inputs is unsound: then the input is done again, not what was built on it.
    """
    if goal < 0:
        return None
    graph = sight.graph
    blocked = down | sight.bad & ~sight.executed
    for t in members(sight.executed):
        if graph.effect[t] >= 0:
            blocked |= graph.rivals[t] | 1 << t
        elif sight.calls[t] >= 2:
            blocked |= 1 << t
    held = graph.holds(sound)
    waiting = sound & ~held  # good themselves, but not what they stand on
    price = tuple(0.0 if waiting >> t & 1 else price for t, price in enumerate(sight.price))
    plan = _planned(graph, goal, held, blocked & ~sound, price, sight.edge_scale)
    if plan is None:
        return None
    return Plan(tuple(t for t in plan.tools if not waiting >> t & 1), plan.cost)


# Candidates that differ in other knobs meet the same situations, and plan alike in them.
_planned = lru_cache(maxsize=1 << 16)(cheapest_completion)


class SlotPolicy(ABC):
    """A policy that decides slot by slot from what it sees of each."""

    name = "slot policy"
    reads_terms = True
    reads_model_cost = False

    def begin(self, env: Any) -> None:
        self.dynamics = dynamics_of(env)
        self._episode = np.full(self.dynamics.num_envs, -1)

    def act(self, observation: Array, action_mask: Array) -> Actions:
        dynamics = self.dynamics
        self.observe_all()
        actions = np.full(len(action_mask), ESCALATE)
        for slot in np.flatnonzero(dynamics.active):
            if self._episode[slot] != dynamics.episode[slot]:
                self._episode[slot] = dynamics.episode[slot]
                self.start(int(slot))
            action = self.decide(int(slot))
            actions[slot] = action if action_mask[slot, action] else ESCALATE
        return actions

    def start(self, slot: int) -> None:
        """An episode begins in a slot."""
        return

    @abstractmethod
    def decide(self, slot: int) -> int:
        """The action of a slot; one that is masked becomes an escalation."""

    def observe_all(self) -> None:
        """Read from the dynamics what `see` hands on, for all slots at once."""
        d, progress = self.dynamics, self.dynamics.progress
        hard, wrong = progress.beliefs
        self._executed, self._down = _masks(progress.executed), _masks(progress.known_down)
        self._bad = _masks(progress.known_bad | (wrong >= 0.5))
        self._unhealth = -np.log(np.clip(1.0 - hard - wrong, LEAST_HEALTH, 1.0))
        self._scale = d.w_cost / progress.cheapest_usd
        self._own = self._scale[:, None] * progress.cost_usd
        self._risk = progress.risk_belief
        self._goal, self._degraded = progress.goal, progress.degraded

    def see(self, slot: int, kappa: float = 0.0) -> Sight:
        """What is seen of one slot; prices are in utility, with `kappa` times −log P(healthy) on top."""
        d = self.dynamics
        graph = d.graph(slot)
        price = self._own[slot] + kappa * self._unhealth[slot] + 1e-9  # of two free ways the one of fewer calls
        return Sight(
            graph=graph,
            executed=self._executed[slot],
            down=self._down[slot],
            bad=self._bad[slot],
            goal=int(self._goal[slot]),
            degraded=int(self._degraded[slot]),
            price=price[: graph.size].tolist(),
            edge_scale=float(self._scale[slot]),
            risk=float(self._risk[slot]),
            consulted=bool(d.progress.model_calls[slot]),
            calls=d.progress.tool_calls[slot],
        )


class HealingRouter(SlotPolicy):
    """Re-plans from what was executed, around what is down."""

    def __init__(self, knobs: Knobs) -> None:
        self.knobs = knobs
        parts = [f"κ = {knobs.kappa:g}"] + [n for n in ("redo", "consult", "retry") if getattr(knobs, n)]
        parts += [f"asks at risk {knobs.ask_at:g}"] if knobs.ask_at <= 1 else []
        parts += [f"escalates at risk {knobs.escalate_at:g}"] if knobs.escalate_at <= 1 else []
        self.name = f"healing router ({', '.join(parts)})"

    def decide(self, slot: int) -> int:
        return next_action(self.see(slot, self.knobs.kappa), self.knobs)


class PaperHealing(SlotPolicy):
    """The paper's code: after a failure it plans from the start again, and runs again what it ran before.

    A model call comes when no way is left, and one more once three tools are known to be down; then the goal is
    demoted.
    """

    name = "paper's healing code"

    def begin(self, env: Any) -> None:
        super().begin(env)
        self._failures = np.zeros(self.dynamics.num_envs, np.int64)
        self._walked = [0] * self.dynamics.num_envs  # tools run since the latest plan
        self._called = np.full(self.dynamics.num_envs, -1)  # the tool called last

    def start(self, slot: int) -> None:
        self._failures[slot], self._walked[slot], self._called[slot] = 0, 0, -1

    def decide(self, slot: int) -> int:
        sight = self.see(slot)
        failures = sight.down.bit_count()
        if failures > self._failures[slot]:
            self._failures[slot], self._walked[slot] = failures, 0
        elif self._called[slot] >= 0:
            self._walked[slot] |= 1 << int(self._called[slot])
        self._called[slot] = -1
        if self._walked[slot] >> sight.goal & 1:
            return FINISH
        if failures >= 3 and not sight.consulted:
            return CONSULT
        plan = cheapest_completion(sight.graph, sight.goal, 0, sight.down, sight.price, sight.edge_scale)
        if plan is None:
            if not sight.consulted:
                return CONSULT
            if sight.degraded < 0:
                return ESCALATE
            return DEMOTE
        tool = next(t for t in plan.tools if not self._walked[slot] >> t & 1)
        self._called[slot] = tool
        return FIRST_CALL + tool


def _masks(flags: np.ndarray) -> list[int]:
    """Rows of flags (N, T) as bit masks."""
    packed = np.packbits(flags, axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in packed]
