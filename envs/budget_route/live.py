"""BudgetRoute in a live agent loop: one episode, observed through the same function as in replay."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import ClassVar

import numpy as np

from rlroute.envs.budget_route.observation import Situation, Trace, write_observation
from rlroute.envs.live import LiveBase
from rlroute.policy import TrainedPolicy
from rlroute.router import Response


class BudgetRouteLive(LiveBase):
    """A batch of one whose responses come from providers instead of a log."""

    one_cache: ClassVar[bool] = False  # as in dynamics

    @classmethod
    def check(cls, policy: TrainedPolicy) -> None:
        super().check(policy)
        for name in ("horizon", "prompt_cache", *(f"expensive/{choice}" for choice in policy.card["choices"])):
            policy.value("constants", name, kind=Real)

    def __init__(self, policy: TrainedPolicy, terms: Mapping[str, float | None]) -> None:
        super().__init__(policy, terms)
        self.trace = Trace.start(1, self.pool.size, self.one_cache)
        self.calls_left = self.terms.budget_calls.copy()
        self.step = np.zeros(1, np.int64)
        self.expensive = np.array([bool(self.constants[f"expensive/{name}"]) for name in self.pool.names])

    def situate(self, text: str, features: Mapping[str, float], prompt_tokens: int, can_think: bool) -> None:
        self.read(text, features, prompt_tokens)

    def callable(self) -> np.ndarray:
        covered = ~self.expensive | (self.calls_left >= 1)[:, None]
        return covered & self.affordable()

    def action_mask(self) -> np.ndarray:
        return self.callable().astype(np.int8)

    def write(self, out: np.ndarray, common: dict[str, np.ndarray]) -> None:
        situation = Situation(prospect=self.prospect, step=self.step, calls_left=self.calls_left, **common)
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
            int(self.constants["horizon"]),
            bool(self.constants["prompt_cache"]),
        )

    def taken(self, action: str, choice: int | None) -> float:
        """Every action of BudgetRoute is a call."""
        return 0.0

    def record(self, choice: int, response: Response) -> float:
        which, one = np.zeros(1, np.int64), np.array([choice])
        prompt = self.prompt_tokens[:, choice] if response.prompt_tokens is None else np.array([response.prompt_tokens])
        cached = 0
        if self.constants["prompt_cache"]:
            cached = int(self.trace.cached_tokens(self.prompt_tokens, self.pool.cache_ttl_s)[0, choice])
        cost = self.cost_usd(choice, response, cached)
        self.trace.add(which, one, prompt, np.array([cost]), np.array([response.latency_s]))
        self.calls_left -= self.expensive[choice]
        self.step += 1
        return self.pay(cost)
