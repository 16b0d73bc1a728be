"""BoPO: its supervised start, its returns and anchors, its ablations, and caps that hold."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from invented import task_log
from numpy.testing import assert_allclose, assert_array_equal

from rlroute.envs.budget_route.anchors import Anchors
from rlroute.envs.budget_route.boundary import RunArguments, boundary_runs
from rlroute.envs.budget_route.demonstrations import labels
from rlroute.envs.budget_route.env import BudgetRouteVectorEnv
from rlroute.envs.budget_route.references import RandomMix
from rlroute.policies import RandomPolicy
from rlroute.policy import load_policy
from rlroute.rollout import Episodes, finished, rollout

pytest.importorskip("ray")
pytest.importorskip("torch")

from rlroute.agents.advantages import anchored, group_relative
from rlroute.agents.rllib import bopo
from rlroute.agents.rllib.bopo import BoPOArguments, BoundaryShaping

ENV = "rlroute:rlroute/BudgetRoute-v0"
pytestmark = [
    pytest.mark.usefixtures("handmade", "one_ray"),
    pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning"),
]


@pytest.fixture(scope="module")
def log_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return task_log(200).save(tmp_path_factory.mktemp("log") / "tasks")


@pytest.fixture
def env_arguments(log_folder: Path) -> dict[str, Any]:
    return {"log": str(log_folder), "featuriser": "letters", "budget_calls": (0, 4), "preference": (0.05, 1.0)}


def arguments(**knobs: Any) -> BoPOArguments:
    small = {"total_steps": 20_000, "num_envs": 256, "minibatch": 512, "hidden": 32, "text_noise": 0.0, "rollouts": 10}
    return BoPOArguments(**{**small, **knobs})


def make_env(env_arguments: dict[str, Any], num_envs: int = 256, **changes: Any) -> BudgetRouteVectorEnv:
    return BudgetRouteVectorEnv(num_envs, autoreset="disabled", **{**env_arguments, **changes})


# -- the supervised start --------------------------------------------------------------------------


def test_the_supervised_start_imitates_the_demonstrations(env_arguments: dict[str, Any], tmp_path: Path) -> None:
    knobs = arguments(clone_epochs=20, minibatch=256)
    start = bopo.supervised_start(env_arguments, tmp_path / "bosft", knobs)
    policy = load_policy(start)
    policy.begin(make_env(env_arguments, 1))
    shown = labels(Anchors(boundary_runs(env_arguments, knobs.runs)), env_arguments)
    agreed = policy.act(shown.observation, shown.action_mask) == shown.action
    assert agreed.mean() > max(shown.action.mean(), 1 - shown.action.mean()) + 0.05
    assert policy.card["training"]["teacher"] == "BoSFT"


def test_training_starts_from_it_unless_data_synthesis_is_off_or_a_start_is_given(
    env_arguments: dict[str, Any], tmp_path: Path
) -> None:
    still = {"learning_rate": 0.0, "total_steps": 256, "clone_epochs": 1}
    trained = load_policy(bopo.train(ENV, env_arguments, tmp_path / "with", arguments(**still)))
    bosft = load_policy(tmp_path / "with" / "bosft")
    assert all(np.array_equal(trained.parameters[name], bosft.parameters[name]) for name in bosft.parameters)
    bopo.train(ENV, env_arguments, tmp_path / "without", arguments(synthesis=False, **still))
    assert not (tmp_path / "without" / "bosft").exists()
    given = arguments(start=str(tmp_path / "with" / "bosft"), **still)
    bopo.train(ENV, env_arguments, tmp_path / "given", given)
    assert not (tmp_path / "given" / "bosft").exists()


# -- returns and anchors ---------------------------------------------------------------------------


def wave(env_arguments: dict[str, Any], size: int) -> Episodes:
    """One episode of every slot under a random policy, `size` slots a group."""
    env = make_env(env_arguments, 64)
    policy = RandomPolicy(0)
    policy.begin(env)
    observation, info = env.reset(seed=0, options={"group": size})
    while env.dynamics.active.any():
        observation, _, _, _, info = env.step(policy.act(observation, info["action_mask"]))
    return finished(env.dynamics, np.zeros(64), np.zeros(64, bool), 64)


def test_every_group_is_anchored_at_its_own_task_cap_and_preference(env_arguments: dict[str, Any]) -> None:
    knobs = arguments(group_size=8)
    played = wave(env_arguments, 8)
    returns, (small, expert) = BoundaryShaping(env_arguments, knobs)(played)
    assert returns.shape == (64,)
    assert small.shape == expert.shape == (8,)
    anchors = Anchors(boundary_runs(env_arguments, knobs.runs), knobs.reward)
    for k in range(8):
        task, cap, weight = played.task[8 * k], played.budget_calls[8 * k], played.cost_weight[8 * k]
        alone = anchors.score([task], [cap], [weight], [True], [0.0])
        assert_allclose([small[k], expert[k]], [alone.r_small[0], alone.r_expert[0]])
    assert len(np.unique(played.budget_calls)) > 1
    assert len(np.unique(small)) > 1


def test_an_episode_is_worth_success_and_bonus_less_its_share_of_the_cost(env_arguments: dict[str, Any]) -> None:
    knobs = arguments()
    played = wave(env_arguments, 8)
    returns, _ = BoundaryShaping(env_arguments, knobs)(played)
    scores = Anchors(boundary_runs(env_arguments, knobs.runs)).score(
        played.task, played.budget_calls, played.cost_weight, played.success, played.expensive_calls
    )
    assert_array_equal(returns, scores.returns)
    in_usd, _ = BoundaryShaping(env_arguments, arguments(cost="usd"))(played)
    assert not np.allclose(returns, in_usd)
    plain, _ = BoundaryShaping(env_arguments, arguments(bonus=0.0))(played)
    hard = (scores.kind == 1) & played.success
    assert_allclose(returns - plain, 0.5 * hard)
    assert hard.any()
    constant, _ = BoundaryShaping(env_arguments, arguments(constant_weight=0.0))(played)
    assert_allclose(constant, played.success + 0.5 * hard)


def test_each_ablation_is_one_flag(env_arguments: dict[str, Any]) -> None:
    for anchors, estimator, count in ((True, anchored, 2), (False, group_relative, 0)):
        config = bopo.build_config(ENV, env_arguments, arguments(anchors=anchors))
        assert config.estimator is estimator
        assert config.shaping is not None
        assert len(config.shaping(wave(env_arguments, 8))[1]) == count


def test_what_travels_with_the_configuration_is_small_and_works_elsewhere(env_arguments: dict[str, Any]) -> None:
    shaping = BoundaryShaping(env_arguments, arguments())
    played = wave(env_arguments, 8)
    expected, _ = shaping(played)
    sent = pickle.dumps(shaping)
    assert len(sent) < 2_000
    assert_array_equal(pickle.loads(sent)(played)[0], expected)


# -- the trained router ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(log_folder: Path, handmade_cache: Path, tmp_path_factory: pytest.TempPathFactory, one_ray: None) -> Path:
    from logs import Letters

    from rlroute.text import FEATURISERS

    with pytest.MonkeyPatch.context() as patch:  # as the fixture `handmade` does, once for the file
        patch.setenv("RLROUTE_CACHE", str(handmade_cache))
        patch.setitem(FEATURISERS, "letters", Letters)
        given = {"log": str(log_folder), "featuriser": "letters", "budget_calls": (0, 4), "preference": (0.05, 1.0)}
        return bopo.train(ENV, given, tmp_path_factory.mktemp("trained"), arguments(total_steps=60_000))


def test_it_beats_random_mixes_at_every_cap(env_arguments: dict[str, Any], trained: Path) -> None:
    policy = load_policy(trained)
    for cap in (1, 2):
        env = make_env(env_arguments, split="test", budget_calls=cap, preference=0.05)
        router = rollout(env, policy, env.dynamics.roots, 4)
        mixes = [rollout(env, RandomMix(0, 1, p), env.dynamics.roots, 4).success.mean() for p in (0.2, 0.5, 1.0)]
        assert router.success.mean() > max(mixes) + 0.03


@pytest.mark.parametrize("sample", [False, True])
def test_no_cap_is_ever_exceeded(env_arguments: dict[str, Any], trained: Path, sample: bool) -> None:
    """Budget-constrained decoding, equation (9): under hard caps, and with soft preferences beside them."""
    for policy in (RandomPolicy(0), load_policy(trained, sample=sample, seed=0)):
        for cap in (0, 1, 3, (0, 4)):
            for preference in (0.0, 0.3, (0.05, 1.0)):
                env = make_env(env_arguments, split="test", budget_calls=cap, preference=preference)
                played = rollout(env, policy, env.dynamics.roots, 3)
                assert (played.expensive_calls <= played.budget_calls).all()
                assert played.violation.mean() == 0
                assert played.expensive_calls.sum() > 0 or cap == 0


# -- refusals --------------------------------------------------------------------------------------


def test_what_cannot_be_trained_is_refused_before_anything_is_recorded(
    env_arguments: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"BoPO on 'rlroute:rlroute/ThinkRoute-v0': expected 'rlroute/BudgetRoute-v0'"):
        bopo.train("rlroute:rlroute/ThinkRoute-v0", {}, tmp_path)
    with pytest.raises(ValueError, match=r"preference=\(0\.1, 2\.0\): expected weights below 1 \+ bonus = 1\.5"):
        bopo.train(ENV, {**env_arguments, "preference": (0.1, 2.0)}, tmp_path)
    with pytest.raises(ValueError, match=r"budget_usd=1\.0.*expected None"):
        bopo.train(ENV, {**env_arguments, "budget_usd": 1.0}, tmp_path)
    assert RunArguments() == BoPOArguments().runs
