"""ThinkRoute: what a policy observes, from what was heard and where it stands; shared by replay and live use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlroute.envs import observing
from rlroute.envs.observing import money_feature, penalty_feature, weight_feature
from rlroute.envs.terms import Terms
from rlroute.layout import Feature, Layout
from rlroute.pool import Pool

CHARS_SCALE = 10.0  # log(1 + characters) of the longest answers


@dataclass
class Heard:
    """What N episodes have heard in their present state: all that depends on responses and may be observed."""

    choice: np.ndarray  # (N, max_rounds) who answered, in call order; −1 where nothing was heard
    answer: np.ndarray  # (N, max_rounds) code of the normalised answer, −1 for an empty one
    chars: np.ndarray  # (N, max_rounds) length of the text, else of the answer
    failed: np.ndarray  # (N, max_rounds) bool, empty or an error
    truncated: np.ndarray  # (N, max_rounds) bool, cut at the completion limit
    verdict: np.ndarray  # (N, max_rounds) in [0, 1], NaN where not seen
    size: np.ndarray  # (N,)

    @classmethod
    def nothing(cls, num_envs: int, max_rounds: int) -> Heard:
        shape = (num_envs, max_rounds)
        return cls(
            choice=np.full(shape, -1),
            answer=np.full(shape, -1),
            chars=np.zeros(shape, np.int64),
            failed=np.zeros(shape, bool),
            truncated=np.zeros(shape, bool),
            verdict=np.full(shape, np.nan),
            size=np.zeros(num_envs, np.int64),
        )

    def clear(self, which: np.ndarray) -> None:
        self.choice[which] = self.answer[which] = -1
        self.chars[which] = self.size[which] = 0
        self.failed[which] = self.truncated[which] = False
        self.verdict[which] = np.nan

    def add(
        self,
        which: np.ndarray,
        choice: np.ndarray,
        answer: np.ndarray,
        chars: np.ndarray,
        failed: np.ndarray,
        truncated: np.ndarray,
        verdict: np.ndarray,
    ) -> None:
        at = (which, self.size[which])
        self.choice[at], self.answer[at], self.chars[at] = choice, answer, chars
        self.failed[at], self.truncated[at], self.verdict[at] = failed, truncated, verdict
        self.size[which] += 1

    def latest(self, num_choices: int) -> np.ndarray:
        """Position of each choice's latest response, (N, num_choices); −1 where it has not answered."""
        latest = np.full((len(self.size), num_choices), -1)
        for k in range(self.choice.shape[1]):
            rows = np.flatnonzero(self.choice[:, k] >= 0)
            latest[rows, self.choice[rows, k]] = k
        return latest

    def agreement(self) -> np.ndarray:
        """How many heard responses give the same answer as response k, itself included, (N, max_rounds)."""
        same = (self.answer[:, :, None] == self.answer[:, None, :]) & (self.answer[:, :, None] >= 0)
        return same.sum(axis=2)


@dataclass
class Situation:
    """Where N episodes stand, apart from what they have heard."""

    text: np.ndarray  # (N, text components of the layout)
    extra: np.ndarray  # (N, num_extra)
    prior: np.ndarray  # (N, num_choices)
    prompt_tokens: np.ndarray  # (N, num_choices), −1 unknown
    can_think: np.ndarray  # (N,) bool
    depth: np.ndarray  # (N,) 0 at the whole question, k in its k-th sub-question
    rounds_left: np.ndarray  # (N,)
    usd_left: np.ndarray  # (N,) infinite without a cap
    spent_usd: np.ndarray  # (N,)
    callable: np.ndarray  # (N, num_choices) bool


def make_layout(num_choices: int, num_extra: int, checker: str | None, index: bool = False) -> Layout:
    """The observation of ThinkRoute for a pool of `num_choices`."""
    return observing.make_layout(
        context=(
            observing.COST_WEIGHT,
            observing.LATENCY_WEIGHT,
            observing.SPENT,
            observing.USD_LEFT,
            observing.USD_CAPPED,
            Feature("rounds_left", "share of max_rounds"),
            Feature("can_think", "flag"),
            Feature("depth", "sub-question / 4"),
            Feature("heard", "share of max_rounds"),
            Feature("distinct_answers", "share of max_rounds"),
        ),
        choice=(
            observing.PRIOR,
            observing.PRICE,
            observing.WEIGHTED_PRICE,
            observing.LATENCY,
            observing.CALLABLE,
            observing.RESERVE,
            Feature("calls", "share of max_rounds"),
            Feature("answered", "flag"),
            Feature("agreement", "share of what was heard"),
            Feature("support", "equal answers / max_rounds"),
            Feature("length", "log of characters / 10"),
            Feature("failed", "flag, empty or error"),
            Feature("truncated", "flag"),
            Feature("verdict", "checker's verdict, 0.5 unseen"),
            Feature("verdict_seen", "flag"),
        ),
        num_choices=num_choices,
        num_extra=num_extra,
        context_actions=("think", "check") if checker == "action" else ("think",),
        choice_actions=("call", "accept"),
        index=index,
    )


def write_observation(
    out: np.ndarray,
    layout: Layout,
    pool: Pool,
    terms: Terms,
    situation: Situation,
    heard: Heard,
    c_ref: float,
    l_ref: float,
    row: np.ndarray | None = None,
) -> None:
    """Fill `out`, float32 of shape (N, layout.size). Replay and live loops both observe through this function."""
    rounds = heard.choice.shape[1]
    agreement = heard.agreement()
    # Each response counts for one over the number of its equals, so that an answer counts once.
    distinct = np.where(agreement > 0, 1.0 / np.maximum(agreement, 1), 0.0).sum(axis=1)
    price = pool.expected_cost_usd(situation.prompt_tokens)
    latest = heard.latest(pool.size)
    answered = latest >= 0

    def of_latest(values: np.ndarray) -> np.ndarray:
        return np.take_along_axis(values, np.maximum(latest, 0), axis=1)

    verdict = of_latest(heard.verdict)
    seen = answered & ~np.isnan(verdict)
    support = np.where(answered, of_latest(agreement), 0)
    observing.write_features(
        out,
        layout,
        static=(situation.text, situation.extra) if row is None else (row[:, None],),
        context=(
            weight_feature(terms.cost_weight),
            weight_feature(terms.latency_weight),
            penalty_feature(terms.cost_weight, situation.spent_usd, c_ref),
            money_feature(situation.usd_left, c_ref),
            np.isfinite(situation.usd_left),
            situation.rounds_left / rounds,
            situation.can_think,
            np.minimum(situation.depth / 4.0, 1.0),
            heard.size / rounds,
            distinct / rounds,
        ),
        blocks=(
            *((situation.prior,) if row is None else ()),
            money_feature(price, c_ref),
            penalty_feature(terms.cost_weight[:, None], price, c_ref),
            np.broadcast_to(money_feature(pool.mean_latency_s, max(l_ref, 1e-9)), price.shape),
            situation.callable,
            observing.reserve_share(pool.reserve_usd(situation.prompt_tokens), situation.usd_left),
            (heard.choice[:, :, None] == np.arange(pool.size)).sum(axis=1) / rounds,
            answered,
            support / np.maximum(heard.size[:, None], 1),
            support / rounds,
            np.where(answered, np.minimum(np.log1p(of_latest(heard.chars)) / CHARS_SCALE, 1.0), 0.0),
            answered & of_latest(heard.failed),
            answered & of_latest(heard.truncated),
            np.where(seen, np.nan_to_num(verdict), 0.5),
            seen,
        ),
    )
