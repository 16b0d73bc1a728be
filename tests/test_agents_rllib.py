"""PPO on RLlib, on a toy family: masking, learning, checkpoints, resuming after a kill, export."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import bandit
import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from rlroute.layout import Layout
from rlroute.policy import TrainedPolicy, load_policy, parameter_shapes

pytest.importorskip("ray")
torch = pytest.importorskip("torch")

from ray.rllib.core.columns import Columns  # noqa: E402 - only where Ray is installed

from rlroute.agents.rllib import checkpoints as kept  # noqa: E402
from rlroute.agents.rllib import grpo, ppo, rloo  # noqa: E402
from rlroute.agents.rllib.arguments import command_line  # noqa: E402
from rlroute.agents.rllib.module import RouterModule  # noqa: E402

ENV = "bandit:toy/Bandit-v0"
SMALL = ppo.PPOArguments(total_steps=3000, num_envs=32, rollout_length=16, minibatch=256, hidden=16, checkpoint_every=1)
ROOT = Path(__file__).parents[1]


pytestmark = pytest.mark.usefixtures("one_ray")


def make_module(layout: Layout, hidden: int = 32, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    space = gym.spaces.Box(0, 1, (layout.size,), np.float32)
    module = RouterModule(
        observation_space=space,
        action_space=gym.spaces.Discrete(layout.num_actions),
        model_config={"layout": layout.to_dict(), "hidden": hidden},
    )
    with torch.no_grad():
        for parameter in module.parameters():  # away from the start, where all scores are nearly equal
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return module


def parameters_of(module: Any) -> dict[str, NDArray[np.float32]]:
    return {name: np.asarray(value) for name, value in module.get_state().items()}


def play(policy: TrainedPolicy, num_choices: int, steps: int = 60) -> float:
    """The share of what a perfect policy earns."""
    env = bandit.BanditVectorEnv(256, num_choices=num_choices)
    observation, _ = env.reset(seed=99)
    earned = best = 0.0
    for _ in range(steps):
        playing = ~env.done
        best += float(env.best()[playing].sum())
        observation, rewards, *_ = env.step(policy.act(observation["observation"], observation["action_mask"]))
        earned += float(rewards.sum())
    assert env.masked_actions == 0
    return earned / best


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy trained with four choices for some 100,000 steps."""
    arguments = ppo.PPOArguments(total_steps=100_000, num_envs=128, rollout_length=32, minibatch=1024, hidden=32)
    return ppo.train(ENV, {"num_choices": 4}, tmp_path_factory.mktemp("trained"), arguments)


@pytest.mark.parametrize("num_choices", [4, 6, 20])
def test_numpy_acts_like_the_rllib_module_on_10_000_observations(num_choices: int) -> None:
    trained_on, layout = bandit.layout(4), bandit.layout(num_choices)
    module = make_module(trained_on)
    policy = TrainedPolicy({"layout": trained_on.to_dict()}, parameters_of(module))
    rng = np.random.default_rng(num_choices)
    observation = rng.random((10_000, layout.size), dtype=np.float32)
    mask = (rng.random((10_000, layout.num_actions)) < 0.5).astype(np.int8)
    mask[:, 0] |= mask.sum(axis=1) == 0
    out = module.forward_inference(
        {Columns.OBS: {"observation": torch.from_numpy(observation), "action_mask": torch.from_numpy(mask)}}
    )
    logits = out[Columns.ACTION_DIST_INPUTS]
    greedy = module.get_inference_action_dist_cls().from_logits(logits).to_deterministic().sample()
    actions = policy.act(observation, mask)
    assert np.array_equal(actions, greedy.numpy())
    assert len(np.unique(actions)) > num_choices
    np.testing.assert_allclose(policy.logits(observation, mask), logits.numpy(), rtol=1e-4, atol=1e-5)


def test_module_and_policy_file_name_the_same_parameters() -> None:
    for layout in (
        bandit.layout(4),
        Layout(bandit.layout(4).context, bandit.layout(4).choice, 4, (), ("choose",)),
    ):
        shapes = {name: value.shape for name, value in parameters_of(make_module(layout, 8)).items()}
        assert shapes == parameter_shapes(layout, 8)


