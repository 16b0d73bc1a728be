"""A graph of tools: what may be called after what, at what price, and which tools do things that cannot be undone.

A graph is a YAML mapping, or the same as plain data::

    name: refund
    providers: {acme: 0.05}                # probability that everything of this provider is down
    tools:
      lookup:  {cost_usd: 0.1, latency_s: 1.0, reliability: 0.97}
      card:    {after: {lookup: 0.3}, effect: refund, provider: acme}   # 0.3 USD more when called after lookup
      voucher: {after: {lookup: 0.5}, effect: refund}                   # the same side effect: one of the two, once
      e-mail:  {after: [card, voucher]}                                 # join: any (the default) or all
    goals: {e-mail: 1.0, card: 0.5}        # the goal first, then degraded goals, each worth less

Tools are kept in topological order, so that every predecessor of a tool has a smaller index, and sets of tools are
bit masks: bit t is tool t.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

JOINS = ("any", "all")
TOOL_KEYS = ("cost_usd", "latency_s", "reliability", "after", "join", "effect", "provider", "description")
GRAPH_KEYS = ("name", "providers", "tools", "goals", "scenarios", "origin")


class GraphError(ValueError):
    """A graph that cannot be used: which file or graph, which key, what was found and what was expected."""

    def __init__(self, source: str, key: str, found: str, expected: str) -> None:
        super().__init__(source, key, found, expected)
        self.source, self.key, self.found, self.expected = source, key, found, expected

    def __str__(self) -> str:
        return f"{self.source}, key {self.key}: found {self.found}, expected {self.expected}"


@dataclass(frozen=True)
class Tool:
    """One tool. `after` maps each predecessor to what calling this tool costs in addition when it comes after it."""

    name: str
    cost_usd: float = 0.0
    latency_s: float = 1.0
    reliability: float = 1.0  # probability that it has no fault of its own in an episode
    after: tuple[tuple[str, float], ...] = ()  # (predecessor, edge cost in USD); none: callable from the start
    join: str = "any"  # callable once "any" or "all" of its predecessors were executed
    effect: str | None = None  # an irreversible side effect; no two tools with one effect should both run
    provider: str | None = None
    description: str = ""


@dataclass(frozen=True)
class Goal:
    """A tool whose execution is worth `value`."""

    tool: int
    value: float


@dataclass(frozen=True, eq=False)
class ToolGraph:
    """A checked graph of T tools in topological order."""

    name: str
    tools: tuple[Tool, ...]
    goals: tuple[Goal, ...]  # the goal, then degraded goals, of falling value
    provider_outage: Mapping[str, float]  # by provider: probability that all its tools are down

    @property
    def size(self) -> int:
        return len(self.tools)

    @cached_property
    def index(self) -> dict[str, int]:
        """Position of every tool by name."""
        return {tool.name: t for t, tool in enumerate(self.tools)}

    @cached_property
    def edge_cost_usd(self) -> np.ndarray:
        """(T, T) USD added to a call of t after p; infinite where p is no predecessor of t."""
        cost = np.full((self.size, self.size), np.inf)
        for t, tool in enumerate(self.tools):
            for name, usd in tool.after:
                cost[t, self.index[name]] = usd
        return cost

    @cached_property
    def predecessors(self) -> tuple[int, ...]:
        """Bit mask of the predecessors of every tool."""
        return tuple(self.mask(name for name, _ in tool.after) for tool in self.tools)

    @cached_property
    def effect(self) -> np.ndarray:
        """(T,) number of a tool's side effect, −1 for none."""
        names = sorted({tool.effect for tool in self.tools if tool.effect is not None})
        return np.array([-1 if tool.effect is None else names.index(tool.effect) for tool in self.tools])

    @cached_property
    def rivals(self) -> tuple[int, ...]:
        """Bit mask of the other tools with the side effect of each tool."""
        same = (self.effect[:, None] == self.effect) & (self.effect >= 0)[:, None] & ~np.eye(self.size, dtype=bool)
        return tuple(sum(1 << int(u) for u in np.flatnonzero(row)) for row in same)

    @cached_property
    def provider(self) -> np.ndarray:
        """(T,) number of a tool's provider in the order of `provider_outage`, −1 for none."""
        names = list(self.provider_outage)
        return np.array([-1 if tool.provider is None else names.index(tool.provider) for tool in self.tools])

    def mask(self, names: Any) -> int:
        """Bit mask of tools given by name."""
        return sum(1 << self.index[name] for name in set(names))

    def callable(self, tool: int, executed: int) -> bool:
        """Whether the join of a tool is satisfied by the executed tools (a bit mask)."""
        before = self.predecessors[tool]
        if self.tools[tool].join == "all":
            return before & ~executed == 0
        return before == 0 or before & executed != 0

    def call_cost_usd(self, tool: int, executed: int) -> float:
        """Price of a call: the tool's own, and the cheapest edge from an executed tool (`any`) or all (`all`)."""
        edges = self.edge_cost_usd[tool]
        own = self.tools[tool].cost_usd
        if not self.predecessors[tool]:
            return own
        if self.tools[tool].join == "all":
            return own + float(edges[np.isfinite(edges)].sum())
        return own + min(float(edges[p]) for p in members(self.predecessors[tool] & executed))

    def repeats_effect(self, tool: int, executed: int) -> bool:
        """Whether a call of `tool` would do again what an executed tool, or itself, has done."""
        return bool(self.effect[tool] >= 0 and (self.rivals[tool] | 1 << tool) & executed)

    def holds(self, good: int) -> int:
        """The tools of `good` (executed, output not bad) whose inputs hold as well, as a bit mask."""
        held = 0
        for t in members(good):
            if self.callable(t, held):
                held |= 1 << t
        return held


