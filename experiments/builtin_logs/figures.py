"""Reference figures of the built-in logs, printed and written to rlroute/generators/figures.py.

    python experiments/builtin_logs/figures.py            # print
    python experiments/builtin_logs/figures.py --write    # and update the figures that the cards show

All figures are expectations over the stored outcome probabilities on the test split (salt 0), not rollouts;
what is fitted is fitted on train, what is tuned is tuned on val. Clairvoyant figures use the first recorded
attempts.
"""

from __future__ import annotations

import argparse
import dataclasses
import pprint
from pathlib import Path
from typing import Any

import numpy as np

import rlroute.generators
from rlroute.arrays import LogArrays
from rlroute.envs.budget_route import ceilings as budget
from rlroute.envs.think_route import ceilings as think
from rlroute.generators import efforts, questions, tasks
from rlroute.log import Log
from rlroute.metrics import quality_at
from rlroute.outcomes import Outcomes, recorded_rows, stored_outcomes
from rlroute.prior import fit_prior
from rlroute.text import HashedNgrams

CAPS = (2, 3, 4)  # expensive calls
COST_WEIGHTS = (0.03, 0.1, 0.2, 0.5, 1.0)  # in units of 1 / c_ref
TRAIN, VAL, TEST = 0, 1, 2


def observables_prior(log: Log, states: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Ridge estimate of `target` (S, C) for all of `states` from text and extra features, fitted on train."""
    texts = log.states["text"].to_pylist()
    hashed = HashedNgrams()([texts[s] for s in states])
    extra = np.asarray(log.arrays.extra, np.float32)[states]
    train = log.splits()[states] == TRAIN
    spread = extra[train].std(axis=0)
    scaled = (extra - extra[train].mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    features = np.concatenate([hashed, 0.3 * scaled], axis=1)
    group = np.asarray(log.arrays.group, np.int64)[states]
    prior, _ = fit_prior(
        features[train],
        target[states][train].astype(np.float32),
        np.ones(int(train.sum()), np.float32),
        group[train],
    )
    return np.asarray(prior(features))


# ---- tasks -------------------------------------------------------------------------------------------------


def under_rule(
    arrays: LogArrays, outcomes: Outcomes, roots: np.ndarray, large: np.ndarray, cap: int | None
) -> tuple[float, float, float]:
    """Exact success, expensive calls and cost of calling the expensive model where `large` (S,) says so.

    `large` is the probability of an expensive call; when the cap is used up the cheap model acts.
    """
    layers = 1 if cap is None else cap + 1
    num_states = len(large)
    won = np.asarray(arrays.terminal & arrays.success)
    table = np.zeros((3, num_states + 1, layers))
    table[0, :num_states] = won[:, None]
    acting = np.flatnonzero(~np.asarray(arrays.terminal))
    step = np.asarray(arrays.step)[acting]
    price = outcomes.mean_cost_usd
    for value in np.unique(step)[::-1]:
        states = acting[step == value]
        ahead = [
            (outcomes.probability[states, c][None, ..., None] * table[:, outcomes.next_state[states, c]]).sum(axis=2)
            for c in (0, 1)
        ]
        if cap is not None:
            ahead[1] = np.concatenate([ahead[0][..., :1], ahead[1][..., :-1]], axis=-1)
        share = np.repeat(large[states][:, None], layers, axis=1)
        if cap is not None:
            share[:, 0] = 0.0
        table[:, states] = (1.0 - share) * ahead[0] + share * ahead[1]
        table[1, states] += share
        table[2, states] += (1.0 - share) * price[states, 0, None] + share * price[states, 1, None]
    result = table[:, roots, layers - 1].mean(axis=1)
    return float(result[0]), float(result[1]), float(result[2])


def tasks_figures(log: Log) -> dict[str, Any]:
    """Success, expensive calls and cost of boundary policies, rules and ceilings."""
    arrays, outcomes = log.arrays, stored_outcomes(log)
    split = log.splits()
    roots = {s: np.flatnonzero(np.asarray(arrays.root) & (split == s)) for s in (VAL, TEST)}
    expensive = np.array([False, True])
    num_states = len(split)

    def show(result: tuple[float, float, float]) -> dict[str, float]:
        success, calls, cost = result
        return {
            "success": round(float(success), 4),
            "expensive_calls": round(float(calls), 3),
            "cost_usd": round(float(cost), 6),
        }

    def run(large: np.ndarray, cap: int | None, s: int = TEST) -> tuple[float, float, float]:
        return under_rule(arrays, outcomes, roots[s], large, cap)

    acting = np.flatnonzero(~np.asarray(arrays.terminal))
    recorded = recorded_rows(arrays)
    progress = np.where(recorded >= 0, arrays.quality[recorded], np.nan)
    quality = np.full((num_states, 2), np.nan)
    quality[acting] = progress[acting].mean(axis=2)
    prior = observables_prior(log, acting, quality)
    gap = np.zeros(num_states)
    gap[acting] = prior[:, 1] - prior[:, 0]

    figures: dict[str, Any] = {
        "always_small": show(run(np.zeros(num_states), None)),
        "always_large": show(run(np.ones(num_states), None)),
        "cost_ratio_with_prompt_cache": round(_cached_cost_ratio(log, outcomes, roots[TEST]), 3),
    }
    thresholds = np.quantile(gap[acting], np.linspace(0.02, 0.98, 33))
    full = figures["always_large"]["expensive_calls"]
    for cap in CAPS:
        best = max(thresholds, key=lambda t: run((gap > t).astype(float), cap, VAL)[0])
        knowing = budget.latent_knowing(log, roots[TEST], expensive, cap, outcomes=outcomes)
        seer = budget.clairvoyant(arrays, roots[TEST], expensive, recorded[:, :, 0], cap)
        figures[f"cap_{cap}"] = {
            "first_large": show(run(np.ones(num_states), cap)),
            "random_mix": show(run(np.full(num_states, min(1.0, cap / full)), cap)),
            "step_rule": show(run((gap > best).astype(float), cap)),
            "latent_knowing": show((knowing.success.mean(), knowing.expensive_calls.mean(), knowing.cost_usd.mean())),
            "clairvoyant": {"success": round(float(seer.success.mean()), 4)},
        }
    return figures


def _cached_cost_ratio(log: Log, outcomes: Outcomes, roots: np.ndarray) -> float:
    """Cost of always-large over that of always-small when the prompt of the step before is cached."""
    arrays = log.arrays
    step = np.asarray(arrays.step)
    prompt = tasks.DEFAULT.prompt_base + tasks.DEFAULT.prompt_per_step * (step - 1)
    cached = np.where(step > 0, prompt, 0)
    saved = cached[:, None, None] * (np.asarray(arrays.input_usd) - np.asarray(arrays.cached_input_usd))[:, None]
    cheaper = dataclasses.replace(outcomes, cost_usd=outcomes.cost_usd - saved)
    small, large = (under_rule(arrays, cheaper, roots, np.full(len(step), c), None)[2] for c in (0.0, 1.0))
    return large / small


# ---- questions ---------------------------------------------------------------------------------------------


def follow(arrays: LogArrays, outcomes: Outcomes, roots: np.ndarray, pick: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Expected quality and cost (M,) of thinking where one can, then calling `pick` (S,) and accepting it."""
    num_states = len(pick)
    quality, cost = np.zeros(num_states + 1), np.zeros(num_states + 1)
    step = np.asarray(arrays.step)
    every = np.arange(num_states)
    for value in np.unique(step)[::-1]:
        states = every[step == value]
        choice = pick[states]
        chance, following = outcomes.probability[states, choice], outcomes.next_state[states, choice]
        gained = np.where(following < 0, outcomes.quality[states, choice], quality[following])
        quality[states] = (chance * gained).sum(axis=1)
        cost[states] = outcomes.mean_cost_usd[states, choice] + (chance * cost[following]).sum(axis=1)
    start = np.where(arrays.think_state[roots] >= 0, arrays.think_state[roots], roots)
    return quality[start], cost[start]


def questions_figures(log: Log) -> dict[str, Any]:
    """Quality, cost and reward of single choices, single-shot routers and ceilings at every cost weight."""
    arrays, outcomes = log.arrays, stored_outcomes(log)
    c_ref = float(log.reference["cost_usd"])
    is_root = np.asarray(arrays.root)
    roots = np.flatnonzero(is_root & (log.splits() == TEST))
    right = outcomes.probability[..., outcomes.kinds.index("correct")]  # about the entity asked for
    cost = outcomes.mean_cost_usd
    weights = np.array(COST_WEIGHTS)

    # What a single-shot router can learn: from the mean quality of two recorded attempts, on train.
    recorded = recorded_rows(arrays)
    asked = np.flatnonzero(is_root)
    quality = np.where(recorded >= 0, arrays.quality[recorded], np.nan).mean(axis=2)
    whole = np.zeros(right.shape)
    whole[asked] = observables_prior(log, asked, quality)
    hops = np.flatnonzero(~is_root | (np.asarray(arrays.think_state) < 0))
    aptitude = np.zeros(right.shape)
    aptitude[hops] = observables_prior(log, hops, right)

    single_quality, single_cost = right[roots].mean(axis=0), cost[roots].mean(axis=0)
    figures: dict[str, Any] = {
        "c_ref_usd": round(c_ref, 8),
        "single": {
            name: {"quality": round(float(q), 4), "cost": round(float(c / c_ref), 4)}
            for name, q, c in zip(arrays.choice_names, single_quality, single_cost, strict=True)
        },
    }
    args = (roots, weights, c_ref)
    knowing = think.latent_knowing(log, *args, outcomes=outcomes)
    blind = think.latent_knowing(log, *args, outcomes=outcomes, checker=None)
    thoughtless = think.latent_knowing(log, *args, outcomes=outcomes, thinking=False)
    seer = think.clairvoyant(arrays, *args, rows=recorded)

    def show(weight: float, q: np.ndarray, c: np.ndarray) -> dict[str, float]:
        mean_quality, mean_cost = float(q.mean()), float(c.mean() / c_ref)
        reward = mean_quality - weight * mean_cost
        return {"reward": round(reward, 4), "quality": round(mean_quality, 4), "cost": round(mean_cost, 4)}

    for w, weight in enumerate(COST_WEIGHTS):
        best = int(np.argmax(single_quality - weight * single_cost / c_ref))
        shot = np.argmax(whole[roots] - weight * cost[roots] / c_ref, axis=1)
        knows = np.argmax(right[roots] - weight * cost[roots] / c_ref, axis=1)
        at = np.arange(len(roots))
        shot_cost = cost[roots, shot]
        figures[f"weight_{weight}"] = {
            "best_single": show(weight, right[roots, best], cost[roots, best]),
            "best_mix_at_cost_of_single_shot": {
                "quality": round(float(quality_at(single_cost, single_quality, shot_cost.mean())), 4)
            },
            "single_shot": show(weight, right[roots][at, shot], shot_cost),
            "single_shot_latent_knowing": show(weight, right[roots][at, knows], cost[roots, knows]),
            "think_and_route_hops": show(
                weight, *follow(arrays, outcomes, roots, np.argmax(aptitude - weight * cost / c_ref, axis=1))
            ),
            "latent_knowing_without_thinking": show(weight, thoughtless.quality[w], thoughtless.cost_usd[w]),
            "latent_knowing_without_checker": show(weight, blind.quality[w], blind.cost_usd[w]),
            "latent_knowing": show(weight, knowing.quality[w], knowing.cost_usd[w]),
            "clairvoyant": {"reward": round(float(seer.value[w].mean()), 4)},
        }
    return figures


def efforts_figures(log: Log) -> dict[str, Any]:
    """Success, steps, tokens, cost (without prompt cache) and seconds of one level always, on all tasks."""
    arrays, outcomes = log.arrays, stored_outcomes(log)
    roots = np.flatnonzero(arrays.root)
    won = np.asarray(arrays.terminal & arrays.success, np.float64)
    figures: dict[str, Any] = {}
    for choice, name in enumerate(arrays.choice_names):
        # One column a quantity: its value in a state, summed over the way from there.
        own = np.zeros((arrays.num_states + 1, 4))
        rows = arrays.row_cell % arrays.num_choices == choice
        tokens, seconds = (float(np.mean(np.asarray(x)[rows])) for x in (arrays.completion_tokens, arrays.latency_s))
        own[:-1, 1:] = np.stack(
            [
                np.full(arrays.num_states, tokens),
                outcomes.mean_cost_usd[:, choice],
                np.full(arrays.num_states, seconds),
            ],
            axis=1,
        )
        own[:-1, 0] = 1.0
        own[:-1][arrays.terminal] = own[-1] = 0.0
        total, success = own.copy(), np.append(won, 0.0)
        for step in np.unique(arrays.step)[::-1]:
            states = np.flatnonzero((arrays.step == step) & ~arrays.terminal)
            chance, following = outcomes.probability[states, choice], outcomes.next_state[states, choice]
            total[states] += (chance[:, :, None] * total[following]).sum(axis=1)
            success[states] = (chance * success[following]).sum(axis=1)
        means = total[roots].mean(axis=0)
        figures[name] = {
            "success": round(float(success[roots].mean()), 4),
            "steps": round(float(means[0]), 2),
            "completion_tokens": round(float(means[1]), 0),
            "cost_usd": round(float(means[2]), 4),
            "seconds": round(float(means[3]), 1),
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="update rlroute/generators/figures.py")
    write = parser.parse_args().write
    figures = {
        "questions": questions_figures(questions.generate()),
        "tasks": tasks_figures(tasks.generate()),
        "efforts": efforts_figures(efforts.generate()),
    }
    text = pprint.pformat(figures, width=108, sort_dicts=False)
    print(text)
    if write:
        target = Path(rlroute.generators.__file__).with_name("figures.py")
        head, _, _ = target.read_text().partition("FIGURES:")
        target.write_text(f"{head}FIGURES: dict[str, dict[str, Any]] = {text}\n")


if __name__ == "__main__":
    main()
