"""Off-policy estimates for partial logs: what another policy would have earned, from logged propensities.

A partial log answers each state by few choices, so most of what a new policy would do was never recorded.
Where the log says with which probability it chose what it did (`propensity`), importance weights correct for
that; without, no gain can be told from the habits of whoever logged, and `estimate` says "confounded".

One decision a row: arrays of shape (n,). SNIPS is Swaminathan & Joachims 2015, DR is Dudík et al. 2011.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlroute.layout import Layout
from rlroute.metrics import bootstrap_interval
from rlroute.policies import Policy, dynamics_of
from rlroute.predictors import Ridge

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """Value of a policy by SNIPS and by DR with 95 % intervals; `effective_samples` = (Σw)² / Σw²."""

    snips: float
    snips_ci95: tuple[float, float]
    dr: float
    dr_ci95: tuple[float, float]
    effective_samples: float
    rows: int

    def __str__(self) -> str:
        return (
            f"SNIPS {self.snips:.4f} [{self.snips_ci95[0]:.4f}, {self.snips_ci95[1]:.4f}], "
            f"DR {self.dr:.4f} [{self.dr_ci95[0]:.4f}, {self.dr_ci95[1]:.4f}], "
            f"effective samples {self.effective_samples:.0f} of {self.rows}"
        )


CONFOUNDED = "confounded: the log is partial and records no propensity, so no gain can be told from it"


def effective_sample_size(weights: ArrayLike) -> float:
    """(Σw)² / Σw²; 0 where all weights are 0."""
    w = np.asarray(weights, float)
    square = float((w**2).sum())
    return float(w.sum()) ** 2 / square if square > 0 else 0.0


def estimate(
    reward: ArrayLike,
    propensity: ArrayLike,
    target: ArrayLike,
    predicted_logged: ArrayLike,
    predicted_target: ArrayLike,
    seed: int = 0,
) -> Estimate | str:
    """Value of a target policy from logged decisions.

    `reward` was earned, `propensity` is the probability with which the logging policy made the decision (NaN:
    unknown) and `target` that of the policy in question. `predicted_logged` is a model's reward of the logged
    decision, `predicted_target` its expected reward under the target policy. Returns `CONFOUNDED` unless
    every propensity is known.
    """
    p = np.asarray(propensity, float)
    if len(p) == 0 or not np.isfinite(p).all():
        return CONFOUNDED
    if (p <= 0).any() or (p > 1).any():
        raise ValueError(f"propensity {p[(p <= 0) | (p > 1)][0]}: expected a number in (0, 1]")
    r, w = np.asarray(reward, float), np.asarray(target, float) / p
    corrected = np.asarray(predicted_target, float) + w * (r - np.asarray(predicted_logged, float))
    return Estimate(
        snips=_ratio(r, w),
        snips_ci95=_ratio_interval(r, w, seed),
        dr=float(corrected.mean()),
        dr_ci95=bootstrap_interval(corrected, seed=seed),
        effective_samples=effective_sample_size(w),
        rows=len(r),
    )


def _ratio(reward: Floats, weight: Floats) -> float:
    return float((reward * weight).sum() / weight.sum()) if weight.sum() > 0 else float("nan")


def _ratio_interval(reward: Floats, weight: Floats, seed: int, resamples: int = 1000) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(reward), np.full(len(reward), 1 / len(reward)), size=resamples)
    mass = counts @ weight
    values = (counts @ (weight * reward))[mass > 0] / mass[mass > 0]
    if len(values) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def first_call_value(env: Any, policy: Policy, weight: float) -> Estimate | str:
    """Value of the choice that `policy` would call first at each root state of `env`, were all of them open.

    The reward of a row is quality − weight · cost / c_ref of that one call; the reward model of DR is a ridge
    regression per choice from text features, fitted on train. A policy that thinks first has no recorded
    value.
    """
    dynamics = dynamics_of(env)
    arrays, layout = dynamics.arrays, dynamics.layout
    rows = _rows_of(arrays, dynamics.roots)
    propensity = np.asarray(arrays.propensity, float)[rows]
    if len(rows) == 0 or not np.isfinite(propensity).all():
        return CONFOUNDED
    state, logged = np.divmod(np.asarray(arrays.row_cell), layout.num_choices)
    reward = np.nan_to_num(np.asarray(arrays.quality, float)) - weight * np.asarray(arrays.cost_usd) / dynamics.c_ref
    chosen = np.full(len(arrays.step), -1)
    chosen[dynamics.roots] = _first_choices(env, policy)
    fitted = _rows_of(arrays, np.flatnonzero(arrays.root & (dynamics.split == 0)))
    target = np.full(arrays.num_attempts.shape, np.nan)
    target[state[fitted], logged[fitted]] = reward[fitted]
    features = dynamics.full_text_features()
    known = np.unique(state[fitted])
    model = Ridge().fit(features[known], target[known]).predict(features)
    at, did, would = state[rows], logged[rows], chosen[state[rows]]
    return estimate(
        reward[rows],
        propensity,
        (did == would).astype(float),
        model[at, did],
        model[at, np.maximum(would, 0)],
    )


def _rows_of(arrays: Any, states: NDArray[Any]) -> NDArray[np.int64]:
    """Response rows recorded in some states."""
    wanted = np.zeros(len(arrays.step), bool)
    wanted[states] = True
    return np.flatnonzero(wanted[np.asarray(arrays.row_cell) // arrays.num_attempts.shape[1]])


def _first_choices(env: Any, policy: Policy) -> NDArray[np.int64]:
    """The choice called first at every root (−1: it thinks), with every choice shown that no budget forbids."""
    dynamics = dynamics_of(env)
    policy.begin(env)
    choices: list[int] = []
    for start in range(0, len(dynamics.roots), env.num_envs):
        tasks = dynamics.roots[start : start + env.num_envs]
        padded = np.concatenate([tasks, np.repeat(tasks[-1:], env.num_envs - len(tasks))])
        observation, info = env.reset(seed=0, options={"task": padded})
        flat = observation["observation"] if isinstance(observation, dict) else observation
        tokens = np.asarray(dynamics.arrays.prompt_tokens_of[padded])
        # A choice that was not asked would have been sent about the prompt that others were.
        affordable = dynamics.affordable(np.where(tokens < 0, tokens.max(axis=1, keepdims=True), tokens))
        unrecorded = (np.asarray(dynamics.arrays.num_attempts[padded]) == 0) & affordable
        actions = policy.act(*_opened(dynamics.layout, flat, info["action_mask"], unrecorded))[: len(tasks)]
        found = (dynamics.layout.describe_action(int(a))[1] for a in actions)
        choices += [-1 if c is None else c for c in found]
    return np.asarray(choices, np.int64)


def _opened(
    layout: Layout, observation: NDArray[Any], action_mask: NDArray[Any], also: NDArray[np.bool_]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Observations and masks in which the choices `also` (N, C) can be called too: what a live pool would show."""
    observation, action_mask = observation.copy(), action_mask.copy()
    slices = layout.slices()
    for choice in range(layout.num_choices):
        rows = also[:, choice]
        action_mask[rows, layout.action(layout.choice_actions[0], choice)] = 1
        if f"callable/{choice}" in slices:
            observation[rows, slices[f"callable/{choice}"]] = 1.0
    return observation, action_mask
