"""Numeric routers beside those of texts: PPO on the same train tasks, and which choices its calls went to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from plans import Plan

from rlroute.evaluation import MakeEnv, Score, roots
from rlroute.policies import Actions, Array, Policy, dynamics_of
from rlroute.rollout import rollout

NAME = "numeric PPO"


class Tally:
    """A policy that counts how often each choice is called; every slot of its environment has to play a task."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.name = policy, policy.name
        self.calls = np.zeros(0, np.int64)  # (num_choices,)

    def begin(self, env: Any) -> None:
        self.dynamics = dynamics_of(env)
        layout = self.dynamics.layout
        self.first = layout.action(layout.choice_actions[0], 0)
        self.calls = np.zeros(layout.num_choices, np.int64)
        self.policy.begin(env)

    def act(self, observation: Array, action_mask: Array) -> Actions:
        """(N, D), (N, num_actions) → (N,); episodes that are over are not counted."""
        actions = np.asarray(self.policy.act(observation, action_mask))
        called = actions[np.asarray(self.dynamics.active, bool)] - self.first
        called = called[(called >= 0) & (called < len(self.calls))]
        self.calls += np.bincount(called, minlength=len(self.calls))
        return actions


def train(plan: Plan, seed: int, log: str | None, out: Path) -> Path:
    """Train numeric PPO on what the text routers are trained on; returns its policy folder."""
    from rlroute.agents.rllib import ppo
    from rlroute.agents.rllib.cluster import start_ray

    if (out / "policy").is_dir():
        return out / "policy"
    start_ray()
    given = {**plan.numeric_arguments, "split": "train", **({} if log is None else {"log": log})}
    return ppo.train(f"rlroute:{plan.env}", given, out, ppo.PPOArguments(seed=seed, **plan.numeric))


def play(plan: Plan, policy: Policy, make_env: MakeEnv, tasks: int | None) -> tuple[list[Score], dict[str, Any]]:
    """What a router comes to on the first `tasks` of test at every setting, and the figures of text routers that it
    has as well."""
    scores, told = [], []
    for setting in plan.settings:
        played = roots(make_env("test", num_envs=1, **setting.arguments))[:tasks]
        tally = Tally(policy)
        # As many slots as tasks: a rollout fills slots that are left over with copies of the last task.
        env = make_env("test", num_envs=len(played), **setting.arguments)
        scores.append(Score.of(rollout(env, tally, played)))
        told.append(figures(scores[-1], tally.calls))
    return scores, {"figures": told}


def figures(score: Score, calls: np.ndarray) -> dict[str, float]:
    """Means over episodes, and the share of the calls (num_choices,) that the most used choice got."""
    columns: Mapping[str, Any] = vars(score)
    means = {key: float(columns[key].mean()) for key in ("reward", "quality", "calls", "expensive_calls", "cost_usd")}
    return {**means, "router_cost_usd": 0.0, "faulty": 0.0, "top_share": float(calls.max() / max(1, calls.sum()))}


def one_call_shares(plan: Plan, make_env: MakeEnv, tasks: int | None) -> list[float]:
    """At every setting, the share of the most used choice were each question of test asked once of what is worth most
    on it; empty where tasks are no single questions. `tasks` as in `play`.

    Worth is the recorded mean over attempts less the price, which no policy knows beforehand `[ours]`: how uneven
    calls are for no other reason than what the choices are good at.
    """
    if plan.env != "rlroute/ThinkRoute-v0":
        return []
    from rlroute.envs.think_route.experience import Experience

    env = make_env("test", num_envs=1)
    dynamics, asked = dynamics_of(env), roots(env)[:tasks]
    experience = Experience.of(dynamics)
    quality, cost = experience.recorded[asked], np.nan_to_num(experience.recorded_cost[asked])
    shares = []
    for setting in plan.settings:
        worth = np.where(np.isfinite(quality), quality - setting.value * cost / float(dynamics.c_ref), -np.inf)
        best = np.bincount(worth.argmax(axis=1), minlength=worth.shape[1])
        shares.append(float(best.max() / best.sum()))
    return shares
