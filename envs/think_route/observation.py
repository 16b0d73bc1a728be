"""ThinkRoute: what a policy observes, from what was heard and where it stands; shared by replay and live use."""

from __future__ import annotations

import math

import numpy as np

from rlroute.envs import observing
from rlroute.envs.observing import Frame, block_at, write_static
from rlroute.envs.recording import PROMPT_TOKENS, Recording, call_of, feature, features_at
from rlroute.envs.scales import money_feature, penalty_feature, reserve_share, weight_feature
from rlroute.envs.think_route.heard import HouseRules, can_think
from rlroute.hints import index
from rlroute.jit import kernel
from rlroute.layout import Feature, Layout
from rlroute.pool import Pool, likely_usd

CHARS_SCALE = 10.0  # log(1 + characters) of the longest answers
LENGTHS = np.array([math.log1p(chars) / CHARS_SCALE for chars in range(1024)])  # logarithms are slow
DEPTH_SCALE = 4.0
UNSEEN = 0.5  # stands for a verdict
ESTIMATES = ("prior", "price")

ROUNDS_LEFT_FEATURE = Feature("rounds_left", "share of max_rounds")
CAN_THINK_FEATURE = Feature("can_think", "flag")
HEARD_FEATURE = Feature("heard", "share of max_rounds")
DISTINCT_FEATURE = Feature("distinct_answers", "share of max_rounds")
ANSWERED_FEATURE = Feature("answered", "flag")
SUPPORT_FEATURE = Feature("support", "equal answers / max_rounds")
FAILED_FEATURE = Feature("failed", "flag, empty or error")
VERDICT_FEATURE = Feature("verdict", "checker's verdict, 0.5 unseen")
CONTEXT = (
    observing.COST_WEIGHT,
    observing.LATENCY_WEIGHT,
    observing.SPENT,
    observing.USD_LEFT,
    observing.USD_CAPPED,
    ROUNDS_LEFT_FEATURE,
    CAN_THINK_FEATURE,
    Feature("depth", "sub-question / 4"),
    HEARD_FEATURE,
    DISTINCT_FEATURE,
)
CHOICE = (
    observing.PRIOR,
    observing.PRICE,
    observing.WEIGHTED_PRICE,
    observing.LATENCY,
    observing.CALLABLE,
    observing.RESERVE,
    Feature("calls", "share of max_rounds"),
    ANSWERED_FEATURE,
    Feature("agreement", "share of what was heard"),
    SUPPORT_FEATURE,
    Feature("length", "log of characters / 10"),
    FAILED_FEATURE,
    Feature("truncated", "flag"),
    VERDICT_FEATURE,
    Feature("verdict_seen", "flag"),
)
INDEX_CONTEXT = (
    observing.ROW,
    observing.COST_WEIGHT,
    observing.LATENCY_WEIGHT,
    observing.USD_LEFT,
    ROUNDS_LEFT_FEATURE,
    CAN_THINK_FEATURE,
    HEARD_FEATURE,
    DISTINCT_FEATURE,
)
INDEX_CHOICE = (observing.CALLABLE, ANSWERED_FEATURE, SUPPORT_FEATURE, VERDICT_FEATURE, FAILED_FEATURE)
# Their places: in the context after the static features, and in a block.
COST_WEIGHT, LATENCY_WEIGHT, SPENT, USD_LEFT, USD_CAPPED, ROUNDS_LEFT, CAN_THINK, DEPTH, HEARD, DISTINCT = range(10)
PRIOR, PRICE, WEIGHTED_PRICE, LATENCY, CALLABLE, RESERVE, CALLS, ANSWERED = range(8)
AGREEMENT, SUPPORT, LENGTH, FAILED, TRUNCATED, VERDICT, VERDICT_SEEN = range(8, 15)


def make_layout(num_choices: int, num_extra: int, checker: str | None, index: bool = False) -> Layout:
    """The observation of ThinkRoute for a pool of `num_choices`; with `index` only what its row does not tell."""
    alone, each = ("think", "check") if checker == "action" else ("think",), ("call", "accept")
    if index:
        return Layout(INDEX_CONTEXT, INDEX_CHOICE, num_choices, alone, each)
    return observing.make_layout(CONTEXT, CHOICE, num_choices, num_extra, alone, each)


def timed_pool(pool: Pool, l_ref: float) -> np.ndarray:
    """The pool as kernels read it, (num_choices,) records of `PRICES` and of the feature `latency`."""
    unit = max(l_ref, 1e-9)
    return pool.to_records(latency=np.array([money_feature(float(seconds) / unit) for seconds in pool.mean_latency_s]))


@kernel
def observe_terms(out: np.ndarray, i: int, frame: Frame, slots: np.ndarray, pool: np.ndarray) -> None:
    """Fill what stays as it is all through episode `i`: weights, whether there is a cap, latencies."""
    at = index(frame.static_size if frame.static_size else 1)
    out[i, at + COST_WEIGHT] = weight_feature(slots[i].cost_weight)
    out[i, at + LATENCY_WEIGHT] = weight_feature(slots[i].latency_weight)
    if frame.static_size == 0:
        return
    out[i, at + USD_CAPPED] = math.isfinite(slots[i].budget_usd)
    for c in range(len(pool)):
        out[i, block_at(frame, c) + LATENCY] = pool[c].latency


