"""RLlib's PPO learner on columns: advantages first, then minibatches with one forward pass and one loss each.

Optimiser, schedules, metrics and checkpoints are RLlib's. What is left out is its connector pipeline and the
bookkeeping of every minibatch.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import ALL_MODULES, DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns as Names
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.utils.metrics import (
    MODULE_TRAIN_BATCH_SIZE_MEAN,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_ENV_STEPS_TRAINED,
    NUM_ENV_STEPS_TRAINED_LIFETIME,
    NUM_MODULE_STEPS_TRAINED,
    NUM_MODULE_STEPS_TRAINED_LIFETIME,
)
from torch import Tensor

from rlroute.agents.advantages import gae, share_without_variance
from rlroute.agents.rllib.losses import Weights, clipped_loss, log_softmax
from rlroute.agents.rllib.rollout import Rollout

ADVANTAGE_S, UPDATE_S = "advantage_s", "update_s"  # seconds of one update spent there
SCHEDULES = "schedules"  # what a checkpoint remembers of them, beside RLlib's own components

PIECE = 2**20  # numbers that a layer makes of the rows which pass the network at once: few enough to stay in a cache

Table = dict[str, Tensor]  # one row a decision


class ColumnarLearner(PPOTorchLearner):
    """Learns from a list of `Rollout`: with PPO's critic, or where ``config.group_size`` is set from groups."""

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """RLlib's Adam, all of its arithmetic in one call."""
        parameters = self.get_parameters(self._module[module_id])
        optimizer = torch.optim.Adam(parameters, fused=True)
        self.register_optimizer(
            module_id=module_id, optimizer=optimizer, params=parameters, lr_or_lr_schedule=config.lr
        )

    def update(
        self,
        *,
        training_data: TrainingData,
        timesteps: dict[str, Any] | None = None,
        num_epochs: int = 1,
        minibatch_size: int | None = None,
        **_: Any,
    ) -> Any:
        timesteps = timesteps or {}
        self.before_gradient_based_update(timesteps=timesteps)
        self._timestep = timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0)
        self._weights_seq_no += 1
        (rollouts,) = training_data.batches or [training_data.batch]
        began = time.perf_counter()
        table = self.table(rollouts)
        ready = time.perf_counter()
        rows = len(table["action"])
        parts = {}
        count = max(1, round(rows / (minibatch_size or rows)))
        for _epoch in range(num_epochs):
            if count == 1:  # a mean over all rows asks for no order
                parts = self.descend(table)
                continue
            for chosen in torch.randperm(rows).tensor_split(count):
                parts = self.descend(_rows(table, chosen.sort().values))  # in order, alike rows stay in one piece
        self._log(parts, rows, {ADVANTAGE_S: ready - began, UPDATE_S: time.perf_counter() - ready})
        self.after_gradient_based_update(timesteps=timesteps)
        return self.metrics.reduce()

    def table(self, rollouts: list[Rollout]) -> Table:
        """Observations, actions, advantages and targets, one row a decision.

        Of waves the observations have one row a situation, and "situation" is the row that each decision was made in.
        """
        if self.config.group_size:
            table = _joined(self._from_groups(rollouts))
        else:
            table = _joined([self._from_steps(rollout) for rollout in rollouts])
            advantages = table["advantage"]  # targets less values: what the critic did not explain
            unexplained = float(advantages.var() / table["target"].var().clamp(min=1e-8))
            self.metrics.log_value((DEFAULT_MODULE_ID, "vf_explained_var"), max(-1.0, 1 - unexplained), window=1)
            table["advantage"] = (advantages - advantages.mean()) / advantages.std().clamp(min=1e-4)
        table["old_logp"] = log_softmax(table["logits"]).gather(1, table["action"][:, None]).squeeze(1)
        if not self.config.use_kl_loss:
            del table["logits"]
        return table

    def loss(self, minibatch: Table) -> tuple[Tensor, dict[str, Tensor]]:
        """PPO's loss on rows of a table, and its parts."""
        config, module = self.config, self.module[DEFAULT_MODULE_ID].unwrapped()
        seen = {"observation": minibatch["observation"], "action_mask": minibatch["action_mask"]}
        out = module._forward_train({Names.OBS: seen})  # without RLlib's wrapper that visits every layer
        logits, values = out[Names.ACTION_DIST_INPUTS], None
        if "situation" in minibatch:
            logits = logits.t().index_select(1, minibatch["situation"]).t()
        if config.use_critic:
            values = module.compute_values({}, embeddings=out[Names.EMBEDDINGS])
        weights = Weights(
            clip=config.clip_param,
            entropy=float(self.entropy_coeff_schedulers_per_module[DEFAULT_MODULE_ID].get_current_value()),
            value=config.vf_loss_coeff,
            value_clip=config.vf_clip_param,
            kl=float(self.curr_kl_coeffs_per_module[DEFAULT_MODULE_ID]) if config.use_kl_loss else 0.0,
        )
        loss, parts = clipped_loss(
            logits,
            minibatch["action"],
            minibatch["old_logp"],
            minibatch["advantage"],
            weights,
            values,
            minibatch.get("target"),
            minibatch.get("logits"),
        )
        return loss, parts | {"total_loss": loss}

    def descend(self, minibatch: Table) -> dict[str, Tensor]:
        """One gradient step; the parts of the loss before it.

        The gradient of a mean over all rows is added up over pieces of them.
        """
        optimizer = self.get_optimizer(DEFAULT_MODULE_ID)
        optimizer.zero_grad(set_to_none=True)
        rows = len(minibatch["action"])
        total: dict[str, Tensor] = {}
        width = self.module[DEFAULT_MODULE_ID].unwrapped().width
        for piece in _pieces(minibatch, math.ceil(len(minibatch["observation"]) * width / PIECE)):
            loss, parts = self.loss(piece)
            share = len(piece["action"]) / rows
            (share * loss).backward()
            for name, part in parts.items():
                total[name] = total.get(name, torch.zeros(())) + share * part.detach()
        if self.config.grad_clip is not None:
            torch.nn.utils.clip_grad_norm_(self._params.values(), self.config.grad_clip, foreach=True)
        optimizer.step()
        return total

    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> dict[str, Any]:
        """RLlib's, and where its schedules stand, without which a restored learner would begin them again."""
        state = super().get_state(components, not_components=not_components, **kwargs)
        if self._check_component(SCHEDULES, components, not_components):
            coefficients = {name: float(value) for name, value in self.curr_kl_coeffs_per_module.items()}
            state[SCHEDULES] = {"timestep": self._timestep, "kl_coefficients": coefficients}
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        if SCHEDULES in state:
            self._timestep = state[SCHEDULES]["timestep"]
            for name, value in state[SCHEDULES]["kl_coefficients"].items():
                self.curr_kl_coeffs_per_module[name].data.fill_(value)
            self.entropy_coeff_schedulers_per_module[DEFAULT_MODULE_ID].update(timestep=self._timestep)
            for optimizer, schedule in self._optimizer_lr_schedules.items():
                self._set_optimizer_lr(optimizer, lr=schedule.update(timestep=self._timestep))

    _timestep = 0  # decisions sampled before the last update

    # -- from a rollout to rows -----------------------------------------------------------------------------------

    def _from_steps(self, rollout: Rollout) -> dict[str, NDArray[Any]]:
        """Rows of a rollout of steps, with generalised advantages and the targets of the critic."""
        advantages = gae(
            rollout.reward,
            rollout.value,
            rollout.last_value,
            rollout.terminated,
            rollout.truncated,
            rollout.final_value,
            self.config.gamma,
            self.config.lambda_,
        )
        return {
            "observation": rollout.rows(rollout.observation),
            "action_mask": rollout.rows(rollout.action_mask),
            "action": rollout.rows(rollout.action),
            "logits": rollout.rows(rollout.logits),
            "advantage": rollout.rows(advantages),
            "target": rollout.rows(advantages + rollout.value),
        }

    def _from_groups(self, rollouts: list[Rollout]) -> list[dict[str, NDArray[Any]]]:
        """Rows of each wave: the advantage of an episode goes to all its decisions."""
        parts: list[dict[str, NDArray[Any]]] = []
        every, situations = [], 0
        for rollout in rollouts:
            returns, anchors = self._returns(rollout)
            advantage = self.config.estimator(returns, anchors).reshape(-1).astype(np.float32)
            firsts, places = rollout.situations()
            parts.append(
                {
                    "observation": rollout.observation[firsts],
                    "action_mask": rollout.action_mask[firsts],
                    "situation": situations + places,
                    "action": rollout.rows(rollout.action),
                    "logits": rollout.rows(rollout.logits),
                    "advantage": rollout.rows(np.broadcast_to(advantage, rollout.reward.shape)),
                }
            )
            every.append(returns)
            situations += int(firsts.sum())
        returns = np.concatenate(every)
        self.metrics.log_dict(
            {"groups_without_variance": share_without_variance(returns), "shaped_return_mean": float(returns.mean())},
            key=DEFAULT_MODULE_ID,
            window=1,
        )
        return parts

    def _returns(self, rollout: Rollout) -> tuple[NDArray[Any], tuple[NDArray[Any], ...]]:
        """Returns (G, K) of a wave and what they are anchored to; shaped where ``config.shaping`` says so."""
        if self.config.shaping is None:
            returns, anchors = rollout.reward.sum(axis=0, dtype=np.float64), ()
        else:
            returns, anchors = self.config.shaping(rollout.episodes)
        return np.asarray(returns).reshape(-1, self.config.group_size), tuple(anchors)

    # -- metrics --------------------------------------------------------------------------------------------------

    def _log(self, parts: dict[str, Tensor], rows: int, seconds: dict[str, float]) -> None:
        """Once an update: the parts of the last loss, and the counts under RLlib's names."""
        values = {name: float(part.detach()) for name, part in parts.items()}
        if not np.isfinite(values["total_loss"]):
            raise ValueError(f"the loss is {values['total_loss']}, expected a finite number: lower the learning rate")
        self.metrics.log_dict(values, key=DEFAULT_MODULE_ID, window=1)
        self.metrics.log_value((DEFAULT_MODULE_ID, MODULE_TRAIN_BATCH_SIZE_MEAN), rows, reduce="mean")
        for key, name in (
            (DEFAULT_MODULE_ID, NUM_MODULE_STEPS_TRAINED),
            (ALL_MODULES, NUM_MODULE_STEPS_TRAINED),
            (ALL_MODULES, NUM_ENV_STEPS_TRAINED),
        ):
            self.metrics.log_value((key, name), rows, reduce="sum")
        for key, name in (
            (DEFAULT_MODULE_ID, NUM_MODULE_STEPS_TRAINED_LIFETIME),
            (ALL_MODULES, NUM_MODULE_STEPS_TRAINED_LIFETIME),
            (ALL_MODULES, NUM_ENV_STEPS_TRAINED_LIFETIME),
        ):
            self.metrics.log_value((key, name), rows, reduce="lifetime_sum", with_throughput=True)
        for name, spent in seconds.items():
            self.metrics.log_value((ALL_MODULES, name), spent, reduce="sum")


def _rows(table: Table, chosen: Tensor) -> Table:
    """The decisions `chosen`, and of the situations only those that they were made in."""
    if "situation" not in table:
        return {name: column.index_select(0, chosen) for name, column in table.items()}
    situations, places = torch.unique(table["situation"].index_select(0, chosen), return_inverse=True)
    seen = {name: table[name].index_select(0, situations) for name in ("observation", "action_mask")}
    return {name: column.index_select(0, chosen) for name, column in table.items() if name not in seen} | (
        seen | {"situation": places}
    )


def _pieces(table: Table, count: int) -> list[Table]:
    """All rows in `count` successive pieces of about the same size."""
    if count == 1:
        return [table]
    return [_rows(table, piece) for piece in torch.arange(len(table["action"])).tensor_split(count)]


def _joined(parts: list[dict[str, NDArray[Any]]]) -> Table:
    """The rows of all parts as tensors; columns of a remote runner are read-only, and copied for torch's sake."""
    table = {}
    for name in parts[0]:
        arrays = [part[name] for part in parts]
        whole = arrays[0] if len(arrays) == 1 and arrays[0].flags.writeable else np.concatenate(arrays)
        table[name] = torch.from_numpy(whole)
    return table
