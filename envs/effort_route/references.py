"""Reference policies of EffortRoute: one level always, levels at random, a myopic bandit, and the labels' oracle.

One level always is what Ares is compared with; `single_choices` of `rlroute.study` adds them as choices of their own.
The label oracle is privileged: it reads the labels of minimum sufficient effort of the very state it stands in.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlroute import draws
from rlroute.envs.budget_route.references import MARGINS, PRICE_SCALES, Learned, MyopicBandit
from rlroute.envs.effort_route.labels import label_states
from rlroute.policies import Actions, AlwaysChoice, Array, Policy, best_legal, dynamics_of


class RandomLevel:
    """Every level with a probability of its own at every step; repeatable."""

    reads_terms = False

    def __init__(self, probability: NDArray[np.float64], name: str, seed: int = 0) -> None:
        self.threshold, self.name, self.key = probability.cumsum(), name, draws.key_from_seed(seed)

    def begin(self, env: Any) -> None:
        self.dynamics = dynamics_of(env)

    def act(self, observation: Array, action_mask: Array) -> Actions:
        d = self.dynamics
        draw = draws.uniform(self.key, draws.Stream.POLICY, d.slot, d.episode, d.visits.sum(axis=1))
        wanted = np.minimum((draw[:, None] >= self.threshold).sum(axis=1), len(self.threshold) - 1)
        return best_legal(np.arange(action_mask.shape[1]) == wanted[:, None], action_mask)


class LabelOracle:
    """The label of the state, and the most effort where it has none. Privileged: labels come from its own log."""

    reads_terms = False

    def __init__(self, level: NDArray[np.int64], high: int, name: str = "label oracle") -> None:
        self.level, self.name = np.where(level >= 0, level, high), name

    def begin(self, env: Any) -> None:
        self.dynamics = dynamics_of(env)

    def act(self, observation: Array, action_mask: Array) -> Actions:
        wanted = self.level[self.dynamics.state]
        return best_legal(np.arange(action_mask.shape[1]) == wanted[:, None], action_mask)


def label_oracle(dynamics: Any, kind: str = "value") -> LabelOracle:
    """The oracle of one kind of labels."""
    labels = label_states(dynamics.log, dynamics.by_effort.tolist(), kind)
    return LabelOracle(labels.level, int(dynamics.by_effort[-1]), f"label oracle ({kind})")


def references(env: Any) -> dict[str, list[Policy]]:
    """All references as {family of references: candidates}, fitted on the train split of `env`'s log."""
    dynamics = dynamics_of(env)
    levels = dynamics.pool.size
    learned = Learned.of(dynamics)
    listed: dict[str, list[Policy]] = {
        f"all {dynamics.pool.names[c]}": [AlwaysChoice(int(c), f"all {dynamics.pool.names[c]}")]
        for c in dynamics.by_effort
    }
    uniform = np.full(levels, 1.0 / levels)
    return {
        **listed,
        "random": [RandomLevel(uniform, "random level")],
        "label oracle": [label_oracle(dynamics)],
        "myopic bandit": [MyopicBandit(learned, s, m) for s in PRICE_SCALES for m in MARGINS],
    }
