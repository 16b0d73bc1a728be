"""The registry: one row per environment family. Everything that runs over all environments reads this table."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium as gym


@dataclass(frozen=True)
class EnvEntry:
    """An environment by id, with the import paths of its three faces and of what a live loop observes through."""

    id: str
    entry_point: str
    vector_entry_point: str
    text_entry_point: str
    live: str
    summary: str

    @property
    def text_id(self) -> str:
        """The id of the text face: ``rlroute/ThinkRouteText-v0`` beside ``rlroute/ThinkRoute-v0``."""
        name, version = self.id.rsplit("-", 1)
        return f"{name}Text-{version}"


REGISTRY = (
    EnvEntry(
        id="rlroute/ThinkRoute-v0",
        entry_point="rlroute.envs.think_route.env:ThinkRouteEnv",
        vector_entry_point="rlroute.envs.think_route.env:ThinkRouteVectorEnv",
        text_entry_point="rlroute.envs.think_route.text:ThinkRouteTextEnv",
        live="rlroute.envs.think_route.live:ThinkRouteLive",
        summary="Think, call models and accept an answer, over several rounds (after Router-R1).",
    ),
    EnvEntry(
        id="rlroute/BudgetRoute-v0",
        entry_point="rlroute.envs.budget_route.env:BudgetRouteEnv",
        vector_entry_point="rlroute.envs.budget_route.env:BudgetRouteVectorEnv",
        text_entry_point="rlroute.envs.budget_route.text:BudgetRouteTextEnv",
        live="rlroute.envs.budget_route.live:BudgetRouteLive",
        summary="Cheap or expensive model at every step of a task, under a budget (after BoPO).",
    ),
    EnvEntry(
        id="rlroute/EffortRoute-v0",
        entry_point="rlroute.envs.effort_route.env:EffortRouteEnv",
        vector_entry_point="rlroute.envs.effort_route.env:EffortRouteVectorEnv",
        text_entry_point="rlroute.envs.effort_route.text:EffortRouteTextEnv",
        live="rlroute.envs.effort_route.live:EffortRouteLive",
        summary="How hard one model should think at every step of a task (after Ares).",
    ),
    EnvEntry(
        id="rlroute/ToolGraph-v0",
        entry_point="rlroute.envs.tool_graph.env:ToolGraphEnv",
        vector_entry_point="rlroute.envs.tool_graph.env:ToolGraphVectorEnv",
        text_entry_point="rlroute.envs.tool_graph.text:ToolGraphTextEnv",
        live="rlroute.envs.tool_graph.live:ToolGraphLive",
        summary="Get through a graph of tools that fail in hidden ways (after Self-Healing Router).",
    ),
)


def entry(env_id: str) -> EnvEntry:
    """The row of an id, of numbers or of text; a prefix ``rlroute:``, which makes Gymnasium import, may stand there."""
    for row in REGISTRY:
        if env_id.removeprefix("rlroute:") in (row.id, row.text_id):
            return row
    raise ValueError(f"unknown environment {env_id!r}: expected one of {', '.join(row.id for row in REGISTRY)}")


def register_all() -> None:
    """Make every row known to ``gymnasium.make`` and ``gymnasium.make_vec``; a second call changes nothing."""
    for row in REGISTRY:
        if row.id not in gym.registry:
            gym.register(id=row.id, entry_point=row.entry_point, vector_entry_point=row.vector_entry_point)
            gym.register(id=row.text_id, entry_point=row.text_entry_point)
