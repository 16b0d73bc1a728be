"""The two Gymnasium faces of a family's dynamics: a native vector environment, and a scalar one, a batch of one."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from rlroute.draws import key_from_seed
from rlroute.envs.arguments import parse_arguments
from rlroute.envs.slots import Shown
from rlroute.layout import Layout
from rlroute.rewards import VECTOR_NAMES

OPTIONS = ("task", "group", "slot", "reset_mask")
AUTORESET = {
    "next_step": AutoresetMode.NEXT_STEP,
    "same_step": AutoresetMode.SAME_STEP,
    "disabled": AutoresetMode.DISABLED,
}


def observation_space(layout: Layout, mask_in_obs: bool) -> gym.Space:
    """A flat Box, or with `mask_in_obs` a Dict of it and the action mask."""
    low, high = layout.bounds()
    box = gym.spaces.Box(low, high, dtype=np.float32)
    if not mask_in_obs:
        return box
    return gym.spaces.Dict({"observation": box, "action_mask": gym.spaces.MultiBinary(layout.num_actions)})


class RoutingVectorEnv(gym.vector.VectorEnv, gym.utils.EzPickle):
    """N episodes in lock-step. `autoreset` is "next_step", "same_step", or "disabled" (finished slots idle).

    ``reset(options=…)`` takes ``task`` (state id or row of a root state, or one per slot), ``group`` (K consecutive
    slots share task, weights and budgets until the next explicit reset), ``slot`` (play as that slot of a wider
    vector environment, and of its group) and ``reset_mask`` (with autoreset disabled: which slots to reset).
    """

    metadata: dict[str, Any] = {
        "render_modes": ["ansi"],
        "render_fps": 1,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }
    dynamics_type: ClassVar[Any]  # a concrete EpisodeDynamics

    def __init__(
        self,
        num_envs: int = 1,
        *,
        autoreset: str | AutoresetMode = "next_step",
        mask_in_obs: bool = False,
        render_mode: str | None = None,
        **arguments: Any,
    ) -> None:
        how = {"autoreset": autoreset, "mask_in_obs": mask_in_obs, "render_mode": render_mode}
        gym.utils.EzPickle.__init__(self, num_envs, **how, **arguments)
        mode = autoreset if isinstance(autoreset, AutoresetMode) else AUTORESET.get(str(autoreset))
        if mode is None:
            raise ValueError(f"autoreset={autoreset!r}: expected one of {', '.join(map(repr, AUTORESET))}")
        modes = self.metadata["render_modes"]
        if render_mode is not None and render_mode not in modes:
            raise ValueError(f"render_mode={render_mode!r}: expected None or {' or '.join(map(repr, modes))}")
        if num_envs < 1:
            raise ValueError(f"num_envs={num_envs!r}: expected at least 1")
        parsed = parse_arguments(self.dynamics_type.arguments_type, arguments)
        self.dynamics: Any = self.dynamics_type(parsed, num_envs)  # of that type
        self.num_envs = num_envs
        self.autoreset = mode
        self.metadata = {**type(self).metadata, "autoreset_mode": mode}
        self.mask_in_obs = mask_in_obs
        self.render_mode = render_mode
        self.single_observation_space = observation_space(self.layout, mask_in_obs)
        self.single_action_space = gym.spaces.Discrete(self.layout.num_actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        next_step, disabled = mode is AutoresetMode.NEXT_STEP, mode is AutoresetMode.DISABLED
        self.dynamics.run(restarts=next_step, endless=not disabled)
        self._everyone = np.ones(num_envs, bool)
        self._keyed = False

    @property
    def layout(self) -> Layout:
        """Names, slices and units of an observation, and the order of the actions."""
        return self.dynamics.layout

    def policy_card(self) -> dict[str, Any]:
        """What a policy trained here must remember, as plain data for its file."""
        return self.dynamics.policy_card()

    def policy_tensors(self) -> dict[str, np.ndarray]:
        """Arrays that a policy trained here needs in order to observe a live text."""
        return self.dynamics.policy_tensors()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        options = options or {}
        unknown = sorted(set(options) - set(OPTIONS))
        if unknown:
            raise ValueError(f"unknown reset option {unknown[0]!r}: expected among {', '.join(OPTIONS)}")
        if "reset_mask" in options and (seed is not None or "group" in options or "slot" in options):
            raise ValueError("reset_mask goes with task alone: expected seed, group and slot at a reset of all slots")
        dynamics = self.dynamics
        if seed is not None or not self._keyed:
            dynamics.start_run(key_from_seed(seed))
            self._keyed = True
        which = np.arange(self.num_envs)
        if "reset_mask" in options:
            which = np.flatnonzero(np.asarray(options["reset_mask"], bool))
        else:
            dynamics.share(self._group_size(options.get("group", 1), whole="slot" not in options))
        if "slot" in options:
            dynamics.slot[:] = np.asarray(options["slot"], np.int64)
        tasks = self._root_rows(options["task"], len(which)) if "task" in options else None
        dynamics.begin(which, tasks)
        nothing = np.zeros((self.num_envs, len(VECTOR_NAMES)))
        now = dynamics.observation.copy(), dynamics.action_mask.copy()
        return self._told(*now, nothing, dynamics.totals_vector.copy(), dynamics.tally.copy())

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        shown = self.dynamics.step(self._whole(actions))
        if shown is None:
            raise self._wrong_action(actions)
        mask, final = self.dynamics.action_mask.copy(), None
        if self.autoreset is AutoresetMode.SAME_STEP:
            ended = shown.terminated | shown.truncated
            if ended.any():
                final = {
                    "_final_obs": ended,
                    "_final_info": ended,
                    **self._restarted(shown, mask, np.flatnonzero(ended)),
                }
        observation, info = self._told(shown.observation, mask, shown.vector, shown.totals, shown.tallies)
        if final:
            info |= final
        return observation, shown.reward, shown.terminated, shown.truncated, info

    def _restarted(self, shown: Shown, mask: np.ndarray, which: np.ndarray) -> dict[str, Any]:
        """Begins new episodes in the slots `which`, and shows them; returns what the old ones came to."""
        dynamics = self.dynamics
        old = mask.copy(), shown.vector, shown.totals.copy(), shown.tallies.copy()
        final_obs, _ = self._told(_only(shown.observation, which), _only(mask, which), *old[1:])
        _, final_info = self._told(shown.observation, *old)
        dynamics.begin(which)
        shown.observation[which], mask[which] = dynamics.observe(which), dynamics.action_mask[which]
        shown.totals[which], shown.tallies[which] = dynamics.totals_vector[which], dynamics.tally[which]
        return {"final_obs": final_obs, "final_info": final_info}

    def _whole(self, actions: Any) -> np.ndarray:
        """Numbers for every slot as (num_envs,) int64; whether they are actions is seen in the step."""
        given = np.asarray(actions)
        if given.shape != (self.num_envs,):
            raise ValueError(f"actions of shape {given.shape}: expected ({self.num_envs},)")
        kind = given.dtype.kind
        if kind not in "biuf":
            raise ValueError(
                f"actions of type {given.dtype}: expected whole numbers from 0 to {self.layout.num_actions - 1}"
            )
        whole = np.ascontiguousarray(given, np.int64)
        if kind == "f" and (whole != given).any():
            raise self._wrong_action(given)
        return whole

    def _wrong_action(self, actions: Any) -> ValueError:
        """Names the first of numbers for every slot that is no action."""
        given, size = np.asarray(actions), self.layout.num_actions
        slot = int(np.argmin((given >= 0) & (given < size) & (given == np.floor(given))))
        return ValueError(f"action {given[slot]} of slot {slot}: expected a whole number from 0 to {size - 1}")

    def render(self) -> tuple[Any, ...] | None:
        """The state of every slot: as text with render_mode="ansi", as a picture with "rgb_array"."""
        if self.render_mode is None:
            gym.logger.warn('render() does nothing without render_mode="ansi"')
            return None
        show = self.dynamics.describe if self.render_mode == "ansi" else self.dynamics.picture
        return tuple(show(slot) for slot in range(self.num_envs))

    def _told(
        self, observation: np.ndarray, mask: np.ndarray, vector: np.ndarray, totals: np.ndarray, tallies: np.ndarray
    ) -> tuple[Any, dict[str, Any]]:
        """Observations and infos, made of arrays that are not used again."""
        everyone = self._everyone
        info = {
            "action_mask": mask,
            "_action_mask": everyone,
            "reward_vector": vector,
            "_reward_vector": everyone,
            "totals": totals,
            "_totals": everyone,
        }
        for k, name in enumerate(self.dynamics.tallies):
            info[name], info[f"_{name}"] = tallies[:, k], everyone
        return {"observation": observation, "action_mask": mask.copy()} if self.mask_in_obs else observation, info

    def _group_size(self, size: Any, whole: bool) -> int:
        """`whole`: groups lie within these slots, which are not those of a wider vector environment."""
        if not isinstance(size, (int, np.integer)) or size < 1 or (whole and self.num_envs % size):
            raise ValueError(f"group={size!r}: expected a whole number that divides the {self.num_envs} slots")
        return int(size)

    def _root_rows(self, tasks: Any, count: int) -> np.ndarray:
        """Rows of root states, (count,), from state ids or row numbers."""
        given = np.broadcast_to(np.asarray(tasks), (count,))
        arrays = self.dynamics.arrays
        if given.dtype.kind in "US":
            found = [np.flatnonzero(arrays.state_ids == name) for name in given]
            rows = np.array([row[0] if len(row) else -1 for row in found])
        else:
            rows = given.astype(np.int64)
        inside = (rows >= 0) & (rows < len(arrays.root))
        wrong = np.flatnonzero(~(inside & arrays.root[np.where(inside, rows, 0)]))
        if len(wrong):
            raise ValueError(
                f"task={given[wrong[0]]!r}: expected the id or row of a root state of log {self.dynamics.log.name!r}"
            )
        return rows


class RoutingEnv(gym.Env, gym.utils.EzPickle):
    """One episode at a time: slot 0 of the vector face, or slot i with ``reset(options={"slot": i})``."""

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}
    vector_type: ClassVar[type[RoutingVectorEnv]]

    def __init__(self, *, mask_in_obs: bool = False, render_mode: str | None = None, **arguments: Any) -> None:
        gym.utils.EzPickle.__init__(self, mask_in_obs=mask_in_obs, render_mode=render_mode, **arguments)
        self.batch = self.vector_type(
            1, autoreset="disabled", mask_in_obs=mask_in_obs, render_mode=render_mode, **arguments
        )
        self.render_mode = render_mode
        self.observation_space = self.batch.single_observation_space
        self.action_space = self.batch.single_action_space
        self._num_actions = self.layout.num_actions

    @property
    def layout(self) -> Layout:
        """Names, slices and units of an observation, and the order of the actions."""
        return self.batch.layout

    @property
    def dynamics(self) -> Any:
        """The family's dynamics, a batch of one."""
        return self.batch.dynamics

    def action_masks(self) -> np.ndarray:
        """Legal actions, (num_actions,) bool; the name that maskable algorithms look for."""
        return self.dynamics.action_mask[0].astype(bool)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.batch.reset(seed=seed, options=options)
        dynamics = self.batch.dynamics
        observation, nothing = dynamics.observation[0].copy(), np.zeros(len(VECTOR_NAMES))
        return self._told(observation, nothing, dynamics.totals_vector[0].copy(), dynamics.tally[0].copy())

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if isinstance(action, (int, np.integer)) and 0 <= action < self._num_actions:
            whole = np.array([action], np.int64)
        else:
            whole = self.batch._whole([action])
        shown = self.batch.dynamics.step(whole)
        if shown is None:
            raise self.batch._wrong_action([action])
        observation, info = self._told(shown.observation[0], shown.vector[0], shown.totals[0], shown.tallies[0])
        return observation, shown.reward.item(), shown.terminated.item(), shown.truncated.item(), info

    def _told(
        self, observation: np.ndarray, vector: np.ndarray, totals: np.ndarray, tallies: np.ndarray
    ) -> tuple[Any, dict[str, Any]]:
        """Observation and info, made of arrays that are not used again."""
        dynamics = self.batch.dynamics
        mask = dynamics.action_mask[0].copy()
        info = {"action_mask": mask, "reward_vector": vector, "totals": totals}
        for k, name in enumerate(dynamics.tallies):
            info[name] = tallies[k]
        return {"observation": observation, "action_mask": mask.copy()} if self.batch.mask_in_obs else observation, info

    def render(self) -> Any:
        """The episode so far: as text with render_mode="ansi", as a picture with "rgb_array"."""
        frames = self.batch.render()
        return None if frames is None else frames[0]


def _only(rows: np.ndarray, which: np.ndarray) -> np.ndarray:
    """`rows` with zeros in place of all but `which`."""
    kept = np.zeros_like(rows)
    kept[which] = rows[which]
    return kept
