"""ToolGraph: what an action does to one episode, which actions are masked, and the loop over all of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rlroute.draws import Stream, fold, to_unit
from rlroute.envs.slots import (
    Rules,
    Shown,
    account,
    are_actions,
    begin_episode,
    begin_step,
    end_step,
    refuse,
    show,
    show_seen,
)
from rlroute.envs.terms import log_uniform
from rlroute.envs.tool_graph.faults import draw_faults, is_faulty, is_restless, shows_alarm
from rlroute.envs.tool_graph.observation import (
    BLOCK_SIZE,
    CONTEXT_ACTIONS,
    CONTEXT_SIZE,
    INDEX_BLOCK,
    INDEX_SIZE,
    Sight,
    observe_goal,
    observe_index,
    observe_index_steps,
    observe_index_terms,
    observe_progress,
    observe_steps,
    observe_terms,
)
from rlroute.envs.tool_graph.progress import (
    HARD,
    HEALTHY,
    WRONG,
    add_call,
    add_consultation,
    believe,
    clear,
    demote,
    hear,
    watch,
    write_mask,
)
from rlroute.envs.tool_graph.suites import STATES
from rlroute.envs.tool_graph.utility import ESCALATED_VALUE, utility
from rlroute.hints import index, sized
from rlroute.jit import kernel

CONSULT, DEMOTE, ESCALATE, FINISH = range(len(CONTEXT_ACTIONS))
FIRST_CALL = len(CONTEXT_ACTIONS)
START, NOTHING = -1, -2  # no actions: an episode has begun, nothing was done
RUNNING, GOAL, DEMOTED, ESCALATED, SILENT, STOPPED = range(len(STATES))
NUM_STATES = len(STATES)
# Of each episode: where it has come to (an index of STATES), side effects repeated, risks taken, consultations.
TALLIES = ("outcome", "repeated_effects", "risk_breaches", "model_calls")
NUM_TALLIES = len(TALLIES)
CONSULT_LATENCY_S = 2.0
MODEL_COST, REGIME = np.uint64(Stream.MODEL_COST), np.uint64(Stream.REGIME)


class Game(NamedTuple):
    """Everything that the kernels of ToolGraph read and write."""

    num_tools: int  # T; the arrays tell too, but not as a constant to be compiled in, see `hints.sized`
    sight: Sight
    faults: np.ndarray  # (num_envs, T) records of `faults.FAULT`, hidden
    met: np.ndarray  # (T,) inputs whose outputs stand, for working out which do
    walk: np.ndarray  # (num_envs, max_episode_steps) int32: calls in order, 2 · tool, and 1 more where they succeeded
    roots: np.ndarray  # (num_tasks,) root states to draw tasks from
    model_cost: tuple[float, float]  # the range that its price is drawn from
    scenario: bool  # whether outages are those that the tasks name
    by_row: bool  # whether observations hold the row of the state in place of what the graph is like
    l_ref: float
    tallies: np.ndarray  # (num_envs, 4) of the slots, what `info` tells

    @property
    def mask(self) -> np.ndarray:
        """(num_envs, num_actions) int8, 1 legal."""
        return self.sight.mask

    @property
    def seen(self) -> np.ndarray:
        """(num_envs, layout.size) float32, the observations."""
        return self.sight.seen


@kernel
def step_all(rules: Rules, game: Game, action: np.ndarray, shown: Shown) -> bool:
    """One step of every slot, and what it shows; False, and nothing is done, where some number is no action."""
    # Lengths that are compiled in where many slots step.
    known, num_tools = game.sight.known, game.num_tools
    num_features = INDEX_SIZE + num_tools * INDEX_BLOCK if game.by_row else CONTEXT_SIZE + num_tools * BLOCK_SIZE
    sized(known.tools, num_tools)
    sized(known.table.tools, num_tools)
    sized(game.faults, num_tools)
    sized(game.sight.mask, FIRST_CALL + num_tools)
    sized(game.sight.seen, num_features)
    sized(shown.observation, num_features)
    sized(game.tallies, NUM_TALLIES)
    sized(shown.tallies, NUM_TALLIES)
    if not are_actions(action, game.sight.mask.shape[1]):
        return False
    slots = known.slots
    for i in range(len(action)):
        did = NOTHING
        restart = rules.restart and slots[i].finished
        begin_step(slots, i)
        if restart:
            did = START
            enter(rules, game, i, -1)
        elif slots[i].active:
            if game.sight.mask[i, action[i]] == 1:
                did = action[i]
                act(game, i, did)
            else:
                refuse(slots, i)
            end_step(rules, slots, i, did in (ESCALATE, FINISH))
            if slots[i].truncated:
                end(game, i, STOPPED)
        if did != NOTHING:
            learn(game, i, did)
        show(slots, game.tallies, shown, i)
        show_seen(game.sight.seen, shown, i)
    return True


@kernel
def enter_all(rules: Rules, game: Game, which: np.ndarray, tasks: np.ndarray) -> None:
    """Start the next episode of the slots `which` (M,) at `tasks` (M,); −1 draws one."""
    for k in range(len(which)):
        enter(rules, game, which[k], tasks[k])
        learn(game, which[k], START)


@kernel
def enter(rules: Rules, game: Game, i: int, task: int) -> None:
    """Start the next episode of slot `i`."""
    known, faults = game.sight.known, game.faults
    me = known.slots[i]
    begin_episode(rules, known.slots, game.roots, i, task)
    me.graph = me.task // NUM_STATES
    unit, episode = np.uint64(me.slot // rules.group_size), np.uint64(me.episode)
    shared = fold(fold(rules.key, unit), episode)
    me.model_cost = log_uniform(game.model_cost[0], game.model_cost[1], fold(shared, MODEL_COST))
    me.regime = int(to_unit(fold(shared, REGIME)) * len(known.regimes))
    if rules.own_noise:
        unit = np.uint64(me.slot)
    draw_faults(rules.key, unit, episode, known.table, known.regimes, game.scenario, known.slots, faults, i)
    clear(known, i)


@kernel
def read_monitors(game: Game, i: int) -> None:
    """See which monitors show an alarm now."""
    known = game.sight.known
    me = known.slots[i]
    regime = known.regimes[me.regime]
    for t in range(known.table.graphs[me.graph].num_tools):
        watch(known, i, t, shows_alarm(game.faults[i, t], me.steps, regime))


@kernel
def act(game: Game, i: int, action: int) -> None:
    """Carry out a legal action and pay for it."""
    known = game.sight.known
    me = known.slots[i]
    harms = 0
    if action >= FIRST_CALL:
        harms = call(game, i, action - FIRST_CALL)
    elif action == CONSULT:
        consult(game, i)
    elif action == DEMOTE:
        demote(known, i)
    elif action == ESCALATE:
        me.vector[0] = ESCALATED_VALUE
        end(game, i, ESCALATED)
    else:
        harms = finish(game, i)
    account(known.slots, i)
    me.reward = utility(
        me.vector[0],
        harms,
        me.vector[1],
        me.vector[2],
        1 if action == CONSULT else 0,
        me.cost_weight,
        me.latency_weight,
        me.model_cost,
        known.table.graphs[me.graph].cheapest_usd,
        game.l_ref,
    )


@kernel
def learn(game: Game, i: int, did: int) -> None:
    """Update beliefs, mask and observation after the action `did`, or at the START."""
    known = game.sight.known
    me = known.slots[i]
    ended, restless = did in (ESCALATE, FINISH), is_restless(known.regimes[me.regime])
    if ended:
        me.steps += 1
    if did == START or restless:
        read_monitors(game, i)
    if did == START or did >= FIRST_CALL:
        write_mask(known, i, game.sight.mask)
    elif did == CONSULT:
        game.sight.mask[i, CONSULT] = me.model_calls < me.budget_calls
    elif did == DEMOTE:
        game.sight.mask[i, DEMOTE] = me.degraded >= 0
    if game.by_row:
        if did == START:
            observe_index_terms(game.sight, i)
        if restless or not ended:
            observe_index(game.sight, i)
        observe_index_steps(game.sight, i)
        return
    if did == START:
        observe_terms(game.sight, i)
    if did in (START, DEMOTE):
        observe_goal(game.sight, i)
    if ended and not restless:
        observe_steps(game.sight, i)
        return
    if did >= FIRST_CALL and not restless:
        believe(known, i, did - FIRST_CALL, did - FIRST_CALL + 1)
    elif did != DEMOTE or restless:
        believe(known, i, 0, known.table.graphs[me.graph].num_tools)
    observe_progress(game.sight, i)


@kernel
def call(game: Game, i: int, t: int) -> int:
    """Call tool `t`; returns how much harm that did."""
    known, fault = game.sight.known, game.faults[i, t]
    me = known.slots[i]
    static = known.table.tools[me.graph, t]
    faulty = is_faulty(fault, me.steps)
    succeeded = fault.wrong or not faulty
    me.vector[1], me.vector[2] = known.tools[i, t].call_cost_usd, static.latency_s
    game.walk[i, me.tool_calls] = 2 * t + succeeded
    repeated = add_call(known, i, t, succeeded)
    if succeeded:
        fault.good = not faulty
    breach = succeeded and me.risk and static.effect >= 0
    me.repeated_effects += repeated
    me.risk_breaches += breach
    return int(repeated) + int(breach)


@kernel
def consult(game: Game, i: int) -> None:
    """The model shows the health of all tools, of the executed ones that of their outputs, and if there is a risk."""
    known = game.sight.known
    me = known.slots[i]
    for t in range(known.table.graphs[me.graph].num_tools):
        fault, executed = game.faults[i, t], known.tools[i, t].executed
        good, wrong, faulty = fault.good, fault.wrong, is_faulty(fault, me.steps)
        health = WRONG if wrong else HARD
        health = health if faulty else HEALTHY
        output = HEALTHY if good else WRONG
        hear(known, i, t, output if executed else health)
    add_consultation(known, i, 1 if me.risk else 0)
    me.vector[2] = CONSULT_LATENCY_S


@kernel
def finish(game: Game, i: int) -> int:
    """Claim the current goal; returns how much harm that did: it is a silent failure where the goal does not stand."""
    known = game.sight.known
    me = known.slots[i]
    if not stands(game, i, me.goal):
        end(game, i, SILENT)
        return 1
    me.vector[0] = known.table.goals[me.graph, me.goal_rank].value
    end(game, i, DEMOTED if me.goal_rank > 0 else GOAL)
    return 0


@kernel
def stands(game: Game, i: int, tool: int) -> bool:
    """Whether the output of a tool is good and stands on inputs that do as well."""
    table, met = game.sight.known.table, game.met
    if not game.faults[i, tool].good:
        return False
    g = index(game.sight.known.slots[i].graph)
    for t in range(tool + 1):
        met[t] = 0
    for k in range(table.graphs[g].num_links):
        link = table.links[g, k]
        s, t = index(link.source), index(link.target)
        if t <= tool:
            met[t] += game.faults[i, s].good and met[s] >= table.tools[g, s].needed
    return met[tool] >= table.tools[g, tool].needed


@kernel
def end(game: Game, i: int, outcome: int) -> None:
    """The episode comes to one of its five ends."""
    me = game.sight.known.slots[i]
    me.outcome, me.state = outcome, me.task + outcome
    if game.by_row:
        game.sight.seen[i, 0] = me.state
