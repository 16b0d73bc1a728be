"""Draws the README's picture from the committed figures: ``python experiments/worth/plot.py``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlroute.plots import plot_frontier

RESULTS = Path(__file__).parent / "results"
RUNS = (("questions", "ThinkRoute-v0", "weight"), ("tasks", "BudgetRoute-v0", "budget_calls"))


def rows(name: str, family: str, knob: str) -> list[dict[str, Any]]:
    """The figures of one run as rows of ``metrics.json``."""
    summary = json.loads((RESULTS / f"{name}.json").read_text())
    return [
        {
            "family": f"rlroute/{family}",
            "log": name,
            "split": "test",
            "policy": policy,
            "kind": figures["kind"],
            knob: setting,
            "quality": quality,
            "cost_usd": cost,
        }
        for policy, figures in summary["policies"].items()
        for setting, quality, cost in zip(summary["values"], figures["quality"], figures["cost_usd"], strict=True)
    ]


if __name__ == "__main__":
    print(plot_frontier([row for run in RUNS for row in rows(*run)], RESULTS / "frontier.png"))
