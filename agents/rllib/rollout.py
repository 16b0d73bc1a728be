"""What a runner hands to the learner: one array a quantity, one row a step, one column a slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlroute.rollout import Episodes


@dataclass
class Rollout:
    """T steps of N slots. Without `playing` every row is a decision; with it, those of slots not yet finished."""

    observation: NDArray[np.float32]  # (T, N, D)
    action_mask: NDArray[np.int8]  # (T, N, A)
    action: NDArray[np.int64]  # (T, N)
    logits: NDArray[np.float32]  # (T, N, A) of the policy that acted
    reward: NDArray[np.float32]  # (T, N)
    terminated: NDArray[np.bool_]  # (T, N)
    truncated: NDArray[np.bool_]  # (T, N)
    value: NDArray[np.float32]  # (T, N) estimates before each step; 0 without a critic
    final_value: NDArray[np.float32]  # (T, N) estimates where episodes were truncated, elsewhere 0
    last_value: NDArray[np.float32]  # (N,) estimates after the last step
    playing: NDArray[np.bool_] | None = None  # (T, N)
    alike: NDArray[np.int64] | None = None  # (T, N) of waves: see `rlroute.agents.rllib.alike`
    episodes: Episodes | None = None  # of waves: what each slot's episode came to

    def env_steps(self) -> int:
        """Decisions in it."""
        return self.reward.size if self.playing is None else int(self.playing.sum())

    def agent_steps(self) -> int:
        """The same, as RLlib asks it."""
        return self.env_steps()

    def rows(self, column: NDArray[Any]) -> NDArray[Any]:
        """A column (T, N, …) as one row a decision, (R, …)."""
        return column.reshape(-1, *column.shape[2:]) if self.playing is None else column[self.playing]

    def situations(self) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Of a wave: (T, N) one of each situation that decisions were made in, and (R,) which of them each was."""
        assert self.playing is not None
        assert self.alike is not None
        firsts = self.playing & (self.alike == np.arange(self.alike.shape[1]))
        places = (np.cumsum(firsts) - 1).reshape(firsts.shape)
        return firsts, np.take_along_axis(places, self.alike, axis=1)[self.playing]


class Columns:
    """Buffers (capacity, N, …) that grow when a step does not fit, and are used again for the next rollout."""

    def __init__(self, capacity: int, num_envs: int, num_features: int, num_actions: int) -> None:
        steps = (capacity, num_envs)
        self.capacity = capacity
        self.arrays: dict[str, NDArray[Any]] = {
            "observation": np.empty((*steps, num_features), np.float32),
            "action_mask": np.empty((*steps, num_actions), np.int8),
            "action": np.empty(steps, np.int64),
            "logits": np.empty((*steps, num_actions), np.float32),
            "reward": np.empty(steps, np.float32),
            "terminated": np.empty(steps, bool),
            "truncated": np.empty(steps, bool),
            "value": np.zeros(steps, np.float32),  # stays so without a critic
            "final_value": np.zeros(steps, np.float32),
            "playing": np.empty(steps, bool),
            "alike": np.empty(steps, np.int64),
        }

    def at_least(self, capacity: int) -> None:
        """Makes room for `capacity` steps, keeping what is there."""
        if capacity > self.capacity:
            more = max(capacity, 2 * self.capacity) - self.capacity
            for name, array in self.arrays.items():
                self.arrays[name] = np.concatenate([array, np.zeros((more, *array.shape[1:]), array.dtype)])
            self.capacity += more

    def first(self, steps: int, *without: str) -> dict[str, Any]:
        """The first `steps` rows of every column but those `without`, not copied."""
        return {name: array[:steps] for name, array in self.arrays.items() if name not in without}
