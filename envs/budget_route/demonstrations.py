"""What BoSFT imitates: always-small on Easy and Intractable tasks ("fail cheaply"), the expert on Hard ones.

BoSFT is the supervised start of BoPO (arXiv 2602.21227). The expert of a Hard task is its cheapest recorded success
among the boundary runs and the stratified rollouts between them. `[ours]` Labels are made for every cap of a range,
with the cap in the observation, and beside it a preference drawn per run: with λ < 1 + β a success is worth more than
any cost, so the labels do not depend on λ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlroute.envs.budget_route.anchors import Anchors, Kind
from rlroute.envs.budget_route.boundary import NUM_SLOTS, runs_env


@dataclass(frozen=True)
class Labels:
    """One row a decision: what was seen, what was legal, what to do."""

    observation: NDArray[np.float32]  # (rows, D)
    action_mask: NDArray[np.int8]  # (rows, A)
    action: NDArray[np.int64]  # (rows,)


def labels(anchors: Anchors, env_arguments: Mapping[str, Any]) -> Labels:
    """The decisions of every task's demonstration under every finite cap, or under none where none is finite.

    Recorded runs are replayed draw by draw, so that observations are those of the very episode that succeeded;
    `env_arguments` are those that the runs were recorded with, and hold the preferences to observe.
    """
    runs = anchors.runs
    levels = range(max(1, len(runs.caps) - 1))  # the last cap is none
    parts = [_replay(anchors, level, env_arguments) for level in levels]
    observation, mask, action = (np.concatenate(x) for x in zip(*parts, strict=True))
    return Labels(observation, mask, action)


def demonstrated_run(anchors: Anchors, level: int) -> NDArray[np.int64]:
    """The run to imitate on every task (M,) under cap number `level`.

    `[ours]` Of the K runs of always-small, which do not depend on the cap, another one under every cap.
    """
    small = level % anchors.runs.arguments.boundary_runs
    return np.where(anchors.kind[level] == Kind.HARD, anchors.expert[level], small)


def _replay(anchors: Anchors, level: int, env_arguments: Mapping[str, Any]) -> tuple[NDArray[Any], ...]:
    """Observations, masks and actions of all tasks' demonstrations under one cap."""
    runs = anchors.runs
    run = demonstrated_run(anchors, level)
    positions = np.arange(len(runs.tasks))
    env = runs_env(env_arguments, min(NUM_SLOTS, len(positions)), float(runs.caps[level]))
    seen, masks, actions = [], [], []
    for start in range(0, len(positions), env.num_envs):
        task = np.minimum(np.arange(start, start + env.num_envs), len(positions) - 1)
        real = np.arange(start, start + env.num_envs) < len(positions)
        options = {"task": runs.tasks[task], "slot": runs.slots(task, run[task])}
        observation, info = env.reset(seed=runs.arguments.seed, options=options)
        for step in range(runs.actions.shape[-1]):
            action = runs.actions[level, task, run[task], step].astype(np.int64)
            acts = real & (action >= 0)
            if not acts.any():
                break
            seen.append(observation[acts])
            masks.append(info["action_mask"][acts])
            actions.append(action[acts])
            observation, _, _, _, info = env.step(np.maximum(action, 0))
    return np.concatenate(seen), np.concatenate(masks), np.concatenate(actions)
