"""BudgetRoute: what an action does to one episode, which actions are masked, and the loop over all of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rlroute.envs.budget_route.observation import add_call, clear, observe_step, served_tokens
from rlroute.envs.observing import Frame
from rlroute.envs.recording import (
    PROMPT_TOKENS,
    Recording,
    attempts_of,
    await_response,
    await_state,
    call_of,
    draw_pool,
    draw_response,
    step_at,
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
)
from rlroute.hints import index, sized
from rlroute.jit import kernel
from rlroute.pool import call_usd, reserve_usd
from rlroute.rewards import ARES, RewardRules, ares, replay_reward

BLOCK = 64  # slots whose responses are awaited together
AHEAD = 6  # slots by which states are asked for before they are read
LED_TO = -2  # in place of a state: the one that the slot's response leads to
RESPONSE_FIELDS = (
    "cost_usd",
    "latency_s",
    "next_state",
    "prompt_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "error",
    "ends",
    "success",
)


class Game(NamedTuple):
    """Everything that the kernels of BudgetRoute read and write."""

    num_choices: int  # the arrays tell too, but not as a constant to be compiled in, see `hints.sized`
    num_tallies: int  # T, likewise
    slots: np.ndarray  # (num_envs,) records of `slots.SLOT` and `observation.TRACE`
    calls: np.ndarray  # (num_envs, num_choices) records of `observation.CALL`
    mask: np.ndarray  # (num_envs, num_choices) int8, 1 legal
    in_pool: np.ndarray  # (num_envs, num_choices) bool, choices that may be called in the episode
    pool_size: tuple[int, int]  # how many these are, at least and at most
    roots: np.ndarray  # (num_tasks,) root states to draw tasks from
    pool: np.ndarray  # (num_choices,) records of `pool.PRICES` and `observation.CHARGE`
    recording: Recording
    frame: Frame
    recharged: bool  # whether calls are charged by their tokens and what is cached, not as recorded
    reward: RewardRules
    recent: np.ndarray  # of `router_r1`, see rewards.push
    tallies: np.ndarray  # (num_envs, T) of the slots, what `info` tells


@kernel
def step_all(rules: Rules, game: Game, action: np.ndarray, shown: Shown) -> bool:
    """One step of every slot, and what it shows; False, and nothing is done, where some number is no action."""
    # Lengths that are compiled in where many slots step.
    num_choices, frame, width = game.num_choices, game.frame, game.recording.width
    num_features = frame.context_size + num_choices * frame.block_size
    sized(game.pool, num_choices)
    sized(game.calls, num_choices)
    sized(game.in_pool, num_choices)
    sized(game.mask, num_choices)
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
            clear(game.slots, game.calls, i)
        elif legal:
            act(game, i, action)
            account(game.slots, i)
            ended = game.recording.responses[me.row].ends
        if begins or legal:
            write_mask(game, i)
        if not begins:
            ended = ended or is_stuck(game.mask, i)
            if legal:
                me.reward = paid(game, i, ended)
            elif not ended:
                refuse(game.slots, i)
            end_step(rules, game.slots, i, ended)
    show(game.slots, game.tallies, shown, i)
    observe(game, i, shown.observation, i)


@kernel
def draw(rules: Rules, game: Game, i: int, action: int) -> None:
    """Begin the step of slot `i`, draw its task or its response, and ask for that."""
    slots, recording = game.slots, game.recording
    restart = rules.restart and slots[i].finished
    begin_step(slots, i)
    slots[i].entered = -1
    if restart:
        begin_episode(rules, slots, game.roots, i, -1)
        draw_pool(rules, slots, game.in_pool, game.pool_size, i)
        slots[i].entered = slots[i].state
    elif slots[i].active and game.mask[i, action] == 1:
        slots[i].row = draw_response(recording, slots[i].noise, slots[i].state, action, len(game.pool), 0)
        await_response(recording, slots[i].row)
        slots[i].entered = LED_TO


@kernel
def look_ahead(game: Game, i: int) -> None:
    """See which state the step of slot `i` leads to, and ask for it."""
    slots, recording = game.slots, game.recording
    if slots[i].entered == LED_TO:
        slots[i].entered = recording.responses[slots[i].row].next_state
    if slots[i].entered >= 0:
        await_state(recording, slots[i].entered)


@kernel
def enter_all(rules: Rules, game: Game, which: np.ndarray, tasks: np.ndarray) -> None:
    """Start the next episode of the slots `which` (M,) at `tasks` (M,); −1 draws one."""
    for k in range(len(which)):
        begin_episode(rules, game.slots, game.roots, which[k], tasks[k])
        draw_pool(rules, game.slots, game.in_pool, game.pool_size, which[k])
        clear(game.slots, game.calls, which[k])
        write_mask(game, which[k])


@kernel
def act(game: Game, i: int, choice: int) -> None:
    """A call whose response, that of the slot's row, is accepted at once."""
    me, pool = game.slots[i], game.pool
    response = game.recording.responses[index(me.row)]
    prompt, completion = response.prompt_tokens, max(response.completion_tokens, 0)
    cost, latency = response.cost_usd, float(response.latency_s)
    # Of a call that failed the provider has said what it costs, be it nothing.
    if game.recharged and not response.error:
        largest = call_of(game.recording, me.state, choice, PROMPT_TOKENS)
        cached = min(served_tokens(game.slots, game.calls, pool, i, choice, largest), prompt)
        prices = pool[choice].input_usd, pool[choice].cached_input_usd, pool[choice].output_usd
        cost = call_usd(prompt, cached, completion, prices[0], prices[1], prices[2])
    add_call(game.slots, game.calls, pool, i, choice, prompt, latency)
    me.output_cost_usd += completion * pool[choice].output_usd if response.completion_tokens >= 0 else cost
    me.completion_tokens += completion
    me.reasoning_tokens += max(response.reasoning_tokens, 0)
    if response.next_state >= 0:
        me.state = response.next_state
    me.vector[0] = response.ends and response.success
    me.vector[1], me.vector[2] = cost, latency


