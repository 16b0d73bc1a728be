"""ToolGraph over texts: which tool to call, or whether to ask, to settle for less, to hand over or to finish."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from rlroute.envs.decisions import DecisionTextEnv
from rlroute.envs.prompts import number
from rlroute.envs.tool_graph.env import ToolGraphEnv
from rlroute.envs.tool_graph.graph import Tool, ToolGraph


class ToolGraphTextEnv(DecisionTextEnv):
    """ToolGraph, see `rlroute.envs.tool_graph`, over texts.

    ## Observation
    The prompt lists the tools of the graph with cost, latency, inputs and side effects, the goals, and the price of a
    consultation; after every turn ``<state>…</state>`` tells which tools are callable, executed, known to be down or
    under an alarm, the risk, and the tools on the cheapest way to the goal under current beliefs.

    ## Action
    A turn of text: ``<think>why</think><route>NAME</route>``, NAME one of consult, demote, escalate, finish, or
    ``call TOOL``. See `rlroute.envs.decisions`.

    ## Reward, episode end
    Those of the numeric face; a malformed turn is rewarded with −1 and counts towards the time limit.

    ## Version history
    v0: first version.
    """

    numeric_type = ToolGraphEnv
    folder: ClassVar[Path] = Path(__file__).parent
    fields: ClassVar[tuple[str, ...]] = ("tools", "goals", "cost_weight", "model_cost", "state")

    def situation(self) -> dict[str, str]:
        dynamics = self.dynamics
        graph: ToolGraph = dynamics.graph(0)
        goals = (f"{graph.tools[goal.tool].name} (worth {goal.value:g})" for goal in graph.goals)
        return {
            "tools": "\n".join(map(tool_line, graph.tools)),
            "goals": ", then ".join(goals),
            "cost_weight": number(dynamics.w_cost[0]),
            "model_cost": number(dynamics.slots["model_cost"][0]),
            "state": self.state(),
        }

    def name(self, action: int, dynamics: Any) -> str:
        kind, tool = dynamics.layout.describe_action(action)
        if tool is None:
            return str(kind)
        tools = dynamics.graph(0).tools
        return f"call {tools[tool].name}" if tool < len(tools) else f"call tool {tool}"  # padding, always masked

    def state(self) -> str:
        dynamics = self.dynamics
        names = [tool.name for tool in dynamics.graph(0).tools]
        seen, where = dynamics.observation[0], dynamics.layout.slices()

        def those(feature: str) -> str:
            flagged = (name for t, name in enumerate(names) if seen[where[f"{feature}/{t}"]][0] > 0)
            return ", ".join(flagged) or "none"

        progress = dynamics.progress
        lines = [f"{label}: {those(feature)}" for label, feature in SHOWN]
        goal = dynamics.graph(0).goals[int(dynamics.slots["goal_rank"][0])]
        lines += [
            f"goal: {names[goal.tool]} (worth {goal.value:g})",
            f"risk: {seen[where['risk']][0]:.2f}",
            f"consulted: {int(progress.model_calls[0])}",
        ]
        return "\n".join(lines)


SHOWN = (
    ("callable", "callable"),
    ("executed", "executed"),
    ("known to be down", "known_down"),
    ("alarm", "alarm"),
    ("on the cheapest way", "on_way"),
)


def tool_line(tool: Tool) -> str:
    """What there is to know of a tool before anything is called."""
    edges = [f"{name} (+{number(usd)} USD)" if usd else name for name, usd in tool.after]
    inputs = f" {'and' if tool.join == 'all' else 'or'} ".join(edges)
    parts = [f"{number(tool.cost_usd)} USD", f"{number(tool.latency_s)} s", f"reliability {number(tool.reliability)}"]
    parts += [f"after {inputs}"] if inputs else []
    parts += [f"side effect {tool.effect}"] if tool.effect else []
    parts += [f"by {tool.provider}"] if tool.provider else []
    return f"- {tool.name}: {', '.join(parts)}"