def members(mask: int) -> list[int]:
    """The tools of a bit mask, rising."""
    found = []
    while mask:
        lowest = mask & -mask
        found.append(lowest.bit_length() - 1)
        mask ^= lowest
    return found


def load_graph(path: str | Path) -> ToolGraph:
    """The graph in a YAML file; a `GraphError` names file, key and value where it cannot be used."""
    return parse_graph(read_yaml(path), str(path))


def read_yaml(path: str | Path) -> Any:
    """Plain data from a YAML file; a `GraphError` if there is no such file or it is no YAML."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GraphError(str(path), "(the file)", f"{type(error).__name__}: {error}", "a YAML file") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> Any:
    """Plain data from YAML; a `GraphError` if it is none."""
    import yaml

    class OnceLoader(yaml.SafeLoader):
        """YAML keeps the last of two entries with one key; here that is a fault."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
            twice = [key for i, key in enumerate(keys) if key in keys[:i]]
            if twice:
                raise yaml.constructor.ConstructorError(None, None, f"found {twice[0]!r} twice", node.start_mark)
            return super().construct_mapping(node, deep=deep)

    try:
        return yaml.load(text, OnceLoader)
    except yaml.YAMLError as error:
        raise GraphError(source, "(the text)", f"{type(error).__name__}: {error}", "YAML") from error


def parse_graph(data: Any, source: str) -> ToolGraph:
    """A graph from plain data. `source` names it in errors."""
    data = _mapping(data, source, "(top)")
    _only(data, GRAPH_KEYS, source, "(top)")
    providers = {
        str(name): _probability(value, source, f"providers.{name}")
        for name, value in _mapping(data.get("providers") or {}, source, "providers").items()
    }
    given = _mapping(data.get("tools"), source, "tools")
    if not given:
        raise GraphError(source, "tools", "no tool", "at least one")
    tools = [_tool(str(name), value, providers, source) for name, value in given.items()]
    known = {tool.name for tool in tools}
    for tool in tools:
        for name, _ in tool.after:
            if name not in known:
                raise GraphError(source, f"tools.{tool.name}.after", f"the unknown tool {name!r}", _listed(known))
    tools = _sorted(tools, source)
    graph = ToolGraph(str(data.get("name", Path(source).stem)), tuple(tools), _goals(data, tools, source), providers)
    _refuse_unreachable(graph, source)
    return graph


