"""ToolGraph: what a policy observes, from what is known of an episode; shared by replay and live use."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from rlroute.envs import observing
from rlroute.envs.scales import money_feature, penalty_feature, weight_feature
from rlroute.envs.tool_graph.costs import BLOCKED, TO_GOAL, find_ways, set_out, through
from rlroute.envs.tool_graph.faults import REGIME_NAMES
from rlroute.envs.tool_graph.progress import Known
from rlroute.jit import kernel
from rlroute.layout import Feature, Layout

CONTEXT_ACTIONS = ("consult", "demote", "escalate", "finish")
CHOICE_ACTIONS = ("call",)
FIRST_CALL_ACTION = len(CONTEXT_ACTIONS)
MANY_MODEL_CALLS = 7.0
MANY_EFFECTS = 4.0
LEAST_HEALTH = 1e-3  # a tool believed to be less healthy than this blocks a way
WAY_CEILING = 4.0
DETOUR_CEILING = 2.0

MODEL_COST_FEATURE = Feature("model_cost", "utility lost by a consultation", 0, 1)
MODEL_CALLS_FEATURE = Feature("model_calls", "share of 7")
STEPS_FEATURE = Feature("steps", "actions / 4 · tools", 0, 1)
RISK_FEATURE = Feature("risk", "probability that irreversible effects do harm")
SEEN = (observing.CALLABLE, Feature("executed", "flag"), Feature("known_down", "flag"), Feature("alarm", "flag"))
CONTEXT = (
    observing.COST_WEIGHT,
    observing.LATENCY_WEIGHT,
    observing.SPENT,
    observing.USD_LEFT,
    observing.USD_CAPPED,
    MODEL_COST_FEATURE,
    MODEL_CALLS_FEATURE,
    STEPS_FEATURE,
    RISK_FEATURE,
    Feature("calls_left", "model calls in the budget, share of 7"),
    Feature("goal_value", "of the current goal"),
    Feature("goal_executed", "flag"),
    Feature("doubt", "probability that some executed tool gave a bad output"),
    Feature("way", "price of the cheapest way to the goal", 0, WAY_CEILING),
    Feature("degraded_way", "the same to the next degraded goal", 0, WAY_CEILING),
    Feature("effects", "irreversible effects on the cheapest way / 4", 0, 1),
    Feature("degraded_effects", "the same on that to the next degraded goal", 0, 1),
    *(Feature(f"regime_{name}", "see faults.Regime") for name in REGIME_NAMES),
)
CHOICE = (
    Feature("present", "flag"),
    observing.WEIGHTED_PRICE,
    observing.LATENCY,
    *SEEN,
    Feature("healthy", "probability"),
    Feature("wrong", "probability of a bad output"),
    Feature("effect", "1/2 irreversible, 1 done before"),
    Feature("goal", "1 the current goal, 1/2 the next degraded one"),
    Feature("detour", "√ of what the cheapest way through it costs beyond the cheapest", 0, DETOUR_CEILING),
    Feature("on_way", "flag: on the cheapest way"),
)
# Their places: in the context, and in a block.
COST_WEIGHT, LATENCY_WEIGHT, SPENT, USD_LEFT, USD_CAPPED, MODEL_COST, MODEL_CALLS, STEPS, RISK = range(9)
CALLS_LEFT, GOAL_VALUE, GOAL_EXECUTED, DOUBT, WAY, DEGRADED_WAY, EFFECTS, DEGRADED_EFFECTS, REGIME = range(9, 18)
PRESENT, WEIGHTED_PRICE, LATENCY, CALLABLE, EXECUTED, KNOWN_DOWN, ALARM = range(7)
HEALTHY, WRONG, EFFECT, GOAL, DETOUR, ON_WAY = range(7, 13)
CONTEXT_SIZE, BLOCK_SIZE = len(CONTEXT), len(CHOICE)

INDEX_CONTEXT = (
    observing.ROW,
    observing.COST_WEIGHT,
    observing.LATENCY_WEIGHT,
    observing.USD_LEFT,
    MODEL_COST_FEATURE,
    MODEL_CALLS_FEATURE,
    STEPS_FEATURE,
    RISK_FEATURE,
    Feature("goal_rank", "demotions / 4", 0, 1),
)
INDEX_SIZE, INDEX_BLOCK = len(INDEX_CONTEXT), len(SEEN)


def make_layout(num_tools: int, index: bool = False) -> Layout:
    """The observation of ToolGraph for graphs of up to `num_tools`; with `index` only what its row does not tell."""
    context, choice = (INDEX_CONTEXT, SEEN) if index else (CONTEXT, CHOICE)
    return Layout(context, choice, num_tools, CONTEXT_ACTIONS, CHOICE_ACTIONS)


class Sight(NamedTuple):
    """What observations are made of, and made in."""

    known: Known
    ways: np.ndarray  # (T,) records of `costs.WAY`, for working them out
    mask: np.ndarray  # (N, num_actions) int8, 1 legal
    seen: np.ndarray  # (N, layout.size) float32, the observations


@kernel
def observe_terms(sight: Sight, i: int) -> None:
    """Fill what stays as it is all through episode `i`: weights and prices, the regime, constants of the tools."""
    known, out = sight.known, sight.seen
    me, table = known.slots[i], known.table
    regime = known.regimes[me.regime]
    out[i, COST_WEIGHT] = weight_feature(me.cost_weight)
    out[i, LATENCY_WEIGHT] = weight_feature(me.latency_weight)
    out[i, USD_CAPPED] = math.isfinite(me.budget_usd)
    out[i, MODEL_COST] = min(me.model_cost, 1.0)
    out[i, REGIME], out[i, REGIME + 1], out[i, REGIME + 2] = regime.provider, regime.own, regime.wrong
    out[i, REGIME + 3], out[i, REGIME + 4] = regime.transient, regime.late
    out[i, REGIME + 5], out[i, REGIME + 6] = regime.detection, regime.false_alarm
    size = table.graphs[me.graph].num_tools
    for t in range(size):
        block = CONTEXT_SIZE + t * BLOCK_SIZE
        out[i, block + PRESENT], out[i, block + LATENCY] = 1.0, table.tools[me.graph, t].latency
    for k in range(CONTEXT_SIZE + size * BLOCK_SIZE, out.shape[1]):
        out[i, k] = 0.0


@kernel
def observe_progress(sight: Sight, i: int) -> None:
    """Fill all that steps change. Replay and live loops both observe through this function."""
    known, ways, out = sight.known, sight.ways, sight.seen
    me, table = known.slots[i], known.table
    g, graph = me.graph, table.graphs[me.graph]
    scale, doubtless = me.cost_weight / graph.cheapest_usd, 1.0
    for t in range(graph.num_tools):
        tool = known.tools[i, t]
        if tool.stale:
            price_tool(known, i, t, scale)
            observe_tool(sight, i, t, CONTEXT_SIZE + t * BLOCK_SIZE)
        doubtless *= 1.0 - (tool.wrong if tool.executed else 0.0)
        set_out(ways[t], tool.price, tool.done)
    effects, degraded_way, degraded_effects = find_ways(table, g, ways, me.goal, me.degraded)
    way = min(ways[me.goal].reach, BLOCKED)
    out[i, SPENT] = penalty_feature(me.cost_weight, me.cost_usd / graph.cheapest_usd)
    out[i, USD_LEFT] = money_feature(me.usd_left / graph.cheapest_usd)
    out[i, MODEL_CALLS] = min(me.model_calls / MANY_MODEL_CALLS, 1.0)
    out[i, RISK] = me.risk_belief
    out[i, CALLS_LEFT] = min((me.budget_calls - me.model_calls) / MANY_MODEL_CALLS, 1.0)
    out[i, GOAL_VALUE] = table.goals[g, me.goal_rank].value
    out[i, GOAL_EXECUTED] = known.tools[i, me.goal].executed
    out[i, DOUBT] = 1.0 - doubtless
    out[i, WAY] = min(way, WAY_CEILING)
    out[i, DEGRADED_WAY] = min(degraded_way, WAY_CEILING)
    out[i, EFFECTS] = min(effects / MANY_EFFECTS, 1.0)
    out[i, DEGRADED_EFFECTS] = min(degraded_effects / MANY_EFFECTS, 1.0)
    observe_steps(sight, i)
    for t in range(graph.num_tools):
        block = CONTEXT_SIZE + t * BLOCK_SIZE
        price = through(ways[t])
        detour = price - way if price < BLOCKED else BLOCKED
        out[i, block + DETOUR] = min(math.sqrt(max(detour, 0.0)), DETOUR_CEILING)
        out[i, block + ON_WAY] = ways[t].taken & TO_GOAL


@kernel
def observe_tool(sight: Sight, i: int, t: int, block: int) -> None:
    """Fill what is known of tool `t` by itself, from place `block` on."""
    known, out = sight.known, sight.seen
    me, tool, table = known.slots[i], known.tools[i, t], known.table
    tool.stale = False
    out[i, block + WEIGHTED_PRICE] = penalty_feature(
        me.cost_weight, tool.call_cost_usd / table.graphs[me.graph].cheapest_usd
    )
    out[i, block + CALLABLE] = sight.mask[i, FIRST_CALL_ACTION + t]
    out[i, block + EXECUTED], out[i, block + KNOWN_DOWN], out[i, block + ALARM] = (
        tool.executed,
        tool.known_down,
        tool.alarm,
    )
    out[i, block + HEALTHY] = min(max(1.0 - tool.hard - tool.wrong, 0.0), 1.0)
    out[i, block + WRONG] = min(max(tool.wrong, 0.0), 1.0)
    effect = 0.5 if table.tools[me.graph, t].effect >= 0 else 0.0
    out[i, block + EFFECT] = 2.0 * effect if tool.effect_done else effect


@kernel
def observe_goal(sight: Sight, i: int) -> None:
    """Fill which tools are the goal and the next degraded one."""
    me, out = sight.known.slots[i], sight.seen
    for t in range(sight.known.table.graphs[me.graph].num_tools):
        out[i, CONTEXT_SIZE + t * BLOCK_SIZE + GOAL] = 0.0
    if me.degraded >= 0:
        out[i, CONTEXT_SIZE + me.degraded * BLOCK_SIZE + GOAL] = 0.5
    out[i, CONTEXT_SIZE + me.goal * BLOCK_SIZE + GOAL] = 1.0


@kernel
def observe_steps(sight: Sight, i: int) -> None:
    """Fill what changes even where nothing was learnt."""
    known = sight.known
    sight.seen[i, STEPS] = min(known.slots[i].steps / (4.0 * known.tools.shape[1]), 1.0)


@kernel
def price_tool(known: Known, i: int, t: int, scale: float) -> None:
    """Fill `price` and `done` of tool `t`, of which something changed; `scale` is utility per USD.

    The price of executing a tool is in utility: what its calls cost until one succeeds, −log P(good output | success),
    and the expected harm of an effect. A hard fault costs no more than the call, for there is mostly a way around it;
    a bad output that nobody notices costs the goal. Tools that would repeat a side effect, or are known not to help,
    are `BLOCKED`.
    """
    tool, me = known.tools[i, t], known.slots[i]
    works = 1.0 - tool.hard
    healthy = works - tool.wrong
    tool.done = tool.executed and tool.wrong < 0.5
    blocked = tool.effect_done | tool.known_bad | (healthy < LEAST_HEALTH)
    works, healthy = max(works, LEAST_HEALTH), max(healthy, LEAST_HEALTH)
    doubt = math.log(works / healthy) if tool.wrong > 0.0 else 0.0
    risk = me.risk_belief
    harm = risk if known.table.tools[me.graph, t].effect >= 0 else 0.0
    price = scale * tool.call_cost_usd / works + doubt + harm
    tool.price = BLOCKED if blocked else price


@kernel
def observe_index(sight: Sight, i: int) -> None:
    """Fill all that steps change where the row of the state stands in place of what the graph is like."""
    known, out = sight.known, sight.seen
    me = known.slots[i]
    graph = known.table.graphs[me.graph]
    out[i, 3] = money_feature(me.usd_left / graph.cheapest_usd)
    out[i, 5] = min(me.model_calls / MANY_MODEL_CALLS, 1.0)
    out[i, 7] = me.risk_belief
    out[i, 8] = min(me.goal_rank / 4.0, 1.0)
    for t in range(graph.num_tools):
        tool, block = known.tools[i, t], INDEX_SIZE + t * INDEX_BLOCK
        if tool.stale:
            tool.stale = False
            out[i, block] = sight.mask[i, FIRST_CALL_ACTION + t]
            out[i, block + 1], out[i, block + 2], out[i, block + 3] = tool.executed, tool.known_down, tool.alarm


@kernel
def observe_index_steps(sight: Sight, i: int) -> None:
    """Fill what changes even where nothing was learnt."""
    me = sight.known.slots[i]
    sight.seen[i, 0] = me.state
    sight.seen[i, 6] = min(me.steps / (4.0 * sight.known.tools.shape[1]), 1.0)


@kernel
def observe_index_terms(sight: Sight, i: int) -> None:
    """Fill what stays as it is all through episode `i` beside its row."""
    known, out = sight.known, sight.seen
    me = known.slots[i]
    out[i, 1], out[i, 2] = weight_feature(me.cost_weight), weight_feature(me.latency_weight)
    out[i, 4] = min(me.model_cost, 1.0)
    for k in range(INDEX_SIZE + known.table.graphs[me.graph].num_tools * INDEX_BLOCK, out.shape[1]):
        out[i, k] = 0.0
