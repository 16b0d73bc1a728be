"""A trained budget router in a plain agent loop: ``python experiments/agent_loop.py runs/demo/budget_route/policy``.

The provider is scripted: two models of known skill and price, which take the steps of the test tasks of the built-in
log `tasks` with its stored probabilities. `run_task` is the loop an engineer writes; the router adds two calls to it,
`decide` before a step and `record` after it. The fixed baselines run through the same loop and the same budget.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

import rlroute
from rlroute.router import BudgetExhausted, Decision

Pick = Callable[[Decision], str]


class ScriptedProvider:
    """An agent's world: where a task stands, and what a step by either model does to it and costs."""

    def __init__(self, log: rlroute.Log, rng: np.random.Generator) -> None:
        self.rng = rng
        self.states = {row["state_id"]: row for row in log.states.to_pylist()}
        self.usage = {(row["state_id"], row["choice"]): row for row in log.responses.to_pylist()}
        self.outcomes: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in log.outcomes.to_pylist():
            self.outcomes.setdefault((row["state_id"], row["choice"]), []).append(row)

    def prompt_tokens(self, state: str, model: str) -> int:
        return int(self.usage[state, model]["prompt_tokens"])

    def step(self, state: str, model: str) -> tuple[str, dict[str, Any]]:
        """The state that a step by `model` leads to, and the usage it reports."""
        options = self.outcomes[state, model]
        odds = np.array([row["probability"] for row in options])
        following = options[self.rng.choice(len(options), p=odds / odds.sum())]["next_state_id"]
        usage = self.usage[state, model]
        return following, {name: usage[name] for name in ("prompt_tokens", "completion_tokens", "latency_s")}


def run_task(
    provider: ScriptedProvider, router: rlroute.Router, task: str, budget_calls: int, pick: Pick
) -> tuple[bool, float, int]:
    """Whether the task succeeded, its cost, its expensive calls. `pick` turns a decision into the model called."""
    state, expensive = task, 0
    with router.episode(task, budget_calls=budget_calls) as episode:
        while not provider.states[state]["terminal"]:
            step = provider.states[state]
            tokens = provider.prompt_tokens(state, router.choices[0])
            features = {name: step[name] for name in router.feature_names}
            try:
                decision = episode.decide(step["text"], features, prompt_tokens=tokens)
            except BudgetExhausted:
                return False, episode.spent_usd, expensive
            model = pick(decision)
            expensive += model == router.choices[-1]
            state, usage = provider.step(state, model)
            episode.record(choice=model, **usage)
    return bool(provider.states[state]["success"]), episode.spent_usd, expensive


def always(model: str) -> Pick:
    """Call `model` while the budget covers it, else whatever is still legal."""

    def pick(decision: Decision) -> str:
        legal = [name.removeprefix("choose ") for name in decision.scores]
        return model if model in legal else legal[0]

    return pick


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("policy", nargs="?", default="runs/demo/budget_route/policy")
    parser.add_argument("--budget-calls", type=int, default=4, help="hard cap on expensive calls of every task")
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()

    log, router = rlroute.load_log("tasks"), rlroute.Router.load(options.policy)
    roots = np.flatnonzero(log.arrays.root & (log.splits() == 2))[: options.tasks]
    small, large = router.choices
    policies: dict[str, Pick] = {
        "trained router": lambda decision: str(decision.choice),
        "always small": always(small),
        "always large": always(large),
    }
    title = f"{len(roots)} tasks, at most {options.budget_calls} calls of {large} each"
    table = Table("policy", "success", "USD a task", "expensive calls", "over budget", title=title)
    rows = []
    for name, pick in policies.items():
        provider = ScriptedProvider(log, np.random.default_rng(options.seed))
        outcomes = [
            run_task(provider, router, str(log.arrays.state_ids[root]), options.budget_calls, pick)
            for root in track(roots, description=name, transient=True)
        ]
        success, cost, calls = np.array(outcomes, float).T
        row = {
            "policy": name,
            "success": success.mean(),
            "cost_usd": cost.mean(),
            "expensive_calls": calls.mean(),
            "over_budget": int((calls > options.budget_calls).sum()),
        }
        rows.append(row)
        table.add_row(
            name,
            f"{row['success']:.2f}",
            f"{row['cost_usd']:.4f}",
            f"{calls.mean():.1f}",
            str(row["over_budget"]),
        )
    Console().print(table)
    if options.json:
        data = {"tasks": len(roots), "budget_calls": options.budget_calls, "rows": rows}
        options.json.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
