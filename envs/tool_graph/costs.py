"""Prices of all ways through padded graphs at once: the features behind `through` and `slack`.

An estimate by sums over inputs: exact where joins are `any`; where an `all` join needs two tools that share an input,
that input is counted twice. Exact plans for one graph are in `plans`.
"""

from __future__ import annotations

import numpy as np

from rlroute.envs.tool_graph.table import GraphTable

BLOCKED = 1e6  # a price that no way through is worth


def ways_through(table: GraphTable, price: np.ndarray, executed: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """Price of the cheapest way to each of G goals through each tool, (N, T, G); `BLOCKED` where there is none.

    `price` (N, T) is that of executing a tool, `executed` (N, T) what is there already, `goals` (N, G) tools, −1 none.
    """
    # Slots last: what is reduced over a handful of neighbours then runs along memory.
    num_envs, num_tools = price.shape
    slots = np.arange(num_envs)
    own = np.where(executed, 0.0, price).T  # (T, N)
    before = np.ascontiguousarray(table.inputs.transpose(1, 2, 0))  # (T, K, N)
    after = np.ascontiguousarray(table.outputs.transpose(1, 2, 0))
    is_input = before < num_tools
    joins_all, first, done = table.joins_all.T, (table.num_before == 0).T, executed.T
    # A last row stands for the tools that padded lists of neighbours name.
    reach = np.full((num_tools + 1, num_envs), BLOCKED)  # of executing a tool from where the episode stands
    inputs = np.zeros((num_tools + 1, num_envs))  # of all inputs that a tool with an `all` join needs
    for t in range(num_tools):
        from_there = reach[before[t], slots]  # (K, N)
        inputs[t] = np.where(is_input[t], from_there, 0.0).sum(axis=0)
        needed = np.where(joins_all[t], inputs[t], from_there.min(axis=0))
        reach[t] = np.where(done[t], 0.0, own[t] + np.where(first[t], 0.0, needed))
    ahead = np.full((num_tools + 1, num_envs, goals.shape[1]), BLOCKED)  # from a tool, once executed, to the goals
    envs, which = np.nonzero(goals >= 0)
    ahead[goals[envs, which], envs, which] = 0.0
    # What a step onto a tool costs: its own price, and with an `all` join its inputs beside the one one comes from.
    shared = joins_all & ~done
    onto = np.full((num_tools + 1, num_envs), BLOCKED)
    onto[:-1] = own + np.where(shared, inputs[:-1], 0.0)
    counted = np.zeros((num_tools + 1, num_envs))
    counted[:-1] = shared
    for t in range(num_tools - 1, -1, -1):
        there = after[t]  # (K, N)
        step = onto[there, slots] - counted[there, slots] * reach[t]
        ahead[t] = np.minimum(ahead[t], (ahead[there, slots] + step[:, :, None]).min(axis=0))
    return np.minimum(reach[:-1, :, None] + ahead[:-1], BLOCKED).transpose(1, 0, 2)
