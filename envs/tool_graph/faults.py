"""What may be wrong with tools in an episode, how it is drawn, and what monitors show of it.

A fault is `hard` (the call fails) or `wrong` (the tool reports success, its output is bad). It holds from one step to
another: from the start or from mid-task on, to the end or for a while. Tools fail by themselves, with probability
1 − reliability, or together with all tools of a provider. A monitor raises an alarm on a faulty tool with probability
`detection`, and on a healthy one with probability `false_alarm`; its noise is drawn once an episode and tool, so
watching it longer teaches nothing, but a fault that arrives late can change what it shows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from rlroute.draws import Stream, fold, to_unit
from rlroute.envs.tool_graph.table import GraphTable
from rlroute.hints import index
from rlroute.jit import bind, kernel, records

LATEST_ARRIVAL = 8  # steps; late faults arrive after 1 to this many
LONGEST_TRANSIENT = 6  # steps; transient faults are over after 1 to this many
RISK_DETECTION, RISK_FALSE_ALARM = 0.85, 0.10  # of the signal that a task is risky
NEVER = 2**31 - 1
FAULT_STREAM, PROVIDER_STREAM, RISK_STREAM = (
    np.uint64(stream) for stream in (Stream.FAULT, Stream.PROVIDER, Stream.RISK)
)
# Another key for each kind of draw with the same counters. Those of tools and of providers do not mix.
OCCURRENCE, TIMING, LENGTH, KIND, MONITOR = (np.uint64(what) for what in range(5))
RISK_SIGNAL = np.uint64(1)


@dataclass(frozen=True)
class Regime:
    """How faults come about, and how good the monitors are; shares and probabilities in [0, 1]."""

    provider: float = 0.0  # factor on the providers' outage probabilities
    own: float = 1.0  # factor on the tools' own fault probabilities
    wrong: float = 0.0  # share of the tools' own faults that are `wrong`
    transient: float = 0.0  # share of faults that are over after a while
    late: float = 0.0  # share of faults that arrive in mid-task
    detection: float = 0.85  # P(alarm | faulty now)
    false_alarm: float = 0.05  # P(alarm | healthy now)


REGIMES = {
    "independent": Regime(),
    "correlated": Regime(provider=1.0, own=0.5),
    "transient": Regime(transient=0.8),
    "late": Regime(late=0.8),
    "wrong": Regime(wrong=0.6),
    "noisy": Regime(detection=0.6, false_alarm=0.25),
}
SCENARIO = "scenario"  # the outages that a task names, hidden, without monitors
MIXED = "mixed"  # one of REGIMES an episode, with equal probability, known to the policy
FAULTS = (*REGIMES, SCENARIO, MIXED)
UNWATCHED = Regime(detection=0.0, false_alarm=0.0)  # of the scenarios
REGIME_NAMES = tuple(field.name for field in fields(Regime))


def regime_table(names: tuple[str, ...]) -> np.ndarray:
    """(len(names), 7) the numbers of regimes, in the order of `REGIME_NAMES`."""
    rows = [REGIMES.get(name, UNWATCHED) for name in names]
    return np.array([[getattr(row, name) for name in REGIME_NAMES] for row in rows])


def regime_records(numbers: np.ndarray) -> np.ndarray:
    """Regimes (R, 7) as kernels read them, (R,) records of `REGIME_NAMES`."""
    table = records(len(numbers), dict.fromkeys(REGIME_NAMES, np.float64))
    for name, column in zip(REGIME_NAMES, numbers.T, strict=True):
        table[name] = column
    return table


# The hidden state of a tool in an episode.
FAULT: dict[str, Any] = {
    "start": np.int32,  # step from which it is faulty; NEVER for none
    "stop": np.int32,  # step from which it is not any more
    "wrong": np.bool_,  # the fault is `wrong`, not hard
    "good": np.bool_,  # executed, and the output is not bad
    "alarm_noise": np.float64,  # in [0, 1): the monitor shows an alarm where this is below its probability
}
# What of an episode its faults depend on, and its hidden risk; a slot has these fields among others.
HAZARD: dict[str, Any] = {
    "graph": np.int64,  # row of the graph tables
    "regime": np.int64,  # row of the regimes
    "risk": np.bool_,  # irreversible effects do harm in this episode
    "risk_alarm": np.bool_,  # what the risk signal shows
}


@kernel
def is_faulty(fault: Any, step: int) -> bool:
    """Whether a tool, a record of `FAULT`, is faulty at `step`."""
    return (fault.start <= step) & (step < fault.stop)  # no branch: which tools are is anybody's guess


@kernel
def shows_alarm(fault: Any, step: int, regime: Any) -> bool:
    """What the monitor of a tool shows at `step` under a regime."""
    if_faulty, if_healthy = regime.detection, regime.false_alarm
    return fault.alarm_noise < (if_faulty if is_faulty(fault, step) else if_healthy)


@kernel
def draw_faults(
    key: np.uint64,
    unit: np.uint64,  # counter of the slot
    episode: np.uint64,  # counter of the episode in it
    table: GraphTable,
    regimes: np.ndarray,  # (R,) records of `REGIME_NAMES`
    scenario: bool,  # whether the outages are those that the task names, not drawn
    hazards: np.ndarray,  # (N,) records with `HAZARD`: reads graph and regime, writes the risk
    faults: np.ndarray,  # (N, T) records of `FAULT`
    i: int,
) -> None:
    """Fill row `i` of `faults` and its risk, as a function of the counters alone."""
    me = hazards[i]
    g, regime = index(me.graph), regimes[index(me.regime)]
    size = table.graphs[g].num_tools
    varied = regime.late > 0.0 or regime.transient > 0.0 or regime.wrong > 0.0  # else all faults are hard and last
    occurs, noise = _seed(key, OCCURRENCE, unit, episode), _seed(key, MONITOR, unit, episode)
    for t in range(faults.shape[1]):
        fault, tool = faults[i, t], table.tools[g, t]
        fault.start = fault.stop = NEVER
        fault.wrong = fault.good = False
        if t >= size:
            continue
        counter = np.uint64(t)
        fault.alarm_noise = _unit(noise, counter, FAULT_STREAM)
        if scenario:
            fault.start = 0 if tool.down else NEVER
            continue
        own = _unit(occurs, counter, FAULT_STREAM) < tool.own_fault * regime.own
        shared = False
        if tool.outage * regime.provider > 0.0:
            shared = _unit(occurs, np.uint64(tool.provider), PROVIDER_STREAM) < tool.outage * regime.provider
        fault.start = 0 if own | shared else NEVER
        if not (varied and (own or shared)):
            continue
        stream = PROVIDER_STREAM if shared else FAULT_STREAM
        counter = np.uint64(tool.provider) if shared else counter
        timing = _unit(_seed(key, TIMING, unit, episode), counter, stream)
        length = _unit(_seed(key, LENGTH, unit, episode), counter, stream)
        if timing < regime.late:
            fault.start = 1 + math.floor(length * LATEST_ARRIVAL)
        elif timing < regime.late + regime.transient:
            fault.stop = 1 + math.floor(length * LONGEST_TRANSIENT)
        if own and not shared:
            fault.wrong = _unit(_seed(key, KIND, unit, episode), counter, stream) < regime.wrong
    prior = table.graphs[g].risk
    if scenario:
        me.risk = me.risk_alarm = prior >= 0.5
        return
    me.risk = to_unit(fold(fold(fold(key, unit), episode), RISK_STREAM)) < prior
    signal = to_unit(fold(_seed(key, RISK_SIGNAL, unit, episode), RISK_STREAM))
    me.risk_alarm = signal < (RISK_DETECTION if me.risk else RISK_FALSE_ALARM)


@kernel
def _seed(key: np.uint64, what: np.uint64, unit: np.uint64, episode: np.uint64) -> np.uint64:
    return fold(fold(fold(key, what), unit), episode)


@kernel
def _unit(seed: np.uint64, counter: np.uint64, stream: np.uint64) -> float:
    return to_unit(fold(fold(seed, counter), stream))


@kernel
def draw_all(
    key: np.uint64,
    unit: np.ndarray,
    episode: np.ndarray,
    table: GraphTable,
    regimes: np.ndarray,
    scenario: bool,
    hazards: np.ndarray,
    faults: np.ndarray,
) -> None:
    """`draw_faults` for all rows."""
    for i in range(len(unit)):
        draw_faults(key, np.uint64(unit[i]), np.uint64(episode[i]), table, regimes, scenario, hazards, faults, i)


def faults_of(
    key: np.uint64,
    unit: np.ndarray,  # (M,) counters of slots
    episode: np.ndarray,  # (M,) counters of episodes
    table: GraphTable,
    regimes: np.ndarray,  # (R,) records of `REGIME_NAMES`
    graph: np.ndarray,  # (M,) row of the table
    regime: np.ndarray,  # (M,) row of the regimes
    scenario: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """What is drawn in M episodes: faults, (M, T) records of `FAULT`, and (M,) records of `HAZARD`."""
    hazards = records(len(unit), HAZARD)
    hazards["graph"], hazards["regime"] = graph, regime
    faults = records((len(unit), table.tools.shape[1]), FAULT)
    counters = np.array(unit, np.int64), np.array(episode, np.int64)
    arguments = (np.uint64(key), *counters, table, regimes, bool(scenario), hazards, faults)
    bind(draw_all, *arguments)(*arguments)
    return faults, hazards


# -- what can be believed ---------------------------------------------------------------------------------------


@kernel
def risk_belief(prior: float, alarm: bool) -> float:
    """Probability that a task is risky, after its signal."""
    risky = prior * (RISK_DETECTION if alarm else 1 - RISK_DETECTION)
    safe = (1 - prior) * (RISK_FALSE_ALARM if alarm else 1 - RISK_FALSE_ALARM)
    return risky / max(risky + safe, 1e-12)


@kernel
def is_restless(regime: Any) -> bool:
    """Whether faults come and go, so that beliefs change by themselves."""
    return regime.late > 0.0 or regime.transient > 0.0


@kernel
def holding(regime: Any, step: float) -> float:
    """Share of an episode's faults that hold at `step`."""
    arrived = min(step / LATEST_ARRIVAL, 1.0)
    lasting = max(1.0 - step / LONGEST_TRANSIENT, 0.0)
    return 1.0 - regime.late - regime.transient + regime.late * arrived + regime.transient * lasting


@kernel
def still_down(regime: Any, seen: float, step: float) -> float:
    """Probability that a hard fault seen at step `seen` holds at `step`: transient ones pass."""
    lasted = max(1.0 - seen / LONGEST_TRANSIENT, 0.0)
    lasting = max(1.0 - step / LONGEST_TRANSIENT, 0.0)
    arrived = min(seen / LATEST_ARRIVAL, 1.0)
    held = 1.0 - regime.late - regime.transient + regime.late * arrived + regime.transient * lasted
    return 1.0 - regime.transient * max(lasted - lasting, 0.0) / max(held, 1e-12)
