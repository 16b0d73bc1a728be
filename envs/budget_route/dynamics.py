"""BudgetRoute: what an action does and which actions are masked. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rlroute.envs.arguments import ReplayArguments
from rlroute.envs.budget_route import transitions
from rlroute.envs.budget_route.observation import CALL, ESTIMATES, TRACE, charged_pool, make_layout
from rlroute.envs.budget_route.transitions import Game
from rlroute.envs.replay import ReplayDynamics
from rlroute.envs.terms import Range
from rlroute.jit import bind, records
from rlroute.log import Log
from rlroute.rewards import RECENT


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
    slot_fields: ClassVar[dict[str, Any]] = TRACE
    response_fields: ClassVar[tuple[str, ...]] = transitions.RESPONSE_FIELDS
    estimates: ClassVar[tuple[str, ...]] = ESTIMATES
    one_cache: ClassVar[bool] = False  # whether all choices share one prompt cache
    enter_all = staticmethod(transitions.enter_all)
    step_all = staticmethod(transitions.step_all)
    arguments: BudgetRouteArguments

    def __init__(self, arguments: BudgetRouteArguments, num_envs: int) -> None:
        super().__init__(arguments, num_envs)
        self.layout = self.as_trained(
            make_layout(self.pool.size, self.arrays.extra.shape[1], index=arguments.obs == "index")
        )
        self.expensive = self._expensive()
        self.horizon = int(self.arrays.step.max(initial=0))
        self.prompt_cache = self._prompt_cache()
        self.game = Game(
            num_choices=self.pool.size,
            num_tallies=len(self.tallies),
            slots=self.slots,
            calls=records((num_envs, self.pool.size), CALL),
            mask=np.zeros((num_envs, self.pool.size), np.int8),
            in_pool=np.ones((num_envs, self.pool.size), bool),
            pool_size=self.pool_size,
            roots=self.roots,
            pool=charged_pool(self.pool, self.expensive, self.l_ref, self.prompt_cache, self.one_cache),
            recording=self.recording(self.layout),
            frame=self.frame(self.layout),
            recharged=self.prompt_cache,
            reward=self.reward_rules(),
            recent=np.zeros((2, RECENT + 1)),
            tallies=self.tally,
        )
        self._observe: Callable[..., None] | None = None

    @property
    def default_max_episode_steps(self) -> int:
        return 2 * self.horizon + 8

    # -- what policies may read ---------------------------------------------------------------------------------

    @property
    def observation(self) -> np.ndarray:
        """What policies see now, (num_envs, layout.size) float32: an array of its own."""
        return self.observe(np.arange(self.num_envs))

    def observe(self, which: np.ndarray) -> np.ndarray:
        """Nothing is kept of what was shown: an observation is a function of where an episode stands."""
        which = np.ascontiguousarray(which, np.int64)
        out = np.empty((len(which), self.layout.size), np.float32)
        if self._observe is None:
            self._observe = bind(transitions.observe_some, self.game, which, out)
        self._observe(self.game, which, out)
        return out

    @property
    def visits(self) -> np.ndarray:
        """Calls of each choice, (num_envs, num_choices)."""
        return np.asarray(self.game.calls["visits"])

    @property
    def calls(self) -> np.ndarray:
        return self.visits.sum(axis=1)

    @property
    def expensive_calls(self) -> np.ndarray:
        return self.visits[:, self.expensive].sum(axis=1)

    @property
    def calls_left(self) -> np.ndarray:
        """Calls of expensive choices left in the budget, (num_envs,); infinite without a cap."""
        return np.asarray(self.slots["calls_left"])

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
