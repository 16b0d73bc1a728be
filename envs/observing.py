"""What the observations of all families share: static features of a state, scales for weights and money."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rlroute.features import NUM_TEXT_COMPONENTS
from rlroute.layout import Feature, Layout

WEIGHT_FLOOR, WEIGHT_CEILING = 1e-3, 1e2
PENALTY_CEILING = 4.0
SIZE_AIM = 128  # floats of an observation
LEAST_TEXT = 16

ROW = Feature("row", "row of the state in the log", 0, 2**24)
PRIOR = Feature("prior", "expected quality of the response")
PROSPECT = Feature("prospect", "expected quality of the end")
COST_WEIGHT = Feature("cost_weight", "log scale, 0.001 to 100")
LATENCY_WEIGHT = Feature("latency_weight", "log scale, 0.001 to 100")
SPENT = Feature("spent", "weighted cost so far", 0, PENALTY_CEILING)
USD_LEFT = Feature("usd_left", "log2 of c_ref / 8", -1, 1)
USD_CAPPED = Feature("usd_capped", "flag")
PRICE = Feature("price", "log2 of c_ref / 8", -1, 1)
WEIGHTED_PRICE = Feature("weighted_price", "weighted cost of a call", 0, PENALTY_CEILING)
LATENCY = Feature("latency", "log2 of l_ref / 8", -1, 1)
CALLABLE = Feature("callable", "flag")
RESERVE = Feature("reserve", "share of the budget left")


def make_layout(
    context: tuple[Feature, ...],
    choice: tuple[Feature, ...],
    num_choices: int,
    num_extra: int,
    context_actions: tuple[str, ...],
    choice_actions: tuple[str, ...],
    index: bool,
) -> Layout:
    """A layout with the static features of a state first: text and extra numbers, or with `index` its row.

    Text gets what is left of `SIZE_AIM` floats, but at least `LEAST_TEXT` components.
    """
    if index:
        choice = tuple(feature for feature in choice if feature not in (PRIOR, PROSPECT))
        return Layout((ROW, *context), choice, num_choices, context_actions, choice_actions)
    extra = (Feature("extra", "standard deviations / 3", -1, 1, num_extra),) if num_extra else ()
    text = Feature("text", "principal component", -1, 1, NUM_TEXT_COMPONENTS)
    layout = Layout((text, *extra, *context), choice, num_choices, context_actions, choice_actions)
    return with_text_for(layout, num_choices)


def with_text_for(layout: Layout, num_choices: int) -> Layout:
    """The layout with as many text components as `make_layout` gives to a pool of `num_choices`."""
    if not text_size(layout):
        return layout
    text, *context = layout.context
    others = sum(feature.size for feature in context) + num_choices * layout.block_size
    size = int(np.clip(SIZE_AIM - others, LEAST_TEXT, NUM_TEXT_COMPONENTS))
    return replace(layout, context=(replace(text, size=size), *context))


def text_size(layout: Layout) -> int:
    """How many text components an observation carries; 0 with `obs="index"`."""
    return sum(feature.size for feature in layout.context if feature.name == "text")


def write_features(
    out: np.ndarray,  # (N, layout.size), filled
    layout: Layout,
    static: Sequence[np.ndarray],  # arrays of shape (N, size), first in the context
    context: Sequence[np.ndarray],  # arrays of shape (N,), the rest of the context
    blocks: Sequence[np.ndarray],  # arrays of shape (N, num_choices)
) -> None:
    """Write columns in the order of the layout."""
    at = 0
    for array in static:
        out[:, at : at + array.shape[1]] = array
        at += array.shape[1]
    for column in context:
        out[:, at] = column
        at += 1
    block = out[:, at:].reshape(len(out), layout.num_choices, layout.block_size)
    for offset, column in enumerate(blocks):
        block[:, :, offset] = column


def weight_feature(weight: np.ndarray) -> np.ndarray:
    """A weight on a log scale from 0.001 (and below) to 100 (and above), in [0, 1]."""
    clipped = np.clip(weight, WEIGHT_FLOOR, WEIGHT_CEILING)
    return np.log(clipped / WEIGHT_FLOOR) / math.log(WEIGHT_CEILING / WEIGHT_FLOOR)


def money_feature(amount: np.ndarray, unit: float) -> np.ndarray:
    """An amount in multiples of `unit`, on a log2 scale from 1/256 to 256 units, in [−1, 1]; 1 for no limit."""
    return np.clip(np.log2(np.maximum(amount / unit, 1e-9)) / 8.0, -1.0, 1.0)


def penalty_feature(weight: np.ndarray, amount: np.ndarray, unit: float | np.ndarray) -> np.ndarray:
    """An amount as the reward will count it, weight · amount / unit, at most 4."""
    return np.clip(weight * amount / unit, 0.0, PENALTY_CEILING)


def reserve_share(reserve_usd: np.ndarray, usd_left: np.ndarray) -> np.ndarray:
    """Reserves (N, num_choices) as shares of the budgets left (N,), at most 1; 0 without a cap."""
    capped = np.isfinite(usd_left)[:, None]
    left = np.where(capped, np.maximum(usd_left[:, None], 1e-12), 1.0)
    return np.where(capped, np.clip(reserve_usd / left, 0.0, 1.0), 0.0)
