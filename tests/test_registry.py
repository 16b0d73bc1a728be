"""What every registered environment promises. A new row of the registry gets these tests by being there."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from rlroute.envs import REGISTRY
from rlroute.testing import check_routing_env

IDS = [row.id for row in REGISTRY]
pytestmark = pytest.mark.parametrize("env_id", IDS)


def make_vec(env_id: str, num_envs: int, **arguments: Any) -> Any:
    return gym.make_vec(env_id, num_envs=num_envs, vectorization_mode="vector_entry_point", **arguments)


def legal_actions(mask: np.ndarray, step: int, slots: np.ndarray) -> np.ndarray:
    """A legal action of each row of `mask`, (N,), as a fixed function of the step and the slot's number."""
    score = np.sin(1.0 + 3.7 * step + 11.3 * slots[:, None] + 5.1 * np.arange(mask.shape[1]))
    return np.where(mask == 1, score, -2.0).argmax(axis=1)


@pytest.mark.filterwarnings("ignore")
def test_gymnasium_check_env_passes(env_id: str) -> None:
    check_env(gym.make(env_id, render_mode="ansi").unwrapped)
    check_env(gym.make(env_id, mask_in_obs=True).unwrapped, skip_render_check=True)


def test_conforms(env_id: str) -> None:
    check_routing_env(gym.make(env_id))
    check_routing_env(gym.make(env_id, mask_in_obs=True))
    check_routing_env(gym.make(env_id, obs="index"))


def test_two_environments_side_by_side_repeat_bit_for_bit(env_id: str) -> None:
    first, second = make_vec(env_id, 16), make_vec(env_id, 16)
    (a, info), (b, _) = first.reset(seed=7), second.reset(seed=7)
    for step in range(200):
        assert np.array_equal(a, b)
        action = legal_actions(info["action_mask"], step, np.arange(16))
        (a, *outcome_a, info), (b, *outcome_b, _) = first.step(action), second.step(action)
        for x, y in zip(outcome_a, outcome_b, strict=True):
            assert np.array_equal(x, y)


def test_action_masks_is_the_mask_of_info(env_id: str) -> None:
    env: Any = gym.make(env_id)
    _, info = env.reset(seed=0)
    for _ in range(5):
        masks = env.unwrapped.action_masks()
        assert masks.dtype == bool
        assert np.array_equal(masks, info["action_mask"] == 1)
        _, _, terminated, truncated, info = env.step(int(np.flatnonzero(masks)[0]))
        if terminated or truncated:
            _, info = env.reset()


def test_another_seed_is_another_run(env_id: str) -> None:
    env = make_vec(env_id, 32)
    assert not np.array_equal(env.reset(seed=0)[0], env.reset(seed=1)[0])
    # Neighbouring seeds share no stream: slot i of one is not slot i + 1 of the other.
    a, b = env.reset(seed=0)[0], env.reset(seed=1)[0]
    assert not np.array_equal(a[1:], b[:-1])


def test_scalar_and_vector_play_the_same_thousand_episodes(env_id: str) -> None:
    slots, per_slot = 20, 50
    vector = make_vec(env_id, slots, autoreset="same_step")
    observation, info = vector.reset(seed=3)
    trajectories: list[list[tuple[Any, ...]]] = [[] for _ in range(slots)]
    episodes = np.zeros(slots, int)
    step = 0
    while episodes.min() < per_slot:
        action = legal_actions(info["action_mask"], step, np.arange(slots))
        before = observation
        observation, reward, terminated, truncated, info = vector.step(action)
        for i in range(slots):
            if episodes[i] < per_slot:
                row = (step, before[i].copy(), action[i], reward[i], terminated[i], truncated[i])
                trajectories[i].append(row)
        episodes += terminated | truncated
        step += 1
    scalar = gym.make(env_id)
    for i in range(slots):
        current, info = scalar.reset(seed=3, options={"slot": i})
        for step, seen, action, reward, terminated, truncated in trajectories[i]:
            assert np.array_equal(current, seen)
            assert action == legal_actions(info["action_mask"][None], step, np.array([i]))[0]
            current, *outcome, info = scalar.step(action)
            assert outcome == [reward, terminated, truncated]
            if terminated or truncated:
                current, info = scalar.reset()


def test_autoreset_modes_tell_the_same_story(env_id: str) -> None:
    same, following = make_vec(env_id, 4, autoreset="same_step"), make_vec(env_id, 4, autoreset="next_step")
    assert same.metadata["autoreset_mode"] is gym.vector.AutoresetMode.SAME_STEP
    assert following.metadata["autoreset_mode"] is gym.vector.AutoresetMode.NEXT_STEP
    stories = []
    for env in (same, following):
        observation, info = env.reset(seed=5)
        story: list[list[Any]] = [[] for _ in range(4)]
        decisions = np.zeros(4, int)
        finished = np.zeros(4, bool)
        for _ in range(300):
            action = np.array(
                [legal_actions(info["action_mask"][[i]], decisions[i], np.array([i]))[0] for i in range(4)]
            )
            before = observation
            observation, reward, terminated, truncated, info = env.step(action)
            for i in range(4):
                if env is following and finished[i]:
                    assert reward[i] == 0
                    assert not terminated[i]
                    continue
                story[i].append((before[i].copy(), reward[i], terminated[i]))
                decisions[i] += 1
            if env is same and (terminated | truncated).any():
                assert np.array_equal(info["_final_obs"], terminated | truncated)
            finished = terminated | truncated
        stories.append(story)
    for of_same, of_following in zip(*stories, strict=True):
        assert len(of_following) > 50
        for a, b in zip(of_same, of_following, strict=False):
            assert np.array_equal(a[0], b[0])
            assert a[1:] == b[1:]


