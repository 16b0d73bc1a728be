"""ThinkRoute in a live loop: one episode, observed through the same function as in replay."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any, ClassVar

import numpy as np

from rlroute.envs.live import LiveBase
from rlroute.envs.observing import make_frame
from rlroute.envs.think_route.heard import (
    CALL,
    MOST_ROUNDS,
    TRACE,
    UNLIMITED,
    accepted,
    add_reply,
    forget,
    house_rules,
    no_replies,
    write_mask,
)
from rlroute.envs.think_route.observation import (
    ESTIMATES,
    observe_progress,
    observe_question,
    observe_reply,
    observe_terms,
    timed_pool,
)
from rlroute.jit import records
from rlroute.policy import TrainedPolicy
from rlroute.router import Response


class ThinkRouteLive(LiveBase):
    """A batch of one whose responses come from providers.

    After thinking or accepting, and wherever the text changes, comes a new question: nothing is heard about it.
    """

    slot_fields: ClassVar[dict[str, Any]] = TRACE
    estimates: ClassVar[tuple[str, ...]] = ESTIMATES
    foreign_terms: ClassVar[dict[str, str]] = {"budget_calls": "ThinkRoute's own max_rounds of training, or budget_usd"}

    @classmethod
    def check(cls, policy: TrainedPolicy) -> None:
        super().check(policy)
        for name in ("checker", "commit", "repeat"):
            policy.value("arguments", name)
        for name in ("think_cost_usd", "check_cost_usd"):
            cls.check_price(policy, "arguments", name)
        for path in (("arguments", "max_rounds"), ("constants", "max_attempts")):
            calls = policy.value(*path, kind=Real)
            if not 1 <= calls <= MOST_ROUNDS:
                raise policy.fault(path, repr(calls), f"a number of calls from 1 to {MOST_ROUNDS:,}")

    def __init__(self, policy: TrainedPolicy, terms: Mapping[str, float | None]) -> None:
        super().__init__(policy, terms)
        rounds = int(self.arguments["max_rounds"])
        self.house = house_rules(self.arguments)
        self.heard, self.calls = no_replies(1, rounds), records((1, self.pool.size), CALL)
        self.calls["attempts"] = UNLIMITED if self.house.unlimited else int(self.constants["max_attempts"])
        forget(self.slots, self.calls, self.heard, 0)
        self.slots["rounds_left"] = rounds
        self.timed = timed_pool(self.pool, self.l_ref)
        self.frame = make_frame(self.layout, self.c_ref, 0)
        self.reserve_usd = np.zeros((1, self.pool.size))
        self._moved = False
        self._codes: dict[str, int] = {}

    def situate(self, text: str, features: Mapping[str, float], prompt_tokens: int, can_think: bool) -> None:
        moved = self._moved or (self._text is not None and text != self._text)
        self.read(text, features, prompt_tokens)  # may refuse, and then nothing has moved
        if moved:
            forget(self.slots, self.calls, self.heard, 0)
            self.slots["depth"] += 1
            self._moved = False
        self.slots["think_state"] = 0 if can_think else -1
        self.reserve_usd = self.pool.reserve_usd(self.prompt_tokens)

    def callable(self) -> np.ndarray:
        first_call, first_accept = self.layout.action("call", 0), self.layout.action("accept", 0)
        return self.action_mask()[:, first_call:first_accept].astype(bool)

    def action_mask(self) -> np.ndarray:
        mask = np.zeros((1, self.layout.num_actions), np.int8)
        write_mask(mask, self.house, self.slots, self.calls, self.reserve_usd, self.heard, 0, 0, self.pool.size)
        return mask

    def write(self, out: np.ndarray) -> None:
        slots, calls, heard = self.slots, self.calls, self.heard
        observe_terms(out, 0, self.frame, slots, self.timed)
        observe_question(out, 0, self.frame, slots, self.timed, self.recording, 0)
        for choice in np.flatnonzero(calls[0]["latest"] >= 0).tolist():
            observe_reply(out, 0, self.frame, calls, heard, choice)
        seen = (out, 0, self.frame, self.house, slots, calls, self.reserve_usd, heard)
        observe_progress(*seen, self.action_mask(), 0, self.pool.size)

    def taken(self, action: str, choice: int | None) -> float:
        self._moved = action in ("think", "accept")
        price = {"think": "think_cost_usd", "check": "check_cost_usd"}.get(action)
        return self.pay(float(self.arguments[price])) if price else 0.0

    def accepted(self, choice: int) -> tuple[int, int]:
        """The rule `commit` picks among all that were heard, as in replay; ties go to the earliest."""
        position = int(accepted(self.house, self.slots, self.calls, self.heard, 0, choice))
        return int(self.heard[0, position].choice), position

    def checked(self, verdict: float) -> None:
        reply = self._next_reply(-1)
        reply.verdict, reply.checkable = verdict, False

    def record(self, choice: int, response: Response) -> float:
        cost = self.cost_usd(choice, response, 0)  # may refuse, and then nothing was heard
        answer = " ".join((response.answer or "").lower().split())
        code = self._codes.setdefault(answer, len(self._codes)) if answer else -1
        limit, tokens = int(self.pool.max_completion_tokens[choice]), response.completion_tokens
        hidden = response.verdict is None or not self.house.shown
        reply = self._next_reply(0)
        reply.choice, reply.answer, reply.chars = choice, code, len(response.text or response.answer or "")
        reply.failed = code < 0 or response.error is not None
        reply.truncated = limit >= 0 and tokens is not None and tokens >= limit
        reply.verdict = np.nan if hidden else response.verdict
        reply.checkable = self.house.checks
        add_reply(self.slots, self.calls, self.heard, 0)
        return self.pay(cost)

    def _next_reply(self, offset: int) -> Any:
        """The record of the reply that comes next, or with −1 of the latest."""
        return self.heard[0, self.slots[0].num_heard + offset]
