"""The two boundary policies of a task and the rollouts between them, recorded once from the log (after BoPO).

BoPO (arXiv 2602.21227) runs always-small and always-large K = 5 times on every training task, and on tasks between
them N = 10 to 20 rollouts with P(large) = k/N, k = 1 … N. Under a cap of expensive calls always-large is First-Large.
Here all of them are one policy, large with a probability of its own in every run, played on the replay log under every
cap of a range and without a cap, and cached.

`[ours]` One run meets the same recorded responses under every cap, so caps are compared on common random numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlroute import draws
from rlroute.cache import atomic_folder, cache_root
from rlroute.envs.arguments import parse_arguments
from rlroute.envs.budget_route.dynamics import BudgetRouteArguments
from rlroute.envs.budget_route.env import BudgetRouteVectorEnv
from rlroute.envs.budget_route.references import StepPolicy, small_and_large
from rlroute.envs.terms import ends

FORMAT = 1
NUM_SLOTS = 2048  # episodes recorded side by side


@dataclass(frozen=True)
class RunArguments:
    """How often the boundary policies and those between them are run."""

    boundary_runs: int = 5  # K, runs of always-small, and as many of always-large
    rollouts: int = 12  # N, runs with P(large) = k/N
    seed: int = 0  # of the responses they hear and of their coins

    def __post_init__(self) -> None:
        for name in ("boundary_runs", "rollouts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected at least 1")

    @property
    def total(self) -> int:
        """R = 2K + N."""
        return 2 * self.boundary_runs + self.rollouts

    @property
    def p_large(self) -> NDArray[np.float64]:
        """P(large) of every run (R,): K times 0, K times 1, then k/N."""
        k, n = self.boundary_runs, self.rollouts
        return np.concatenate([np.zeros(k), np.ones(k), np.arange(1, n + 1) / n])


@dataclass(frozen=True, eq=False)
class BoundaryRuns:
    """What the runs did: L caps × M tasks × R runs of at most T steps."""

    caps: NDArray[np.float64]  # (L,) rising; the last is infinite: no cap
    tasks: NDArray[np.int64]  # (M,) rising rows of root states
    success: NDArray[np.bool_]  # (L, M, R)
    calls: NDArray[np.int16]  # (L, M, R) expensive calls
    cost_usd: NDArray[np.float64]  # (L, M, R)
    actions: NDArray[np.int8]  # (L, M, R, T), −1 after the end
    arguments: RunArguments

    @property
    def small(self) -> slice:
        """The runs of always-small, along R."""
        return slice(0, self.arguments.boundary_runs)

    @property
    def large(self) -> slice:
        """The runs of always-large, along R."""
        return slice(self.arguments.boundary_runs, 2 * self.arguments.boundary_runs)

    def slots(self, task: NDArray[Any], run: NDArray[Any]) -> NDArray[np.int64]:
        """The slot under which run `run` of the task at position `task` draws, for replaying it."""
        return np.asarray(task, np.int64) * self.arguments.total + run


def boundary_runs(env_arguments: Mapping[str, Any], arguments: RunArguments | None = None) -> BoundaryRuns:
    """The runs on all tasks of a split, from the cache where they have been recorded before.

    `env_arguments` are those of `rlroute/BudgetRoute-v0`: of `budget_calls`, a number or a range, every cap is run, and
    no cap beside; `preference` changes nothing here. A cap in USD is refused: the anchors know caps of calls alone.
    """
    arguments = arguments or RunArguments()
    parsed = parse_arguments(BudgetRouteArguments, dict(env_arguments))
    if parsed.budget_usd is not None:
        raise ValueError(f"budget_usd={parsed.budget_usd!r}: boundary runs know caps of calls alone, expected None")
    folder = _folder(env_arguments, arguments)
    if not folder.is_dir():
        runs = _record(env_arguments, arguments)
        with atomic_folder(folder) as partial:
            for name in _array_names():
                np.save(partial / f"{name}.npy", getattr(runs, name), allow_pickle=False)
    arrays = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in _array_names()}
    return BoundaryRuns(**arrays, arguments=arguments)


def runs_env(env_arguments: Mapping[str, Any], num_envs: int, cap: float, **changes: Any) -> BudgetRouteVectorEnv:
    """The environment of the runs under one cap (infinite: none), with idle slots after an end."""
    budget = int(cap) if np.isfinite(cap) else None
    given = {**env_arguments, "budget_calls": budget, "autoreset": "disabled", **changes}
    return BudgetRouteVectorEnv(num_envs, **given)


class PerRun(StepPolicy):
    """Large with the probability of the slot's run, at every step; repeatable."""

    name = "boundary policies and those between"

    def __init__(self, small: int, large: int, arguments: RunArguments) -> None:
        super().__init__(small, large)
        self.p_large, self.key = arguments.p_large, draws.key_from_seed(arguments.seed)

    def wants_large(self) -> NDArray[np.bool_]:
        d = self.dynamics
        coin = draws.uniform(self.key, draws.Stream.POLICY, d.slot, d.visits.sum(axis=1))
        return np.asarray(coin < self.p_large[d.slot % len(self.p_large)])


