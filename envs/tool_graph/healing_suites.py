"""Suites from YAML graphs: a folder of anybody's, and the hand-made scenarios of Self-Healing Router.

`healing-19` are the 19 scenarios of the code of arXiv 2603.01548, on its three graphs; `healing-19-paper` those that
the paper describes, on graphs reconstructed from what it says [ours]: the two sets differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlroute.envs.tool_graph.faults import SCENARIO
from rlroute.envs.tool_graph.graph import GraphError, ToolGraph, parse_graph, read_yaml
from rlroute.envs.tool_graph.suites import Suite, Task

GRAPHS = Path(__file__).parent / "graphs"
CODE = ("support", "travel", "moderation")
SCENARIO_KEYS = ("down", "risk", "text")


def healing_19() -> Suite:
    """The 19 scenarios of the paper's code."""
    return _hand_made("healing-19", CODE)


def healing_19_paper() -> Suite:
    """The 19 scenarios of the paper, on reconstructed graphs."""
    return _hand_made("healing-19-paper", tuple(f"paper-{name}" for name in CODE))


def folder_suite(path: Path) -> Suite:
    """All ``*.yaml`` graphs of a folder: a task a scenario, where files have `scenarios`, else one a graph."""
    files = sorted(path.glob("*.yaml"))
    if not files:
        raise GraphError(str(path), "(the folder)", "no *.yaml file", "at least one graph")
    tasks = [task for file in files for task in file_tasks(file)]
    scenarios = [task.down is not None for task in tasks]
    if any(scenarios) and not all(scenarios):
        mixed = files[0].parent
        raise GraphError(str(mixed), "scenarios", "graphs with and without", "all of one kind in a folder")
    return Suite(path.name, tuple(tasks), SCENARIO if all(scenarios) else "independent")


def file_tasks(file: Path) -> list[Task]:
    """The tasks of one YAML file."""
    data, source = read_yaml(file), str(file)
    graph = parse_graph(data, source)
    scenarios = data.get("scenarios")
    if scenarios is None:
        return [Task(graph.name, graph, graph.name, f"Reach {_goal(graph)!r} of {graph.name}.")]
    if not isinstance(scenarios, Mapping) or not scenarios:
        raise GraphError(source, "scenarios", repr(scenarios), "a mapping of names to scenarios")
    return [_scenario(str(name), value, graph, source) for name, value in scenarios.items()]


def _scenario(name: str, value: Any, graph: ToolGraph, source: str) -> Task:
    key = f"scenarios.{name}"
    if not isinstance(value, Mapping):
        raise GraphError(source, key, repr(value), f"a mapping with {', '.join(SCENARIO_KEYS)}")
    for field in value:
        if field not in SCENARIO_KEYS:
            raise GraphError(source, f"{key}.{field}", "an unknown key", f"one of {', '.join(SCENARIO_KEYS)}")
    down = value.get("down") or []
    if not isinstance(down, list):
        raise GraphError(source, f"{key}.down", repr(down), "a list of tools")
    for tool in down:
        if tool not in graph.index:
            raise GraphError(source, f"{key}.down", f"the unknown tool {tool!r}", f"one of {', '.join(graph.index)}")
    risk = value.get("risk", 0.0)
    if isinstance(risk, bool) or not isinstance(risk, (int, float)) or not 0 <= risk <= 1:
        raise GraphError(source, f"{key}.risk", repr(risk), "a number in [0, 1]")
    text = f"{graph.name} {name}: {value.get('text', 'reach ' + repr(_goal(graph)))}."
    return Task(name, graph, graph.name, text, float(risk), tuple(down))


def _goal(graph: ToolGraph) -> str:
    return graph.tools[graph.goals[0].tool].name


def _hand_made(name: str, files: tuple[str, ...]) -> Suite:
    tasks = [task for file in files for task in file_tasks(GRAPHS / f"{file}.yaml")]
    return Suite(name, tuple(tasks), SCENARIO, only_split="test")
