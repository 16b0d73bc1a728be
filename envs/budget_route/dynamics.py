"""BudgetRoute: what an action does and which actions are masked. Arrays in, arrays out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlroute.envs.arguments import ReplayArguments
from rlroute.envs.budget_route.observation import Situation, Trace, make_layout, write_observation
from rlroute.envs.replay import ReplayDynamics
from rlroute.envs.terms import Range
from rlroute.log import Log
from rlroute.rewards import COST_USD, LATENCY_S, QUALITY


@dataclass(frozen=True)
class BudgetRouteArguments(ReplayArguments):
    """Arguments of BudgetRoute, beside the common ones."""

    log: str | Log = "tasks"
    preference: Range = 0.0
    repeat: str = "same"
    expensive: tuple[str, ...] | None = None  # choices that budget_calls counts; default: all but the cheapest
    prompt_cache: bool | None = None  # cost with the providers' prompt caches; default: where tokens are known


class BudgetRouteDynamics(ReplayDynamics):
    """N episodes of BudgetRoute."""

    family: ClassVar[str] = "rlroute/BudgetRoute-v0"
    arguments_type: ClassVar[type[BudgetRouteArguments]] = BudgetRouteArguments
    one_cache: ClassVar[bool] = False  # whether all choices share one prompt cache
    arguments: BudgetRouteArguments

    def __init__(self, arguments: BudgetRouteArguments, num_envs: int) -> None:
        super().__init__(arguments, num_envs)
        self.layout = self.as_trained(
            make_layout(self.pool.size, self.arrays.extra.shape[1], index=arguments.obs == "index")
        )
        self.expensive = self._expensive()
        self.horizon = int(self.arrays.step.max(initial=0))
        self.prompt_cache = self._prompt_cache()
        self.trace = Trace.start(num_envs, self.pool.size, self.one_cache)
        self.calls_left = np.full(num_envs, np.inf)

    @property
    def default_max_episode_steps(self) -> int:
        return 2 * self.horizon + 8

    @property
    def calls(self) -> np.ndarray:
        return self.trace.visits.sum(axis=1)

    @property
    def expensive_calls(self) -> np.ndarray:
        return self.trace.visits[:, self.expensive].sum(axis=1)

    @property
    def visits(self) -> np.ndarray:
        return self.trace.visits

    @property
    def elapsed_s(self) -> np.ndarray:
        return self.trace.elapsed_s

    @property
    def cached(self) -> np.ndarray:
        """Prompt tokens that each choice would serve from its cache now, (num_envs, num_choices)."""
        tokens = self.arrays.prompt_tokens_of[self.state]
        if not self.prompt_cache:
            return np.zeros(tokens.shape, np.int64)
        return self.trace.cached_tokens(tokens, self.pool.cache_ttl_s)

    # -- transitions --------------------------------------------------------------------------------------------

    def enter_task(self, which: np.ndarray) -> None:
        self.trace.clear(which)
        self.calls_left[which] = self.terms.budget_calls[which]

    def act(self, which: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A call whose response is accepted at once."""
        row = self.draw(which, action, np.zeros(len(which), np.int64))
        prompt = self.arrays.prompt_tokens[row]
        known = self.arrays.completion_tokens[row] >= 0
        completion = np.where(known, self.arrays.completion_tokens[row], 0)
        if self.prompt_cache:
            cached = np.minimum(self.cached[which, action], prompt)
            cost = self.pool.cost_usd(action, prompt, cached, completion)
            # Of a call that failed the provider has said what it costs, be it nothing.
            cost = np.where(self.arrays.error[row], self.arrays.cost_usd[row], cost)
        else:
            cost = self.arrays.cost_usd[row]
        latency = np.nan_to_num(self.arrays.latency_s[row])
        self.trace.add(which, action, prompt, cost, latency)
        self.totals.output_cost_usd[which] += np.where(known, completion * self.pool.output_usd[action], cost)
        self.calls_left[which] -= self.expensive[action]
        self.heard(which, action, row)

        following = self.arrays.next_state[row]
        ended = (following < 0) | self.arrays.terminal[following]
        self.state[which] = np.where(following >= 0, following, self.state[which])
        vector = np.zeros((len(which), 4))
        vector[:, QUALITY] = ended & (following >= 0) & self.arrays.success[following]
        vector[:, COST_USD] = cost
        vector[:, LATENCY_S] = latency
        return vector, ended

    def heard(self, which: np.ndarray, choice: np.ndarray, row: np.ndarray) -> None:
        """Responses `row` were drawn; for families that keep more of them."""
        return

    # -- what a policy sees -------------------------------------------------------------------------------------

    def _callable(self) -> np.ndarray:
        recorded = self.recorded(self.state) > 0
        covered = ~self.expensive | (self.calls_left >= 1)[:, None]
        return recorded & covered & self.affordable(self.arrays.prompt_tokens_of[self.state])

    def write_action_mask(self, mask: np.ndarray) -> None:
        mask[:] = self._callable()

    def observe(self, out: np.ndarray) -> None:
        index = self.arguments.obs == "index"
        situation = Situation(
            text=self.text[self.state, : self.text_size],
            extra=self.features.extra[self.state],
            prior=self.prior[self.state],
            prospect=self.features.prospect[self.state],
            prompt_tokens=self.arrays.prompt_tokens_of[self.state],
            step=self.arrays.step[self.state],
            usd_left=self.usd_left,
            calls_left=self.calls_left,
            callable=self._callable(),
        )
        write_observation(
            out,
            self.layout,
            self.pool,
            self.terms,
            situation,
            self.trace,
            self.expensive,
            self.c_ref,
            self.l_ref,
            self.horizon,
            self.prompt_cache,
            row=self.state if index else None,
        )

    def constants(self) -> dict[str, float]:
        return {
            "horizon": self.horizon,
            "prompt_cache": float(self.prompt_cache),
            **{f"expensive/{name}": float(flag) for name, flag in zip(self.pool.names, self.expensive, strict=True)},
        }

    def describe_progress(self, slot: int) -> list[str]:
        calls = ", ".join(f"{name} {n}" for name, n in zip(self.pool.names, self.visits[slot], strict=True))
        left = self.calls_left[slot]
        return [f"calls: {calls}" + (f"; expensive calls left: {left:.0f}" if np.isfinite(left) else "")]

    # -- construction -------------------------------------------------------------------------------------------

    def _expensive(self) -> np.ndarray:
        """(num_choices,) bool: the choices that `budget_calls` counts."""
        names = self.arguments.expensive
        if names is None:
            return np.arange(self.pool.size) != int(np.argmin(self.pool.mean_cost_usd))
        unknown = sorted(set(names) - set(self.pool.names))
        if unknown:
            raise ValueError(f"expensive={names!r}: {unknown[0]!r} is unknown, expected among {list(self.pool.names)}")
        return np.isin(self.pool.names, names)

    def _prompt_cache(self) -> bool:
        asked = self.arguments.prompt_cache
        recorded = self.arrays.prompt_tokens >= 0
        known = bool(recorded.all() and (self.arrays.completion_tokens >= 0).all())
        known &= bool((self.pool.input_usd + self.pool.output_usd > 0).all())
        if asked and not known:
            raise ValueError("prompt_cache=True needs prompt and completion tokens and prices, some are not in the log")
        return known if asked is None else asked

    def largest_charges(self) -> np.ndarray:
        arrays, pool = self.arrays, self.pool
        if not self._prompt_cache():
            return super().largest_charges()
        choice = arrays.row_cell % pool.size
        uncached = pool.cost_usd(choice, arrays.prompt_tokens, np.zeros_like(choice), arrays.completion_tokens)
        cached = pool.cost_usd(choice, arrays.prompt_tokens, arrays.prompt_tokens, arrays.completion_tokens)
        return np.where(arrays.error, arrays.cost_usd, np.maximum(uncached, cached))

    def _refuse_unusable_log(self) -> None:
        super()._refuse_unusable_log()
        if not self.arrays.terminal.any():
            raise ValueError(
                f"log {self.log.name!r} has no terminal states: expected a task log, whose ends say if they succeed"
            )
