"""Generated tool graphs: chains of layers, graphs with crossing branches, and fan-outs whose branches all must run.

Every graph is drawn from its own seed. A layer holds one to three alternatives; some layers do something irreversible
(all alternatives of such a layer share the side effect); every graph has a tool that settles for a part of the goal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rlroute.envs.tool_graph.graph import GraphError, ToolGraph, parse_graph
from rlroute.envs.tool_graph.suites import Suite, Task

SHAPES = ("linear", "dag", "fan-out")
VERBS = ("fetch", "parse", "match", "price", "rank", "check", "merge", "notify", "book", "file")
ACTS = ("charge", "ship", "send", "publish", "delete")  # what an irreversible layer does


@dataclass(frozen=True)
class GraphParameters:
    """Everything that decides a generated suite. Costs in USD, probabilities unless a unit is given."""

    seed: int
    num_graphs: int
    tools: tuple[int, int]  # of a graph, inclusive range
    cost_usd: tuple[float, float] = (0.002, 0.02)  # of a call, log-uniform
    latency_s: tuple[float, float] = (0.2, 4.0)  # of a call, log-uniform
    reliability: tuple[float, float] = (0.80, 0.98)  # uniform
    widths: tuple[float, ...] = (0.2, 0.4, 0.4)  # probability that a layer has 1, 2 or 3 alternatives
    providers: tuple[int, int] = (2, 4)  # of a graph, inclusive range
    outage: tuple[float, float] = (0.05, 0.25)  # of a provider, uniform
    effect_share: float = 0.35  # of the layers that do something irreversible
    all_share: float = 0.25  # of the tools of a dag whose join is `all`
    settle_value: float = 0.5  # of the degraded goal
    risk: float = 0.12  # prior probability that irreversible effects do harm


STOCHASTIC = GraphParameters(
    seed=20261,
    num_graphs=600,
    tools=(8, 40),
    reliability=(0.90, 0.995),
    widths=(0.1, 0.45, 0.45),
    effect_share=0.2,
    outage=(0.02, 0.12),
    risk=0.08,
)
SMALL = GraphParameters(seed=20262, num_graphs=600, tools=(6, 8))


def generated_suite(name: str, parameters: GraphParameters) -> Suite:
    """The suite: the same for the same parameters."""
    tasks = []
    for i in range(parameters.num_graphs):
        rng = np.random.default_rng((parameters.seed, i))
        shape = SHAPES[i % len(SHAPES)]
        graph = _drawn(f"{name}-{i:04d}", shape, parameters, rng)
        last = graph.tools[graph.goals[0].tool].name
        text = f"A {shape} workflow of {graph.size} tools up to {last!r}."
        tasks.append(Task(f"g{i:04d}", graph, graph.name, text, parameters.risk))
    return Suite(name, tuple(tasks))


def _drawn(name: str, shape: str, parameters: GraphParameters, rng: np.random.Generator) -> ToolGraph:
    """The first graph drawn whose goals can be reached: an `all` join may ask for one side effect twice."""
    while True:
        try:
            return parse_graph(_graph(name, shape, parameters, rng), name)
        except GraphError:
            continue


def _graph(name: str, shape: str, parameters: GraphParameters, rng: np.random.Generator) -> dict[str, Any]:
    """A graph as plain data."""
    size = int(rng.integers(parameters.tools[0], parameters.tools[1] + 1)) - 2  # without `finish` and `settle`
    if shape == "fan-out":
        size = max(size, 5)  # one tool first, two branches, two that gather them
    providers = {
        f"provider-{p}": round(float(rng.uniform(*parameters.outage)), 3)
        for p in range(int(rng.integers(parameters.providers[0], parameters.providers[1] + 1)))
    }
    tools: dict[str, Any] = {}

    def add(label: str, after: list[str], join: str = "any", effect: str | None = None) -> str:
        tools[label] = {
            "cost_usd": _log_uniform(parameters.cost_usd, rng),
            "latency_s": _log_uniform(parameters.latency_s, rng),
            "reliability": round(float(rng.uniform(*parameters.reliability)), 3),
            "after": after,
            "join": join,
            "effect": effect,
            "provider": str(rng.choice(list(providers))),
        }
        return label

    def width_of_layer() -> int:
        return 1 + int(rng.choice(len(parameters.widths), p=parameters.widths))

    def layer(stem: str, width: int, after: list[str], cross: bool) -> list[str]:
        """A layer of alternatives, each after one or more tools of the layer before."""
        effect = f"{rng.choice(ACTS)} {stem}" if after and rng.random() < parameters.effect_share else None
        names = []
        for k in range(width):
            inputs, join = after, "any"
            if cross and len(after) > 1:
                inputs = sorted(rng.choice(after, size=int(rng.integers(1, len(after) + 1)), replace=False).tolist())
                join = "all" if len(inputs) > 1 and rng.random() < parameters.all_share else "any"
            verb = effect.split()[0] if effect else VERBS[int(rng.integers(len(VERBS)))]
            names.append(add(f"{verb}-{stem}{'abc'[k]}", inputs, join, effect))
        return names

    if shape == "fan-out":
        num_branches = int(min(5, max(2, size // 4)))
        first = layer("0", 1, [], cross=False)
        left = size - len(first) - num_branches
        ends: list[list[str]] = [first] * num_branches
        for turn in range(left):
            b = turn % num_branches
            others = max(0, num_branches - turn - 1)  # branches that have nothing yet
            width = int(min(left - others, width_of_layer()))
            if width <= 0:
                break
            ends[b] = layer(f"{'pqrst'[b]}{turn // num_branches}", width, ends[b], cross=False)
            left -= width
        # A branch is done once any of its last alternatives is: a tool that gathers them stands for it.
        last = [add(f"collect-{'pqrst'[b]}", names) for b, names in enumerate(ends)]
        settle_after, join = last, "all"
    else:
        layers: list[list[str]] = []
        left = size
        while left > 0:
            width = int(min(left, width_of_layer()))
            layers.append(layer(str(len(layers)), width, layers[-1] if layers else [], cross=shape == "dag"))
            left -= width
        last, join = layers[-1], "any"
        settle_after = layers[max(0, (2 * len(layers)) // 3 - 1)]
    add("finish", last, join)
    add("settle", settle_after)
    for label in ("finish", "settle"):  # what the goals hang on fails seldom, and costs what others cost
        tools[label]["reliability"] = round(0.5 + 0.5 * tools[label]["reliability"], 3)
    return {
        "name": name,
        "providers": providers,
        "tools": tools,
        "goals": {"finish": 1.0, "settle": parameters.settle_value},
    }


def _log_uniform(ends: tuple[float, float], rng: np.random.Generator) -> float:
    return round(float(ends[0] * (ends[1] / ends[0]) ** rng.random()), 4)
