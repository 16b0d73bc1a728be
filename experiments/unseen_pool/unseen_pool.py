"""What is lost by never having trained with some of the pool? Newcomers known by k probe queries, on `questions`.

    python experiments/unseen_pool/unseen_pool.py

For every hold-out set and seed, policy B is trained without the newcomers and then meets them, known by their price
list and by 10, 30 or 100 probe queries each, without being trained again; once with all known choices in every
training episode, and once with a random few of them ("varied"). On the same tasks of test it is compared with
policy A, trained on the whole pool; with itself without the newcomers; with kNN, the best single choice and the best
mix of single choices, all of which know the whole pool. Weights are those of the whole pool: B is given the weight at
which a dollar is worth as much. Quality lost is that of the mix of A's own points at B's cost less B's; A's points are
chosen on val. Writes ``results/unseen_pool.json``, ``.md`` and ``.png``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
ENV = "rlroute/ThinkRoute-v0"
LOG = "questions"
HOLD_OUTS: tuple[tuple[str, ...], ...] = (
    ("gemma-2-27b",),
    ("mistral-7b", "mixtral-8x22b"),
    ("qwen-2.5-7b", "llama-3.1-70b"),
)
PROBES = (10, 30, 100)
WEIGHTS = (0.03, 0.1, 0.2, 0.5, 1.0)
CURVE = (0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4)  # weights whose points A may mix
PREFERENCE = (0.02, 1.5)
BONUSES = (-np.inf, -0.1, 0.0, 0.1, np.inf)  # of thinking, for kNN
KINDS = ("B", "B varied")
LEAST_POOL = 2  # choices in a training episode of "B varied", at the least
A, KNN, SINGLE, MIX = "A, whole pool", "kNN single shot", "best single", "best mix"
WITHOUT = "without newcomers"
A_AT_COST = "A at B's cost"


class Watched:
    """A policy, and how often it called each choice."""

    def __init__(self, policy: Any) -> None:
        self.policy, self.name = policy, policy.name

    def begin(self, env: Any) -> None:
        self.policy.begin(env)
        self.dynamics = env.dynamics
        self.calls = np.zeros(env.dynamics.pool.size)

    def act(self, observation: Any, action_mask: Any) -> Any:
        action, d = self.policy.act(observation, action_mask), self.dynamics
        first_call, first_accept = d.layout.action("call", 0), d.layout.action("accept", 0)
        called = action[d.active & (action >= first_call) & (action < first_accept)] - first_call
        self.calls += np.bincount(called, minlength=len(self.calls))
        return action


def title(held: tuple[str, ...]) -> str:
    return " and ".join(held) or "whole pool"


def train_one(task: tuple[str, str, int, str, int]) -> str:
    """Train one policy on a log, unless that was done before; returns its folder."""
    from rlroute.agents.rllib.ppo import PPOArguments, train
    from rlroute.log import load_log

    kind, log, seed, out, steps = task
    if (done := Path(out) / "policy").is_dir():
        return str(done)
    arguments: dict[str, Any] = {"log": log, "preference": PREFERENCE}
    if kind == "B varied":
        arguments["pool_size"] = (LEAST_POOL, load_log(log).arrays.num_choices)
    return str(train(f"rlroute:{ENV}", arguments, out, PPOArguments(seed=seed, total_steps=steps)))


def play(policy: Any, split: str, weights: Any, episodes: int, **arguments: Any) -> tuple[list[Any], list[list[float]]]:
    """Scores of a policy at each weight, and the share of its calls that went to each choice."""
    from rlroute.envs.contest import vector_env
    from rlroute.evaluation import Score
    from rlroute.rollout import rollout

    scores, shares = [], []
    for weight in weights:
        env = vector_env(ENV, split, **{"log": LOG, "preference": weight, **arguments})
        watched = Watched(policy)
        scores.append(Score.of(rollout(env, watched, env.dynamics.roots, episodes, seed=1 if split == "val" else 0)))
        shares.append((watched.calls / max(watched.calls.sum(), 1)).tolist())
    return scores, shares


def priced(score: Any, weight: float, c_ref: float) -> Any:
    """The score with the reward that it is worth at a weight."""
    return replace(score, reward=score.quality - weight * score.cost_usd / c_ref)


def references(episodes: int) -> tuple[Any, Any, list[str]]:
    """Evaluations on val and test of single choices and, tuned on val, of kNN and the best single choice."""
    from rlroute.envs.contest import vector_env
    from rlroute.envs.think_route.experience import Experience
    from rlroute.envs.think_route.references import SingleShot
    from rlroute.evaluation import Setting, evaluate, tune
    from rlroute.policies import Policy
    from rlroute.study import single_choices

    def make_env(split: str, **given: Any) -> Any:
        return vector_env(ENV, split, log=LOG, **given)

    settings = [Setting.weight(w) for w in WEIGHTS]
    experience = Experience.of(make_env("train").dynamics)
    singles = single_choices(make_env, settings[0])
    candidates: dict[str, list[Policy]] = {
        KNN: [SingleShot(experience, "knn", b) for b in BONUSES],
        SINGLE: list(singles.values()),
    }
    tuned = tune(make_env, settings, candidates, episodes)
    val = evaluate(make_env, settings, singles, "val", episodes, 1, "single")
    test = evaluate(make_env, settings, singles, "test", episodes, 0, "single")
    return val, evaluate(make_env, settings, tuned, "test", episodes, 0, "reference", test), list(singles)


def curves(policy: Any, episodes: int, c_ref: float, val: Any, test: Any) -> None:
    """Add A's point at every weight of `CURVE`, each as a policy that is the same at all settings."""
    for split, evaluation in (("val", val), ("test", test)):
        for weight, score in zip(CURVE, play(policy, split, CURVE, episodes)[0], strict=True):
            evaluation.add(f"A at {weight:g}", "trained", [priced(score, w, c_ref) for w in WEIGHTS])


