"""BudgetRoute over texts: which choice takes the next step, one decision a turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from rlroute.envs.budget_route.env import BudgetRouteEnv
from rlroute.envs.decisions import DecisionTextEnv
from rlroute.envs.faces import RoutingEnv
from rlroute.envs.prompts import brief_lines, choice_lines, number
from rlroute.replies import texts_of


class BudgetRouteTextEnv(DecisionTextEnv):
    """BudgetRoute, see `rlroute.envs.budget_route`, over texts.

    ## Observation
    The prompt names the choices with prices and latency, the weight of cost and what is left of the budgets; after
    every turn ``<state>…</state>`` tells the text of the state, its extra numbers, and calls and money left.

    ## Action
    A turn of text: ``<think>why</think><route>NAME</route>``, NAME a choice. See `rlroute.envs.decisions`. With
    `constrained=True`, budget-constrained decoding (arXiv 2602.21227, equation 9): where the budget does not cover the
    choice that is named, the cheapest that it covers takes the step.

    ## Reward, episode end
    Those of the numeric face; a malformed turn is rewarded with −1 and counts towards the time limit.

    ## Version history
    v0: first version.
    """

    numeric_type: ClassVar[type[RoutingEnv]] = BudgetRouteEnv
    folder: ClassVar[Path] = Path(__file__).parent
    fields: ClassVar[tuple[str, ...]] = ("choices", "brief_choices", "names", "cost_weight", "state")

    def __init__(self, *, constrained: bool = False, **arguments: Any) -> None:
        super().__init__(**arguments)
        gym.utils.EzPickle.__init__(self, constrained=constrained, **arguments)
        self.constrained = constrained

    def instead(self, action: int) -> int:
        legal = self.dynamics.action_mask[0] == 1
        if not self.constrained or legal[action] or not legal.any():
            return action
        return int(np.where(legal, self.dynamics.pool.mean_cost_usd, np.inf).argmin())

    def situation(self) -> dict[str, str]:
        pool, log = self.dynamics.pool, self.dynamics.log
        return {
            "choices": choice_lines(pool, log.choices["description"].to_pylist()),
            "brief_choices": brief_lines(pool),
            "names": ", ".join(pool.names),
            "cost_weight": number(self.dynamics.w_cost[0]),
            "state": self.state(),
        }

    def name(self, action: int, dynamics: Any) -> str:
        return str(dynamics.pool.names[action])

    def state(self) -> str:
        dynamics, state = self.dynamics, int(self.dynamics.state[0])
        arrays = dynamics.arrays
        numbers = [
            f"{name.replace('_', ' ')} {value:g}"
            for name, value in zip(arrays.extra_names, arrays.extra[state], strict=True)
        ]
        if np.isfinite(dynamics.calls_left[0]):
            numbers.append(f"expensive calls left {dynamics.calls_left[0]:.0f}")
        if np.isfinite(dynamics.usd_left[0]):
            numbers.append(f"USD left {dynamics.usd_left[0]:.3g}")
        numbers.append(f"step {int(dynamics.calls[0])}")
        return f"{texts_of(dynamics.log).state(state)} [{', '.join(numbers)}]"
