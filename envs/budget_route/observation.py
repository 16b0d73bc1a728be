"""BudgetRoute: what a policy observes, from where an episode stands; shared by replay and live use."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rlroute.envs import observing
from rlroute.envs.observing import Frame, block_at, write_static
from rlroute.envs.recording import PROMPT_TOKENS, Recording, call_of, feature, features_at
from rlroute.envs.scales import money_feature, penalty_feature, reserve_share, weight_feature
from rlroute.jit import kernel
from rlroute.layout import Feature, Layout
from rlroute.pool import Pool, likely_usd, reserve_usd
from rlroute.rewards import ares_step_costs

MANY_CALLS = 15  # expensive calls of a long task
# log2(1 + calls) / 4: a number of calls on a log scale, so that the last few are told apart; 1 from `MANY_CALLS` on.
CALLS_FEATURE = np.log2(1.0 + np.arange(MANY_CALLS + 1)) / np.log2(1.0 + MANY_CALLS)


# What a slot holds beside `rlroute.envs.slots.SLOT`.
TRACE: dict[str, Any] = {
    "last": np.int32,  # who acted last, −1 at the start
    "elapsed_s": np.float64,
    "calls_left": np.float64,  # of expensive choices, infinite without a cap
    "completion_tokens": np.int64,
    "reasoning_tokens": np.int64,
    "cost_feature": np.float64,  # the weights as they are observed
    "latency_feature": np.float64,
}
# What each choice did in an episode, and what its prompt cache holds.
CALL: dict[str, Any] = {
    "visits": np.int32,
    "prefix_tokens": np.int32,  # of the prompt that it has processed
    "prefix_time_s": np.float64,  # when it last did
}
ESTIMATES = ("prior", "prospect")
# What there is to a choice of BudgetRoute beside its prices.
CHARGE = ("expensive", "cache_of", "latency", "step_cost")


@kernel
def clear(slots: np.ndarray, calls: np.ndarray, i: int) -> None:
    """Nothing was done in episode `i` yet."""
    me = slots[i]
    me.last = -1
    me.elapsed_s = 0.0
    me.calls_left = me.budget_calls
    me.completion_tokens = me.reasoning_tokens = 0
    me.cost_feature, me.latency_feature = weight_feature(me.cost_weight), weight_feature(me.latency_weight)
    for c in range(calls.shape[1]):
        calls[i, c].visits = calls[i, c].prefix_tokens = 0
        calls[i, c].prefix_time_s = -np.inf


@kernel
def served_tokens(
    slots: np.ndarray, calls: np.ndarray, pool: np.ndarray, i: int, choice: int, prompt_tokens: int
) -> int:
    """Prompt tokens that a choice would serve from its cache now."""
    call = calls[i, choice]
    lives = slots[i].elapsed_s - call.prefix_time_s <= pool[choice].cache_ttl_s
    return min(call.prefix_tokens, max(prompt_tokens, 0)) * lives


@kernel
def add_call(
    slots: np.ndarray,
    calls: np.ndarray,
    pool: np.ndarray,
    i: int,
    choice: int,
    prompt_tokens: int,
    latency_s: float,
) -> None:
    """A choice has acted; those that share its cache have its prompt processed."""
    slots[i].last = choice
    slots[i].elapsed_s += latency_s
    slots[i].calls_left -= pool[choice].expensive
    calls[i, choice].visits += 1
    for c in range(len(pool)):
        if pool[c].cache_of == pool[choice].cache_of:
            calls[i, c].prefix_tokens = max(prompt_tokens, 0)
            calls[i, c].prefix_time_s = slots[i].elapsed_s


CALLS_LEFT_FEATURE = Feature("calls_left", "log2(1 + expensive calls) / 4")
CACHED_FEATURE = Feature("cached", "share of the prompt in its cache")
CONTEXT = (
    observing.COST_WEIGHT,
    observing.LATENCY_WEIGHT,
    observing.SPENT,
    observing.USD_LEFT,
    observing.USD_CAPPED,
    CALLS_LEFT_FEATURE,
    Feature("one_call_left", "flag"),
    Feature("calls_capped", "flag"),
    Feature("step", "share of the longest task"),
)
CHOICE = (
    observing.PRIOR,
    observing.PROSPECT,
    observing.PRICE,
    observing.WEIGHTED_PRICE,
    observing.LATENCY,
    observing.CALLABLE,
    Feature("expensive", "flag"),
    observing.RESERVE,
    Feature("calls", "log2(1 + calls) / 4"),
    Feature("share", "share of the steps so far"),
    Feature("acted_last", "flag"),
    CACHED_FEATURE,
)
INDEX_CONTEXT = (
    observing.ROW,
    observing.COST_WEIGHT,
    observing.LATENCY_WEIGHT,
    observing.USD_LEFT,
    CALLS_LEFT_FEATURE,
)
INDEX_CHOICE = (observing.CALLABLE, CACHED_FEATURE)
# Their places: in the context after the static features, and in a block.
COST_WEIGHT, LATENCY_WEIGHT, SPENT, USD_LEFT, USD_CAPPED, CALLS_LEFT, ONE_CALL_LEFT, CALLS_CAPPED, STEP = range(9)
PRIOR, PROSPECT, PRICE, WEIGHTED_PRICE, LATENCY, CALLABLE, EXPENSIVE, RESERVE, CALLS, SHARE, LAST, CACHED = range(12)


def make_layout(num_choices: int, num_extra: int, index: bool = False) -> Layout:
    """The observation of BudgetRoute for a pool of `num_choices`; with `index` only what its row does not tell."""
    if index:
        return Layout(INDEX_CONTEXT, INDEX_CHOICE, num_choices, (), ("choose",))
    return observing.make_layout(CONTEXT, CHOICE, num_choices, num_extra, (), ("choose",))


def charged_pool(pool: Pool, expensive: np.ndarray, l_ref: float, prompt_cache: bool, one_cache: bool) -> np.ndarray:
    """The pool as kernels read it, (num_choices,) records of `PRICES` and `CHARGE`.

    `expensive` (num_choices,) bool are the choices that `budget_calls` counts. With `one_cache` all share a prompt
    cache; without `prompt_cache` nothing is served from one.
    """
    rank = np.argsort(np.argsort(pool.mean_cost_usd, kind="stable"))
    table = pool.to_records(
        expensive=np.asarray(expensive, bool),
        cache_of=np.zeros(pool.size, np.int64) if one_cache else np.arange(pool.size),
        latency=np.array([money_feature(float(seconds) / max(l_ref, 1e-9)) for seconds in pool.mean_latency_s]),
        step_cost=ares_step_costs(pool.size)[rank],
    )
    if not prompt_cache:
        table["cache_ttl_s"] = -1.0  # whatever was processed is forgotten at once
    return table


@kernel
def calls_feature(calls: float) -> float:
    """A number of calls as `CALLS_FEATURE` has it."""
    return CALLS_FEATURE[int(min(calls, MANY_CALLS))]


@kernel
def observe_step(
    out: np.ndarray,  # (rows, layout.size) float32
    row: int,
    frame: Frame,
    slots: np.ndarray,  # (num_envs,) records of `SLOT` and `TRACE`
    calls: np.ndarray,  # (num_envs, num_choices) records of `CALL`
    pool: np.ndarray,  # (num_choices,) records of `PRICES` and `CHARGE`
    recording: Recording,
    i: int,
    s: int,  # the state that episode `i` stands in
    step: int,
    mask: np.ndarray,  # (num_envs, num_choices) int8
) -> None:
    """Fill a row of `out` with what episode `i` shows. Replay and live loops both observe through this function."""
    me, num_choices = slots[i], len(pool)
    first = features_at(num_choices)
    at = write_static(out, row, frame, recording, s, first)
    out[row, at + COST_WEIGHT], out[row, at + LATENCY_WEIGHT] = me.cost_feature, me.latency_feature
    if frame.static_size == 0:
        out[row, at + 2], out[row, at + 3] = money_feature(me.usd_left * frame.per_usd), calls_feature(me.calls_left)
        for c in range(num_choices):
            block, prompt = block_at(frame, c), call_of(recording, s, c, PROMPT_TOKENS)
            out[row, block] = mask[i, c]
            out[row, block + 1] = served_tokens(slots, calls, pool, i, c, prompt) / max(prompt, 1)
        return
    out[row, at + SPENT] = penalty_feature(me.cost_weight, me.cost_usd * frame.per_usd)
    out[row, at + USD_LEFT] = money_feature(me.usd_left * frame.per_usd)
    capped = math.isfinite(me.budget_usd)
    out[row, at + USD_CAPPED], out[row, at + CALLS_CAPPED] = capped, math.isfinite(me.budget_calls)
    out[row, at + CALLS_LEFT] = calls_feature(me.calls_left)
    out[row, at + ONE_CALL_LEFT] = me.calls_left == 1
    out[row, at + STEP] = min(step * frame.per_step, 1.0)
    total = 0
    for c in range(num_choices):
        total += calls[i, c].visits
    of_total = 1.0 / max(total, 1)
    prior, prospect = first + at, first + at + num_choices
    for c in range(num_choices):
        prompt, visits = call_of(recording, s, c, PROMPT_TOKENS), calls[i, c].visits
        cached = served_tokens(slots, calls, pool, i, c, prompt)
        price = likely_usd(pool, c, prompt, cached) * frame.per_usd
        block = block_at(frame, c)
        out[row, block + PRIOR] = feature(recording, s, prior + c)
        out[row, block + PROSPECT] = feature(recording, s, prospect + c)
        out[row, block + PRICE] = money_feature(price)
        out[row, block + WEIGHTED_PRICE] = penalty_feature(me.cost_weight, price)
        out[row, block + LATENCY], out[row, block + EXPENSIVE] = pool[c].latency, pool[c].expensive
        out[row, block + CALLABLE] = mask[i, c]
        out[row, block + RESERVE] = 0.0
        if capped:
            reserve = reserve_usd(prompt, pool[c].max_completion_tokens, pool[c].input_usd, pool[c].output_usd)
            out[row, block + RESERVE] = reserve_share(reserve, me.usd_left)
        out[row, block + CALLS] = calls_feature(visits)
        out[row, block + SHARE] = visits * of_total
        out[row, block + LAST] = me.last == c
        out[row, block + CACHED] = cached / max(prompt, 1)
