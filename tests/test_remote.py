"""Remote runners: weights and columns travel, restored weights act first, overlap lags by one, failures heal."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from columns import ENV, config, group_config

pytest.importorskip("torch")
ray = pytest.importorskip("ray")

import torch  # noqa: E402 - only where Ray is installed
from ray.rllib.core.columns import Columns  # noqa: E402

from rlroute.agents.rllib import ppo  # noqa: E402
from rlroute.agents.rllib.algorithm import ColumnarPPO  # noqa: E402
from rlroute.agents.rllib.cluster import start_ray  # noqa: E402
from rlroute.agents.rllib.rollout import Rollout  # noqa: E402

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module", autouse=True)
def python_path() -> Iterator[None]:
    """Ray's workers find the package and the toy family."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def three_cpus(python_path: None) -> Iterator[None]:
    """A Ray with three CPUs, whatever the machine has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "cpu_count", lambda: 3)
        start_ray(num_env_runners=2)
    yield
    ray.shutdown()


def made_by(rollout: Rollout, module: Any) -> float:
    """The largest difference between the logits of a rollout and those of `module` for what it saw."""
    seen = {
        name: torch.from_numpy(rollout.rows(getattr(rollout, name)).copy()) for name in ("observation", "action_mask")
    }
    logits = module.forward_exploration({Columns.OBS: seen})[Columns.ACTION_DIST_INPUTS]
    return float(np.abs(logits.numpy() - rollout.rows(rollout.logits)).max())


@pytest.mark.usefixtures("three_cpus")
def test_two_remote_runners_fill_a_batch_with_the_latest_weights() -> None:
    algorithm = config({"num_env_runners": 2, "learning_rate": 0.05}).build_algo()
    first = algorithm.train()
    assert first["env_runners"]["num_env_steps_sampled_lifetime"] == 2 * 32 * 16
    assert first["learners"]["default_policy"]["module_train_batch_size_mean"] == 2 * 32 * 16
    rollouts, _ = algorithm._rollouts()
    assert len(rollouts) == 2
    assert not rollouts[0].observation.flags.writeable
    assert not np.array_equal(rollouts[0].observation, rollouts[1].observation)
    assert max(made_by(rollout, algorithm.get_module()) for rollout in rollouts) < 1e-5
    algorithm.stop()


@pytest.mark.usefixtures("three_cpus")
def test_the_first_batch_after_from_checkpoint_is_made_by_the_restored_weights(tmp_path: Path) -> None:
    algorithm = config({"num_env_runners": 1, "learning_rate": 0.05}).build_algo()
    for _ in range(3):
        algorithm.train()
    path = algorithm.save_to_path(tmp_path / "checkpoint")
    trained = {name: np.asarray(value) for name, value in algorithm.get_module().get_state().items()}
    algorithm.stop()

    restored = ColumnarPPO.from_checkpoint(path)
    module = restored.get_module()
    assert all(np.array_equal(trained[name], np.asarray(value)) for name, value in module.get_state().items())
    held = restored.env_runner_group.foreach_env_runner(
        lambda runner: runner.module.get_state(), local_env_runner=False
    )
    assert all(np.array_equal(trained[name], np.asarray(value)) for name, value in held[0].items())
    (rollout,), _ = restored._rollouts()
    assert made_by(rollout, module) < 1e-5
    restored.stop()


@pytest.mark.usefixtures("three_cpus")
def test_overlapped_sampling_lags_by_exactly_one_update(monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm = config({"num_env_runners": 1, "overlap": True, "learning_rate": 0.05}).build_algo()
    used: list[Rollout] = []
    collect = algorithm._rollouts

    def watched() -> Any:
        rollouts, metrics = collect()
        used.extend(rollouts)
        return rollouts, metrics

    monkeypatch.setattr(algorithm, "_rollouts", watched)
    modules = [{name: torch.tensor(x) for name, x in algorithm.get_module().get_state().items()}]
    for _ in range(4):
        algorithm.train()
        modules.append({name: torch.tensor(x) for name, x in algorithm.get_module().get_state().items()})
    module = algorithm.get_module()

    def lag(k: int, weights: dict[str, Any]) -> float:
        module.load_state_dict(weights)
        return made_by(used[k], module)

    assert lag(0, modules[0]) < 1e-5
    for k in (1, 2, 3):  # the batch of update k was asked for before update k − 1 began
        assert lag(k, modules[k - 1]) < 1e-5
        assert lag(k, modules[k]) > 1e-3
    algorithm.stop()


@pytest.mark.usefixtures("three_cpus")
def test_waves_of_a_remote_runner_are_learned_from() -> None:
    algorithm = group_config({"num_env_runners": 1}).build_algo()
    results = algorithm.train()
    assert results["env_runners"]["num_env_steps_sampled_lifetime"] == 32 * 3
    assert results["learners"]["default_policy"]["module_train_batch_size_mean"] == 32 * 3
    algorithm.stop()


@pytest.mark.usefixtures("three_cpus")
def test_a_remote_learner_learns_from_columns() -> None:
    algorithm = config({"learning_rate": 0.05}).learners(num_learners=1, num_cpus_per_learner=1).build_algo()
    before = {name: np.array(value) for name, value in algorithm.get_module().get_state().items()}
    algorithm.train()
    after = algorithm.get_module().get_state()
    assert not any(np.array_equal(before[name], after[name]) for name in before if "weight" in name)
    algorithm.stop()


@pytest.mark.usefixtures("three_cpus")
def test_what_is_wrong_on_a_remote_runner_is_said_here() -> None:
    algorithm = config({"num_env_runners": 1}, nan_at=3).build_algo()
    with pytest.raises(ValueError, match="reward nan of slot 31 at step 3"):
        algorithm.train()
    algorithm.stop()


@pytest.mark.usefixtures("three_cpus")
def test_more_runners_than_ray_has_cpus_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="num_env_runners=64 needs 64 CPU, Ray has 3: ask for fewer"):
        config({"num_env_runners": 64}).build_algo()


@pytest.mark.usefixtures("three_cpus")
def test_resources_taken_by_others_are_waited_for_and_then_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from rlroute.agents.rllib import checks

    monkeypatch.setattr(checks, "PATIENCE_S", 1.0)

    class Taken:
        def ready(self) -> bool:
            return True

    taken = ray.remote(num_cpus=2)(Taken).remote()
    assert ray.get(taken.ready.remote())
    with pytest.raises(ValueError, match="needs 2 CPU, Ray has free 1"):
        config({"num_env_runners": 2}).build_algo()
    ray.kill(taken)


@pytest.mark.usefixtures("three_cpus")
def test_a_run_under_tune_reports_and_checkpoints(tmp_path: Path) -> None:
    from ray import tune

    tuner = tune.Tuner(
        ColumnarPPO,
        param_space=config().training(lr=tune.grid_search([1e-3, 1e-2])),
        run_config=tune.RunConfig(
            stop={"training_iteration": 2},
            storage_path=str(tmp_path),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True),
        ),
    )
    results = tuner.fit()
    assert not results.errors
    assert len(results) == 2
    for result in results:
        assert result.metrics["env_runners"]["num_env_steps_sampled_lifetime"] == 2 * 512
        restored = ColumnarPPO.from_checkpoint(result.checkpoint.path)
        assert restored.iteration == 2
        restored.stop()


def reward_after(steps: int, knobs: dict[str, Any], kill_at: int | None = None) -> float:
    """Mean reward of the last three updates; after `kill_at` updates one of two remote runners is killed."""
    knobs = {"total_steps": steps, "learning_rate": 1e-2, **knobs}
    built = config(knobs).fault_tolerance(restart_failed_env_runners=True, delay_between_env_runner_restarts_s=0.0)
    algorithm = built.build_algo()
    rewards, sampled = list[float](), [0.0]
    while sampled[-1] < steps:
        if len(rewards) == kill_at:
            ray.kill(algorithm.env_runner_group._worker_manager.actors()[1], no_restart=False)
        results = algorithm.train()
        rewards.append(results["env_runners"]["episode_return_mean"])
        sampled.append(results["env_runners"]["num_env_steps_sampled_lifetime"])
        assert sampled[-1] > sampled[-2]
    if kill_at is not None:
        assert np.diff(sampled)[kill_at] == 1024  # the other runner went on alone
        deadline = time.monotonic() + 120
        while algorithm.env_runner_group.num_healthy_remote_workers() < 2:
            assert time.monotonic() < deadline, "the killed runner did not come back within two minutes"
            algorithm.restore_env_runners(algorithm.env_runner_group)
            time.sleep(0.5)
        more = algorithm.train()["env_runners"]["num_env_steps_sampled_lifetime"] - sampled[-1]
        assert more == 2048  # both are back
    algorithm.stop()
    return float(np.mean(rewards[-3:]))


@pytest.mark.slow
@pytest.mark.usefixtures("three_cpus")
def test_training_survives_a_killed_runner_within_the_spread_of_seeds() -> None:
    steps = 30 * 2048
    whole = [reward_after(steps, {"num_envs": 128, "seed": seed}) for seed in range(3)]
    killed = reward_after(steps, {"num_envs": 64, "num_env_runners": 2}, kill_at=8)
    spread = max(whole) - min(whole)
    assert min(whole) > 1.2  # it has learned: random picks earn nothing
    assert min(whole) - spread - 0.05 <= killed <= max(whole) + spread + 0.05


@pytest.mark.slow
def test_a_run_spans_two_nodes_by_address(tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1, resources={"far": 1})
        cluster.wait_for_nodes()
        arguments = {"num_env_runners": 1, "address": cluster.address, "total_steps": 1000}
        start_ray(cluster.address)
        built = config(arguments).env_runners(custom_resources_per_env_runner={"far": 1})
        algorithm = built.build_algo()
        nodes = algorithm.env_runner_group.foreach_env_runner(
            lambda _: ray.get_runtime_context().get_node_id(), local_env_runner=False
        )
        assert nodes != [ray.get_runtime_context().get_node_id()]
        assert algorithm.train()["env_runners"]["num_env_steps_sampled_lifetime"] == 512
        algorithm.stop()
        with pytest.raises(ValueError, match="needs 2 far, Ray has 1"):
            built.copy(copy_frozen=False).env_runners(num_env_runners=2).training(
                train_batch_size_per_learner=1024
            ).build_algo()
        ray.shutdown()

        small = ppo.PPOArguments(
            total_steps=1000, num_envs=32, hidden=16, num_env_runners=1, address=cluster.address, minibatch=256
        )
        assert (ppo.train(ENV, {}, tmp_path, small) / "policy.yaml").is_file()
        assert not ray.is_initialized()
    finally:
        ray.shutdown()
        cluster.shutdown()
