"""Language models as routers: trains and evaluates them on texts, beside every reference, on the same test tasks.

    python experiments/router_r1/router_r1.py                                the tiny model, all experiments
    python experiments/router_r1/router_r1.py --only think --recording PATH  a recording that an importer knows
    python experiments/router_r1/router_r1.py --only think --model smollm2    a pretrained one, best on a GPU

Each of `plans.PLANS` has one supervised start and, from it, three seeds of every algorithm. What was done is written at
once, a file a (experiment, algorithm, seed), and not done again; results are written anew after each. On test every
router meets the very draws that the references met. Writes ``results/*.json``, ``.md`` and ``.png``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import fields, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numeric
import numpy as np
from plans import HERE, PLANS, Plan, pretrained
from tables import CURVES, write_results

from rlroute.evaluation import Evaluation, MakeEnv, Score, evaluate, tune

START = "SFT"
DIGITS = 6  # of a reward: the same episode is added up in another order by a vector environment
Scores = dict[str, list[Score]]  # by policy, one a setting


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(PLANS), default=list(PLANS), help="some of the experiments")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--model", default="tiny", help='"tiny", "smollm2" or a folder')
    parser.add_argument("--recording", type=Path, help="a recording or log to play on, in place of the built-in logs")
    parser.add_argument("--steps", type=int, help="updates of every algorithm, in place of the plan's")
    parser.add_argument("--sft-steps", type=int, help="supervised updates, in place of the plan's")
    parser.add_argument("--tasks", type=int, help="only the first so many tasks of test")
    parser.add_argument("--processes", type=int, default=1, help="routers that are trained side by side")
    parser.add_argument("--work", type=Path, default=Path("runs/router_r1"), help="folder for models and parts")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    log, name = adopted(options.recording, options.work)
    for experiment in options.only:
        given = PLANS[experiment] if options.model == "tiny" else pretrained(PLANS[experiment])
        plan = smaller(given, options)
        work = options.work / "-".join([experiment, *([name] if name else []), *told_apart(options)])
        reference = references(plan, log, work / "references", options.tasks)
        shares = numeric.one_call_shares(plan, makes_env(plan, log), options.tasks)
        methods = (*plan.methods, numeric.NAME)
        jobs = [(START, 0), *((method, seed) for method in methods for seed in range(options.seeds))]
        todo = [job for job in jobs if not (work / part_name(*job) / "figures.json").is_file()]
        write = partial(write_results, options.out / work.name, experiment, plan, reference, shares=shares)
        # A fresh process for each, so that none finds the memory of a device full of what another left there.
        with ProcessPoolExecutor(options.processes, get_context("spawn"), max_tasks_per_child=1) as pool:
            if (START, 0) in todo:  # all others begin with it
                pool.submit(train, plan, START, 0, log, options.model, work).result()
            for part in as_completed(
                [pool.submit(train_and_play, plan, *job, log, options.model, work, options.tasks) for job in todo]
            ):
                part.result()
                write(finished_parts(work, jobs))
        write(finished_parts(work, jobs))


def told_apart(options: argparse.Namespace) -> list[str]:
    """What makes a run another than that of the plans: results and finished parts go by it."""
    model = [] if options.model == "tiny" else [Path(options.model).name]
    counts = {"steps": options.steps, "sft": options.sft_steps, "tasks": options.tasks}
    return [*model, *(f"{count}{what}" for what, count in counts.items() if count is not None)]


def adopted(recording: Path | None, work: Path) -> tuple[str | None, str]:
    """The log of a recording, and the name that it is filed under; None and "" for the built-in ones."""
    if recording is None:
        return None, ""
    from rlroute.importers import LOG, detect, import_log

    kind, target = detect(recording), work / "logs" / recording.name
    if kind == LOG:
        return str(recording), recording.name
    if not target.is_dir():
        import_log(kind, recording).save(target)
    return str(target), recording.name


def smaller(plan: Plan, options: argparse.Namespace) -> Plan:
    """The plan with other numbers of updates, where they are given."""
    methods = {m: {**given, **({"steps": options.steps} if options.steps else {})} for m, given in plan.methods.items()}
    warm = {**plan.warm, **({"steps": options.sft_steps} if options.sft_steps else {})}
    return replace(plan, methods=methods, warm=warm)


def environment(plan: Plan, log: str | None) -> dict[str, Any]:
    """Arguments of the environment that hold for training and evaluation."""
    return {} if log is None else {"log": log}


def part_name(method: str, seed: int) -> str:
    """The folder of one router, for its training and what came of it."""
    return f"{method}-{seed}".replace(" ", "-")


def train_and_play(
    plan: Plan, method: str, seed: int, log: str | None, model: str, work: Path, tasks: int | None
) -> None:
    """All that is done for one router."""
    part = work / part_name(method, seed)
    if method == numeric.NAME:
        play_numeric(plan, numeric.train(plan, seed, log, part), log, part, tasks)
    else:
        play(plan, train(plan, method, seed, log, model, work), log, part, tasks)


def train(plan: Plan, method: str, seed: int, log: str | None, model: str, work: Path) -> Path:
    """Train one router, or go on where it was stopped; returns its policy folder."""
    from rlroute.agents.trl import bopo, grpo, rloo, sft

    out = work / part_name(method, seed)
    if (out / "policy").is_dir():
        return out / "policy"
    knobs = dict(plan.warm if method == START else plan.methods[method])
    trained_on = {**plan.trained_on, **knobs.pop("trained_on", {})}
    shared = {
        "env": plan.text_env,
        "env_arguments": {**environment(plan, log), "split": "train", "prompt": plan.prompt, **trained_on},
        "out": str(out),
        "seed": seed,
        "resume": True,
        "quiet": True,
        "tensorboard": False,
        "checkpoint_every": 20,
        "eval_every": 0,
        **plan.shared,
    }
    if method == START:
        return sft.train(sft.SFTArguments(**{**shared, "model": model, **knobs}))
    given = {**shared, "model": str(work / part_name(START, 0) / "policy"), **knobs}
    if method == "BoPO":
        return bopo.train(bopo.BoPOArguments(**given))
    if method == "RLOO":
        return rloo.train(rloo.RLOOArguments(**given))
    return grpo.train(grpo.GRPOArguments(**given))


def play(plan: Plan, folder: Path, log: str | None, part: Path, tasks: int | None) -> None:
    """Play test at every setting and write what came of it."""
    from rlroute import load_policy
    from rlroute.agents.trl.evaluate import evaluate as play_router
    from rlroute.agents.trl.evaluate import figures, score_of, write_samples
    from rlroute.report import write_text

    policy = load_policy(folder, seed=0)
    scores, told = [], []
    for setting in plan.settings:
        given = {**environment(plan, log), **setting.arguments}
        rollouts = play_router(policy, "test", tasks, given, greedy=plan.greedy)
        scores.append(score_of(rollouts))
        told.append(figures(rollouts))
        write_samples(part / f"test-{setting.value:g}.md", rollouts, f"{folder}, {setting.name}")
    save_scores(part / "scores.npz", {"router": scores})
    card = {name: policy.card[name] for name in ("speed", "training", "model", "log")}
    card |= {"device": device_name(), "curve": curve(part / "metrics.jsonl")}
    write_text(part / "figures.json", json.dumps({"figures": told, **card}, indent=1) + "\n")


def device_name() -> str:
    """What models run on here."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "one thread of a CPU"


