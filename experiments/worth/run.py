"""What is a trained router worth? Train over seeds and salts, compare on test with every reference and ceiling.

    python experiments/worth/run.py questions tasks      # the built-in logs
    python experiments/worth/run.py gym_exact …          # recordings under $RLROUTE_DATA, see runs.yaml

Writes ``results/NAME.json`` and ``results/NAME.md``. References are fitted on train and tuned on val once a salt; a
verdict pools the paired differences of all seeds and salts and bootstraps over test groups.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

HERE = Path(__file__).parent
TRAINED = "trained router"
LOGS = Path("runs/worth/logs")


def prepare(name: str, run: dict[str, Any]) -> list[tuple[str, int]]:
    """(log, salt) pairs of a run; recordings are imported, and tasks held out, on the way."""
    if "suite" in run:
        return [(run["suite"], salt) for salt in run["salts"]]
    from rlroute.log import load_log

    if "log" in run:
        _ = load_log(run["log"]).arrays  # generated and cached once, before processes ask for it
        return [(run["log"], salt) for salt in run["salts"]]
    from rlroute.importers import import_log

    if "RLROUTE_DATA" not in os.environ:
        raise SystemExit(f"{name} needs RLROUTE_DATA: the folder that holds the recording {run['recording']!r}")
    log = import_log(run["recording"], Path(os.environ["RLROUTE_DATA"]) / run["recording"], **run["options"])
    if "held_out" not in run:
        path = log.save(LOGS / f"{name}-{log.content_hash}")
        _ = load_log(str(path)).arrays
        return [(str(path), salt) for salt in run["salts"]]
    return [(str(hold_out(log, tasks).save(LOGS / f"{name}-{i}")), 0) for i, tasks in enumerate(run["held_out"])]


def hold_out(log: Any, tasks: Sequence[str]) -> Any:
    """The same log with all questions of `tasks` on test, and the rest split into train and val by their groups."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from rlroute.log import Log

    held = np.asarray(pc.is_in(log.states["task_name"], pa.array(list(tasks))).to_numpy(zero_copy_only=False), bool)
    split = np.where(held, "test", np.where(log.splits() == 1, "val", "train"))
    at = log.states.schema.get_field_index("split")
    states = log.states.set_column(at, "split", pa.array(split))
    return Log.from_tables(
        replace(log.card, name=f"{log.name} without {', '.join(tasks)}"), log.choices, states, log.responses
    )


Lessons = list[tuple[dict[str, Any], int]]  # (condition, place of the teacher that is best under it)


def choose(task: tuple[dict[str, Any], str, int, dict[str, Any]]) -> int:
    """The teacher of one salt under one condition; the same for all seeds."""
    run, log, salt, condition = task
    from rlroute.agents.rllib.cloning import choose_teacher

    arguments = {"log": log, "split_salt": salt, **run["arguments"], **condition}
    on_val = run.get("val_episodes", run["episodes"])
    return choose_teacher(run["env"], arguments, run["clone"]["of"], settings_of(run)[0], on_val)


def train_one(task: tuple[dict[str, Any], str, int, Lessons, int, str]) -> str:
    """Train one router, from a clone of a reference where the run says so; returns its policy folder."""
    run, log, salt, lessons, seed, out = task
    from rlroute.agents.rllib.ppo import PPOArguments, train

    arguments = {"log": log, "split_salt": salt, **run["arguments"], **run["ranges"]}
    knobs = dict(run["training"])
    if "clone" in run:
        from rlroute.agents.rllib.cloning import CloneArguments, clone_reference

        clone = dict(run["clone"])
        teacher, watched = clone.pop("of"), CloneArguments(seed=seed, **clone)
        first, path = settings_of(run)[0], Path(out) / "clone"
        knobs["start"] = str(
            clone_reference(run["env"], arguments, teacher, first, path, watched, knobs["num_envs"], lessons=lessons)
        )
    return str(train(f"rlroute:{run['env']}", arguments, out, PPOArguments(seed=seed, **knobs)))


def settings_of(run: dict[str, Any]) -> list[Any]:
    """What policies are compared at: weights, caps of calls, or prices of a model call."""
    from rlroute.evaluation import Setting

    return [
        *(Setting.weight(w) for w in run.get("weights", [])),
        *(Setting.calls(cap) for cap in run.get("caps", [])),
        *(Setting.model_cost(c) for c in run.get("model_costs", [])),
    ]


def compete(task: tuple[dict[str, Any], str, int, list[str], dict[str, Any]]) -> Any:
    """The study of one salt, under one condition, with the routers of all its seeds."""
    run, log, salt, policies, condition = task
    from rlroute.envs.contest import contest
    from rlroute.policy import load_policy

    trained = {f"{TRAINED}, seed {seed}": load_policy(path) for seed, path in enumerate(policies)}
    arguments = {"log": log, "split_salt": salt, **run["arguments"], **condition}
    settings, on_val = settings_of(run), run.get("val_episodes")
    return contest(run["env"], arguments, settings, trained, run["episodes"], val_episodes=on_val).without_policies()


