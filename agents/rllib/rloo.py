"""Trains a router with RLOO on one environment: ``python agents/rllib/rloo.py ENV OUT`` or `train`.

REINFORCE leave-one-out (Ahmadian et al. 2024): as GRPO, but each episode is compared with the others of its group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlroute.agents.rllib.grpo import GroupArguments, group_config
from rlroute.agents.rllib.train import Progress, run_command_line, train_algorithm

if TYPE_CHECKING:
    from rlroute.agents.rllib.algorithm import ColumnarConfig


@dataclass(frozen=True)
class RLOOArguments(GroupArguments):
    """The knobs of RLOO; the comment beside each is its help text."""


def train(
    env_id: str,
    env_arguments: Mapping[str, Any],
    out_dir: str | Path,
    arguments: RLOOArguments | None = None,
    progress: Progress | None = None,
    resume: bool = False,
) -> Path:
    """`rlroute.agents.rllib.train.train_algorithm` with RLOO."""
    arguments = arguments or RLOOArguments()
    return train_algorithm("RLOO", build_config, env_id, env_arguments, out_dir, arguments, progress, resume)


def build_config(
    env_id: str, env_arguments: Mapping[str, Any], arguments: RLOOArguments, steps_done: int = 0
) -> ColumnarConfig:
    """RLlib's configuration of a run; one resumed at `steps_done` draws other numbers than at its start."""
    from rlroute.agents.advantages import leave_one_out

    return group_config(env_id, env_arguments, arguments, steps_done, leave_one_out)


if __name__ == "__main__":
    run_command_line(RLOOArguments, train, (__doc__ or "").split("\n")[0])
