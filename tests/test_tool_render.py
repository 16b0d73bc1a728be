"""The picture of a walk on a tool graph shows what was called, and how it went."""

from __future__ import annotations

import numpy as np
import pytest
from tool_graphs import REFUND, random_graph

from rlroute.envs.tool_graph.graph import GraphError, parse_graph
from rlroute.envs.tool_graph.render import draw_walk, figure_of, layers


def test_every_tool_is_named_and_the_legend_stands() -> None:
    graph = parse_graph(REFUND, "refund")
    figure = figure_of(graph, [(0, True)], "title")
    said = {text.get_text() for text in figure.axes[0].texts}
    assert {tool.name for tool in graph.tools} <= said
    assert "goal, worth 1" in said
    assert figure.legends


def test_a_failure_and_a_reroute_change_the_picture() -> None:
    graph = parse_graph(REFUND, "refund")
    walked = [draw_walk(graph, calls, "t") for calls in ([(0, True), (1, True)], [(0, True), (1, False), (2, True)])]
    assert walked[0].dtype == np.uint8
    assert walked[0].ndim == 3
    assert walked[0].shape[2] == 3
    assert not np.array_equal(walked[0], walked[1])
    assert np.array_equal(walked[0], draw_walk(graph, [(0, True), (1, True)], "t"))


@pytest.mark.parametrize("size", [2, 40])
def test_small_and_large_graphs_are_drawn(size: int) -> None:
    rng = np.random.default_rng(size)
    while True:
        try:
            graph = parse_graph(random_graph(rng, size, joins_all=0.1, effects=0), "random")
            break
        except GraphError:
            continue
    assert sorted(t for layer in layers(graph) for t in layer) == list(range(size))
    assert draw_walk(graph, [], "nothing called").std() > 0
