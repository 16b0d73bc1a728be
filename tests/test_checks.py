"""What is refused when an algorithm is built, each with what to change."""

from __future__ import annotations

from typing import Any

import pytest
from columns import config, group_config

pytest.importorskip("torch")
pytest.importorskip("ray")

from ray.rllib.callbacks.callbacks import RLlibCallback

from rlroute.agents.rllib import ppo

pytestmark = pytest.mark.usefixtures("one_ray")


class Watches(RLlibCallback):
    """A callback that columns could not call."""

    def on_episode_step(self, **_: Any) -> None:
        raise AssertionError


def nothing(*_: Any, **__: Any) -> None:
    raise AssertionError("never called")


CASES = {
    "batch": (
        lambda: config().training(train_batch_size_per_learner=500),
        "train_batch_size_per_learner=500: expected 512, which is rollout_fragment_length 16 × "
        "num_envs_per_env_runner 32 × runners 1",
    ),
    "env_to_module": (
        lambda: config().env_runners(env_to_module_connector=nothing),
        "env_to_module_connector is set, but columns pass through no connectors",
    ),
    "module_to_env": (
        lambda: config().env_runners(module_to_env_connector=nothing),
        "module_to_env_connector is set",
    ),
    "learner_connector": (lambda: config().training(learner_connector=nothing), "learner_connector is set"),
    "multi_agent": (
        lambda: config().multi_agent(policies={"a", "b"}, policy_mapping_fn=nothing),
        "expected one policy, columns are of a single agent",
    ),
    "callback": (lambda: config().callbacks(Watches), "a callback on_episode_step is set"),
    "callback function": (
        lambda: config().callbacks(on_episode_end=nothing),
        "a callback on_episode_end is set, but columns know no episode objects",
    ),
    "whole episodes": (
        lambda: config().env_runners(batch_mode="complete_episodes"),
        "batch_mode='complete_episodes': expected 'truncate_episodes'",
    ),
    "scalar environments": (
        lambda: config().env_runners(gym_env_vectorize_mode="sync"),
        "gym_env_vectorize_mode='sync': expected 'vector_entry_point'",
    ),
    "two learners": (
        lambda: config().learners(num_learners=2).training(train_batch_size_per_learner=256),
        "num_learners=2: expected 0 or 1",
    ),
    "clipping": (lambda: config().training(grad_clip_by="value"), "grad_clip_by='value': expected 'global_norm'"),
    "overlap": (
        lambda: config({"overlap": True}),
        "overlap=True with num_env_runners=0: expected at least 1 remote runner",
    ),
    "group size": (
        lambda: group_config({"group_size": 7}),
        "group_size=7 with 32 environments a runner: expected a whole number of at least 2 that divides 32",
    ),
    "no estimator": (lambda: group_config().training(estimator=None), "group_size=8 without estimator"),
    "critic": (lambda: group_config().training(use_critic=True), "group_size=8 with use_critic=True: expected False"),
}


@pytest.mark.parametrize("case", CASES)
def test_settings_that_columns_would_ignore_are_refused(case: str) -> None:
    make, message = CASES[case]
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        make().build_algo()


def test_the_stock_runner_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="runner='quick': expected 'columnar' or 'stock'"):
        config({"runner": "quick"})
    with pytest.raises(ValueError, match="expected text_noise=0 and overlap=False"):
        config({"runner": "stock", "text_noise": 0.3})


def test_the_stock_runner_is_rllibs_own_with_the_same_network() -> None:
    from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
    from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

    stock, columnar = (config({"runner": runner}).build_algo() for runner in ("stock", "columnar"))
    assert type(stock.env_runner) is SingleAgentEnvRunner
    assert type(stock.learner_group._learner) is PPOTorchLearner
    assert type(stock.get_module()) is type(columnar.get_module())
    for knob in ("lr", "gamma", "lambda_", "clip_param", "entropy_coeff", "vf_loss_coeff", "grad_clip", "num_epochs"):
        assert getattr(stock.config, knob) == getattr(columnar.config, knob)
    assert stock.train()["env_runners"]["num_env_steps_sampled_lifetime"] >= 512
    stock.stop()
    columnar.stop()


def test_stock_and_columnar_training_earn_the_same_within_their_seeds(tmp_path: Any) -> None:
    rewards: dict[str, list[float]] = {"stock": [], "columnar": []}
    for runner, found in rewards.items():
        for seed in range(2):
            knobs = {"total_steps": 16_000, "num_envs": 64, "learning_rate": 1e-2, "runner": runner, "seed": seed}
            algorithm = config(knobs, copies=True).build_algo()
            steps, last = 0, []
            while steps < 16_000:
                results = algorithm.train()
                steps = int(results["env_runners"]["num_env_steps_sampled_lifetime"])
                last.append(float(results["env_runners"]["episode_return_mean"]))
            found.append(sum(last[-3:]) / 3)
            algorithm.stop()
    stock, columnar = rewards["stock"], rewards["columnar"]
    assert min(columnar) > 1.0  # random picks earn nothing, perfect ones about 1.7
    spread = max(max(found) - min(found) for found in rewards.values())
    assert abs(sum(stock) - sum(columnar)) / 2 < spread + 0.12


def test_arguments_of_ppo_still_mean_what_they_meant() -> None:
    arguments = ppo.PPOArguments()
    assert (arguments.num_envs, arguments.rollout_length, arguments.minibatch) == (256, 16, 2048)
    assert (arguments.hidden, arguments.epochs, arguments.gae_lambda, arguments.runner) == (64, 3, 0.95, "columnar")