def curve(metrics: Path) -> dict[str, list[float]]:
    """Means of the episodes of every update; empty for supervised training."""
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    played = [line for line in lines if "episode/reward" in line]
    return {name: [line[f"episode/{name}"] for line in played] for name in CURVES} if played else {}


def play_numeric(plan: Plan, folder: Path, log: str | None, part: Path, tasks: int | None) -> None:
    """The same for a numeric router."""
    from rlroute import load_policy
    from rlroute.report import write_text

    scores, told = numeric.play(plan, load_policy(folder), makes_env(plan, log), tasks)
    save_scores(part / "scores.npz", {"router": scores})
    write_text(part / "figures.json", json.dumps(told, indent=1) + "\n")


def finished_parts(work: Path, jobs: Sequence[tuple[str, int]]) -> dict[tuple[str, int], tuple[list[Score], dict]]:
    """Of every job that is done, its scores by setting and its figures."""
    parts = {}
    for method, seed in jobs:
        part = work / part_name(method, seed)
        if (part / "figures.json").is_file():
            told = json.loads((part / "figures.json").read_text(encoding="utf-8"))
            scores = load_scores(part / "scores.npz")["router"]
            parts[method, seed] = [first(score, len(score.group)) for score in scores], told
    return parts


# ------------------------------------------------------------------------------------------------ references


