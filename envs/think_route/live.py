"""ThinkRoute in a live loop: one episode, observed through the same function as in replay."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import ClassVar

import numpy as np

from rlroute.envs.live import LiveBase
from rlroute.envs.think_route.observation import Heard, Situation, write_observation
from rlroute.policy import TrainedPolicy
from rlroute.router import Response


class ThinkRouteLive(LiveBase):
    """A batch of one whose responses come from providers.

    After thinking or accepting, and wherever the text changes, comes a new question: nothing is heard about it.
    """

    foreign_terms: ClassVar[dict[str, str]] = {"budget_calls": "ThinkRoute's own max_rounds of training, or budget_usd"}

    @classmethod
    def check(cls, policy: TrainedPolicy) -> None:
        super().check(policy)
        for name in ("checker", "commit", "repeat"):
            policy.value("arguments", name)
        for name in ("think_cost_usd", "check_cost_usd"):
            cls.check_price(policy, "arguments", name)
        policy.value("arguments", "max_rounds", kind=Real)
        policy.value("constants", "max_attempts", kind=Real)

    def __init__(self, policy: TrainedPolicy, terms: Mapping[str, float | None]) -> None:
        super().__init__(policy, terms)
        rounds = int(self.arguments["max_rounds"])
        self.heard = Heard.nothing(1, rounds)
        self.rounds_left = np.array([rounds])
        self.depth = np.zeros(1, np.int64)
        self.can_think = np.zeros(1, bool)
        self._moved = False
        self._codes: dict[str, int] = {}

    def situate(self, text: str, features: Mapping[str, float], prompt_tokens: int, can_think: bool) -> None:
        moved = self._moved or (self._text is not None and text != self._text)
        self.read(text, features, prompt_tokens)  # may refuse, and then nothing has moved
        if moved:
            self.heard.clear(np.zeros(1, np.int64))
            self.depth += 1
            self._moved = False
        self.can_think = can_think & self._can_pay("think_cost_usd")

    def _can_pay(self, price: str) -> np.ndarray:
        """Thinking and checking serve calls to come: both need a round left, and their price."""
        return (self.rounds_left > 0) & (self.arguments[price] <= self.usd_left)

    def callable(self) -> np.ndarray:
        calls = (self.heard.choice[:, :, None] == np.arange(self.pool.size)).sum(axis=1)
        left = (calls < self.constants["max_attempts"]) | (self.arguments["repeat"] == "same")
        return left & (self.rounds_left > 0)[:, None] & self.affordable()

    def action_mask(self) -> np.ndarray:
        mask = np.zeros((1, self.layout.num_actions), np.int8)
        first_call, first_accept = self.layout.action("call", 0), self.layout.action("accept", 0)
        mask[:, 0] = self.can_think
        mask[:, first_call:first_accept] = self.callable()
        mask[:, first_accept:] = self.heard.latest(self.pool.size) >= 0
        if self.arguments["checker"] == "action" and self.heard.size[0]:
            unseen = np.isnan(self.heard.verdict[0, self.heard.size[0] - 1])
            mask[:, 1] = unseen & self._can_pay("check_cost_usd")
        return mask

    def write(self, out: np.ndarray, common: dict[str, np.ndarray]) -> None:
        situation = Situation(
            can_think=self.can_think,
            depth=self.depth,
            rounds_left=self.rounds_left,
            spent_usd=self.spent_usd,
            **common,
        )
        write_observation(out, self.layout, self.pool, self.terms, situation, self.heard, self.c_ref, self.l_ref)

    def taken(self, action: str, choice: int | None) -> float:
        self._moved = action in ("think", "accept")
        price = {"think": "think_cost_usd", "check": "check_cost_usd"}.get(action)
        return self.pay(float(self.arguments[price])) if price else 0.0

    def accepted(self, choice: int) -> tuple[int, int]:
        """The rule `commit` picks among all that were heard, as in replay; ties go to the earliest."""
        position = int(self.heard.latest(self.pool.size)[0, choice])
        rule = self.arguments["commit"]
        if rule != "policy":
            verdict = np.nan_to_num(self.heard.verdict[0], nan=-1.0)
            score = self.heard.agreement()[0].astype(np.float64) if rule == "plurality" else verdict
            position = int(np.where(self.heard.choice[0] < 0, -np.inf, score).argmax())
        return int(self.heard.choice[0, position]), position

    def checked(self, verdict: float) -> None:
        self.heard.verdict[0, self.heard.size[0] - 1] = verdict

    def record(self, choice: int, response: Response) -> float:
        cost = self.cost_usd(choice, response, 0)  # may refuse, and then nothing was heard
        answer = " ".join((response.answer or "").lower().split())
        code = self._codes.setdefault(answer, len(self._codes)) if answer else -1
        limit, tokens = int(self.pool.max_completion_tokens[choice]), response.completion_tokens
        hidden = response.verdict is None or self.arguments["checker"] != "observe"
        self.heard.add(
            np.zeros(1, np.int64),
            np.array([choice]),
            answer=np.array([code]),
            chars=np.array([len(response.text or response.answer or "")]),
            failed=np.array([code < 0 or response.error is not None]),
            truncated=np.array([limit >= 0 and tokens is not None and tokens >= limit]),
            verdict=np.array([np.nan if hidden else response.verdict]),
        )
        self.rounds_left -= 1
        return self.pay(cost)