def compete(task: tuple[tuple[str, ...], int, str, dict[str, str], Any, int]) -> dict[str, Any]:
    """One seed: evaluations on test with A and each kind of B, without newcomers and after probes; and call shares."""
    from rlroute.evaluation import Evaluation
    from rlroute.features import log_features
    from rlroute.frontier import best_mix_at_cost
    from rlroute.log import load_log
    from rlroute.policy import load_policy

    held, seed, less, folders, (val, test, singles), episodes = task
    c_ref = log_features(load_log(LOG)).reference.cost_usd
    unit = log_features(load_log(less)).reference.cost_usd / c_ref
    a = load_policy(folders["A"])
    curves(a, episodes, c_ref, val, test)
    scores, shares = {}, {}
    scores[A], shares[A] = play(a, "test", WEIGHTS, episodes)
    weights = [w * unit for w in WEIGHTS]
    for kind in KINDS:
        b, name = load_policy(folders[kind]), f"{kind} {WITHOUT}"
        scores[name], shares[name] = play(b, "test", weights, episodes, log=less)
        for k in PROBES:
            name = f"{kind}, {k} probes"
            scores[name], shares[name] = play(b, "test", weights, episodes, newcomers=held, probes=k, probe_seed=seed)
    # Groups are numbered by each log for itself; the smaller log keeps all questions, in their order.
    assert all(np.array_equal(score[0].group, scores[A][0].group) for score in scores.values())
    out: dict[str, Any] = {"shares": shares, "evaluations": {}}
    for name, played in scores.items():
        part = Evaluation(ENV, LOG, "test", test.settings, c_ref, dict(test.scores), dict(test.kinds))
        part.add(name, "trained", [priced(s, w, c_ref) for s, w in zip(played, WEIGHTS, strict=True)])
        part.add(A, "trained", [priced(s, w, c_ref) for s, w in zip(scores[A], WEIGHTS, strict=True)])
        costs = part.points(name)[0].tolist()
        best_mix_at_cost(val, part, [f"A at {w:g}" for w in CURVE], costs, A_AT_COST)
        best_mix_at_cost(val, part, singles, costs, MIX)
        out["evaluations"][name] = part
    return out


