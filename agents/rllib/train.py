"""The loop that all algorithms share: train, checkpoint, resume, report, export.

Writes ``OUT/policy`` (see `rlroute.policy`) and, on the way, ``OUT/checkpoints``. A run that is killed at any moment
goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlroute.agents.rllib.arguments import TrainingArguments, command_line
from rlroute.agents.rllib.checkpoints import latest_checkpoint, refuse_another_run, save_checkpoint
from rlroute.agents.rllib.cluster import start_ray
from rlroute.agents.rllib.profiling import Profile

Progress = Callable[[int, int, dict[str, float]], None]
BuildConfig = Callable[[str, Mapping[str, Any], Any, int], Any]  # as `ppo.build_config`


def train_algorithm(
    name: str,
    build_config: BuildConfig,
    env_id: str,
    env_arguments: Mapping[str, Any],
    out_dir: str | Path,
    arguments: TrainingArguments,
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
    checkpoints = Path(out_dir) / "checkpoints"
    run = _plain({"env": env_id, "env_arguments": env_arguments, "arguments": asdict(arguments)})
    latest = latest_checkpoint(checkpoints) if resume else None
    if latest is None:
        shutil.rmtree(checkpoints, ignore_errors=True)
    else:
        refuse_another_run(latest, run)

    started_ray = start_ray(arguments.address, arguments.num_env_runners)
    algorithm = None
    try:
        done = int(latest.name.removeprefix("step-")) if latest else 0
        algorithm = build_config(env_id, env_arguments, arguments, done).build_algo()
        if latest:
            algorithm.restore_from_path(latest.resolve() / "algorithm")
        began, began_at, updates = time.perf_counter(), done, 0
        profile, metrics = Profile(arguments.num_env_runners), dict[str, float]()
        while done < arguments.total_steps:
            update_began = time.perf_counter()
            results = algorithm.train()
            profile.add(results, time.perf_counter() - update_began)
            metrics = metrics_of(results)
            done, updates = int(metrics.pop("steps")), updates + 1
            metrics["steps_per_second"] = (done - began_at) / (time.perf_counter() - began)
            if progress:
                progress(done, arguments.total_steps, metrics)
            if updates % arguments.checkpoint_every == 0 or done >= arguments.total_steps:
                save_checkpoint(algorithm, checkpoints, done, run)
        if arguments.profile and updates:
            print(profile.table(done - began_at), flush=True)
        from rlroute.agents.rllib.export import export_policy

        training = {"algorithm": name, "steps": done, "environment": env_id, "arguments": asdict(arguments)}
        return export_policy(algorithm, Path(out_dir) / "policy", training, {"training": metrics})
    finally:
        if algorithm is not None:
            algorithm.stop()
        if started_ray:
            import ray

            ray.shutdown()


def metrics_of(results: Mapping[str, Any]) -> dict[str, float]:
    """The few of RLlib's results worth watching."""
    runner, learner = results["env_runners"], results["learners"]["default_policy"]
    metrics = {
        "steps": runner["num_env_steps_sampled_lifetime"],
        "reward": runner.get("episode_return_mean", float("nan")),
        "episode_length": runner.get("episode_len_mean", float("nan")),
        "entropy": learner["entropy"],
    }
    for key, name in (
        ("vf_explained_var", "explained_variance"),
        ("groups_without_variance", "groups_without_variance"),
    ):
        if key in learner:
            metrics[name] = learner[key]
    return {name: float(value) for name, value in metrics.items()}


def run_command_line(arguments_type: type[TrainingArguments], train: Callable[..., Path], description: str) -> None:
    """Parse the command line, train, and print a line an update and the policy folder."""
    options = vars(command_line(arguments_type, description).parse_args())
    env_id, out, env_arguments = options.pop("env"), options.pop("out"), options.pop("env_arguments")
    resume = options.pop("resume")

    def report(done: int, total: int, metrics: dict[str, float]) -> None:
        values = "  ".join(f"{name} {value:.3f}" for name, value in metrics.items())
        print(f"{done:>10,} / {total:,}  {values}", flush=True)

    print(train(env_id, env_arguments, out, arguments_type(**options), report, resume))


def _plain(value: Any) -> Any:
    """`value` as JSON gives it back; a log is told by its content hash."""
    text = json.dumps(value, default=lambda item: str(getattr(item, "content_hash", item)))
    return json.loads(text)
