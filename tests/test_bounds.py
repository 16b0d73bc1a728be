"""Nothing beats the ceilings: on every built-in log, episode by episode where the draws are known, else on average."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from rlroute.envs import REGISTRY, entry
from rlroute.envs.contest import vector_env
from rlroute.evaluation import Evaluation, Setting, evaluate, tune
from rlroute.policies import Policy, RandomPolicy

ROOTS = 40
EPISODES = 2
SETTINGS = {
    "weights": [Setting.weight(w) for w in (0.0, 0.05, 0.3, 2.0)],
    "caps": [Setting.calls(c) for c in (1, 3, 6)],
}
pytestmark = [
    pytest.mark.parametrize("env_id", [row.id for row in REGISTRY]),
    pytest.mark.parametrize("kind", SETTINGS),
]


def make_env(env_id: str) -> Callable[..., Any]:
    """Environments on the first roots of a split of the built-in log."""

    def make(split: str, **arguments: Any) -> Any:
        env = vector_env(env_id, split, 64, **arguments)
        env.dynamics.roots = env.dynamics.roots[:ROOTS]
        return env

    return make


def part(env_id: str, name: str) -> Any:
    """A module in the folder of a family."""
    return import_module(entry(env_id).vector_entry_point.split(":")[0].rsplit(".", 1)[0] + f".{name}")


@cache
def references(env_id: str) -> dict[str, list[Policy]]:
    listed, env = part(env_id, "references").references, make_env(env_id)("train")
    table: dict[str, list[Policy]] = listed(env, thorough=False) if _has_thorough(listed) else listed(env)
    return table


def _has_thorough(function: Any) -> bool:
    return "thorough" in function.__code__.co_varnames[: function.__code__.co_argcount]


def settings_of(env_id: str, kind: str) -> list[Setting]:
    """The settings of a kind, where the family knows it."""
    try:
        make_env(env_id)("test", **SETTINGS[kind][0].arguments)
    except ValueError as error:
        pytest.skip(str(error))
    return SETTINGS[kind]


def with_ceilings(env_id: str, settings: list[Setting], policies: dict[str, Any]) -> Evaluation:
    evaluation = evaluate(make_env(env_id), settings, policies, "test", EPISODES)
    part(env_id, "ceilings").add_ceilings(evaluation, make_env(env_id), settings, EPISODES, 0)
    return evaluation


def test_no_episode_is_worth_more_than_the_clairvoyant_one_on_its_draws(env_id: str, kind: str) -> None:
    settings = settings_of(env_id, kind)
    policies = {"random": RandomPolicy(), **{name: chosen[0] for name, chosen in references(env_id).items()}}
    evaluation = with_ceilings(env_id, settings, policies)
    for i, setting in enumerate(settings):
        # Ceilings are listed repetition by repetition, episodes task by task.
        ceiling = evaluation.scores["clairvoyant"][i].reward.reshape(EPISODES, -1).T.ravel()
        for name in policies:
            reward = evaluation.scores[name][i].reward
            assert (reward <= ceiling + 1e-9).all(), (name, setting.name, (reward - ceiling).max())
        assert ceiling.mean() > evaluation.scores["random"][i].reward.mean()


def test_no_tuned_reference_is_worth_more_than_the_latent_knowing_one(env_id: str, kind: str) -> None:
    settings = settings_of(env_id, kind)
    if part(env_id, "ceilings").__name__.endswith("budget_route.ceilings") and kind == "weights":
        settings = [Setting(s.name, {**s.arguments, "prompt_cache": False}, s.kind, s.value) for s in settings]
    few = {name: chosen[:: max(1, len(chosen) // 2)] for name, chosen in references(env_id).items()}
    tuned = tune(make_env(env_id), settings, few)
    evaluation = with_ceilings(env_id, settings, tuned)
    for i, setting in enumerate(settings):
        ceiling = task_means(evaluation, "latent-knowing", i)
        for name in tuned:
            ahead = task_means(evaluation, name, i) - ceiling
            error = ahead.std(ddof=1) / np.sqrt(len(ahead))
            assert ahead.mean() <= 3 * error, (name, setting.name, ahead.mean(), error)


def task_means(evaluation: Evaluation, name: str, setting: int) -> np.ndarray:
    """Mean reward of every task, in the order of their groups."""
    score = evaluation.scores[name][setting]
    _, index = np.unique(score.group, return_inverse=True)
    return np.asarray(np.bincount(index, score.reward) / np.bincount(index))
