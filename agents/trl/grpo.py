"""Trains a text router with GRPO: ``python agents/trl/grpo.py --env rlroute/ThinkRouteText-v0 --model tiny --out OUT``.

Group-relative policy optimisation (arXiv 2402.03300) over whole episodes: every task is played by a group of
episodes, and each is compared with the mean of its group.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rlroute.agents.advantages import group_relative
from rlroute.agents.trl.arguments import parse
from rlroute.agents.trl.training import RolloutArguments, train_on_episodes


@dataclass(frozen=True)
class GRPOArguments(RolloutArguments):
    """The knobs of GRPO; the comment beside each is its help text."""

    scale: bool = True  # divide advantages by the deviation of their group, as the paper does


def train(arguments: GRPOArguments) -> Path:
    """Trains for `arguments.steps` updates and returns the policy folder, ``OUT/policy``."""
    return train_on_episodes("GRPO", arguments, partial(group_relative, scale=arguments.scale))


if __name__ == "__main__":
    print(train(parse(GRPOArguments, (__doc__ or "").split("\n")[0])))
