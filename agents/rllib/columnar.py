"""PPO's data path in columns: rollouts of a vector environment as arrays, never as Python objects.

RLlib's own runner keeps every episode as lists of single steps and takes them through a dozen connectors;
with a fast environment and a small network that is most of the time. Here the runner writes whole columns,
one row a step and one column a slot, and computes the advantages from the values it already has; the learner,
its loss, optimiser, schedules and checkpoints are RLlib's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from ray.rllib.algorithms.ppo import PPO
from ray.rllib.core import ALL_MODULES, DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.execution.rollout_ops import synchronous_parallel_sample
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    EPISODE_LEN_MEAN,
    EPISODE_RETURN_MEAN,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
)
from torch import Tensor

from rlroute.layout import Layout


class Rollout:
    """The columns of one `sample` call, each (rows, …): observations, actions, advantages, targets."""

    def __init__(self, columns: dict[str, Any], rows: int) -> None:
        self.columns, self.rows = columns, rows

    def env_steps(self) -> int:
        return self.rows

    def agent_steps(self) -> int:
        return self.rows


class ColumnarEnvRunner(SingleAgentEnvRunner):
    """Steps a native vector environment with next-step autoreset and returns one `Rollout`.

    Under next-step autoreset the step after an episode's end ignores its action and shows the next start.
    That row is no decision: it lends its observation to the value of a truncated end and is then left out.

    With `text_noise` in the module's configuration, exploring sees the feature named "text" through Gaussian
    noise of that standard deviation, so that a network cannot learn the few texts of a log by heart.
    """

    env: Any

    def make_env(self) -> None:
        super().make_env()
        mode = self.env.metadata.get("autoreset_mode")
        if mode != AutoresetMode.NEXT_STEP:
            raise ValueError(f"{self.config.env}: found autoreset mode {mode}, expected {AutoresetMode.NEXT_STEP}")
        self.env = self.env.env  # without the wrapper that turns infos into a list of dictionaries
        self._begun: dict[str, NDArray[Any]] | None = None  # the observation to go on from
        self._resetting = np.zeros(self.num_envs, bool)
        self._returns, self._lengths = np.zeros(self.num_envs), np.zeros(self.num_envs)
        self._finished: list[NDArray[Any]] = []  # (2, k): return and length of the episodes that ended

    def sample(self, *, explore: bool | None = None, force_reset: bool = False, **_: Any) -> list[Rollout]:
        steps, slots = self.config.get_rollout_fragment_length(self.worker_index), self.num_envs
        explore = self.config.explore if explore is None else explore
        if self._begun is None or force_reset:
            self._begun, _ = self.env.reset(seed=self._seed)
            self._resetting[:] = False
            self._returns[:] = self._lengths[:] = 0
        latest = self._begun
        observations = np.empty((steps + 1, *latest["observation"].shape), np.float32)
        masks = np.empty((steps, *latest["action_mask"].shape), np.int8)
        rewards = np.empty((steps, slots), np.float32)
        terminated, done, valid = (np.empty((steps, slots), bool) for _ in range(3))
        logits, values, actions = [], [], []
        for t in range(steps):
            observations[t], masks[t] = latest["observation"], latest["action_mask"]
            valid[t] = ~self._resetting
            seen = _tensors(observations[t], masks[t])
            if explore:
                self._blur(seen["observation"])
            out = self.module.forward_exploration({Columns.OBS: seen})
            action = _choose(out[Columns.ACTION_DIST_INPUTS], explore)
            latest, rewards[t], terminated[t], truncated, _ = self.env.step(action.numpy())
            done[t] = terminated[t] | truncated
            self._count(rewards[t], done[t])
            logits.append(out[Columns.ACTION_DIST_INPUTS])
            values.append(out[Columns.VF_PREDS])
            actions.append(action)
        self._increase_sampled_metrics(int(valid.sum()), int(done.sum()))
        self._begun = latest
        observations[steps] = latest["observation"]
        with torch.no_grad():
            after = _tensors(observations[steps], latest["action_mask"])
            values_after = self.module.compute_values({Columns.OBS: after})
        all_values = torch.stack([*values, values_after]).numpy()
        targets = value_targets(all_values, rewards, terminated, done, self.config.gamma, self.config.lambda_)
        columns = {
            "observation": torch.from_numpy(observations[:-1]),
            "action_mask": torch.from_numpy(masks),
            Columns.ACTIONS: torch.stack(actions),
            Columns.ACTION_DIST_INPUTS: torch.stack(logits),
            Postprocessing.VALUE_TARGETS: torch.from_numpy(targets),
            Postprocessing.ADVANTAGES: torch.from_numpy(targets - all_values[:-1]),
        }
        return [_rollout(columns, torch.from_numpy(valid))]

    def get_metrics(self) -> Any:
        if self._finished:
            episode_return, length = np.concatenate(self._finished, axis=1).mean(axis=1)
            self.metrics.log_value(EPISODE_RETURN_MEAN, float(episode_return), window=1)
            self.metrics.log_value(EPISODE_LEN_MEAN, float(length), window=1)
        self._finished = []
        return self.metrics.reduce()

    def _blur(self, observation: Tensor) -> None:
        """Adds the noise to the text features of the observations (N, D), in place."""
        config = self.module.model_config
        where = Layout.from_dict(config["layout"]).slices().get("text")
        if config["text_noise"] and where:
            text = observation[:, where]
            text += config["text_noise"] * torch.randn_like(text)

    def _count(self, rewards: NDArray[Any], done: NDArray[Any]) -> None:
        """Adds one step to the running returns and lengths; notes which episodes it ended."""
        self._returns += np.where(self._resetting, 0.0, rewards)
        self._lengths += ~self._resetting
        if done.any():
            self._finished.append(np.stack([self._returns[done], self._lengths[done]]))
            self._returns[done] = self._lengths[done] = 0
        self._resetting = done.copy()


class ColumnarPPO(PPO):
    """RLlib's PPO on `ColumnarEnvRunner`: only the way from the runner to the learner differs."""

    def training_step(self) -> None:
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            rollouts, results = synchronous_parallel_sample(
                worker_set=self.env_runner_group, _uses_new_env_runners=True, _return_metrics=True
            )
        self.metrics.aggregate(results, key=ENV_RUNNER_RESULTS)
        steps = self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME))
        batch = SampleBatch(rollouts[0].columns)
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            learner_results = self.learner_group.update(
                batch=MultiAgentBatch({DEFAULT_MODULE_ID: batch}, env_steps=len(batch)),
                timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: steps},
                num_epochs=self.config.num_epochs,
                minibatch_size=min(self.config.minibatch_size, len(batch)),
                shuffle_batch_per_epoch=True,
            )
            self.metrics.aggregate(learner_results, key=LEARNER_RESULTS)
        with self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
            self.env_runner_group.sync_weights(
                from_worker_or_learner_group=self.learner_group,
                policies=set(learner_results[0].keys()) - {ALL_MODULES},
                inference_only=True,
            )


