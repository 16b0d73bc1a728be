"""What no ToolGraph policy can beat: the clairvoyant and, on small graphs with lasting faults, the belief-optimal one.

`clairvoyant` knows all faults and the risk of an episode: the dearest of its ends, less the cheapest way there, by
exact search up to 10 tools and by mixed-integer programming beyond. A tool counts as usable if it is healthy at any
step, so where faults come and go it is an upper bound. `latent-knowing` is the belief-optimal policy of `belief`, which
knows the probabilities of an episode but no draw, played on the draws that all others meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlroute.draws import Stream, integers
from rlroute.envs.terms import ends
from rlroute.envs.tool_graph.belief import LARGEST, BeliefOptimalPolicy, is_static
from rlroute.envs.tool_graph.faults import NEVER, SCENARIO, faults_of, regime_records
from rlroute.envs.tool_graph.graph import ToolGraph, members
from rlroute.envs.tool_graph.plans import Plan, cheapest_completion
from rlroute.envs.tool_graph.suites import STATES
from rlroute.envs.tool_graph.utility import ESCALATED_VALUE
from rlroute.evaluation import Evaluation, MakeEnv, Setting, evaluate
from rlroute.rollout import places


def clairvoyant(
    graph: ToolGraph, unusable: int, risk: bool, cost_weight: float, cheapest_usd: float
) -> tuple[float, float, float]:
    """(utility, value of the end, cost in USD) of the best episode, knowing which tools never work and the risk."""
    scale = cost_weight / cheapest_usd
    harm = graph.effect >= 0
    price = [tool.cost_usd * scale + float(risk and harm[t]) for t, tool in enumerate(graph.tools)]
    best = (ESCALATED_VALUE, ESCALATED_VALUE, 0.0)
    for goal in graph.goals:
        search = cheapest_completion if graph.size <= LARGEST else integer_completion
        plan = search(graph, goal.tool, 0, unusable, price, scale)
        if plan is not None and goal.value - plan.cost > best[0]:
            best = (goal.value - plan.cost, goal.value, cost_of(graph, plan))
    return best


def cost_of(graph: ToolGraph, plan: Plan) -> float:
    """USD that the tools of a plan cost, called in order from nothing."""
    executed, total = 0, 0.0
    for t in plan.tools:
        total += graph.call_cost_usd(t, executed)
        executed |= 1 << t
    return total


def integer_completion(
    graph: ToolGraph, goal: int, executed: int, blocked: int, price: Sequence[float], edge_scale: float = 1.0
) -> Plan | None:
    """`plans.cheapest_completion` as a mixed-integer programme: the same answer by a search of another kind.

    One binary variable a tool (is it called?) and one an edge into a tool with an `any` join (is it called after
    that?). A called tool needs one input (`any`) or all (`all`); of tools with one side effect at most one is called.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_matrix

    size = graph.size
    for t in members(executed):
        blocked |= graph.rivals[t]
    edges = [(p, t) for t in range(size) if graph.tools[t].join == "any" for p in members(graph.predecessors[t])]
    objective = np.zeros(size + len(edges))
    upper = np.ones(size + len(edges))
    rows: list[dict[int, float]] = []  # each: sum of coefficient · variable ≤ 0, but for the side effects
    limits: list[float] = []
    for t in range(size):
        done = executed >> t & 1
        objective[t] = 0.0 if done else price[t]
        if blocked >> t & 1 and not done:
            upper[t] = 0.0
        if graph.tools[t].join == "all" and not done:
            inputs = members(graph.predecessors[t])
            objective[t] += edge_scale * sum(float(graph.edge_cost_usd[t, p]) for p in inputs)
            rows += [{t: 1.0, p: -1.0} for p in inputs]
    for k, (p, t) in enumerate(edges):
        objective[size + k] = 0.0 if executed >> t & 1 else edge_scale * float(graph.edge_cost_usd[t, p])
        rows.append({size + k: 1.0, p: -1.0})
    for t in range(size):
        into = [size + k for k, (_, u) in enumerate(edges) if u == t]
        if into and not executed >> t & 1:
            rows.append({t: 1.0, **dict.fromkeys(into, -1.0)})
    limits = [0.0] * len(rows)
    for effect in range(int(graph.effect.max(initial=-1)) + 1):
        tools = [t for t in range(size) if graph.effect[t] == effect and not executed >> t & 1]
        rows.append(dict.fromkeys(tools, 1.0))
        limits.append(1.0)
    lower = np.zeros(len(objective))
    lower[goal] = 1.0
    for t in members(executed):
        lower[t] = 1.0
    if (lower > upper).any():
        return None
    matrix = csr_matrix(
        (
            [x for row in rows for x in row.values()],
            ([i for i, row in enumerate(rows) for _ in row], [j for row in rows for j in row]),
        ),
        shape=(len(rows), len(objective)),
    )
    constraints = LinearConstraint(matrix, -np.inf, np.array(limits)) if rows else ()
    solved = milp(objective, integrality=np.ones(len(objective)), bounds=Bounds(lower, upper), constraints=constraints)
    if solved.x is None:
        return None
    chosen = [t for t in range(size) if solved.x[t] > 0.5 and not executed >> t & 1]
    return Plan(tuple(chosen), float(solved.fun))