def test_rollouts_hold_decisions_only_and_never_a_masked_one() -> None:
    algorithm = ppo.build_config(ENV, {"num_choices": 5, "closed_share": 0.6}, SMALL).build_algo()
    runner = algorithm.env_runner
    for _ in range(4):
        (rollout,) = runner.sample()
        # An ended bandit shows no picks left; in the same step it shows the next start instead.
        assert rollout.observation[..., 0].min() > 0.3
        assert rollout.env_steps() == rollout.action.size == 32 * 16
        assert (np.take_along_axis(rollout.action_mask, rollout.action[..., None], axis=2) == 1).all()
        # The rows are those that the policy saw: the environment's buffer has long been overwritten.
        seen = {name: torch.from_numpy(rollout.rows(getattr(rollout, name))) for name in ("observation", "action_mask")}
        fresh = runner.module.forward_exploration({Columns.OBS: seen})
        logits = torch.from_numpy(rollout.rows(rollout.logits))
        torch.testing.assert_close(fresh[Columns.ACTION_DIST_INPUTS], logits, rtol=1e-5, atol=1e-5)
    assert runner.env.unwrapped.masked_actions == 0
    algorithm.stop()


def test_training_blurs_the_text_features_and_nothing_else() -> None:
    def columns(text_noise: float, explore: bool) -> NDArray[np.float32]:
        arguments = ppo.PPOArguments(**(asdict(SMALL) | {"text_noise": text_noise}))
        algorithm = ppo.build_config(ENV, {}, arguments).build_algo()
        (rollout,) = algorithm.env_runner.sample(explore=explore)
        algorithm.stop()
        return rollout.rows(rollout.observation).copy()

    text = bandit.layout(4).slices()["text"]
    blurred = columns(5.0, True)
    assert blurred[:, text].std() > 3  # the toy's own values lie in [0, 1]
    assert np.delete(blurred, text, axis=1).min() >= 0
    assert np.delete(blurred, text, axis=1).max() <= 1
    for clear in (columns(0.0, True), columns(5.0, False)):
        assert 0 <= clear[:, text].min() <= clear[:, text].max() <= 1


def test_ppo_learns_to_pick_well(trained: Path) -> None:
    untrained = load_policy(trained)
    untrained.parameters = {name: value * 0 for name, value in untrained.parameters.items()}
    untrained.sample = True
    assert play(untrained, 4) < 0.1
    assert play(load_policy(trained), 4) > 0.9


def test_a_policy_trained_with_four_choices_acts_well_on_six(trained: Path) -> None:
    assert play(load_policy(trained), 6) > 0.85


def test_exported_policies_say_where_they_come_from(trained: Path) -> None:
    policy = load_policy(trained)
    assert policy.card["family"] == "toy/Bandit-v0"
    assert [choice["name"] for choice in policy.card["choices"]] == [f"choice {i}" for i in range(4)]
    assert policy.card["training"]["steps"] >= 100_000
    assert policy.card["training"]["arguments"]["num_envs"] == 128
    assert policy.card["metrics"]["training"]["reward"] > 1
    assert np.array_equal(policy.tensors["prior"], np.full(4, 0.5, np.float32))


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tmp_path: Path) -> None:
    def weights(name: str, seed: int) -> dict[str, NDArray[np.float32]]:
        arguments = ppo.PPOArguments(**(asdict(SMALL) | {"total_steps": 1000, "seed": seed}))
        return load_policy(ppo.train(ENV, {}, tmp_path / name, arguments)).parameters

    first, again, other = weights("a", 0), weights("b", 0), weights("c", 1)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not any(np.array_equal(first[name], other[name]) for name in first if "weight" in name)


def test_after_a_restore_the_runner_holds_the_restored_weights(tmp_path: Path) -> None:
    algorithm = ppo.build_config(ENV, {}, SMALL).build_algo()
    algorithm.train()
    saved = parameters_of(algorithm.get_module())
    checkpoint = kept.save_checkpoint(algorithm, tmp_path, 123, {})
    algorithm.stop()

    other = ppo.build_config(ENV, {}, SMALL, steps_done=123).build_algo()
    before = parameters_of(other.get_module())
    assert not np.array_equal(before["trunk.weight"], saved["trunk.weight"])
    other.restore_from_path(checkpoint.resolve() / "algorithm")
    for module in (other.get_module(), other.learner_group._learner.module["default_policy"]):
        restored = parameters_of(module)
        assert all(np.array_equal(restored[name], saved[name]) for name in saved)
    other.stop()


