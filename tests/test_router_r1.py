"""What the experiment on text routers tells of the numeric ones beside them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlroute.envs.contest import vector_env
from rlroute.policies import AlwaysChoice

ENV = "rlroute/ThinkRoute-v0"


@pytest.fixture
def numeric(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "experiments" / "router_r1"))
    import numeric

    yield numeric
    for name in ("numeric", "plans"):
        sys.modules.pop(name, None)


def make_env(split: str, **given: Any) -> Any:
    return vector_env(ENV, split, **given)


def test_every_call_of_a_task_is_counted_and_no_other(numeric: Any) -> None:
    plan = sys.modules["plans"].PLANS["think"]
    scores, told = numeric.play(plan, AlwaysChoice(2, "always"), make_env, tasks=30)
    for score, figures in zip(scores, told["figures"], strict=True):
        assert len(score.group) == 30
        assert figures["top_share"] == 1.0
        assert figures["calls"] == score.calls.mean()
    tally = numeric.Tally(Turns())
    env = make_env("test", num_envs=30)
    env.reset(seed=0)
    played = numeric.rollout(env, tally, numeric.roots(env)[:30])
    assert tally.calls.sum() == played.calls.sum() > 0
    assert np.count_nonzero(tally.calls) > 1


def test_shares_of_one_call_a_question(numeric: Any) -> None:
    plan = sys.modules["plans"].PLANS["think"]
    shares = numeric.one_call_shares(plan, make_env, tasks=None)
    assert len(shares) == len(plan.settings)
    assert all(1 / 6 <= share <= 1 for share in shares)
    assert numeric.one_call_shares(sys.modules["plans"].PLANS["budget"], make_env, tasks=None) == []


class Turns:
    """Asks any choice that is open until none is."""

    name = "turns"

    def begin(self, env: Any) -> None:
        self.rng = np.random.default_rng(0)

    def act(self, observation: np.ndarray, action_mask: np.ndarray) -> np.ndarray:
        return (self.rng.random(action_mask.shape) * action_mask).argmax(axis=1)
