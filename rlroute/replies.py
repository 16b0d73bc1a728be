"""What was said: texts of a log by row number, read where they lie. Only the text faces need them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from rlroute.answers import exact_match, f1
from rlroute.dense import response_order
from rlroute.log import Log

METRICS = {"em": exact_match, "f1": f1}


class Reply(NamedTuple):
    """A recorded response, as text."""

    text: str  # the whole response, else the answer alone
    answer: str  # normalised; empty: none
    quality: float | None  # where it leads on: of the sub-question alone, or null
    error: str | None

    @property
    def said(self) -> str:
        """The answer, or all that was said where none was made out."""
        return self.answer or self.text


class Texts:
    """Texts of the states and responses of a log, by their rows in its arrays."""

    def __init__(self, log: Log) -> None:
        order = response_order(log)
        self._order: np.ndarray | None = None if isinstance(order, slice) else order  # None: rows lie in order
        self._responses = {
            name: log.source("responses").column(name) for name in ("text", "answer", "quality", "error")
        }
        self._states = {name: log.source("states").column(name) for name in ("text", "gold", "metric")}

    def reply(self, row: int) -> Reply:
        """The response in `row` of the arrays."""
        at = row if self._order is None else int(self._order[row])
        text, answer, quality, error = (column[at].as_py() for column in self._responses.values())
        return Reply(text or answer or "", answer or "", quality, error)

    def state(self, state: int) -> str:
        """What is seen in a state."""
        return str(self._states["text"][state].as_py() or "")

    def score(self, state: int, answer: str) -> float:
        """Quality of a written answer to the question of `state`: by its metric, 0 where texts alone do not tell.

        Known metrics are em and f1; a state with gold answers and no metric is scored by em.
        """
        gold: Any = self._states["gold"][state].as_py() or ()
        metric = METRICS.get(self._states["metric"][state].as_py() or "em")
        return metric(answer, gold) if metric and gold else 0.0


@lru_cache(maxsize=8)
def texts_of(log: Log) -> Texts:
    """The texts of `log`, one object for all environments on it."""
    return Texts(log)
