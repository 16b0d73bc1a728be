"""The one loop that plays a policy on a list of tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rlroute.policies import Policy


@dataclass(frozen=True)
class Episodes:
    """What happened, one row an episode, in the order of (task, repetition); each array of shape (num_episodes,)."""

    task: np.ndarray  # row of the root state
    group: np.ndarray  # tasks of one group are not independent
    quality: np.ndarray
    cost_usd: np.ndarray
    latency_s: np.ndarray
    calls: np.ndarray
    expensive_calls: np.ndarray
    reward: np.ndarray  # undiscounted return
    cost_weight: np.ndarray
    budget_usd: np.ndarray  # infinite without a cap
    budget_calls: np.ndarray
    truncated: np.ndarray  # bool
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)  # what the family tells beside, see `tallies`

    @property
    def success(self) -> np.ndarray:
        """Bool: recorded quality of at least 0.999."""
        return self.quality >= 0.999

    @property
    def overspend_usd(self) -> np.ndarray:
        """What was spent beyond the cap in USD."""
        return np.maximum(self.cost_usd - self.budget_usd, 0.0)

    @property
    def violation(self) -> np.ndarray:
        """Bool: a cap was exceeded; a billionth of the cap is rounding."""
        return (self.cost_usd > self.budget_usd * (1 + 1e-9)) | (self.expensive_calls > self.budget_calls)

    def __len__(self) -> int:
        return len(self.task)


def rollout(
    env: Any,
    policy: Policy,
    tasks: np.ndarray,
    episodes: int = 1,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Episodes:
    """Play every task `episodes` times. `env` is a native vector environment with ``autoreset="disabled"``.

    Which attempts an episode hears depends on its place in the list and on `seed`, not on the policy, so policies
    played with the same arguments are compared on common random numbers. `progress` is called with the number of
    episodes done.
    """
    if len(tasks) == 0:
        raise ValueError("no tasks to play: expected at least one root state")
    dynamics = env.dynamics
    queue = np.repeat(np.asarray(tasks, np.int64), episodes)
    policy.begin(env)
    parts: list[Episodes] = []
    for start in range(0, len(queue), env.num_envs):
        chunk = queue[start : start + env.num_envs]
        padded = np.concatenate([chunk, np.full(env.num_envs - len(chunk), chunk[-1])])
        observation, info = env.reset(seed=seed if start == 0 else None, options={"task": padded})
        returns = np.zeros(env.num_envs)
        truncated = np.zeros(env.num_envs, bool)
        while dynamics.active.any():
            flat = observation["observation"] if isinstance(observation, dict) else observation
            action = policy.act(flat, info["action_mask"])
            observation, reward, _, cut, info = env.step(action)
            returns += reward
            truncated |= cut
        n = len(chunk)
        parts.append(finished(dynamics, returns, truncated, n))
        if progress is not None:
            progress(n)
    columns = {f.name: [getattr(part, f.name) for part in parts] for f in fields(Episodes) if f.name != "extra"}
    extra = {name: np.concatenate([part.extra[name] for part in parts]) for name in parts[0].extra}
    return Episodes(**{name: np.concatenate(arrays) for name, arrays in columns.items()}, extra=extra)


def finished(dynamics: Any, returns: np.ndarray, truncated: np.ndarray, count: int) -> Episodes:
    """What the episodes of the first `count` slots came to, all of them over."""
    task = dynamics.task[:count].astype(np.int64)
    return Episodes(
        task=task,
        group=dynamics.arrays.group[task],
        quality=dynamics.totals.quality[:count].copy(),
        cost_usd=dynamics.totals.cost_usd[:count].copy(),
        latency_s=dynamics.totals.latency_s[:count].copy(),
        calls=dynamics.calls[:count].copy(),
        expensive_calls=dynamics.expensive_calls[:count].copy(),
        reward=returns[:count],
        cost_weight=dynamics.w_cost[:count].copy(),
        budget_usd=dynamics.terms.budget_usd[:count].copy(),
        budget_calls=dynamics.terms.budget_calls[:count].copy(),
        truncated=truncated[:count],
        extra={name: dynamics.tally[:count, k].copy() for k, name in enumerate(dynamics.tallies)},
    )


def places(env: Any, num_tasks: int, episodes: int, repetition: int) -> tuple[np.ndarray, np.ndarray]:
    """(slot, episode) at which `rollout` plays each task for the given time, each (num_tasks,)."""
    at = np.arange(num_tasks) * episodes + repetition
    return at % env.num_envs, at // env.num_envs
