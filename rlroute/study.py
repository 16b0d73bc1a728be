"""A whole comparison of one family on one log: tune on val, play on test, measure frontiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from rlroute.evaluation import (
    Evaluation,
    MakeEnv,
    Progress,
    Setting,
    Tuned,
    evaluate,
    tune,
)
from rlroute.frontier import Frontier, best_mix_at_cost, frontier
from rlroute.ope import first_call_value
from rlroute.policies import AlwaysChoice, Policy, dynamics_of
from rlroute.report import BEST_MIX


@dataclass
class Study:
    """Evaluations on val and test, what val chose, and the frontiers over weights (none for caps)."""

    val: Evaluation
    test: Evaluation
    tuned: dict[str, list[Tuned]]
    frontiers: list[Frontier] = field(default_factory=list)

    def without_policies(self) -> Study:
        """The same without what val chose, for another process: policies hold the environments they were played on."""
        return replace(self, tuned={})


def single_choices(make_env: MakeEnv, setting: Setting) -> dict[str, Policy]:
    """One policy a choice, and one a choice after thinking where the log has sub-questions."""
    dynamics = dynamics_of(make_env("val", **setting.arguments))
    names = dynamics.arrays.choice_names
    table: dict[str, Policy] = {name: AlwaysChoice(c, name) for c, name in enumerate(names)}
    if "think" in dynamics.layout.context_actions and np.any(dynamics.arrays.think_state >= 0):
        table |= {f"think + {name}": AlwaysChoice(c, f"think + {name}", True) for c, name in enumerate(names)}
    return table


def study(
    make_env: MakeEnv,
    settings: Sequence[Setting],
    references: Mapping[str, Sequence[Policy]],
    trained: Mapping[str, Policy | Sequence[Policy]],
    episodes: int = 2,
    val_episodes: int = 2,
    seed: int = 0,
    mix_at_cost_of: str | None = None,
    progress: Progress | None = None,
) -> Study:
    """Compare `trained` policies with tuned `references` and single choices at every setting.

    `mix_at_cost_of` names the policy whose cost on test the best mix is given (default: the first of
    `trained`). `progress` is called with the number of policies played.
    """
    singles = single_choices(make_env, settings[0])
    tuned = tune(make_env, settings, references, val_episodes, seed + 1, progress)
    val = evaluate(make_env, settings, singles, "val", val_episodes, seed + 1, "single", progress=progress)
    test = evaluate(make_env, settings, singles, "test", episodes, seed, "single", progress=progress)
    evaluate(make_env, settings, tuned, "test", episodes, seed, "reference", test, progress)
    for name, policy in trained.items():
        for evaluation, split, times, offset in ((val, "val", val_episodes, 1), (test, "test", episodes, 0)):
            evaluate(
                make_env,
                settings,
                {name: policy},
                split,
                times,
                seed + offset,
                "trained",
                evaluation,
                progress,
            )
    result = Study(val, test, tuned)
    if not test.coverage_full and settings[0].kind == "weight":
        for name, given in {**tuned, **trained}.items():
            test.off_policy[name] = [_off_policy(make_env, s, given, i) for i, s in enumerate(settings)]
        return result
    if settings[0].kind == "weight":
        target = mix_at_cost_of or next(iter(trained), None)
        if target is not None:
            best_mix_at_cost(val, test, list(singles), test.points(target)[0].tolist(), BEST_MIX)
        result.frontiers = _frontiers(result, list(singles), list(trained))
    return result


def _off_policy(make_env: MakeEnv, setting: Setting, given: Policy | Sequence[Policy] | list[Tuned], i: int) -> str:
    chosen = given[i] if isinstance(given, Sequence) else given
    policy = chosen.policy if isinstance(chosen, Tuned) else chosen
    return str(first_call_value(make_env("test", **setting.arguments), policy, setting.value))


def _frontiers(result: Study, singles: Sequence[str], trained: Sequence[str]) -> list[Frontier]:
    val, test = result.val, result.test
    pool = _pool_points(test, singles)
    best = int(np.argmax(_pool_points(val, singles)[1]))
    frontiers = [frontier("mixes of single choices", _pool_points(val, singles), pool, pool, best)]
    for name, chosen in result.tuned.items():
        on_val = np.array([t.cost_usd for t in chosen]), np.array([t.quality for t in chosen])
        frontiers.append(frontier(name, on_val, test.points(name), pool, best))
    frontiers += [frontier(name, val.points(name), test.points(name), pool, best) for name in trained]
    return frontiers


def _pool_points(evaluation: Evaluation, singles: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(cost, quality) of the single choices; they are the same at every weight."""
    points = np.array([[x[0] for x in evaluation.points(name)] for name in singles])
    return points[:, 0], points[:, 1]
