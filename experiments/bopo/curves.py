"""Success against expensive calls: what is played, and how two policies are compared where they spend the same.

A *condition* is a cap of expensive calls. A *curve* is one policy, or one family of references, under one condition:
points along its knob (the preference a trained policy is shown, the p of a random mix …), each played on val and test.
Whatever is chosen, is chosen on val.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlroute.envs.budget_route.ceilings import LatentKnowingPolicy, clairvoyant
from rlroute.evaluation import Score

ENV = "rlroute/BudgetRoute-v0"
LOG = "tasks"
CAPS = (2, 3, 4)
SOFT = 12  # a cap that nine tasks in ten never reach: there the preference is what limits calls
TRAINED_ON = {"budget_calls": (1, SOFT), "preference": (0.02, 0.9)}
PREFERENCES = {**dict.fromkeys(CAPS, (0.02, 0.1, 0.3)), SOFT: (0.02, 0.05, 0.1, 0.2, 0.4, 0.65, 0.9)}
CALL_PRICES = (0.0, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.13, 0.17, 0.25, 0.4, 1.5)  # of latent-knowing, in successes
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """Points along a knob, in the order of `knobs`."""

    knobs: tuple[str, ...]
    val: list[Score]
    test: list[Score]

    @property
    def chosen(self) -> int:
        """The point of the largest success on val, of equals the one of fewest expensive calls."""
        order = [(-mean(s.quality, s), mean(expensive(s), s), i) for i, s in enumerate(self.val)]
        return min(order)[2]

    def at(self, calls: float) -> tuple[Floats, float]:
        """Success on test (groups,) of the mix of points that makes `calls` expensive calls there, and its calls.

        Points are mixed that lie on the hull of val. More calls than the best of them makes buy nothing; fewer than
        any of them makes is the one of fewest, which then has the advantage.
        """
        from rlroute.metrics import group_means, upper_hull

        hull = upper_hull([mean(expensive(s), s) for s in self.val], [mean(s.quality, s) for s in self.val])
        points = sorted((self.test[i] for i in hull), key=lambda s: mean(expensive(s), s))
        spent = [mean(expensive(s), s) for s in points]
        success = np.stack([group_means(s.quality, s.group)[1] for s in points])
        place = float(np.interp(calls, spent, np.arange(len(spent))))  # between which points, and where
        left, right, share = int(place), int(np.ceil(place)), place % 1
        return (1 - share) * success[left] + share * success[right], float(np.interp(calls, spent, spent))


def mean(values: Any, score: Score) -> float:
    """Mean over groups."""
    from rlroute.metrics import group_means

    return float(group_means(values, score.group)[1].mean())


def expensive(score: Score) -> Floats:
    """Expensive calls of every episode."""
    assert score.expensive_calls is not None, "scores of rollouts count calls"
    return score.expensive_calls


def play(policies: Mapping[str, Any], cap: int, episodes: int, preferences: Sequence[float] | None = None) -> Curve:
    """Every policy under one cap, each task of test `episodes` times and each of val half as often.

    `preferences` names what each policy is shown, by default 0. All meet the same tasks, and hear the same response
    wherever they call the same choice.
    """
    from rlroute.envs.contest import vector_env
    from rlroute.rollout import rollout

    shown = preferences or [0.0] * len(policies)
    played: dict[str, list[Score]] = {"val": [], "test": []}
    for split, scores in played.items():
        envs = {w: vector_env(ENV, split, log=LOG, budget_calls=cap, preference=w) for w in set(shown)}
        times = episodes if split == "test" else -(-episodes // 2)
        for policy, preference in zip(policies.values(), shown, strict=True):
            env = envs[preference]
            score = Score.of(rollout(env, policy, env.dynamics.roots, times, seed=int(split == "val")))
            scores.append(replace(score, extra={}))
    return Curve(tuple(policies), played["val"], played["test"])


def trained_curves(folder: str, episodes: int) -> dict[int, Curve]:
    """A trained policy under every condition, shown one preference after the other."""
    from rlroute.policy import load_policy

    policy = load_policy(folder)
    return {cap: play({f"{w:g}": policy for w in shown}, cap, episodes, shown) for cap, shown in PREFERENCES.items()}


def reference_curves(name: str, episodes: int) -> dict[int, Curve]:
    """A family of references, or the latent-knowing ceiling, under every condition."""
    from rlroute.envs.budget_route.references import references
    from rlroute.envs.contest import vector_env

    if name == "latent-knowing":
        return {
            cap: play(
                {f"{price:g} a call": SolvedOnce(priced_in_calls) for price in CALL_PRICES}, cap, episodes, CALL_PRICES
            )
            for cap in PREFERENCES
        }
    table = references(vector_env(ENV, "train", log=LOG))
    small, large = table["always small"], table["First-Large"]
    members = {
        "always small": small,
        "First-Large": large,
        "first k large": [*small, *table["first k large"], *large],
        "random mix": [*small, *table["random mix"], *large],
        "per-step rule": table["per-step rule"],
    }[name]
    return {cap: play({p.name: p for p in members}, cap, episodes) for cap in PREFERENCES}


REFERENCES = ("always small", "First-Large", "first k large", "random mix", "per-step rule")


class SolvedOnce(LatentKnowingPolicy):
    """The ceiling for one cap and one price of a call, whose table serves val and test alike."""

    def begin(self, env: Any) -> None:
        if hasattr(self, "table"):
            self.dynamics = env.dynamics
        else:
            super().begin(env)


def priced_in_calls(dynamics: Any) -> Any:
    """The log's outcomes with an expensive call as the unit of cost: with those the ceiling is exact in calls.

    A preference w then is the price of a call in successes, as `latent_knowing` divides costs by c_ref.
    """
    stored = stored_outcomes()
    cost = np.broadcast_to(dynamics.c_ref * dynamics.expensive[None, :, None], stored.cost_usd.shape)
    return replace(stored, cost_usd=cost)


@cache
def stored_outcomes() -> Any:
    """The probabilities that the log was drawn from."""
    from rlroute.log import load_log
    from rlroute.outcomes import outcomes_of

    return outcomes_of(load_log(LOG))


def clairvoyant_success(episodes: int) -> dict[int, float]:
    """Success on test of who knows the draws, under every cap."""
    from rlroute.envs.contest import vector_env
    from rlroute.rollout import places

    result = {}
    for cap in CAPS:
        env = vector_env(ENV, "test", log=LOG, budget_calls=cap)
        env.reset(seed=0)  # the key of the rollouts
        d = env.dynamics
        rows = [d.drawn_rows(d.roots, *places(env, len(d.roots), episodes, k))[:, :, 0] for k in range(episodes)]
        result[cap] = float(np.mean([clairvoyant(d.arrays, d.roots, d.expensive, r, cap).success.mean() for r in rows]))
    return result
