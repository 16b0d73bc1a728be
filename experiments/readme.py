"""Fills the marked blocks of README.md from the registry and from the committed results; ``--check`` only compares.

python experiments/readme.py
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlroute.envs import REGISTRY
from rlroute.report import table

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "experiments" / "worth" / "results"
FULL = {
    "questions": "Built-in questions (ThinkRoute)",
    "tasks": "Built-in agent tasks (BudgetRoute)",
}
BRIEF = {
    "tasks_no_cache": "agent tasks, every prompt at full price",
    "gym_exact": "seven checkable reasoning-gym tasks, exact verdicts",
    "gym_flipped": "the same, 10 % of the verdicts flipped",
    "gym_hidden": "the same, verdicts hidden",
    "gym_no_hidden": "the same, exact, hidden thinking tokens not billed",
    "gym_held_out": "the same, exact, tasks of test never seen",
    "routeprofile": "RouteProfile without code and trivia, no verdicts",
}
SUITES = {"tools_small": "small graphs", "tools": "8–40 tools", "ultratool": "UltraTool"}
SIGNS = {"beats": "+", "tie": "=", "loses": "−"}
REGIMES = ("independent", "noisy", "late", "correlated", "transient", "wrong")
RIVALS = (
    "best single",
    "knn single shot",
    "ensemble single shot",
    "cascade with checker",
    "learned sequential",
    "per-step rule",
)


def environments() -> str:
    """The registry as a table."""
    rows = [[f"`{row.id}`", f"`{row.text_id}`", row.summary] for row in REGISTRY]
    return table(["over numbers", "over texts", "what a step decides"], rows)


def worth() -> str:
    """Two runs in full, the others at a glance."""
    parts = [_run(title, _summary(name)) for name, title in FULL.items()]
    rows = []
    for name, title in BRIEF.items():
        against = _summary(name)["against"]
        signs = ["".join(map(_word, against[rival])) if rival in against else "" for rival in RIVALS]
        rows.append([title, *signs])
    parts.append(
        "Elsewhere, one sign a weight (0.01, 0.03, 0.1, 0.3, 1) or cap, 3 seeds × 3 splits (agent tasks: one split); "
        "full tables in [experiments/worth/results](experiments/worth/results):"
    )
    parts.append(table(["recording", *RIVALS], rows))
    return "\n\n".join(parts)


def _summary(name: str) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return summary


def _run(title: str, summary: dict[str, Any]) -> str:
    settings = summary["settings"]
    trained = summary["policies"]["trained router"]
    spread = trained["reward_sd"] or [0.0] * len(settings)
    rows = [
        [
            "**trained router**",
            *(f"**{r:.3f}** ± {s:.3f}" for r, s in zip(trained["reward"], spread, strict=True)),
        ]
    ]
    for name, cells in summary["against"].items():
        if name == "best mix":
            rows.append(["best mix, quality at equal cost", *(f"{c['difference']:+.3f} {_word(c)}" for c in cells)])
            continue
        rewards = summary["policies"][name]["reward"]
        rows.append([name, *(f"{r:.3f} {_word(c)}" for r, c in zip(rewards, cells, strict=True))])
    if "latent-knowing" in summary["policies"]:
        rows.append(
            [
                "*latent-knowing ceiling*",
                *(f"{r:.3f}" for r in summary["policies"]["latent-knowing"]["reward"]),
            ]
        )
    head = (
        f"**{title}**: mean reward on test, {summary['seeds']} seeds × {summary['splits']} "
        f"split{'s' if summary['splits'] > 1 else ''}; + the router beats it, = tie, − it beats the router."
    )
    lines = [head, table(["policy", *settings], rows)]
    if "share_of_gap_closed" in summary:
        closed = summary["share_of_gap_closed"]
        shares = ", ".join(f"{100 * x:.0f} %" for x in closed["mean"])
        lines.append(f"Share of the gap from {closed['from']} to the latent-knowing ceiling closed: {shares}.")
    return "\n\n".join(lines)


def _word(cell: dict[str, Any]) -> str:
    return SIGNS[cell["verdict"]]


def agent_loop() -> str:
    """What experiments/agent_loop.py printed, from its committed output."""
    data = _summary("agent_loop")
    rows = [
        [
            r["policy"],
            f"{r['success']:.2f}",
            f"{r['cost_usd']:.4f}",
            f"{r['expensive_calls']:.1f}",
            str(r["over_budget"]),
        ]
        for r in data["rows"]
    ]
    head = f"One seed, {data['tasks']} test tasks, at most {data['budget_calls']} calls of the expensive model each:"
    return f"{head}\n\n{table(['policy', 'success', 'USD a task', 'expensive calls', 'over budget'], rows)}"


def healing() -> str:
    """How the scenarios of Self-Healing Router end, from the committed output."""
    data = json.loads((ROOT / "experiments" / "healing" / "results" / "healing.json").read_text())
    total = data["code"][-1]
    head = (
        f"By the rules of its code the healing router makes {total['model_calls']} model calls and {total['reroutes']} "
        f"reroutes, ReAct {total['react_calls']} model calls, and a static workflow fails unnoticed in "
        f"{total['static'].split()[0]} scenarios, as published. Played in ToolGraph:"
    )
    columns = ("policy", "goal", "demoted", "escalated", "silent", "repeated_effects", "model_calls", "utility")
    rows = [[str(row[column]) for column in columns] for row in data["honest"]["healing-19"]]
    return f"{head}\n\n{table([column.replace('_', ' ') for column in columns], rows)}"


def tools() -> str:
    """The trained router less the healing router, by kind of fault; how much of what can be gained, it gains."""
    columns = []
    for suite in SUITES:
        cells = []
        for regime in REGIMES:
            summary = _summary(f"{suite}_{regime}")
            differences = summary["against"]["healing router"]
            cells.append(" ".join(f"{d['difference']:+.3f}{_word(d)}" for d in differences))
        columns.append(cells)
    shares = []
    for regime in REGIMES:
        closed = _summary(f"{next(iter(SUITES))}_{regime}").get("share_of_gap_closed")
        shares.append(", ".join(f"{100 * x:.0f} %" for x in closed["mean"]) if closed else "–")
    summary = _summary(f"{next(iter(SUITES))}_{REGIMES[0]}")
    values = ", ".join(f"{value:g}" for value in summary["values"])
    head = (
        "Utility of the trained router less that of the healing router tuned for the kind of fault and the price of a "
        f"model call (three figures: {values}), {summary['seeds']} seeds, graphs of test never seen; + it beats the "
        "healing router, = tie, − it loses. Last column: share closed of the gap from the healing router to the "
        "latent-knowing ceiling, on small graphs, where it can be computed:"
    )
    rows = [list(row) for row in zip(REGIMES, *columns, shares, strict=True)]
    return f"{head}\n\n{table(['faults', *SUITES.values(), 'gap closed'], rows)}"


def effort() -> str:
    """What reasoning can be saved, from the committed output."""
    data = json.loads((ROOT / "experiments" / "effort" / "results" / "efforts.json").read_text())
    part = data["cached"]
    titles = {"linear": "PPO, weight chosen on val", "ares": "PPO, reward `ares`", "labels": "supervised on labels"}
    rows = []
    for name, row in part["rows"].items():
        hull = row.get("against_hull")
        success, saved = row["success"], row["reasoning_saved"]
        seeds = name in titles
        rows.append(
            [
                titles.get(name, name),
                f"{success[0]:.3f}" + (f" ± {success[1]:.3f}" if seeds else ""),
                f"{row['completion_tokens'][0]:,.0f}",
                f"{100 * saved[0]:.0f} %" + (f" ± {100 * saved[1]:.0f}" if seeds else ""),
                f"{hull['difference']:+.3f} {_word(hull)}" if hull else "",
            ]
        )
    head = (
        f"Test, {part['test_groups']} tasks, {data['seeds']} seeds; the last column is success against the best mix of "
        "levels at the same tokens, failures included:"
    )
    columns = ["policy", "success", "completion tokens a task", "reasoning saved", "against mixes"]
    return f"{head}\n\n{table(columns, rows)}"


def speed() -> str:
    """Steps and decisions a second as ratios, from the committed outputs of the two benchmarks."""
    folder = ROOT / "experiments" / "benchmarks" / "results"
    stepped = json.loads((folder / "environments.json").read_text())["families"]
    columns = ["N = 1024", "N = 64", 'N = 1024, obs="index"', "gym.make"]
    rows = [[f"`{env_id}`", *(f"{row[column]:.1f} ×" for column in columns)] for env_id, row in stepped.items()]
    learned = json.loads((folder / "learning.json").read_text())
    ratios = learned["ratios"]
    trained = [[name, *(f"{ratios[env_id][name]:.1f} ×" for env_id in ratios)] for name in next(iter(ratios.values()))]
    return "\n\n".join(
        [
            "Steps a second in multiples of `SyncVectorEnv` of 64 CartPoles "
            "(`python experiments/benchmarks/environments.py`):",
            table(["environment", *columns], rows),
            "Decisions a second of training, the same network and hyper-parameters "
            f"(`python experiments/benchmarks/learning.py`, layers of {learned['arguments']['hidden']}):",
            table(["ratio", *(f"`{env_id}`" for env_id in ratios)], trained),
        ]
    )


def bopo() -> str:
    """BoPO against its rivals at each cap, from the committed output."""
    data = json.loads((ROOT / "experiments" / "bopo" / "results" / "bopo.json").read_text())
    caps = data["caps"]
    names = list(next(iter(caps.values()))["policies"])
    rows = []
    for name in names:
        cells = []
        for part in caps.values():
            row, said = part["policies"][name], part["against"].get(name)
            cells.append(f"{row['success'][0]:.3f} @ {row['calls'][0]:.2f}" + (f" {_word(said)}" if said else ""))
        rows.append([f"**{name}**" if name == "BoPO" else name, *cells])
    closed = ", ".join(f"{100 * part['policies']['BoPO']['gap_closed'][0]:.0f} %" for part in caps.values())
    head = (
        f"Success @ expensive calls on test, {data['seeds']} seeds of {data['steps']:,} decisions; + BoPO beats it, "
        f"= tie, − it beats BoPO. Largest violation rate: {data['violation_rate']:g}. Share of the gap from random mix "
        f"to latent-knowing at equal calls that BoPO closes: {closed}."
    )
    return f"{head}\n\n{table(['policy', *(f'cap {cap}' for cap in caps)], rows)}"


def unseen() -> str:
    """What a pool met for the first time costs, from the committed output."""
    data = json.loads((ROOT / "experiments" / "unseen_pool" / "results" / "unseen_pool.json").read_text())
    rows = []
    for part in data["hold_outs"]:
        for name, rivals in part["against"].items():
            if "A at B's cost" in rivals and name in ("B without newcomers", "B, 30 probes", "B, 100 probes"):
                lost = (f"{-100 * d:+.1f} {SIGNS[verdict]}" for verdict, d, _, _ in rivals["A at B's cost"])
                rows.append([", ".join(part["newcomers"]), name, *lost])
    weights = [f"w = {w:g}" for w in data["hold_outs"][0]["weights"]]
    head = (
        "Points of quality lost at equal cost against a policy trained with the whole pool, "
        f"{data['seeds']} seeds; = within the interval:"
    )
    return f"{head}\n\n{table(['newcomers', 'policy', *weights], rows)}"


def text_routers() -> str:
    """Language models on the built-in questions, from the committed output."""
    best = "GRPO at 0.01"
    rivals = ("best single", "best per task", "knn single shot", "learned sequential")

    def cell(m: dict[str, float]) -> str:
        return f"{m['reward']:.3f} ({m['quality']:.2f}, {m['calls']:.1f}, {100 * m['top_share']:.0f} %)"

    data, rows = _text_results("think", best, rivals, cell)
    share = 100 * max(data["one_call_shares"])
    head = (
        f"{_text_head(data)} on {data['results'][0]['groups']} test questions: reward (exact match, calls a question, "
        f"share of the most used model; {share:.0f} % if each were asked once of the best at it). RLOO and GRPO go on "
        f"from the supervised start, over all weights or at one alone. + {best} beats it, = tie, − it beats {best}:"
    )
    return f"{head}\n\n{rows}"


def text_budget() -> str:
    """Language models on the built-in agent tasks, from the committed output."""
    best = "GRPO"
    rivals = ("always small", "First-Large", "random mix", "per-step rule")
    data, rows = _text_results("budget_rule", best, rivals, lambda m: f"{m['reward']:.3f} ({m['expensive_calls']:.1f})")
    head = (
        f"{_text_head(data)} on {data['results'][0]['groups']} test tasks: reward (expensive calls a task). BoPO and "
        f"GRPO go on from a start that was shown the per-step rule. + {best} beats it, = tie, − it beats {best}:"
    )
    return f"{head}\n\n{rows}"


def _text_head(data: dict[str, Any]) -> str:
    """Who played: how large, and how many seeds of each."""
    parameters = next(listed[0]["model"]["parameters"] for listed in data["figures"].values() if "model" in listed[0])
    seeds = ", ".join(f"{name} {len(listed)}" for name, listed in data["seeds"].items())
    return f"Text routers of {parameters:,} parameters and numeric PPO (seeds: {seeds})"


def _text_results(
    name: str, best: str, rivals: tuple[str, ...], cell: Callable[[dict[str, float]], str]
) -> tuple[dict[str, Any], str]:
    """What an experiment on text routers wrote, and as a table: means over seeds, and verdicts of the `best`."""
    data = json.loads((ROOT / "experiments" / "router_r1" / "results" / f"{name}.json").read_text())
    settings = list(dict.fromkeys(row["setting"] for row in data["results"]))
    rewards = {(row["policy"], row["setting"]): row["reward"] for row in data["results"]}
    against = data["verdicts"][best]
    cells = {rival: [f"{rewards[rival, setting]:.3f}" for setting in settings] for rival in rivals}
    routers = {}
    for router, listed in data["figures"].items():
        means = [
            {key: sum(seed["figures"][i][key] for seed in listed) / len(listed) for key in listed[0]["figures"][i]}
            for i in range(len(settings))
        ]
        routers[router] = [cell(mean) for mean in means]
    rows = []
    for router, texts in {**routers, **cells}.items():
        label = f"**{router}**" if router in routers else router
        signs = [f" {_word(verdict)}" for verdict in against[router]] if router in against else [""] * len(texts)
        rows.append([label, *(text + sign for text, sign in zip(texts, signs, strict=True))])
    return data, table(["policy", *settings], rows)


BLOCKS = {
    "environments": environments,
    "healing": healing,
    "tools": tools,
    "effort": effort,
    "speed": speed,
    "bopo": bopo,
    "unseen": unseen,
    "text_routers": text_routers,
    "text_budget": text_budget,
    "agent_loop": agent_loop,
    "worth": worth,
}


def filled(text: str) -> str:
    """`text` with every marked block replaced by what its function says."""
    for name, block in BLOCKS.items():
        if f"<!-- begin {name} -->" not in text or f"<!-- end {name} -->" not in text:
            raise ValueError(f"README.md has no block {name!r}: expected <!-- begin {name} --> … <!-- end {name} -->")
        content = block()
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        before, after = text.split(begin)[0], text.split(end)[1]
        text = before + begin + (content + "\n" if content else "") + end + after
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="exit with 1 if README.md is not up to date")
    path, text = ROOT / "README.md", (ROOT / "README.md").read_text()
    if parser.parse_args().check:
        sys.exit("README.md is out of date: run python experiments/readme.py" if filled(text) != text else 0)
    path.write_text(filled(text))


if __name__ == "__main__":
    main()
