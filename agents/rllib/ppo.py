"""Trains a router with PPO on one environment: ``python agents/rllib/ppo.py ENV OUT`` or `train`.

Writes ``OUT/policy`` (see `rlroute.policy`) and, on the way, ``OUT/checkpoints``. A run that is killed at any
moment goes on from its last checkpoint with ``--resume``. Checkpoints are RLlib's and hold pickles: resume
only your own.
"""

from __future__ import annotations

import argparse
import inspect
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm import Algorithm
    from ray.rllib.algorithms.ppo import PPOConfig

Progress = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class PPOArguments:
    """The knobs; the comment beside each is its help text."""

    total_steps: int = 500_000  # decisions to train on, over all environments
    num_envs: int = 256  # environments stepped side by side
    rollout_length: int = 16  # steps of each environment between two updates
    learning_rate: float = 3e-3  # Adam's step size at the start
    anneal: bool = True  # let the learning rate fall linearly to 0 over the run
    gamma: float = 1.0  # discount a step; 1 because episodes end and cost counts the same whenever it is paid
    gae_lambda: float = 0.95  # 1: unbiased advantages; less: less noise, more trust in the value head
    clip: float = 0.2  # largest change of an action's probability ratio that an update may profit from
    entropy: float = 0.01  # weight of the entropy bonus at the start
    entropy_end: float = 0.0  # and at the end; between them it falls linearly
    value_weight: float = 0.5  # weight of the value loss
    max_grad_norm: float = 0.5  # gradients are scaled down to this norm
    epochs: int = 3  # passes over every batch
    minibatch: int = 2048  # rows of one gradient step
    hidden: int = 64  # width of every layer of the network
    start: str = ""  # policy folder whose weights training starts from; default: random ones
    text_noise: float = 0.3  # noise on the text features while training, against learning the texts by heart
    seed: int = 0  # of the weights, the actions and the environments
    checkpoint_every: int = 20  # updates between two checkpoints
    threads: int = 1  # threads of torch; the network is too small to gain much from more


def train(
    env_id: str,
    env_arguments: Mapping[str, Any],
    out_dir: str | Path,
    arguments: PPOArguments | None = None,
    progress: Progress | None = None,
    resume: bool = False,
) -> Path:
    """Trains for `arguments.total_steps` decisions and returns the policy folder, ``out_dir/policy``.

    `env_id` names an environment with a native vector face, with its module in front where it has to be
    imported (``rlroute:rlroute/ThinkRoute-v0``). `env_arguments` should name logs by path or built-in name:
    RLlib copies them. `progress` is called after each update with the decisions made, those to make, and the
    training metrics. `resume` goes on from the last checkpoint in `out_dir`, if there is one; otherwise older
    checkpoints are removed.
    """
    arguments, checkpoints = arguments or PPOArguments(), Path(out_dir) / "checkpoints"
    run = _plain({"env": env_id, "env_arguments": env_arguments, "arguments": asdict(arguments)})
    latest = latest_checkpoint(checkpoints) if resume else None
    if latest is None:
        shutil.rmtree(checkpoints, ignore_errors=True)
    else:
        _check_same_run(json.loads((latest / "run.json").read_text()), run, latest)

    started_ray = _start_ray()
    algorithm = None
    try:
        done = int(latest.name.removeprefix("step-")) if latest else 0
        algorithm = build_config(env_id, env_arguments, arguments, done).build_algo()
        if latest:
            algorithm.restore_from_path(latest.resolve() / "algorithm")
        began, began_at, updates = time.perf_counter(), done, 0
        metrics: dict[str, float] = {}
        while done < arguments.total_steps:
            metrics = _metrics(algorithm.train())
            done, updates = int(metrics.pop("steps")), updates + 1
            metrics["steps_per_second"] = (done - began_at) / (time.perf_counter() - began)
            if progress:
                progress(done, arguments.total_steps, metrics)
            if updates % arguments.checkpoint_every == 0 or done >= arguments.total_steps:
                save_checkpoint(algorithm, checkpoints, done, run)
        from rlroute.agents.rllib.export import export_policy

        training = {"steps": done, "environment": env_id, "arguments": asdict(arguments)}
        return export_policy(algorithm, Path(out_dir) / "policy", training, {"training": metrics})
    finally:
        if algorithm is not None:
            algorithm.stop()
        if started_ray:
            import ray

            ray.shutdown()


