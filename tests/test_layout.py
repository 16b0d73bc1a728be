"""The layout of observations and actions."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rlroute.layout import Feature, Layout

LAYOUT = Layout(
    context=(Feature("text", "component", -1, 1, 3), Feature("weight", "log scale")),
    choice=(Feature("price", "USD", -2, 2), Feature("skill", "share", size=2)),
    num_choices=4,
    context_actions=("think", "check"),
    choice_actions=("call", "accept"),
)


def test_slices_cover_every_float_once() -> None:
    covered = np.zeros(LAYOUT.size, int)
    for place in LAYOUT.slices().values():
        covered[place] += 1
    assert LAYOUT.size == 4 + 4 * 3
    assert (covered == 1).all()
    assert LAYOUT.slices()["skill/2"] == slice(11, 13)
    assert LAYOUT.slices()["weight"] == slice(3, 4)


def test_actions_are_numbered_context_first_then_kind_by_kind() -> None:
    expected: list[tuple[str, int | None]] = [("think", None), ("check", None)]
    expected += [(kind, c) for kind in ("call", "accept") for c in range(4)]
    assert [LAYOUT.describe_action(a) for a in range(LAYOUT.num_actions)] == expected
    assert [LAYOUT.action(*name) for name in expected] == list(range(LAYOUT.num_actions))


def test_actions_that_do_not_exist_are_refused() -> None:
    for choice in (-1, 4):
        with pytest.raises(IndexError, match="0 to 3"):
            LAYOUT.action("call", choice)
    with pytest.raises(KeyError, match="expected one of call, accept"):
        LAYOUT.action("sing", 0)
    with pytest.raises(KeyError, match="expected one of think, check"):
        LAYOUT.action("sing")


def test_bounds_follow_the_features() -> None:
    low, high = LAYOUT.bounds()
    assert low.dtype == high.dtype == np.float32
    assert low.tolist() == [-1, -1, -1, 0, *[-2, 0, 0] * 4]
    assert high.tolist() == [1, 1, 1, 1, *[2, 1, 1] * 4]


def test_a_layout_survives_plain_data() -> None:
    assert Layout.from_dict(json.loads(json.dumps(LAYOUT.to_dict()))) == LAYOUT


def test_the_description_names_every_feature_with_range_and_unit() -> None:
    lines = LAYOUT.describe().splitlines()
    assert len(lines) == 2 + 4
    assert "| price (each choice) | 1 | [-2, 2] | USD |" in lines
    assert "| text | 3 | [-1, 1] | component |" in lines
