"""From a plan (think, call which, accept which) to legal actions: the base of the reference policies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlroute.envs.think_route.experience import Experience
from rlroute.policies import Actions, Array, best_legal, dynamics_of

Floats = NDArray[np.float64]


class ThinkPolicy(ABC):
    """Turns a plan (think, call which, accept which) into legal actions.

    Subclasses fill `plan`. A call that is masked falls back to accepting, then to the cheapest call that is
    open.
    """

    name = "policy"

    def __init__(self, experience: Experience) -> None:
        self.experience = experience

    def begin(self, env: Any) -> None:
        self.dynamics = dynamics_of(env)
        layout = self.dynamics.layout
        choices = range(layout.num_choices)
        self.call = np.array([layout.action("call", c) for c in choices])
        self.accept = np.array([layout.action("accept", c) for c in choices])
        self.think = layout.action("think")
        self.cheapness = -self.experience.cost  # (S, C)

    def act(self, observation: Array, action_mask: Array) -> Actions:
        dynamics = self.dynamics
        rows = np.flatnonzero(dynamics.active)
        legal = np.asarray(action_mask, bool)
        scores = np.zeros(action_mask.shape)
        if len(rows):
            think, call, accept = self.plan(rows, legal)
            each = np.arange(len(rows))
            cheap = self.cheapness[dynamics.state[rows]]
            part = np.zeros((len(rows), action_mask.shape[1]))
            part[:, self.call] = 1.0 + cheap / max(1e-300, np.abs(cheap).max())
            part[:, self.accept] = 3.0
            part[each, self.accept[accept]] = 4.0
            part[each[call >= 0], self.call[call[call >= 0]]] = 5.0
            part[think, self.think] = 6.0
            scores[rows] = part
        return best_legal(scores, action_mask)

    @abstractmethod
    def plan(self, rows: Actions, legal: Array) -> tuple[NDArray[np.bool_], Actions, Actions]:
        """For the active slots `rows`: think? (n,), call which or −1 (n,), accept which (n,)."""

    def price(self, rows: Actions) -> Floats:
        """Predicted price (n, C) of one call, in units of quality, at each slot's own weights."""
        d = self.dynamics
        state = d.state[rows]
        price = d.w_cost[rows, None] * self.experience.cost[state] / d.c_ref
        if np.any(d.w_latency[rows] > 0):
            price = price + d.w_latency[rows, None] * self.experience.latency[state] / d.l_ref
        return np.asarray(price)

    def last_heard(self, rows: Actions) -> Actions:
        """The choice heard last in the state at hand (0 where nothing was heard)."""
        d = self.dynamics
        last = np.maximum(d.num_heard[rows] - 1, 0)
        return np.asarray(np.maximum(d.heard_choice[rows, last], 0))

    def open_calls(self, rows: Actions, legal: Array) -> NDArray[np.bool_]:
        """Which choices may be called (n, C); after the first call here only with rounds to spare."""
        spare = (self.rounds_to_spare(rows) > 0) | (self.dynamics.num_heard[rows] == 0)
        return np.asarray(legal[np.ix_(rows, self.call)] & spare[:, None])

    def rounds_to_spare(self, rows: Actions) -> Actions:
        """Calls left, less one for every sub-question that is likely to come."""
        d = self.dynamics
        return np.asarray(d.rounds_left[rows] - self.experience.later[d.state[rows]])

    def net_of_thinking(self, rows: Actions, predictor: str) -> Floats:
        """Predicted quality minus price (n,) of thinking, then one choice; −inf where impossible."""
        d = self.dynamics
        quality, cost = self.experience.after_thinking(predictor)
        state = d.state[rows]
        return np.asarray((quality[state] - d.w_cost[rows, None] * cost[state] / d.c_ref).max(axis=1))

    def worth_thinking(
        self, think: NDArray[np.bool_], rows: Actions, predictor: str, bonus: float, value: Floats
    ) -> NDArray[np.bool_]:
        """Those of `think` (n,) for whom thinking, with `bonus`, is predicted to be worth more than `value` (n,)."""
        net = self.net_of_thinking(rows, predictor)
        chosen = think & np.isfinite(net)
        chosen[chosen] = net[chosen] + bonus > value[chosen]
        return chosen

    def can_think(self, rows: Actions, legal: Array) -> NDArray[np.bool_]:
        return np.asarray(legal[rows, self.think] & (self.dynamics.num_heard[rows] == 0))
