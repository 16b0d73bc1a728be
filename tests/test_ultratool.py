"""Task graphs from a recording of real tools: every gold plan is a way through its graph."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from rlroute.envs.tool_graph.graph import GraphError
from rlroute.envs.tool_graph.suites import Suite, load_suite
from rlroute.envs.tool_graph.ultratool import ultratool_suite

RECORDING = Path(os.environ.get("RLROUTE_DATA", "")) / "tool_graphs" / "ultratool"
NODES = [
    {"id": name, "desc": name, "domain": ["Travel"]} for name in ("search", "search_more", "book_flight", "cancel")
]
LINKS = [("search", "book_flight"), ("search_more", "book_flight")]
PLAN = {"user_request": "Book it.", "task_nodes": [{"task": "search"}, {"task": "book_flight"}]}


@pytest.fixture(scope="module")
def suite() -> Suite:
    if not RECORDING.is_dir():
        pytest.skip("RLROUTE_DATA names no folder with tool_graphs/ultratool")
    return load_suite("ultratool")


def write(folder: Path, lines: list[str], nodes: object = NODES) -> Path:
    links = [{"source": a, "target": b} for a, b in LINKS]
    (folder / "graph_desc.json").write_text(json.dumps({"nodes": nodes, "links": links}))
    (folder / "data.json").write_text("\n".join(lines))
    return folder


def test_every_gold_plan_is_a_way_through_its_graph(suite: Suite) -> None:
    assert len(suite.tasks) > 800
    plans = [json.loads(line) for line in (RECORDING / "data.json").read_text().splitlines()]
    texts = {plan["user_request"].strip(): [node["task"] for node in plan["task_nodes"]] for plan in reversed(plans)}
    for task in suite.tasks:
        executed = 0
        for name in [*texts[task.text], "done"]:
            tool = task.graph.index[name]
            assert task.graph.callable(tool, executed)
            assert not task.graph.repeats_effect(tool, executed)
            executed |= 1 << tool
        assert task.graph.holds(executed) == executed


def test_no_set_of_tools_lies_in_two_splits(suite: Suite) -> None:
    splits = suite.splits()[suite.arrays.root]
    of_group: dict[str, set[int]] = {}
    for task, split in zip(suite.tasks, splits, strict=True):
        of_group.setdefault(task.group, set()).add(int(split))
    assert all(len(found) == 1 for found in of_group.values())
    assert len(np.unique(splits)) == 3


def test_a_tool_is_the_same_in_every_task(suite: Suite) -> None:
    numbers: dict[str, set[tuple[float, float, float]]] = {}
    for task in suite.tasks:
        for tool in task.graph.tools:
            numbers.setdefault(tool.name, set()).add((tool.cost_usd, tool.latency_s, tool.reliability))
    assert all(len(found) == 1 for found in numbers.values())
    assert len(numbers) > 200


def test_a_stand_in_shares_a_domain_and_a_neighbour(tmp_path: Path) -> None:
    made = ultratool_suite(write(tmp_path, [json.dumps(PLAN)]))
    graph = made.tasks[0].graph
    assert set(graph.index) == {"search", "search_more", "book_flight", "done", "partial"}
    assert graph.tools[graph.index["book_flight"]].effect == "book_flight"
    assert made.content_hash == ultratool_suite(tmp_path).content_hash


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([json.dumps(PLAN), "{"], "line 2"),
        ([json.dumps({"user_request": "x"})], "task_nodes"),
        ([json.dumps({**PLAN, "task_nodes": [{"task": "fly"}]})], "'fly'"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        ultratool_suite(write(tmp_path, lines))


def test_a_missing_or_malformed_graph_is_named(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="graph_desc"):
        ultratool_suite(tmp_path)
    with pytest.raises(GraphError, match="nodes and links"):
        ultratool_suite(write(tmp_path, [json.dumps(PLAN)], nodes=[{"name": "x"}]))
