"""Policies that need no training and no family: always one choice, random, the shares of a mix.

A policy is anything with a name, `begin(env)` once per rollout and `act(observation, action_mask)` on a
batch. It may read `env.dynamics` for what a live router would know too: the layout, the prices, the budget
left, the responses already heard. A policy that acts alike whatever the weights of the reward says so with a
class attribute ``reads_terms = False``: it is then played once for all weights. One that reads weights, but not what
a model call costs on a tool graph, says ``reads_model_cost = False`` and is played once for all those prices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Actions = NDArray[np.int64]
Array = NDArray[Any]


@runtime_checkable
class Policy(Protocol):
    """Chooses actions for a batch of episodes."""

    name: str

    def begin(self, env: Any) -> None:
        """Called once before a rollout on `env`."""
        ...

    def act(self, observation: Array, action_mask: Array) -> Actions:
        """Actions (N,) for observations (N, D) under a mask (N, A); rows of ended episodes are ignored."""
        ...


def dynamics_of(env: Any) -> Any:
    """The dynamics behind an environment, wrapped or not."""
    return env.dynamics if hasattr(env, "dynamics") else env.unwrapped.dynamics


def best_legal(scores: Array, action_mask: Array) -> Actions:
    """The legal action of the highest score in each row; the first action where nothing is legal."""
    legal = np.asarray(action_mask, bool)
    return np.argmax(np.where(legal, scores, -np.inf), axis=1)


class AlwaysChoice:
    """One choice for everything: call it, then accept what it said; where it is masked, the cheapest that is
    not.

    With `think=True` it thinks first wherever that is possible.
    """

    reads_terms = False

    def __init__(self, choice: int, name: str | None = None, think: bool = False) -> None:
        self.choice, self.think = choice, think
        self.name = name or (f"think, then always {choice}" if think else f"always {choice}")

    def begin(self, env: Any) -> None:
        dynamics = dynamics_of(env)
        layout = dynamics.layout
        self.scores = np.zeros(layout.num_actions)
        price = dynamics.pool.mean_cost_usd
        for c in range(layout.num_choices):
            # The last thing one can do with a choice (accept, after call) is preferred to the first; dearer
            # choices come later, the own one before all.
            for rank, action in enumerate(layout.choice_actions):
                own = 2.0 if c == self.choice else 0.0
                cheap = 1.0 / (2.0 + price[c] / max(price.max(), 1e-300))
                self.scores[layout.action(action, c)] = 10.0 * rank + own + cheap
        for action in layout.context_actions:
            self.scores[layout.action(action)] = 100.0 if self.think and action == "think" else -1.0

    def act(self, observation: Array, action_mask: Array) -> Actions:
        return best_legal(np.broadcast_to(self.scores, action_mask.shape), action_mask)


class RandomPolicy:
    """Any legal action with equal probability; repeatable for a seed."""

    name = "random"
    reads_terms = False

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def begin(self, env: Any) -> None:
        self.rng = np.random.default_rng(self.seed)

    def act(self, observation: Array, action_mask: Array) -> Actions:
        return best_legal(self.rng.random(action_mask.shape), action_mask)


def mix_weights(costs: Sequence[float], qualities: Sequence[float], cost: float) -> NDArray[np.float64]:
    """Probabilities over policies that spend `cost` on average and lie on the hull of their (cost, quality).

    At most two are positive. Below the cheapest vertex the cheapest is played always (a router has to
    answer), above the best vertex the best.
    """
    from rlroute.metrics import upper_hull

    hull = upper_hull(costs, qualities)
    weights = np.zeros(len(costs))
    along = np.asarray(costs, float)[hull]
    right = int(np.searchsorted(along, cost))
    if right == 0 or right == len(along):
        weights[hull[min(right, len(along) - 1)]] = 1.0
        return weights
    share = (cost - along[right - 1]) / (along[right] - along[right - 1])
    weights[hull[right - 1]], weights[hull[right]] = 1 - share, share
    return weights
