"""EffortRoute as Gymnasium environments; the spec card is the docstring of the package."""

from __future__ import annotations

from rlroute.envs import effort_route
from rlroute.envs.effort_route.dynamics import EffortRouteDynamics
from rlroute.envs.faces import RoutingEnv, RoutingVectorEnv


class EffortRouteVectorEnv(RoutingVectorEnv):
    __doc__ = effort_route.__doc__
    dynamics_type = EffortRouteDynamics


class EffortRouteEnv(RoutingEnv):
    __doc__ = effort_route.__doc__
    vector_type = EffortRouteVectorEnv
