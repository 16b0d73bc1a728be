"""What the episodes of all families have in common: tasks, runs, terms, accounts and time limits.

An `EpisodeDynamics` holds N episodes as arrays and moves them all at once, by the kernels of its family. The scalar
face is a batch of one; there is no second implementation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from rlroute.envs.arguments import EpisodeArguments
from rlroute.envs.slots import Rules, Shown, idle_slots, nothing_shown, side_by_side
from rlroute.envs.terms import Terms
from rlroute.jit import bind
from rlroute.layout import Layout
from rlroute.rewards import VECTOR_NAMES, Totals
from rlroute.splits import SPLITS

MANY = 64  # and more episodes at once, of runs without end, are worth a step compiled for their sizes and rules


class EpisodeDynamics(ABC):
    """N episodes over the tasks of one log or suite. A family adds its kernels and what they read and write."""

    family: ClassVar[str]
    arguments_type: ClassVar[type[EpisodeArguments]]
    enter_all: ClassVar[Callable[..., None]]  # kernel (rules, game, which (M,), tasks (M,)): starts episodes
    # Kernel (rules, game, action (num_envs,), shown): moves all slots, or none and returns False for what is no action.
    step_all: ClassVar[Callable[..., bool]]
    slot_fields: ClassVar[dict[str, Any]]  # what a slot holds beside `slots.SLOT`
    tallies: ClassVar[tuple[str, ...]] = ()  # of these, whole numbers side by side that `info` tells
    arguments: EpisodeArguments
    layout: Layout
    game: Any  # the family's NamedTuple of arrays; has mask, and seen unless the family makes observations anew

    def __init__(self, arguments: EpisodeArguments, num_envs: int, log: Any) -> None:
        self.arguments = arguments
        self.num_envs = num_envs
        self.log = log
        self.arrays = log.arrays
        self.split = log.splits(arguments.split_salt)
        self.roots = np.flatnonzero(self.arrays.root & (self.split == SPLITS.index(arguments.split)))
        self._refuse_unusable_log()  # before anything is fitted
        self.slots = idle_slots(num_envs, self.slot_fields)
        self.terms = Terms(*(self.slots[name] for name in Terms._fields))
        self.totals = Totals(*(self.slots[name] for name in Totals._fields))
        self.totals_vector = side_by_side(self.slots, VECTOR_NAMES)  # (num_envs, 4)
        self.tally = side_by_side(self.slots, self.tallies)  # (num_envs, tallies)
        self.key = np.uint64(0)
        self.group_size = 1
        self.restarts = False  # whether a finished slot begins anew in the next step
        self.endless = False  # whether a run goes on when all episodes have ended
        self._rules: Rules | None = None
        self._kernels: tuple[Callable[..., None], Callable[..., bool]] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickle says how these were made, as Gymnasium's EzPickle does for environments; episodes begin anew."""
        return type(self), (self.arguments, self.num_envs)

    # -- what a family provides ---------------------------------------------------------------------------------

    @property
    @abstractmethod
    def default_max_episode_steps(self) -> int:
        """Steps that are enough for any episode without invalid actions."""

    @property
    @abstractmethod
    def calls(self) -> np.ndarray:
        """Calls made in each episode so far, (num_envs,)."""

    @property
    def expensive_calls(self) -> np.ndarray:
        """Of these, calls that `budget_calls` counts, (num_envs,)."""
        return np.zeros(self.num_envs, np.int64)

    # -- what policies may read ---------------------------------------------------------------------------------

    @property
    def slot(self) -> np.ndarray:
        return np.asarray(self.slots["slot"])

    @property
    def episode(self) -> np.ndarray:
        return np.asarray(self.slots["episode"])

    @property
    def task(self) -> np.ndarray:
        """Root state of each episode, (num_envs,)."""
        return np.asarray(self.slots["task"])

    @property
    def state(self) -> np.ndarray:
        return np.asarray(self.slots["state"])

    @property
    def active(self) -> np.ndarray:
        return np.asarray(self.slots["active"])

    @property
    def elapsed_steps(self) -> np.ndarray:
        return np.asarray(self.slots["elapsed_steps"])

    @property
    def usd_left(self) -> np.ndarray:
        return np.asarray(self.slots["usd_left"])

    @property
    def w_cost(self) -> np.ndarray:
        return self.terms.cost_weight

    @property
    def w_latency(self) -> np.ndarray:
        return self.terms.latency_weight

    @property
    def action_mask(self) -> np.ndarray:
        """Legal actions now, (num_envs, num_actions) int8."""
        return np.asarray(self.game.mask)

    @property
    def observation(self) -> np.ndarray:
        """What policies see now, (num_envs, layout.size) float32; perhaps overwritten by the next step."""
        return np.asarray(self.game.seen)

    def observe(self, which: np.ndarray) -> np.ndarray:
        """What policies see now of the slots `which` (M,) int, (M, layout.size) float32: an array of its own."""
        return np.asarray(self.game.seen[which])

    # -- episodes -----------------------------------------------------------------------------------------------

    @property
    def max_episode_steps(self) -> int:
        return self.arguments.max_episode_steps or self.default_max_episode_steps

    def start_run(self, key: np.uint64) -> None:
        """From here on draws depend on `key`; slots and their episodes are counted from 0."""
        self.key, self._rules = np.uint64(key), None
        self.slots["episode"], self.slots["slot"] = -1, np.arange(self.num_envs)

    def share(self, group_size: int) -> None:
        """From here on so many consecutive slots share task and terms."""
        self.group_size, self._rules = group_size, None

    def run(self, restarts: bool, endless: bool) -> None:
        """From here on finished slots begin anew in the next step or not; `endless` if steps may well be millions."""
        self.restarts, self.endless, self._rules, self._kernels = restarts, endless, None, None

    @property
    def rules(self) -> Rules:
        """What holds for all episodes until the next reset."""
        if self._rules is None:
            own, bounds = self.arguments.group_noise == "own", self.arguments.ranges.bounds
            # What NumPy's numbers say is not compiled in: it varies, or is not worth another compilation.
            group_size, most_steps = np.int64(self.group_size), np.int64(self.max_episode_steps)
            self._rules = Rules(self.key, group_size, own, self.restarts, most_steps, bounds)
        return self._rules

    def begin(self, which: np.ndarray, tasks: np.ndarray | None = None) -> None:
        """Start the next episode of the slots `which` (M,); `tasks` (M,) names their root states, by default drawn."""
        given = np.full(len(which), -1) if tasks is None else np.asarray(tasks, np.int64).copy()
        self._bound()[0](self.rules, self.game, np.array(which, np.int64), given)

    def step(self, action: np.ndarray) -> Shown | None:
        """Move every active slot by its action, (num_envs,) int64; idle slots stay as they are.

        None, and nothing has moved, where some number is no action.
        """
        shown = nothing_shown(self.num_envs, self.layout.size, len(self.tallies))
        return shown if self._bound()[1](self.rules, self.game, action, shown) else None

    def _bound(self) -> tuple[Callable[..., None], Callable[..., bool]]:
        """The two kernels, ready to be called."""
        if self._kernels is None:
            numbers, shown = np.zeros(1, np.int64), nothing_shown(1, self.layout.size, len(self.tallies))
            kind, constants = type(self), self.endless and self.num_envs >= MANY
            self._kernels = (
                bind(kind.enter_all, self.rules, self.game, numbers, numbers),
                bind(kind.step_all, self.rules, self.game, numbers, shown, constants=constants),
            )
        return self._kernels

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