def by_seed(study: Any, num_seeds: int) -> list[Any]:
    """The study's test evaluation once a seed, with that seed's router and the best mix at its cost."""
    from rlroute.frontier import best_mix_at_cost
    from rlroute.report import BEST_MIX

    parts = []
    for seed in range(num_seeds):
        kept = [n for n in study.test.scores if not n.startswith(TRAINED) and n != BEST_MIX]
        scores = {n: study.test.scores[n] for n in kept}
        scores[TRAINED] = study.test.scores[f"{TRAINED}, seed {seed}"]
        kinds = {**{n: study.test.kinds[n] for n in kept}, TRAINED: "trained"}
        part = replace(study.test, scores=scores, kinds=kinds, details=dict(study.test.details))
        if part.settings[0].kind == "weight":
            singles = [n for n, kind in kinds.items() if kind == "single"]
            best_mix_at_cost(study.val, part, singles, part.points(TRAINED)[0].tolist(), BEST_MIX)
        parts.append(part)
    return parts


def summarise(name: str, run: dict[str, Any], studies: list[Any], num_seeds: int, seconds: float) -> dict[str, Any]:
    """Everything the tables and the README quote, as plain data."""
    from rlroute.evaluation import compare, gap_closed

    evaluations = [part for study in studies for part in by_seed(study, num_seeds)]
    first = evaluations[0]
    floor = run.get("floor") or ("best single" if "best single" in first.scores else "random mix")
    summary: dict[str, Any] = {
        "name": name,
        "settings": [setting.name for setting in first.settings],
        "values": [setting.value for setting in first.settings],
        "seeds": num_seeds,
        "splits": len(studies),
        "test_groups": [len(np.unique(s.test.scores[floor][0].group)) for s in studies],
        "seconds": round(seconds),
        "policies": {},
        "against": {},
        "frontiers": {},
    }
    for policy in first.scores:
        reward = np.array([e.rewards(policy) for e in evaluations])
        cost_quality = np.array([e.points(policy) for e in evaluations])
        summary["policies"][policy] = {
            "kind": first.kinds[policy],
            "reward": reward.mean(axis=0).tolist(),
            "reward_sd": reward.std(axis=0, ddof=1).tolist() if len(reward) > 1 else None,
            "cost_usd": cost_quality[:, 0].mean(axis=0).tolist(),
            "quality": cost_quality[:, 1].mean(axis=0).tolist(),
        }
        if "outcome" in first.scores[policy][0].extra:
            summary["policies"][policy]["outcomes"] = outcome_rates(evaluations, policy)
        if first.scores[policy][0].violation is not None:
            rates = [[s.violation.mean() for s in e.scores[policy]] for e in evaluations]
            summary["policies"][policy]["violation_rate"] = np.mean(rates, axis=0).tolist()
        if first.kinds[policy] == "reference":
            verdicts = compare(evaluations, TRAINED, policy, by="quality" if policy == "best mix" else "reward")
            summary["against"][policy] = [
                {"verdict": v.verdict, "difference": v.difference, "low": v.low, "high": v.high} for v in verdicts
            ]
    if "latent-knowing" in first.scores:
        closed = np.array([gap_closed(e, TRAINED, floor, "latent-knowing") for e in evaluations])
        summary["share_of_gap_closed"] = {
            "from": floor,
            "mean": closed.mean(axis=0).tolist(),
            "by_seed": closed.tolist(),
        }
    rows: dict[str, list[list[float]]] = {}
    for study in studies:
        for f in study.frontiers:
            label = TRAINED if f.policy.startswith(TRAINED) else f.policy
            rows.setdefault(label, []).append([f.aiq, 100 * f.quality_gain, 100 * f.cost_to_match])
    for label, values in rows.items():
        table = np.array(values)
        with np.errstate(all="ignore"):
            summary["frontiers"][label] = {
                "aiq": [float(table[:, 0].mean()), float(table[:, 0].std())],
                "quality_gain_points": [float(table[:, 1].mean()), float(table[:, 1].std())],
                "cost_to_match_percent": float(np.nanmean(table[:, 2])) if np.isfinite(table[:, 2]).any() else None,
                "matched": f"{int(np.isfinite(table[:, 2]).sum())} of {len(table)}",
            }
    return summary


def outcome_rates(evaluations: list[Any], policy: str) -> dict[str, list[float]]:
    """Of a tool graph: how often each end came, and harms and model calls an episode, at every setting."""
    from rlroute.envs.tool_graph.suites import STATES

    rates: dict[str, list[float]] = {}
    for i in range(len(evaluations[0].settings)):
        extra = [e.scores[policy][i].extra for e in evaluations]
        for k, name in enumerate(STATES):
            if name != "start":
                rates.setdefault(name, []).append(float(np.mean([(x["outcome"] == k).mean() for x in extra])))
        for name in ("repeated_effects", "risk_breaches", "model_calls"):
            rates.setdefault(name, []).append(float(np.mean([x[name].mean() for x in extra])))
    return rates


