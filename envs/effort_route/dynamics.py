"""EffortRoute: BudgetRoute's transitions over levels of effort, with one prompt cache, tokens counted, Ares' reward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlroute.envs.arguments import require_one_of
from rlroute.envs.budget_route.dynamics import BudgetRouteArguments, BudgetRouteDynamics
from rlroute.envs.terms import Range
from rlroute.log import Log


@dataclass(frozen=True)
class EffortRouteArguments(BudgetRouteArguments):
    """Arguments of EffortRoute, beside those of BudgetRoute."""

    log: str | Log = "efforts"
    preference: Range = 0.1
    reward: str = "linear"  # "linear", "router_r1" or "ares"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("reward", self.reward, ("linear", "router_r1", "ares"))


class EffortRouteDynamics(BudgetRouteDynamics):
    """N episodes of EffortRoute."""

    family: ClassVar[str] = "rlroute/EffortRoute-v0"
    arguments_type: ClassVar[type[BudgetRouteArguments]] = EffortRouteArguments
    one_cache: ClassVar[bool] = True
    tallies: ClassVar[tuple[str, ...]] = ("completion_tokens", "reasoning_tokens")  # of each episode so far

    @property
    def by_effort(self) -> np.ndarray:
        """(num_choices,) choices from the least effort to the most."""
        return np.argsort(self.pool.mean_cost_usd, kind="stable")

    def _refuse_unusable_log(self) -> None:
        super()._refuse_unusable_log()
        arrays = self.arrays
        without = np.flatnonzero(arrays.completion_tokens < 0)
        if len(without):
            state, choice = divmod(int(arrays.row_cell[without[0]]), arrays.num_choices)
            raise ValueError(
                f"log {self.log.name!r}, table responses, column completion_tokens: level "
                f"{arrays.choice_names[choice]!r} in state {str(arrays.state_ids[state])!r} has none ({len(without)} "
                "such rows), expected a count of every response: effort is compared by tokens"
            )
