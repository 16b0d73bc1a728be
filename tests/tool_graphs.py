"""Small tool graphs for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlroute.envs.tool_graph.env import ToolGraphVectorEnv
from rlroute.envs.tool_graph.faults import NEVER
from rlroute.envs.tool_graph.graph import ToolGraph, parse_graph
from rlroute.envs.tool_graph.suites import Suite, Task

REFUND: dict[str, Any] = {
    "name": "refund",
    "tools": {
        "lookup": {"cost_usd": 1.0},
        "card": {"after": {"lookup": 3.0}, "effect": "refund"},
        "voucher": {"after": {"lookup": 5.0}, "effect": "refund"},
        "e-mail": {"after": ["card", "voucher"], "cost_usd": 2.0},
    },
    "goals": {"e-mail": 1.0, "card": 0.5},
}


def suite_of(*graphs: ToolGraph, risk: float = 0.0, down: Sequence[str] | None = None) -> Suite:
    """A suite for playing, one task a graph, in every split the same tasks would do for tests: all lie in test."""
    tasks = [
        Task(f"t{i}", graph, graph.name, f"Do {graph.name}.", risk, None if down is None else tuple(down))
        for i, graph in enumerate(graphs)
    ]
    return Suite("small", tuple(tasks), "independent" if down is None else "scenario", only_split="test")


def refund_env(num_envs: int = 1, down: Sequence[str] = (), **arguments: Any) -> ToolGraphVectorEnv:
    """An environment on the refund graph in which exactly `down` is down."""
    suite = suite_of(parse_graph(REFUND, "refund"), down=down, risk=arguments.pop("risk", 0.0))
    return ToolGraphVectorEnv(num_envs, autoreset="disabled", split="test", log=suite, **arguments)


def make_wrong(env: ToolGraphVectorEnv, tool: int) -> None:
    """From now on the tool reports success, and its output is bad."""
    faults = env.dynamics.faults
    faults["start"][:, tool], faults["stop"][:, tool], faults["wrong"][:, tool] = 0, NEVER, True


def random_graph(rng: np.random.Generator, size: int, joins_all: float = 0.3, effects: int = 2) -> dict[str, Any]:
    """A random graph as plain data; its goals may be out of reach."""
    tools: dict[str, Any] = {}
    names = [f"tool-{t}" for t in range(size)]
    for t, name in enumerate(names):
        before = [other for other in names[:t] if rng.random() < 0.45] if t else []
        tools[name] = {
            "cost_usd": round(float(rng.uniform(0.1, 2.0)), 3),
            "reliability": round(float(rng.uniform(0.6, 1.0)), 3),
            "after": {other: round(float(rng.uniform(0.0, 1.0)), 3) for other in before},
            "join": "all" if rng.random() < joins_all else "any",
            "effect": f"effect-{rng.integers(effects)}" if effects and rng.random() < 0.4 else None,
        }
    return {"name": "random", "tools": tools, "goals": {names[-1]: 1.0}}
