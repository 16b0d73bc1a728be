"""What the supervised start imitates: reference policies played in the text environments, with a templated rationale.

- ThinkRoute: an expert that asks the best model of each kind of question, and the next best where the checker rejects
  an answer, mixed with an explorer that asks models at random and lets the checker decide. A start without a
  preference hardly rises, one without exploration has nothing to rise from.
- BudgetRoute: BoSFT's demonstrations, always-small or the cheapest recorded success (`rlroute.envs.budget_route`); with
  the teacher "reference" the per-step rule, tuned on val for every cap `[ours]`. The paper's show how many expensive
  calls a task wants, and hardly at which steps: where they stand in a success that was drawn is mostly chance.
- EffortRoute: the labels of minimum sufficient effort (`rlroute.envs.effort_route.labels`); with the teacher
  "reference" the myopic bandit, tuned on val for four weights `[ours]`.
- ToolGraph: the healing router.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import fields
from importlib import import_module
from itertools import islice
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from rlroute.agents.trl.persistent import GOOD, Persistent
from rlroute.envs import entry
from rlroute.envs.contest import vector_env
from rlroute.envs.demonstrate import Act, Rationale, Transcript, demonstrate
from rlroute.envs.terms import ends
from rlroute.envs.think_route.text import ThinkRouteTextEnv
from rlroute.evaluation import Setting, tune

PAPER, REFERENCE = "paper", "reference"  # teachers
EXPERT_SHARE = 0.8  # of ThinkRoute's demonstrations
MOST_CALLS = 3  # of an explorer
WEIGHTS = 4  # of cost, that a teacher is tuned for


class Demonstration(NamedTuple):
    """One episode to show: who acts, from which reset, and why it says it does."""

    act: Act
    seed: int
    options: dict[str, Any]
    rationale: Rationale
    changes: tuple[tuple[str, Any], ...] = ()  # to the arguments of the environment


Shows = Callable[[Any, np.random.Generator], Iterator[Demonstration]]


def demonstrations(
    env_id: str,
    env_arguments: Mapping[str, Any],
    count: int,
    seed: int = 0,
    short_queries: bool = False,
    teacher: str = PAPER,
) -> list[Transcript]:
    """`count` transcripts of a text environment, of the tasks of its split in random order.

    With `short_queries` a ThinkRoute search about the question at hand says "this" in place of it. The protocol takes
    a query without a word of any question for just that, and a small model need not learn to copy before it routes.
    """
    envs: dict[tuple[Any, ...], tuple[Any, Any]] = {}

    def pair(changes: tuple[tuple[str, Any], ...] = ()) -> tuple[Any, Any]:
        if changes not in envs:
            given = {**env_arguments, **dict(changes)}
            env = gym.make(env_id, disable_env_checker=True, **given).unwrapped
            if short_queries and isinstance(env, ThinkRouteTextEnv):
                env = ShortQueries(**given)
            envs[changes] = env, numeric_twin(env)
        return envs[changes]

    shows = taught_by(teacher, env_id)(pair()[0], np.random.default_rng(seed))
    return [
        demonstrate(*pair(d.changes), d.act, seed=d.seed, options=d.options, rationale=d.rationale)
        for d in islice(shows, count)
    ]


def taught_by(teacher: str, env_id: str) -> Shows:
    """What a teacher shows of the family of an environment; a ValueError where it shows nothing of that."""
    family, known = entry(env_id).id, {PAPER: SHOWS, REFERENCE: SHOWS_OF_REFERENCES}
    if family not in known.get(teacher, {}):
        listed = [name for name, shows in known.items() if family in shows]
        raise ValueError(f"teacher={teacher!r}: expected {' or '.join(map(repr, listed))} for {family}")
    return known[teacher][family]


def texts_of(transcripts: list[Transcript]) -> list[str]:
    """Prompt, turns and replies of each in one piece."""
    return [shown.prompt + "".join(turn + reply for turn, reply in shown.turns) for shown in transcripts]


def numeric_twin(env: Any) -> Any:
    """A numeric environment with the arguments of the one inside a text environment."""
    arguments = env.dynamics.arguments
    return env.numeric_type(**{field.name: getattr(arguments, field.name) for field in fields(arguments)})


def _tasks(env: Any, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    """(task, seed) without end, every task once before any comes again."""
    roots = np.asarray(env.dynamics.roots)
    while True:
        for task in rng.permutation(roots):
            yield int(task), int(rng.integers(1 << 31))


def acting(policy: Any) -> Act:
    """A policy for batches as a function of a scalar environment."""
    met: list[Any] = []

    def act(numeric: Any) -> int:
        if not met or met[0] is not numeric:
            policy.begin(numeric)
            met[:] = [numeric]
        dynamics = numeric.dynamics
        return int(policy.act(dynamics.observation, dynamics.action_mask)[0])

    return act


# ----------------------------------------------------------------------------------------------- ThinkRoute


class ShortQueries(ThinkRouteTextEnv):
    """ThinkRoute whose demonstrations ask about the question at hand by the one word "this"."""

    def narrate(self, action: int, rationale: str = "", dynamics: Any = None) -> str | None:
        told = super().narrate(action, rationale, dynamics)
        kind, _ = self.numeric.layout.describe_action(action)
        state = int((dynamics or self.dynamics).state[0])
        if told is None or kind != "call" or state != int(self.dynamics.state[0]):
            return told
        name, query = told.rsplit(":", 1)
        return f"{name}:this {query[query.rindex('</search>') :]}"


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


def _think_route(env: Any, rng: np.random.Generator) -> Iterator[Demonstration]:
    expert, explorer = acting(_expert(env)), Explorer(rng)
    for task, seed in _tasks(env, rng):
        act = expert if rng.random() < EXPERT_SHARE else explorer
        yield Demonstration(act, seed, {"task": task}, _why_think)


def _expert(env: Any) -> Any:
    """Asks what is best at questions of the task; where a log tells no tasks apart, by a ridge regression on texts."""
    from rlroute.envs.think_route.experience import Experience

    dynamics = numeric_twin(env).dynamics
    predictor = "task" if len(dynamics.arrays.task_names) > 1 else "ridge"
    return Persistent(Experience.of(dynamics), predictor, think_bonus=0.0)


def _why_think(numeric: Any, action: int) -> str:
    kind, _ = numeric.layout.describe_action(action)
    if kind == "accept":
        return "good enough"
    return "not sure" if numeric.dynamics.num_heard[0] else "I ask"


# ---------------------------------------------------------------------------------------------- BudgetRoute


def _budget_route(env: Any, rng: np.random.Generator) -> Iterator[Demonstration]:
    from rlroute.envs.budget_route.anchors import Anchors
    from rlroute.envs.budget_route.boundary import boundary_runs
    from rlroute.envs.budget_route.demonstrations import demonstrated_run

    arguments = env.dynamics.arguments
    runs = boundary_runs({field.name: getattr(arguments, field.name) for field in fields(arguments)})
    anchors = Anchors(runs)
    finite = np.flatnonzero(np.isfinite(runs.caps))
    levels = finite if len(finite) else np.array([0])
    chosen = {int(level): demonstrated_run(anchors, int(level)) for level in levels}
    while True:
        for at in rng.permutation(len(runs.tasks)):
            level = int(rng.choice(levels))
            run = int(chosen[level][at])
            cap = float(runs.caps[level])
            changes = (("budget_calls", int(cap) if np.isfinite(cap) else None),)
            # Runs are replayed draw by draw, so the episode shown is the very one that was recorded.
            options = {"task": int(runs.tasks[at]), "slot": int(runs.slots(np.asarray(at), np.asarray(run)))}
            yield Demonstration(_Script(runs.actions[level, at, run]), runs.arguments.seed, options, _why_step, changes)


class _Script:
    """Plays actions that were recorded, one after another."""

    def __init__(self, actions: np.ndarray) -> None:
        self.actions = actions

    def __call__(self, numeric: Any) -> int:
        return int(self.actions[int(numeric.dynamics.calls[0])])


def _why_step(numeric: Any, action: int) -> str:
    return "this step matters" if numeric.dynamics.expensive[action] else "a plain step"


# ---------------------------------------------------------------------------------------------- EffortRoute


def _effort_route(env: Any, rng: np.random.Generator) -> Iterator[Demonstration]:
    from rlroute.envs.effort_route.references import label_oracle

    act = acting(label_oracle(env.dynamics))
    for task, seed in _tasks(env, rng):
        yield Demonstration(act, seed, {"task": task}, _why_effort)


def _why_effort(numeric: Any, action: int) -> str:
    return f"{numeric.dynamics.pool.names[action]} effort suffices here"


# ------------------------------------------------------------------------------------------------ ToolGraph


def _tool_graph(env: Any, rng: np.random.Generator) -> Iterator[Demonstration]:
    from rlroute.envs.tool_graph.healing import HealingRouter, Knobs

    act = acting(HealingRouter(Knobs()))
    while True:
        yield Demonstration(act, int(rng.integers(1 << 31)), {}, _why_tool)


def _why_tool(numeric: Any, action: int) -> str:
    return "the cheapest way on"


# ------------------------------------------------------------------------------------- the best of references


def _by_reference(name: str, why: Rationale) -> Shows:
    """The reference `name` of a family, the candidate that does best on val for each of `_settings`."""

    def shows(env: Any, rng: np.random.Generator) -> Iterator[Demonstration]:
        dynamics = env.dynamics
        given = {field.name: getattr(dynamics.arguments, field.name) for field in fields(dynamics.arguments)}
        del given["split"]

        def make_env(split: str, **terms: Any) -> Any:
            return vector_env(dynamics.family, split, **{**given, **terms})

        settings = _settings(dynamics.arguments)
        module = import_module(type(dynamics).__module__.rsplit(".", 1)[0] + ".references")
        candidates = module.references(make_env("train", **settings[0].arguments))[name]
        # One candidate may be the best for several terms, and each has an episode of its own under way.
        acts = [acting(copy(tuned.policy)) for tuned in tune(make_env, settings, {name: candidates})[name]]
        for task, seed in _tasks(env, rng):
            at = int(rng.integers(len(settings)))
            changes = tuple(settings[at].arguments.items())
            yield Demonstration(acts[at], seed, {"task": task}, why, changes)

    return shows


def _settings(arguments: Any) -> list[Setting]:
    """The terms that teachers are tuned for: every cap on calls in the range, or weights that span theirs."""
    if arguments.budget_calls is not None:
        low, high = ends(arguments.budget_calls)
        return [Setting.calls(cap) for cap in range(int(low), int(high) + 1)]
    low, high = ends(arguments.preference)
    return [Setting.weight(float(w)) for w in (np.geomspace(low, high, WEIGHTS) if low < high else [low])]


SHOWS_OF_REFERENCES: dict[str, Shows] = {
    "rlroute/BudgetRoute-v0": _by_reference("per-step rule", _why_step),
    "rlroute/EffortRoute-v0": _by_reference("myopic bandit", _why_effort),
}
SHOWS: dict[str, Shows] = {
    "rlroute/ThinkRoute-v0": _think_route,
    "rlroute/BudgetRoute-v0": _budget_route,
    "rlroute/EffortRoute-v0": _effort_route,
    "rlroute/ToolGraph-v0": _tool_graph,
}
