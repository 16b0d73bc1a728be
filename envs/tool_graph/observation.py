"""ToolGraph: what a policy observes, from what is known of an episode; shared by replay and live use."""

from __future__ import annotations

import numpy as np

from rlroute.envs import observing
from rlroute.envs.observing import money_feature, penalty_feature, weight_feature
from rlroute.envs.terms import Terms
from rlroute.envs.tool_graph.costs import BLOCKED, ways_through
from rlroute.envs.tool_graph.faults import REGIME_NAMES
from rlroute.envs.tool_graph.progress import Progress
from rlroute.layout import Feature, Layout

CONTEXT_ACTIONS = ("consult", "demote", "escalate", "finish")
CHOICE_ACTIONS = ("call",)
MANY_MODEL_CALLS = 7.0
WAY_CEILING = 4.0
LEAST_HEALTH = 1e-3  # a tool believed to be less healthy than this blocks a way

# What is written even where an observation holds the row of its task instead of what the graph is like.
DYNAMIC = ("callable", "executed", "known_down", "alarm")


def make_layout(num_tools: int, index: bool = False) -> Layout:
    """The observation of ToolGraph for graphs of up to `num_tools`."""
    context: tuple[Feature, ...] = (
        observing.COST_WEIGHT,
        observing.LATENCY_WEIGHT,
        observing.SPENT,
        observing.USD_LEFT,
        observing.USD_CAPPED,
        Feature("model_cost", "utility lost by a consultation", 0, 1),
        Feature("model_calls", "share of 7"),
        Feature("steps", "actions / 4 · tools", 0, 1),
        Feature("risk", "probability that irreversible effects do harm"),
        Feature("calls_left", "model calls in the budget, share of 7"),
        Feature("goal_value", "of the current goal"),
        Feature("goal_executed", "flag"),
        Feature("doubt", "probability that some executed tool gave a bad output"),
        Feature("way", "price of the cheapest way to the goal", 0, WAY_CEILING),
        Feature("degraded_way", "the same to the next degraded goal", 0, WAY_CEILING),
        Feature("can_demote", "flag"),
        Feature("blocked", "flag: no way to the goal is open"),
    )
    choice: tuple[Feature, ...] = (
        Feature("present", "flag"),
        observing.WEIGHTED_PRICE,
        observing.LATENCY,
        observing.CALLABLE,
        Feature("executed", "flag"),
        Feature("known_down", "flag"),
        Feature("alarm", "flag"),
        Feature("healthy", "probability"),
        Feature("wrong", "probability of a bad output"),
        Feature("effect", "1/2 irreversible, 1 done before"),
        Feature("goal", "1 the current goal, 1/2 the next degraded one"),
        Feature("through", "price of the cheapest way to the goal through it", 0, WAY_CEILING),
        Feature("on_way", "flag: on the cheapest way"),
    )
    if index:
        context = (observing.ROW, *context)
        choice = tuple(feature for feature in choice if feature.name in DYNAMIC)
    else:
        context = (*context, *(Feature(f"regime_{name}", "see faults.Regime") for name in REGIME_NAMES))
    return Layout(context, choice, num_tools, CONTEXT_ACTIONS, CHOICE_ACTIONS)


def way_price(progress: Progress, terms: Terms, hard: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """(N, T) price of executing a tool, in utility: weighted cost − log P(healthy), and expected harm of an effect.

    The sum along a way is what it costs plus −log of the probability that nothing on it is faulty. Tools that would
    repeat a side effect, or are known not to help, are `BLOCKED`.
    """
    table = progress.table
    cost = terms.cost_weight[:, None] * progress.call_cost_usd / table.cheapest_usd[:, None]
    healthy = 1.0 - hard - wrong
    harm = progress.risk_belief[:, None] * (table.effect >= 0)
    price = cost - np.log(np.maximum(healthy, LEAST_HEALTH)) + harm
    shut = ~table.present | progress.effect_done | progress.known_bad | (healthy < LEAST_HEALTH)
    return np.where(shut, BLOCKED, price)


def write_observation(
    out: np.ndarray,
    layout: Layout,
    progress: Progress,
    terms: Terms,
    usd_left: np.ndarray,  # (N,)
    callable_now: np.ndarray,  # (N, T) bool: joins satisfied and affordable
    l_ref: float,
    row: np.ndarray | None = None,  # (N,) of the state, with obs="index"
) -> None:
    """Fill `out`, float32 of shape (N, layout.size). Replay and live loops both observe through this function."""
    table = progress.table
    num_envs, num_tools = table.present.shape
    cheapest = table.cheapest_usd
    hard, wrong = progress.beliefs
    doubted = np.where(progress.executed, wrong, 0.0)
    sound = progress.executed & (doubted < 0.5)
    price = way_price(progress, terms, hard, wrong)
    goal, degraded = progress.goal(progress.goal_rank), progress.goal(progress.goal_rank + 1)
    ways = ways_through(table, price, sound, np.stack([goal, degraded], axis=1))  # (N, T, 2)
    through = ways[:, :, 0]
    way, degraded_way = ways.min(axis=1).T
    rows = np.arange(num_envs)
    tools = np.arange(num_tools)
    blocks = {
        "present": table.present,
        "weighted_price": penalty_feature(terms.cost_weight[:, None], progress.call_cost_usd, cheapest[:, None]),
        "latency": money_feature(table.latency_s, l_ref),
        "callable": callable_now,
        "executed": progress.executed,
        "known_down": progress.known_down,
        "alarm": progress.alarm & table.present,
        "healthy": np.clip(1.0 - hard - wrong, 0.0, 1.0),
        "wrong": np.clip(wrong, 0.0, 1.0),
        "effect": np.where(table.effect < 0, 0.0, np.where(progress.effect_done, 1.0, 0.5)),
        "goal": np.where(tools == goal[:, None], 1.0, np.where(tools == degraded[:, None], 0.5, 0.0)),
        "through": np.minimum(through, WAY_CEILING),
        "on_way": (through <= way[:, None] + 1e-9) & (way < BLOCKED)[:, None] & ~sound,
    }
    regime = () if row is not None else tuple(progress.regime.T)
    observing.write_features(
        out,
        layout,
        static=() if row is None else (row[:, None],),
        context=(
            weight_feature(terms.cost_weight),
            weight_feature(terms.latency_weight),
            penalty_feature(terms.cost_weight, progress.spent_usd, cheapest),
            money_feature(usd_left / cheapest, 1.0),
            np.isfinite(usd_left),
            np.minimum(progress.model_cost, 1.0),
            np.minimum(progress.model_calls / MANY_MODEL_CALLS, 1.0),
            np.minimum(progress.steps / (4.0 * num_tools), 1.0),
            progress.risk_belief,
            np.minimum((terms.budget_calls - progress.model_calls) / MANY_MODEL_CALLS, 1.0),
            progress.goal_value(progress.goal_rank),
            progress.executed[rows, goal],
            1.0 - np.prod(1.0 - doubted, axis=1),
            np.minimum(way, WAY_CEILING),
            np.minimum(degraded_way, WAY_CEILING),
            degraded >= 0,
            way >= BLOCKED,
            *regime,
        ),
        blocks=[np.where(table.present, blocks[feature.name], 0.0) for feature in layout.choice],
    )
