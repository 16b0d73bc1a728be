"""What the supervised start imitates: reference policies played in the text environments, with a templated rationale.

- ThinkRoute: the learned sequential reference, mixed with an explorer that asks models at random and lets the
  checker decide. A start without a preference hardly rises, one without exploration has nothing to rise from.
- BudgetRoute: BoSFT's demonstrations, always-small or the cheapest recorded success (`rlroute.envs.budget_route`).
- EffortRoute: the labels of minimum sufficient effort (`rlroute.envs.effort_route.labels`).
- ToolGraph: the healing router.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from rlroute.envs.text import Transcript, demonstrate

Act = Callable[[Any], int]  # from a scalar numeric environment to the action to take there
GOOD = 0.5  # a verdict that an explorer is content with
EXPERT_SHARE = 0.5  # of ThinkRoute's demonstrations
MOST_CALLS = 3  # of an explorer


class Demonstration(NamedTuple):
    """One episode to show: who acts, from which reset, and why it says it does."""

    act: Act
    seed: int
    options: dict[str, Any]
    rationale: Callable[[Any, int], str]


def demonstrations(env_id: str, env_arguments: Mapping[str, Any], count: int, seed: int = 0) -> list[Transcript]:
    """`count` transcripts of a text environment, of tasks of its split one after another in random order."""
    env = gym.make(env_id, disable_env_checker=True, **env_arguments).unwrapped
    rng = np.random.default_rng(seed)
    shows = SHOWS[env.dynamics.family](env, dict(env_arguments), rng)
    return [demonstrate(env, d.act, seed=d.seed, options=d.options, rationale=d.rationale) for d in _take(shows, count)]


def _take(shows: Iterator[Demonstration], count: int) -> Iterator[Demonstration]:
    for _ in range(count):
        yield next(shows)


def _tasks(env: Any, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    """(task, seed) without end, every task once before any comes again."""
    roots = np.asarray(env.dynamics.roots)
    while True:
        for task in rng.permutation(roots):
            yield int(task), int(rng.integers(1 << 31))


def _acting(policy: Any) -> Act:
    """A batch policy as a function of a scalar environment."""
    met: list[Any] = []

    def act(numeric: Any) -> int:
        if not met or met[0] is not numeric:
            policy.begin(numeric)
            met[:] = [numeric]
        dynamics = numeric.dynamics
        return int(policy.act(dynamics.observation, dynamics.action_mask)[0])

    return act


# ----------------------------------------------------------------------------------------------- ThinkRoute


class Explorer:
    """Asks models in random order until the checker is content or a random number of calls is made."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def __call__(self, numeric: Any) -> int:
        dynamics, layout = numeric.dynamics, numeric.layout
        heard, mask = int(dynamics.num_heard[0]), dynamics.action_mask[0].astype(bool)
        if heard == 0:
            self.most = int(self.rng.integers(1, MOST_CALLS + 1))
            think = layout.action("think")
            if mask[think] and self.rng.random() < 0.5:
                return int(think)
        calls = [c for c in range(layout.num_choices) if mask[layout.action("call", c)] and not dynamics.count[0, c]]
        verdicts = np.nan_to_num(dynamics.verdict_seen[0, :heard], nan=-1.0)
        content = heard > 0 and verdicts.max() >= GOOD
        if calls and (heard == 0 or (not content and heard < self.most)):
            return int(layout.action("call", int(self.rng.choice(calls))))
        best = heard - 1 - int(verdicts[::-1].argmax())  # of equals the latest
        return int(layout.action("accept", int(dynamics.heard_choice[0, best])))


def _think_route(env: Any, arguments: dict[str, Any], rng: np.random.Generator) -> Iterator[Demonstration]:
    experts = [_acting(policy) for policy in _experts(env.dynamics)]
    explorer = Explorer(rng)
    for task, seed in _tasks(env, rng):
        expert = rng.random() < EXPERT_SHARE
        act = experts[int(rng.integers(len(experts)))] if expert else explorer
        yield Demonstration(act, seed, {"task": task}, _why_think)


_EXPERTS: dict[tuple[str, str], list[Any]] = {}  # fitting takes a while, and several runs of a process share a log


