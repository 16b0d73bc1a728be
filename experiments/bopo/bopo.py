"""BoPO on BudgetRoute: success against expensive calls, under hard caps and under soft preferences.

    python experiments/bopo/bopo.py

Three seeds each of PPO, GRPO, RLOO, BoPO, and BoPO without data synthesis (no supervised start), without the anchored
advantage (GRPO's instead) and without the difficulty bonus; every one trained once, over a range of caps and of
preferences. On test each is compared at caps of 2, 3 and 4 expensive calls, and at soft preferences, with
always-small, First-Large, random mixes, the first k large, a per-step rule, and the ceilings. Which preference a policy
is shown under a cap, and every knob of a reference, is chosen on val. Writes ``results/bopo.json``, ``.md`` and
``frontier.png``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from curves import (
    CAPS,
    ENV,
    LOG,
    REFERENCES,
    SOFT,
    TRAINED_ON,
    Curve,
    clairvoyant_success,
    expensive,
    mean,
    reference_curves,
    trained_curves,
)

from rlroute.evaluation import Score

HERE = Path(__file__).parent
BOPO, CEILING, MIX = "BoPO", "latent-knowing", "random mix"
ABLATIONS: dict[str, dict[str, Any]] = {
    "BoPO without data synthesis": {"synthesis": False},
    "BoPO without anchors": {"anchors": False},
    "BoPO without bonus": {"bonus": 0.0},
}
METHODS = ("PPO", "GRPO", "RLOO", BOPO, *ABLATIONS)
STEPS = 5_000_000
PPO_KNOBS: dict[str, Any] = {"num_envs": 1024, "minibatch": 8192, "learning_rate": 0.002}
GROUP_KNOBS: dict[str, Any] = {
    "num_envs": 1024,
    "group_size": 8,
    "minibatch": 2048,
    "learning_rate": 0.003,
    "entropy": 0.0,
}
SOFT_PREFERENCES = ("0.05", "0.4", "0.9")  # of those played, the ones tabulated
Curves = dict[int, Curve]  # by cap


def train_one(task: tuple[str, int, str, int]) -> str:
    """Train one router; returns its policy folder."""
    method, seed, out, steps = task
    from rlroute.agents.rllib import bopo, grpo, ppo, rloo
    from rlroute.agents.rllib.cluster import start_ray

    start_ray()  # once a process: training leaves one that runs alone
    common: dict[str, Any] = {"seed": seed, "total_steps": steps}
    env_id, arguments = f"rlroute:{ENV}", {"log": LOG, **TRAINED_ON}
    if method == "PPO":
        return str(ppo.train(env_id, arguments, out, ppo.PPOArguments(**common, **PPO_KNOBS)))
    if method == "GRPO":
        return str(grpo.train(env_id, arguments, out, grpo.GRPOArguments(**common, **GROUP_KNOBS)))
    if method == "RLOO":
        return str(rloo.train(env_id, arguments, out, rloo.RLOOArguments(**common, **GROUP_KNOBS)))
    knobs = {**common, **GROUP_KNOBS, **ABLATIONS.get(method, {})}
    return str(bopo.train(env_id, arguments, out, bopo.BoPOArguments(**knobs)))


# -- one policy under one condition -------------------------------------------------------------------------------


def figures(curves: Sequence[Curve], points: Sequence[int]) -> dict[str, Any]:
    """Of one point a seed, what it did on test: means, most with their standard deviation over seeds."""
    scores = [curve.test[point] for curve, point in zip(curves, points, strict=True)]
    shares = [float(expensive(s).sum() / all_calls(s)) for s in scores]
    return {
        "success": spread([mean(s.quality, s) for s in scores]),
        "calls": spread([mean(expensive(s), s) for s in scores]),
        "cost_usd": spread([mean(s.cost_usd, s) for s in scores]),
        "violation_rate": violations(scores),
        "most_used_choice": spread([max(p, 1 - p) for p in shares]),
        "entropy_bits": spread([entropy(p) for p in shares]),
        "shown": [curve.knobs[point] for curve, point in zip(curves, points, strict=True)],
    }


def all_calls(score: Score) -> float:
    """Calls of both choices, over all episodes."""
    assert score.calls is not None, "scores of rollouts count calls"
    return float(score.calls.sum())


def violations(scores: Sequence[Score]) -> float:
    """The largest share of episodes over their cap."""
    return max(0.0 if s.violation is None else float(s.violation.mean()) for s in scores)


def entropy(p: float) -> float:
    """Of two choices, in bits."""
    parts = np.array([p, 1 - p])
    return float(-(parts * np.log2(np.maximum(parts, 1e-300))).sum())


def spread(values: Sequence[float]) -> list[float]:
    """Mean and standard deviation over seeds."""
    return [float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0]


def success_of(curve: Curve, point: int) -> tuple[np.ndarray, np.ndarray]:
    """Groups of test and the success in each."""
    from rlroute.metrics import group_means

    return group_means(curve.test[point].quality, curve.test[point].group)


def gap_closed(curves: Sequence[Curve], points: Sequence[int], mixes: Curve, ceiling: Curve) -> list[float] | None:
    """Share of the gap between random mix and the ceiling, both where they make as many calls; None without calls."""
    shares = []
    for curve, point in zip(curves, points, strict=True):
        score = curve.test[point]
        calls = mean(expensive(score), score)
        low, high = mixes.at(calls)[0].mean(), ceiling.at(calls)[0].mean()
        if high - low < 1e-9:
            return None
        shares.append(float((mean(score.quality, score) - low) / (high - low)))
    return spread(shares)


def verdict(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], groups: np.ndarray) -> dict[str, Any]:
    """Of paired success (groups,) a seed: who beats whom over all seeds."""
    from rlroute.metrics import beats

    said = beats(np.concatenate(ours), np.concatenate(theirs), np.tile(groups, len(ours)))
    return {"verdict": said.verdict, "difference": said.difference, "low": said.low, "high": said.high}


# -- the whole comparison -----------------------------------------------------------------------------------------


def under_caps(
    trained: Mapping[str, list[Curves]], references: Mapping[str, Curves], clairvoyant: Mapping[int, float]
) -> dict[str, Any]:
    """At every cap: each policy at the point that val chose; verdicts at the same cap; gaps at the same calls."""
    result: dict[str, Any] = {}
    for cap in CAPS:
        rows, played = {}, {}
        for name, seeds in {**{n: [c] for n, c in references.items()}, **trained}.items():
            curves = [seed[cap] for seed in seeds]
            points = [curve.chosen for curve in curves]
            rows[name] = figures(curves, points)
            rows[name]["gap_closed"] = gap_closed(curves, points, references[MIX][cap], references[CEILING][cap])
            played[name] = [success_of(curve, point) for curve, point in zip(curves, points, strict=True)]
        groups, count = played[BOPO][0][0], len(played[BOPO])
        ours = [success for _, success in played[BOPO]]
        against = {
            name: verdict(ours, [s for _, s in of] * (count // len(of)), groups)
            for name, of in played.items()
            if name not in (BOPO, CEILING)
        }
        result[str(cap)] = {"policies": rows, "against": against, "clairvoyant": clairvoyant[cap]}
    return result


def at_preferences(trained: Mapping[str, list[Curves]], references: Mapping[str, Curves]) -> dict[str, Any]:
    """At every soft preference shown to BoPO: all others' success where they make as many calls as it does."""
    mixes, ceiling = references[MIX][SOFT], references[CEILING][SOFT]
    result: dict[str, Any] = {}
    for preference in SOFT_PREFERENCES:
        rows = {}
        for name, seeds in trained.items():
            curves = [seed[SOFT] for seed in seeds]
            points = [curve.knobs.index(preference) for curve in curves]
            rows[name] = figures(curves, points) | {"gap_closed": gap_closed(curves, points, mixes, ceiling)}
        curves = [seed[SOFT] for seed in trained[BOPO]]
        point = curves[0].knobs.index(preference)
        calls = [mean(expensive(c.test[point]), c.test[point]) for c in curves]
        groups, ours = success_of(curves[0], point)[0], [success_of(c, point)[1] for c in curves]
        against = {}
        for name, seeds in {**{n: [c] * len(curves) for n, c in references.items()}, **trained}.items():
            if name != BOPO:
                theirs = [seed[SOFT].at(c) for seed, c in zip(seeds, calls, strict=True)]
                against[name] = verdict(ours, [success for success, _ in theirs], groups) | {
                    "success": float(np.mean([success.mean() for success, _ in theirs])),
                    "calls": [float(np.mean(calls)), float(np.mean([made for _, made in theirs]))],  # ours, its own
                }
        result[preference] = {"policies": rows, "against": against}
    return result


