"""What the episodes of all families have in common: slots, keyed draws, terms, accounts and time limits.

An `EpisodeDynamics` holds N episodes as arrays and moves them all at once. The scalar face is a batch of one; there
is no second implementation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rlroute.draws import Stream, integers
from rlroute.envs.arguments import EpisodeArguments
from rlroute.envs.terms import Terms
from rlroute.layout import Layout
from rlroute.rewards import COST_USD, INVALID_ACTION_REWARD, LATENCY_S, QUALITY, Totals
from rlroute.splits import SPLITS


@dataclass
class Transition:
    """What one step did to N episodes, each array of shape (num_envs,) but `vector`."""

    vector: np.ndarray  # (num_envs, 4), see rlroute.rewards
    reward: np.ndarray
    terminated: np.ndarray  # bool
    truncated: np.ndarray  # bool


class EpisodeDynamics(ABC):
    """N episodes over the tasks of one log or suite. A family adds what an action does, what is seen and masked."""

    family: ClassVar[str]
    arguments_type: ClassVar[type[EpisodeArguments]]
    arguments: EpisodeArguments
    layout: Layout

    def __init__(self, arguments: EpisodeArguments, num_envs: int, log: Any) -> None:
        self.arguments = arguments
        self.num_envs = num_envs
        self.log = log
        self.arrays = log.arrays
        self.split = log.splits(arguments.split_salt)
        self.roots = np.flatnonzero(self.arrays.root & (self.split == SPLITS.index(arguments.split)))
        self._refuse_unusable_log()  # before anything is fitted

        self.key = np.uint64(0)
        self.slot = np.arange(num_envs)
        self.group_size = 1
        self.episode = np.full(num_envs, -1)
        self.terms = Terms.empty(num_envs)
        self.totals = Totals.zeros(num_envs)
        self.state = np.zeros(num_envs, np.int32)
        self.task = np.zeros(num_envs, np.int32)  # the root state of the episode
        self.active = np.zeros(num_envs, bool)
        self.elapsed_steps = np.zeros(num_envs, np.int32)
        self.usd_left = np.full(num_envs, np.inf)

    # -- what a family provides ---------------------------------------------------------------------------------

    @property
    @abstractmethod
    def default_max_episode_steps(self) -> int:
        """Steps that are enough for any episode without invalid actions."""

    @abstractmethod
    def enter_task(self, which: np.ndarray) -> None:
        """Start the episodes `which` (indices) at their root states."""

    @abstractmethod
    def act(self, which: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Carry out legal actions of the slots `which`; returns (reward vector rows, terminated rows)."""

    @abstractmethod
    def write_action_mask(self, mask: np.ndarray) -> None:
        """Fill `mask`, int8 of shape (num_envs, num_actions), with 1 where an action is legal."""

    @abstractmethod
    def observe(self, out: np.ndarray) -> None:
        """Fill `out`, float32 of shape (num_envs, layout.size)."""

    @abstractmethod
    def scalar_reward(self, vector: np.ndarray, ended: np.ndarray) -> np.ndarray:
        """The reward of one step, (num_envs,), from its vector (num_envs, 4) and whether it terminated an episode."""

    @property
    @abstractmethod
    def calls(self) -> np.ndarray:
        """Calls made in each episode so far, (num_envs,)."""

    @property
    def expensive_calls(self) -> np.ndarray:
        """Of these, calls that `budget_calls` counts, (num_envs,)."""
        return np.zeros(self.num_envs, np.int64)

    def extra_info(self) -> dict[str, np.ndarray]:
        """What a family tells in `info` beside mask, reward vector and totals, each (num_envs, …)."""
        return {}

    # -- episodes -----------------------------------------------------------------------------------------------

    @property
    def w_cost(self) -> np.ndarray:
        return self.terms.cost_weight

    @property
    def w_latency(self) -> np.ndarray:
        return self.terms.latency_weight

    @property
    def max_episode_steps(self) -> int:
        return self.arguments.max_episode_steps or self.default_max_episode_steps

    def begin(self, which: np.ndarray, tasks: np.ndarray | None = None) -> None:
        """Start the next episode of the slots `which`; `tasks` names their root states, by default drawn."""
        self.episode[which] += 1
        unit, episode = self.slot[which] // self.group_size, self.episode[which]
        if tasks is None:
            tasks = self.roots[integers(self.key, len(self.roots), unit, episode, Stream.TASK)]
        self.arguments.ranges.draw(self.terms, which, self.key, unit, episode)
        self.task[which] = self.state[which] = tasks
        self.usd_left[which] = self.terms.budget_usd[which]
        self.totals.clear(which)
        self.elapsed_steps[which] = 0
        self.active[which] = True
        self.enter_task(which)

    def noise_unit(self, which: np.ndarray) -> np.ndarray:
        """The counter that the hidden draws of these slots depend on: their own, or their group's."""
        return self.slot[which] if self.arguments.group_noise == "own" else self.slot[which] // self.group_size

    def step(self, action: np.ndarray, mask: np.ndarray) -> Transition:
        """Move every active slot. `mask` holds the legal actions and is updated; idle slots stay as they are."""
        vector = np.zeros((self.num_envs, 4))
        terminated = np.zeros(self.num_envs, bool)
        self.elapsed_steps[self.active] += 1
        legal = self.active & (mask[np.arange(self.num_envs), action] == 1)
        stuck = self.active & ~mask.any(axis=1)
        which = np.flatnonzero(legal)
        if len(which):
            vector[which], terminated[which] = self.act(which, action[which])
            self._account(which, vector[which])
        self.write_action_mask(mask)
        # Nothing legal is left: nothing is affordable, or no call is left and nothing was heard. A failure.
        terminated |= stuck | (self.active & ~mask.any(axis=1))
        truncated = self.active & ~terminated & (self.elapsed_steps >= self.max_episode_steps)
        reward = self.scalar_reward(vector, terminated)
        reward = np.where(self.active & ~legal & ~stuck, INVALID_ACTION_REWARD, reward)
        self.active &= ~(terminated | truncated)
        return Transition(vector, reward, terminated, truncated)

    def _account(self, which: np.ndarray, vector: np.ndarray) -> None:
        self.totals.quality[which] += vector[:, QUALITY]
        self.totals.cost_usd[which] += vector[:, COST_USD]
        self.totals.latency_s[which] += vector[:, LATENCY_S]
        self.usd_left[which] -= vector[:, COST_USD]

    def describe(self, slot: int) -> str:
        """The episode of `slot` as text."""
        lines = [
            f"{self.log.name}: {self.arrays.state_ids[self.task[slot]]}, step {self.elapsed_steps[slot]}",
            self.log.state_text(int(self.state[slot])),
            *self.describe_progress(slot),
            f"spent {self.totals.cost_usd[slot]:.6f} USD"
            + (f", {self.usd_left[slot]:.6f} USD left" if np.isfinite(self.usd_left[slot]) else "")
            + f", {self.totals.latency_s[slot]:.1f} s, cost weight {self.w_cost[slot]:.3g}",
        ]
        if not self.active[slot]:
            lines.append(f"ended with quality {self.totals.quality[slot]:.2f}")
        return "\n".join(lines)

    @abstractmethod
    def describe_progress(self, slot: int) -> list[str]:
        """Lines on what was heard or done in this episode so far."""

    def picture(self, slot: int) -> np.ndarray:
        """The episode of `slot` as an image, (height, width, 3) uint8, in families that offer "rgb_array"."""
        raise ValueError(f"{self.family} has no picture: expected render_mode='ansi'")

    # -- the environment as a policy file sees it ----------------------------------------------------------------

    @abstractmethod
    def policy_card(self) -> dict[str, Any]:
        """What a policy trained here must remember in order to act elsewhere."""

    def policy_tensors(self) -> dict[str, np.ndarray]:
        """Arrays that a policy trained here needs in order to observe a live episode."""
        return {}

    def _refuse_unusable_log(self) -> None:
        """Faults that show before anything is fitted; a family adds its own."""
        if not len(self.roots):
            counts = {name: int((self.arrays.root & (self.split == i)).sum()) for i, name in enumerate(SPLITS)}
            raise ValueError(
                f"split={self.arguments.split!r} of log {self.log.name!r} is empty: root states by split are {counts}"
            )