def as_markdown(summary: dict[str, Any]) -> str:
    """The tables of one run."""
    from rlroute.report import table

    settings = summary["settings"]
    parts = [
        f"## {summary['name']}",
        f"{summary['seeds']} seeds × {summary['splits']} splits, test groups {summary['test_groups']}, "
        f"{summary['seconds']} s.",
    ]
    rows = []
    for name, policy in summary["policies"].items():
        spread = policy["reward_sd"] or [0.0] * len(settings)
        rows.append([name, *(f"{r:.3f} ± {s:.3f}" for r, s in zip(policy["reward"], spread, strict=True))])
    parts += [
        "Mean reward ± its standard deviation over seeds and splits:",
        table(["policy", *settings], rows),
    ]
    mark = {"beats": "**beats**", "loses": "loses", "tie": "tie"}
    rows = [
        [
            name,
            *(f"{mark[c['verdict']]} {c['difference']:+.3f} [{c['low']:+.3f}, {c['high']:+.3f}]" for c in cells),
        ]
        for name, cells in summary["against"].items()
    ]
    parts += [
        "The trained router against each reference (best mix: quality at equal cost):",
        table(["against", *settings], rows),
    ]
    parts += outcome_tables(summary)
    if "share_of_gap_closed" in summary:
        closed = summary["share_of_gap_closed"]
        shares = ", ".join(f"{s}: {100 * x:.0f} %" for s, x in zip(settings, closed["mean"], strict=True))
        parts.append(f"Share of the gap from {closed['from']} to latent-knowing closed: {shares}.")
    if summary["frontiers"]:
        rows = [
            [
                name,
                f"{f['aiq'][0]:.3f} ± {f['aiq'][1]:.3f}",
                f"{f['quality_gain_points'][0]:+.1f} ± {f['quality_gain_points'][1]:.1f}",
                f"{f['cost_to_match_percent']:.0f} % ({f['matched']})"
                if f["cost_to_match_percent"] is not None
                else "–",
            ]
            for name, f in summary["frontiers"].items()
        ]
        parts += [
            "Frontiers:",
            table(["frontier", "AIQ (paper)", "ΔQ at c*, points", "cost to reach q*"], rows),
        ]
    return "\n\n".join(parts) + "\n"


def outcome_tables(summary: dict[str, Any]) -> list[str]:
    """One table a setting of how episodes ended, for tool graphs."""
    from rlroute.report import table

    ended = {name: policy["outcomes"] for name, policy in summary["policies"].items() if "outcomes" in policy}
    if not ended:
        return []
    columns = list(next(iter(ended.values())))
    parts = ["How episodes ended, and harms and model calls an episode:"]
    for i, setting in enumerate(summary["settings"]):
        rows = [[name, *(f"{rates[column][i]:.3f}" for column in columns)] for name, rates in ended.items()]
        parts.append(table([setting, *(column.replace("_", " ") for column in columns)], rows))
    return parts


def main() -> None:
    runs = yaml.safe_load((HERE / "runs.yaml").read_text())
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="+", choices=list(runs))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--trainers", type=int, help="routers trained at a time; default: a process each")
    parser.add_argument("--steps", type=int, help="training steps instead of those of runs.yaml")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    from rlroute.report import write_text

    context = multiprocessing.get_context("spawn")
    for name in options.names:
        began, run = time.perf_counter(), runs[name]
        if options.steps:
            run["training"]["total_steps"] = options.steps
        pairs = prepare(name, run)
        conditions: dict[str, dict[str, Any]] = run.get("conditions", {"": {}})
        with (
            tempfile.TemporaryDirectory() as folder,
            ProcessPoolExecutor(options.processes, mp_context=context) as pool,
            ProcessPoolExecutor(options.trainers or options.processes, mp_context=context) as trainers,
        ):
            lessons: list[Lessons] = [[] for _ in pairs]
            if "clone" in run:
                asked = [(run, log, salt, condition) for log, salt in pairs for condition in conditions.values()]
                places = iter(pool.map(choose, asked))
                lessons = [[(condition, next(places)) for condition in conditions.values()] for _ in pairs]
                print(f"{name}: teachers chosen, {time.perf_counter() - began:.0f} s", flush=True)
            tasks = [
                (run, log, salt, lessons[i], seed, f"{folder}/{i}-{seed}")
                for i, (log, salt) in enumerate(pairs)
                for seed in range(options.seeds)
            ]
            policies = list(trainers.map(train_one, tasks))
            print(f"{name}: {len(policies)} routers trained, {time.perf_counter() - began:.0f} s", flush=True)
            chosen = [policies[i * options.seeds : (i + 1) * options.seeds] for i in range(len(pairs))]
            jobs = [
                (run, log, salt, part, condition)
                for condition in conditions.values()
                for (log, salt), part in zip(pairs, chosen, strict=True)
            ]
            competed = pool.map(compete, jobs)
            for label in conditions:
                studies = [next(competed) for _ in pairs]
                title = f"{name}_{label}" if label else name
                summary = summarise(title, run, studies, options.seeds, time.perf_counter() - began)
                write_text(options.out / f"{title}.json", json.dumps(summary, indent=1) + "\n")
                write_text(options.out / f"{title}.md", as_markdown(summary))
                print(as_markdown(summary), flush=True)


if __name__ == "__main__":
    main()
