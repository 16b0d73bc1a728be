"""N episodes as an array of records, and what a step of any family does to one of them. Kernels: see `rlroute.jit`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from rlroute.draws import Stream, fold, to_unit
from rlroute.envs.terms import TermBounds, draw_terms
from rlroute.jit import kernel, records
from rlroute.rewards import INVALID_ACTION_REWARD, VECTOR_NAMES

TASK = np.uint64(Stream.TASK)
FLOAT32, FLOAT64, BOOL, INT64 = (np.dtype(name) for name in ("f4", "f8", "?", "i8"))  # looked up once, not every step

# What a slot of any family holds.
SLOT: dict[str, Any] = {
    "slot": np.int64,  # its counter, for draws
    "episode": np.int32,  # counter of the episode in its slot
    "noise": np.uint64,  # hash that hidden draws of the episode start from
    "task": np.int32,  # root state of the episode
    "state": np.int32,
    "row": np.int32,  # of the response drawn in this step
    "entered": np.int32,  # the state that this step leads to, −1 none
    "elapsed_steps": np.int32,
    "active": np.bool_,  # under way
    "finished": np.bool_,  # ended in the latest step
    "terminated": np.bool_,  # likewise
    "truncated": np.bool_,  # likewise
    # The terms of the episode, see rlroute.envs.terms, and what is left of its budget.
    "cost_weight": np.float64,
    "latency_weight": np.float64,
    "budget_usd": np.float64,
    "budget_calls": np.float64,
    "usd_left": np.float64,
    # The latest step, see rlroute.rewards.
    "reward": np.float64,
    "vector": (np.float64, (len(VECTOR_NAMES),)),
    # Sums over the episode so far, see rlroute.rewards.Totals.
    **dict.fromkeys(VECTOR_NAMES, np.float64),
    "output_cost_usd": np.float64,
}


class Rules(NamedTuple):
    """What holds for all episodes until the next reset; `bool`s for good, for these may be compiled in."""

    key: np.uint64  # of the run
    group_size: np.int64  # consecutive slots that share task and terms
    own_noise: bool  # whether the slots of a group draw hidden things for themselves
    restart: bool  # whether a finished slot begins anew in the next step
    max_episode_steps: np.int64
    bounds: TermBounds


class Shown(NamedTuple):
    """What a step shows: arrays of its own, which no later step changes."""

    observation: np.ndarray  # (num_envs, layout.size) float32
    reward: np.ndarray  # (num_envs,)
    vector: np.ndarray  # (num_envs, 4), see rlroute.rewards
    totals: np.ndarray  # (num_envs, 4), likewise
    terminated: np.ndarray  # (num_envs,) bool
    truncated: np.ndarray  # (num_envs,) bool
    tallies: np.ndarray  # (num_envs, T) int64, what the family counts


def nothing_shown(num_envs: int, num_features: int, num_tallies: int) -> Shown:
    """Arrays for a step to fill."""
    vector = (num_envs, len(VECTOR_NAMES))
    return Shown(
        np.empty((num_envs, num_features), FLOAT32),
        np.empty(num_envs, FLOAT64),
        np.empty(vector, FLOAT64),
        np.empty(vector, FLOAT64),
        np.empty(num_envs, BOOL),
        np.empty(num_envs, BOOL),
        np.empty((num_envs, num_tallies), INT64),
    )


def idle_slots(num_envs: int, more: dict[str, Any]) -> np.ndarray:
    """Slots (num_envs,) before their first episode, with `more` fields of the family."""
    slots = records(num_envs, {**SLOT, **more})
    slots["slot"], slots["episode"] = np.arange(num_envs), -1
    slots["budget_usd"] = slots["budget_calls"] = slots["usd_left"] = np.inf
    return slots


def side_by_side(slots: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """A view of fields of a slot that lie side by side, (num_envs, names)."""
    first = slots[names[0] if names else "slot"]
    return np.lib.stride_tricks.as_strided(first, (len(slots), len(names)), (*first.strides, first.itemsize))


@kernel
def are_actions(action: np.ndarray, num_actions: int) -> bool:
    """Whether all of `action` (num_envs,) are among the actions."""
    beyond = False
    for i in range(len(action)):  # to the end, since that is quicker than to look after each
        beyond |= (action[i] < 0) | (action[i] >= num_actions)
    return not beyond


@kernel
def begin_episode(rules: Rules, slots: np.ndarray, roots: np.ndarray, i: int, task: int) -> None:
    """Start the next episode of slot `i` at the root state `task`; −1: one that is drawn from `roots`."""
    slots[i].episode += 1
    own = fold(rules.key, np.uint64(slots[i].slot))
    shared = fold(rules.key, np.uint64(slots[i].slot // rules.group_size))
    seed = fold(shared, np.uint64(slots[i].episode))
    slots[i].noise = fold(own, np.uint64(slots[i].episode)) if rules.own_noise else seed
    if task < 0:
        task = roots[math.floor(to_unit(fold(seed, TASK)) * len(roots))]
    slots[i].task = slots[i].state = task
    draw_terms(rules.bounds, slots, i, seed)
    slots[i].usd_left = slots[i].budget_usd
    slots[i].quality = slots[i].cost_usd = slots[i].latency_s = slots[i].format = slots[i].output_cost_usd = 0.0
    slots[i].elapsed_steps = 0
    slots[i].active = True
    slots[i].finished = False


@kernel
def begin_step(slots: np.ndarray, i: int) -> None:
    """Nothing has happened to slot `i` in this step yet."""
    for k in range(len(VECTOR_NAMES)):
        slots[i].vector[k] = 0.0
    slots[i].reward = 0.0
    slots[i].terminated = slots[i].truncated = slots[i].finished = False
    slots[i].elapsed_steps += slots[i].active


@kernel
def account(slots: np.ndarray, i: int) -> None:
    """Add the reward vector of this step to the totals, and take its cost off the budget."""
    slots[i].quality += slots[i].vector[0]
    slots[i].cost_usd += slots[i].vector[1]
    slots[i].latency_s += slots[i].vector[2]
    slots[i].usd_left -= slots[i].vector[1]


@kernel
def end_step(rules: Rules, slots: np.ndarray, i: int, ended: bool) -> None:
    """Say how slot `i` stands after this step, in which it `ended` or not."""
    slots[i].terminated = ended
    slots[i].truncated = not ended and slots[i].elapsed_steps >= rules.max_episode_steps
    slots[i].finished = slots[i].terminated or slots[i].truncated
    slots[i].active = not slots[i].finished


@kernel
def show(slots: np.ndarray, tallies: np.ndarray, shown: Shown, i: int) -> None:
    """Copy what slot `i` has come to, while its memory is at hand: all but its observation."""
    me = slots[i]
    shown.reward[i], shown.terminated[i], shown.truncated[i] = me.reward, me.terminated, me.truncated
    for k in range(len(VECTOR_NAMES)):
        shown.vector[i, k] = me.vector[k]
    shown.totals[i, 0], shown.totals[i, 1] = me.quality, me.cost_usd
    shown.totals[i, 2], shown.totals[i, 3] = me.latency_s, me.format
    for k in range(tallies.shape[1]):
        shown.tallies[i, k] = tallies[i, k]


@kernel
def show_seen(seen: np.ndarray, shown: Shown, i: int) -> None:
    """Copy what slot `i` observes, likewise, in families that keep it."""
    for k in range(seen.shape[1]):
        shown.observation[i, k] = seen[i, k]


@kernel
def refuse(slots: np.ndarray, i: int) -> None:
    """A masked action changes nothing and costs a point."""
    slots[i].reward = INVALID_ACTION_REWARD


@kernel
def is_stuck(mask: np.ndarray, i: int) -> bool:
    """Whether nothing is legal in row `i`: nothing is affordable, or nothing is left to call. A failure."""
    for action in range(mask.shape[1]):  # noqa: SIM110 - compiled code has no generators
        if mask[i, action]:
            return False
    return True
