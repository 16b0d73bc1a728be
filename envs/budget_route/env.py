"""BudgetRoute as Gymnasium environments; the spec card is the docstring of the package."""

from __future__ import annotations

from rlroute.envs import budget_route
from rlroute.envs.budget_route.dynamics import BudgetRouteDynamics
from rlroute.envs.faces import RoutingEnv, RoutingVectorEnv


class BudgetRouteVectorEnv(RoutingVectorEnv):
    __doc__ = budget_route.__doc__
    dynamics_type = BudgetRouteDynamics


class BudgetRouteEnv(RoutingEnv):
    __doc__ = budget_route.__doc__
    vector_type = BudgetRouteVectorEnv