def test_a_killed_run_resumes_and_reaches_its_total(tmp_path: Path) -> None:
    total = 12_000
    code = f"""
import bandit
from rlroute.agents.rllib import ppo
ppo.train({ENV!r}, {{}}, {str(tmp_path)!r}, ppo.PPOArguments(**{asdict(SMALL) | {"total_steps": 10**9}}))
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    run = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE)
    checkpoints, deadline = tmp_path / "checkpoints", time.monotonic() + 60
    while (latest := kept.latest_checkpoint(checkpoints)) is None:
        assert run.poll() is None, run.stderr.read().decode() if run.stderr else ""
        assert time.monotonic() < deadline, "no checkpoint within a minute"
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert not (tmp_path / "policy").exists()

    latest = kept.latest_checkpoint(checkpoints)
    assert latest is not None
    killed_at = int(latest.name.removeprefix("step-"))
    assert killed_at < total
    arguments = ppo.PPOArguments(**(asdict(SMALL) | {"total_steps": killed_at, "checkpoint_every": 1}))
    halted = load_policy(ppo.train(ENV, {}, tmp_path, arguments, resume=True)).parameters  # no step left to do

    seen: list[int] = []
    arguments = ppo.PPOArguments(**(asdict(SMALL) | {"total_steps": total}))
    policy = load_policy(ppo.train(ENV, {}, tmp_path, arguments, lambda done, *_: seen.append(done), resume=True))
    assert killed_at < seen[0] <= killed_at + 32 * 16
    assert total <= seen[-1] == policy.card["training"]["steps"] < total + 32 * 16
    assert not any(np.array_equal(policy.parameters[name], halted[name]) for name in halted if "weight" in name)


def test_only_the_last_complete_checkpoint_is_kept_and_found(tmp_path: Path) -> None:
    ppo.train(ENV, {}, tmp_path, SMALL)
    checkpoints = tmp_path / "checkpoints"
    (checkpoints / ".step-999999999999.new" / "algorithm").mkdir(parents=True)
    complete = sorted(path.name for path in checkpoints.glob("step-*"))
    assert len(complete) == 1
    assert kept.latest_checkpoint(checkpoints) == checkpoints / complete[-1]
    assert int(complete[-1].removeprefix("step-")) >= SMALL.total_steps


def test_resuming_as_another_run_names_the_difference(tmp_path: Path) -> None:
    (checkpoint := tmp_path / "checkpoints" / "step-000000000100").mkdir(parents=True)
    (tmp_path / "checkpoints" / "latest").write_text(checkpoint.name)
    run = {"env": ENV, "env_arguments": {}, "arguments": asdict(SMALL)}
    (checkpoint / "run.json").write_text(json.dumps(run))
    with pytest.raises(ValueError, match="cannot resume, hidden was 16 and is now 64"):
        ppo.train(ENV, {}, tmp_path, ppo.PPOArguments(**(asdict(SMALL) | {"hidden": 64})), resume=True)
    with pytest.raises(ValueError, match="cannot resume, num_choices was None and is now 5"):
        ppo.train(ENV, {"num_choices": 5}, tmp_path, SMALL, resume=True)


@pytest.mark.parametrize("arguments", [ppo.PPOArguments, grpo.GRPOArguments, rloo.RLOOArguments])
def test_every_knob_is_in_the_help_of_every_algorithm_with_a_comment(arguments: Any) -> None:
    text = command_line(arguments, "").format_help()
    for knob in fields(arguments):
        assert f"--{knob.name.replace('_', '-')}" in text


def test_the_script_says_what_each_knob_means() -> None:
    script = ROOT / "agents" / "rllib" / "ppo.py"
    result = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, check=True)
    text = " ".join(result.stdout.split())
    assert "passes over every batch (default: 3)" in text
    options = command_line(ppo.PPOArguments, "").parse_args(
        ["env", "out", "--epochs", "2", "--no-anneal", "--learning-rate", "1e-4"]
    )
    assert (options.epochs, options.anneal, options.learning_rate) == (2, False, 1e-4)


def test_a_profile_says_where_all_of_the_time_went(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ppo.train(ENV, {}, tmp_path, ppo.PPOArguments(**(asdict(SMALL) | {"profile": True})))
    lines = capsys.readouterr().out.splitlines()
    seconds = {line[:28].strip(): float(line[28:].split()[0]) for line in lines[1:]}
    total = seconds.pop("total")
    assert {"env step", "module forward", "advantage", "learner update", "weight sync", "other"} <= seconds.keys()
    assert sum(seconds.values()) == pytest.approx(total, abs=0.01 * len(seconds))
    assert seconds["learner update"] > 0


def test_training_is_silent(tmp_path: Path) -> None:
    code = f"""
import bandit
from rlroute.agents.rllib import ppo
ppo.train({ENV!r}, {{}}, {str(tmp_path)!r}, ppo.PPOArguments(**{asdict(SMALL) | {"total_steps": 500}}))
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
