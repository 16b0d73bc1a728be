"""How fast training is: PPO and GRPO on columns against RLlib's stock PPO and against PPO by hand.

    python experiments/benchmarks/learning.py [--repeats 5] [--hidden 32]

Same environment, network and hyper-parameters, one process and one thread. All algorithms are alive at once and take
turns; medians over the repeats, as ratios, of decisions a second of processor time, so that a busy machine does not
decide. Then stock and columnar PPO train on BudgetRoute from the same seeds: what they earn must lie within the
spread of the seeds. Writes ``results/learning.json`` and ``results/learning.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from plain_ppo import train_plain

from rlroute.agents.rllib import grpo, ppo
from rlroute.agents.rllib.cluster import start_ray
from rlroute.report import table, write_text

RESULTS = Path(__file__).parent / "results"
ENVIRONMENTS = ("rlroute/ThinkRoute-v0", "rlroute/BudgetRoute-v0")
FOREVER = 10**9  # decisions over which schedules run, where only speed is measured
WAVE = 2048  # episodes between two updates of GRPO: about as many decisions as PPO's
RATIOS = (  # of what to what, and the least it should be
    ("columnar PPO", "stock PPO", 10.0),
    ("columnar PPO", "plain PPO", 1.0),
    ("GRPO", "stock PPO", 30.0),
)


def speeds(
    env_id: str, arguments: ppo.PPOArguments, groups: grpo.GRPOArguments, repeats: int
) -> dict[str, list[float]]:
    """Decisions a second of processor time of each algorithm, one number a repeat."""
    name = f"rlroute:{env_id}"
    algorithms = {
        "stock PPO": ppo.build_config(name, {}, replace(arguments, runner="stock")).build_algo(),
        "columnar PPO": ppo.build_config(name, {}, arguments).build_algo(),
        "GRPO": grpo.build_config(name, {}, groups).build_algo(),
    }

    def by_rllib(algorithm: Any, updates: int) -> float:
        before = sampled(algorithm)
        began = time.process_time()
        for _ in range(updates):
            algorithm.train()
        return (sampled(algorithm) - before) / (time.process_time() - began)

    def by_hand() -> float:
        steps = 4 * arguments.num_envs * arguments.rollout_length
        return train_plain(name, {}, replace(arguments, total_steps=steps))["decisions_per_second"]

    turns: dict[str, Callable[[], float]] = {
        "stock PPO": lambda: by_rllib(algorithms["stock PPO"], 1),
        "columnar PPO": lambda: by_rllib(algorithms["columnar PPO"], 3),
        "plain PPO": by_hand,
        "GRPO": lambda: by_rllib(algorithms["GRPO"], 3),
    }
    for algorithm in algorithms.values():
        algorithm.train()  # warms everything up
    found: dict[str, list[float]] = {label: [] for label in turns}
    for _ in range(repeats):
        for label, turn in turns.items():
            found[label].append(turn())
    for algorithm in algorithms.values():
        algorithm.stop()
    return found


def sampled(algorithm: Any) -> float:
    """Decisions that an algorithm has sampled so far."""
    return float(algorithm.metrics.peek(("env_runners", "num_env_steps_sampled_lifetime"), default=0))


def earned(env_id: str, arguments: ppo.PPOArguments, seeds: int) -> dict[str, list[float]]:
    """Mean return over the last three updates of stock and columnar PPO, one number a seed."""
    found: dict[str, list[float]] = {"stock PPO": [], "columnar PPO": []}
    for seed in range(seeds):
        for runner, label in (("stock", "stock PPO"), ("columnar", "columnar PPO")):
            knobs = replace(arguments, runner=runner, seed=seed)
            algorithm = ppo.build_config(f"rlroute:{env_id}", {}, knobs).build_algo()
            rewards = []
            while sampled(algorithm) < arguments.total_steps:
                rewards.append(float(algorithm.train()["env_runners"]["episode_return_mean"]))
            algorithm.stop()
            found[label].append(statistics.fmean(rewards[-3:]))
    return found


def as_markdown(result: dict[str, Any]) -> str:
    """The tables of one run."""
    labels = ("stock PPO", "columnar PPO", "plain PPO", "GRPO")
    rates = [[env, *(f"{result['decisions_per_second'][env][label]:,.0f}" for label in labels)] for env in ENVIRONMENTS]
    ratios = [
        [f"{a} / {b}", *(f"{result['ratios'][env][f'{a} / {b}']:.2f}" for env in ENVIRONMENTS), f"{least:g}"]
        for a, b, least in RATIOS
    ]
    learned = [
        [label, *(f"{value:.3f}" for value in values)] for label, values in result["mean_return"]["by_seed"].items()
    ]
    knobs, learned_on = result["arguments"], result["mean_return"]
    parts = [
        "# How fast training is",
        f"{knobs['num_envs']} environments × {knobs['rollout_length']} steps, minibatches of {knobs['minibatch']}, "
        f"{knobs['epochs']} epochs, layers of {knobs['hidden']}; GRPO in waves of {WAVE} episodes, one "
        "epoch; no noise on texts, so slots of a group that see the same ask the network once. "
        f"Medians of {result['repeats']} interleaved repeats, one thread.",
        table(["ratio", *ENVIRONMENTS, "required"], ratios),
        "Decisions a second of processor time:",
        table(["", *labels], rates),
        f"Mean return on {learned_on['environment']} after {learned_on['steps']:,} decisions:",
        table(["", *(f"seed {seed}" for seed in range(len(learned[0]) - 1))], learned),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150_000, help="decisions of each training that is compared")
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--minibatch", type=int, default=8192)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    arguments = ppo.PPOArguments(
        total_steps=FOREVER, num_envs=1024, minibatch=options.minibatch, hidden=options.hidden, text_noise=0.0
    )
    groups = grpo.GRPOArguments(
        total_steps=FOREVER, num_envs=WAVE, minibatch=options.minibatch, hidden=options.hidden, text_noise=0.0
    )
    start_ray()
    rates, ratios = {}, {}
    for env_id in ENVIRONMENTS:
        found = speeds(env_id, arguments, groups, options.repeats)
        rates[env_id] = {label: statistics.median(values) for label, values in found.items()}
        ratios[env_id] = {f"{a} / {b}": rates[env_id][a] / rates[env_id][b] for a, b, _ in RATIOS}
        print(env_id, {name: round(value, 2) for name, value in ratios[env_id].items()}, flush=True)
    env_id = ENVIRONMENTS[-1]
    trained = replace(arguments, total_steps=options.steps, num_envs=256, minibatch=2048)
    result = {
        "arguments": asdict(arguments),
        "repeats": options.repeats,
        "decisions_per_second": rates,
        "ratios": ratios,
        "mean_return": {
            "environment": env_id,
            "steps": options.steps,
            "by_seed": earned(env_id, trained, options.seeds),
        },
    }
    write_text(options.out / "learning.json", json.dumps(result, indent=1) + "\n")
    write_text(options.out / "learning.md", as_markdown(result))
    print(as_markdown(result))


if __name__ == "__main__":
    main()