def makes_env(plan: Plan, log: str | None) -> MakeEnv:
    """What makes the numeric environment of a plan on a split."""
    from rlroute.envs.contest import vector_env

    return lambda split, **given: vector_env(plan.env, split, **{**environment(plan, log), **given})


def references(plan: Plan, log: str | None, folder: Path, tasks: int | None) -> Evaluation:
    """Every reference, tuned on val, on the tasks of test that text routers play."""
    from importlib import import_module

    from rlroute.envs import entry
    from rlroute.policies import dynamics_of
    from rlroute.study import single_choices

    make_env = makes_env(plan, log)
    probe = make_env("test")
    log_name, c_ref, family = probe.dynamics.log.name, float(probe.dynamics.c_ref), probe.dynamics.family
    evaluation = Evaluation(family, log_name, "test", list(plan.settings), c_ref)
    if not (folder / "scores.npz").is_file():
        module = import_module(entry(plan.env).vector_entry_point.split(":")[0].rsplit(".", 1)[0] + ".references")
        env = make_env("train", **plan.settings[0].arguments)
        tuned = tune(make_env, plan.settings, module.references(env, **plan.references))
        singles = single_choices(make_env, plan.settings[0])
        found = evaluate(make_env, plan.settings, singles, "test", kind="single")
        found = evaluate(make_env, plan.settings, tuned, "test", into=found)
        save_scores(folder / "scores.npz", found.scores)
        (folder / "kinds.json").write_text(json.dumps(found.kinds, indent=1) + "\n", encoding="utf-8")
    kinds = json.loads((folder / "kinds.json").read_text(encoding="utf-8"))
    count = len(dynamics_of(probe).roots) if tasks is None else tasks
    for policy, scores in load_scores(folder / "scores.npz").items():
        evaluation.add(policy, kinds[policy], [first(score, count) for score in scores])
    return evaluation


def first(score: Score, count: int) -> Score:
    """The first episodes of a score, which are those of the first tasks; rewards are rounded."""
    given = {f.name: getattr(score, f.name) for f in fields(Score) if f.name != "extra"}
    given["reward"] = score.reward.round(DIGITS)
    kept: dict[str, Any] = {name: values[:count] for name, values in given.items() if values is not None}
    return Score(**kept)


def save_scores(path: Path, scores: Mapping[str, Sequence[Score]]) -> None:
    """Arrays of all scores in one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [f.name for f in fields(Score) if f.name != "extra"]
    arrays = {
        f"{policy}\t{i}\t{name}": getattr(score, name)
        for policy, listed in scores.items()
        for i, score in enumerate(listed)
        for name in names
        if getattr(score, name) is not None
    }
    partial = path.with_name(f".{path.name}")
    with partial.open("wb") as file:
        np.savez_compressed(file, **arrays)
    partial.replace(path)


def load_scores(path: Path) -> Scores:
    """What `save_scores` wrote."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            policy, i, name = key.split("\t")
            found.setdefault(policy, {}).setdefault(int(i), {})[name] = arrays[key]
    return {policy: [Score(**given[i]) for i in sorted(given)] for policy, given in found.items()}


if __name__ == "__main__":
    main()
