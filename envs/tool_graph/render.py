"""A picture of a tool graph and of the walk taken on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlroute.envs.tool_graph.graph import ToolGraph, members

IDLE, EXECUTED, FAILED, REROUTED = "#c9ced6", "#1f8a8a", "#d1495b", "#e08e2b"
LEGEND = {"executed": EXECUTED, "failed": FAILED, "rerouted after a failure": REROUTED, "not called": IDLE}


def layers(graph: ToolGraph) -> list[list[int]]:
    """Tools by their longest distance from the start, those of a layer by where their inputs stand."""
    depth: list[int] = []
    for t in range(graph.size):
        depth.append(1 + max((depth[p] for p in members(graph.predecessors[t])), default=-1))
    found: list[list[int]] = [[t for t in range(graph.size) if depth[t] == d] for d in range(max(depth) + 1)]
    height: dict[int, float] = {}
    for layer in found:
        layer.sort(key=lambda t: _mean([height[p] for p in members(graph.predecessors[t])]))
        for i, t in enumerate(layer):
            height[t] = i - (len(layer) - 1) / 2
    return found


def draw_walk(graph: ToolGraph, calls: Sequence[tuple[int, bool]], title: str) -> np.ndarray:
    """The graph after `calls` (tool, whether it succeeded), as an image (H, W, 3) uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure_of(graph, calls, title))
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[:, :, :3])


def figure_of(graph: ToolGraph, calls: Sequence[tuple[int, bool]], title: str) -> Any:
    """The picture as a matplotlib Figure."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    placed = layers(graph)
    tallest = max(map(len, placed))
    figure = Figure(figsize=(max(5.0, 1.75 * len(placed)), max(2.6, 0.62 * tallest + 1.5)), dpi=110)
    axis = figure.add_axes((0.01, 0.11, 0.98, 0.78))
    axis.set_axis_off()
    axis.set_title(title, fontsize=10, loc="left")
    at = {t: (float(x), (len(layer) - 1) / 2 - i) for x, layer in enumerate(placed) for i, t in enumerate(layer)}
    colours, edges = _colours(graph, calls)
    for t, tool in enumerate(graph.tools):
        for name, _ in tool.after:
            p = graph.index[name]
            taken = edges.get((p, t))
            axis.annotate(
                "",
                xy=at[t],
                xytext=at[p],
                arrowprops={
                    "arrowstyle": "-|>",
                    "color": taken or IDLE,
                    "lw": 2.2 if taken else 0.9,
                    "shrinkA": 26,
                    "shrinkB": 30,
                    "connectionstyle": f"arc3,rad={0.0 if at[t][0] - at[p][0] <= 1 else 0.18}",
                },
                zorder=2 if taken else 1,
            )
    values = {goal.tool: goal.value for goal in graph.goals}
    for t, tool in enumerate(graph.tools):
        marks = ["all inputs"] if tool.join == "all" else []
        marks += [f"irreversible: {tool.effect}"] if tool.effect else []
        marks += [f"goal, worth {values[t]:g}"] if t in values else []
        colour = colours.get(t, IDLE)
        axis.annotate(
            tool.name.replace("_", " "),
            at[t],
            ha="center",
            va="center",
            fontsize=8,
            color="white" if t in colours else "#30343b",
            bbox={
                "boxstyle": "round,pad=0.45",
                "facecolor": colour if t in colours else "#f3f5f8",
                "edgecolor": "#30343b" if tool.effect else colour,
                "linewidth": 1.8 if tool.effect else 1.0,
            },
            zorder=4,
        )
        if marks:
            x, y = at[t]
            axis.text(x, y - 0.33, "\n".join(marks), ha="center", va="top", fontsize=6, color="#555b66", zorder=5)
    axis.set_xlim(-0.55, len(placed) - 0.45)
    axis.set_ylim(-tallest / 2 - 0.35, tallest / 2 + 0.1)
    handles = [Patch(color=colour, label=name) for name, colour in LEGEND.items()]
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), fontsize=7, frameon=False)
    return figure


def _colours(graph: ToolGraph, calls: Sequence[tuple[int, bool]]) -> tuple[dict[int, str], dict[tuple[int, int], str]]:
    """Colours of the tools that were called, and of the edges they were called along."""
    tools: dict[int, str] = {}
    edges: dict[tuple[int, int], str] = {}
    executed, failed_before = 0, False
    for tool, succeeded in calls:
        tools[tool] = colour = FAILED if not succeeded else REROUTED if failed_before else EXECUTED
        inputs = members(graph.predecessors[tool] & executed)
        if graph.tools[tool].join == "any" and inputs:
            inputs = [min(inputs, key=lambda p: float(graph.edge_cost_usd[tool, p]))]
        edges |= {(p, tool): colour for p in inputs}
        executed |= int(succeeded) << tool
        failed_before = not succeeded
    return tools, edges


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