def worth_of_newcomers(less: str) -> list[float]:
    """What the newcomers add to the latent-knowing ceiling at every weight: how much they are worth to the best."""
    from rlroute.envs.contest import vector_env
    from rlroute.envs.think_route.ceilings import latent_knowing

    values = []
    dynamics = vector_env(ENV, "test", log=LOG).dynamics
    for log in (LOG, less):
        here = vector_env(ENV, "test", log=log).dynamics
        ceiling = latent_knowing(here.log, here.roots, np.array(WEIGHTS), dynamics.c_ref)
        values.append(ceiling.value.mean(axis=1))
    return (values[0] - values[1]).tolist()


def summarise(held: tuple[str, ...], parts: list[dict[str, Any]], less: str) -> dict[str, Any]:
    """Everything the tables quote of one hold-out set, as plain data."""
    from rlroute.evaluation import compare
    from rlroute.log import load_log

    names = load_log(LOG).arrays.choice_names
    new = [names.index(name) for name in held]
    summary: dict[str, Any] = {"newcomers": list(held), "weights": list(WEIGHTS), "policies": {}, "against": {}}
    summary["worth_to_the_optimum"] = worth_of_newcomers(less)
    for name in parts[0]["evaluations"]:
        evaluations = [part["evaluations"][name] for part in parts]
        summary["policies"][name] = figures(name, evaluations)
        if WITHOUT not in name:
            share = np.array([np.array(part["shares"][name])[:, new].sum(axis=1) for part in parts])
            summary["policies"][name]["share_of_calls_to_newcomers"] = share.mean(axis=0).tolist()
        rows = {}
        for rival, by in ((A_AT_COST, "quality"), (A, "reward"), (KNN, "reward"), (SINGLE, "reward"), (MIX, "quality")):
            if name != A or rival not in (A, A_AT_COST):
                verdicts = compare(evaluations, name, rival, by)
                rows[rival] = [[v.verdict, v.difference, v.low, v.high] for v in verdicts]
        summary["against"][name] = rows
    for rival in (KNN, SINGLE):
        summary["policies"][rival] = figures(rival, [part["evaluations"][A] for part in parts])
    return summary


def figures(name: str, evaluations: list[Any]) -> dict[str, Any]:
    """Mean and standard deviation over seeds of quality, cost and reward, at every weight."""
    points = np.array([[*e.points(name), e.rewards(name)] for e in evaluations])  # (seeds, 3, weights)
    out = {}
    for i, quantity in enumerate(("cost_usd", "quality", "reward")):
        out[quantity] = points[:, i].mean(axis=0).tolist()
        out[f"{quantity}_sd"] = points[:, i].std(axis=0, ddof=1).tolist() if len(points) > 1 else [0.0] * len(WEIGHTS)
    return out


def as_markdown(summary: dict[str, Any]) -> str:
    """The tables of all hold-out sets."""
    from rlroute.report import table

    columns = [f"w = {w:g}" for w in WEIGHTS]
    parts = ["# A pool never seen", f"{summary['seeds']} seeds, {summary['steps']:,} steps each, test; "
             f"{summary['seconds']} s.", "Quality lost, in points, against policy A at equal cost:"]  # fmt: skip
    lost = [
        [title(tuple(s["newcomers"])), name, *(points_lost(row) for row in rivals[A_AT_COST])]
        for s in summary["hold_outs"]
        for name, rivals in s["against"].items()
        if A_AT_COST in rivals
    ]
    parts.append(table(["newcomers", "policy", *columns], lost))
    for s in summary["hold_outs"]:
        parts.append(f"## Newcomers: {title(tuple(s['newcomers']))}")
        for quantity in ("reward", "quality"):
            rows = [
                [name, *(f"{m:.3f} ± {d:.3f}" for m, d in zip(p[quantity], p[f"{quantity}_sd"], strict=True))]
                for name, p in s["policies"].items()
            ]
            parts += [f"Mean {quantity} ± standard deviation over seeds:", table(["policy", *columns], rows)]
        rows = [
            [name, rival, *(f"{d:+.3f} [{low:+.3f}, {high:+.3f}] {verdict}" for verdict, d, low, high in row)]
            for name, rivals in s["against"].items()
            for rival, row in rivals.items()
        ]
        parts += [
            f"Differences by reward ({A_AT_COST} and {MIX}: quality at equal cost):",
            table(["policy", "less", *columns], rows),
        ]
        rows = [
            [name, *(f"{share:.0%}" for share in p["share_of_calls_to_newcomers"])]
            for name, p in s["policies"].items()
            if "share_of_calls_to_newcomers" in p
        ]
        parts += ["Share of calls to newcomers:", table(["policy", *columns], rows)]
        rows = [["latent-knowing optimum", *(f"{worth:+.3f}" for worth in s["worth_to_the_optimum"])]]
        for kind in KINDS:
            floor = np.array(s["policies"][f"{kind} {WITHOUT}"]["reward"])
            rows += [
                [name, *(f"{gain:+.3f}" for gain in np.array(p["reward"]) - floor)]
                for name, p in s["policies"].items()
                if name.startswith(f"{kind}, ")
            ]
        parts += ["What the newcomers add to the reward:", table(["policy", *columns], rows)]
    return "\n\n".join(parts) + "\n"


