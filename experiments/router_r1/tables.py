"""Results of the text routers as JSON, as a page of Markdown and as a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from plans import Plan

from rlroute.evaluation import Evaluation, Score, compare
from rlroute.metrics import Comparison
from rlroute.plots import plot_frontier
from rlroute.report import table, write_metrics, write_text

Parts = Mapping[tuple[str, int], tuple[list[Score], dict[str, Any]]]  # (algorithm, seed) → scores, figures
TOLD = ("reward", "quality", "calls", "expensive_calls", "cost_usd", "router_cost_usd", "top_share", "faulty")
SPEED = (
    "seconds_a_step", "sampled_tokens_per_s", "peak_memory_gb", "peak_device_memory_gb", "rollout_share",
    "environment_share",
)  # fmt: skip
CURVES = ("reward", "quality", "calls")  # of the episodes of an update


def write_results(
    target: Path, name: str, plan: Plan, reference: Evaluation, parts: Parts, shares: Sequence[float] = ()
) -> None:
    """Write ``target.json``, ``.md`` and ``.png``, and ``target-curve.png`` where the curves were kept.

    `shares` are those of the most used choice in `numeric.one_call_shares`, one a setting or none.
    """
    methods = list(dict.fromkeys(method for method, _ in parts))
    seeds = {method: sorted(seed for given, seed in parts if given == method) for method in methods}
    played = {
        method: [with_router(reference, method, parts[method, seed][0]) for seed in seeds[method]] for method in methods
    }
    told = {method: [parts[method, seed][1] for seed in seeds[method]] for method in methods}
    pooled = replace(reference, scores=dict(reference.scores), kinds=dict(reference.kinds))
    for method in methods:
        pooled.add(
            method,
            "trained",
            [pool([parts[method, s][0][i] for s in seeds[method]]) for i in range(len(plan.settings))],
        )
    verdicts = {method: against(reference, played, method) for method in methods}
    extra = {
        "experiment": name,
        "environment": plan.text_env,
        "seeds": seeds,
        "plan": {"trained_on": dict(plan.trained_on), "methods": dict(plan.methods), "warm": dict(plan.warm)},
        "figures": told,
        "one_call_shares": list(shares),
        "verdicts": {m: {r: [vars(c) for c in listed] for r, listed in given.items()} for m, given in verdicts.items()},
    }
    write_metrics(target.with_suffix(".json"), [pooled], extra)
    write_text(target.with_suffix(".md"), page(plan, pooled, seeds, told, verdicts, shares))
    data = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
    plot_frontier(data["results"], target.with_suffix(".png"))
    curves = {method: [one["curve"] for one in listed] for method, listed in told.items() if listed[0].get("curve")}
    if curves:
        plot_curves(curves, target.with_name(f"{target.name}-curve.png"))


def plot_curves(curves: Mapping[str, list[dict[str, list[float]]]], path: Path) -> None:
    """A PNG with a panel for each of `CURVES`: a thin line a seed, a thick one for their mean."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(CURVES), figsize=(4.6 * len(CURVES), 3.6))
    for axis, name in zip(axes, CURVES, strict=True):
        for i, (method, listed) in enumerate(curves.items()):
            for one in listed:
                axis.plot(np.arange(1, len(one[name]) + 1), one[name], color=f"C{i}", alpha=0.35, linewidth=0.8)
            length = min(len(one[name]) for one in listed)
            mean = np.mean([one[name][:length] for one in listed], axis=0)
            axis.plot(np.arange(1, length + 1), mean, color=f"C{i}", linewidth=2, label=method)
        terms = ", each at its own weights" if name == "reward" else ""
        axis.set(title=f"{name} of training episodes{terms}", xlabel="update")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, linewidth=0.6)
    axes[0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def with_router(reference: Evaluation, name: str, scores: list[Score]) -> Evaluation:
    """The references and one router beside them."""
    evaluation = replace(reference, scores=dict(reference.scores), kinds=dict(reference.kinds))
    evaluation.add(name, "trained", scores)
    return evaluation


def pool(scores: list[Score]) -> Score:
    """The episodes of all seeds as one score."""
    names = [name for name in vars(scores[0]) if name != "extra" and getattr(scores[0], name) is not None]
    columns: dict[str, Any] = {name: np.concatenate([getattr(score, name) for score in scores]) for name in names}
    return Score(**columns)


def against(reference: Evaluation, played: Mapping[str, list[Evaluation]], method: str) -> dict[str, list[Comparison]]:
    """Verdicts of one algorithm, over all its seeds, against references and the other algorithms."""
    rivals = [name for name, kind in reference.kinds.items() if kind != "single"]
    verdicts = {rival: compare(played[method], method, rival) for rival in rivals}
    for other, evaluations in played.items():
        if other == method:
            continue
        pairs = []  # seed by seed; a start that all seeds share is met by each of them
        for i, own in enumerate(played[method]):
            theirs = evaluations[min(i, len(evaluations) - 1)]
            pairs.append(with_router(own, other, theirs.scores[other]))
        verdicts[other] = compare(pairs, method, other)
    return verdicts


def page(
    plan: Plan,
    pooled: Evaluation,
    seeds: Mapping[str, list[int]],
    told: Mapping[str, list[dict[str, Any]]],
    verdicts: Mapping[str, Mapping[str, list[Comparison]]],
    shares: Sequence[float],
) -> str:
    """The page of Markdown."""
    family = pooled.family.split("/")[-1]
    groups = len(np.unique(pooled.scores[next(iter(told))][0].group))
    written = [one for listed in told.values() for one in listed if "model" in one]  # by text routers
    size = f"{written[0]['model']['kind']}, {written[0]['model']['parameters']:,} parameters" if written else "none yet"
    device = written[0].get("device", "one thread of a shared CPU") if written else "no device yet"
    done = ", ".join(f"{method} {len(listed)}" for method, listed in seeds.items())
    parts = [
        f"# {family} over texts, log `{pooled.log}`, test",
        f"Model: {size}. Seeds done: {done}. {groups} groups of test "
        f"tasks; text routers are played {'greedily' if plan.greedy else 'by drawn tokens'}, and all hear the draws "
        "that the references heard. All text routers go on from one supervised start; numeric PPO is trained from none "
        "and played greedily. Means over seeds and tasks.",
        "## Routers",
        table(["router", "setting", *TOLD], list(router_rows(plan, told))),
        *one_call(plan, shares),
        "## Against the references",
        "Mean paired difference in reward over groups and seeds with its 95 % bootstrap interval; a tie where that "
        "holds 0. Every reference is tuned on val at each setting, those of ThinkRoute among a short list of knobs. "
        "The tokens that routers write are not charged.",
    ]
    for method, given in verdicts.items():
        rows = [[rival, *(cell(c) for c in listed)] for rival, listed in given.items()]
        parts.append(table([f"{method} against", *(s.name for s in plan.settings)], rows))
    rows = [[name, *(f"{x:.3f}" for x in pooled.rewards(name))] for name in pooled.scores]
    parts += ["## Reward of all", table(["policy", *(s.name for s in plan.settings)], rows)]
    rows = [
        [method, str(seed), *(f"{one['speed'].get(key, 0):.3g}" for key in SPEED)]
        for method, listed in told.items()
        for seed, one in zip(seeds[method], listed, strict=True)
        if "speed" in one
    ]
    parts += [
        "## Speed",
        f"On {device}. `environment_share` is the share of the whole training time that environments, "
        "parsing and tokenising of replies take; evaluations are left out of it. Of SFT, only evaluations sample.",
        table(["algorithm", "seed", *SPEED], rows),
    ]
    return "\n\n".join(parts) + "\n"


def one_call(plan: Plan, shares: Sequence[float]) -> list[str]:
    """How uneven calls would have to be."""
    if not shares:
        return []
    told = ", ".join(f"{share:.2f} at {s.name}" for share, s in zip(shares, plan.settings, strict=True))
    return [
        "Were every question asked once of what is worth most on it, the most used choice would have a share of "
        f"{told}."
    ]


def router_rows(plan: Plan, told: Mapping[str, list[dict[str, Any]]]) -> Any:
    """One row an algorithm and setting: means over seeds, and of the reward the deviation too."""
    for method, listed in told.items():
        for i, setting in enumerate(plan.settings):
            values = {key: [one["figures"][i][key] for one in listed] for key in TOLD}
            cells = [f"{np.mean(values[key]):.3g}" for key in TOLD]
            if len(listed) > 1:
                cells[0] += f" ± {np.std(values['reward'], ddof=1):.2g}"
            yield [method, setting.name, *cells]


def cell(comparison: Comparison) -> str:
    """A verdict in a table."""
    return f"{comparison.verdict} {comparison.difference:+.3f} [{comparison.low:+.3f}, {comparison.high:+.3f}]"
