"""What may be wrong with tools in an episode, and what can be believed about it from monitors and calls.

A fault is `hard` (the call fails) or `wrong` (the tool reports success, its output is bad). It holds from one step to
another: from the start or from mid-task on, to the end or for a while. Tools fail by themselves, with probability
1 − reliability, or together with all tools of a provider. A monitor raises an alarm on a faulty tool with probability
`detection`, and on a healthy one with probability `false_alarm`; its noise is drawn once an episode and tool, so
watching it longer teaches nothing, but a fault that arrives late can change what it shows.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from rlroute.draws import Stream, hash_u64, uniform
from rlroute.envs.tool_graph.table import GraphTable

LATEST_ARRIVAL = 8  # steps; late faults arrive after 1 to this many
LONGEST_TRANSIENT = 6  # steps; transient faults are over after 1 to this many
RISK_DETECTION, RISK_FALSE_ALARM = 0.85, 0.10  # of the signal that a task is risky
NEVER = 2**31 - 1


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


@dataclass
class Faults:
    """The hidden state of N episodes with up to T tools."""

    start: np.ndarray  # (N, T) step from which a tool is faulty; NEVER for none
    stop: np.ndarray  # (N, T) step from which it is not any more
    wrong: np.ndarray  # (N, T) bool: the fault is `wrong`, not hard
    alarm_noise: np.ndarray  # (N, T) in [0, 1): the monitor shows an alarm where this is below its probability
    risk: np.ndarray  # (N,) bool: irreversible effects do harm in this episode
    risk_alarm: np.ndarray  # (N,) bool: what the risk signal shows

    @classmethod
    def none(cls, num_envs: int, num_tools: int) -> Faults:
        shape = (num_envs, num_tools)
        never, nothing = np.full(shape, NEVER), np.zeros(num_envs, bool)
        return cls(never, never.copy(), np.zeros(shape, bool), np.ones(shape), nothing, nothing.copy())

    def faulty(self, step: np.ndarray) -> np.ndarray:
        """(N, T) bool: faulty at `step` (N,)."""
        return (self.start <= step[:, None]) & (step[:, None] < self.stop)

    def alarm(self, step: np.ndarray, regime: np.ndarray) -> np.ndarray:
        """(N, T) bool: what the monitors show at `step` (N,) under the regimes (N, 7)."""
        detection, false_alarm = _column(regime, "detection"), _column(regime, "false_alarm")
        return self.alarm_noise < np.where(self.faulty(step), detection, false_alarm)

    def draw(
        self,
        which: np.ndarray,  # (M,) slots to draw for
        table: GraphTable,  # rows of those slots, (M, …)
        regime: np.ndarray,  # (M, 7)
        key: np.uint64,
        unit: np.ndarray,  # (M,) counter of the slot
        episode: np.ndarray,  # (M,) counter of the episode
    ) -> None:
        """Draw what is wrong in the next episode of `which`, as a function of the counters alone."""
        tools, providers = np.arange(table.present.shape[1]), np.arange(table.provider_outage.shape[1])

        def of_tools(what: int) -> np.ndarray:
            return uniform(_key(key, what), unit[:, None], episode[:, None], tools, Stream.FAULT)

        def of_providers(what: int) -> np.ndarray:
            return uniform(_key(key, what), unit[:, None], episode[:, None], providers, Stream.PROVIDER)

        own = of_tools(0) < (1.0 - table.reliability) * _column(regime, "own")
        down = of_providers(0) < table.provider_outage * _column(regime, "provider")  # (M, P)
        shared = _of_provider(down, table.provider, False)
        timing = np.where(shared, _of_provider(of_providers(1), table.provider, 1.0), of_tools(1))
        length = np.where(shared, _of_provider(of_providers(2), table.provider, 1.0), of_tools(2))
        late, transient = _column(regime, "late"), _column(regime, "transient")
        is_late, is_transient = timing < late, (late <= timing) & (timing < late + transient)
        arrival = np.where(is_late, 1 + np.floor(length * LATEST_ARRIVAL), 0)
        over = np.where(is_transient, 1 + np.floor(length * LONGEST_TRANSIENT), NEVER)
        faulty = (own | shared) & table.present
        self.start[which] = np.where(faulty, arrival, NEVER)
        self.stop[which] = np.where(faulty, over, NEVER)
        self.wrong[which] = own & ~shared & (of_tools(3) < _column(regime, "wrong"))
        self.alarm_noise[which] = of_tools(4)
        risky = uniform(key, unit, episode, Stream.RISK) < table.risk
        self.risk[which] = risky
        signal = uniform(_key(key, 1), unit, episode, Stream.RISK)
        self.risk_alarm[which] = signal < np.where(risky, RISK_DETECTION, RISK_FALSE_ALARM)

    def impose(self, slot: int, down: list[int], risk: bool) -> None:
        """Exactly these tools of a slot are down, from the start to the end."""
        self.start[slot], self.stop[slot] = NEVER, NEVER
        self.start[slot, down] = 0
        self.wrong[slot] = False
        self.risk[slot] = self.risk_alarm[slot] = risk


def risk_belief(prior: np.ndarray, alarm: np.ndarray) -> np.ndarray:
    """(N,) probability that a task is risky, after its signal."""
    risky = prior * np.where(alarm, RISK_DETECTION, 1 - RISK_DETECTION)
    safe = (1 - prior) * np.where(alarm, RISK_FALSE_ALARM, 1 - RISK_FALSE_ALARM)
    return np.asarray(risky / np.maximum(risky + safe, 1e-12))


def beliefs(
    table: GraphTable,  # (N, …)
    regime: np.ndarray,  # (N, 7)
    alarm: np.ndarray,  # (N, T) bool
    may_be_hard: np.ndarray,  # (N, T) bool: nothing seen excludes a hard fault now
    may_be_wrong: np.ndarray,  # (N, T) bool
    may_be_healthy: np.ndarray,  # (N, T) bool
    step: np.ndarray | None = None,  # (N,) of faults that come and go; default: the first
) -> tuple[np.ndarray, np.ndarray]:
    """P(hard fault now) and P(wrong fault now) of every tool, (N, T) each: exact where faults hold all episode.

    By Bayes' rule, provider by provider: its tools are independent given whether it is down. Transient and late faults
    are weighed by the share of them that holds at `step`, whatever was seen of the tool before.
    """
    active = holding(regime, np.zeros(len(regime)) if step is None else step)
    detection, false_alarm = _column(regime, "detection"), _column(regime, "false_alarm")
    if_faulty = np.where(alarm, detection, 1 - detection)
    if_healthy = np.where(alarm, false_alarm, 1 - false_alarm)
    own = (1.0 - table.reliability) * _column(regime, "own") * active[:, None]
    wrong_share = _column(regime, "wrong")
    hard = own * (1 - wrong_share) * if_faulty * may_be_hard
    wrong = own * wrong_share * if_faulty * may_be_wrong
    total = hard + wrong + (1 - own) * if_healthy * may_be_healthy
    together = if_faulty * may_be_hard  # likelihood where the provider is down
    outage = table.provider_outage * _column(regime, "provider") * active[:, None]  # (N, P)
    member = (table.provider[:, :, None] == np.arange(outage.shape[1])) & table.present[:, :, None]  # (N, T, P)
    tiny = 1e-300
    log_down = np.einsum("ntp,nt->np", member, np.log(np.maximum(together, tiny)))
    log_up = np.einsum("ntp,nt->np", member, np.log(np.maximum(total, tiny)))
    with np.errstate(divide="ignore"):
        odds = np.log(outage) + log_down - np.log1p(-np.minimum(outage, 1 - 1e-12)) - log_up
    down = 1.0 / (1.0 + np.exp(-np.clip(odds, -60, 60)))
    down = np.where(outage > 0, down, 0.0)
    of_tool = _of_provider(down, table.provider, 0.0)  # (N, T)
    alone = 1.0 / np.maximum(total, tiny)
    return of_tool + (1 - of_tool) * hard * alone, (1 - of_tool) * wrong * alone


def holding(regime: np.ndarray, step: np.ndarray) -> np.ndarray:
    """(N,) share of an episode's faults that hold at `step` (N,)."""
    late, transient = _column(regime, "late")[:, 0], _column(regime, "transient")[:, 0]
    arrived = np.minimum(step / LATEST_ARRIVAL, 1.0)
    lasting = np.maximum(1.0 - step / LONGEST_TRANSIENT, 0.0)
    return np.asarray(1.0 - late - transient + late * arrived + transient * lasting)


