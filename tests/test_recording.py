"""Recordings of logs in the cache: packed once, read or mapped alike, never written to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from logs import budget_vec, think_vec
from numpy.testing import assert_allclose, assert_array_equal
from random_logs import many_questions, many_tasks

from rlroute.envs import recording
from rlroute.envs.recording import (
    FIRST_ROW,
    LINE,
    PROMPT_TOKENS,
    UNIT,
    Recording,
    attempts_of,
    call_of,
    feature,
    features_at,
)

pytestmark = [
    pytest.mark.usefixtures("handmade"),
    pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning"),
]


def recorded(env: Any) -> Recording:
    found: Recording = env.dynamics.game.recording
    return found


@pytest.mark.parametrize("mapped_bytes", [0, 2**28])
def test_what_is_read_from_the_cache_is_what_was_packed(monkeypatch: pytest.MonkeyPatch, mapped_bytes: int) -> None:
    first = recorded(think_vec(many_questions(), 2))
    monkeypatch.setattr(recording, "MAPPED_BYTES", mapped_bytes)
    monkeypatch.setattr(recording, "pack", None)  # whoever packs again fails
    recording._kept.clear()
    again = recorded(think_vec(many_questions(), 2))
    recording._kept.clear()
    assert again is not first
    assert first.width == again.width == first.numbers.shape[1]
    for ours, theirs in zip(first[1:], again[1:], strict=True):
        assert ours.dtype == theirs.dtype
        assert_array_equal(ours.view(np.uint8), theirs.view(np.uint8))
        assert not theirs.flags.writeable
        assert theirs.ctypes.data % (4 * LINE) == 0


def test_the_row_of_a_state_holds_its_calls_and_features() -> None:
    env = budget_vec(many_tasks(), 2)
    dynamics, found = env.dynamics, recorded(env)
    arrays, choices = dynamics.arrays, dynamics.pool.size
    state = int(dynamics.roots[0])
    for c in range(choices):
        assert call_of(found, state, c, FIRST_ROW) == arrays.cell[state * choices + c]
        assert attempts_of(found, state, c, choices) == arrays.num_attempts[state, c]
        assert call_of(found, state, c, PROMPT_TOKENS) == arrays.prompt_tokens_of[state, c]
    at = features_at(choices)
    size = dynamics.game.frame.static_size
    shown = [feature(found, state, at + k) for k in range(size + 2 * choices)]
    features = dynamics.features
    parts = features.text[state], features.extra[state], features.prior[state], features.prospect[state]
    assert_allclose(shown, np.concatenate(parts), atol=float(UNIT) / 2 * (1 + 1e-6))


def test_an_index_needs_no_features() -> None:
    full, lean = (recorded(think_vec(many_questions(), 2, obs=obs)) for obs in ("features", "index"))
    assert lean.numbers.shape[1] < full.numbers.shape[1]