def value_targets(
    values: NDArray[np.float32],
    rewards: NDArray[np.float32],
    terminated: NDArray[np.bool_],
    done: NDArray[np.bool_],
    gamma: float,
    lambda_: float,
) -> NDArray[np.float32]:
    """Targets of the value function by generalised advantage estimation (Schulman et al. 2016), (T, N).

    `values` (T + 1, N) belong to the observations before each step and after the last one. A terminated step
    has no value after it; a truncated one has that of the observation it led to, but nothing is carried
    across its end.
    """
    advantages = np.empty_like(rewards)
    carried = np.zeros(rewards.shape[1], np.float32)
    for t in range(len(rewards) - 1, -1, -1):
        surprise = rewards[t] + gamma * np.where(terminated[t], 0.0, values[t + 1]) - values[t]
        carried = (surprise + gamma * lambda_ * np.where(done[t], 0.0, carried)).astype(np.float32)
        advantages[t] = carried
    return advantages + values[:-1]


def _tensors(observation: NDArray[np.float32], mask: NDArray[np.int8]) -> dict[str, Tensor]:
    return {"observation": torch.from_numpy(observation), "action_mask": torch.from_numpy(mask)}


def _choose(logits: Tensor, explore: bool) -> Tensor:
    """The likeliest action, or a draw: minus the log of an exponential variable is Gumbel noise."""
    return (logits - torch.empty_like(logits).exponential_().log() if explore else logits).argmax(dim=-1)


def _rollout(columns: dict[str, Any], valid: Tensor) -> Rollout:
    """Columns (T, N, …) as shuffled rows of the valid steps, with log-probabilities and scaled advantages."""
    rows = valid.flatten().nonzero().squeeze(1)
    rows = rows[torch.randperm(len(rows))]  # RLlib slices the first epoch's minibatches in this order
    columns = {name: column.flatten(0, 1)[rows] for name, column in columns.items()}
    log_probabilities = torch.log_softmax(columns[Columns.ACTION_DIST_INPUTS], dim=-1)
    columns[Columns.ACTION_LOGP] = log_probabilities.gather(1, columns[Columns.ACTIONS][:, None]).squeeze(1)
    advantages = columns[Postprocessing.ADVANTAGES]
    scale = advantages.std().clamp(min=1e-4)
    columns[Postprocessing.ADVANTAGES] = (advantages - advantages.mean()) / scale
    columns[Columns.OBS] = {name: columns.pop(name) for name in ("observation", "action_mask")}
    return Rollout(columns, len(rows))
