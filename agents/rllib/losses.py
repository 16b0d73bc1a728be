"""The clipped policy-gradient loss with entropy bonus, and with critic or without: PPO's, as RLlib defines it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Weights:
    """What the terms of the loss count; of RLlib's configuration, at one moment of its schedules."""

    clip: float  # ε of the surrogate
    entropy: float
    value: float = 0.0
    value_clip: float = float("inf")  # largest squared error of one row
    kl: float = 0.0


def clipped_loss(
    logits: Tensor,  # (B, A)
    action: Tensor,  # (B,)
    old_logp: Tensor,  # (B,) log-probability of the action when it was chosen
    advantage: Tensor,  # (B,)
    weights: Weights,
    values: Tensor | None = None,  # (B,) of the critic, with their targets
    targets: Tensor | None = None,
    old_logits: Tensor | None = None,  # (B, A), where the divergence from them counts
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss to descend and its parts (Schulman et al. 2017, equations 7 to 9), means over the B rows."""
    log_probabilities = log_softmax(logits)
    ratio = torch.exp(log_probabilities.gather(1, action[:, None]).squeeze(1) - old_logp)
    clipped = ratio.clamp(1 - weights.clip, 1 + weights.clip)
    surrogate = torch.min(advantage * ratio, advantage * clipped).mean()
    entropy = -(log_probabilities.exp() * log_probabilities).sum(dim=-1).mean()
    loss = -surrogate - weights.entropy * entropy
    parts = {"policy_loss": -surrogate, "entropy": entropy}
    if values is not None and targets is not None:
        error = (values - targets).square()
        value_loss = error.clamp(max=weights.value_clip).mean()
        loss = loss + weights.value * value_loss
        parts |= {"vf_loss": value_loss, "vf_loss_unclipped": error.mean()}
    if old_logits is not None:
        old = log_softmax(old_logits)
        divergence = (old.exp() * (old - log_probabilities)).sum(dim=-1).mean()
        loss = loss + weights.kl * divergence
        parts["mean_kl_loss"] = divergence
    return loss, parts


def log_softmax(logits: Tensor) -> Tensor:
    """Of (B, A) over the few actions, which come first in memory: torch then works on many rows at once."""
    return torch.log_softmax(logits.t().contiguous(), dim=0).t()
