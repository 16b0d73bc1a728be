"""The router that text routers of ThinkRoute are first shown: it does not take no for an answer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlroute.envs.think_route.references import SingleShot
from rlroute.policies import Actions, Array

GOOD = 0.5  # a verdict to be content with
HOPE = 0.5  # of what a choice is mostly worth, what it is after another was wrong on the same question


class Persistent(SingleShot):
    """After an answer that the checker rejects, asks the next best choice while that is worth its price `[ours]`."""

    def plan(self, rows: Actions, legal: Array) -> tuple[NDArray[np.bool_], Actions, Actions]:
        think, call, accept = super().plan(rows, legal)
        d = self.dynamics
        heard = np.arange(d.heard_row.shape[1]) < d.num_heard[rows, None]
        verdict = np.where(heard, np.nan_to_num(d.verdict_seen[rows], nan=-1.0), -1.0)  # (n, max_rounds), −1 unknown
        best, known = verdict.argmax(axis=1), verdict.max(axis=1) >= 0
        worth = HOPE * self.experience.quality(self.predictor)[d.state[rows]] - self.price(rows)  # (n, C)
        worth = np.where(self.open_calls(rows, legal) & (d.count[rows] == 0), worth, -np.inf)
        again = known & (verdict.max(axis=1) < GOOD) & (worth.max(axis=1) > 0)
        call = np.where(again, worth.argmax(axis=1), call)
        return think, call, np.where(known, d.heard_choice[rows, best], accept)