def _tool(name: str, value: Any, providers: Mapping[str, float], source: str) -> Tool:
    key = f"tools.{name}"
    value = _mapping(value or {}, source, key)
    _only(value, TOOL_KEYS, source, key)
    after = value.get("after") or {}
    if isinstance(after, (list, tuple)):
        after = dict.fromkeys(after, 0.0)
    join, provider = value.get("join", "any"), value.get("provider")
    if join not in JOINS:
        raise GraphError(source, f"{key}.join", repr(join), "'any' or 'all'")
    if provider is not None and provider not in providers:
        raise GraphError(source, f"{key}.provider", repr(provider), _listed(providers))
    edges = _mapping(after, source, f"{key}.after")
    return Tool(
        name=name,
        cost_usd=_amount(value.get("cost_usd", 0.0), source, f"{key}.cost_usd"),
        latency_s=_amount(value.get("latency_s", 1.0), source, f"{key}.latency_s"),
        reliability=_probability(value.get("reliability", 1.0), source, f"{key}.reliability"),
        after=tuple((str(n), _amount(usd, source, f"{key}.after.{n}")) for n, usd in edges.items()),
        join=join,
        effect=None if value.get("effect") is None else str(value["effect"]),
        provider=provider,
        description=str(value.get("description", "")),
    )


def _sorted(tools: list[Tool], source: str) -> list[Tool]:
    """Tools in topological order, among equals in the order given; an error names a cycle."""
    import networkx as nx

    order = {tool.name: i for i, tool in enumerate(tools)}
    graph = nx.DiGraph()
    graph.add_nodes_from(order)
    graph.add_edges_from((name, tool.name) for tool in tools for name, _ in tool.after)
    try:
        names = list(nx.lexicographical_topological_sort(graph, key=order.__getitem__))
    except nx.NetworkXUnfeasible:
        cycle = [edge[0] for edge in nx.find_cycle(graph)]
        joins = {tools[order[name]].join for name in cycle}
        way = " → ".join([*cycle, cycle[0]])
        key = f"tools.{cycle[0]}.after"
        raise GraphError(source, key, f"the cycle {way} (joins: {', '.join(sorted(joins))})", "no cycle") from None
    return [tools[order[name]] for name in names]


def _goals(data: Mapping[str, Any], tools: list[Tool], source: str) -> tuple[Goal, ...]:
    names = [tool.name for tool in tools]
    given = _mapping(data.get("goals"), source, "goals")
    if not given:
        raise GraphError(source, "goals", "no goal", "at least one")
    goals = []
    for name, value in given.items():
        if name not in names:
            raise GraphError(source, f"goals.{name}", "an unknown tool", _listed(names))
        goals.append(Goal(names.index(name), _probability(value, source, f"goals.{name}")))
    for earlier, later, name in zip(goals, goals[1:], list(given)[1:], strict=False):
        if later.value >= earlier.value:
            expected = f"less than {earlier.value:g}, the goal before"
            raise GraphError(source, f"goals.{name}", f"{later.value:g}", expected)
    return tuple(goals)


def _refuse_unreachable(graph: ToolGraph, source: str) -> None:
    """A goal that cannot be had with everything up, side effects done once, is a fault of the graph."""
    from rlroute.envs.tool_graph.plans import cheapest_completion

    for goal in graph.goals:
        if cheapest_completion(graph, goal.tool) is None:
            name = graph.tools[goal.tool].name
            raise GraphError(source, f"goals.{name}", "a goal that no outage-free path reaches", "a reachable goal")


def _mapping(value: Any, source: str, key: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise GraphError(source, key, repr(value), "a mapping")
    return value


def _only(value: Mapping[Any, Any], known: tuple[str, ...], source: str, key: str) -> None:
    for name in value:
        if name not in known:
            raise GraphError(source, f"{key}.{name}", "an unknown key", _listed(known))


def _amount(value: Any, source: str, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < np.inf:
        raise GraphError(source, key, repr(value), "a number ≥ 0")
    return float(value)


def _probability(value: Any, source: str, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise GraphError(source, key, repr(value), "a number in [0, 1]")
    return float(value)


def _listed(names: Any) -> str:
    return "one of " + (", ".join(map(str, names)) or "none")
