"""A trained policy against every reference and ceiling of its family, on the same episodes of `test`.

What is specific to a family are the `references` and `add_ceilings` of its folder; the rest is `rlroute.study`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from rlroute.envs import entry
from rlroute.evaluation import Setting
from rlroute.policies import Policy
from rlroute.study import Study, single_choices, study

NUM_SLOTS = 1024


def vector_env(env_id: str, split: str, num_envs: int = NUM_SLOTS, **arguments: Any) -> Any:
    """A native vector environment whose finished slots idle, as rollouts want it, unless `autoreset` says otherwise."""
    module, name = entry(env_id).vector_entry_point.split(":")
    kind = getattr(import_module(module), name)
    return kind(num_envs, **{"autoreset": "disabled", "split": split, **arguments})


def contest(
    env_id: str,
    arguments: Mapping[str, Any],
    settings: Sequence[Setting],
    trained: Mapping[str, Policy | Sequence[Policy]],
    episodes: int = 2,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
    val_episodes: int | None = None,
) -> Study:
    """Fit on train, tune on val, play on test. `arguments` are the environment's beside split and setting.

    Tasks of test are played `episodes` times each, those of val `val_episodes` times, by default as often.

    `progress` is called with the share of the work done since it was last called.
    """
    package = entry(env_id).vector_entry_point.split(":")[0].rsplit(".", 1)[0]
    references, ceilings = import_module(f"{package}.references"), import_module(f"{package}.ceilings")
    latest: dict[str, Any] = {}

    def make_env(split: str, **given: Any) -> Any:
        key = repr((split, sorted(given.items())))
        if key not in latest:
            latest.clear()  # one environment at a time: each holds its buffers
            latest[key] = vector_env(env_id, split, **{**arguments, **given})
        return latest[key]

    candidates = references.references(make_env("train", **settings[0].arguments))
    singles = len(single_choices(make_env, settings[0]))
    steps = len(settings) * (2 * singles + 2 * len(trained) + 2 * len(candidates))

    def played(count: int) -> None:
        if progress is not None:
            progress(count / steps)

    times = val_episodes or episodes
    result = study(make_env, settings, candidates, trained, episodes, times, seed, progress=played)
    ceilings.add_ceilings(result.test, make_env, settings, episodes, seed)
    return result
