"""ToolGraph as Gymnasium environments; the spec card is the docstring of the package."""

from __future__ import annotations

from typing import Any

from rlroute.envs import tool_graph
from rlroute.envs.faces import RoutingEnv, RoutingVectorEnv
from rlroute.envs.tool_graph.dynamics import ToolGraphDynamics

RENDER_MODES = ["ansi", "rgb_array"]


class ToolGraphVectorEnv(RoutingVectorEnv):
    __doc__ = tool_graph.__doc__
    metadata: dict[str, Any] = {**RoutingVectorEnv.metadata, "render_modes": RENDER_MODES}
    dynamics_type = ToolGraphDynamics


class ToolGraphEnv(RoutingEnv):
    __doc__ = tool_graph.__doc__
    metadata: dict[str, Any] = {**RoutingEnv.metadata, "render_modes": RENDER_MODES}
    vector_type = ToolGraphVectorEnv
