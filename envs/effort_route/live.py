"""EffortRoute in a live agent loop: BudgetRoute's, with one prompt cache for all levels."""

from __future__ import annotations

from typing import ClassVar

from rlroute.envs.budget_route.live import BudgetRouteLive


class EffortRouteLive(BudgetRouteLive):
    """A batch of one whose responses come from one model, asked at a level of effort."""

    one_cache: ClassVar[bool] = True
