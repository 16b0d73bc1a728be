"""How long a large log takes to load, and in how much memory: 100,000 states × 20 choices by default.

    python experiments/benchmarks/log_load.py [--states 100000] [--choices 20] [--folder DIR]

The log is written by one process and loaded by another, with an empty cache (cold: read, validated, made into
arrays) and then again (warm). The bound is on processor time, so that a busy machine does not decide; time by
the clock is printed beside it. Memory is the growth of the peak resident set from before the load, with arrow
imported, and includes the pages of the memory-mapped arrays, all of which are read once.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

MAX_SECONDS = 5.0
MAX_MEMORY = 2.5  # times the bytes of the arrays


def write(folder: Path, states: int, choices: int) -> None:
    """A query log with one attempt a choice and short answers."""
    import pyarrow as pa

    from rlroute.card import Card
    from rlroute.log import Log

    rng = np.random.default_rng(0)
    state, choice = np.divmod(np.arange(states * choices), choices)
    ids = pa.array([f"state-{s:06d}" for s in range(states)])
    names = pa.array([f"model-{c}" for c in range(choices)])
    prices = np.linspace(0.1, 10.0, choices)
    rows = len(state)
    log = Log.from_tables(
        Card(name="synthetic", description="synthetic log of the load benchmark"),
        {"name": names, "input_usd_per_mtok": prices, "output_usd_per_mtok": prices * 4},
        {"state_id": ids, "text": pa.array([f"question number {s} of the benchmark" for s in range(states)])},
        {
            "state_id": ids.take(pa.array(state)),
            "choice": names.take(pa.array(choice)),
            "quality": rng.random(rows),
            "answer": pa.array([f"answer {a}" for a in range(1000)]).take(pa.array(rng.integers(0, 1000, rows))),
            "text": pa.array([f"the long answer {a}, with reasons" for a in range(1000)]).take(
                pa.array(rng.integers(0, 1000, rows))
            ),
            "prompt_tokens": rng.integers(10, 2000, rows),
            "completion_tokens": rng.integers(10, 2000, rows),
            "latency_s": rng.random(rows) * 10,
            "verdict": rng.integers(0, 2, rows).astype(float),
        },
    )
    log.save(folder)


def peak_bytes() -> int:
    """Peak resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def load(folder: Path) -> None:
    """Load the log, touch every array, print what it took."""
    import pyarrow.compute
    import pyarrow.parquet  # noqa: F401 - the libraries themselves are not the log's

    from rlroute.arrays import ID_ARRAYS, array_names
    from rlroute.log import load_log

    before, start, start_cpu = peak_bytes(), time.perf_counter(), time.process_time()
    arrays = load_log(folder).arrays
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    for name in array_names():
        if name not in ID_ARRAYS:
            getattr(arrays, name).max(initial=0)
    grown = peak_bytes() - before
    print(f"{seconds:.3f} {cpu:.3f} {grown} {arrays.nbytes}")


def run(*arguments: str, cache: str) -> str:
    """This script in a process of its own."""
    env = {**os.environ, "RLROUTE_CACHE": cache}
    command = [sys.executable, __file__, *arguments]
    return subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> int:
    """Measure, print, and fail beyond the bounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=100_000)
    parser.add_argument("--choices", type=int, default=20)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--step", choices=("write", "load"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step == "write":
        write(options.folder, options.states, options.choices)
        return 0
    if options.step == "load":
        load(options.folder)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "log"
        sizes = ("--states", str(options.states), "--choices", str(options.choices), "--folder", str(folder))
        run("--step", "write", *sizes, cache=f"{scratch}/writer-cache")
        size = sum(file.stat().st_size for file in folder.iterdir())
        print(f"{options.states:,} states × {options.choices} choices, {size / 1e6:.0f} MB on disk")
        good = True
        for label in ("cold", "warm"):
            output = run("--step", "load", *sizes, cache=f"{scratch}/cache")
            seconds, cpu, grown, nbytes = (float(value) for value in output.split()[-4:])
            print(
                f"{label}: {cpu:.2f} s of processor time, {seconds:.2f} s by the clock, "
                f"peak memory +{grown / 1e6:.0f} MB "
                f"= {grown / nbytes:.2f} × the {nbytes / 1e6:.0f} MB of the arrays"
            )
            good &= cpu < MAX_SECONDS and grown < MAX_MEMORY * nbytes
        print(f"bounds (cold {MAX_SECONDS:g} s, {MAX_MEMORY:g} ×): {'held' if good else 'EXCEEDED'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
