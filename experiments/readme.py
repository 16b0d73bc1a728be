"""Fills the marked blocks of README.md from the registry and from the committed results; ``--check`` only compares.

python experiments/readme.py
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rlroute.envs import REGISTRY
from rlroute.report import table

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "experiments" / "worth" / "results"
TITLES = {
    "questions": "Built-in questions (ThinkRoute)",
    "tasks": "Built-in agent tasks (BudgetRoute)",
    "gym_exact": "Seven checkable reasoning-gym tasks, exact verdicts",
    "gym_flipped": "The same, 10 % of the verdicts flipped",
    "gym_hidden": "The same, verdicts hidden",
    "gym_no_hidden": "The same, exact verdicts, without the assumed price of hidden thinking tokens",
    "gym_held_out": "The same, tasks of test never seen in training",
    "routeprofile": "RouteProfile without code and trivia",
}


def environments() -> str:
    """The registry as a table."""
    return table(["id", "what a step decides"], [[f"`{row.id}`", row.summary] for row in REGISTRY])


def worth() -> str:
    """One line a run and reference group: at how many settings the trained router beats, ties, loses."""
    parts = []
    for name, title in TITLES.items():
        path = RESULTS / f"{name}.json"
        if path.exists():
            parts.append(_run(title, json.loads(path.read_text())))
    return "\n\n".join(parts)


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
    return {"beats": "+", "tie": "=", "loses": "−"}[cell["verdict"]]


def agent_loop() -> str:
    """What experiments/agent_loop.py printed, from its committed output."""
    path = RESULTS / "agent_loop.json"
    if not path.exists():
        return ""
    data = json.loads(path.read_text())
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
    head = f"{data['tasks']} test tasks, at most {data['budget_calls']} calls of the expensive model each:"
    return f"{head}\n\n{table(['policy', 'success', 'USD a task', 'expensive calls', 'over budget'], rows)}"


BLOCKS = {"environments": environments, "worth": worth, "agent_loop": agent_loop}


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