def still_down(regime: np.ndarray, seen: np.ndarray, step: np.ndarray) -> np.ndarray:
    """(N, T) probability that a hard fault seen at `seen` (N, T) holds at `step` (N,): transient ones pass."""
    lasted = np.maximum(1.0 - seen / LONGEST_TRANSIENT, 0.0)
    lasting = np.maximum(1.0 - step / LONGEST_TRANSIENT, 0.0)[:, None]
    transient, late = _column(regime, "transient"), _column(regime, "late")
    held = 1.0 - late - transient + late * np.minimum(seen / LATEST_ARRIVAL, 1.0) + transient * lasted
    return np.asarray(1.0 - transient * np.maximum(lasted - lasting, 0.0) / np.maximum(held, 1e-12))


def _column(regime: np.ndarray, name: str) -> np.ndarray:
    """(N, 1) one number of the regimes."""
    return regime[:, REGIME_NAMES.index(name)][:, None]


def _of_provider(values: np.ndarray, provider: np.ndarray, otherwise: float | bool) -> np.ndarray:
    """Values (N, P) of each tool's provider, (N, T); `otherwise` for tools without one."""
    taken = np.take_along_axis(values, np.maximum(provider, 0), axis=1)
    return np.where(provider >= 0, taken, otherwise)


def _key(key: np.uint64, what: int) -> np.uint64:
    """Another key for each kind of draw with the same counters."""
    return np.uint64(hash_u64(key, what))
