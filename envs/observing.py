"""What the observations of all families share: static features of a state, and what features are called."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from rlroute.envs.recording import Recording, feature
from rlroute.envs.scales import PENALTY_CEILING
from rlroute.features import NUM_TEXT_COMPONENTS
from rlroute.hints import index
from rlroute.jit import kernel
from rlroute.layout import Feature, Layout

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
) -> Layout:
    """A layout with the static features of a state first, text and extra numbers.

    Text gets what is left of `SIZE_AIM` floats, but at least `LEAST_TEXT` components.
    """
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


class Frame(NamedTuple):
    """The constants of an observation."""

    static_size: int  # floats of text and extra features; 0 where the row of the state stands in for them
    context_size: int
    block_size: int
    per_usd: float  # multiples of c_ref in a USD; as all that is divided by, its inverse, since divisions are slow
    per_step: float  # share of the largest step in a step


def make_frame(layout: Layout, c_ref: float, horizon: int) -> Frame:
    """The constants of observations in `layout`; `horizon` is the largest step."""
    size = sum(feature.size for feature in layout.context if feature.name in ("text", "extra"))
    return Frame(size, layout.context_size, layout.block_size, 1.0 / c_ref, 1.0 / max(horizon, 1))


def text_size(layout: Layout) -> int:
    """How many text components an observation carries; 0 with `obs="index"`."""
    return sum(feature.size for feature in layout.context if feature.name == "text")


@kernel
def write_static(out: np.ndarray, i: int, frame: Frame, recording: Recording, s: int, first: int) -> int:
    """Writes text and extra features of state `s`, which begin at `first`, or its row; returns where they end."""
    if frame.static_size == 0:
        out[i, 0] = s
        return index(1)
    for k in range(frame.static_size):
        out[i, k] = feature(recording, s, first + k)
    return index(frame.static_size)


@kernel
def block_at(frame: Frame, choice: int) -> int:
    """Where the block of a choice begins."""
    return index(frame.context_size + choice * frame.block_size)