def points_of(curves: Curves) -> dict[str, list[list[float]]]:
    """(calls, success) on test along every curve."""
    return {str(cap): [[mean(expensive(s), s), mean(s.quality, s)] for s in c.test] for cap, c in curves.items()}


# -- tables -------------------------------------------------------------------------------------------------------


def as_markdown(results: dict[str, Any]) -> str:
    """All tables."""
    from rlroute.report import table

    def pm(pair: Sequence[float] | None, digits: int = 3, scale: float = 1.0) -> str:
        return "–" if pair is None else f"{scale * pair[0]:.{digits}f} ± {scale * pair[1]:.{digits}f}"

    def said(cell: Mapping[str, Any]) -> str:
        text = f"{cell['verdict']} {cell['difference']:+.3f} [{cell['low']:+.3f}, {cell['high']:+.3f}]"
        ours, theirs = cell.get("calls", (0.0, 0.0))
        return text if abs(ours - theirs) < 0.05 else f"{text}, {ours:.2f} calls against {theirs:.2f}"

    header = [
        "policy",
        "success",
        "expensive calls",
        "USD",
        "gap closed, %",
        "most used choice",
        "entropy, bits",
        "knob",
    ]

    def lines(rows: Mapping[str, Any]) -> list[list[str]]:
        return [
            [
                name,
                pm(r["success"]),
                pm(r["calls"], 2),
                f"{r['cost_usd'][0]:.4f}",
                pm(r["gap_closed"], 0, 100),
                f"{r['most_used_choice'][0]:.2f}",
                f"{r['entropy_bits'][0]:.2f}",
                ", ".join(r["shown"]),
            ]
            for name, r in rows.items()
        ]

    parts = [
        f"# BoPO\n\nTest, {results['test_groups']} groups, {results['seeds']} seeds of {results['steps']:,} decisions, "
        f"{results['seconds']} s. Gap closed: from random mix to latent-knowing, both at as many expensive calls. "
        f"Largest violation rate of all policies at all points: {results['violation_rate']:g}."
    ]
    for cap, part in results["caps"].items():
        parts += [
            f"## Cap of {cap} expensive calls\n\nWho knows the draws succeeds in {part['clairvoyant']:.3f}.",
            table(header, lines(part["policies"])),
        ]
    verdicts = {name: [part["against"][name] for part in results["caps"].values()] for name in part["against"]}
    parts += [
        "## BoPO less each other policy at the same cap",
        table(
            ["against", *(f"cap {cap}" for cap in results["caps"])], [[n, *map(said, c)] for n, c in verdicts.items()]
        ),
    ]
    for preference, part in results["soft"].items():
        parts += [f"## Soft preference λ = {preference}", table(header, lines(part["policies"]))]
    verdicts = {name: [part["against"][name] for part in results["soft"].values()] for name in part["against"]}
    parts += [
        "## BoPO less each other policy where it makes as many calls, at soft preferences",
        table(["against", *(f"λ = {w}" for w in results["soft"])], [[n, *map(said, c)] for n, c in verdicts.items()]),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    from frontiers import draw
    from rich.progress import track

    from rlroute.envs.budget_route.boundary import boundary_runs
    from rlroute.report import write_text

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STEPS, help="decisions that each router is trained on")
    parser.add_argument("--episodes", type=int, default=16, help="of each task of test; half as many on val")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    began = time.perf_counter()
    boundary_runs({"log": LOG, **TRAINED_ON})  # recorded and cached once, before processes ask for them
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(options.processes, mp_context=context) as pool:
        names = (*REFERENCES, CEILING)
        competed = pool.map(reference_curves, names, repeat(options.episodes))
        tasks = [
            (m, seed, f"{folder}/{i}-{seed}", options.steps)
            for i, m in enumerate(METHODS)
            for seed in range(options.seeds)
        ]
        folders = list(track(pool.map(train_one, tasks), total=len(tasks), description="train"))
        print(f"trained after {time.perf_counter() - began:.0f} s", flush=True)
        curves = list(
            track(
                pool.map(trained_curves, folders, repeat(options.episodes)), total=len(folders), description="evaluate"
            )
        )
        references = dict(zip(names, competed, strict=True))
    trained = {m: curves[i * options.seeds : (i + 1) * options.seeds] for i, m in enumerate(METHODS)}
    everyone = [*references.values(), *(seed for seeds in trained.values() for seed in seeds)]
    results: dict[str, Any] = {
        "environment": ENV,
        "log": LOG,
        "trained_on": TRAINED_ON,
        "seeds": options.seeds,
        "steps": options.steps,
        "test_groups": len(success_of(references[MIX][SOFT], 0)[0]),
        "violation_rate": violations([s for one in everyone for c in one.values() for s in (*c.val, *c.test)]),
        "caps": under_caps(trained, references, clairvoyant_success(options.episodes)),
        "soft": at_preferences(trained, references),
        "curves": {
            "references": {name: points_of(c) for name, c in references.items()},
            "trained": {name: [points_of(c) for c in seeds] for name, seeds in trained.items()},
        },
    }
    results["seconds"] = round(time.perf_counter() - began)
    write_text(options.out / "bopo.json", json.dumps(results, indent=1) + "\n")
    write_text(options.out / "bopo.md", as_markdown(results))
    draw(results, options.out / "frontier.png")
    print(as_markdown(results))


if __name__ == "__main__":
    main()
