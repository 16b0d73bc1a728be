"""What is refused when an algorithm is built: settings that columns would silently ignore, and runs that would hang."""

from __future__ import annotations

import time
from typing import Any

from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.utils import force_list

PATIENCE_S = 30.0  # how long resources may stay taken before building gives up
PER_EPISODE = ("on_episode_created", "on_episode_start", "on_episode_step", "on_episode_end")


def refuse_unsupported(config: Any) -> None:
    """A ValueError for the first setting of a `ColumnarConfig` that its runner or learner would not follow."""
    for name in ("_env_to_module_connector", "_module_to_env_connector", "_learner_connector"):
        if getattr(config, name) is not None:
            raise ValueError(
                f"{name.removeprefix('_')} is set, but columns pass through no connectors: leave it off and transform "
                "observations in the environment"
            )
    if config.is_multi_agent:
        raise ValueError(f"policies={sorted(config.policies)}: expected one policy, columns are of a single agent")
    if config.batch_mode != "truncate_episodes" and not config.in_evaluation:
        raise ValueError(f"batch_mode={config.batch_mode!r}: expected 'truncate_episodes', or a group_size for waves")
    for name in PER_EPISODE:
        classes = [
            c for c in force_list(config.callbacks_class) if getattr(c, name) is not getattr(RLlibCallback, name)
        ]
        if classes or getattr(config, f"callbacks_{name}"):
            raise ValueError(f"a callback {name} is set, but columns know no episode objects: use on_train_result")
    if config.gym_env_vectorize_mode != "vector_entry_point":
        raise ValueError(
            f"gym_env_vectorize_mode={config.gym_env_vectorize_mode!r}: expected 'vector_entry_point', the "
            "environment's own vector face"
        )
    if config.num_learners > 1:
        raise ValueError(f"num_learners={config.num_learners}: expected 0 or 1, scale by num_env_runners")
    if config.grad_clip is not None and config.grad_clip_by != "global_norm":
        raise ValueError(f"grad_clip_by={config.grad_clip_by!r}: expected 'global_norm'")
    if config.overlap and not config.num_env_runners and not config.in_evaluation:
        raise ValueError("overlap=True with num_env_runners=0: expected at least 1 remote runner to overlap with")
    if config.group_size:
        _refuse_bad_groups(config)
    elif not config.in_evaluation:
        _refuse_bad_batch(config)


def _refuse_bad_groups(config: Any) -> None:
    size, slots = config.group_size, config.num_envs_per_env_runner
    if size < 2 or slots % size:
        raise ValueError(
            f"group_size={size} with {slots} environments a runner: expected a whole number of at least 2 that "
            f"divides {slots}"
        )
    if config.estimator is None:
        raise ValueError(f"group_size={size} without estimator: expected one of rlroute.agents.advantages")
    if config.use_critic:
        raise ValueError(f"group_size={size} with use_critic=True: expected False, groups are compared with themselves")


def _refuse_bad_batch(config: Any) -> None:
    if config.rollout_fragment_length == "auto":
        return
    runners = max(1, config.num_env_runners)
    made = config.rollout_fragment_length * config.num_envs_per_env_runner * runners
    if made != config.total_train_batch_size:
        raise ValueError(
            f"train_batch_size_per_learner={config.total_train_batch_size}: expected {made}, which is "
            f"rollout_fragment_length {config.rollout_fragment_length} × num_envs_per_env_runner "
            f"{config.num_envs_per_env_runner} × runners {runners}"
        )


def refuse_too_few_resources(config: Any) -> None:
    """A ValueError where Ray could never place all remote runners, or not within `PATIENCE_S`; it would wait for ever.

    Inside a placement group, as Tune makes one, what is needed is reserved already.
    """
    import ray

    needed = _needed(config)
    if not needed or (ray.is_initialized() and ray.util.get_current_placement_group() is not None):
        return
    if not ray.is_initialized():
        ray.init(include_dashboard=False)
    _compare(needed, ray.cluster_resources(), "has", config)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if all(ray.available_resources().get(name, 0.0) >= amount for name, amount in needed.items()):
            return
        time.sleep(0.2)
    _compare(needed, ray.available_resources(), "has free", config)


def _needed(config: Any) -> dict[str, float]:
    """What all remote runners and learners ask of Ray."""
    needed: dict[str, float] = {}
    for count, cpus, custom in (
        (config.num_env_runners, config.num_cpus_per_env_runner, config.custom_resources_per_env_runner),
        (config.evaluation_num_env_runners, config.num_cpus_per_env_runner, {}),
        (config.num_learners, 1, {}),
    ):
        for name, amount in {"CPU": cpus, **custom}.items():
            if count and amount:
                needed[name] = needed.get(name, 0.0) + count * amount
    return needed


def _compare(needed: dict[str, float], found: dict[str, float], verb: str, config: Any) -> None:
    for name, amount in needed.items():
        if (there := found.get(name, 0.0)) < amount:
            raise ValueError(
                f"num_env_runners={config.num_env_runners} needs {amount:g} {name}, Ray {verb} {there:g}:"
                " ask for fewer runners or start Ray with more (ray.init(num_cpus=…), or a cluster by address)"
            )