@kernel
def paid(game: Game, i: int, ended: bool) -> float:
    """The reward of the step that episode `i` has just taken."""
    if game.reward.name != ARES:
        return replay_reward(game.reward, game.recent, game.slots, i, ended)
    if not ended:
        return 0.0
    spent, total = 0.0, 0
    for c in range(len(game.pool)):
        spent += game.pool[c].step_cost * game.calls[i, c].visits
        total += game.calls[i, c].visits
    return ares(game.slots[i].vector[0], spent / max(total, 1))


@kernel
def write_mask(game: Game, i: int) -> None:
    """A choice may be called where it is recorded, its expensive calls are not used up, and its reserve is covered."""
    me, pool = game.slots[i], game.pool
    for c in range(len(pool)):
        legal = game.in_pool[i, c] & (attempts_of(game.recording, me.state, c, len(pool)) > 0)
        legal &= (me.calls_left >= 1) | ~pool[c].expensive
        if legal and np.isfinite(me.usd_left):
            prompt, limit = call_of(game.recording, me.state, c, PROMPT_TOKENS), pool[c].max_completion_tokens
            legal = reserve_usd(prompt, limit, pool[c].input_usd, pool[c].output_usd) <= me.usd_left
        game.mask[i, c] = legal


@kernel
def observe(game: Game, i: int, out: np.ndarray, row: int) -> None:
    """Fill a row of observations, `out` (rows, layout.size) float32, with what slot `i` shows."""
    s = game.slots[i].state
    step = game.recording.halves[s, index(step_at(len(game.pool)))]
    slots, calls, pool, recording = game.slots, game.calls, game.pool, game.recording
    observe_step(out, row, game.frame, slots, calls, pool, recording, i, s, step, game.mask)


@kernel
def observe_some(game: Game, which: np.ndarray, out: np.ndarray) -> None:
    """What the slots `which` (M,) show now, into `out` (M, layout.size) float32."""
    for k in range(len(which)):
        observe(game, which[k], out, k)
