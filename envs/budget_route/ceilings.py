"""What no BudgetRoute policy can beat, and by how much: two ceilings over a log's state graph.

`latent_knowing` knows the state, its step kind and its difficulty (every outcome's probability) but not the
draws: an exact Markov decision process over state x expensive calls left. `clairvoyant` knows the draws as
well.

Costs are those stored with the log, without prompt cache. Where the environment counts cached tokens, calls
are cheaper than that, and only the ceilings of success under a cap of calls hold as they are. For the others
`least_cost_usd` gives `clairvoyant` costs below which no cache can bring a call; `latent_knowing` has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlroute.arrays import LogArrays
from rlroute.envs.terms import ends
from rlroute.evaluation import Evaluation, MakeEnv, Setting, evaluate
from rlroute.log import Log
from rlroute.outcomes import Outcomes, outcomes_of
from rlroute.rollout import places

OutcomesOf = Callable[[Any], Outcomes]  # of a family's dynamics
_IMPOSSIBLE = -1e9  # value of a choice that cannot be made


@dataclass(frozen=True)
class LatentKnowing:
    """Expected result of the optimal policy, per task in the order asked for, and the policy itself."""

    value: np.ndarray  # (M,) success - cost_weight * cost / c_ref
    success: np.ndarray  # (M,) probability
    cost_usd: np.ndarray  # (M,) expected, without prompt cache
    expensive_calls: np.ndarray  # (M,) expected
    policy: np.ndarray  # (S, L) int8: choice by expensive calls left (L = cap + 1; 1 without a cap), -1: none


def latent_knowing(
    log: Log,
    tasks: np.ndarray,
    expensive: np.ndarray,
    cap: int | None = None,
    cost_weight: float = 0.0,
    c_ref: float = 1.0,
    outcomes: Outcomes | None = None,
) -> LatentKnowing:
    """Maximise P(success) - cost_weight * E[cost_usd] / c_ref, with at most `cap` expensive calls.

    `tasks` (M,) are indices of root states, `expensive` (C,) is bool. Ties go to the choice with the lower
    cost.
    """
    outcomes = outcomes_of(log) if outcomes is None else outcomes
    arrays = log.arrays
    num_states, num_choices, _ = outcomes.probability.shape
    layers = 1 if cap is None else cap + 1
    # Success, cost and expensive calls from here on, under the best policy: (S + 1, L); the last row is
    # "nowhere".
    success = np.zeros((num_states + 1, layers))
    success[:num_states] = np.asarray(arrays.terminal & arrays.success)[:, None]
    cost = np.zeros_like(success)
    calls = np.zeros_like(success)
    policy = np.full((num_states, layers), -1, np.int8)
    available, price = outcomes.available, outcomes.mean_cost_usd
    for states in _last_to_first(arrays):
        options = []
        for choice in range(num_choices):
            probability = outcomes.probability[states, choice][..., None]  # (n, K, 1)
            following = outcomes.next_state[states, choice]  # -1 reads the last row
            spends = bool(expensive[choice])
            next_success = _after(success[following], spends, cap)  # (n, K, L)
            next_cost = _after(cost[following], spends, cap)
            next_calls = _after(calls[following], spends, cap)
            option = np.stack(
                [
                    (probability * next_success).sum(axis=1),
                    (probability * next_cost).sum(axis=1) + price[states, choice][:, None],
                    (probability * next_calls).sum(axis=1) + spends,
                ]
            )  # (3, n, L)
            forbidden = np.broadcast_to(~available[states, choice][:, None], option.shape[1:]).copy()
            if spends and cap is not None:
                forbidden[:, 0] = True
            options.append((option, forbidden))
        table = np.stack([option for option, _ in options])  # (C, 3, n, L)
        forbidden = np.stack([mask for _, mask in options])  # (C, n, L)
        value = np.where(forbidden, _IMPOSSIBLE, table[:, 0] - cost_weight * table[:, 1] / c_ref)
        # A hair of cost breaks ties between choices that succeed alike.
        best = np.argmax(value - 1e-9 * table[:, 1] / max(float(price.max(initial=0.0)), 1e-30), axis=0)
        chosen = np.take_along_axis(table, best[None, None], axis=0)[0]
        stuck = forbidden.all(axis=0)
        success[states] = np.where(stuck, success[states], chosen[0])
        cost[states] = np.where(stuck, 0.0, chosen[1])
        calls[states] = np.where(stuck, 0.0, chosen[2])
        policy[states] = np.where(stuck, -1, best)
    top = layers - 1
    return LatentKnowing(
        value=success[tasks, top] - cost_weight * cost[tasks, top] / c_ref,
        success=success[tasks, top],
        cost_usd=cost[tasks, top],
        expensive_calls=calls[tasks, top],
        policy=policy,
    )


def _after(values: np.ndarray, spends: bool, cap: int | None) -> np.ndarray:
    """Values by expensive calls left (last axis), seen from before a call that may use one up."""
    if not spends or cap is None:
        return values
    return np.concatenate([np.zeros_like(values[..., :1]), values[..., :-1]], axis=-1)


def _last_to_first(arrays: LogArrays) -> list[np.ndarray]:
    """States that are not terminal, grouped by step, the last step first: every successor comes before."""
    acting = np.flatnonzero(~np.asarray(arrays.terminal))
    step = np.asarray(arrays.step)[acting]
    return [acting[step == value] for value in np.unique(step)[::-1]]


@dataclass(frozen=True)
class Clairvoyant:
    """The best that one replay of the log allows, per task in the order asked for."""

    success: np.ndarray  # (M,) bool: within the cap
    least_expensive_calls: np.ndarray  # (M,) float64: least number for a success, inf where there is none
    least_cost_usd: np.ndarray  # (M,) float64: cost of the cheapest success within the cap, inf where there is none
    value: np.ndarray  # (M,) float64: largest success - cost_weight * cost / c_ref within the cap


def clairvoyant(
    arrays: LogArrays,
    tasks: np.ndarray,
    expensive: np.ndarray,
    rows: np.ndarray,
    cap: int | None = None,
    cost_weight: float = 0.0,
    c_ref: float = 1.0,
    cost_usd: np.ndarray | None = None,
) -> Clairvoyant:
    """Know in advance the response row that each choice will give in each state, `rows` (S, C); -1: none.

    A state is met at most once an episode (steps increase), so one row a cell is all there is to know.
    `cost_usd` (R,) replaces the recorded costs.
    """
    price_of = np.asarray(arrays.cost_usd if cost_usd is None else cost_usd, np.float64)
    num_states, num_choices = rows.shape
    layers = 1 if cap is None else cap + 1
    won = np.asarray(arrays.terminal & arrays.success)
    fewest = np.full(num_states + 1, np.inf)
    fewest[:num_states][won] = 0.0
    cheapest = np.full((num_states + 1, layers), np.inf)
    cheapest[:num_states][won] = 0.0
    value = np.zeros((num_states + 1, layers))
    value[:num_states][won] = 1.0
    for states in _last_to_first(arrays):
        fewest_by, cheapest_by, value_by = [], [], []
        for choice in range(num_choices):
            row = rows[states, choice]
            following = np.where(row >= 0, arrays.next_state[row], -1)
            price = np.where(row >= 0, price_of[row], np.inf)[:, None]
            spends = bool(expensive[choice])
            fewest_by.append(fewest[following] + spends + np.where(row >= 0, 0.0, np.inf))
            next_cheapest, next_value = cheapest[following], value[following]
            if spends and cap is not None:
                pad = np.full_like(next_cheapest[:, :1], np.inf)
                next_cheapest = np.concatenate([pad, next_cheapest[:, :-1]], axis=1)
                next_value = np.concatenate([-pad, next_value[:, :-1]], axis=1)
            cheapest_by.append(next_cheapest + price)
            value_by.append(
                next_value - (cost_weight * price / c_ref if cost_weight else np.where(price < np.inf, 0, np.inf))
            )
        fewest[states] = np.min(fewest_by, axis=0)
        cheapest[states] = np.min(cheapest_by, axis=0)
        best = np.max(value_by, axis=0)
        value[states] = np.where(np.isinf(best), 0.0, best)  # stuck: the episode ends, failed
    top = layers - 1
    return Clairvoyant(
        success=np.isfinite(cheapest[tasks, top]),
        least_expensive_calls=fewest[tasks],
        least_cost_usd=cheapest[tasks, top],
        value=value[tasks, top],
    )


def least_cost_usd(arrays: LogArrays) -> np.ndarray:
    """Cost of every response were its whole prompt cached, (R,); in root states nothing can be.

    By tokens, which must be known, as the environment counts with a prompt cache; a call that failed costs what was
    recorded.
    """
    state, choice = np.divmod(arrays.row_cell, arrays.num_choices)
    fresh = np.asarray(arrays.input_usd)[choice]
    cached = np.minimum(fresh, np.asarray(arrays.cached_input_usd)[choice])
    prompt = np.asarray(arrays.prompt_tokens) * np.where(np.asarray(arrays.root)[state], fresh, cached)
    by_tokens = prompt + np.asarray(arrays.completion_tokens) * np.asarray(arrays.output_usd)[choice]
    return np.where(arrays.error, arrays.cost_usd, by_tokens)


class LatentKnowingPolicy:
    """Plays the policy table of `latent_knowing` on a log: it reads the stored probabilities, but no draw."""

    name = "latent-knowing"
    reads_terms = True

    def __init__(self, outcomes: OutcomesOf | None = None) -> None:
        self.outcomes = outcomes

    def begin(self, env: Any) -> None:
        self.dynamics = env.dynamics
        cap, weight = _terms(env.dynamics)
        solved = latent_knowing(
            env.dynamics.log,
            env.dynamics.roots,
            env.dynamics.expensive,
            cap=cap,
            cost_weight=weight,
            c_ref=env.dynamics.c_ref,
            outcomes=None if self.outcomes is None else self.outcomes(env.dynamics),
        )
        self.table = solved.policy

    def act(self, observation: np.ndarray, action_mask: np.ndarray) -> np.ndarray:
        dynamics = self.dynamics
        left = np.where(np.isfinite(dynamics.calls_left), dynamics.calls_left, 0).astype(np.int64)
        choice = self.table[dynamics.state, np.clip(left, 0, self.table.shape[1] - 1)]
        return np.where(choice >= 0, choice, 0)


def add_ceilings(
    evaluation: Evaluation,
    make_env: MakeEnv,
    settings: Sequence[Setting],
    episodes: int,
    seed: int,
    outcomes: OutcomesOf | None = None,
) -> None:
    """Latent-knowing, played on the same draws as all others, and clairvoyant on these draws.

    Both are derived for episodes that are worth success − w · cost / c_ref at fixed weights and caps of calls, without
    a cap in USD or an early time limit. Latent-knowing moreover for a log that stores its probabilities and is not
    partial, and for costs without prompt cache unless cost has no weight, or `outcomes` gives those with it. Where that
    is not so at every setting, they are left out.
    """

    def everywhere(holds: Callable[[Any], bool]) -> bool:
        return all(holds(make_env(evaluation.split, **setting.arguments).dynamics) for setting in settings)

    if not everywhere(_fixed_terms):
        return
    if everywhere(lambda dynamics: _is_solved(dynamics, outcomes is not None)):
        knowing = LatentKnowingPolicy(outcomes)
        evaluate(
            make_env, settings, {knowing.name: knowing}, evaluation.split, episodes, seed, "ceiling", into=evaluation
        )
    success, cost, reward = [], [], []
    for setting in settings:
        env = make_env(evaluation.split, **setting.arguments)
        dynamics = env.dynamics
        cap, weight = _terms(dynamics)
        env.reset(seed=seed)  # the key of the rollouts
        solved = [
            clairvoyant(
                dynamics.arrays,
                dynamics.roots,
                dynamics.expensive,
                dynamics.drawn_rows(dynamics.roots, *places(env, len(dynamics.roots), episodes, repetition))[:, :, 0],
                cap=cap,
                cost_weight=weight,
                c_ref=dynamics.c_ref,
                cost_usd=least_cost_usd(dynamics.arrays) if dynamics.prompt_cache else None,
            )
            for repetition in range(episodes)
        ]
        success.append(np.concatenate([s.success.astype(float) for s in solved]))
        cost.append(np.concatenate([np.where(s.success, s.least_cost_usd, 0.0) for s in solved]))
        reward.append(np.concatenate([s.value for s in solved]))
    group = np.tile(dynamics.arrays.group[dynamics.roots], episodes)
    evaluation.add_ceiling("clairvoyant", group, np.array(success), np.array(cost), np.array(reward))


def _fixed_terms(dynamics: Any) -> bool:
    """Whether weights and caps are the same in all episodes, and the reward is what the ceilings maximise."""
    arguments = dynamics.arguments
    ranges = [term for term in (arguments.preference, arguments.budget_calls) if term is not None]
    return dynamics.only_cost_counts and all(low == high for low, high in map(ends, ranges))


def _is_solved(dynamics: Any, cached: bool) -> bool:
    """Whether latent-knowing is the optimum here; `cached`: it is told the costs with prompt cache."""
    costs_hold = cached or not dynamics.prompt_cache or _terms(dynamics)[1] == 0.0
    return dynamics.log.has_outcomes and dynamics.arrays.coverage_full and costs_hold


def _terms(dynamics: Any) -> tuple[int | None, float]:
    """Cap of expensive calls and weight of cost, where they are fixed."""
    cap = dynamics.arguments.budget_calls
    return None if cap is None else int(ends(cap)[0]), ends(dynamics.arguments.preference)[0]
