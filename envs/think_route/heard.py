"""ThinkRoute: what an episode has heard at its question, what it may do next, and which reply it accepts. Kernels."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from rlroute.hints import index
from rlroute.jit import kernel, records

COMMITS = ("policy", "plurality", "verdict")
POLICY, PLURALITY, VERDICT = range(len(COMMITS))
MOST_ROUNDS = 2**15 - 1  # calls that are counted
UNLIMITED = MOST_ROUNDS  # attempts: more are never drawn

# What a slot holds beside `rlroute.envs.slots.SLOT`.
TRACE: dict[str, Any] = {
    "rounds_left": np.int32,
    "depth": np.int32,  # 0 at the whole question, k in its k-th sub-question
    "think_state": np.int32,  # where thinking leads to, −1 nowhere
    "num_heard": np.int32,  # replies at the question at hand
    "distinct": np.int32,  # different answers among them
}
# What there is to a choice at the question at hand.
CALL: dict[str, Any] = {
    "attempts": np.int16,  # that there are
    "count": np.int16,  # of them drawn
    "latest": np.int16,  # position of its latest reply, −1 none
}
# A reply heard there.
REPLY: dict[str, Any] = {
    "verdict": np.float64,  # in [0, 1], NaN unseen
    "choice": np.int32,  # who gave it, −1 where nothing was heard
    "row": np.int32,  # of the log, −1 none
    "answer": np.int32,  # code of the normalised answer, −1 for an empty one
    "agreement": np.int32,  # replies that give this answer, itself included; 0 for an empty one
    "chars": np.int32,  # length of the text, else of the answer
    "failed": np.bool_,  # empty or an error
    "truncated": np.bool_,  # cut at the completion limit
    "checkable": np.bool_,  # there is a verdict to ask for
}


class HouseRules(NamedTuple):
    """The arguments of ThinkRoute as kernels read them."""

    think_cost_usd: float
    check_cost_usd: float
    shown: bool  # whether verdicts come with the replies
    checks: bool  # whether they can be asked for, which makes one more action
    commit: int  # index of COMMITS
    unlimited: bool  # whether attempts never run out
    max_rounds: int  # calls in an episode


def house_rules(arguments: dict[str, Any]) -> HouseRules:
    """The rules that the arguments of an environment make."""
    return HouseRules(
        float(arguments["think_cost_usd"]),
        float(arguments["check_cost_usd"]),
        arguments["checker"] == "observe",
        arguments["checker"] == "action",
        COMMITS.index(arguments["commit"]),
        arguments["repeat"] == "same",
        int(arguments["max_rounds"]),
    )


def no_replies(num_envs: int, max_rounds: int) -> np.ndarray:
    """(num_envs, max_rounds) records of `REPLY` before anything is heard."""
    heard = records((num_envs, max_rounds), REPLY)
    heard["choice"] = heard["row"] = -1
    heard["verdict"] = np.nan
    return heard


@kernel
def forget(slots: np.ndarray, calls: np.ndarray, heard: np.ndarray, i: int) -> None:
    """A new question: nothing has been heard about it."""
    for k in range(slots[i].num_heard):
        heard[i, k].choice = heard[i, k].row = -1
        heard[i, k].verdict = np.nan
    slots[i].num_heard = slots[i].distinct = 0
    for c in range(calls.shape[1]):
        calls[i, c].count = 0
        calls[i, c].latest = -1


@kernel
def add_reply(slots: np.ndarray, calls: np.ndarray, heard: np.ndarray, i: int) -> None:
    """Count the reply that was written behind those heard."""
    me = slots[i]
    reply, equal = heard[i, index(me.num_heard)], 0
    for k in range(heard.shape[1]):  # to the end, and without branches: which replies agree is hard to foresee
        agrees = (heard[i, k].choice >= 0) & (heard[i, k].answer == reply.answer) & (reply.answer >= 0)
        heard[i, k].agreement += agrees
        equal += agrees
    reply.agreement = equal
    me.distinct += equal == 1
    call = calls[i, index(reply.choice)]
    call.latest = me.num_heard
    call.count += 1
    me.num_heard += 1
    me.rounds_left -= 1


@kernel
def accepted(house: HouseRules, slots: np.ndarray, calls: np.ndarray, heard: np.ndarray, i: int, choice: int) -> int:
    """Position of the reply that accepting `choice` takes: its latest, or the first of those a rule likes best."""
    if house.commit == POLICY:
        return calls[i, choice].latest
    best, top = 0, -np.inf
    for k in range(slots[i].num_heard):
        score = float(heard[i, k].agreement)
        if house.commit == VERDICT:
            score = -1.0 if math.isnan(heard[i, k].verdict) else heard[i, k].verdict
        if score > top:
            best, top = k, score
    return best


@kernel
def can_think(house: HouseRules, slots: np.ndarray, i: int) -> bool:
    """Thinking is possible at a question with sub-questions, while there is a call left to ask them with."""
    me = slots[i]
    return (me.think_state >= 0) & (me.rounds_left > 0) & (house.think_cost_usd <= me.usd_left)


@kernel
def write_mask(
    mask: np.ndarray,
    house: HouseRules,
    slots: np.ndarray,
    calls: np.ndarray,
    reserve_usd: np.ndarray,
    heard: np.ndarray,
    i: int,
    first: int,
    beyond: int,
) -> bool:
    """Row `i` of the legal actions: think, check (if it can be asked), call and accept each choice.

    Of the choices those from `first` to before `beyond`; `reserve_usd` (num_envs, num_choices) is read under a budget
    only. Returns whether any of what was written is legal.
    """
    me = slots[i]
    first_call, num_choices = 1 + house.checks, calls.shape[1]
    rounds_left, usd_left, thinks = me.rounds_left > 0, me.usd_left, can_think(house, slots, i)
    mask[i, 0] = thinks
    legal = thinks | (me.num_heard > 0)  # what was heard can be accepted
    if house.checks:
        unseen = me.num_heard > 0 and heard[i, max(me.num_heard - 1, 0)].checkable
        mask[i, 1] = unseen and rounds_left and house.check_cost_usd <= usd_left
    for c in range(first, beyond):
        call = calls[i, c]
        ready = rounds_left & (call.count < call.attempts)
        ready = ready and (usd_left == math.inf or reserve_usd[i, c] <= usd_left)
        mask[i, first_call + c], mask[i, first_call + num_choices + c] = ready, call.latest >= 0
        legal |= ready
    return legal
