"""Reference policies of ThinkRoute that know no more than a live router: what a trained one has to beat.

Each family of references is a list of candidates that differ in their knobs (whether to think first, the
order of a cascade, a threshold). `references` lists them; `rlroute.evaluation.tune` rolls every candidate out
on `val` once and keeps the best at each weight.

- best single, best per task, kNN, ridge, boosted, ensemble: one call, the argmax of predicted quality minus
  price, then accepted;
- agreement cascade: call in an order until two answers agree;
- cascade with checker: call in an order until the checker's verdict is good enough;
- cascade with learned scorer: the same, with a logistic guess that the answer is right;
- learned sequential: `posterior.Posterior`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlroute.envs.think_route.belief import Belief
from rlroute.envs.think_route.experience import Experience
from rlroute.envs.think_route.planning import ThinkPolicy
from rlroute.envs.think_route.posterior import Posterior
from rlroute.envs.think_route.scorer import AnswerScorer
from rlroute.policies import Actions, Array, Policy, dynamics_of

Floats = NDArray[np.float64]
SINGLE_SHOT = ("mean", "task", "knn", "ridge", "boosted", "ensemble")
MAX_ORDER = 4  # calls in a cascade
YES_AND_AGREED = 1.005  # between a yes alone (1) and a yes with one agreement (1.01)
PRICE_SCALES = (0.6, 1.0, 1.6)  # of the learned sequential policy
POOL_OF_ORDERS = 6  # choices that cascades are built from


class SingleShot(ThinkPolicy):
    """One call: the choice of the largest predicted quality minus price, or thinking where that promises
    more.

    `think_bonus` is added to the predicted net value of thinking: −inf never thinks, +inf always where it
    can.
    """

    def __init__(self, experience: Experience, predictor: str, think_bonus: float = -np.inf) -> None:
        super().__init__(experience)
        self.predictor, self.think_bonus = predictor, think_bonus
        self.name = f"single shot by {predictor}, think bonus {think_bonus:g}"

    def plan(self, rows: Actions, legal: Array) -> tuple[NDArray[np.bool_], Actions, Actions]:
        state = self.dynamics.state[rows]
        value = self.experience.quality(self.predictor)[state] - self.price(rows)
        value = np.where(self.open_calls(rows, legal), value, -np.inf)
        think = self.can_think(rows, legal) & (self.think_bonus > -np.inf)
        if think.any():
            think = self.worth_thinking(think, rows, self.predictor, self.think_bonus, value.max(axis=1))
        heard = self.dynamics.num_heard[rows] > 0
        return think, np.where(heard, -1, value.argmax(axis=1)), self.last_heard(rows)


class Single(ThinkPolicy):
    """Always the same choice, thinking first always or never."""

    reads_terms = False

    def __init__(self, experience: Experience, choice: int, think: bool = False) -> None:
        super().__init__(experience)
        self.choice, self.think_first = choice, think
        self.name = f"always {experience.arrays.choice_names[choice]}" + (" after thinking" if think else "")

    def plan(self, rows: Actions, legal: Array) -> tuple[NDArray[np.bool_], Actions, Actions]:
        heard = self.dynamics.num_heard[rows] > 0
        own = self.open_calls(rows, legal)[:, self.choice]
        think = self.can_think(rows, legal) & self.think_first
        return think, np.where(~heard & own, self.choice, -1), self.last_heard(rows)


class Cascade(ThinkPolicy):
    """Calls choices in a fixed order and stops at the first answer that is good enough; else accepts the
    best.

    What good means is `rule`: ``agreement`` (two answers coincide), ``checker`` (verdict ≥ threshold; where
    there is no verdict, agreement; a threshold above 1 wants a yes and an agreeing answer), ``scorer``
    (learned probability of being right ≥ threshold). A choice that is masked is passed over.
    """

    reads_terms = False

    def __init__(
        self,
        experience: Experience,
        order: Sequence[int],
        rule: str,
        threshold: float = 0.5,
        think: bool = False,
        scorer: AnswerScorer | None = None,
    ) -> None:
        super().__init__(experience)
        self.order, self.rule, self.threshold = tuple(order), rule, threshold
        self.think_first, self.scorer = think, scorer
        self.name = f"cascade by {rule}"

    def plan(self, rows: Actions, legal: Array) -> tuple[NDArray[np.bool_], Actions, Actions]:
        d = self.dynamics
        heard = d.num_heard[rows]
        score = self._scores(rows)
        best = score.argmax(axis=1)
        good = score[np.arange(len(rows)), best] >= self.threshold
        open_calls = self.open_calls(rows, legal)
        call = np.full(len(rows), -1)
        for choice in reversed(self.order):
            ready = open_calls[:, choice] & (d.count[rows, choice] == 0)
            call = np.where(ready, choice, call)
        # A fixed order of one call needs no test; nor is there anything to test before the first.
        call = np.where((heard > 0) & good, -1, call)
        call = np.where(heard >= len(self.order), -1, call)
        think = self.can_think(rows, legal) & self.think_first
        return think, call, np.maximum(d.heard_choice[rows, best], 0)

    def _scores(self, rows: Actions) -> Floats:
        """How good each response heard is (n, K), −inf where there is none."""
        d = self.dynamics
        slots = d.heard_row.shape[1]
        present = np.arange(slots) < d.num_heard[rows, None]
        answer = np.where(present, self.experience.arrays.answer[d.heard_row[rows]], -1)
        same = (answer[:, :, None] == answer[:, None, :]) & (answer[:, :, None] >= 0)
        agree = np.maximum(same.sum(axis=2) - 1, 0)
        # Later calls are of better choices: of equals, the last heard is preferred, and an answer to none.
        rank = 1e-6 * np.arange(slots) - 1e-3 * (answer < 0)
        if self.rule == "scorer":
            assert self.scorer is not None
            score = self.scorer.probability(d, rows) + rank
        else:
            score = np.minimum(agree, 1) + 1e-2 * agree + rank
            if self.rule == "checker":
                verdict = d.verdict_seen[rows]
                score = np.where(np.isnan(verdict), score, verdict + 1e-2 * agree + rank)
        return np.where(present, score, -np.inf)


def orders(experience: Experience, shortest: int = 1) -> list[tuple[int, ...]]:
    """Orders worth trying, cheapest first: subsets of up to four of the choices nearest the frontier."""
    from rlroute.metrics import upper_hull

    rows = experience.train & experience.arrays.root
    cost = np.nan_to_num(np.nanmean(experience.recorded_cost[rows], axis=0), nan=np.inf)
    quality = np.nan_to_num(np.nanmean(experience.recorded[rows], axis=0), nan=-1.0)
    pool: list[int] = []
    rest = np.flatnonzero(np.isfinite(cost))
    while len(rest) and len(pool) < POOL_OF_ORDERS:  # peel off one frontier after another
        layer = rest[upper_hull(cost[rest], quality[rest])]
        pool += layer.tolist()
        rest = np.setdiff1d(rest, layer)
    pool = sorted(pool[:POOL_OF_ORDERS], key=lambda c: cost[c])
    return [o for n in range(shortest, min(MAX_ORDER, len(pool)) + 1) for o in combinations(pool, n)]


def references(env: Any, thorough: bool = True) -> dict[str, list[Policy]]:
    """All references of a log as {family of references: candidates}, fitted on the train split of `env`'s
    log.

    `thorough=False` leaves out the boosted trees and the rarer knobs.
    """
    dynamics = dynamics_of(env)
    experience = Experience.of(dynamics)
    arrays = dynamics.arrays
    can_think = bool(np.any(arrays.think_state >= 0))
    bonuses = (-np.inf, -0.1, 0.0, 0.1, np.inf) if can_think else (-np.inf,)
    thinks = (False, True) if can_think else (False,)
    table: dict[str, list[Policy]] = {}
    table["best single"] = [Single(experience, c, think) for c in range(len(arrays.choice_names)) for think in thinks]
    for predictor in SINGLE_SHOT[1:]:
        if predictor == "task" and len(arrays.task_names) < 2:
            continue
        if predictor in ("boosted", "ensemble") and not thorough:
            continue
        label = "best per task" if predictor == "task" else f"{predictor} single shot"
        table[label] = [SingleShot(experience, predictor, bonus) for bonus in bonuses]
    every = orders(experience)
    table["agreement cascade"] = [Cascade(experience, o, "agreement", 1.0, t) for o in every for t in thinks]
    if np.any(np.isfinite(dynamics.arrays.verdict)) and dynamics.arguments.checker is not None:
        table["cascade with checker"] = [
            Cascade(experience, o, "checker", threshold, t)
            for o in every
            for threshold in _verdict_thresholds(arrays)
            for t in thinks
        ]
    scorer = AnswerScorer(experience, with_verdict=dynamics.arguments.checker == "observe")
    table["cascade with learned scorer"] = [
        Cascade(experience, o, "scorer", threshold, t, scorer)
        for o in every
        for threshold in ((0.5, 0.65, 0.8, 0.9) if len(o) > 1 else (0.5,))
        for t in thinks
    ]
    table["learned sequential"] = list(_sequential(experience, dynamics, can_think, thorough))
    return table


def _verdict_thresholds(arrays: Any) -> tuple[float, ...]:
    """Thresholds for a checker that says yes or no, and more for one that grades."""
    seen = arrays.verdict[np.isfinite(arrays.verdict)]
    return (0.5, YES_AND_AGREED) if np.all((seen == 0) | (seen == 1)) else (0.5, 0.7, 0.9, YES_AND_AGREED)


def _sequential(experience: Experience, dynamics: Any, can_think: bool, thorough: bool) -> Iterator[Policy]:
    belief = Belief.fit(experience, with_verdict=dynamics.arguments.checker == "observe")
    bonuses = ((-np.inf, 0.0, np.inf) if thorough else (0.0, np.inf)) if can_think else (-np.inf,)
    for bonus in bonuses:
        for scale in PRICE_SCALES if thorough else (1.0,):
            yield Posterior(experience, belief, think_bonus=bonus, price_scale=scale)
