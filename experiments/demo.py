"""The main job: train a router on a log, and see on `test` what it is worth. ``make demo`` runs this.

Without ``--log`` it trains a preference-conditioned ThinkRoute router and a budget-conditioned BudgetRoute router on
the built-in logs, side by side in two processes. With ``--log PATH`` it trains the ThinkRoute router on that log, or
on a recording that one of the importers knows.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from rlroute.evaluation import Setting

WEIGHTS = (0.03, 0.1, 0.2, 0.5, 1.0)
CAPS = (2, 3, 4)
TRAINED = "trained router"


@dataclass(frozen=True)
class Job:
    """One router: where it is trained, what it is trained for, and what it is compared at."""

    folder: str
    env_id: str
    arguments: dict[str, Any]
    ranges: dict[str, Any]  # what is drawn per episode in training, and set by `settings` in the contest
    settings: tuple[Setting, ...]
    total_steps: int


THINK = Job(
    folder="think_route",
    env_id="rlroute:rlroute/ThinkRoute-v0",
    arguments={"log": "questions"},
    ranges={"preference": (0.02, 1.5)},
    settings=tuple(Setting.weight(w) for w in WEIGHTS),
    total_steps=600_000,
)
BUDGET = Job(
    folder="budget_route",
    env_id="rlroute:rlroute/BudgetRoute-v0",
    arguments={"log": "tasks"},
    ranges={"budget_calls": (1, 6)},
    settings=tuple(Setting.calls(cap) for cap in CAPS),
    total_steps=600_000,
)


def run(job: Job, out: Path, seed: int, queue: Any) -> Any:
    """Train, then compete; puts (folder, stage, share done) into `queue` and returns the study."""
    from rlroute.agents.rllib.ppo import PPOArguments, train
    from rlroute.envs.contest import contest
    from rlroute.policy import load_policy

    def training(done: int, total: int, metrics: dict[str, float]) -> None:
        queue.put((job.folder, "train", done / total))

    arguments = PPOArguments(total_steps=job.total_steps, seed=seed)
    policy = train(job.env_id, {**job.arguments, **job.ranges}, out / job.folder, arguments, training)
    shares = [0.0]

    def competing(share: float) -> None:
        shares[0] += share
        queue.put((job.folder, "evaluate", shares[0]))

    return contest(job.env_id, job.arguments, job.settings, {TRAINED: load_policy(policy)}, progress=competing)


def find_log(path: str) -> str:
    """`path` itself if it is a log or the name of a built-in one, else the log that an importer makes of it."""
    from rlroute.cache import cache_root
    from rlroute.generators import GENERATORS
    from rlroute.importers import LOG, detect, import_log

    if path in GENERATORS or (kind := detect(path)) == LOG:
        return path
    log = import_log(kind, path)
    return str(log.save(cache_root() / "imported" / f"{kind}-{log.content_hash}"))


def watch(jobs: list[Job], futures: list[Future[Any]], queue: Any, console: Console) -> None:
    """Draw the progress bars until all jobs are done."""
    columns = (
        TextColumn("{task.description:28}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bars = {
            (job.folder, stage): progress.add_task(f"{job.folder}: {stage}", total=1.0, start=stage == "train")
            for job in jobs
            for stage in ("train", "evaluate")
        }
        while not all(future.done() for future in futures) or not queue.empty():
            if queue.empty():
                time.sleep(0.1)
                continue
            folder, stage, share = queue.get()
            progress.start_task(bars[folder, stage])
            progress.update(bars[folder, stage], completed=share)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--log", help="a log, or a recording to import (default: the built-in logs)")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    parser.add_argument("--steps", type=int, help="training steps of each router")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    console, began = Console(), time.perf_counter()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    jobs = [THINK, BUDGET]
    if options.log:
        jobs = [
            Job(
                THINK.folder,
                THINK.env_id,
                {"log": find_log(options.log)},
                THINK.ranges,
                THINK.settings,
                THINK.total_steps,
            )
        ]
    if options.steps:
        jobs = [Job(**{**vars(job), "total_steps": options.steps}) for job in jobs]

    from rlroute.log import load_log

    for job in jobs:  # generated, checked and cached once, before two processes ask for it
        log = load_log(job.arguments["log"])
        arrays = log.arrays
        sizes = f"{arrays.num_states:,} states, {arrays.num_choices} choices, {arrays.num_responses:,} responses"
        console.print(f"{log.name}: {sizes}")
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(len(jobs), mp_context=context) as pool:
        queue = manager.Queue()
        futures = [pool.submit(run, job, options.out, options.seed, queue) for job in jobs]
        watch(jobs, futures, queue, console)
        studies = [future.result() for future in futures]
    seconds = time.perf_counter() - began
    write(studies, options.out, f"{seconds:.0f} s on this machine, one seed")
    console.print(f"done in {seconds:.0f} s: look at {options.out / 'report.md'} and {options.out / 'frontier.png'}")


def write(studies: list[Any], out: Path, cost: str) -> None:
    """``metrics.json``, ``frontier.png`` and ``report.md``."""
    from rlroute.plots import plot_frontier
    from rlroute.report import section, write_metrics, write_report

    evaluations = [study.test for study in studies]
    results = [result.to_dict() for evaluation in evaluations for result in evaluation.results()]
    write_metrics(out / "metrics.json", evaluations)
    plot_frontier(results, out / "frontier.png")
    sections = [
        section(
            study.test,
            TRAINED,
            floor="best single" if "best single" in study.test.scores else "random mix",
            ceiling="latent-knowing",
            frontiers=study.frontiers,
        )
        for study in studies
    ]
    intro = f"Trained on `train`, tuned on `val`, played on `test` ({cost}). ![frontier](frontier.png)"
    write_report(out / "report.md", [intro, *sections], "What the trained routers are worth")


if __name__ == "__main__":
    main()
