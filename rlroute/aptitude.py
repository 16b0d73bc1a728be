"""What a few probe queries say of a choice nobody has trained with: its aptitude profile [ours].

The expected quality of a newcomer is written as what the known choices are expected to do on the same text, shifted
and bent:

    q(s) = mean_m p_m(s) + offset + sum_m v_m · (p_m(s) − mean_m p_m(s)) + sum_j t_j · c_j(s)

with p_m the priors of the known choices and c_j the text components of an observation. The coefficients are Gaussian
a priori, so that their estimate from k probes is a ridge regression: without probes a newcomer is expected to do what
the pool does on average, and the more probes there are, the more it may differ from that.

How strongly v and t are drawn to 0 is chosen by cross-fitting: every known choice in turn is taken for a newcomer,
estimated from its own outcomes on the same k queries and the priors of the others, and judged on what was recorded of
it on train; the k probes of the newcomer itself, each predicted from the others, count beside these as `OWN_WEIGHT`
choices a probe.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Variances of the coefficients before any probe, in units of the variance of one outcome around its expectation.
OFFSET = 0.3
PROFILES = (0.1, 0.3, 1.0)  # of v
TEXTS = (0.01, 0.03)  # of t
OWN_WEIGHT = 1 / 30


@dataclass(frozen=True)
class Descriptions:
    """How N states look to the known choices."""

    known: Floats  # (N, M) expected quality of each known choice
    text: Floats  # (N, T) text components

    def __getitem__(self, rows: NDArray[np.int64]) -> Descriptions:
        return Descriptions(self.known[rows], self.text[rows])

    def without(self, choice: int) -> Descriptions:
        """As if the known choice in this column were not known."""
        return Descriptions(np.delete(self.known, choice, axis=1), self.text)

    @property
    def mean(self) -> Floats:
        """(N,) what the known choices do on average."""
        return np.asarray(self.known.mean(axis=1))

    def columns(self, profile: float, text: float) -> Floats:
        """(N, 1 + M + T) regressors scaled to coefficients of variance 1."""
        bent = self.known - self.mean[:, None]
        shift = np.full((len(bent), 1), np.sqrt(OFFSET))
        return np.concatenate([shift, np.sqrt(profile) * bent, np.sqrt(text) * self.text], axis=1)


@dataclass(frozen=True)
class Rehearsal:
    """What was recorded of the known choices, from which it is learned how newcomers are to be estimated."""

    outcomes: Floats  # (k, M) one outcome of each known choice on the probe queries, NaN where there is none
    states: Descriptions  # R train states
    quality: Floats  # (R, M) mean recorded quality there, NaN where there is none
    weight: Floats  # (R,) how much each state counts


@dataclass(frozen=True)
class Aptitude:
    """A newcomer's expected quality as a linear function of the known choices' and of the text."""

    offset: float
    known: Floats  # (M,) weights of the known choices' expected quality
    text: Floats  # (T,) weights of the text components

    def __call__(self, states: Descriptions) -> Floats:
        """Expected quality, (N,) in [0, 1]."""
        return np.clip(states.known @ self.known + states.text @ self.text + self.offset, 0.0, 1.0)


def fit_aptitude(probes: Descriptions, outcomes: Floats, rehearsal: Rehearsal) -> Aptitude:
    """The aptitude profile of a newcomer from its outcomes (k,) on k probe queries, in [0, 1]; NaN: not known."""
    heard = np.flatnonzero(~np.isnan(outcomes))
    if not len(heard):
        return _solve(probes[heard], outcomes[heard], PROFILES[0], TEXTS[0])
    losses = [_loss(probes, outcomes, heard, rehearsal, *strength) for strength in product(PROFILES, TEXTS)]
    profile, text = list(product(PROFILES, TEXTS))[int(np.argmin(losses))]
    return _solve(probes[heard], outcomes[heard], profile, text)


def _solve(probes: Descriptions, outcomes: Floats, profile: float, text: float) -> Aptitude:
    columns, num_known = probes.columns(profile, text), probes.known.shape[1]
    gram = columns @ columns.T + np.eye(len(columns))
    scaled = columns.T @ np.linalg.solve(gram, outcomes - probes.mean)
    bend = np.sqrt(profile) * scaled[1 : 1 + num_known]
    return Aptitude(
        offset=float(np.sqrt(OFFSET) * scaled[0]),
        known=1.0 / num_known + bend - bend.mean(),
        text=np.sqrt(text) * scaled[1 + num_known :],
    )


def _loss(
    probes: Descriptions, outcomes: Floats, heard: NDArray[np.int64], rehearsal: Rehearsal, profile: float, text: float
) -> float:
    """Squared error of this strength: over known choices taken for newcomers, and over the probes left out in turn."""
    loss = len(heard) * OWN_WEIGHT * _left_out(probes[heard], outcomes[heard], profile, text)
    num_known = probes.known.shape[1]
    for choice in range(num_known) if num_known > 1 else ():
        asked = np.flatnonzero(~np.isnan(rehearsal.outcomes[:, choice]))
        rows = np.flatnonzero(~np.isnan(rehearsal.quality[:, choice]))
        if len(asked) and len(rows):
            one = _solve(probes[asked].without(choice), rehearsal.outcomes[asked, choice], profile, text)
            error = one(rehearsal.states[rows].without(choice)) - rehearsal.quality[rows, choice]
            loss += float(np.average(error**2, weights=rehearsal.weight[rows])) / num_known
    return loss


def _left_out(probes: Descriptions, outcomes: Floats, profile: float, text: float) -> float:
    """Mean squared error of each probe predicted from the others (PRESS, Allen 1974)."""
    columns = probes.columns(profile, text)
    inverse = np.linalg.inv(columns @ columns.T + np.eye(len(columns)))
    return float(np.mean((inverse @ (outcomes - probes.mean) / np.diag(inverse)) ** 2))