def build_config(
    env_id: str, env_arguments: Mapping[str, Any], arguments: PPOArguments, steps_done: int = 0
) -> PPOConfig:
    """RLlib's configuration of a run; one resumed at `steps_done` draws other numbers than at its start."""
    import gymnasium as gym
    import numpy as np
    import torch
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec

    from rlroute.agents.rllib.columnar import ColumnarEnvRunner, ColumnarPPO
    from rlroute.agents.rllib.module import RouterModule

    torch.set_num_threads(arguments.threads)
    env_config = {**env_arguments, "mask_in_obs": True, "autoreset": "next_step"}
    env = gym.make_vec(env_id, num_envs=1, vectorization_mode="vector_entry_point", **env_config)
    layout = env.unwrapped.layout.to_dict()
    env.close()
    last = arguments.total_steps
    seed = arguments.seed
    if steps_done:
        seed = int(np.random.SeedSequence((arguments.seed, steps_done)).generate_state(1)[0] >> 1)
    return (
        PPOConfig(algo_class=ColumnarPPO)
        .environment(env_id, env_config=env_config, disable_env_checking=True)
        .env_runners(
            env_runner_cls=ColumnarEnvRunner,
            num_env_runners=0,
            num_envs_per_env_runner=arguments.num_envs,
            gym_env_vectorize_mode="vector_entry_point",
            rollout_fragment_length=arguments.rollout_length,
        )
        .training(
            lr=[[0, arguments.learning_rate], [last, 0.0]] if arguments.anneal else arguments.learning_rate,
            gamma=arguments.gamma,
            lambda_=arguments.gae_lambda,
            clip_param=arguments.clip,
            entropy_coeff=[[0, arguments.entropy], [last, arguments.entropy_end]],
            vf_loss_coeff=arguments.value_weight,
            vf_clip_param=float("inf"),
            use_kl_loss=False,
            grad_clip=arguments.max_grad_norm,
            grad_clip_by="global_norm",
            num_epochs=arguments.epochs,
            minibatch_size=min(arguments.minibatch, arguments.num_envs * arguments.rollout_length),
            train_batch_size_per_learner=arguments.num_envs * arguments.rollout_length,
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


def _starting_weights(arguments: PPOArguments, layout: dict[str, Any]) -> dict[str, Any]:
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


def save_checkpoint(algorithm: Algorithm, checkpoints: Path, done: int, run: dict[str, Any]) -> Path:
    """Writes ``step-…`` under another name, renames it, points ``latest`` to it, and removes older ones."""
    final = checkpoints / f"step-{done:012d}"
    fresh = checkpoints / f".{final.name}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    algorithm.save_to_path(fresh.resolve() / "algorithm")
    (fresh / "run.json").write_text(json.dumps(run, indent=1))
    shutil.rmtree(final, ignore_errors=True)
    fresh.rename(final)
    pointer = checkpoints / ".latest.new"
    pointer.write_text(final.name)
    pointer.replace(checkpoints / "latest")
    for other in set(checkpoints.glob("step-*")) - {final}:
        shutil.rmtree(other, ignore_errors=True)
    return final


def latest_checkpoint(checkpoints: Path) -> Path | None:
    """The checkpoint that ``latest`` points to, or None."""
    pointer = checkpoints / "latest"
    return checkpoints / pointer.read_text().strip() if pointer.is_file() else None


def _metrics(results: dict[str, Any]) -> dict[str, float]:
    """The few of RLlib's results worth watching."""
    runner, learner = results["env_runners"], results["learners"]["default_policy"]
    metrics = {
        "steps": runner["num_env_steps_sampled_lifetime"],
        "reward": runner.get("episode_return_mean", float("nan")),
        "episode_length": runner.get("episode_len_mean", float("nan")),
        "entropy": learner["entropy"],
        "explained_variance": learner["vf_explained_var"],
    }
    return {name: float(value) for name, value in metrics.items()}


def _check_same_run(old: dict[str, Any], new: dict[str, Any], checkpoint: Path) -> None:
    """A run may be resumed with more steps or other checkpoints, but not as a different one."""
    free = {"total_steps", "checkpoint_every", "threads"}

    def pairs(run: dict[str, Any]) -> dict[str, Any]:
        settings = {name: value for name, value in run["arguments"].items() if name not in free}
        return {"env": run["env"], **run["env_arguments"], **settings}

    before, now = pairs(old), pairs(new)
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise ValueError(
                f"{checkpoint}: cannot resume, {name} was {before.get(name)!r} and is now {now.get(name)!r}"
            )


def _plain(value: Any) -> Any:
    """`value` as JSON gives it back; a log is told by its content hash."""
    text = json.dumps(value, default=lambda item: str(getattr(item, "content_hash", item)))
    return json.loads(text)


def quieten_ray() -> None:
    """Of what Ray and RLlib log, only errors."""
    for name in ("ray", "ray.rllib", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _start_ray() -> bool:
    """Starts Ray as quietly as it can be, unless it runs already; says whether it did."""
    for name, value in {
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }.items():
        os.environ.setdefault(name, value)
    import ray

    quieten_ray()
    if ray.is_initialized():
        return False
    ray.init(
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=100 * 2**20,
    )
    return True


def parser() -> argparse.ArgumentParser:
    """The command line, made from the fields of `PPOArguments` and the comments beside them."""
    comments = dict(re.findall(r"^    (\w+): .*?  # (.*)$", inspect.getsource(PPOArguments), re.MULTILINE))
    command = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    command.add_argument("env", help="environment id, such as rlroute:rlroute/ThinkRoute-v0")
    command.add_argument("out", type=Path, help="folder for checkpoints and policy")
    command.add_argument("--env-arguments", type=json.loads, default={}, help="arguments of the environment as JSON")
    command.add_argument("--resume", action="store_true", help="go on from the last checkpoint in OUT")
    for knob in fields(PPOArguments):
        how: dict[str, Any] = {"type": type(knob.default)}
        if isinstance(knob.default, bool):
            how = {"action": argparse.BooleanOptionalAction}
        name = f"--{knob.name.replace('_', '-')}"
        command.add_argument(name, default=knob.default, help=comments[knob.name].replace("%", "%%"), **how)
    return command


def main() -> None:
    options = vars(parser().parse_args())
    env_id, out, env_arguments = options.pop("env"), options.pop("out"), options.pop("env_arguments")
    resume = options.pop("resume")

    def report(done: int, total: int, metrics: dict[str, float]) -> None:
        values = "  ".join(f"{name} {value:.3f}" for name, value in metrics.items())
        print(f"{done:>10,} / {total:,}  {values}", flush=True)

    print(train(env_id, env_arguments, out, PPOArguments(**options), report, resume))


if __name__ == "__main__":
    main()