def test_finished_slots_idle_when_autoreset_is_disabled(env_id: str) -> None:
    env = make_vec(env_id, 8, autoreset="disabled")
    _, info = env.reset(seed=0)
    done = np.zeros(8, bool)
    for step in range(100):
        _, reward, terminated, truncated, info = env.step(legal_actions(info["action_mask"], step, np.arange(8)))
        assert not reward[done].any()
        assert not terminated[done].any()
        done |= terminated | truncated
    assert done.all()
    totals = info["totals"].copy()
    _, info = env.reset(options={"reset_mask": np.arange(8) < 4})
    assert not info["totals"][:4].any()
    assert np.array_equal(info["totals"][4:], totals[4:])


def test_observations_are_small_bounded_and_described(env_id: str) -> None:
    env: Any = gym.make(env_id).unwrapped
    layout = env.layout
    assert layout.size <= 128
    assert np.isfinite(env.observation_space.low).all()
    assert np.isfinite(env.observation_space.high).all()
    covered = np.zeros(layout.size, int)
    for place in layout.slices().values():
        covered[place] += 1
    assert (covered == 1).all()
    names = [layout.describe_action(action) for action in range(layout.num_actions)]
    assert [layout.action(*name) for name in names] == list(range(layout.num_actions))


def test_a_group_shares_task_weights_and_budgets(env_id: str) -> None:
    env = make_vec(env_id, 12, autoreset="same_step", preference=(0.01, 1.0))
    _, info = env.reset(seed=0, options={"group": 4})
    for step in range(60):
        dynamics = env.dynamics
        for values in (dynamics.task, dynamics.w_cost, dynamics.terms.budget_usd, dynamics.episode):
            by_group = np.asarray(values).reshape(3, 4)
            same_episode = dynamics.episode.reshape(3, 4) == dynamics.episode.reshape(3, 4)[:, :1]
            assert (by_group == by_group[:, :1])[same_episode].all()
        assert len(set(dynamics.w_cost[dynamics.episode == 0])) in (0, 1, 2, 3)
        _, _, _, _, info = env.step(legal_actions(info["action_mask"], step, np.arange(12)))
    _, _ = env.reset()
    assert len(set(env.dynamics.w_cost)) > 3


def test_a_task_can_be_asked_for_by_id_and_by_row(env_id: str) -> None:
    env: Any = gym.make(env_id)
    dynamics = env.unwrapped.dynamics
    row = int(dynamics.roots[17])
    by_row, _ = env.reset(seed=0, options={"task": row})
    assert dynamics.task[0] == row
    by_id, _ = env.reset(seed=0, options={"task": str(dynamics.arrays.state_ids[row])})
    assert np.array_equal(by_row, by_id)
    not_a_root = int(np.flatnonzero(~dynamics.arrays.root)[0])
    for wrong in (not_a_root, "no such task", 10**9):
        with pytest.raises(ValueError, match="root state"):
            env.reset(options={"task": wrong})


def test_splits_never_mix(env_id: str) -> None:
    groups = []
    for split in ("train", "val", "test"):
        env: Any = gym.make(env_id, split=split)
        dynamics = env.unwrapped.dynamics
        groups.append(set(dynamics.arrays.group[dynamics.roots]))
        env.reset(seed=0)
        for _ in range(50):
            env.reset()
            assert dynamics.arrays.group[dynamics.task[0]] in groups[-1]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
    other: Any = gym.make(env_id, split="test", split_salt=1)
    assert set(other.unwrapped.dynamics.arrays.group[other.unwrapped.dynamics.roots]) != groups[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bugdet_usd": 1.0}, "did you mean 'budget_usd'"),
        ({"split": "dev"}, "'train', 'val', 'test'"),
        ({"budget_usd": 1e-12}, "below the cheapest step"),
        ({"preference": (0.0, 1.0)}, "0 < low"),
        ({"preference": float("nan")}, "preference"),
        ({"reward": "profit"}, "'linear', 'router_r1'"),
        ({"obs": "pixels"}, "'features', 'index'"),
        ({"max_episode_steps": 0}, "positive number"),
        ({"render_mode": "human"}, "'ansi'"),
    ],
)
def test_bad_arguments_are_refused_with_the_allowed_values(
    env_id: str, arguments: dict[str, Any], message: str
) -> None:
    row = next(row for row in REGISTRY if row.id == env_id)
    module, name = row.vector_entry_point.split(":")
    kind = getattr(__import__(module, fromlist=[name]), name)
    with pytest.raises((ValueError, TypeError), match=message):
        kind(1, **arguments)


def test_time_limit_truncates(env_id: str) -> None:
    env = make_vec(env_id, 4, max_episode_steps=2, autoreset="disabled")
    env.reset(seed=0)
    _, info = env.reset()
    masked = info["action_mask"].argmin(axis=1)
    if not (info["action_mask"].min(axis=1) == 0).all():
        pytest.skip("nothing is masked at the start of this environment")
    env.step(masked)
    _, reward, terminated, truncated, _ = env.step(masked)
    assert truncated.all()
    assert not terminated.any()
    assert (reward == -1).all()


def test_render_tells_the_task(env_id: str) -> None:
    env: Any = gym.make(env_id, render_mode="ansi")
    _, info = env.reset(seed=0)
    dynamics = env.unwrapped.dynamics
    assert dynamics.log.state_text(int(dynamics.state[0])) in env.render()
    env.step(int(np.flatnonzero(info["action_mask"])[-1]))
    assert "USD" in env.render()
