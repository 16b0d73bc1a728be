"""Rollouts of a native vector environment as whole columns, never as Python objects.

RLlib's own runner keeps every episode as lists of single steps and takes them through a dozen connectors; with a fast
environment and a small network that is most of the time. This one writes columns. It is an RLlib runner in all else:
local or remote, for training or evaluation, with RLlib's metrics, weights and state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from ray.rllib.core.columns import Columns as Names
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.metrics import (
    EPISODE_LEN_MAX,
    EPISODE_LEN_MEAN,
    EPISODE_LEN_MIN,
    EPISODE_RETURN_MAX,
    EPISODE_RETURN_MEAN,
    EPISODE_RETURN_MIN,
)
from torch import Tensor

from rlroute.agents.rllib.alike import find_alike
from rlroute.agents.rllib.rollout import Columns, Rollout
from rlroute.jit import bind
from rlroute.layout import Layout
from rlroute.rollout import finished

ENV_STEP_S, MODULE_FORWARD_S = "env_step_s", "module_forward_s"  # seconds of one rollout spent there
EXPECTED_EPISODE = 32  # steps that a wave makes room for at first


class ColumnarEnvRunner(SingleAgentEnvRunner):
    """Steps a native vector environment; `sample` returns one `Rollout`.

    Without groups the environment resets in the same step, so that every row is a decision, and a rollout is
    ``rollout_fragment_length`` steps. With ``config.group_size`` K its autoreset is disabled, and a rollout is a wave:
    one episode of every slot, K consecutive slots on the same task.

    With `text_noise` in the module's configuration, exploring sees the feature named "text" through Gaussian
    noise of that standard deviation, so that a network cannot learn the few texts of a log by heart.
    """

    env: Any
    _needs_initial_reset: bool  # RLlib's

    def make_env(self) -> None:
        super().make_env()
        self.env = self.env.env  # without the wrapper that turns infos into a list of dictionaries
        expected = AutoresetMode.DISABLED if self.config.group_size else AutoresetMode.SAME_STEP
        found = self.env.metadata.get("autoreset_mode")
        if found != expected:
            raise ValueError(
                f"{self.config.env}: found autoreset mode {found}, expected {expected}: "
                f'env_config needs autoreset="{expected.name.lower()}"'
            )
        self._latest: dict[str, NDArray[Any]] | None = None  # the observation to go on from
        self._columns: Columns | None = None
        self._find_alike: Callable[..., None] | None = None  # `find_alike`, compiled
        self._returns, self._lengths = np.zeros(self.num_envs), np.zeros(self.num_envs)
        self._ended: list[NDArray[Any]] = []  # (2, k): return and length of the episodes that ended
        self._seconds = {ENV_STEP_S: 0.0, MODULE_FORWARD_S: 0.0}

    def make_module(self) -> None:
        super().make_module()
        config = self.module.model_config
        expected = Layout.from_dict(config["layout"])
        if self.env is not None and (found := self.env.unwrapped.layout) != expected:
            raise ValueError(f"{self.config.env}: {difference(found, expected)}")
        where = expected.slices().get("text")
        self._blurred = where if config.get("text_noise") else None

    def sample(
        self,
        *,
        num_timesteps: int | None = None,
        num_episodes: int | None = None,
        explore: bool | None = None,
        random_actions: bool = False,
        force_reset: bool = False,
    ) -> list[Any]:
        """One `Rollout`; or with a number of steps or episodes, as evaluation wants it, only metrics and their count.

        Of episodes each slot plays the same number, so that short ones are not counted more often than long ones.
        """
        if random_actions:
            raise ValueError("random_actions=True: expected False, columns are of the module's actions")
        explore = self.config.explore if explore is None else explore
        if force_reset:
            self._latest = None
        if num_episodes is not None or num_timesteps is not None:
            return [self._play(num_timesteps, num_episodes, explore)]
        return [self._wave(explore) if self.config.group_size else self._steps(explore)]

    def get_metrics(self) -> Any:
        if self._ended:
            returns, lengths = np.concatenate(self._ended, axis=1)
            for names, of in (
                ((EPISODE_RETURN_MEAN, EPISODE_RETURN_MIN, EPISODE_RETURN_MAX), returns),
                ((EPISODE_LEN_MEAN, EPISODE_LEN_MIN, EPISODE_LEN_MAX), lengths),
            ):
                for name, value in zip(names, (of.mean(), of.min(), of.max()), strict=True):
                    self.metrics.log_value(name, float(value), window=1)
        self._ended = []
        for name, seconds in self._seconds.items():
            self.metrics.log_value(name, seconds, reduce="sum")
            self._seconds[name] = 0.0
        return self.metrics.reduce()

    # -- rollouts -------------------------------------------------------------------------------------------------

    def _steps(self, explore: bool) -> Rollout:
        """The next ``rollout_fragment_length`` steps of every slot."""
        steps = self.config.get_rollout_fragment_length(self.worker_index)
        buffers = self._buffers(steps)
        columns = buffers.arrays
        latest = self._begin()
        for t in range(steps):
            self._act(t, latest, columns, explore)
            with self._timed(ENV_STEP_S):
                latest, reward, terminated, truncated, info = self.env.step(columns["action"][t])
            columns["reward"][t], columns["terminated"][t], columns["truncated"][t] = reward, terminated, truncated
            self._bootstrap(t, truncated, info, columns)
            self._count(reward, terminated | truncated)
        self._latest = latest
        self._refuse_bad_rewards(columns["reward"][:steps])
        last_value = self._values(latest["observation"])
        self._increase_sampled_metrics(
            steps * self.num_envs, int((columns["terminated"] | columns["truncated"])[:steps].sum())
        )
        return Rollout(**buffers.first(steps, "playing", "alike"), last_value=last_value)

    def _wave(self, explore: bool) -> Rollout:
        """One episode of every slot; slots that have finished idle and ask the module for nothing."""
        buffers = self._buffers(EXPECTED_EPISODE)
        self._latest = None
        latest = self._begin({"group": self.config.group_size})
        playing, cut = np.ones(self.num_envs, bool), np.zeros(self.num_envs, bool)
        returns = np.zeros(self.num_envs)
        t = 0
        while playing.any():
            buffers.at_least(t + 1)
            columns = buffers.arrays
            self._act(t, latest, columns, explore, playing)
            columns["playing"][t] = playing
            with self._timed(ENV_STEP_S):
                latest, reward, terminated, truncated, _ = self.env.step(columns["action"][t])
            columns["reward"][t] = np.where(playing, reward, 0.0)
            columns["terminated"][t], columns["truncated"][t] = terminated, truncated
            returns += columns["reward"][t]
            cut |= truncated
            self._count(reward, terminated | truncated, playing)
            playing = playing & ~(terminated | truncated)
            t += 1
        self._latest = None
        self._refuse_bad_rewards(columns["reward"][:t])
        dynamics = getattr(self.env.unwrapped, "dynamics", None)
        episodes = None if dynamics is None else finished(dynamics, returns, cut, self.num_envs)
        rollout = Rollout(**buffers.first(t), last_value=np.zeros(self.num_envs, np.float32), episodes=episodes)
        self._increase_sampled_metrics(rollout.env_steps(), self.num_envs)
        return rollout

    def _play(self, num_timesteps: int | None, num_episodes: int | None, explore: bool) -> Played:
        """Play for metrics alone: that many steps, or at least that many episodes from their start."""
        quota = np.inf if num_episodes is None else -(-num_episodes // self.num_envs)
        disabled = self.env.metadata["autoreset_mode"] == AutoresetMode.DISABLED
        if num_episodes is not None or disabled:
            self._latest = None
        latest, played = self._begin(), np.zeros(self.num_envs)
        columns = Columns(1, self.num_envs, latest["observation"].shape[1], latest["action_mask"].shape[1]).arrays
        playing, steps, episodes = np.ones(self.num_envs, bool), 0, 0
        while (played < quota).any() and steps < (num_timesteps or np.inf):
            self._act(0, latest, columns, explore)
            latest, reward, terminated, truncated, _ = self.env.step(columns["action"][0])
            ended = playing & (terminated | truncated)
            counted = playing & (played < quota)
            steps += int(counted.sum())
            episodes += int((ended & counted).sum())
            self._count(reward, ended, counted)
            played += ended
            if disabled:
                playing &= ~ended
                if not playing.any():
                    self._latest = None
                    latest, playing[:] = self._begin(), True
        self._latest = None if num_episodes is not None or disabled else latest
        self._increase_sampled_metrics(steps, episodes)
        return Played(steps)

    # -- parts ----------------------------------------------------------------------------------------------------

    def _begin(self, options: dict[str, Any] | None = None) -> dict[str, NDArray[Any]]:
        """The observation to go on from; at first, and where it was dropped, that of new episodes everywhere."""
        if self._latest is None:
            seed = self._seed if self._needs_initial_reset else None  # later resets go on with other episodes
            self._needs_initial_reset = False
            self._latest, _ = self.env.reset(seed=seed, options=options)
            self._returns[:] = self._lengths[:] = 0
        return self._latest

    def _buffers(self, steps: int) -> Columns:
        if self._columns is None:
            layout = self.env.unwrapped.layout
            self._columns = Columns(steps, self.num_envs, layout.size, layout.num_actions)
        return self._columns

    def _act(
        self, t: int, latest: Any, columns: dict[str, NDArray[Any]], explore: bool, playing: NDArray[Any] | None = None
    ) -> None:
        """Writes step t up to its actions: of all slots, or of those `playing`, with action 0 for the others."""
        observation, mask = columns["observation"][t], columns["action_mask"][t]
        observation[:], mask[:] = latest["observation"], latest["action_mask"]
        with self._timed(MODULE_FORWARD_S):
            if explore and self._blurred is not None:
                text = torch.from_numpy(observation)[:, self._blurred]
                text += self.module.model_config["text_noise"] * torch.randn_like(text)
            deciding: Any = slice(None)
            asking = deciding
            if playing is not None:  # what slots of a group see alike is asked once
                alike = columns["alike"][t]
                self._find(observation, mask, playing, alike)
                deciding = np.flatnonzero(playing)
                asking = deciding[alike[deciding] == deciding]
            seen = {"observation": torch.from_numpy(observation[asking]), "action_mask": torch.from_numpy(mask[asking])}
            logits, values = self._forward(seen, explore)
            columns["logits"][t, asking] = logits.numpy()
            if values is not None:
                columns["value"][t, asking] = values.numpy()
            if playing is not None:
                columns["logits"][t, deciding] = columns["logits"][t, alike[deciding]]
                columns["action"][t] = 0
            chosen = choose(torch.from_numpy(columns["logits"][t, deciding]), explore)
            columns["action"][t, deciding] = chosen.numpy()

    def _find(
        self,
        observation: NDArray[np.float32],  # (N, D)
        mask: NDArray[np.int8],  # (N, A)
        playing: NDArray[np.bool_],  # (N,)
        alike: NDArray[np.int64],  # (N,) written, see `find_alike`
    ) -> None:
        if self._blurred is not None:  # by noise of each slot's own, so that no two see the same
            alike[:] = np.arange(len(alike))
            return
        if self._find_alike is None:
            self._find_alike = bind(find_alike, observation, mask, playing, self.config.group_size, alike)
        self._find_alike(observation, mask, playing, self.config.group_size, alike)

    def _forward(self, seen: dict[str, Tensor], explore: bool) -> tuple[Tensor, Tensor | None]:
        """Logits (N, A), and values (N,) where a critic learns from them.

        By what the module defines, without RLlib's wrapper that switches every layer to evaluation and back.
        """
        if not self.config.use_critic:
            with torch.no_grad():
                return self.module._forward({Names.OBS: seen})[Names.ACTION_DIST_INPUTS], None
        forward = self.module._forward_exploration if explore else self.module._forward_inference
        out = forward({Names.OBS: seen})
        return out[Names.ACTION_DIST_INPUTS], out[Names.VF_PREDS]

    def _bootstrap(self, t: int, truncated: NDArray[Any], info: dict[str, Any], columns: dict[str, Any]) -> None:
        """The values of the observations at which step t cut episodes."""
        columns["final_value"][t] = 0.0
        if truncated.any():
            columns["final_value"][t, truncated] = self._values(info["final_obs"]["observation"][truncated])

    def _values(self, observation: NDArray[Any]) -> NDArray[np.float32]:
        with torch.no_grad(), self._timed(MODULE_FORWARD_S):
            return self.module.compute_values({Names.OBS: {"observation": torch.from_numpy(observation)}}).numpy()

    def _count(self, reward: NDArray[Any], ended: NDArray[Any], counted: NDArray[Any] | None = None) -> None:
        """Adds one step to the running returns and lengths of the slots `counted`; notes which episodes it ended."""
        if counted is None:
            self._returns += reward
            self._lengths += 1
        else:
            self._returns += np.where(counted, reward, 0.0)
            self._lengths += counted
            ended = ended & counted
        if ended.any():
            self._ended.append(np.stack([self._returns[ended], self._lengths[ended]]))
            self._returns[ended] = self._lengths[ended] = 0

    def _refuse_bad_rewards(self, rewards: NDArray[Any]) -> None:
        if not np.isfinite(rewards).all():
            step, slot = np.argwhere(~np.isfinite(rewards))[0]
            raise ValueError(
                f"{self.config.env}: reward {rewards[step, slot]} of slot {slot} at step {step} of the rollout, "
                "expected a finite number: check costs and qualities of the log with `rlroute validate`"
            )

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self._seconds[what] += time.perf_counter() - began


class Played:
    """What `sample` returns of an evaluation: only how long it was."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def env_steps(self) -> int:
        return self.steps

    def agent_steps(self) -> int:
        return self.steps


def choose(logits: Tensor, explore: bool) -> Tensor:
    """Actions (N,) drawn from the softmax of logits (N, A), or the likeliest ones.

    The largest of logits plus independent Gumbel noise, −log(−log u) of uniform u, is a draw from their softmax. With u
    kept off 0 the noise lies between −3 and 17, so a masked action is never drawn.
    """
    if not explore:
        return logits.argmax(dim=-1)
    noise = torch.rand(logits.shape).clamp_(min=2.0**-25).log_().neg_().log_()
    return (logits - noise).argmax(dim=-1)


def difference(found: Layout, expected: Layout) -> str:
    """Where two layouts part, for a message: the network was made for `expected`."""
    for name in ("context", "choice", "context_actions", "choice_actions", "num_choices"):
        ours, its = getattr(found, name), getattr(expected, name)
        if ours != its:
            return f"the observation's {name} is {ours!r}, but the network was made for {its!r}"
    return "the observation's layout is the network's"
