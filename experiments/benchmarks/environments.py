"""How fast environments step, as multiples of Gymnasium's own 64 CartPoles in a row, measured in the same run.

    python experiments/benchmarks/environments.py [--repeats 5]

One process, one thread, processor time of ``step`` alone under random legal actions; every repeat measures the
reference and all environments once, and what is shown is the median over the repeats of the ratio within one. Beside
the steps stand the bytes that one moves (observation written, and copied where it is kept, what is read of the log, the
slot's own records) and what share of the memory's speed that is, from a copy of 64 MB in the same run. Then how speed
grows with the number of environments, of states of the log, and of choices. Writes ``results/environments.json`` and
``.md``, and a picture of each: ``by_number.png``, ``by_states.png``, ``by_choices.png``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium as gym
import numpy as np
from growth import plot
from gymnasium.vector import SyncVectorEnv

import rlroute  # noqa: F401 - registers the environments
from rlroute.envs import REGISTRY
from rlroute.log import Log, load_log
from rlroute.report import table, write_text

RESULTS = Path(__file__).parent / "results"
SECONDS = 0.25  # of processor time, about, for one measurement
NUMBERS = (1, 4, 16, 64, 256, 1024, 4096, 16384)  # of environments
STATES = (1_000, 10_000, 100_000, 1_000_000)
WRITTEN = 100_000  # states; larger logs are made of smaller ones, see large_log.py
CHOICES = (2, 8, 32, 128, 500)
STATES_OF_CHOICES = 1000  # of the logs with many choices
CHOICES_OF_STATES = 20  # of the logs with many states
LEAST = {"N = 1024": 60.0, "N = 64": 12.0, 'N = 1024, obs="index"': 200.0, "gym.make": 0.5}

Measurement = Callable[[], float]  # steps a second of processor time


def cart_poles() -> Measurement:
    """The reference."""
    env = SyncVectorEnv([lambda: gym.make("CartPole-v1")] * 64)
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, 2, (400, 64))

    def measure() -> float:
        began = time.process_time()
        for action in actions:
            env.step(action)
        return len(actions) * 64 / (time.process_time() - began)

    return measure


def stepper(step: Callable[[Any, dict[str, Any]], bool], env: Any, num_envs: int) -> Measurement:
    """Steps for about `SECONDS`; only the step is timed, not the choice of an action.

    `step` takes an action, puts the info that follows into the dict it is given, and says whether to reset.
    """
    rng = np.random.default_rng(0)
    state = {"info": env.reset(seed=0)[1]}

    def measure() -> float:
        steps, spent = 0, 0.0
        while spent < SECONDS:
            mask = state["info"]["action_mask"]
            action = np.where(mask == 1, rng.random(mask.shape), -1.0).argmax(axis=-1)
            began = time.process_time()
            ended = step(action, state)
            spent += time.process_time() - began
            steps += num_envs
            if ended:
                state["info"] = env.reset()[1]
        return steps / spent

    return measure


def vector(env_id: str, num_envs: int, **arguments: Any) -> tuple[Measurement, Any]:
    """A native vector environment, and itself."""
    env = gym.make_vec(env_id, num_envs=num_envs, vectorization_mode="vector_entry_point", **arguments)

    def step(action: np.ndarray, state: dict[str, Any]) -> bool:
        state["info"] = env.step(action)[4]
        return False

    return stepper(step, env, num_envs), env.unwrapped


def scalar(env_id: str) -> Measurement:
    """What ``gym.make`` gives, wrappers included; its resets are not timed."""
    env = gym.make(env_id)

    def step(action: np.ndarray, state: dict[str, Any]) -> bool:
        _, _, terminated, truncated, state["info"] = env.step(action)
        return bool(terminated or truncated)

    return stepper(step, env, 1)


def median_ratios(measurements: dict[str, Measurement], repeats: int) -> dict[str, float]:
    """Multiples of the reference, each the median over interleaved repeats."""
    reference = cart_poles()
    ratios: dict[str, list[float]] = {name: [] for name in measurements}
    for repeat in range(repeats + 1):
        base = reference()
        for name, measure in measurements.items():
            speed = measure()
            if repeat:  # the first warms up
                ratios[name].append(speed / base)
    return {name: statistics.median(values) for name, values in ratios.items()}


def bytes_a_step(env: Any) -> int:
    """Bytes that one step of one slot moves: its observation, its records, and what it reads of a log.

    An observation moves twice in families that keep it and write what has changed.
    """
    game, dynamics = env.dynamics.game, env.dynamics
    written = 2 if hasattr(game, "seen") else 1
    moved = written * dynamics.observation[0].nbytes + 2 * dynamics.action_mask[0].nbytes + dynamics.slots.itemsize
    recording = getattr(game, "recording", None)
    if recording is not None:
        moved += recording.responses.itemsize + recording.numbers[0].nbytes
    return int(moved)


def copy_bytes_per_s() -> float:
    """Bytes read and written a second by a copy far larger than the caches."""
    source, target = np.ones(2**23), np.empty(2**23)
    best = 0.0
    for _ in range(5):
        began = time.process_time()
        np.copyto(target, source)
        best = max(best, 2 * source.nbytes / (time.process_time() - began))
    return best


def families(repeats: int) -> dict[str, dict[str, float]]:
    """The four figures of every family, and what memory has to do with them."""
    limit, reference = copy_bytes_per_s(), cart_poles()
    rows = {}
    for entry in REGISTRY:
        wide, env = vector(entry.id, 1024)
        measurements = {
            "N = 1024": wide,
            "N = 64": vector(entry.id, 64)[0],
            'N = 1024, obs="index"': vector(entry.id, 1024, obs="index")[0],
            "gym.make": scalar(entry.id),
        }
        row = median_ratios(measurements, repeats)
        row["bytes a step"] = bytes_a_step(env)
        row["share of memory speed"] = row["N = 1024"] * reference() * row["bytes a step"] / limit
        rows[entry.id] = row
        print(entry.id, row, flush=True)
    return rows


def by_number(repeats: int) -> dict[str, list[float]]:
    """Multiples of the reference for each number of environments, by family."""
    names = [(entry.id, n) for entry in REGISTRY for n in NUMBERS]
    ratios = median_ratios({f"{env_id} {n}": vector(env_id, n)[0] for env_id, n in names}, repeats)
    return {entry.id: [ratios[f"{entry.id} {n}"] for n in NUMBERS] for entry in REGISTRY}


def synthetic(states: int, choices: int, folder: Path) -> Log:
    """A query log of that size, made where it is not there yet."""
    from large_log import enlarged
    from log_load import write

    if states > WRITTEN:
        return enlarged(synthetic(WRITTEN, choices, folder), states // WRITTEN)
    path = folder / f"synthetic-{states}-{choices}"
    if not path.exists():
        write(path, states, choices)
    return load_log(path)


def by_size(sizes: list[tuple[int, int]], repeats: int, folder: Path) -> list[float]:
    """Multiples of the reference of ThinkRoute on logs of (states, choices), at 1,024 environments."""
    measurements = {
        f"{states} {choices}": vector("rlroute/ThinkRoute-v0", 1024, log=synthetic(states, choices, folder))[0]
        for states, choices in sizes
    }
    ratios = median_ratios(measurements, repeats)
    return [ratios[f"{states} {choices}"] for states, choices in sizes]


def plots(data: dict[str, Any]) -> None:
    """One picture a question."""
    multiples = "multiples of 64 CartPoles"
    families = {env_id.split("/")[1]: ratios for env_id, ratios in data["by_number"].items()}
    states, choices = {"ThinkRoute": data["by_states"]}, {"ThinkRoute": data["by_choices"]}
    rows = f"states of the log, × {CHOICES_OF_STATES} choices"
    plot(RESULTS / "by_number.png", NUMBERS, families, "environments", multiples, log=True)
    plot(RESULTS / "by_states.png", STATES, states, rows, multiples, log=True)
    plot(RESULTS / "by_choices.png", CHOICES, choices, "choices", multiples, log=True)


def as_markdown(data: dict[str, Any]) -> str:
    """The tables."""
    columns = [*LEAST, "bytes a step", "share of memory speed"]
    rows = []
    for env_id, row in data["families"].items():
        cells = [f"{row[name]:.1f} ×" for name in LEAST]
        rows.append(
            [f"`{env_id}`", *cells, f"{row['bytes a step']:,.0f}", f"{100 * row['share of memory speed']:.0f} %"]
        )
    required = ["required", *(f"{least:g} ×" for least in LEAST.values()), "", ""]
    number = [[f"{n:,}", *(f"{ratios[k]:.1f}" for ratios in data["by_number"].values())] for k, n in enumerate(NUMBERS)]
    parts = [
        "# Steps a second, in multiples of `SyncVectorEnv` of 64 CartPoles",
        f"Medians of {data['repeats']} interleaved repeats, one thread, default logs and observations.",
        table(["environment", *columns], [*rows, required]),
        "By the number of environments:",
        table(["N", *(f"`{env_id}`" for env_id in data["by_number"])], number),
        f"ThinkRoute at N = 1024, by the states of a log of {CHOICES_OF_STATES} choices, and by the choices of one of "
        f"{STATES_OF_CHOICES:,} states:",
        table([f"{n:,} states" for n in STATES], [[f"{ratio:.1f}" for ratio in data["by_states"]]]),
        table([f"{n} choices" for n in CHOICES], [[f"{ratio:.1f}" for ratio in data["by_choices"]]]),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--logs", type=Path, default=Path("runs/benchmarks"), help="where synthetic logs are kept")
    options = parser.parse_args()
    options.logs.mkdir(parents=True, exist_ok=True)
    data: dict[str, Any] = {"repeats": options.repeats, "states": STATES, "choices": CHOICES, "numbers": NUMBERS}
    data["families"] = families(options.repeats)
    data["by_number"] = by_number(options.repeats)
    many = [(states, CHOICES_OF_STATES) for states in STATES]
    data["by_states"] = by_size(many, options.repeats, options.logs)
    wide = [(STATES_OF_CHOICES, choices) for choices in CHOICES]
    data["by_choices"] = by_size(wide, options.repeats, options.logs)
    RESULTS.mkdir(exist_ok=True)
    write_text(RESULTS / "environments.json", json.dumps(data, indent=1) + "\n")
    write_text(RESULTS / "environments.md", as_markdown(data))
    plots(data)
    print(as_markdown(data))


if __name__ == "__main__":
    main()
