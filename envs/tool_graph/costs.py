"""Prices of all ways through padded graphs at once: the features behind `through` and `slack`.

An estimate by sums over inputs: exact where joins are `any`; where an `all` join needs two tools that share an input,
that input is counted twice. Exact plans for one graph are in `plans`.
"""

from __future__ import annotations

import numpy as np

from rlroute.envs.tool_graph.table import GraphTable

BLOCKED = 1e6  # a price that no way through is worth


def ways_through(table: GraphTable, price: np.ndarray, executed: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Price of the cheapest way to the goal through each tool, (N, T); `BLOCKED` and more where there is none.

    `price` (N, T) is that of executing a tool, `executed` (N, T) what is there already, `goal` (N,) a tool.
    """
    num_envs, num_tools = price.shape
    own = np.where(executed, 0.0, price)
    reach = np.full((num_envs, num_tools), BLOCKED)  # of executing a tool from where the episode stands
    inputs = np.zeros((num_envs, num_tools))  # of all inputs that a tool with an `all` join needs
    for t in range(num_tools):
        before = table.before[:, t]  # (N, T)
        total = np.where(before, reach, 0.0).sum(axis=1)
        least = np.where(before, reach, BLOCKED).min(axis=1)
        inputs[:, t] = total
        needed = np.where(table.joins_all[:, t], total, np.where(table.num_before[:, t] > 0, least, 0.0))
        reach[:, t] = np.where(executed[:, t], 0.0, own[:, t] + needed)
    ahead = np.full((num_envs, num_tools), BLOCKED)  # from a tool, once executed, to the goal
    rows = np.arange(num_envs)
    known = goal >= 0
    ahead[rows[known], goal[known]] = 0.0
    for t in range(num_tools - 1, -1, -1):
        after = table.before[:, :, t]  # (N, T): u follows t
        others = np.where(table.joins_all, inputs - reach[:, [t]], 0.0)
        least = np.where(after, ahead + np.where(executed, 0.0, own + others), BLOCKED).min(axis=1)
        ahead[:, t] = np.minimum(ahead[:, t], least)
    return np.minimum(reach + ahead, BLOCKED)
