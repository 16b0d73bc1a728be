"""How training grows with remote runners: columnar PPO with 0, 1 and 2 of them, in decisions a second by the clock.

    python experiments/benchmarks/runners.py [--repeats 3] [--hidden 32]

Every runner steps 1,024 environments in a process of its own and goes on while the learner works; with none the
learner's process does both. Each number of runners is measured in turn, and what is shown is the median over the
repeats. Runners need CPUs: how many there are stands beside the figures. Writes ``results/runners.json``, ``.md`` and
``.png``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from growth import plot

from rlroute.agents.rllib import ppo
from rlroute.agents.rllib.cluster import start_ray
from rlroute.report import table, write_text

RESULTS = Path(__file__).parent / "results"
ENVIRONMENTS = ("rlroute/ThinkRoute-v0", "rlroute/BudgetRoute-v0")
RUNNERS = (0, 1, 2)
UPDATES = 5
FOREVER = 10**9  # decisions over which schedules run


def decisions_per_second(env_id: str, arguments: ppo.PPOArguments) -> float:
    """Of `UPDATES` updates by the clock, after two that warm everything up."""
    algorithm: Any = ppo.build_config(f"rlroute:{env_id}", {}, arguments).build_algo()
    for _ in range(2):
        algorithm.train()
    before, began = sampled(algorithm), time.perf_counter()
    for _ in range(UPDATES):
        algorithm.train()
    speed = (sampled(algorithm) - before) / (time.perf_counter() - began)
    algorithm.stop()
    return speed


def sampled(algorithm: Any) -> float:
    """Decisions that an algorithm has sampled so far."""
    return float(algorithm.metrics.peek(("env_runners", "num_env_steps_sampled_lifetime"), default=0))


def as_markdown(data: dict[str, Any]) -> str:
    """The table."""
    rows = [[name, *(f"{value:,.0f}" for value in values)] for name, values in data["decisions_per_second"].items()]
    parts = [
        "# Training with remote runners",
        f"Decisions a second by the clock of columnar PPO, 1,024 environments × 16 steps a runner, layers of "
        f"{data['hidden']}, {data['cpus']} CPUs; medians of {data['repeats']} repeats.",
        table(["", *(f"{n} runners" for n in data["runners"])], rows),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--hidden", type=int, default=32)
    options = parser.parse_args()
    start_ray(num_env_runners=max(RUNNERS))
    found: dict[str, list[list[float]]] = {}
    for _ in range(options.repeats):
        for env_id in ENVIRONMENTS:
            line = []
            for runners in RUNNERS:
                knobs = ppo.PPOArguments(
                    total_steps=FOREVER,
                    num_envs=1024,
                    minibatch=8192,
                    hidden=options.hidden,
                    text_noise=0.0,
                    num_env_runners=runners,
                    overlap=runners > 0,
                )
                line.append(decisions_per_second(env_id, knobs))
            found.setdefault(env_id.split("/")[1], []).append(line)
            print(env_id, [round(speed) for speed in line], flush=True)
    medians = {
        name: [statistics.median(column) for column in zip(*lines, strict=True)] for name, lines in found.items()
    }
    data = {
        "repeats": options.repeats,
        "hidden": options.hidden,
        "cpus": os.cpu_count(),
        "runners": RUNNERS,
        "decisions_per_second": medians,
    }
    write_text(RESULTS / "runners.json", json.dumps(data, indent=1) + "\n")
    write_text(RESULTS / "runners.md", as_markdown(data))
    plot(RESULTS / "runners.png", RUNNERS, medians, "remote runners", "decisions a second", log=False)
    print(as_markdown(data))


if __name__ == "__main__":
    main()
