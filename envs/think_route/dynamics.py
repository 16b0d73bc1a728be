"""ThinkRoute: what an action does and which actions are masked. Arrays in, arrays out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlroute.envs.arguments import ReplayArguments, require_one_of
from rlroute.envs.replay import ReplayDynamics
from rlroute.envs.terms import Range
from rlroute.envs.think_route.observation import Heard, Situation, make_layout, write_observation
from rlroute.rewards import COST_USD, LATENCY_S, QUALITY


@dataclass(frozen=True)
class ThinkRouteArguments(ReplayArguments):
    """Arguments of ThinkRoute, beside the common ones."""

    preference: Range = (0.01, 1.0)
    max_rounds: int = 4  # calls in an episode (Router-R1: 4), then only accepting is allowed
    checker: str | None = "observe"  # verdicts: "observe" with each response, "action" at a price, None hidden
    check_cost_usd: float = 0.0  # price of one check, for checker="action"
    think_cost_usd: float = 0.0  # the router's own tokens for one think
    commit: str = "policy"  # accepted response: the "policy"'s own, or by rule "plurality" or "verdict"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("checker", self.checker, ("observe", "action", None))
        require_one_of("commit", self.commit, ("policy", "plurality", "verdict"))
        if self.max_rounds < 1:
            raise ValueError(f"max_rounds={self.max_rounds!r}: expected at least 1 call")
        for name in ("check_cost_usd", "think_cost_usd"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected a price ≥ 0 in USD")
        if self.budget_calls is not None:
            raise ValueError("budget_calls is not an argument of ThinkRoute: expected max_rounds, or budget_usd")


class ThinkRouteDynamics(ReplayDynamics):
    """N episodes of ThinkRoute."""

    family: ClassVar[str] = "rlroute/ThinkRoute-v0"
    arguments_type = ThinkRouteArguments
    arguments: ThinkRouteArguments

    def __init__(self, arguments: ThinkRouteArguments, num_envs: int) -> None:
        super().__init__(arguments, num_envs)
        num_choices, rounds = self.pool.size, arguments.max_rounds
        self.layout = self.as_trained(
            make_layout(num_choices, self.arrays.extra.shape[1], arguments.checker, index=arguments.obs == "index")
        )
        self.first_call = self.layout.action("call", 0)
        self.first_accept = self.layout.action("accept", 0)
        self.heard = Heard.nothing(num_envs, rounds)
        self.heard_row = np.full((num_envs, rounds), -1, np.int64)  # response rows of `heard`
        self.row = np.full((num_envs, num_choices), -1, np.int64)  # latest response row of each choice here
        self.count = np.zeros((num_envs, num_choices), np.int64)  # attempts drawn here
        self.rounds_left = np.full(num_envs, rounds)
        self.depth = np.zeros(num_envs, np.int64)

    @property
    def default_max_episode_steps(self) -> int:
        # At worst every call is checked and every sub-question accepted; some room for invalid actions on top.
        return 4 * self.arguments.max_rounds + 16

    @property
    def calls(self) -> np.ndarray:
        return self.arguments.max_rounds - self.rounds_left

    @property
    def heard_choice(self) -> np.ndarray:
        return self.heard.choice

    @property
    def num_heard(self) -> np.ndarray:
        return self.heard.size

    @property
    def verdict_seen(self) -> np.ndarray:
        return self.heard.verdict

    # -- transitions --------------------------------------------------------------------------------------------

    def enter_task(self, which: np.ndarray) -> None:
        self.rounds_left[which] = self.arguments.max_rounds
        self.depth[which] = 0
        self._forget(which)

    def _enter(self, which: np.ndarray, state: np.ndarray) -> None:
        self.state[which] = state
        self.depth[which] += 1
        self._forget(which)

    def _forget(self, which: np.ndarray) -> None:
        """A new question: nothing has been heard about it."""
        self.heard.clear(which)
        self.heard_row[which] = self.row[which] = -1
        self.count[which] = 0

    def act(self, which: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        vector = np.zeros((len(which), 4))
        terminated = np.zeros(len(which), bool)
        thinks = action == 0
        calls = (action >= self.first_call) & (action < self.first_accept)
        accepts = action >= self.first_accept
        checks = ~(thinks | calls | accepts)
        if thinks.any():
            vector[thinks, COST_USD] = self.arguments.think_cost_usd
            self._enter(which[thinks], self.arrays.think_state[self.state[which[thinks]]])
        if calls.any():
            vector[calls] = self._call(which[calls], action[calls] - self.first_call)
        if checks.any():
            slots = which[checks]
            vector[checks, COST_USD] = self.arguments.check_cost_usd
            last = (slots, self.heard.size[slots] - 1)
            self.heard.verdict[last] = self.arrays.verdict[self.heard_row[last]]
        if accepts.any():
            vector[accepts, QUALITY], terminated[accepts] = self._accept(
                which[accepts], action[accepts] - self.first_accept
            )
        return vector, terminated

    def _call(self, which: np.ndarray, choice: np.ndarray) -> np.ndarray:
        row = self.draw(which, choice, self.count[which, choice])
        arrays = self.arrays
        hidden = np.full(len(which), np.nan)
        self.heard_row[which, self.heard.size[which]] = row
        self.heard.add(
            which,
            choice,
            answer=arrays.answer[row],
            chars=arrays.answer_chars[row],
            failed=(arrays.answer[row] < 0) | arrays.error[row],
            truncated=arrays.truncated[row],
            verdict=arrays.verdict[row] if self.arguments.checker == "observe" else hidden,
        )
        self.row[which, choice] = row
        self.count[which, choice] += 1
        self.rounds_left[which] -= 1
        tokens = arrays.completion_tokens[row]
        cost = arrays.cost_usd[row]
        self.totals.output_cost_usd[which] += np.where(tokens >= 0, tokens * self.pool.output_usd[choice], cost)
        vector = np.zeros((len(which), 4))
        vector[:, COST_USD] = cost
        vector[:, LATENCY_S] = np.nan_to_num(arrays.latency_s[row])
        return vector

    def _accept(self, which: np.ndarray, choice: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        row = self.row[which, choice]
        if self.arguments.commit != "policy":
            row = self._committed(which)
        following = self.arrays.next_state[row]
        goes_on = (following >= 0) & ~self.arrays.terminal[following]
        at_end = np.where(following >= 0, self.arrays.success[following], self.arrays.quality[row])
        self._enter(which[goes_on], following[goes_on])
        return np.where(goes_on, 0.0, at_end), ~goes_on

    def _committed(self, which: np.ndarray) -> np.ndarray:
        """The response that the rule `commit` picks among those heard; ties go to the earliest."""
        if self.arguments.commit == "plurality":
            score = self.heard.agreement()[which].astype(np.float64)
        else:
            score = np.nan_to_num(self.heard.verdict[which], nan=-1.0)
        score[self.heard.choice[which] < 0] = -np.inf
        return self.heard_row[which, score.argmax(axis=1)]

    # -- what a policy sees -------------------------------------------------------------------------------------

    def _prompt_tokens(self) -> np.ndarray:
        return self.arrays.prompt_tokens_of[self.state]

    def _callable(self) -> np.ndarray:
        recorded = self.recorded(self.state)
        left = recorded > (0 if self.arguments.repeat == "same" else self.count)
        return left & (self.rounds_left > 0)[:, None] & self.affordable(self._prompt_tokens())

    def write_action_mask(self, mask: np.ndarray) -> None:
        can_call = self._callable()
        mask[:, 0] = self._can_think()
        mask[:, self.first_call : self.first_accept] = can_call
        mask[:, self.first_accept :] = self.row >= 0
        if self.arguments.checker == "action":
            last = np.maximum(self.heard.size - 1, 0)
            slots = np.arange(self.num_envs)
            row = self.heard_row[slots, last]
            unseen = np.isnan(self.heard.verdict[slots, last]) & ~np.isnan(self.arrays.verdict[row])
            mask[:, 1] = (
                (self.heard.size > 0)
                & unseen
                & (self.rounds_left > 0)
                & (self.arguments.check_cost_usd <= self.usd_left)
            )

    def _can_think(self) -> np.ndarray:
        """Thinking is possible at a question with sub-questions, while there is a call left to ask them with."""
        affordable = self.arguments.think_cost_usd <= self.usd_left
        return (self.arrays.think_state[self.state] >= 0) & (self.rounds_left > 0) & affordable

    def observe(self, out: np.ndarray) -> None:
        index = self.arguments.obs == "index"
        can_call = self._callable()
        situation = Situation(
            text=self.text[self.state, : self.text_size],
            extra=self.features.extra[self.state],
            prior=self.prior[self.state],
            prompt_tokens=self._prompt_tokens(),
            can_think=self._can_think(),
            depth=self.depth,
            rounds_left=self.rounds_left,
            usd_left=self.usd_left,
            spent_usd=self.totals.cost_usd,
            callable=can_call,
        )
        write_observation(
            out,
            self.layout,
            self.pool,
            self.terms,
            situation,
            self.heard,
            self.c_ref,
            self.l_ref,
            row=self.state if index else None,
        )

    def describe_progress(self, slot: int) -> list[str]:
        lines = [f"rounds left: {self.rounds_left[slot]}"]
        for k in range(self.heard.size[slot]):
            verdict = self.heard.verdict[slot, k]
            said = self.log.answer_text(int(self.heard_row[slot, k])) or "(nothing)"
            seen = "" if np.isnan(verdict) else f"  [checker: {verdict:.2f}]"
            lines.append(f"  {self.pool.names[self.heard.choice[slot, k]]}: {said}{seen}")
        return lines
