"""A toy family to test agents on: a masked contextual bandit with a block of features per choice.

An episode is three picks. At each, every choice shows its worth and its price, and some are closed (masked).
Picking pays worth minus price, refusing pays the opposite, passing pays nothing: the best move depends on the
features of the choices alone, so a policy that scores them one by one works for pools of any size.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from rlroute.envs.faces import AUTORESET
from rlroute.layout import Feature, Layout

PICKS = 3


def layout(num_choices: int) -> Layout:
    """Two context features (the text is noise), two features a choice, and one action of each kind."""
    return Layout(
        context=(Feature("picks_left", "share"), Feature("text", "none", size=2)),
        choice=(Feature("worth", "reward"), Feature("price", "reward")),
        num_choices=num_choices,
        context_actions=("pass",),
        choice_actions=("pick", "refuse"),
    )


class BanditVectorEnv(VectorEnv[dict[str, NDArray[Any]], NDArray[Any], NDArray[Any]]):
    """`num_envs` bandits with any autoreset. Counts how often a masked action was taken.

    Slots of a group see the same offers. With `cut` an episode is truncated at its end, not terminated. With `nan_at`
    the reward of the last slot is no number from that step on. With `copies` observations are the caller's to keep.
    """

    def __init__(
        self,
        num_envs: int = 1,
        num_choices: int = 4,
        closed_share: float = 0.3,
        autoreset: str = "next_step",
        cut: bool = False,
        nan_at: int | None = None,
        copies: bool = False,
        **_: Any,
    ) -> None:
        self.metadata = {"autoreset_mode": AUTORESET[autoreset]}
        self.cut, self.nan_at, self.copies, self.steps, self.group = cut, nan_at, copies, 0, 1
        self.num_envs, self.layout, self.closed_share = num_envs, layout(num_choices), closed_share
        self.num_choices = num_choices
        space = gym.spaces.Dict(
            observation=gym.spaces.Box(0.0, 1.0, (self.layout.size,), np.float32),
            action_mask=gym.spaces.Box(0, 1, (self.layout.num_actions,), np.int8),
        )
        self.single_observation_space, self.single_action_space = (
            space,
            gym.spaces.Discrete(self.layout.num_actions),
        )
        self.observation_space = gym.vector.utils.batch_space(space, num_envs)
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, num_envs)
        self.rng = np.random.default_rng(0)
        self.masked_actions = 0
        self.done = np.zeros(num_envs, bool)
        self.picks = np.zeros(num_envs, int)
        # One buffer for all steps, as a fast environment has: whoever keeps observations must copy them.
        self.buffer: dict[str, NDArray[Any]] = {
            "observation": np.zeros((num_envs, self.layout.size), np.float32),
            "action_mask": np.zeros((num_envs, self.layout.num_actions), np.int8),
        }

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.group = (options or {}).get("group", 1)
        self.picks[:] = 0
        self.done[:] = False
        return self._observe(), {}

    def step(self, actions: NDArray[Any]) -> tuple[Any, ...]:
        actions = np.asarray(actions)
        mode = self.metadata["autoreset_mode"]
        active = ~self.done
        kind, choice = np.divmod(np.maximum(actions - 1, 0), self.num_choices)
        forbidden = self.buffer["action_mask"][np.arange(self.num_envs), actions] == 0
        self.masked_actions += int((forbidden & active).sum())
        blocks = self.buffer["observation"][:, self.layout.context_size :].reshape(self.num_envs, -1, 2)
        chosen = blocks[np.arange(self.num_envs), choice]
        gain = (chosen[:, 0] - chosen[:, 1]) * np.where(kind == 0, 1.0, -1.0)
        rewards = np.where(active & (actions > 0) & ~forbidden, gain, 0.0).astype(np.float32)
        if self.nan_at is not None and self.steps >= self.nan_at:
            rewards[-1] = np.nan
        self.steps += 1
        if mode is AutoresetMode.NEXT_STEP:
            self.picks = np.where(active, self.picks + 1, 0)
        else:
            self.picks = self.picks + active
        ended = active & (self.picks >= PICKS)
        info: dict[str, Any] = {}
        if mode is AutoresetMode.SAME_STEP:
            if ended.any():
                info = {"final_obs": {name: x.copy() for name, x in self._observe().items()}, "_final_obs": ended}
            self.picks[ended] = 0
        else:
            self.done = ended if mode is AutoresetMode.NEXT_STEP else self.done | ended
        nothing = np.zeros(self.num_envs, bool)
        terminated, truncated = (nothing, ended) if self.cut else (ended, nothing)
        return self._observe(), rewards, terminated.copy(), truncated.copy(), info

    def best(self) -> NDArray[Any]:
        """The best gain on offer in every bandit; what a perfect policy earns at this step."""
        gains = self.buffer["observation"][:, self.layout.context_size :].reshape(self.num_envs, -1, 2)
        gains = gains[..., 0] - gains[..., 1]
        offers = np.concatenate([np.zeros((self.num_envs, 1)), gains, -gains], axis=1)
        return np.where(self.buffer["action_mask"] == 1, offers, -np.inf).max(axis=1)

    def policy_card(self) -> dict[str, Any]:
        """What the policy file says about this environment."""
        return {
            "family": "toy/Bandit-v0",
            "layout": self.layout.to_dict(),
            "choices": [{"name": f"choice {i}"} for i in range(self.num_choices)],
        }

    def policy_tensors(self) -> dict[str, NDArray[Any]]:
        """Arrays that the observation is made with."""
        return {"prior": np.full((self.num_choices,), 0.5, np.float32)}

    def _observe(self) -> dict[str, NDArray[Any]]:
        observation, mask = self.buffer["observation"], self.buffer["action_mask"]
        units = self.num_envs // self.group
        offers = self.rng.random((units, observation.shape[1]), dtype=np.float32)
        is_open = self.rng.random((units, self.num_choices)) > self.closed_share
        observation[:] = np.repeat(offers, self.group, axis=0)
        observation[:, 0] = 1 - self.picks / PICKS
        mask[:, 0] = 1
        mask[:, 1 : 1 + self.num_choices] = np.repeat(is_open, self.group, axis=0)
        mask[:, 1 + self.num_choices :] = mask[:, 1 : 1 + self.num_choices]
        return {name: x.copy() for name, x in self.buffer.items()} if self.copies else self.buffer


if "toy/Bandit-v0" not in gym.registry:
    gym.register("toy/Bandit-v0", vector_entry_point=BanditVectorEnv)
