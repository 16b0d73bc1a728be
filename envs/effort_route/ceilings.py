"""What no EffortRoute policy can beat: the ceilings of BudgetRoute, whose state graphs these are."""

from __future__ import annotations

from collections.abc import Sequence

from rlroute.envs.budget_route import ceilings
from rlroute.evaluation import Evaluation, MakeEnv, Setting


def add_ceilings(
    evaluation: Evaluation, make_env: MakeEnv, settings: Sequence[Setting], episodes: int, seed: int
) -> None:
    """Latent-knowing and clairvoyant, see `rlroute.envs.budget_route.ceilings`."""
    ceilings.add_ceilings(evaluation, make_env, settings, episodes, seed)