def points_lost(row: list[Any]) -> str:
    """A difference in quality (policy less A) as points lost."""
    _, difference, low, high = row
    return f"{-100 * difference:+.1f} [{-100 * high:+.1f}, {-100 * low:+.1f}]"


def plot(summary: dict[str, Any], path: Path) -> None:
    """Cost against quality, a panel a hold-out set."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sets = summary["hold_outs"]
    figure, axes = plt.subplots(1, len(sets), figsize=(5.4 * len(sets), 4.4), squeeze=False, sharey=True)
    for axis, s in zip(axes[0], sets, strict=True):
        for name, p in s["policies"].items():
            style = "--" if name in (KNN, SINGLE) else "-"
            axis.errorbar(1e3 * np.array(p["cost_usd"]), p["quality"], yerr=p["quality_sd"], fmt=f"o{style}",
                          markersize=4, capsize=2, label=name)  # fmt: skip
        axis.set_title(f"newcomers: {title(tuple(s['newcomers']))}", fontsize=10)
        axis.set_xlabel("USD per 1,000 questions")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, linewidth=0.6)
    axes[0][0].set_ylabel("quality")
    axes[0][-1].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600_000, help="decisions that each policy is trained on")
    parser.add_argument("--episodes", type=int, default=4, help="of each task of val and test")
    parser.add_argument("--sets", type=int, default=len(HOLD_OUTS), help="how many of the hold-out sets")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--work", type=Path, default=Path("runs/unseen_pool"), help="policies and smaller logs, kept for the next run"
    )
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()

    from rlroute.log import load_log

    began = time.perf_counter()
    hold_outs, seeds = HOLD_OUTS[: options.sets], range(options.seeds)
    log = load_log(LOG)
    logs = {held: str(log.without(held).save(options.work / "logs" / "-".join(held))) for held in hold_outs}
    logs[()] = LOG
    for path in logs.values():
        _ = load_log(path).arrays  # built and cached once, before processes ask for it
    runs = [(kind, held, seed) for held in hold_outs for kind in KINDS for seed in seeds]
    runs += [("A", (), seed) for seed in seeds]
    tasks = [
        (
            kind,
            logs[held],
            seed,
            str(options.work / f"policies-{options.steps}" / "-".join((kind, *held, str(seed)))),
            options.steps,
        )
        for kind, held, seed in runs
    ]
    with ProcessPoolExecutor(options.processes, multiprocessing.get_context("spawn")) as pool:
        policies = dict(zip(runs, pool.map(train_one, tasks), strict=True))
        others = references(options.episodes)
        tasks_of_sets = [
            (
                held,
                seed,
                logs[held],
                {"A": policies["A", (), seed], **{kind: policies[kind, held, seed] for kind in KINDS}},
                others,
                options.episodes,
            )
            for held in hold_outs
            for seed in seeds
        ]
        parts = list(pool.map(compete, tasks_of_sets))
    summary = {
        "seeds": options.seeds,
        "steps": options.steps,
        "hold_outs": [
            summarise(held, parts[i * options.seeds : (i + 1) * options.seeds], logs[held])
            for i, held in enumerate(hold_outs)
        ],
        "seconds": round(time.perf_counter() - began),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "unseen_pool.json").write_text(json.dumps(summary, indent=1))
    text = as_markdown(summary)
    (options.out / "unseen_pool.md").write_text(text)
    plot(summary, options.out / "unseen_pool.png")
    print(text)


if __name__ == "__main__":
    main()
