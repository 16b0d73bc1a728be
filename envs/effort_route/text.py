"""EffortRoute over texts: how hard the model thinks at the next step, one decision a turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from rlroute.envs.budget_route.text import BudgetRouteTextEnv
from rlroute.envs.effort_route.env import EffortRouteEnv


class EffortRouteTextEnv(BudgetRouteTextEnv):
    """EffortRoute, see `rlroute.envs.effort_route`, over texts: BudgetRoute's text face, NAME a level of effort.

    With the reward `ares` a malformed turn is worth −1 and ends the episode (arXiv 2603.07915); with any other it
    counts towards the time limit.

    ## Version history
    v0: first version.
    """

    numeric_type = EffortRouteEnv
    folder: ClassVar[Path] = Path(__file__).parent

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.malformed_ends = self.dynamics.arguments.reward == "ares"
