"""The registry: one row per environment family. Everything that runs over all environments reads this table."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium as gym


@dataclass(frozen=True)
class EnvEntry:
    """An environment by id, with the import paths of its two faces and of what a live loop observes through."""

    id: str
    entry_point: str
    vector_entry_point: str
    live: str
    summary: str


REGISTRY = (
    EnvEntry(
        id="rlroute/ThinkRoute-v0",
        entry_point="rlroute.envs.think_route.env:ThinkRouteEnv",
        vector_entry_point="rlroute.envs.think_route.env:ThinkRouteVectorEnv",
        live="rlroute.envs.think_route.live:ThinkRouteLive",
        summary="Think, call models and accept an answer, over several rounds (after Router-R1).",
    ),
    EnvEntry(
        id="rlroute/BudgetRoute-v0",
        entry_point="rlroute.envs.budget_route.env:BudgetRouteEnv",
        vector_entry_point="rlroute.envs.budget_route.env:BudgetRouteVectorEnv",
        live="rlroute.envs.budget_route.live:BudgetRouteLive",
        summary="Cheap or expensive model at every step of a task, under a budget (after BoPO).",
    ),
    EnvEntry(
        id="rlroute/EffortRoute-v0",
        entry_point="rlroute.envs.effort_route.env:EffortRouteEnv",
        vector_entry_point="rlroute.envs.effort_route.env:EffortRouteVectorEnv",
        live="rlroute.envs.effort_route.live:EffortRouteLive",
        summary="How hard one model should think at every step of a task (after Ares).",
    ),
    EnvEntry(
        id="rlroute/ToolGraph-v0",
        entry_point="rlroute.envs.tool_graph.env:ToolGraphEnv",
        vector_entry_point="rlroute.envs.tool_graph.env:ToolGraphVectorEnv",
        live="rlroute.envs.tool_graph.live:ToolGraphLive",
        summary="Get through a graph of tools that fail in hidden ways (after Self-Healing Router).",
    ),
)


def entry(env_id: str) -> EnvEntry:
    """The row of an id, with or without the ``rlroute:`` prefix that makes Gymnasium import the package first."""
    for row in REGISTRY:
        if row.id == env_id.removeprefix("rlroute:"):
            return row
    raise ValueError(f"unknown environment {env_id!r}: expected one of {', '.join(row.id for row in REGISTRY)}")


def register_all() -> None:
    """Make every row known to ``gymnasium.make`` and ``gymnasium.make_vec``; a second call changes nothing."""
    for row in REGISTRY:
        if row.id not in gym.registry:
            gym.register(id=row.id, entry_point=row.entry_point, vector_entry_point=row.vector_entry_point)
