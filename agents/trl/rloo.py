"""Trains a text router with RLOO: ``python agents/trl/rloo.py --env rlroute/ThinkRouteText-v0 --out OUT``.

REINFORCE with a leave-one-out baseline (arXiv 2402.14740): each episode is compared with the mean of the others of its
group. Advantages keep their size, where GRPO scales those of every group to a deviation of 1, so that a small saving
counts as much there as a success. TRL's RLOOTrainer takes neither a rollout function nor a mask, so it cannot tell
what the environment wrote from what the model did; this is its estimator on TRL's GRPOTrainer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rlroute.agents.advantages import leave_one_out
from rlroute.agents.trl.arguments import parse
from rlroute.agents.trl.training import RolloutArguments, train_on_episodes


@dataclass(frozen=True)
class RLOOArguments(RolloutArguments):
    """The knobs of RLOO; the comment beside each is its help text."""

    learning_rate: float = 2e-4  # AdamW's step size at the start; advantages are not scaled to a deviation of 1


def train(arguments: RLOOArguments) -> Path:
    """Trains for `arguments.steps` updates and returns the policy folder, ``OUT/policy``."""
    return train_on_episodes("RLOO", arguments, leave_one_out)


if __name__ == "__main__":
    print(train(parse(RLOOArguments, (__doc__ or "").split("\n")[0])))
