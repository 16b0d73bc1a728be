"""BudgetRoute in a live agent loop: one episode, observed through the same function as in replay."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any, ClassVar

import numpy as np

from rlroute.envs.budget_route.observation import (
    CALL,
    ESTIMATES,
    TRACE,
    add_call,
    charged_pool,
    clear,
    observe_step,
    served_tokens,
)
from rlroute.envs.live import LiveBase
from rlroute.envs.observing import make_frame
from rlroute.jit import records
from rlroute.policy import TrainedPolicy
from rlroute.router import Response


class BudgetRouteLive(LiveBase):
    """A batch of one whose responses come from providers instead of a log."""

    slot_fields: ClassVar[dict[str, Any]] = TRACE
    estimates: ClassVar[tuple[str, ...]] = ESTIMATES
    one_cache: ClassVar[bool] = False  # as in dynamics

    @classmethod
    def check(cls, policy: TrainedPolicy) -> None:
        super().check(policy)
        for name in ("horizon", "prompt_cache", *(f"expensive/{choice}" for choice in policy.card["choices"])):
            policy.value("constants", name, kind=Real)

    def __init__(self, policy: TrainedPolicy, terms: Mapping[str, float | None]) -> None:
        super().__init__(policy, terms)
        self.calls = records((1, self.pool.size), CALL)
        clear(self.slots, self.calls, 0)
        self.step = 0
        expensive = np.array([bool(self.constants[f"expensive/{name}"]) for name in self.pool.names])
        cached = bool(self.constants["prompt_cache"])
        self.charged = charged_pool(self.pool, expensive, self.l_ref, cached, self.one_cache)
        self.frame = make_frame(self.layout, self.c_ref, int(self.constants["horizon"]))

    def situate(self, text: str, features: Mapping[str, float], prompt_tokens: int, can_think: bool) -> None:
        self.read(text, features, prompt_tokens)

    def callable(self) -> np.ndarray:
        covered = ~self.charged["expensive"] | (self.slots["calls_left"] >= 1)[:, None]
        return covered & self.affordable()

    def action_mask(self) -> np.ndarray:
        return self.callable().astype(np.int8)

    def write(self, out: np.ndarray) -> None:
        where = (out, 0, self.frame, self.slots, self.calls, self.charged, self.recording, 0, 0)
        observe_step(*where, self.step, self.action_mask())

    def taken(self, action: str, choice: int | None) -> float:
        """Every action of BudgetRoute is a call."""
        return 0.0

    def record(self, choice: int, response: Response) -> float:
        known = int(self.prompt_tokens[0, choice])
        prompt = known if response.prompt_tokens is None else response.prompt_tokens
        cached = served_tokens(self.slots, self.calls, self.charged, 0, choice, known)
        cost = self.cost_usd(choice, response, cached)
        add_call(self.slots, self.calls, self.charged, 0, choice, prompt, response.latency_s)
        self.step += 1
        return self.pay(cost)
