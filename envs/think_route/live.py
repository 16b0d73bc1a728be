"""ThinkRoute in a live loop: one episode, observed through the same function as in replay."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rlroute.envs.live import LiveBase
from rlroute.envs.think_route.observation import Heard, Situation, write_observation
from rlroute.policy import TrainedPolicy
from rlroute.router import Response


class ThinkRouteLive(LiveBase):
    """A batch of one whose responses come from providers.

    After thinking or accepting, and wherever the text changes, comes a new question: nothing is heard about it.
    """

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
        if self._moved or (self._text is not None and text != self._text):
            self.heard.clear(np.zeros(1, np.int64))
            self.depth += 1
            self._moved = False
        self.read(text, features, prompt_tokens)
        affordable = self.arguments["think_cost_usd"] <= self.usd_left
        self.can_think = can_think & (self.rounds_left > 0) & affordable

    def _callable(self) -> np.ndarray:
        calls = (self.heard.choice[:, :, None] == np.arange(self.pool.size)).sum(axis=1)
        left = (calls < self.constants["max_attempts"]) | (self.arguments["repeat"] == "same")
        return left & (self.rounds_left > 0)[:, None] & self.affordable()

    def action_mask(self) -> np.ndarray:
        mask = np.zeros((1, self.layout.num_actions), np.int8)
        first_call, first_accept = self.layout.action("call", 0), self.layout.action("accept", 0)
        mask[:, 0] = self.can_think
        mask[:, first_call:first_accept] = self._callable()
        mask[:, first_accept:] = self.heard.latest(self.pool.size) >= 0
        if self.arguments["checker"] == "action" and self.heard.size[0]:
            unseen = np.isnan(self.heard.verdict[0, self.heard.size[0] - 1])
            mask[:, 1] = unseen & (self.rounds_left > 0) & (self.arguments["check_cost_usd"] <= self.usd_left)
        return mask

    def observe(self) -> np.ndarray:
        out = np.empty((1, self.layout.size), np.float32)
        situation = Situation(
            text=self.text,
            extra=self.extra,
            prior=self.prior,
            prompt_tokens=self.prompt_tokens,
            can_think=self.can_think,
            depth=self.depth,
            rounds_left=self.rounds_left,
            usd_left=self.usd_left,
            spent_usd=self.spent_usd,
            callable=self._callable(),
        )
        write_observation(out, self.layout, self.pool, self.terms, situation, self.heard, self.c_ref, self.l_ref)
        return out

    def taken(self, action: str, choice: int | None) -> float:
        self._moved = action in ("think", "accept")
        price = {"think": "think_cost_usd", "check": "check_cost_usd"}.get(action)
        return self.pay(float(self.arguments[price])) if price else 0.0

    def checked(self, verdict: float) -> None:
        self.heard.verdict[0, self.heard.size[0] - 1] = verdict

    def record(self, choice: int, response: Response) -> float:
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
        cost = self.cost_usd(choice, response, 0)
        self.rounds_left -= 1
        return self.pay(cost)