@kernel
def observe_question(
    out: np.ndarray,
    i: int,
    frame: Frame,
    slots: np.ndarray,
    pool: np.ndarray,
    recording: Recording,
    s: int,
) -> None:
    """Fill what holds of the question of state `s` before anything is heard: texts, priors, prices, no replies."""
    first = features_at(len(pool))
    at = write_static(out, i, frame, recording, s, first)
    if frame.static_size == 0:
        for c in range(len(pool)):
            block = block_at(frame, c)
            out[i, block + 1] = out[i, block + 2] = out[i, block + 4] = 0.0
            out[i, block + 3] = UNSEEN
        return
    out[i, at + DEPTH] = min(slots[i].depth / DEPTH_SCALE, 1.0)
    for c in range(len(pool)):
        block = block_at(frame, c)
        usd = likely_usd(pool, c, call_of(recording, s, c, PROMPT_TOKENS), 0)
        out[i, block + PRIOR] = feature(recording, s, first + at + c)
        out[i, block + PRICE] = feature(recording, s, first + at + len(pool) + c)
        out[i, block + WEIGHTED_PRICE] = penalty_feature(slots[i].cost_weight, usd * frame.per_usd)
        for k in range(CALLS, VERDICT_SEEN + 1):
            out[i, block + k] = 0.0
        out[i, block + VERDICT] = UNSEEN


@kernel
def length_feature(chars: int) -> float:
    """The length of an answer on a log scale, in [0, 1]."""
    return LENGTHS[chars] if 0 <= chars < len(LENGTHS) else min(math.log1p(chars) / CHARS_SCALE, 1.0)


@kernel
def observe_reply(out: np.ndarray, i: int, frame: Frame, calls: np.ndarray, heard: np.ndarray, c: int) -> None:
    """Fill what the latest reply of choice `c`, which has given one, tells by itself."""
    block, reply = block_at(frame, c), heard[i, index(calls[i, c].latest)]
    seen = not math.isnan(reply.verdict)
    verdict = reply.verdict if seen else UNSEEN
    if frame.static_size == 0:
        out[i, block + 1], out[i, block + 3], out[i, block + 4] = True, verdict, reply.failed
        return
    out[i, block + CALLS] = calls[i, c].count / heard.shape[1]
    out[i, block + ANSWERED] = True
    out[i, block + LENGTH] = length_feature(reply.chars)
    out[i, block + FAILED], out[i, block + TRUNCATED] = reply.failed, reply.truncated
    out[i, block + VERDICT], out[i, block + VERDICT_SEEN] = verdict, seen


@kernel
def observe_progress(
    out: np.ndarray,  # (num_envs, layout.size) float32
    i: int,
    frame: Frame,
    house: HouseRules,
    slots: np.ndarray,  # (num_envs,) records of `SLOT` and `TRACE`
    calls: np.ndarray,  # (num_envs, num_choices) records of `CALL`
    reserve_usd: np.ndarray,  # (num_envs, num_choices), read under a budget only
    heard: np.ndarray,  # (num_envs, max_rounds) records of `REPLY`
    mask: np.ndarray,  # (num_envs, num_actions) int8
    first: int,
    beyond: int,
) -> None:
    """Fill what any step may change: what is left, what may be done, how the answers heard agree.

    What may be done is told of the choices from `first` to before `beyond`.
    """
    me, first_call = slots[i], 1 + house.checks
    of_rounds, of_heard = 1.0 / heard.shape[1], 1.0 / max(me.num_heard, 1)  # shares: divisions are slow
    if frame.static_size == 0:
        out[i, 3], out[i, 4] = money_feature(me.usd_left * frame.per_usd), me.rounds_left * of_rounds
        out[i, 5] = can_think(house, slots, i)
        out[i, 6], out[i, 7] = me.num_heard * of_rounds, me.distinct * of_rounds
    else:
        at = index(frame.static_size)
        out[i, at + SPENT] = penalty_feature(me.cost_weight, me.cost_usd * frame.per_usd)
        out[i, at + USD_LEFT] = money_feature(me.usd_left * frame.per_usd)
        out[i, at + ROUNDS_LEFT] = me.rounds_left * of_rounds
        out[i, at + CAN_THINK] = can_think(house, slots, i)
        out[i, at + HEARD] = me.num_heard * of_rounds
        out[i, at + DISTINCT] = me.distinct * of_rounds
    for c in range(first, beyond):
        block = block_at(frame, c)
        if frame.static_size == 0:
            out[i, block] = mask[i, first_call + c]
        else:
            out[i, block + CALLABLE] = mask[i, first_call + c]
            out[i, block + RESERVE] = reserve_share(reserve_usd[i, c], me.usd_left)
    for k in range(heard.shape[1]):
        reply = heard[i, k]
        if reply.choice < 0:
            break  # no more replies
        block = block_at(frame, index(reply.choice))  # a later reply of the same choice is written over an earlier one
        if frame.static_size == 0:
            out[i, block + 2] = reply.agreement * of_rounds
        else:
            out[i, block + AGREEMENT] = reply.agreement * of_heard
            out[i, block + SUPPORT] = reply.agreement * of_rounds
