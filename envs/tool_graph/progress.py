"""What a router knows of an episode on a tool graph: what was called, what came of it, and what follows from that.

Replay and live use keep the same record by the same kernels, so that both observe the same.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from rlroute.envs.tool_graph.faults import (
    HAZARD,
    REGIME_NAMES,
    holding,
    risk_belief,
    still_down,
)
from rlroute.envs.tool_graph.table import GraphTable
from rlroute.hints import index
from rlroute.jit import bind, kernel, records

UNKNOWN = -1
HEALTHY, HARD, WRONG = range(3)  # what a consultation says of a tool
IMPOSSIBLE = 1e-30  # likelihoods below it are taken for it, so that what was seen is never quite impossible

# What a slot holds beside `rlroute.envs.slots.SLOT`.
TRACE: dict[str, Any] = {
    **HAZARD,  # hidden but for `graph`, `regime` and `risk_alarm`
    "model_cost": np.float64,  # utility lost by a consultation
    "goal": np.int64,  # tool
    "degraded": np.int64,  # tool that is the next degraded goal, NO_GOAL after the last
    "goal_rank": np.int64,  # 0, and 1 more for every demotion
    "known_risk": np.int64,  # 0 or 1 after a consultation, UNKNOWN before
    "risk_belief": np.float64,  # probability that irreversible effects do harm
    "steps": np.int64,  # actions taken
    "tool_calls": np.int64,
    # How it went so far; `outcome` is an index of suites.STATES, and hidden until the end.
    "outcome": np.int64,
    "repeated_effects": np.int64,
    "risk_breaches": np.int64,
    "model_calls": np.int64,
}
# What is known of each tool.
KNOWN: dict[str, Any] = {
    "executed": np.bool_,  # reported success at least once
    "known_down": np.bool_,  # the last thing seen of it is a hard fault
    "known_bad": np.bool_,  # a consultation showed that its output is, or would be, bad
    "may_be_hard": np.bool_,  # nothing seen excludes it
    "may_be_wrong": np.bool_,
    "may_be_healthy": np.bool_,
    "alarm": np.bool_,  # what the monitor shows now
    "effect_done": np.bool_,  # its side effect was done, by whomever
    "stale": np.bool_,  # something of it has changed since it was last observed
    "done": np.bool_,  # executed, and its output is rather good than bad
    "inputs_met": np.int16,  # executed predecessors
    "tool_calls": np.int32,
    "seen_down_at": np.int32,  # step of the last hard fault seen
    "call_cost_usd": np.float64,  # of a call now: by the cheapest edge from an executed input (`any`), or all edges
    "hard": np.float64,  # P(hard fault now)
    "wrong": np.float64,  # P(wrong fault now)
    "likelihood": np.float64,  # of what was seen of it while its provider is up
    "price": np.float64,  # of executing it, see `observation.price_tool`
}


class Known(NamedTuple):
    """N episodes with up to T tools, as far as a router sees them."""

    slots: np.ndarray  # (N,) records of `slots.SLOT` and `TRACE`
    tools: np.ndarray  # (N, T) records of `KNOWN`
    table: GraphTable
    fresh: np.ndarray  # (1,) record of `KNOWN`: what is known of any tool at first, but for its price
    regimes: np.ndarray  # (R,) records of `faults.REGIME_NAMES`

    @classmethod
    def nothing(cls, slots: np.ndarray, table: GraphTable, regimes: np.ndarray) -> Known:
        """Before the first episode in `slots`."""
        fresh = records(1, KNOWN)
        for name in ("may_be_hard", "may_be_wrong", "may_be_healthy", "stale"):
            fresh[name] = True
        return cls(slots, records((len(slots), table.tools.shape[1]), KNOWN), table, fresh, regimes)


# -- what happens -----------------------------------------------------------------------------------------------


@kernel
def clear(known: Known, i: int) -> None:
    """Nothing was done in episode `i` yet; graph, regime, risk signal, alarms and prices are set, or set later."""
    me = known.slots[i]
    me.steps = me.tool_calls = me.model_calls = me.outcome = me.repeated_effects = me.risk_breaches = 0
    me.known_risk = UNKNOWN
    hear_signal(known, i, me.risk_alarm)
    _aim(known, i, 0)
    for t in range(known.tools.shape[1]):
        known.tools[i, t] = known.fresh[0]
        known.tools[i, t].call_cost_usd = known.table.tools[me.graph, t].first_cost_usd


@kernel
def _aim(known: Known, i: int, rank: int) -> None:
    me, goals = known.slots[i], known.table.goals
    me.goal_rank, me.goal, me.degraded = rank, goals[me.graph, rank].tool, goals[me.graph, rank + 1].tool


@kernel
def add_call(known: Known, i: int, t: int, succeeded: bool) -> bool:
    """A call of tool `t` came back; returns whether it repeated a side effect. Beliefs are updated apart."""
    me, tool = known.slots[i], known.tools[i, t]
    tool.stale = True
    tool.tool_calls += 1
    me.tool_calls += 1
    tool.known_down = not succeeded
    if not succeeded:
        tool.seen_down_at = me.steps
    # A success excludes a hard fault, a failure everything else.
    tool.may_be_hard = not succeeded
    tool.may_be_wrong = tool.may_be_healthy = succeeded
    tool.known_bad = tool.known_bad and not succeeded  # it was done again: whether well, nobody said yet
    me.steps += 1
    if not succeeded:
        return False
    g = index(me.graph)
    if not tool.executed:
        tool.executed = True
        for k in range(known.table.tools[g, t].num_outputs):
            edge = known.table.outputs[g, t, k]
            _meet(known, i, g, edge.tool, edge.usd)
    effect = known.table.tools[g, t].effect
    repeated = effect >= 0 and tool.effect_done
    if effect >= 0 and not repeated:
        for u in range(known.table.graphs[g].num_tools):
            if known.table.tools[g, u].effect == effect:
                known.tools[i, u].effect_done = known.tools[i, u].stale = True
    return repeated


@kernel
def _meet(known: Known, i: int, g: int, t: int, edge_usd: float) -> None:
    """One more input of tool `t` was executed."""
    tool, static = known.tools[i, t], known.table.tools[g, t]
    tool.stale = True
    if not static.joins_all:
        price = static.cost_usd + edge_usd
        tool.call_cost_usd = price if tool.inputs_met == 0 else min(tool.call_cost_usd, price)
    tool.inputs_met += 1


@kernel
def hear(known: Known, i: int, t: int, health: int) -> None:
    """The model said how tool `t` is: HEALTHY, HARD or WRONG; of an executed tool it says how its output is."""
    tool = known.tools[i, t]
    tool.stale = True
    tool.known_down = tool.may_be_hard = health == HARD
    tool.known_bad = tool.may_be_wrong = health == WRONG
    tool.may_be_healthy = health == HEALTHY
    before, now = tool.seen_down_at, known.slots[i].steps
    tool.seen_down_at = now if health == HARD else before


@kernel
def hear_signal(known: Known, i: int, alarm: bool) -> None:
    """The risk signal shows an alarm or none; it counts until a consultation tells."""
    me = known.slots[i]
    me.risk_alarm = alarm
    if me.known_risk == UNKNOWN:
        me.risk_belief = risk_belief(known.table.graphs[me.graph].risk, alarm)


@kernel
def add_consultation(known: Known, i: int, risk: int) -> None:
    """The model was asked; it has said how all tools are, see `hear`, and whether there is a `risk` (0 or 1)."""
    me = known.slots[i]
    me.known_risk = risk
    me.risk_belief = risk
    me.model_calls += 1
    me.steps += 1


@kernel
def watch(known: Known, i: int, t: int, alarm: bool) -> None:
    """What the monitor of tool `t` shows now; beliefs are updated apart."""
    tool = known.tools[i, t]
    tool.stale |= tool.alarm != alarm
    tool.alarm = alarm


@kernel
def demote(known: Known, i: int) -> None:
    """The goal is the next degraded one from now on."""
    _aim(known, i, known.slots[i].goal_rank + 1)
    known.slots[i].steps += 1


# -- what follows -----------------------------------------------------------------------------------------------


@kernel
def is_callable(known: Known, i: int, t: int) -> bool:
    """Whether the join of tool `t`, not of the padding, is satisfied and the budget covers its price."""
    tool = known.tools[i, t]
    enough = tool.inputs_met >= known.table.tools[known.slots[i].graph, t].needed
    return enough and tool.call_cost_usd <= known.slots[i].usd_left


@kernel
def write_mask(known: Known, i: int, mask: np.ndarray) -> None:
    """Fill row `i` of the mask but for what is always legal: consult, demote, escalate, finish, and the calls."""
    me = known.slots[i]
    mask[i, 0] = me.model_calls < me.budget_calls
    mask[i, 1] = me.degraded >= 0
    mask[i, 2] = mask[i, 3] = 1
    size, first = known.table.graphs[me.graph].num_tools, index(mask.shape[1] - known.tools.shape[1])
    capped = me.usd_left < math.inf  # else only what changed of a tool can change whether it may be called
    for t in range(size):
        tool = known.tools[i, t]
        if capped or tool.stale:
            legal = is_callable(known, i, t)
            tool.stale |= (mask[i, first + t] == 1) != legal
            mask[i, first + t] = legal
    for a in range(first + size, mask.shape[1]):
        mask[i, a] = 0


@kernel
def believe_all(known: Known, i: int) -> None:
    """Update the beliefs about all tools of episode `i`."""
    believe(known, i, 0, known.table.graphs[known.slots[i].graph].num_tools)


@kernel
def believe(known: Known, i: int, first: int, last: int) -> None:
    """Update `hard` and `wrong` of the tools from `first` to before `last`, of which something changed.

    Where the tools of a provider tell of each other, those of its others are updated as well. Exact where faults hold
    all episode: by Bayes' rule, for the tools of a provider are independent given whether it is down. Transient and
    late faults are weighed by the share of them that holds now, whatever was seen of the tool before.
    """
    me, static = known.slots[i], known.table.tools
    g, regime = index(me.graph), known.regimes[index(me.regime)]
    active = holding(regime, me.steps)
    together = regime.provider * active > 0.0
    for t in range(first, last):
        outage = static[g, t].outage * regime.provider * active if together else 0.0
        if outage <= 0.0:
            _weigh(known, i, t, regime, active)
            _judge(known, i, t, regime, 0.0)
            continue
        if last - first > 1 and not static[g, t].leads:
            continue  # updated with the first of its provider
        down, up = outage, 1.0 - min(outage, 1.0 - 1e-12)
        u = t
        while True:
            both = _weigh(known, i, u, regime, active)
            down *= both
            up *= max(known.tools[i, u].likelihood, IMPOSSIBLE)
            u = index(static[g, u].sibling)
            if u == t:
                break
        is_down = down / (down + up)
        while True:
            _judge(known, i, u, regime, is_down)
            u = index(static[g, u].sibling)
            if u == t:
                break


@kernel
def _weigh(known: Known, i: int, t: int, regime: Any, active: float) -> float:
    """Likelihoods of what was seen of tool `t`: returns that with its provider down, which is no less than IMPOSSIBLE.

    With its provider up, they lie in `hard` and `wrong` with a fault of its own, and in `likelihood` with any or none.
    """
    tool = known.tools[i, t]
    detection, false_alarm = regime.detection, regime.false_alarm
    if_faulty = detection if tool.alarm else 1.0 - detection
    if_healthy = false_alarm if tool.alarm else 1.0 - false_alarm
    own = known.table.tools[known.slots[i].graph, t].own_fault * regime.own * active
    hard, wrong = own * (1.0 - regime.wrong) * if_faulty, own * regime.wrong * if_faulty
    healthy = (1.0 - own) * if_healthy
    hard = hard if tool.may_be_hard else 0.0
    wrong = wrong if tool.may_be_wrong else 0.0
    healthy = healthy if tool.may_be_healthy else 0.0
    tool.hard, tool.wrong, tool.likelihood = hard, wrong, hard + wrong + healthy
    return max(if_faulty, IMPOSSIBLE) if tool.may_be_hard else IMPOSSIBLE


@kernel
def _judge(known: Known, i: int, t: int, regime: Any, is_down: float) -> None:
    """From likelihoods, see `_weigh`, to beliefs about tool `t`, whose provider is down with probability `is_down`."""
    tool = known.tools[i, t]
    tool.stale = True
    alone = (1.0 - is_down) / max(tool.likelihood, IMPOSSIBLE)
    tool.hard = is_down + tool.hard * alone
    tool.wrong *= alone
    if tool.known_down:
        tool.hard, tool.wrong = still_down(regime, tool.seen_down_at, known.slots[i].steps), 0.0
    if tool.known_bad:
        tool.wrong = 1.0


@kernel
def _believe_everywhere(known: Known) -> None:
    for i in range(len(known.slots)):
        believe_all(known, i)


# -- what references read ---------------------------------------------------------------------------------------


class Progress:
    """What is known of N episodes, as columns: views of the records."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._update: Any = None
        slots, tools = known.slots, known.tools
        self.executed, self.known_down, self.known_bad = (  # (N, T) bool
            tools[name] for name in ("executed", "known_down", "known_bad")
        )
        self.alarm = tools["alarm"]  # (N, T) bool
        self.tool_calls = tools["tool_calls"]  # (N, T)
        self.call_cost_usd = tools["call_cost_usd"]  # (N, T)
        self.model_cost, self.model_calls = slots["model_cost"], slots["model_calls"]  # (N,) each
        self.steps, self.goal_rank = slots["steps"], slots["goal_rank"]
        self.goal, self.degraded = slots["goal"], slots["degraded"]
        self.risk_alarm, self.known_risk, self.risk_belief = (
            slots[name] for name in ("risk_alarm", "known_risk", "risk_belief")
        )

    @property
    def cheapest_usd(self) -> np.ndarray:
        """(N,) cost of the cheapest outage-free completion."""
        return np.asarray(self._known.table.graphs["cheapest_usd"][self._known.slots["graph"]])

    @property
    def cost_usd(self) -> np.ndarray:
        """(N, T) the tools' own prices."""
        return np.asarray(self._known.table.tools["cost_usd"][self._known.slots["graph"]])

    @property
    def regime(self) -> np.ndarray:
        """(N, 7) in the order of `faults.REGIME_NAMES`."""
        rows = self._known.regimes[self._known.slots["regime"]]
        return np.stack([rows[name] for name in REGIME_NAMES], axis=1)

    @property
    def beliefs(self) -> tuple[np.ndarray, np.ndarray]:
        """P(hard fault now) and P(wrong), (N, T) each; environments with obs="index" do not keep them up to date."""
        self._update = self._update or bind(_believe_everywhere, self._known)
        self._update(self._known)
        return self._known.tools["hard"], self._known.tools["wrong"]
