"""How long until the first environment: ``import rlroute`` + ``gym.make`` against ``import gymnasium`` + CartPole.

    python experiments/benchmarks/import_time.py

Medians of interleaved runs in fresh processes, in seconds and as a ratio. Warm: log and features are in the cache and
the bytecode is compiled. Cold: `$RLROUTE_CACHE` is empty, so the built-in log is generated, checked and fitted first.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile

from rlroute.envs import REGISTRY

BOUND = 1.5
REFERENCE = "import gymnasium as gym; gym.make('CartPole-v1')"
OURS = "import rlroute, gymnasium as gym; gym.make({id!r})"


def seconds(code: str, cache: str | None = None) -> float:
    """Wall clock of `code` in a fresh interpreter, its start not counted."""
    timed = f"import time; t = time.perf_counter()\n{code}\nprint(time.perf_counter() - t)"
    environment = {**os.environ, **({"RLROUTE_CACHE": cache} if cache else {})}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # bytecode is kept, as in any installation
    run = subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=True, env=environment)
    return float(run.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=11)
    repeats = parser.parse_args().repeats
    codes = {row.id: OURS.format(id=row.id) for row in REGISTRY}
    for code in codes.values():
        seconds(code)  # fills the cache
    times: dict[str, list[float]] = {name: [] for name in ("CartPole-v1", *codes)}
    for _ in range(repeats):
        times["CartPole-v1"].append(seconds(REFERENCE))
        for name, code in codes.items():
            times[name].append(seconds(code))
    reference = statistics.median(times["CartPole-v1"])
    print("| import and make | seconds | ratio | cold, seconds |\n|---|---|---|---|")
    print(f"| CartPole-v1 | {reference:.3f} | 1 | – |")
    for name, code in codes.items():
        with tempfile.TemporaryDirectory() as cache:
            cold = seconds(code, cache)
        median = statistics.median(times[name])
        print(f"| {name} | {median:.3f} | {median / reference:.2f} | {cold:.1f} |")
        if median > BOUND * reference:
            sys.exit(f"{name}: {median / reference:.2f} times CartPole, expected at most {BOUND}")


if __name__ == "__main__":
    main()
