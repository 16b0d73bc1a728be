"""ThinkRoute: what an action does to one episode, and the loop over all of them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from rlroute.envs.observing import Frame
from rlroute.envs.recording import (
    PROMPT_TOKENS,
    THINK_STATE,
    Recording,
    attempts_of,
    await_response,
    await_state,
    call_of,
    draw_pool,
    draw_response,
)
from rlroute.envs.slots import (
    Rules,
    Shown,
    account,
    are_actions,
    begin_episode,
    begin_step,
    end_step,
    is_stuck,
    refuse,
    show,
    show_seen,
)
from rlroute.envs.think_route.heard import UNLIMITED, HouseRules, accepted, add_reply, forget, write_mask
from rlroute.envs.think_route.observation import observe_progress, observe_question, observe_reply, observe_terms
from rlroute.hints import index, sized
from rlroute.jit import kernel
from rlroute.pool import reserve_usd
from rlroute.rewards import RewardRules, replay_reward

BLOCK = 64  # slots whose responses are awaited together
AHEAD = 6  # slots by which states are asked for before they are read
FEW_CHOICES = 16  # of up to so many it is quicker to tell all, in a loop of one length, than to choose
LED_TO = -2  # in place of a state: the one that the slot's response leads to
THINK, CHECK = range(2)
RESPONSE_FIELDS = (
    "cost_usd",
    "latency_s",
    "next_state",
    "quality",
    "verdict",
    "completion_tokens",
    "answer",
    "answer_chars",
    "error",
    "truncated",
    "ends",
    "success",
)


class Game(NamedTuple):
    """Everything that the kernels of ThinkRoute read and write."""

    num_choices: int  # the arrays tell too, but not as a constant to be compiled in, see `hints.sized`
    num_tallies: int  # T, likewise
    slots: np.ndarray  # (num_envs,) records of `slots.SLOT` and `heard.TRACE`
    calls: np.ndarray  # (num_envs, num_choices) records of `heard.CALL`
    reserve_usd: np.ndarray  # (num_envs, num_choices) of the question at hand, kept under a budget only
    heard: np.ndarray  # (num_envs, max_rounds) records of `heard.REPLY`
    mask: np.ndarray  # (num_envs, num_actions) int8, 1 legal
    seen: np.ndarray  # (num_envs, layout.size) float32, the observations
    in_pool: np.ndarray  # (num_envs, num_choices) bool, choices that may be called in the episode
    pool_size: tuple[int, int]  # how many these are, at least and at most
    roots: np.ndarray  # (num_tasks,) root states to draw tasks from
    pool: np.ndarray  # (num_choices,) records of `observation.timed_pool`
    recording: Recording
    frame: Frame
    house: HouseRules
    reward: RewardRules
    recent: np.ndarray  # of `router_r1`, see rewards.push
    tallies: np.ndarray  # (num_envs, T) of the slots, what `info` tells


@kernel
def step_all(rules: Rules, game: Game, action: np.ndarray, shown: Shown) -> bool:
    """One step of every slot, and what it shows; False, and nothing is done, where some number is no action."""
    # Lengths that are compiled in where many slots step.
    num_choices, frame, width = game.num_choices, game.frame, game.recording.width
    num_actions = 1 + game.house.checks + 2 * num_choices
    num_features = frame.context_size + num_choices * frame.block_size
    sized(game.pool, num_choices)
    sized(game.calls, num_choices)
    sized(game.in_pool, num_choices)
    sized(game.reserve_usd, num_choices)
    sized(game.heard, game.house.max_rounds)
    sized(game.mask, num_actions)
    sized(game.seen, num_features)
    sized(shown.observation, num_features)
    sized(game.tallies, game.num_tallies)
    sized(shown.tallies, game.num_tallies)
    sized(game.recording.numbers, width)
    sized(game.recording.halves, 2 * width)
    if not are_actions(action, game.mask.shape[1]):
        return False
    for first in range(0, len(action), BLOCK):
        beyond = min(first + BLOCK, len(action))
        for i in range(first, beyond):
            draw(rules, game, index(i), action[i])
        for later in range(first, beyond + AHEAD):
            if later < beyond:
                look_ahead(game, index(later))
            if later >= first + AHEAD:
                finish(rules, game, shown, index(later - AHEAD), index(action[later - AHEAD]))
    return True


@kernel
def finish(rules: Rules, game: Game, shown: Shown, i: int, action: int) -> None:
    """The step of slot `i`, for which everything was looked up.

    What is long is called from one place only: kernels are inlined, and code beyond the processor's cache is slow.
    """
    me = game.slots[i]
    if me.active:
        begins, legal, ended = me.elapsed_steps == 0, game.mask[i, action] == 1, False
        if begins:
            open_episode(game, i)
        elif legal:
            ended = act(game, i, action)
            account(game.slots, i)
        else:
            ended = is_stuck(game.mask, i)
        if (begins or legal) and not ended:
            ended = not learn(game, i)
        if not begins:
            if legal or ended:
                me.reward = replay_reward(game.reward, game.recent, game.slots, i, ended)
            else:
                refuse(game.slots, i)
            end_step(rules, game.slots, i, ended)
    show(game.slots, game.tallies, shown, i)
    show_seen(game.seen, shown, i)


@kernel
def draw(rules: Rules, game: Game, i: int, action: int) -> None:
    """Begin the step of slot `i`, draw its task or its response, and ask for that."""
    slots, recording = game.slots, game.recording
    first_call = 1 + game.house.checks
    first_accept = first_call + len(game.pool)
    restart = rules.restart and slots[i].finished
    begin_step(slots, i)
    slots[i].entered = -1
    if restart:
        begin_episode(rules, slots, game.roots, i, -1)
        draw_pool(rules, slots, game.in_pool, game.pool_size, i)
        slots[i].entered = slots[i].state
    elif slots[i].active and game.mask[i, action] == 1:
        if action == THINK:
            slots[i].entered = slots[i].think_state
        elif action >= first_accept:
            choice = index(action - first_accept)
            slots[i].row = game.heard[i, accepted(game.house, slots, game.calls, game.heard, i, choice)].row
            slots[i].entered = LED_TO
            await_response(recording, slots[i].row)
        elif action >= first_call:
            choice = index(action - first_call)
            drawn = game.calls[i, choice].count
            slots[i].row = draw_response(recording, slots[i].noise, slots[i].state, choice, len(game.pool), drawn)
            await_response(recording, slots[i].row)


@kernel
def look_ahead(game: Game, i: int) -> None:
    """See which state the step of slot `i` leads to, and ask for it."""
    slots, recording = game.slots, game.recording
    if slots[i].entered == LED_TO:
        response = recording.responses[slots[i].row]
        slots[i].entered = -1 if response.ends else response.next_state
    following = slots[i].entered
    if following >= 0:
        await_state(recording, following)


@kernel
def enter_all(rules: Rules, game: Game, which: np.ndarray, tasks: np.ndarray) -> None:
    """Start the next episode of the slots `which` (M,) at `tasks` (M,); −1 draws one."""
    for k in range(len(which)):
        begin_episode(rules, game.slots, game.roots, which[k], tasks[k])
        draw_pool(rules, game.slots, game.in_pool, game.pool_size, which[k])
        game.slots[which[k]].entered = game.slots[which[k]].state
        open_episode(game, which[k])
        learn(game, which[k])


@kernel
def open_episode(game: Game, i: int) -> None:
    """Slot `i` has all its rounds left in a new episode."""
    game.slots[i].rounds_left = game.heard.shape[1]
    game.slots[i].depth = -1
    observe_terms(game.seen, i, game.frame, game.slots, game.pool)


@kernel
def learn(game: Game, i: int) -> bool:
    """What slot `i` sees where it has entered a question, or heard a reply; returns whether anything is legal."""
    me, first, beyond = game.slots[i], 0, game.num_choices
    if me.entered >= 0:
        arrive(game, i)
    else:
        choice = index(game.heard[i, index(me.num_heard - 1)].choice)
        observe_reply(game.seen, i, game.frame, game.calls, game.heard, choice)
        if game.num_choices > FEW_CHOICES and me.rounds_left > 0 and math.isinf(me.usd_left):
            first, beyond = choice, choice + 1  # nothing that others depend on has changed
    house, slots, calls, reserve, heard = game.house, game.slots, game.calls, game.reserve_usd, game.heard
    legal = write_mask(game.mask, house, slots, calls, reserve, heard, i, first, beyond)
    observe_progress(game.seen, i, game.frame, house, slots, calls, reserve, heard, game.mask, first, beyond)
    return legal


@kernel
def arrive(game: Game, i: int) -> None:
    """A new question: slot `i` stands at it, and nothing has been heard about it."""
    me, pool = game.slots[i], game.pool
    me.state = me.entered
    me.depth += 1
    forget(game.slots, game.calls, game.heard, i)
    me.think_state = game.recording.numbers[me.state, THINK_STATE]
    for c in range(len(pool)):
        attempts = attempts_of(game.recording, me.state, c, len(pool)) if game.in_pool[i, c] else 0
        game.calls[i, c].attempts = UNLIMITED if game.house.unlimited and attempts > 0 else attempts
        if me.usd_left < math.inf:
            prompt, limit = call_of(game.recording, me.state, c, PROMPT_TOKENS), pool[c].max_completion_tokens
            game.reserve_usd[i, c] = reserve_usd(prompt, limit, pool[c].input_usd, pool[c].output_usd)
    observe_question(game.seen, i, game.frame, game.slots, pool, game.recording, me.state)


@kernel
def act(game: Game, i: int, action: int) -> bool:
    """What a legal action brings: a cost, a reply, a verdict, or the quality of the end; returns whether that came."""
    me, first_call = game.slots[i], 1 + game.house.checks
    response = game.recording.responses[me.row]
    if action == THINK:
        me.vector[1] = game.house.think_cost_usd
    elif action >= first_call + len(game.pool):
        if response.ends:
            me.vector[0] = response.success
            if response.next_state < 0:
                me.vector[0] = response.quality
            return True
    elif action >= first_call:
        hear(game, i, index(action - first_call))
    else:
        me.vector[1] = game.house.check_cost_usd
        latest = game.heard[i, me.num_heard - 1]
        latest.verdict = game.recording.responses[latest.row].verdict
        latest.checkable = False
    return False


@kernel
def hear(game: Game, i: int, choice: int) -> None:
    """A call, whose response is that of the slot's row."""
    me = game.slots[i]
    response, reply = game.recording.responses[index(me.row)], game.heard[i, index(me.num_heard)]
    reply.choice, reply.row = choice, me.row
    reply.answer, reply.chars = response.answer, response.answer_chars
    reply.failed, reply.truncated = response.answer < 0 or response.error, response.truncated
    reply.verdict = response.verdict if game.house.shown else np.nan
    reply.checkable = game.house.checks and not math.isnan(response.verdict)
    add_reply(game.slots, game.calls, game.heard, i)
    cost, tokens = response.cost_usd, response.completion_tokens
    me.output_cost_usd += tokens * game.pool[choice].output_usd if tokens >= 0 else cost
    me.vector[1], me.vector[2] = cost, float(response.latency_s)
