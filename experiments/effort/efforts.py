"""How much thought can be saved? Routers of reasoning effort against always low, mid and high, on the log `efforts`.

    python experiments/effort/efforts.py

Three seeds each of: PPO with reward `linear`, conditioned on the cost weight; PPO with reward `ares`; and a clone of
the label oracle (supervised, on labels of the train split). For the conditioned router the weight is chosen on val: the
one of fewest reasoning tokens among those within one point of all-high's success. On test each is compared with the
hull of mixes of always low, mid and high at equal completion tokens, failed episodes included. Writes
``results/efforts.md``, ``.json`` and ``frontier.png``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
ENV = "rlroute/EffortRoute-v0"
WEIGHTS = (0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2)
METHODS = ("linear", "ares", "labels")
POINT = 0.01  # of success that may be lost on val
TRAINING = {"total_steps": 3_000_000, "num_envs": 1024, "minibatch": 8192, "learning_rate": 0.002}
EPISODES = 8


@dataclass(frozen=True)
class Played:
    """One policy on one split: an array a quantity, one number an episode."""

    group: np.ndarray
    success: np.ndarray
    completion_tokens: np.ndarray
    reasoning_tokens: np.ndarray
    cost_usd: np.ndarray


def train_one(task: tuple[str, int, str, dict[str, Any]]) -> str:
    """Train one router; returns its policy folder."""
    method, seed, out, training = task
    if method == "labels":
        from rlroute.agents.rllib.cloning import CloneArguments, clone
        from rlroute.envs.contest import vector_env
        from rlroute.envs.effort_route.references import label_oracle

        env = vector_env(ENV, "train", 512, autoreset="same_step")
        return str(
            clone(env, label_oracle(env.dynamics, "ares"), Path(out) / "policy", CloneArguments(steps=200, seed=seed))
        )
    from rlroute.agents.rllib.ppo import PPOArguments, train

    arguments = {"reward": "ares"} if method == "ares" else {"preference": (WEIGHTS[0], WEIGHTS[-1])}
    return str(train(f"rlroute:{ENV}", arguments, out, PPOArguments(seed=seed, **training)))


def play(policy: Any, split: str, prompt_cache: bool, **arguments: Any) -> Played:
    """Every task of a split `EPISODES` times; val and test meet different draws."""
    from rlroute.envs.contest import vector_env
    from rlroute.rollout import rollout

    env = vector_env(ENV, split, prompt_cache=prompt_cache, **arguments)
    played = rollout(env, policy, env.dynamics.roots, EPISODES, seed=1 if split == "val" else 0)
    return Played(played.group, played.success.astype(float), played.extra["completion_tokens"].astype(float),
                  played.extra["reasoning_tokens"].astype(float), played.cost_usd)  # fmt: skip


def mean(values: np.ndarray, played: Played) -> float:
    """Mean over groups."""
    from rlroute.metrics import group_means

    return float(group_means(values, played.group)[1].mean())


def choose(curve: list[Played], high: Played) -> int:
    """On val: of the points within one point of all-high's success, the one of fewest reasoning tokens."""
    success = np.array([mean(p.success, p) for p in curve])
    tokens = np.array([mean(p.reasoning_tokens, p) for p in curve])
    near = success >= mean(high.success, high) - POINT
    return int(np.argmin(np.where(near, tokens, np.inf))) if near.any() else int(success.argmax())


def against_hull(routers: list[Played], singles_val: list[Played], singles: list[Played]) -> dict[str, Any]:
    """Success of the routers less that of the mix of levels at equal completion tokens, over groups and seeds."""
    from rlroute.metrics import beats, group_means
    from rlroute.policies import mix_weights

    tokens_val = [mean(p.completion_tokens, p) for p in singles_val]
    success_val = [mean(p.success, p) for p in singles_val]
    left, right, groups = [], [], []
    for router in routers:
        # Vertices are chosen on val; the mix spends on test what the router spends there.
        on_val = mix_weights(tokens_val, success_val, mean(router.completion_tokens, router))
        names, ours = group_means(router.success, router.group)
        theirs = sum(w * group_means(p.success, p.group)[1] for w, p in zip(on_val, singles, strict=True))
        left.append(ours)
        right.append(np.asarray(theirs))
        groups.append(names)
    verdict = beats(np.concatenate(left), np.concatenate(right), np.concatenate(groups))
    return {"verdict": verdict.verdict, "difference": verdict.difference, "low": verdict.low, "high": verdict.high}


def spread(values: list[float]) -> list[float]:
    """Mean and standard deviation over seeds."""
    return [float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0]