def add_ceilings(
    evaluation: Evaluation, make_env: MakeEnv, settings: Sequence[Setting], episodes: int, seed: int
) -> None:
    """Clairvoyant, and latent-knowing where it can be computed, on the same draws as all other policies.

    Both suppose fixed weights, prices and caps of model calls, no budget in USD, no weight of latency and no early time
    limit; latent-knowing moreover one regime whose faults last, and graphs of at most 10 tools. Where that is not so
    at every setting, they are left out.
    """
    known, solvable = [], True
    for setting in settings:
        env = make_env(evaluation.split, **setting.arguments)
        dynamics = env.dynamics
        if not _is_plain(dynamics):
            return
        solvable &= _is_solvable(dynamics)
        env.reset(seed=seed)  # the key of the rollouts
        known.append(np.concatenate([clairvoyants(env, episodes, r) for r in range(episodes)], axis=1))
    group = np.tile(dynamics.arrays.group[dynamics.roots], episodes)
    table = np.array(known)  # (settings, 3, M)
    evaluation.add_ceiling("clairvoyant", group, table[:, 1], table[:, 2], table[:, 0])
    if solvable:
        played = {"latent-knowing": BeliefOptimalPolicy()}
        evaluate(make_env, settings, played, evaluation.split, episodes, seed, "ceiling", into=evaluation)


def clairvoyants(env: Any, episodes: int, repetition: int) -> np.ndarray:
    """(3, M) utility, value of the end and USD, of what `rollout` draws when it plays all tasks for a repetition."""
    d = env.dynamics
    slot, episode = places(env, len(d.roots), episodes, repetition)
    tasks = d.roots // len(STATES)
    regime = integers(d.key, len(d.regimes), slot, episode, Stream.REGIME)
    regimes, scenario = regime_records(d.regimes), d.faults_name == SCENARIO
    faults, hazards = faults_of(d.key, slot, episode, d.tables, regimes, tasks, regime, scenario)
    never = (faults["start"] == 0) & (faults["stop"] == NEVER)
    weight = ends(d.arguments.preference)[0]
    found = []
    for i, task in enumerate(tasks):
        unusable = sum(1 << int(t) for t in np.flatnonzero(never[i]))
        graph, cheapest = d.suite.tasks[task].graph, float(d.tables.graphs["cheapest_usd"][task])
        found.append(clairvoyant(graph, unusable, bool(hazards["risk"][i]), weight, cheapest))
    return np.array(found).T


def _is_plain(dynamics: Any) -> bool:
    """Whether episodes are played for fixed terms, and nothing but their end cuts them short."""
    arguments = dynamics.arguments
    terms = [arguments.preference, arguments.model_cost, arguments.budget_calls]
    fixed = all(low == high for low, high in map(ends, (term for term in terms if term is not None)))
    free = arguments.budget_usd is None and ends(arguments.latency_preference) == (0.0, 0.0)
    return bool(fixed and free and dynamics.max_episode_steps >= dynamics.default_max_episode_steps)


def _is_solvable(dynamics: Any) -> bool:
    sizes = [dynamics.suite.tasks[task].graph.size for task in dynamics.roots // len(STATES)]
    lasting = len(dynamics.regimes) == 1 and is_static(dynamics.regimes) and dynamics.faults_name != SCENARIO
    return max(sizes) <= LARGEST and lasting
