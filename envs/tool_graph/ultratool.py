"""The suite `ultratool`: task graphs along the gold plans of a recording of 260 real tools (GNN4TaskPlan, MIT).

Names, domains, links and plans are the recording's. All numbers are [ours] (costs, latencies, reliabilities, outages,
risk), drawn once a tool from its name; so is what can stand in for a tool: another of one of its domains that shares a
predecessor or a successor with it in the real graph.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from rlroute.envs.tool_graph.graph import GraphError, parse_graph
from rlroute.envs.tool_graph.suites import Suite, Task
from rlroute.splits import group_of

MOST_ALTERNATIVES = 3
VERBS = (
    "book",
    "pay",
    "transfer",
    "cancel",
    "send",
    "delete",
    "order",
    "purchase",
    "buy",
    "recharge",
    "remit",
    "submit",
)
RISK = 0.12
PARTIAL_VALUE = 0.5


def find_ultratool() -> Path:
    """The recording under ``$RLROUTE_DATA``."""
    root = os.environ.get("RLROUTE_DATA")
    path = Path(root or "") / "tool_graphs" / "ultratool"
    if not root or not path.is_dir():
        raise GraphError("ultratool", "RLROUTE_DATA", repr(root), "a folder that holds tool_graphs/ultratool")
    return path


def ultratool_suite(path: Path) -> Suite:
    """One task a distinct gold plan of the recording in `path`."""
    tools = _Tools(path / "graph_desc.json")
    tasks: list[Task] = []
    seen: set[tuple[str, ...]] = set()
    for number, line in enumerate(_lines(path / "data.json"), start=1):
        source = f"{path / 'data.json'}, line {number}"
        try:
            plan = json.loads(line)
            chain = tuple(str(node["task"]) for node in plan["task_nodes"])
            text = str(plan["user_request"]).strip()
        except (ValueError, KeyError, TypeError) as error:
            raise GraphError(source, "(the line)", f"{type(error).__name__}: {error}", "a plan") from error
        for tool in chain:
            if tool not in tools.domains:
                raise GraphError(source, "task_nodes", f"the unknown tool {tool!r}", "a node of graph_desc.json")
        if chain in seen or len(set(chain)) < len(chain) or len(chain) < 2:
            continue
        seen.add(chain)
        name = f"u{len(tasks):04d}"
        graph = parse_graph(_graph(name, chain, tools), name)
        risk = RISK if (graph.effect >= 0).any() else 0.0
        tasks.append(Task(name, graph, group_of(" ".join(sorted(chain))), text, risk))
    return Suite("ultratool", tuple(tasks))


class _Tools:
    """The real graph: domains and links of every tool."""

    def __init__(self, file: Path) -> None:
        text = "\n".join(_lines(file))
        try:
            data = json.loads(text)
            self.domains = {str(node["id"]): [str(d) for d in node["domain"]] for node in data["nodes"]}
            links = [(str(link["source"]), str(link["target"])) for link in data["links"]]
        except (ValueError, KeyError, TypeError) as error:
            raise GraphError(str(file), "(the file)", f"{type(error).__name__}: {error}", "nodes and links") from error
        self.after: dict[str, set[str]] = defaultdict(set)
        self.before: dict[str, set[str]] = defaultdict(set)
        for source, target in links:
            self.after[source].add(target)
            self.before[target].add(source)

    def alternatives(self, tool: str, taken: set[str]) -> list[str]:
        """Other tools that might do the work of one, those that share most domains first."""
        own = set(self.domains[tool])
        found = [
            (-len(own & set(domains)), other)
            for other, domains in self.domains.items()
            if other not in taken
            and own & set(domains)
            and (self.after[tool] & self.after[other] or self.before[tool] & self.before[other])
        ]
        return [other for _, other in sorted(found)[:MOST_ALTERNATIVES]]


def _graph(name: str, chain: tuple[str, ...], tools: _Tools) -> dict[str, Any]:
    """A plan with what can stand in for its tools, as plain data: a layer a step."""
    taken = set(chain)
    layers: list[list[str]] = []
    for tool in chain:
        layers.append([tool, *tools.alternatives(tool, taken)])
        taken |= set(layers[-1])
    inputs: dict[str, list[str]] = {tool: [] for tool in layers[0]}
    for i in range(1, len(layers)):
        for tool in layers[i]:
            linked = [p for p in layers[i - 1] if p in tools.before[tool] and p in inputs]
            if tool == chain[i] and chain[i - 1] not in linked:
                linked.append(chain[i - 1])
            if linked:  # a stand-in that nothing leads to is left out
                inputs[tool] = linked
    kept = [[tool for tool in layer if tool in inputs] for layer in layers]
    for i in range(len(kept) - 2, -1, -1):  # and one that leads nowhere
        used = {p for tool in kept[i + 1] for p in inputs[tool]}
        kept[i] = [tool for tool in kept[i] if tool in used]
    nodes: dict[str, Any] = {}
    providers: dict[str, float] = {}
    for i, layer in enumerate(kept):
        acts = chain[i] if any(verb in chain[i] for verb in VERBS) else None
        for tool in layer:
            provider = tools.domains[tool][0]
            providers[provider] = _numbers(f"provider {provider}")[0]
            cost, latency, reliability = _numbers(tool)[1:]
            nodes[tool] = {
                "cost_usd": cost,
                "latency_s": latency,
                "reliability": reliability,
                "after": [p for p in inputs[tool] if i and p in kept[i - 1]],
                "effect": acts if acts and any(verb in tool for verb in VERBS) else None,
                "provider": provider,
            }
    free = {"cost_usd": 0.0, "latency_s": 0.0}
    nodes["done"] = {**free, "after": kept[-1]}
    nodes["partial"] = {**free, "after": kept[-2]}
    return {"name": name, "providers": providers, "tools": nodes, "goals": {"done": 1.0, "partial": PARTIAL_VALUE}}


def _numbers(name: str) -> tuple[float, float, float, float]:
    """Outage probability, cost in USD, latency in seconds and reliability that belong to a name."""
    rng = np.random.default_rng(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big"))
    outage, cost, latency, reliability = rng.random(4)
    return (
        round(0.05 + 0.15 * outage, 3),
        round(0.002 * 10**cost, 4),
        round(0.2 * 20**latency, 3),
        round(0.80 + 0.18 * reliability, 3),
    )


def _lines(file: Path) -> list[str]:
    try:
        return [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise GraphError(str(file), "(the file)", f"{type(error).__name__}: {error}", "a text file") from error
