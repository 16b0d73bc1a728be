"""What no EffortRoute policy can beat: the ceilings of BudgetRoute, whose state graphs these are, with cached prompts.

All levels share one prompt cache, so what a prompt costs does not depend on who read the one before: the costs of
`latent-knowing` are exact with the cache as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rlroute.envs.budget_route import ceilings
from rlroute.evaluation import Evaluation, MakeEnv, Setting
from rlroute.outcomes import Outcomes, outcomes_of


def add_ceilings(
    evaluation: Evaluation, make_env: MakeEnv, settings: Sequence[Setting], episodes: int, seed: int
) -> None:
    """Latent-knowing and clairvoyant, see `rlroute.envs.budget_route.ceilings`."""
    ceilings.add_ceilings(evaluation, make_env, settings, episodes, seed, outcomes_with_cache)


def outcomes_with_cache(dynamics: Any) -> Outcomes:
    """The log's outcomes with what its calls cost where the prompt before is in the cache, as the environment counts.

    A state's prefix is the shortest prompt that leads to it; it is taken to be within its time to live.
    """
    outcomes = outcomes_of(dynamics.log)
    if not dynamics.prompt_cache:
        return outcomes
    arrays, pool = dynamics.arrays, dynamics.pool
    leads = np.flatnonzero(arrays.next_state >= 0)
    prefix = np.full(arrays.num_states, np.iinfo(np.int64).max)
    np.minimum.at(prefix, arrays.next_state[leads], np.maximum(arrays.prompt_tokens[leads], 0))
    prefix[prefix == np.iinfo(np.int64).max] = 0  # nothing leads to a root
    cached = np.minimum(prefix[:, None], np.maximum(arrays.prompt_tokens_of, 0))  # (S, C)
    saved = cached * (pool.input_usd - pool.cached_input_usd)
    return replace(outcomes, cost_usd=outcomes.cost_usd - saved[:, :, None])
