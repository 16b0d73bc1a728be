"""EffortRoute: tokens, one prompt cache, Ares' reward, and the labels of minimum sufficient effort."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rlroute.envs.budget_route.observation import CALL, TRACE, add_call, clear, served_tokens
from rlroute.envs.effort_route.env import EffortRouteVectorEnv
from rlroute.envs.effort_route.labels import export_labels, keep_prompts, label_states
from rlroute.envs.effort_route.references import label_oracle
from rlroute.envs.slots import idle_slots
from rlroute.generators import efforts
from rlroute.jit import records
from rlroute.log import Log
from rlroute.policies import AlwaysChoice, RandomPolicy
from rlroute.rewards import ares, ares_step_costs
from rlroute.rollout import rollout

LEVELS = (0, 1, 2)


@pytest.fixture(scope="module")
def log() -> Log:
    return efforts.generate(dataclasses.replace(efforts.DEFAULT, num_tasks=120))


def make(log: Log, num_envs: int = 128, **arguments: Any) -> EffortRouteVectorEnv:
    return EffortRouteVectorEnv(num_envs, autoreset="disabled", log=log, **arguments)


def test_ares_pays_five_less_the_mean_price_of_a_step_for_a_success_and_nothing_for_a_failure() -> None:
    steps = np.array([[4, 0, 0], [0, 4, 0], [0, 0, 4], [2, 0, 2], [0, 0, 9]])
    mean = steps @ ares_step_costs(3) / steps.sum(axis=1)
    np.testing.assert_allclose(ares(np.array([1, 1, 1, 1, 0]), mean), [4.8, 4.5, 4.0, 4.4, 0.0])
    np.testing.assert_allclose(ares_step_costs(3), [-0.2, -0.5, -1.0])
    np.testing.assert_allclose(ares_step_costs(2), [-0.2, -1.0])
    assert (np.diff(ares_step_costs(5)) < 0).all()


def test_on_the_real_ladder_ares_scores_low_and_mid_alike_and_high_less() -> None:
    """0.813 · 4.8, 0.867 · 4.5 and 0.88 · 4.0: maximising it leaves no reason for the most effort."""
    low, mid, high = (rate * ares(1, step) for rate, step in zip((0.813, 0.867, 0.88), ares_step_costs(3), strict=True))
    assert low == pytest.approx(3.90, abs=0.005)
    assert mid == pytest.approx(3.90, abs=0.005)
    assert high == pytest.approx(3.52, abs=0.005)


def test_an_episode_of_ares_is_paid_at_its_end(log: Log) -> None:
    env = make(log, reward="ares")
    played = rollout(env, AlwaysChoice(1), env.dynamics.roots, seed=1)
    np.testing.assert_allclose(played.reward, np.where(played.success, 4.5, 0.0))


def test_tokens_are_those_of_the_responses_heard(log: Log) -> None:
    env = make(log)
    played = rollout(env, RandomPolicy(2), env.dynamics.roots, seed=1)
    completion, reasoning = played.extra["completion_tokens"], played.extra["reasoning_tokens"]
    assert (reasoning < completion).all()
    assert (completion - reasoning <= 60 * played.calls).all()
    by_level = [rollout(env, AlwaysChoice(c), env.dynamics.roots).extra["reasoning_tokens"].mean() for c in LEVELS]
    assert by_level[0] < by_level[1] < by_level[2]
    _, info = env.reset(seed=0)
    assert not info["completion_tokens"].any()


def test_levels_share_one_prompt_cache_and_models_do_not() -> None:
    for cache_of, expected in (([0, 0, 0], [700, 700, 700]), ([0, 1, 2], [0, 700, 0])):
        slots, calls = idle_slots(1, TRACE), records((1, 3), CALL)
        pool = records(3, {"cache_ttl_s": float, "expensive": bool, "cache_of": int})
        pool["cache_ttl_s"], pool["cache_of"] = 300.0, cache_of
        clear(slots, calls, 0)
        add_call(slots, calls, pool, 0, choice=1, prompt_tokens=700, latency_s=0.0)
        assert [served_tokens(slots, calls, pool, 0, c, 900) for c in LEVELS] == expected


def test_labels_by_action_lie_on_paths_of_all_high_success(log: Log) -> None:
    labels = label_states(log, LEVELS, "ares")
    arrays = log.arrays
    assert 0 < labels.considered < (~arrays.terminal).sum()
    assert (labels.level >= 0).sum() == labels.considered - labels.dropped
    assert set(np.unique(labels.level)) == {-1, 0, 1, 2}
    # On a path the step's action makes progress, and a level suffices where most of its attempts do.
    for state in np.flatnonzero(labels.level >= 0)[:200]:
        cell = int(state) * 3 + int(labels.level[state])
        good = arrays.quality[arrays.cell[cell] : arrays.cell[cell + 1]]
        assert 2 * good.sum() > len(good)
        for lower in range(int(labels.level[state])):
            cell = int(state) * 3 + lower
            good = arrays.quality[arrays.cell[cell] : arrays.cell[cell + 1]]
            assert 2 * good.sum() <= len(good)


def test_labels_by_value_cover_states_off_the_path(log: Log) -> None:
    by_action, by_value = label_states(log, LEVELS, "ares"), label_states(log, LEVELS, "value")
    assert by_value.considered == int((~log.arrays.terminal).sum()) > 2 * by_action.considered
    both = (by_action.level >= 0) & (by_value.level >= 0)
    assert (by_action.level == by_value.level)[both].mean() > 0.6


def test_the_label_oracle_spends_less_than_all_high_and_succeeds_about_as_often(log: Log) -> None:
    env = make(log)
    d = env.dynamics
    oracle, high = (rollout(env, p, d.roots, episodes=8) for p in (label_oracle(d), AlwaysChoice(2)))
    assert oracle.success.mean() >= high.success.mean() - 0.02
    assert oracle.extra["reasoning_tokens"].mean() < 0.6 * high.extra["reasoning_tokens"].mean()


def test_labels_are_exported_as_text_and_level_of_one_split(log: Log, tmp_path: Path) -> None:
    labels = label_states(log, LEVELS, "ares")
    written = export_labels(log, labels, tmp_path / "labels.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    assert len(rows) == written == int(((labels.level >= 0) & (log.splits() == 0)).sum())
    assert {"low", "mid"} <= {row["label"] for row in rows} <= {"low", "mid", "high"}
    assert all(row["text"] for row in rows)


def test_too_few_attempts_or_no_actions_are_refused(log: Log) -> None:
    few = efforts.generate(dataclasses.replace(efforts.DEFAULT, num_tasks=3, num_attempts=2))
    with pytest.raises(ValueError, match=r"has 2 attempts at level 'low', expected at least 3"):
        label_states(few, LEVELS)
    at = log.responses.schema.get_field_index("action")
    silent = log.responses.set_column(at, "action", pa.nulls(len(log.responses), pa.string()))
    with pytest.raises(ValueError, match="column action of responses is empty"):
        label_states(Log.from_tables(log.card, log.choices, log.states, silent), LEVELS, "ares")
    with pytest.raises(ValueError, match="'ares', 'value'"):
        label_states(log, LEVELS, "guess")


def test_a_level_without_tokens_is_named(log: Log) -> None:
    at = log.responses.schema.get_field_index("completion_tokens")
    tokens = log.responses["completion_tokens"].to_pylist()
    tokens[7] = None
    changed = log.responses.set_column(at, "completion_tokens", pa.array(tokens, pa.int32()))
    with pytest.raises(
        ValueError, match=r"column completion_tokens: level 'high' in state .* has none \(1 such rows\)"
    ):
        make(Log.from_tables(log.card, log.choices, log.states, changed), 1)


def test_the_prompt_filter_keeps_what_teaches() -> None:
    rng = np.random.default_rng(0)
    success = np.zeros((30, 8))
    success[10:20] = 1.0
    success[20:, :4] = 1.0
    rewards = success * (5 - rng.random((30, 8)) * np.linspace(0, 1, 30)[:, None])
    kept = keep_prompts(rewards, success)
    assert not kept[:10].any(), "no success"
    assert kept[20:].all(), "mixed"
    assert kept[10:20].sum() == 3
    assert rewards[10:20][kept[10:20]].var(axis=1).min() >= rewards[10:20][~kept[10:20]].var(axis=1).max()


def test_a_reward_of_another_family_is_refused(log: Log) -> None:
    with pytest.raises(ValueError, match="'ares'"):
        make(log, reward="utility")
