"""Self-Healing Router's 19 scenarios, by the rules of its code and under an accounting that hides nothing.

    python experiments/healing/scenarios.py

Prints and writes ``results/healing.md`` and ``.json``: the code's table (model calls, reroutes, ReAct calls, static
outcome), computed from graphs and outages; the paper's table beside what our reconstruction gives; and the same 19
scenarios played in ToolGraph, where an outage is hidden until a tool is called, a goal counts only if it was reached,
and a side effect done twice is seen.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from paper_engine import paper_cells, play

from rlroute.envs.contest import vector_env
from rlroute.envs.tool_graph.healing import HealingRouter, Knobs, PaperHealing
from rlroute.envs.tool_graph.references import AtOnce, ReAct, StaticWorkflow, ToolChainAStar
from rlroute.envs.tool_graph.suites import STATES, load_suite
from rlroute.envs.tool_graph.transitions import ESCALATE, FINISH
from rlroute.policies import Policy
from rlroute.report import table, write_text
from rlroute.rollout import rollout

HERE = Path(__file__).parent
# Cells as the paper publishes them: model calls of the healing router / of ReAct.
PUBLISHED = {
    "S1": (0, 4), "S2": (0, 5), "S3": (1, 7), "S4": (1, 4), "S5": (0, 5), "S6": (2, 8), "S7": (2, 9),
    "T1": (0, 5), "T2": (0, 6), "T3": (0, 7), "T4": (1, 3), "T5": (1, 5), "T6": (0, 8),
    "M1": (0, 6), "M2": (0, 7), "M3": (1, 6), "M4": (0, 9), "M5": (0, 9), "M6": (0, 10),
}  # fmt: skip


def code_table() -> list[dict[str, Any]]:
    """One row a scenario of the code, and the totals last."""
    rows: list[dict[str, Any]] = []
    for task in load_suite("healing-19").tasks:
        row = play(task.graph, task.graph.mask(task.down or ()))
        cells = (row.model_calls, row.reroutes, row.react_calls, row.static)
        rows.append(dict(zip(("model_calls", "reroutes", "react_calls", "static"), cells, strict=True)))
        rows[-1] |= {"id": task.id, "down": ", ".join(task.down or ()) or "–"}
    total: dict[str, Any] = {key: sum(row[key] for row in rows) for key in ("model_calls", "reroutes", "react_calls")}
    silent = sum(row["static"] == "silent" for row in rows)
    return [*rows, {"id": "total", "down": "", **total, "static": f"{silent} silent"}]


def paper_table() -> list[dict[str, Any]]:
    """One row a scenario of the paper: published cells, and those of the reconstruction."""
    rows = []
    for task in load_suite("healing-19-paper").tasks:
        row = play(task.graph, task.graph.mask(task.down or ()))
        rows.append({"id": task.id, "published": PUBLISHED[task.id], "ours": paper_cells(row, task.risk > 0)})
    return rows


def policies() -> list[Policy]:
    """Everybody who plays the scenarios."""
    return [
        HealingRouter(Knobs(consult=True)),
        PaperHealing(),
        StaticWorkflow(),
        ReAct(),
        ToolChainAStar(),
        AtOnce(ESCALATE, "escalate at once"),
        AtOnce(FINISH, "finish at once"),
    ]


def honest_table(suite: str) -> list[dict[str, Any]]:
    """What each policy comes to on the scenarios of a suite; counts are of scenarios, harms and calls are sums."""
    env = vector_env("rlroute/ToolGraph-v0", "test", 32, log=suite)
    rows = []
    for policy in policies():
        played = rollout(env, policy, env.dynamics.roots)
        ends = np.bincount(played.extra["outcome"], minlength=len(STATES))
        rows.append(
            {
                "policy": policy.name,
                **{name: int(ends[k]) for k, name in enumerate(STATES) if name != "start"},
                "repeated_effects": int(played.extra["repeated_effects"].sum()),
                "risk_breaches": int(played.extra["risk_breaches"].sum()),
                "model_calls": int(played.extra["model_calls"].sum()),
                "tool_calls": int(played.calls.sum()),
                "utility": round(float(played.reward.mean()), 3),
            }
        )
    return rows


def as_markdown(results: dict[str, Any]) -> str:
    """All tables."""
    code = [
        [r["id"], r["down"], f"{r['model_calls']}/{r['reroutes']}", r["react_calls"], r["static"]]
        for r in results["code"]
    ]
    paper = [
        [r["id"], "{}/{}".format(*r["published"]), "{}/{}".format(*r["ours"]), "yes" if r["agrees"] else "no"]
        for r in results["paper"]
    ]
    parts = [
        "# Self-Healing Router",
        "By the rules of the paper's code, on our graphs and plans:",
        table(["scenario", "down", "healing: model calls / reroutes", "ReAct calls", "static workflow"], code),
        "The paper's own scenarios, model calls of the healing router / of ReAct. The graphs are reconstructed: the "
        "paper does not publish their edges.",
        table(["scenario", "published", "reconstructed", "agrees"], paper),
    ]
    for suite, rows in results["honest"].items():
        header = [name.replace("_", " ") for name in rows[0]]
        parts += [
            f"`{suite}` played in ToolGraph ({sum(rows[0][k] for k in STATES[1:])} scenarios; outages hidden until a "
            "tool is called; c_model 0.1):",
            table(header, [[str(value) for value in row.values()] for row in rows]),
        ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    paper = [{**row, "agrees": tuple(row["published"]) == tuple(row["ours"])} for row in paper_table()]
    honest = {suite: honest_table(suite) for suite in ("healing-19", "healing-19-paper")}
    results = {"code": code_table(), "paper": paper, "honest": honest}
    write_text(options.out / "healing.json", json.dumps(results, indent=1) + "\n")
    write_text(options.out / "healing.md", as_markdown(results))
    print(as_markdown(results))


if __name__ == "__main__":
    main()
