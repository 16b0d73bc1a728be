"""ThinkRoute as Gymnasium environments; the spec card is the docstring of the package."""

from __future__ import annotations

from rlroute.envs import think_route
from rlroute.envs.faces import RoutingEnv, RoutingVectorEnv
from rlroute.envs.think_route.dynamics import ThinkRouteDynamics


class ThinkRouteVectorEnv(RoutingVectorEnv):
    __doc__ = think_route.__doc__
    dynamics_type = ThinkRouteDynamics


class ThinkRouteEnv(RoutingEnv):
    __doc__ = think_route.__doc__
    vector_type = ThinkRouteVectorEnv
