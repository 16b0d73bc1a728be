"""What the algorithms have in common when RLlib is configured: environment, runners, network, schedules, seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rlroute.agents.rllib.arguments import TrainingArguments

if TYPE_CHECKING:
    from ray.rllib.algorithms.ppo import PPOConfig


def configure(
    config: PPOConfig,
    env_id: str,
    env_arguments: Mapping[str, Any],
    arguments: TrainingArguments,
    autoreset: str,
    rollout_length: int | str,
    steps_done: int,
) -> PPOConfig:
    """Fills in `config`; a run resumed at `steps_done` draws other numbers than at its start."""
    import gymnasium as gym
    import numpy as np
    import torch
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec

    from rlroute.agents.rllib.module import RouterModule

    torch.set_num_threads(arguments.threads)
    env_config = {**env_arguments, "mask_in_obs": True, "autoreset": autoreset}
    env = gym.make_vec(env_id, num_envs=1, vectorization_mode="vector_entry_point", **env_config)
    layout = env.unwrapped.layout.to_dict()
    env.close()
    last, seed = arguments.total_steps, arguments.seed
    if steps_done:
        seed = int(np.random.SeedSequence((arguments.seed, steps_done)).generate_state(1)[0] >> 1)
    return (
        config.environment(env_id, env_config=env_config, disable_env_checking=True)
        .env_runners(
            num_env_runners=arguments.num_env_runners,
            num_envs_per_env_runner=arguments.num_envs,
            gym_env_vectorize_mode="vector_entry_point",
            rollout_fragment_length=rollout_length,
        )
        .training(
            lr=[[0, arguments.learning_rate], [last, 0.0]] if arguments.anneal else arguments.learning_rate,
            clip_param=arguments.clip,
            entropy_coeff=[[0, arguments.entropy], [last, arguments.entropy_end]],
            vf_clip_param=float("inf"),
            use_kl_loss=False,
            grad_clip=arguments.max_grad_norm,
            grad_clip_by="global_norm",
            num_epochs=arguments.epochs,
        )
        .rl_module(
            rl_module_spec=RLModuleSpec(
                module_class=RouterModule,
                model_config={
                    "layout": layout,
                    "hidden": arguments.hidden,
                    "start": _starting_weights(arguments, layout) if arguments.start else None,
                    "text_noise": arguments.text_noise,
                },
            )
        )
        .debugging(seed=seed, log_level="ERROR")
    )


def _starting_weights(arguments: TrainingArguments, layout: dict[str, Any]) -> dict[str, Any]:
    """The weights of the policy ``arguments.start``, which must see and do what this environment's policies do."""
    from rlroute.layout import Layout
    from rlroute.policy import load_policy

    policy = load_policy(arguments.start)
    its, ours = Layout.from_dict(policy.card["layout"]), Layout.from_dict(layout)
    for name in ("context", "choice", "context_actions", "choice_actions"):  # any number of choices will do
        if (found := getattr(its, name)) != (expected := getattr(ours, name)):
            raise ValueError(f"start={arguments.start!r}: its {name} is {found!r}, expected {expected!r}")
    if (hidden := policy.card["network"]["hidden"]) != arguments.hidden:
        raise ValueError(f"start={arguments.start!r}: its layers are {hidden} wide, expected hidden={arguments.hidden}")
    return policy.parameters
