"""BudgetRoute: what a policy observes, from where an episode stands; shared by replay and live use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlroute.envs import observing
from rlroute.envs.observing import money_feature, penalty_feature, weight_feature
from rlroute.envs.terms import Terms
from rlroute.layout import Feature, Layout
from rlroute.pool import Pool

MANY_CALLS = 15.0  # expensive calls of a long task


@dataclass
class Trace:
    """N episodes so far: what each choice did, and what the providers' prompt caches hold."""

    visits: np.ndarray  # (N, num_choices) calls of each choice
    last: np.ndarray  # (N,) who acted last, −1 at the start
    prefix_tokens: np.ndarray  # (N, num_choices) prompt prefix that each choice has processed
    prefix_time_s: np.ndarray  # (N, num_choices) when it last did
    elapsed_s: np.ndarray  # (N,)
    spent_usd: np.ndarray  # (N,)
    cache_of: np.ndarray  # (num_choices,) which prompt cache a choice uses; equal numbers share one

    @classmethod
    def start(cls, num_envs: int, num_choices: int, one_cache: bool = False) -> Trace:
        """Before anything was done; with `one_cache` all choices share one prompt cache."""
        shape = (num_envs, num_choices)
        return cls(
            cache_of=np.zeros(num_choices, np.int64) if one_cache else np.arange(num_choices),
            visits=np.zeros(shape, np.int64),
            last=np.full(num_envs, -1),
            prefix_tokens=np.zeros(shape, np.int64),
            prefix_time_s=np.full(shape, -np.inf),
            elapsed_s=np.zeros(num_envs),
            spent_usd=np.zeros(num_envs),
        )

    def clear(self, which: np.ndarray) -> None:
        self.visits[which] = self.prefix_tokens[which] = 0
        self.last[which] = -1
        self.prefix_time_s[which] = -np.inf
        self.elapsed_s[which] = self.spent_usd[which] = 0.0

    def cached_tokens(self, prompt_tokens: np.ndarray, cache_ttl_s: np.ndarray) -> np.ndarray:
        """Prompt tokens that each choice would serve from its cache now, (N, num_choices)."""
        alive = self.elapsed_s[:, None] - self.prefix_time_s <= cache_ttl_s
        return np.where(alive, np.minimum(self.prefix_tokens, np.maximum(prompt_tokens, 0)), 0)

    def add(
        self,
        which: np.ndarray,
        choice: np.ndarray,
        prompt_tokens: np.ndarray,
        cost_usd: np.ndarray,
        latency_s: np.ndarray,
    ) -> None:
        self.visits[which, choice] += 1
        self.last[which] = choice
        self.elapsed_s[which] += latency_s
        same = self.cache_of[choice][:, None] == self.cache_of  # (M, num_choices)
        processed, now = np.maximum(prompt_tokens, 0)[:, None], self.elapsed_s[which][:, None]
        self.prefix_tokens[which] = np.where(same, processed, self.prefix_tokens[which])
        self.prefix_time_s[which] = np.where(same, now, self.prefix_time_s[which])
        self.spent_usd[which] += cost_usd


@dataclass
class Situation:
    """The step that N episodes stand at, and the budgets left."""

    text: np.ndarray  # (N, text components of the layout)
    extra: np.ndarray  # (N, num_extra)
    prior: np.ndarray  # (N, num_choices) expected quality of this step
    prospect: np.ndarray  # (N, num_choices) expected success of the task after it
    prompt_tokens: np.ndarray  # (N, num_choices), −1 unknown
    step: np.ndarray  # (N,)
    usd_left: np.ndarray  # (N,) infinite without a cap
    calls_left: np.ndarray  # (N,) infinite without a cap
    callable: np.ndarray  # (N, num_choices) bool


def make_layout(num_choices: int, num_extra: int, index: bool = False) -> Layout:
    """The observation of BudgetRoute for a pool of `num_choices`."""
    return observing.make_layout(
        context=(
            observing.COST_WEIGHT,
            observing.LATENCY_WEIGHT,
            observing.SPENT,
            observing.USD_LEFT,
            observing.USD_CAPPED,
            Feature("calls_left", "log2(1 + expensive calls) / 4"),
            Feature("one_call_left", "flag"),
            Feature("calls_capped", "flag"),
            Feature("step", "share of the longest task"),
        ),
        choice=(
            observing.PRIOR,
            observing.PROSPECT,
            observing.PRICE,
            observing.WEIGHTED_PRICE,
            observing.LATENCY,
            observing.CALLABLE,
            Feature("expensive", "flag"),
            observing.RESERVE,
            Feature("calls", "log2(1 + calls) / 4"),
            Feature("share", "share of the steps so far"),
            Feature("acted_last", "flag"),
            Feature("cached", "share of the prompt in its cache"),
        ),
        num_choices=num_choices,
        num_extra=num_extra,
        context_actions=(),
        choice_actions=("choose",),
        index=index,
    )


def calls_feature(calls: np.ndarray) -> np.ndarray:
    """A number of calls on a log scale, so that the last few are told apart; 1 from `MANY_CALLS` on."""
    return np.log2(1.0 + np.minimum(calls, MANY_CALLS)) / np.log2(1.0 + MANY_CALLS)


def write_observation(
    out: np.ndarray,
    layout: Layout,
    pool: Pool,
    terms: Terms,
    situation: Situation,
    trace: Trace,
    expensive: np.ndarray,  # (num_choices,) bool
    c_ref: float,
    l_ref: float,
    horizon: int,
    prompt_cache: bool,
    row: np.ndarray | None = None,
) -> None:
    """Fill `out`, float32 of shape (N, layout.size). Replay and live loops both observe through this function."""
    prompt = situation.prompt_tokens
    cached = trace.cached_tokens(prompt, pool.cache_ttl_s) if prompt_cache else np.zeros(prompt.shape, np.int64)
    price = pool.expected_cost_usd(prompt, cached)
    observing.write_features(
        out,
        layout,
        static=(situation.text, situation.extra) if row is None else (row[:, None],),
        context=(
            weight_feature(terms.cost_weight),
            weight_feature(terms.latency_weight),
            penalty_feature(terms.cost_weight, trace.spent_usd, c_ref),
            money_feature(situation.usd_left, c_ref),
            np.isfinite(situation.usd_left),
            calls_feature(situation.calls_left),
            situation.calls_left == 1,
            np.isfinite(situation.calls_left),
            np.minimum(situation.step / max(horizon, 1), 1.0),
        ),
        blocks=(
            *((situation.prior, situation.prospect) if row is None else ()),
            money_feature(price, c_ref),
            penalty_feature(terms.cost_weight[:, None], price, c_ref),
            np.broadcast_to(money_feature(pool.mean_latency_s, max(l_ref, 1e-9)), price.shape),
            situation.callable,
            np.broadcast_to(expensive, price.shape),
            observing.reserve_share(pool.reserve_usd(prompt), situation.usd_left),
            calls_feature(trace.visits),
            trace.visits / np.maximum(trace.visits.sum(axis=1, keepdims=True), 1),
            trace.last[:, None] == np.arange(pool.size),
            cached / np.maximum(prompt, 1),
        ),
    )
