"""Features of a log in which some choices are newcomers: known by their price list and k probe queries alone [ours].

Everything else is as for a policy that was trained without them: text components, extra features and the priors of the
known choices are fitted on `Log.without(newcomers)`, and so are the units of a reward, c_ref and l_ref. A policy
therefore meets the known choices as it did in training, and a cost weight means what it meant there. (Where the best
single choice is itself a newcomer the units differ from those of the whole log: compare policies trained with and
without it at equal w_c / c_ref.)

A probe query is one response of a newcomer to one train state, and all that is read of it there. States are drawn
without replacement by how much they matter under uniform routing over the known choices; all newcomers are asked the
same queries, where they were recorded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rlroute.aptitude import Aptitude, Descriptions, Rehearsal, fit_aptitude
from rlroute.arrays import LogArrays
from rlroute.draws import Stream, key_from_seed, permuted_index, uniform
from rlroute.features import (
    LogFeatures,
    TextModel,
    cached_features,
    distinct_text_features,
    fitted_states,
    log_features,
    mean_quality,
)
from rlroute.graph import prospects
from rlroute.log import Log
from rlroute.prior import QualityPrior
from rlroute.text import featuriser

REHEARSED = 2000  # train states on which it is tried out how newcomers are to be estimated
BLOCK_ROWS = 4096


@dataclass(frozen=True)
class Probing:
    """Who is a newcomer, and how it is probed."""

    newcomers: tuple[str, ...]
    probes: int  # queries to each newcomer
    seed: int  # of the draw of the queries

    def refuse_unknown(self, names: Sequence[str]) -> None:
        """ValueError unless the newcomers are some, but not all, of the choices `names`."""
        unknown = [name for name in self.newcomers if name not in names]
        if unknown or len(set(self.newcomers)) == len(names):
            raise ValueError(f"newcomers={self.newcomers!r}: expected some, but not all, of {', '.join(names)}")


def newcomer_features(log: Log, probing: Probing, name: str = "hashed", salt: int = 0) -> LogFeatures:
    """The features of `log` with newcomers in it, from the cache where they have been computed before."""
    probing.refuse_unknown(log.arrays.choice_names)
    kind = featuriser(name)
    digest = hashlib.blake2b(repr(probing).encode(), digest_size=8).hexdigest()
    key = f"{log.content_hash}-{kind.name}-salt{salt}-newcomers{digest}"
    return cached_features(key, kind, lambda: _Study(log, probing, name, salt).features())


def probe_states(
    arrays: LogArrays, states: np.ndarray, weight: np.ndarray, choice: int, probing: Probing
) -> np.ndarray:
    """The probe queries to one choice, (probes,) drawn among `states` (n,) of `weight` (n,) where it was recorded.

    Successive weighted draws without replacement (Efraimidis & Spirakis 2006), keyed by the seed and the state.
    """
    asked = np.flatnonzero(arrays.num_attempts[states, choice] > 0)
    if len(asked) < probing.probes:
        raise ValueError(
            f"probes={probing.probes}: choice {arrays.choice_names[choice]!r} was recorded in {len(asked)} train "
            "states, expected at least as many as probes"
        )
    waiting = -np.log1p(-uniform(key_from_seed(probing.seed), states[asked], Stream.PROBE)) / weight[asked]
    return np.asarray(states[asked[np.argsort(waiting, kind="stable")[: probing.probes]]])


def one_response(arrays: LogArrays, states: np.ndarray, choice: int, probing: Probing) -> np.ndarray:
    """One recorded response of a choice in each of `states`, by its row, (n,); −1 where it has none."""
    size = arrays.num_attempts[states, choice].astype(np.int64)
    first = arrays.cell[states.astype(np.int64) * arrays.num_choices + choice]
    start = np.zeros(len(size), np.int64)
    order = permuted_index(
        key_from_seed(probing.seed), np.maximum(size, 1), start, states, np.full(len(size), Stream.PROBE)
    )
    return np.where(size > 0, first + order, -1)


class _Study:
    """All that goes into the features of one log with newcomers."""

    def __init__(self, log: Log, probing: Probing, name: str, salt: int) -> None:
        self.log, self.probing, self.arrays = log, probing, log.arrays
        names = np.array(log.arrays.choice_names)
        self.new = np.flatnonzero(np.isin(names, probing.newcomers))
        self.known = np.flatnonzero(~np.isin(names, probing.newcomers))
        trained = log.without(probing.newcomers)
        self.before = log_features(trained, name, salt)
        # Rows of the smaller log in the whole one; its order is the same.
        self.rows = np.flatnonzero(np.isin(self.arrays.state_ids, trained.arrays.state_ids))
        self.fitted, self.weight = fitted_states(trained.arrays, trained.splits(salt))
        self.distinct, self.index = distinct_text_features(log, featuriser(name))
        self.extra = self.before.model.standardise(self.arrays.extra.astype(np.float64))
        self.pool = self.arrays.only(self.known)  # the known choices in all states of the whole log
        self.probed = {
            c: probe_states(self.arrays, self.rows[self.fitted], self.weight, c, probing) for c in self.new.tolist()
        }

    def features(self) -> LogFeatures:
        arrays, before = self.arrays, self.before
        after = prospects(self.pool)  # (S, num_known)
        targets = {
            "prior": (before.prior, mean_quality(self.pool), arrays.quality.astype(np.float64)),
            "prospect": (before.prospect, after, self._worth(after)),
        }
        aptitudes = {name: [self._aptitude(c, *target) for c in self.new.tolist()] for name, target in targets.items()}
        model = self._extended([aptitudes["prior"], aptitudes["prospect"]])
        prior, prospect = self._tables(model, aptitudes)
        cost, tokens, latency = self._typical_calls()
        return LogFeatures(
            text=model.project(self.distinct)[self.index],
            prior=prior,
            prospect=prospect,
            extra=self.extra,
            mean_cost_usd=cost,
            mean_completion_tokens=tokens,
            mean_latency_s=latency,
            reference=before.reference,
            model=model,
        )

    # -- aptitude -----------------------------------------------------------------------------------------------

    def _worth(self, after: np.ndarray) -> np.ndarray:
        """(R,) what the end is worth after each response, if known choices drawn uniformly go on from there."""
        arrays = self.arrays
        with np.errstate(invalid="ignore"):
            recorded = np.maximum((~np.isnan(after)).sum(axis=1), 1)
            value = np.where(arrays.terminal, arrays.success, np.nansum(after, axis=1) / recorded)
        return np.where(arrays.next_state >= 0, value[arrays.next_state], np.nan_to_num(arrays.quality))

    def _aptitude(self, choice: int, expected: np.ndarray, recorded: np.ndarray, worth: np.ndarray) -> Aptitude:
        """From what is expected of the known choices (before, cross-fitted), what was recorded of them, and worths."""
        states = self.probed[choice]
        some = slice(None, None, 1 + len(self.fitted) // REHEARSED)
        rehearsal = Rehearsal(
            outcomes=np.stack([self._told(states, c, worth) for c in self.known.tolist()], axis=1),
            states=self._describe(self.fitted[some], expected),
            quality=recorded[self.rows[self.fitted[some]]],
            weight=self.weight[some],
        )
        probes = self._describe(np.searchsorted(self.rows, states), expected)
        return fit_aptitude(probes, self._told(states, choice, worth), rehearsal)

    def _told(self, states: np.ndarray, choice: int, values: np.ndarray) -> np.ndarray:
        """`values` (R,) of one response of a choice in each of `states`; NaN where it has none."""
        row = one_response(self.arrays, states, choice, self.probing)
        return np.where(row >= 0, values[row], np.nan)

    def _describe(self, states: np.ndarray, expected: np.ndarray) -> Descriptions:
        """`states` are rows of the smaller log, as `expected` has them."""
        text = self.before.model.unclipped(self.distinct[self.index[self.rows[states]]])
        return Descriptions(np.asarray(expected[states], np.float64), text)

    # -- tables -------------------------------------------------------------------------------------------------

    def _extended(self, aptitudes: Sequence[Sequence[Aptitude]]) -> TextModel:
        """The text model of the smaller log with a column for each newcomer, for quality and for prospect."""
        model = self.before.model
        text = model.components.astype(np.float64) / model.scale  # (num_text_features, T)
        num_extra = len(model.extra_mean)
        weights, bias = [], []
        parts = zip(np.split(model.prior.weights, 2, axis=1), np.split(model.prior.bias, 2), aptitudes, strict=True)
        for known_weights, known_bias, newcomers in parts:
            wide = np.zeros((len(known_weights), self.arrays.num_choices))
            level = np.zeros(self.arrays.num_choices)
            wide[:, self.known], level[self.known] = known_weights, known_bias
            for choice, aptitude in zip(self.new, newcomers, strict=True):
                spelt = np.concatenate([text @ aptitude.text, np.zeros(num_extra)])
                wide[:, choice] = known_weights @ aptitude.known + spelt
                level[choice] = known_bias @ aptitude.known + aptitude.offset - model.centre @ (text @ aptitude.text)
            weights.append(wide)
            bias.append(level)
        prior = QualityPrior(
            np.concatenate(weights, axis=1).astype(np.float32), np.concatenate(bias).astype(np.float32)
        )
        return replace(model, prior=prior)

    def _tables(self, model: TextModel, aptitudes: dict[str, list[Aptitude]]) -> tuple[np.ndarray, np.ndarray]:
        """Prior and prospect of every state; train states keep the cross-fitted estimates they had."""
        arrays, num_states = self.arrays, self.arrays.num_states
        prior, prospect = (np.empty((num_states, arrays.num_choices), np.float32) for _ in range(2))
        for rows in np.array_split(np.arange(num_states), 1 + num_states // BLOCK_ROWS):
            prior[rows], prospect[rows] = model.estimates(self.distinct[self.index[rows]], self.extra[rows])
        for table, known, name in ((prior, self.before.prior, "prior"), (prospect, self.before.prospect, "prospect")):
            for at in np.array_split(self.fitted, 1 + len(self.fitted) // BLOCK_ROWS):
                table[np.ix_(self.rows[at], self.known)] = known[at]
                for choice, aptitude in zip(self.new, aptitudes[name], strict=True):
                    table[self.rows[at], choice] = aptitude(self._describe(at, known))
        return prior, prospect

    def _typical_calls(self) -> list[np.ndarray]:
        """Mean cost, completion tokens and latency of one call of each choice, (num_choices,) each."""
        arrays, before = self.arrays, self.before
        tokens = np.where(arrays.completion_tokens >= 0, arrays.completion_tokens, np.nan)
        return [
            self._typical(before.mean_cost_usd, arrays.cost_usd),
            self._typical(before.mean_completion_tokens, tokens),
            self._typical(before.mean_latency_s, arrays.latency_s),
        ]

    def _typical(self, known: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Means of the known choices on train, and a ratio estimate for each newcomer (Cochran 1977, chapter 6).

        Probe queries are drawn by weight and so are not typical: what is read off them is how much more or less a
        newcomer takes than the known choices do on the same queries.
        """
        out = np.full(self.arrays.num_choices, np.nan)
        out[self.known] = known
        for choice, states in self.probed.items():
            own = self._told(states, choice, values)
            theirs = np.mean([self._told(states, c, values) for c in self.known.tolist()], axis=0)
            both = np.isfinite(own) & np.isfinite(theirs)
            if theirs[both].sum() > 0 and np.isfinite(known).all():
                out[choice] = known.mean() * own[both].sum() / theirs[both].sum()
            elif np.isfinite(own).any():
                out[choice] = np.nanmean(own)
        return out