def _folder(env_arguments: Mapping[str, Any], arguments: RunArguments) -> Path:
    """Where runs are cached: by the log's content, and by all arguments that they depend on."""
    from rlroute.log import load_log

    parsed = parse_arguments(BudgetRouteArguments, dict(env_arguments))
    log = load_log(parsed.log)
    given = {**parsed.to_dict(), **asdict(arguments), "caps": _caps(parsed.budget_calls).tolist(), "format": FORMAT}
    for name in ("log", "preference", "latency_preference", "obs", "reward", "budget_calls"):  # change no run
        given.pop(name, None)
    digest = hashlib.sha256(json.dumps(given, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return cache_root() / "boundary" / f"{log.content_hash}-{digest}"


def _caps(budget_calls: Any) -> NDArray[np.float64]:
    """Every cap of a range, and infinity (L,)."""
    if budget_calls is None:
        return np.array([np.inf])
    low, high = ends(budget_calls)
    return np.append(np.arange(low, high + 1), np.inf)


def _record(env_arguments: Mapping[str, Any], arguments: RunArguments) -> BoundaryRuns:
    caps = _caps(parse_arguments(BudgetRouteArguments, dict(env_arguments)).budget_calls)
    tasks = np.asarray(runs_env(env_arguments, 1, np.inf).dynamics.roots, np.int64)
    num_envs = min(NUM_SLOTS, len(tasks) * arguments.total)
    parts = [_play(runs_env(env_arguments, num_envs, cap), arguments) for cap in caps]
    success, calls, cost_usd, actions = (np.stack(x) for x in zip(*parts, strict=True))
    longest = int((actions >= 0).sum(axis=-1).max())
    return BoundaryRuns(caps, tasks, success, calls, cost_usd, actions[..., :longest], arguments)


def _play(env: BudgetRouteVectorEnv, arguments: RunArguments) -> tuple[NDArray[Any], ...]:
    """Success, expensive calls and cost (M, R), and actions (M, R, T), of all runs under the cap of `env`."""
    dynamics = env.dynamics
    policy = PerRun(*small_and_large(dynamics), arguments)
    policy.begin(env)
    shape = (len(dynamics.roots), arguments.total)
    total = shape[0] * shape[1]
    success, calls, cost_usd = np.zeros(total, bool), np.zeros(total, np.int16), np.zeros(total)
    actions = np.full((total, dynamics.max_episode_steps), -1, np.int8)
    for start in range(0, total, env.num_envs):
        # The last chunk is padded with episodes that are not kept.
        slot = np.minimum(np.arange(start, start + env.num_envs), total - 1)
        kept = slice(start, min(start + env.num_envs, total))
        n = kept.stop - start
        options = {"task": dynamics.roots[slot // arguments.total], "slot": slot}
        observation, info = env.reset(seed=arguments.seed, options=options)
        step = 0
        while dynamics.active.any():
            active = dynamics.active.copy()
            action = policy.act(observation, info["action_mask"])
            actions[kept, step] = np.where(active, action, -1)[:n]
            observation, _, _, _, info = env.step(action)
            step += 1
        success[kept] = dynamics.totals.quality[:n] >= 0.999
        calls[kept] = dynamics.expensive_calls[:n]
        cost_usd[kept] = dynamics.totals.cost_usd[:n]
    return success.reshape(shape), calls.reshape(shape), cost_usd.reshape(shape), actions.reshape(*shape, -1)


def _array_names() -> list[str]:
    return [field.name for field in fields(BoundaryRuns) if field.name != "arguments"]
