"""TRL's GRPOTrainer on episodes in text environments, with an advantage of one's own.

TRL samples nothing here: `Rollouts` plays the episodes, and its tokens from the environment are masked from the loss.
What the algorithms differ in is one function from returns and anchors to advantages (`rlroute.agents.advantages`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from trl import GRPOTrainer

from rlroute.agents.advantages import share_without_variance
from rlroute.agents.trl.evaluate import figures
from rlroute.agents.trl.rollouts import Clock, Rollout, Rollouts

Returns = tuple[np.ndarray, tuple[np.ndarray, ...]]  # (N,) of episodes, and anchors of groups, each (N / group size,)
Shaping = Callable[[Sequence[Rollout]], Returns]
Estimator = Callable[[np.ndarray, tuple[np.ndarray, ...]], np.ndarray]  # (G, K), anchors (G,) → (G, K)


def episode_reward(episode_reward: list[float], **_: Any) -> list[float]:
    """The reward function that TRL asks for: what the environment gave."""
    return episode_reward


def plain_returns(rollouts: Sequence[Rollout]) -> Returns:
    """The environment's reward, and no anchors."""
    return np.array([rollout.reward for rollout in rollouts]), ()


class RouterTrainer(GRPOTrainer):
    """GRPOTrainer whose advantages come from `estimator`, over returns and anchors made by `shaping`.

    Groups have to lie within one process, since anchors belong to episodes and not to texts.
    """

    def __init__(self, *, rollouts: Rollouts, estimator: Estimator, shaping: Shaping = plain_returns, **given: Any):
        # TRL warns that rollout functions may change; the version that this was written for is in constraints.txt.
        os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
        super().__init__(rollout_func=rollouts, reward_funcs=[episode_reward], **given)
        self.rollouts, self.estimator, self.shaping = rollouts, estimator, shaping

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        clock = self.rollouts.player.clock
        before = Clock(**vars(clock))
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        returns, anchors = self.shaping(self.rollouts.latest)
        grouped = returns.reshape(-1, self.rollouts.group_size)
        advantages = self.estimator(grouped, anchors).reshape(-1)
        output["advantages"] = torch.as_tensor(advantages, dtype=torch.float32, device=output["prompt_ids"].device)
        self._note({"return": float(returns.mean()), "groups_without_variance": share_without_variance(grouped)})
        self._note({f"episode/{name}": value for name, value in figures(self.rollouts.latest).items()})
        seconds = clock.total - before.total
        self._note({"time/rollout_s": seconds, "time/environment_s": clock.environment - before.environment})
        self._note({"time/tokens_per_s": (clock.sampled_tokens - before.sampled_tokens) / seconds})
        return output

    def _note(self, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self._metrics["train"][name].append(value)
