"""The columnar runner: columns as an episode saw them, waves of groups, bootstraps, evaluation, bad rewards."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from columns import ENV, SMALL, config, group_config

pytest.importorskip("ray")
torch = pytest.importorskip("torch")

from ray.rllib.core.columns import Columns  # noqa: E402 - only where Ray is installed

from rlroute.agents.rllib import grpo, ppo  # noqa: E402
from rlroute.agents.rllib.runner import choose  # noqa: E402
from rlroute.rollout import rollout as play  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_ray")


def test_a_truncated_episode_goes_on_with_the_value_of_where_it_was_cut() -> None:
    algorithm = config(cut=True).build_algo()
    runner, finals = algorithm.env_runner, []
    step = runner.env.step

    def watched(actions: Any) -> Any:
        result = step(actions)
        finals.append(result[4].get("final_obs", {}).get("observation"))
        return result

    runner.env.step = watched
    (rollout,) = runner.sample()
    assert rollout.truncated.any()
    assert not rollout.terminated.any()
    for t in range(len(rollout.reward)):
        cut = rollout.truncated[t]
        assert (rollout.final_value[t, ~cut] == 0).all()
        if cut.any():
            seen = {Columns.OBS: {"observation": torch.from_numpy(finals[t][cut])}}
            with torch.no_grad():
                values = runner.module.compute_values(seen).numpy()
            np.testing.assert_allclose(rollout.final_value[t, cut], values, rtol=1e-4, atol=1e-6)
    algorithm.stop()


def test_the_buffers_are_used_again_and_rollouts_follow_on_each_other() -> None:
    algorithm = config().build_algo()
    (first,) = algorithm.env_runner.sample()
    picks_left = first.observation[-1, :, 0].copy()
    (second,) = algorithm.env_runner.sample()
    assert second.observation.base is first.observation.base
    # Three picks an episode: 1, 2/3 and 1/3 of them are left in turn.
    expected = np.where(picks_left > 0.5, picks_left - 1 / 3, 1.0)
    np.testing.assert_allclose(second.observation[0, :, 0], expected, atol=1e-5)
    algorithm.stop()


def test_actions_are_drawn_from_the_softmax_and_never_masked() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([0.0, 1.0, -1e9, 2.0]).repeat(200_000, 1)
    shares = torch.bincount(choose(logits, explore=True), minlength=4) / len(logits)
    torch.testing.assert_close(shares, torch.softmax(logits[0], 0), atol=4e-3, rtol=0)
    assert shares[2] == 0
    assert (choose(logits[:2], explore=False) == 3).all()


def test_a_wave_is_one_episode_of_every_slot_with_shared_offers() -> None:
    algorithm = group_config().build_algo()
    runner = algorithm.env_runner
    (rollout,) = runner.sample()
    assert rollout.playing.sum() == rollout.env_steps() == 32 * 3
    assert rollout.terminated.sum() == 32
    groups = rollout.observation.copy().reshape(3, 4, 8, -1)
    assert (groups == groups[:, :, :1]).all()
    assert not (groups[:, 0] == groups[:, 1]).all()
    (again,) = runner.sample()
    assert not np.array_equal(again.observation, groups.reshape(3, 32, -1))
    assert runner.env.unwrapped.masked_actions == 0
    algorithm.stop()


def test_slots_of_a_group_that_see_the_same_are_found_and_answered_alike() -> None:
    arguments = grpo.GRPOArguments(num_envs=32, group_size=4, minibatch=64, hidden=16, text_noise=0.0)
    algorithm = grpo.build_config("rlroute:rlroute/BudgetRoute-v0", {}, arguments).build_algo()
    (rollout,) = algorithm.env_runner.sample()
    shared = 0
    for t, slot in np.argwhere(rollout.playing):
        mates = np.arange(slot - slot % 4, slot + 1)
        mates = mates[rollout.playing[t, mates]]
        same = (rollout.observation[t, mates] == rollout.observation[t, slot]).all(axis=1)
        same &= (rollout.action_mask[t, mates] == rollout.action_mask[t, slot]).all(axis=1)
        assert rollout.alike[t, slot] == mates[same][0]
        shared += int(rollout.alike[t, slot] != slot)
    np.testing.assert_array_equal(rollout.alike[0], np.arange(32) // 4 * 4)  # all of a group begin alike
    assert 24 < shared < rollout.playing.sum() - 8  # and their ways part later

    seen = {name: torch.from_numpy(rollout.rows(getattr(rollout, name))) for name in ("observation", "action_mask")}
    with torch.no_grad():
        logits = algorithm.env_runner.module._forward({Columns.OBS: seen})[Columns.ACTION_DIST_INPUTS]
    torch.testing.assert_close(torch.from_numpy(rollout.rows(rollout.logits)), logits, atol=1e-6, rtol=1e-6)
    algorithm.stop()


def test_groups_of_a_routing_environment_share_task_preference_and_budget() -> None:
    given = {"log": "tasks", "preference": (0.01, 1.0), "budget_calls": (1, 6)}
    arguments = grpo.GRPOArguments(num_envs=64, group_size=4, minibatch=64, hidden=16, text_noise=0.0)
    algorithm = grpo.build_config("rlroute:rlroute/BudgetRoute-v0", given, arguments).build_algo()
    (rollout,) = algorithm.env_runner.sample()
    episodes = rollout.episodes
    for column in (episodes.task, episodes.cost_weight, episodes.budget_calls):
        by_group = column.reshape(16, 4)
        assert (by_group == by_group[:, :1]).all()
        assert len(np.unique(by_group[:, 0])) > 4
    assert not episodes.violation.any()
    lengths = rollout.playing.sum(axis=0)
    assert len(np.unique(lengths)) > 1  # some wait for others
    np.testing.assert_array_equal(lengths, episodes.calls)
    np.testing.assert_allclose(rollout.reward.sum(axis=0), episodes.reward, atol=1e-4)
    assert (rollout.reward[~rollout.playing] == 0).all()
    algorithm.stop()


@pytest.mark.parametrize("make", [config, group_config])
def test_evaluation_plays_every_slot_equally_often(make: Any) -> None:
    evaluated = make().evaluation(evaluation_interval=99, evaluation_duration=40)
    algorithm = evaluated.build_algo()
    results = algorithm.evaluate()["env_runners"]
    assert results["num_episodes"] == 64  # the least multiple of 32 slots that holds 40
    assert results["episode_len_mean"] == 3
    assert results["episode_return_min"] <= results["episode_return_mean"] <= results["episode_return_max"]
    before = algorithm.train()["env_runners"]["num_env_steps_sampled_lifetime"]
    algorithm.evaluate()
    assert algorithm.train()["env_runners"]["num_env_steps_sampled_lifetime"] >= before
    algorithm.stop()


def test_greedy_evaluation_earns_what_the_exported_policy_earns(tmp_path: Any) -> None:
    from rlroute.agents.rllib.export import export_policy
    from rlroute.envs.contest import vector_env
    from rlroute.policy import load_policy

    arguments = ppo.PPOArguments(num_envs=256, rollout_length=16, hidden=16, text_noise=0.0)
    built = ppo.build_config("rlroute:rlroute/BudgetRoute-v0", {}, arguments)
    greedy = {"explore": False}  # of evaluation runners, which an interval makes
    algorithm = built.evaluation(
        evaluation_interval=99, evaluation_duration=1024, evaluation_config=greedy
    ).build_algo()
    algorithm.train()
    found = algorithm.evaluate()["env_runners"]["episode_return_mean"]
    policy = load_policy(export_policy(algorithm, tmp_path / "policy"))
    env = vector_env("rlroute/BudgetRoute-v0", "train", 256)
    tasks = np.random.default_rng(0).choice(env.dynamics.roots, 1024)
    reward = play(env, policy, tasks, seed=3).reward
    assert found == pytest.approx(reward.mean(), abs=4 * reward.std() / np.sqrt(512))
    algorithm.stop()


def test_a_reward_that_is_no_number_is_named_by_slot_and_step() -> None:
    algorithm = config(nan_at=5).build_algo()
    with pytest.raises(ValueError, match="reward nan of slot 31 at step 5 of the rollout"):
        algorithm.train()
    algorithm.stop()


def test_environments_that_reset_otherwise_are_refused() -> None:
    for make, found, expected in ((config, "DISABLED", "SAME_STEP"), (group_config, "SAME_STEP", "DISABLED")):
        built = make()
        built.env_config["autoreset"] = found.lower()
        with pytest.raises(ValueError, match=rf"autoreset mode .*{found}, expected .*{expected}"):
            built.build_algo()


def test_a_network_of_another_layout_is_refused() -> None:
    built = config()
    built.env_config["num_choices"] = 7
    with pytest.raises(ValueError, match="observation's num_choices is 7, but the network was made for 4"):
        built.build_algo()


def test_metrics_are_those_of_the_episodes_that_ended() -> None:
    algorithm = config().build_algo()
    (rollout,) = algorithm.env_runner.sample()
    metrics = algorithm.env_runner.get_metrics()
    ends = int(rollout.terminated.sum())
    assert metrics["num_episodes"].peek() == ends == 32 * 5
    assert metrics["num_env_steps_sampled"].peek() == 32 * 16
    whole = rollout.reward[: 3 * 5].sum() / ends  # five whole episodes of every slot
    assert metrics["episode_return_mean"].peek() == pytest.approx(whole, abs=1e-5)
    algorithm.stop()


def test_gymnasium_knows_the_toy_by_its_module() -> None:
    env = gym.make_vec(ENV, num_envs=SMALL.num_envs, vectorization_mode="vector_entry_point", autoreset="same_step")
    assert env.metadata["autoreset_mode"] == gym.vector.AutoresetMode.SAME_STEP
