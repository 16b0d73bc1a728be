"""The main job: train a router on a log, and see on `test` what it is worth. ``make demo`` runs this.

Without ``--log`` it trains one router a family on the built-in logs, two at a time: ThinkRoute and EffortRoute
conditioned on the weight of cost, BudgetRoute on the cap, ToolGraph on the price of a model call. With ``--log PATH``
it trains the ThinkRoute router on that log, or on a recording that one of the importers knows. A log or a path that
cannot be used ends it with status 2.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from rlroute.cli import BAD_INPUT, explain
from rlroute.errors import LogError
from rlroute.evaluation import Setting

WEIGHTS = (0.03, 0.1, 0.2, 0.5, 1.0)
CAPS = (2, 3, 4)
TRAINED = "trained router"
PROCESSES = 2  # longest jobs first
STEPS_PER_TASK = 400  # of training, on a log that is not built in


@dataclass(frozen=True)
class Job:
    """One router: where it is trained, what it is trained for, and what it is compared at."""

    folder: str
    env_id: str
    arguments: dict[str, Any]
    ranges: dict[str, Any]  # what is drawn per episode in training, and set by `settings` in the contest
    settings: tuple[Setting, ...]
    training: dict[str, Any]  # of PPOArguments; shorter than in worth/runs.yaml, so that all is done in minutes
    replays: bool = True  # a log; else a suite of graphs, which is made in a moment
    teacher: str = ""  # the reference that a clone to start training from is made of


THINK = Job(
    folder="think_route",
    env_id="rlroute:rlroute/ThinkRoute-v0",
    arguments={"log": "questions"},
    ranges={"preference": (0.02, 1.5)},
    settings=tuple(Setting.weight(w) for w in WEIGHTS),
    training={"total_steps": 400_000},
)
BUDGET = Job(
    folder="budget_route",
    env_id="rlroute:rlroute/BudgetRoute-v0",
    arguments={"log": "tasks"},
    ranges={"budget_calls": (1, 6)},
    settings=tuple(Setting.calls(cap) for cap in CAPS),
    training={"total_steps": 1_000_000, "num_envs": 1024, "minibatch": 8192, "learning_rate": 2e-3},
)

EFFORT = Job(
    folder="effort_route",
    env_id="rlroute:rlroute/EffortRoute-v0",
    arguments={"log": "efforts"},
    ranges={"preference": (0.05, 1.2)},
    settings=tuple(Setting.weight(w) for w in (0.1, 0.3, 1.0)),
    training={"total_steps": 500_000, "num_envs": 1024, "minibatch": 8192, "learning_rate": 2e-3},
)
TOOLS = Job(
    folder="tool_graph",
    env_id="rlroute:rlroute/ToolGraph-v0",
    arguments={"log": "stochastic-small"},
    ranges={"model_cost": (0.01, 0.5)},
    settings=tuple(Setting.model_cost(c) for c in (0.02, 0.1, 0.3)),
    training={"total_steps": 300_000, "num_envs": 1024, "minibatch": 8192, "learning_rate": 1e-3, "entropy": 0.003},
    replays=False,
    teacher="healing router",
)


def run(job: Job, out: Path, seed: int, queue: Any) -> Any:
    """Train, then compete; puts (folder, stage, share done) into `queue` and returns the study."""
    from rlroute.agents.rllib.cloning import CloneArguments, clone_reference
    from rlroute.agents.rllib.ppo import PPOArguments, train
    from rlroute.envs.contest import contest
    from rlroute.policy import load_policy

    def training(done: int, total: int, metrics: dict[str, float]) -> None:
        queue.put((job.folder, "train", done / total))

    arguments, given = PPOArguments(seed=seed, **job.training), {**job.arguments, **job.ranges}
    if job.teacher:
        watched, path = CloneArguments(steps=150, seed=seed), out / job.folder / "clone"
        start = clone_reference(job.env_id, given, job.teacher, job.settings[0], path, watched)
        arguments = replace(arguments, start=str(start))
    policy = train(job.env_id, given, out / job.folder, arguments, training)
    trained = {TRAINED: load_policy(policy)}
    shares = [0.0]

    def competing(share: float) -> None:
        shares[0] += share
        queue.put((job.folder, "evaluate", shares[0]))

    study = contest(job.env_id, job.arguments, job.settings, trained, episodes=1, progress=competing)
    return study.without_policies()


def find_log(path: str) -> str:
    """`path` itself if it is a log or the name of a built-in one, else the log that an importer makes of it."""
    from rlroute.cache import cache_root
    from rlroute.generators import GENERATORS
    from rlroute.importers import LOG, detect, import_log

    if path in GENERATORS or (kind := detect(path)) == LOG:
        return path
    log = import_log(kind, path)
    return str(log.save(cache_root() / "imported" / f"{kind}-{log.content_hash}"))


def prepare(job: Job, console: Console) -> Job:
    """The job with its log generated, checked and cached, and every environment on it made once.

    So two processes need not do that at the same time, and what is wrong with a log is said before any training.
    """
    from rlroute.envs.contest import vector_env
    from rlroute.log import load_log
    from rlroute.splits import SPLITS

    if not job.replays:
        return job
    log = load_log(job.arguments["log"])
    arrays = log.arrays
    sizes = f"{arrays.num_states:,} states, {arrays.num_choices} choices, {arrays.num_responses:,} responses"
    console.print(f"{log.name}: {sizes}, {log.card.coverage} coverage")
    if not arrays.coverage_full:
        job = replace(job, arguments={**job.arguments, "missing": "mask"})
    for split in SPLITS:
        env = vector_env(job.env_id, split, 1, **job.arguments, **job.settings[0].arguments)
        if split == "train" and not job.training:
            # Small logs are learned by heart: fewer steps, and more noise on the text than on the built-in ones.
            steps = int(min(max(STEPS_PER_TASK * len(env.dynamics.roots), 100_000), 600_000))
            job = replace(job, training={"total_steps": steps, "text_noise": 1.0})
    return job


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


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--log", help="a log, or a recording to import (default: the built-in logs)")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    parser.add_argument("--steps", type=int, help="training steps of each router")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    console, began = Console(), time.perf_counter()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    jobs = [TOOLS, BUDGET, THINK, EFFORT]
    try:
        if options.log:
            jobs = [replace(THINK, arguments={"log": find_log(options.log)}, training={})]
        options.out.mkdir(parents=True, exist_ok=True)
        jobs = [prepare(job, console) for job in jobs]
        if options.steps:
            jobs = [replace(job, training={**job.training, "total_steps": options.steps}) for job in jobs]
    except (LogError, ValueError, OSError) as error:
        print(explain(error), file=sys.stderr)
        return BAD_INPUT

    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        queue = manager.Queue()
        futures = [pool.submit(run, job, options.out, options.seed, queue) for job in jobs]
        watch(jobs, futures, queue, console)
        studies = [future.result() for future in futures]
    seconds = time.perf_counter() - began
    files = write(studies, options.out, f"{seconds:.0f} s on this machine, one seed")
    console.print(f"done in {seconds:.0f} s: look at {' and '.join(str(file) for file in files)}")
    return 0


def write(studies: list[Any], out: Path, cost: str) -> list[Path]:
    """``metrics.json``, ``report.md`` and ``frontier.png``; returns the two to look at.

    Figures replayed on a partial log are confounded, so they are not drawn.
    """
    from rlroute.plots import plot_frontier
    from rlroute.report import section, write_metrics, write_report

    evaluations = [study.test for study in studies]
    write_metrics(out / "metrics.json", evaluations)
    drawn = [
        result.to_dict() for evaluation in evaluations if evaluation.coverage_full for result in evaluation.results()
    ]
    (out / "frontier.png").unlink(missing_ok=True)
    plots = [plot_frontier(drawn, out / "frontier.png")] if drawn else []
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
    image = " ![frontier](frontier.png)" if plots else ""
    intro = f"Trained on `train`, tuned on `val`, played on `test` ({cost}).{image}"
    return [write_report(out / "report.md", [intro, *sections], "What the trained routers are worth"), *plots]


if __name__ == "__main__":
    sys.exit(main())
