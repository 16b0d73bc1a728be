"""What replaying a log has in common across families: slots, keyed draws, terms, rewards, budgets.

A `ReplayDynamics` holds N episodes as arrays and moves them all at once. The scalar face is a batch of one; there
is no second implementation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from rlroute.draws import Stream, integers, permuted_index
from rlroute.envs.arguments import ReplayArguments
from rlroute.envs.observing import text_size
from rlroute.envs.terms import Range, Terms, ends
from rlroute.features import SPLITS, full_text_features, log_features
from rlroute.layout import Layout
from rlroute.log import load_log
from rlroute.pool import Pool
from rlroute.rewards import COST_USD, INVALID_ACTION_REWARD, LATENCY_S, QUALITY, Totals, make_reward

# A charge may exceed its reserve by this share: sums and products of prices round. Below what counts as a violation.
RESERVE_ROUNDING = 1e-10


@dataclass
class Transition:
    """What one step did to N episodes, each array of shape (num_envs,) but `vector`."""

    vector: np.ndarray  # (num_envs, 4), see rlroute.rewards
    reward: np.ndarray
    terminated: np.ndarray  # bool
    truncated: np.ndarray  # bool


class ReplayDynamics(ABC):
    """N episodes over one log. A family adds what an action does, what is observed and what is masked."""

    family: ClassVar[str]
    arguments_type: ClassVar[type[ReplayArguments]]
    layout: Layout

    def __init__(self, arguments: ReplayArguments, num_envs: int) -> None:
        self.arguments = arguments
        self.num_envs = num_envs
        self.log = load_log(arguments.log)
        self.arrays = self.log.arrays
        self.split = self.log.splits(arguments.split_salt)
        self.roots = np.flatnonzero(self.arrays.root & (self.split == SPLITS.index(arguments.split)))
        self._refuse_unusable_log()  # before anything is fitted
        self.features = log_features(self.log, arguments.featuriser, arguments.split_salt)
        self.pool = Pool.from_log(self.arrays, self.features)
        self.prior, self.text = self.features.prior, self.features.text
        if arguments.budget_usd is not None:
            self._refuse_unusable_budget(arguments.budget_usd)
        self.reward = make_reward(
            arguments.reward,
            self.features.reference,
            metric=arguments.reward_metric,
            window=arguments.reward_window,
        )
        self.c_ref, self.l_ref = self.features.reference.cost_usd, self.features.reference.latency_s

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

    @cached_property
    def text_size(self) -> int:
        """Text components that an observation carries."""
        return text_size(self.layout)

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

    @property
    @abstractmethod
    def calls(self) -> np.ndarray:
        """Calls made in each episode so far, (num_envs,)."""

    @property
    def expensive_calls(self) -> np.ndarray:
        """Of these, calls that `budget_calls` counts, (num_envs,)."""
        return np.zeros(self.num_envs, np.int64)

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

    def draw(self, which: np.ndarray, choice: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Response rows: attempt number `position` of `choice` in each slot's state, in the episode's own order."""
        cell = self.state[which].astype(np.int64) * self.pool.size + choice
        first = self.arrays.cell[cell]
        size = self.arrays.cell[cell + 1] - first
        unit = self.slot[which] if self.arguments.group_noise == "own" else self.slot[which] // self.group_size
        order = permuted_index(
            self.key,
            size,
            np.minimum(position, size - 1),
            unit,
            self.episode[which],
            self.state[which],
            choice,
            np.int64(Stream.ATTEMPT),
        )
        return first + order

    def drawn_rows(self, tasks: np.ndarray, slot: np.ndarray, episode: np.ndarray) -> np.ndarray:
        """What `draw` will give in whole episodes, (num_states, num_choices, max_attempts): for ceilings alone.

        `slot` and `episode` say where each of `tasks` is played, (M,); no state is to be reached from two of them.
        Element (s, c, k) is the response row of the k-th call of choice c in state s; −1 where there is none, or no
        task leads to s.
        """
        arrays, num_choices = self.arrays, self.pool.size
        most = int(arrays.num_attempts.max())
        rows = np.full((arrays.num_states, num_choices, most), -1, np.int64)
        place = self._reached_from(tasks)
        states = np.flatnonzero(place >= 0)
        for choice in range(num_choices):
            first, size = arrays.cell[states * num_choices + choice], arrays.num_attempts[states, choice]
            for k in range(most):
                known = np.flatnonzero(size > k)
                task = place[states[known]]
                rows[states[known], choice, k] = first[known] + permuted_index(
                    self.key,
                    size[known].astype(np.int64),
                    np.full(len(known), k),
                    slot[task],
                    episode[task],
                    states[known],
                    np.full(len(known), choice),
                    np.int64(Stream.ATTEMPT),
                )
        return rows

    def _reached_from(self, tasks: np.ndarray) -> np.ndarray:
        """Position in `tasks` of the one that leads to each state, (num_states,); −1 where none does."""
        arrays = self.arrays
        place = np.full(arrays.num_states, -1)
        place[tasks] = np.arange(len(tasks))
        row_state = arrays.row_cell // arrays.num_choices
        leads = np.flatnonzero(arrays.next_state >= 0)
        thinks = np.flatnonzero(arrays.think_state >= 0)
        before = np.concatenate([row_state[leads], thinks])
        after = np.concatenate([arrays.next_state[leads], arrays.think_state[thinks]])
        for step in np.unique(arrays.step[before]):  # steps rise along both: a state is placed before it passes it on
            edges = np.flatnonzero((arrays.step[before] == step) & (place[before] >= 0))
            place[after[edges]] = place[before[edges]]
        return place

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
        reward = self.reward(vector, self.totals, terminated, self.w_cost, self.w_latency)
        reward = np.where(self.active & ~legal & ~stuck, INVALID_ACTION_REWARD, reward)
        self.active &= ~(terminated | truncated)
        return Transition(vector, reward, terminated, truncated)

    def _account(self, which: np.ndarray, vector: np.ndarray) -> None:
        self.totals.quality[which] += vector[:, QUALITY]
        self.totals.cost_usd[which] += vector[:, COST_USD]
        self.totals.latency_s[which] += vector[:, LATENCY_S]
        self.usd_left[which] -= vector[:, COST_USD]

    @property
    def only_cost_counts(self) -> bool:
        """Whether episodes are worth quality − w_c · cost / c_ref and nothing cuts them short, as ceilings assume."""
        arguments = self.arguments
        return (
            arguments.reward == "linear"
            and ends(arguments.latency_preference) == (0.0, 0.0)
            and arguments.budget_usd is None
            and self.max_episode_steps >= self.default_max_episode_steps
        )

    def recorded(self, state: np.ndarray) -> np.ndarray:
        """Attempts recorded for each choice, (N, num_choices)."""
        return self.arrays.num_attempts[state]

    def affordable(self, prompt_tokens: np.ndarray) -> np.ndarray:
        """Choices whose reserve the budget covers, (num_envs, num_choices); everything where there is no cap."""
        if self.arguments.budget_usd is None:
            return np.ones(prompt_tokens.shape, bool)
        return self.pool.reserve_usd(prompt_tokens) <= self.usd_left[:, None]

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

    # -- the environment as a policy file and references see it --------------------------------------------------

    def policy_card(self) -> dict[str, Any]:
        """What a policy trained here must remember in order to act elsewhere."""
        return {
            "family": self.family,
            "choices": self.pool.to_dict(),
            "layout": self.layout.to_dict(),
            "featuriser": self.features.model.featuriser,
            "arguments": self.arguments.to_dict(),
            "log": {"name": self.log.name, "content_hash": self.log.content_hash},
            "reference": vars(self.features.reference).copy(),
            "constants": {
                "num_extra": self.arrays.extra.shape[1],
                "max_attempts": int(self.arrays.num_attempts.max()),
                **self.constants(),
            },
            "extra_names": list(self.arrays.extra_names),
        }

    def constants(self) -> dict[str, float]:
        """Numbers of the training environment that an observation depends on, beside those of the pool."""
        return {}

    def policy_tensors(self) -> dict[str, np.ndarray]:
        """Arrays that turn a live text into the features the policy was trained on."""
        return {name: np.asarray(tensor) for name, tensor in self.features.model.tensors().items()}

    def full_text_features(self) -> np.ndarray:
        """Unreduced text features of every state, (num_states, num_text_features), for baselines."""
        return full_text_features(self.log, self.arguments.featuriser)

    def _refuse_unusable_log(self) -> None:
        """Faults that show before anything is fitted; a family adds its own."""
        arguments = self.arguments
        if not len(self.roots):
            counts = {name: int((self.arrays.root & (self.split == i)).sum()) for i, name in enumerate(SPLITS)}
            raise ValueError(
                f"split={arguments.split!r} of log {self.log.name!r} is empty: root states by split are {counts}"
            )
        if not self.arrays.coverage_full and arguments.missing == "error":
            raise ValueError(
                f"log {self.log.name!r} is partial: some choices have no recorded response in some states; "
                "expected missing='mask', which masks them"
            )

    def largest_charges(self) -> np.ndarray:
        """The most that an episode may be charged for each response, (num_responses,) USD."""
        return np.asarray(self.arrays.cost_usd)

    def _refuse_unusable_budget(self, budget_usd: Range) -> None:
        """A cap in USD holds only where every reserve is known and covers whatever may be charged."""
        unknown = self.pool.without_limit()
        if unknown:
            raise ValueError(
                f"budget_usd needs max_completion_tokens and prices of every choice, unknown for: {', '.join(unknown)}"
            )
        arrays = self.arrays
        uncounted = (arrays.prompt_tokens_of < 0) & (arrays.num_attempts > 0) & (self.pool.input_usd > 0)
        if uncounted.any():
            raise ValueError(
                "budget_usd needs prompt tokens where they have a price, unknown for: "
                f"{', '.join(np.array(self.pool.names)[uncounted.any(axis=0)])}"
            )
        reserve = self.pool.reserve_usd(arrays.prompt_tokens_of)
        charge, cell = self.largest_charges(), arrays.row_cell
        excess = charge - reserve.reshape(-1)[cell] * (1 + RESERVE_ROUNDING)
        beyond = np.flatnonzero(excess > 0)
        if len(beyond):
            worst = int(beyond[excess[beyond].argmax()])
            state, choice = divmod(int(cell[worst]), self.pool.size)
            others = f", and {len(beyond) - 1} more" if len(beyond) > 1 else ""
            raise ValueError(
                f"budget_usd={budget_usd!r} could be exceeded: a response of {self.pool.names[choice]!r} in state "
                f"{str(arrays.state_ids[state])!r} costs {charge[worst]:.6g} USD{others}; expected at most its reserve "
                f"of {reserve[state, choice]:.6g} USD, input price × prompt tokens + output price × "
                "max_completion_tokens"
            )
        reserve = np.where(self.recorded(self.roots) > 0, reserve[self.roots], np.inf)
        cheapest = float(reserve.min())
        if ends(budget_usd)[0] < cheapest:
            name = self.pool.names[int(reserve.min(axis=0).argmin())]
            raise ValueError(
                f"budget_usd={budget_usd!r} is below the cheapest step: "
                f"expected at least {cheapest:.3g} USD, the reserve of {name!r}"
            )