def compare(policies: dict[str, list[str]], prompt_cache: bool) -> dict[str, Any]:
    """All methods on val and test, with or without the providers' prompt caches."""
    from rlroute.envs.contest import vector_env
    from rlroute.envs.effort_route.references import RandomLevel, label_oracle
    from rlroute.policies import AlwaysChoice
    from rlroute.policy import load_policy

    dynamics = vector_env(ENV, "val", 1).dynamics
    order = dynamics.by_effort.tolist()
    levels = [AlwaysChoice(c, f"all {dynamics.pool.names[c]}") for c in order]
    val, test = ([play(p, split, prompt_cache) for p in levels] for split in ("val", "test"))
    high = test[-1]
    rows: dict[str, Any] = {}

    def row(played: list[Played]) -> dict[str, Any]:
        saved = [1 - mean(p.reasoning_tokens, p) / mean(high.reasoning_tokens, high) for p in played]
        return {
            "success": spread([mean(p.success, p) for p in played]),
            "completion_tokens": spread([mean(p.completion_tokens, p) for p in played]),
            "reasoning_tokens": spread([mean(p.reasoning_tokens, p) for p in played]),
            "reasoning_saved": spread(saved),
            "cost_usd": spread([mean(p.cost_usd, p) for p in played]),
        }

    for level, alone in zip(levels, test, strict=True):
        rows[level.name] = row([alone])
    rows["random level"] = row([play(RandomLevel(np.full(len(order), 1 / len(order)), "r"), "test", prompt_cache)])
    for kind in ("value", "ares"):
        rows[f"label oracle ({kind}, privileged)"] = row([play(label_oracle(dynamics, kind), "test", prompt_cache)])
    curves: dict[str, list[list[tuple[float, float]]]] = {}
    for method, folders in policies.items():
        played: list[Played] = []
        chosen, points = [], []
        for folder in folders:
            policy = load_policy(folder)
            settings = [{"preference": w} for w in WEIGHTS] if method == "linear" else [{}]
            best = choose([play(policy, "val", prompt_cache, **s) for s in settings], val[-1])
            on_test = [play(policy, "test", prompt_cache, **s) for s in settings]
            played.append(on_test[best])
            chosen.append(settings[best].get("preference"))
            points.append([(mean(p.completion_tokens, p), mean(p.success, p)) for p in on_test])
        rows[method] = {**row(played), "weights": chosen, "against_hull": against_hull(played, val, test)}
        curves[method] = points
    return {"rows": rows, "curves": curves, "test_groups": len(np.unique(high.group))}


def as_markdown(results: dict[str, Any]) -> str:
    """Both tables."""
    from rlroute.report import table

    parts = [f"# Reasoning effort\n\n{results['seeds']} seeds, {results['seconds']} s."]
    for title, part in (("with prompt cache", results["cached"]), ("every prompt at full price", results["uncached"])):
        lines = []
        for name, r in part["rows"].items():
            hull = r.get("against_hull")
            said = (
                f"{hull['verdict']} {hull['difference']:+.3f} [{hull['low']:+.3f}, {hull['high']:+.3f}]" if hull else ""
            )
            lines.append(
                [
                    name + (f" (w = {', '.join(f'{w:g}' for w in r['weights'])})" if name == "linear" else ""),
                    f"{r['success'][0]:.3f} ± {r['success'][1]:.3f}",
                    f"{r['completion_tokens'][0]:.0f}",
                    f"{r['reasoning_tokens'][0]:.0f}",
                    f"{100 * r['reasoning_saved'][0]:.1f} ± {100 * r['reasoning_saved'][1]:.1f} %",
                    f"{r['cost_usd'][0]:.4f}",
                    said,
                ]
            )
        header = [
            "policy",
            "success",
            "completion tokens",
            "reasoning tokens",
            "reasoning saved",
            "USD",
            "against the hull",
        ]
        parts += [f"Test, {part['test_groups']} groups, {title}:", table(header, lines)]
    return "\n\n".join(parts) + "\n"


def draw(results: dict[str, Any], path: Path) -> None:
    """Success against completion tokens."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    part = results["cached"]
    figure, axis = plt.subplots(figsize=(7.6, 4.6))
    singles = [(n, r) for n, r in part["rows"].items() if n.startswith("all ")]
    x, y = ([r[key][0] for _, r in singles] for key in ("completion_tokens", "success"))
    axis.plot(x, y, "-o", color="#9a9a9a", label="mixes of always low, mid, high", zorder=3)
    for (name, _), a, b in zip(singles, x, y, strict=True):
        axis.annotate(name, (a, b), xytext=(4, -11), textcoords="offset points", fontsize=8, color="#555")
    for name, marker in (("random level", "x"), ("label oracle (value, privileged)", "*")):
        r = part["rows"][name]
        axis.plot(r["completion_tokens"][0], r["success"][0], marker, color="#444", ms=8, label=name)
    for method, colour in (("linear", "#c1121f"), ("ares", "#1f77b4"), ("labels", "#2ca02c")):
        for seed, points in enumerate(part["curves"].get(method, [])):
            a, b = zip(*points, strict=True)
            axis.plot(a, b, "-o", ms=4, lw=1.2, color=colour, alpha=0.75, label=method if not seed else None)
    axis.set_xlabel("completion tokens a task, failures included")
    axis.set_ylabel("success")
    axis.set_title("EffortRoute on efforts (test): routers of three seeds")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25, linewidth=0.6)
    axis.legend(fontsize=8, frameon=False, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main() -> None:
    from rich.progress import track

    from rlroute.log import load_log
    from rlroute.report import write_text

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=TRAINING["total_steps"], help="training steps of each PPO run")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    began = time.perf_counter()
    _ = load_log("efforts").arrays  # generated and cached once, before processes ask for it
    training = {**TRAINING, "total_steps": options.steps}
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(options.processes, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        tasks = [(m, seed, f"{folder}/{m}-{seed}", training) for m in METHODS for seed in range(options.seeds)]
        folders = list(track(pool.map(train_one, tasks), total=len(tasks), description="train"))
        policies = {m: folders[i * options.seeds : (i + 1) * options.seeds] for i, m in enumerate(METHODS)}
        parts = list(track(pool.map(compare, [policies] * 2, [True, False]), total=2, description="evaluate"))
    results: dict[str, Any] = {"seeds": options.seeds, "seconds": round(time.perf_counter() - began)}
    results |= {"cached": parts[0], "uncached": parts[1]}
    write_text(options.out / "efforts.json", json.dumps(results, indent=1) + "\n")
    write_text(options.out / "efforts.md", as_markdown(results))
    draw(results, options.out / "frontier.png")
    print(as_markdown(results))


if __name__ == "__main__":
    main()