def _experts(dynamics: Any) -> list[Any]:
    """The learned sequential references of a log, fitted once."""
    from rlroute.envs.think_route.env import ThinkRouteEnv
    from rlroute.envs.think_route.references import references

    arguments = dynamics.arguments
    key = dynamics.log.content_hash, str(arguments)
    if key not in _EXPERTS:
        env = ThinkRouteEnv(**{field.name: getattr(arguments, field.name) for field in fields(arguments)})
        _EXPERTS[key] = references(env, thorough=False)["learned sequential"]
    return _EXPERTS[key]


def _why_think(numeric: Any, action: int) -> str:
    dynamics = numeric.dynamics
    kind, choice = numeric.layout.describe_action(action)
    if kind == "accept":
        return "good enough"
    if kind == "call" and dynamics.num_heard[0] == 0:
        return f"ask {dynamics.pool.names[choice]}"
    return f"not sure, ask {dynamics.pool.names[choice]}" if kind == "call" else "in parts"


# ---------------------------------------------------------------------------------------------- BudgetRoute


def _budget_route(env: Any, arguments: dict[str, Any], rng: np.random.Generator) -> Iterator[Demonstration]:
    from rlroute.envs.budget_route.anchors import Anchors
    from rlroute.envs.budget_route.boundary import boundary_runs
    from rlroute.envs.budget_route.demonstrations import demonstrated_run

    runs = boundary_runs(numeric_arguments(env, arguments))
    anchors = Anchors(runs)
    finite = np.flatnonzero(np.isfinite(runs.caps))
    levels = finite if len(finite) else np.array([0])
    chosen = [demonstrated_run(anchors, int(level)) for level in levels]
    while True:
        for at in rng.permutation(len(runs.tasks)):
            level = int(rng.integers(len(levels)))
            run = int(chosen[level][at])
            actions = runs.actions[levels[level], at, run]
            # Boundary runs are replayed draw by draw, so the episode shown is the very one that succeeded.
            options = {"task": int(runs.tasks[at]), "slot": int(runs.slots(at, run))}
            cap = runs.caps[levels[level]]
            if np.isfinite(cap):
                options["budget_calls"] = int(cap)
            yield Demonstration(_Script(actions), runs.arguments.seed, options, _why_budget)


class _Script:
    """Plays actions that were recorded, one after another."""

    def __init__(self, actions: np.ndarray) -> None:
        self.actions = actions

    def __call__(self, numeric: Any) -> int:
        return int(self.actions[int(numeric.dynamics.calls[0])])


def _why_budget(numeric: Any, action: int) -> str:
    return "a step that matters" if numeric.dynamics.expensive[action] else "a plain step"


# ---------------------------------------------------------------------------------------------- EffortRoute


def _effort_route(env: Any, arguments: dict[str, Any], rng: np.random.Generator) -> Iterator[Demonstration]:
    from rlroute.envs.effort_route.references import label_oracle

    act = _acting(label_oracle(env.dynamics))
    for task, seed in _tasks(env, rng):
        yield Demonstration(act, seed, {"task": task}, _why_effort)


def _why_effort(numeric: Any, action: int) -> str:
    return f"{numeric.dynamics.pool.names[action]} effort suffices here"


# ------------------------------------------------------------------------------------------------ ToolGraph


def _tool_graph(env: Any, arguments: dict[str, Any], rng: np.random.Generator) -> Iterator[Demonstration]:
    from rlroute.envs.tool_graph.references import references

    act = _acting(next(iter(references(env.numeric).values()))[0])
    for task, seed in _tasks(env, rng):
        yield Demonstration(act, seed, {"task": task}, lambda numeric, action: "the shortest way on")


SHOWS: dict[str, Callable[[Any, dict[str, Any], np.random.Generator], Iterator[Demonstration]]] = {
    "rlroute/ThinkRoute-v0": _think_route,
    "rlroute/BudgetRoute-v0": _budget_route,
    "rlroute/EffortRoute-v0": _effort_route,
    "rlroute/ToolGraph-v0": _tool_graph,
}


def numeric_arguments(env: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those arguments of a text environment that its numeric one takes too."""
    known = {field.name for field in fields(env.dynamics.arguments)}
    return {name: value for name, value in arguments.items() if name in known}
