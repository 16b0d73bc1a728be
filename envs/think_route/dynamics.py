"""ThinkRoute: its arguments, and N episodes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rlroute.envs.arguments import ReplayArguments, require_one_of
from rlroute.envs.replay import ReplayDynamics
from rlroute.envs.terms import Range
from rlroute.envs.think_route import transitions
from rlroute.envs.think_route.heard import CALL, COMMITS, MOST_ROUNDS, TRACE, house_rules, no_replies
from rlroute.envs.think_route.observation import ESTIMATES, make_layout, timed_pool
from rlroute.envs.think_route.transitions import Game
from rlroute.jit import records
from rlroute.rewards import RECENT


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
        require_one_of("commit", self.commit, COMMITS)
        if not 1 <= self.max_rounds <= MOST_ROUNDS:
            raise ValueError(f"max_rounds={self.max_rounds!r}: expected 1 to {MOST_ROUNDS:,} calls")
        for name in ("check_cost_usd", "think_cost_usd"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected a price ≥ 0 in USD")
        if self.budget_calls is not None:
            raise ValueError("budget_calls is not an argument of ThinkRoute: expected max_rounds, or budget_usd")


class ThinkRouteDynamics(ReplayDynamics):
    """N episodes of ThinkRoute."""

    family: ClassVar[str] = "rlroute/ThinkRoute-v0"
    arguments_type = ThinkRouteArguments
    slot_fields: ClassVar[dict[str, Any]] = TRACE
    response_fields: ClassVar[tuple[str, ...]] = transitions.RESPONSE_FIELDS
    estimates: ClassVar[tuple[str, ...]] = ESTIMATES
    enter_all = staticmethod(transitions.enter_all)
    step_all = staticmethod(transitions.step_all)
    arguments: ThinkRouteArguments

    def __init__(self, arguments: ThinkRouteArguments, num_envs: int) -> None:
        super().__init__(arguments, num_envs)
        index = arguments.obs == "index"
        self.layout = self.as_trained(make_layout(self.pool.size, self.arrays.extra.shape[1], arguments.checker, index))
        pool, recording = timed_pool(self.pool, self.l_ref), self.recording(self.layout)
        self.game = Game(
            num_choices=self.pool.size,
            num_tallies=len(self.tallies),
            slots=self.slots,
            calls=records((num_envs, self.pool.size), CALL),
            reserve_usd=np.zeros((num_envs, self.pool.size)),
            heard=no_replies(num_envs, arguments.max_rounds),
            mask=np.zeros((num_envs, self.layout.num_actions), np.int8),
            seen=np.zeros((num_envs, self.layout.size), np.float32),
            in_pool=np.ones((num_envs, self.pool.size), bool),
            pool_size=self.pool_size,
            roots=self.roots,
            pool=pool,
            recording=recording,
            frame=self.frame(self.layout),
            house=house_rules(vars(arguments)),
            reward=self.reward_rules(),
            recent=np.zeros((2, RECENT + 1)),
            tallies=self.tally,
        )

    @property
    def default_max_episode_steps(self) -> int:
        # At worst every call is checked and every sub-question accepted; some room for invalid actions on top.
        return 4 * self.arguments.max_rounds + 16

    # -- what policies may read ---------------------------------------------------------------------------------

    @property
    def calls(self) -> np.ndarray:
        return self.arguments.max_rounds - self.rounds_left

    @property
    def rounds_left(self) -> np.ndarray:
        """Calls left in each episode, (num_envs,)."""
        return np.asarray(self.slots["rounds_left"])

    @property
    def depth(self) -> np.ndarray:
        """0 at the whole question, k in its k-th sub-question, (num_envs,)."""
        return np.asarray(self.slots["depth"])

    @property
    def num_heard(self) -> np.ndarray:
        """Replies heard at the question at hand, (num_envs,)."""
        return np.asarray(self.slots["num_heard"])

    @property
    def count(self) -> np.ndarray:
        """Of these, how many each choice gave, (num_envs, num_choices)."""
        return np.asarray(self.game.calls["count"])

    @property
    def heard_choice(self) -> np.ndarray:
        """Who gave them, in call order, (num_envs, max_rounds); −1 where nothing was heard."""
        return np.asarray(self.game.heard["choice"])

    @property
    def heard_row(self) -> np.ndarray:
        """Their response rows, likewise."""
        return np.asarray(self.game.heard["row"])

    @property
    def verdict_seen(self) -> np.ndarray:
        """The checker's verdicts on them, likewise; NaN where none was seen."""
        return np.asarray(self.game.heard["verdict"])

    @property
    def latest_row(self) -> np.ndarray:
        """Response row of each choice's latest reply, (num_envs, num_choices); −1 where it gave none."""
        latest = self.game.calls["latest"]
        return np.where(latest >= 0, np.take_along_axis(self.heard_row, np.maximum(latest, 0), axis=1), -1)

    def describe_progress(self, slot: int) -> list[str]:
        lines = [f"rounds left: {self.rounds_left[slot]}"]
        for reply in self.game.heard[slot, : self.num_heard[slot]]:
            said = self.log.answer_text(int(reply.row)) or "(nothing)"
            seen = "" if np.isnan(reply.verdict) else f"  [checker: {reply.verdict:.2f}]"
            lines.append(f"  {self.pool.names[reply.choice]}: {said}{seen}")
        return lines
