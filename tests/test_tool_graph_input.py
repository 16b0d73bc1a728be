"""Graphs that cannot be used are refused with file, key and value; those that can are kept as they were given."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from tool_graphs import REFUND

from rlroute.envs.tool_graph.graph import GraphError, load_graph, parse_graph, parse_yaml
from rlroute.envs.tool_graph.healing_suites import folder_suite
from rlroute.envs.tool_graph.suites import load_suite


def changed(path: str, value: Any) -> dict[str, Any]:
    """The refund graph with one entry changed; `path` is its keys, joined by slashes."""
    data = deepcopy(REFUND)
    *keys, last = path.split("/")
    inner: Any = data
    for key in keys:
        inner = inner.setdefault(key, {})
    inner[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "key", "said"),
    [
        ("tools/lookup/after", ["e-mail"], "tools.", "the cycle"),
        ("tools/card/after", {"phone": 1.0}, "tools.card.after", "'phone'"),
        ("tools/card/after", {"lookup": -1.0}, "tools.card.after.lookup", "-1.0"),
        ("tools/card/cost_usd", float("nan"), "tools.card.cost_usd", "nan"),
        ("tools/card/latency_s", "fast", "tools.card.latency_s", "'fast'"),
        ("tools/card/reliability", 1.5, "tools.card.reliability", "1.5"),
        ("tools/card/join", "most", "tools.card.join", "'most'"),
        ("tools/card/provider", "acme", "tools.card.provider", "'acme'"),
        ("tools/card/price", 3, "tools.card.price", "an unknown key"),
        ("providers/acme", -0.1, "providers.acme", "-0.1"),
        ("goals/phone", 0.3, "goals.phone", "an unknown tool"),
        ("goals/card", 2.0, "goals.card", "2.0"),
        ("goals/voucher", 0.7, "goals.voucher", "0.7"),
        ("goals", {}, "goals", "no goal"),
        ("tools", {}, "tools", "no tool"),
        ("edges", [], "(top).edges", "an unknown key"),
    ],
)
def test_a_fault_is_named_with_file_key_and_value(tmp_path: Path, path: str, value: Any, key: str, said: str) -> None:
    file = tmp_path / "refund.yaml"
    file.write_text(yaml.safe_dump(changed(path, value), sort_keys=False))
    with pytest.raises(GraphError) as error:
        load_graph(file)
    assert error.value.source == str(file)
    assert key in error.value.key
    assert said in str(error.value)


def test_a_cycle_through_all_joins_is_named_whole() -> None:
    tools = {
        "a": {"after": ["c"], "join": "all"},
        "b": {"after": ["a"], "join": "all"},
        "c": {"after": ["b"], "join": "all"},
    }
    with pytest.raises(GraphError, match=r"a → b → c → a.*all"):
        parse_graph({"tools": tools, "goals": {"c": 1.0}}, "x.yaml")


def test_a_goal_that_would_need_one_side_effect_twice_is_out_of_reach() -> None:
    data = changed("tools/e-mail/join", "all")
    with pytest.raises(GraphError, match="no outage-free path"):
        parse_graph(data, "x.yaml")


def test_what_is_no_yaml_or_names_a_key_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "graph.yaml"
    file.write_text("tools: [")
    with pytest.raises(GraphError, match=r"graph\.yaml"):
        load_graph(file)
    with pytest.raises(GraphError, match="No such file"):
        load_graph(tmp_path / "missing.yaml")
    with pytest.raises(GraphError, match="'card' twice"):
        parse_yaml("tools:\n  card: {}\n  card: {}\n", "x")


@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        ({"down": ["phone"]}, "'phone'"),
        ({"down": "card"}, "'card'"),
        ({"risk": 2}, "2"),
        ({"broken": ["card"]}, "unknown key"),
        (["card"], "a mapping"),
    ],
)
def test_a_scenario_that_cannot_be_played_is_named(tmp_path: Path, scenario: Any, said: str) -> None:
    (tmp_path / "refund.yaml").write_text(yaml.safe_dump({**REFUND, "scenarios": {"X-1": scenario}}, sort_keys=False))
    with pytest.raises(GraphError, match=r"scenarios\.X-1") as error:
        folder_suite(tmp_path)
    assert said in str(error.value)


def test_a_folder_of_graphs_is_a_suite(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"no \*\.yaml"):
        load_suite(tmp_path)
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({**REFUND, "name": "a"}, sort_keys=False))
    (tmp_path / "b.yaml").write_text(yaml.safe_dump({**REFUND, "name": "b"}, sort_keys=False))
    suite = load_suite(tmp_path)
    assert [task.id for task in suite.tasks] == ["a", "b"]
    assert suite.faults == "independent"
    (tmp_path / "b.yaml").write_text(
        yaml.safe_dump({**REFUND, "scenarios": {"B-1": {"down": ["card"]}}}, sort_keys=False)
    )
    with pytest.raises(GraphError, match="with and without"):
        load_suite(tmp_path)
    (tmp_path / "a.yaml").unlink()
    assert load_suite(tmp_path).tasks[0].down == ("card",)
    assert load_suite(tmp_path).faults == "scenario"
